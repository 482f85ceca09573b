//! The committed list of all cases: each passes, or fails for a reason.

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What is said of a case that passes.
const PASS: &str = "pass";

/// Most characters of a reason.
const REASON_CHARACTERS: usize = 140;

/// What became of each case by name: `None` when it passes, else why it does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest(pub BTreeMap<String, Option<String>>);

impl Manifest {
    /// # Errors
    /// When a line is not `name: pass` or `name: reason`, or a name is there twice.
    pub fn parse(text: &str) -> Result<Manifest> {
        let mut cases = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, outcome) = line.split_once(": ").with_context(|| format!("line '{line}'"))?;
            let outcome = (outcome != PASS).then(|| outcome.to_string());
            ensure!(cases.insert(name.to_string(), outcome).is_none(), "{name} is there twice");
        }
        Ok(Manifest(cases))
    }

    pub fn passed(&self) -> usize {
        self.0.values().filter(|outcome| outcome.is_none()).count()
    }

    pub fn percent(&self) -> f64 {
        100.0 * self.passed() as f64 / self.0.len().max(1) as f64
    }

    /// The file's text.
    pub fn text(&self, header: &str) -> String {
        let mut text = String::new();
        for line in header.lines() {
            let _ = writeln!(text, "# {line}");
        }
        for (name, outcome) in &self.0 {
            let _ = writeln!(text, "{name}: {}", outcome.as_deref().unwrap_or(PASS));
        }
        text
    }

    /// The cases that pass in `self` and not in `now`, and those of which it is the other way around.
    pub fn changes<'a>(&'a self, now: &'a Manifest) -> (Vec<&'a str>, Vec<&'a str>) {
        let passes = |manifest: &Manifest, name: &str| matches!(manifest.0.get(name), Some(None));
        let only = |one: &'a Manifest, other: &Manifest| -> Vec<&'a str> {
            one.0.keys().filter(|name| passes(one, name) && !passes(other, name)).map(String::as_str).collect()
        };
        (only(self, now), only(now, self))
    }

    /// Fails when a case that passed does not any more, when a case is not listed, or when one that passes is not listed so.
    pub fn check(&self, now: &Manifest) -> Result<()> {
        let (lost, won) = self.changes(now);
        if !lost.is_empty() {
            bail!("{} cases of the manifest do not pass any more: {}", lost.len(), lost.join(", "));
        }
        ensure!(self.0.keys().eq(now.0.keys()), "the manifest does not list the package's cases: run with --update");
        ensure!(won.is_empty(), "{} cases pass that the manifest lists as failing: run with --update", won.len());
        Ok(())
    }
}

/// A reason in one short line.
pub fn short(reason: &str) -> String {
    let line = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(REASON_CHARACTERS) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_only_goes_up() -> Result<()> {
        let old = Manifest::parse("# header\na: pass\nb: it fails: badly\n")?;
        assert_eq!(old.0["b"].as_deref(), Some("it fails: badly"));
        assert_eq!(Manifest::parse(&old.text("header"))?, old);
        assert_eq!(old.percent(), 50.0);
        old.check(&old)?;
        for other in ["a: no\nb: no", "a: pass\nb: pass", "a: pass", "a: pass\nb: no\nc: no"] {
            assert!(old.check(&Manifest::parse(other)?).is_err(), "{other}");
        }
        old.check(&Manifest::parse("a: pass\nb: another reason")?)?;
        assert!(Manifest::parse("a: pass\na: pass").is_err());
        assert_eq!(short(&format!("a\n  b {}", "x".repeat(200))).chars().count(), REASON_CHARACTERS + 3);
        Ok(())
    }
}
