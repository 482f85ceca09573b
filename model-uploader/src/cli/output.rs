//! What is printed: results on standard output, progress and errors on standard error.

use super::arguments::Global;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use model_uploader::{Event, prices};
use serde_json::{Value, json};
use std::time::Duration;

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(100);

/// Where and how much to print.
pub struct Output {
    json: bool,
    quiet: bool,
}

impl Output {
    pub fn new(global: &Global) -> Self {
        Self { json: global.json, quiet: global.quiet }
    }

    /// A result: `value` with --json, else `text`.
    pub fn result(&self, value: &Value, text: &str) {
        if self.json {
            println!("{value}");
        } else {
            println!("{}", text.trim_end());
        }
    }

    /// Something worth knowing that is not the result.
    pub fn note(&self, text: &str) {
        if !self.json && !self.quiet {
            eprintln!("{text}");
        }
    }

    pub fn error(&self, error: &anyhow::Error, hint: Option<String>) {
        if self.json {
            println!("{}", json!({ "error": format!("{error:#}"), "hint": hint }));
        }
        eprintln!("error: {error:#}");
        if let Some(hint) = hint {
            eprintln!("hint: {hint}");
        }
    }

    /// A bar on standard error, if that is a terminal and progress is wanted.
    pub fn bar(&self) -> ProgressBar {
        // indicatif itself draws nothing where standard error is no terminal.
        let target = if self.json || self.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        ProgressBar::with_draw_target(None, target)
    }

    /// A turning sign with a text, until it is dropped.
    pub fn spinner(&self, text: String) -> Spinner {
        let bar = self.bar();
        bar.set_style(style("{spinner} {msg} {elapsed}"));
        bar.set_message(text);
        bar.enable_steady_tick(TICK);
        Spinner { bar }
    }
}

/// See [`Output::spinner`].
pub struct Spinner {
    bar: ProgressBar,
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are ours; one that can't be read shows indicatif's own bar.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

/// Shows an upload's events as one bar that changes with the stage.
pub struct UploadProgress {
    bar: ProgressBar,
    stage: std::sync::Mutex<&'static str>,
}

impl UploadProgress {
    pub fn new(output: &Output) -> Self {
        Self { bar: output.bar(), stage: std::sync::Mutex::new("") }
    }

    pub fn show(&self, event: Event) {
        match event {
            Event::Hashing { bytes_done, bytes_total } => {
                self.stage("hashing   ", bytes_total, true);
                self.bar.set_position(bytes_done);
            }
            Event::Begun { bytes_stored, bytes_total, .. } => {
                self.stage("uploading ", bytes_total, true);
                self.bar.set_position(bytes_stored);
                // Rate and remaining time are of what is sent now.
                self.bar.reset_eta();
            }
            Event::ChunkStored { bytes } => self.bar.inc(bytes),
            Event::Committing { bytes_done, bytes_total } => {
                self.stage("verifying ", bytes_total, true);
                self.bar.set_position(bytes_done);
            }
            Event::Loading { done, total } => {
                self.stage("loading   ", total, false);
                self.bar.set_position(done);
            }
            Event::Committed | Event::Ready | Event::Activated => {}
        }
    }

    fn stage(&self, name: &'static str, total: u64, is_bytes: bool) {
        let mut stage = self.stage.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *stage != name {
            *stage = name;
            self.bar.set_style(style(if is_bytes {
                "{msg} [{bar:32}] {bytes}/{total_bytes} {bytes_per_sec} {eta}"
            } else {
                "{msg} [{bar:32}] {percent}% {elapsed}"
            }));
            self.bar.set_message(name);
        }
        self.bar.set_length(total);
    }
}

impl Drop for UploadProgress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Cycles and what they cost: `12.3 billion cycles ($0.0168)`.
pub fn cycles_text(cycles: u128) -> String {
    let (value, unit) = match cycles {
        0..1_000_000_000 => (cycles as f64 / 1e6, "million"),
        1_000_000_000..1_000_000_000_000 => (cycles as f64 / 1e9, "billion"),
        _ => (cycles as f64 / 1e12, "trillion"),
    };
    format!("{value:.3} {unit} cycles (${:.6})", prices::usd(cycles))
}

/// Cycles as JSON: they outgrow a double's integers, so they are text.
pub fn cycles_json(cycles: u128) -> Value {
    json!({ "cycles": cycles.to_string(), "usd": prices::usd(cycles) })
}

/// `1.5 MB`, in decimal units.
pub fn bytes_text(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_readable() {
        assert_eq!(cycles_text(40_005_000_000), "40.005 billion cycles ($0.054664)");
        assert_eq!(cycles_text(5_000_000), "5.000 million cycles ($0.000007)");
        assert_eq!(cycles_text(10_012_680_000_000), "10.013 trillion cycles ($13.681626)");
        assert_eq!(
            [bytes_text(999), bytes_text(18_541_382), bytes_text(3_800_000_000)],
            ["999 B", "18.5 MB", "3.80 GB"]
        );
    }
}
