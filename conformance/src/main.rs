//! `cargo xtask conformance`: the backend node cases of the `onnx` package on the engine.

mod manifest;
mod package;
mod proto;
mod run;

use anyhow::{Context, Result, bail};
use manifest::Manifest;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

const HEADER: &str =
    "Backend node cases of the onnx package: pass, or why not. Written by `cargo xtask conformance --update`.";

/// Reasons that the summary shows.
const REASONS_SHOWN: usize = 40;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (mut update, mut verbose, mut filter) = (false, false, None);
    for argument in &arguments {
        match argument.as_str() {
            "--update" => update = true,
            "--verbose" => verbose = true,
            other if other.starts_with('-') => bail!("no option {other}; there are --update, --verbose and FILTER"),
            other => filter = Some(other),
        }
    }
    // A panic is reported as the outcome of its case.
    std::panic::set_hook(Box::new(|_| ()));
    let (cases, total) = package::read_cases(package::fetch()?)?;
    let cases: Vec<_> = cases.into_iter().filter(|case| filter.is_none_or(|part| case.name.contains(part))).collect();
    println!("{} of {total} cases take and give plain tensors of numbers", cases.len());
    let (now, native) = run_all(cases)?;
    summary(&now, native, verbose || filter.is_some());
    if filter.is_some() {
        return Ok(());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifest.txt");
    if update {
        return std::fs::write(&path, now.text(HEADER)).with_context(|| path.display().to_string());
    }
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Manifest::parse(&text)?.check(&now)
}

/// Runs the cases, a few at a time. Also counts those that pass by operators of ours alone.
fn run_all(cases: Vec<package::Case>) -> Result<(Manifest, usize)> {
    let threads = std::thread::available_parallelism()?.get();
    let left = Arc::new(Mutex::new(cases));
    let outcomes = Arc::new(Mutex::new((Manifest::default(), 0)));
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            let (left, outcomes) = (left.clone(), outcomes.clone());
            std::thread::spawn(move || {
                loop {
                    let Some(case) = left.lock().unwrap_or_else(PoisonError::into_inner).pop() else { return };
                    let name = case.name.clone();
                    let result = run::run(case);
                    let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                    outcomes.1 += usize::from(result.as_ref().is_ok_and(|passed| passed.is_native));
                    outcomes.0.0.insert(name, result.err().map(|reason| manifest::short(&reason)));
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?;
    }
    let outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(outcomes.clone())
}

/// Prints the percentage and what stands in the way of the rest.
fn summary(now: &Manifest, native: usize, every: bool) {
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, reason) in &now.0 {
        if let Some(reason) = reason {
            if every {
                println!("{name}: {reason}");
            }
            reasons.entry(reason).or_default().push(name);
        }
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by_key(|(_, names)| std::cmp::Reverse(names.len()));
    for (reason, names) in reasons.iter().take(if every { 0 } else { REASONS_SHOWN }) {
        println!("{:5}  {reason} ({})", names.len(), names[0]);
    }
    println!(
        "conformance: {} of {} cases pass, {:.2} %; {native} by operators of ours alone",
        now.passed(),
        now.0.len(),
        now.percent()
    );
}
