//! `cargo xtask canbench`: DFINITY's benchmark runner on the embedded replica.

use crate::build;
use crate::process::{cargo, output, root, run, target_dir};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const VERSION: &str = "0.7.0";
/// The PocketIC server that this version of canbench insists on.
const POCKET_IC_VERSION: &str = "13.0.0";
/// The runner leaves smaller changes out of its comparison. Instructions are deterministic; the compiler's choices move them.
const NOISE_PERCENT: &str = "1";

/// Builds the module with the benchmarks: what `canbench.yml` calls.
pub fn build() -> Result<(), String> {
    build_with(&build::binaries()?)
}

/// As [`build`], with the uploader that is in the folder `binaries`.
fn build_with(binaries: &Path) -> Result<(), String> {
    let uploader = binaries.join("model-uploader");
    let fetched = output(Command::new(uploader).current_dir(root()).args(["fetch", "efficientnet-lite0", "--json"]))?;
    let fetched: serde_json::Value =
        serde_json::from_str(&fetched).map_err(|e| format!("what model-uploader fetch printed: {e}"))?;
    let model = fetched["files"][0].as_str().ok_or("model-uploader fetch named no file")?;
    build::canbench(Path::new(model))
}

/// Runs every benchmark. Without `--persist` a figure that is not the committed one is an error.
pub fn run_benchmarks(arguments: &[&str]) -> Result<(), String> {
    let persist = match arguments {
        [] => false,
        ["--persist"] => true,
        other => return Err(format!("canbench takes --persist or nothing, not {other:?}")),
    };
    let runner = install()?;
    let binaries = build::binaries()?;
    build_with(&binaries)?;
    let mut command = Command::new(runner);
    command
        .current_dir(root())
        .args(["--no-runtime-integrity-check", "--less-verbose", "--show-summary"])
        .args(["--noise-threshold", NOISE_PERCENT, "--runtime-path"])
        .arg(binaries.join("replica"))
        .env("REPLICA_POCKET_IC_VERSION", POCKET_IC_VERSION)
        .env("CANBENCH_CFG_FILE", configuration()?);
    if persist {
        return run(command.arg("--persist"));
    }
    let shown = output(command.stderr(Stdio::inherit()))?;
    print!("{shown}");
    let changed: Vec<&str> = shown.lines().filter(|line| is_change(line)).collect();
    match changed.as_slice() {
        [] => Ok(()),
        changed => Err(format!(
            "figures changed; if they should have, run `cargo xtask canbench --persist` and commit it\n{}",
            changed.join("\n")
        )),
    }
}

/// Writes what `canbench.yml` says for the module that is built already, wherever the target folder is.
fn configuration() -> Result<PathBuf, String> {
    let path = root().join("canbench.yml");
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let kept: Vec<String> = text
        .lines()
        .filter(|line| !line.starts_with("build_cmd:"))
        .map(|line| line.replace("./target/", &format!("{}/", target_dir().display())))
        .collect();
    let written = target_dir().join(format!("canbench-{VERSION}/canbench.yml"));
    fs::write(&written, kept.join("\n")).map_err(|e| format!("{}: {e}", written.display()))?;
    Ok(written)
}

/// Whether a line of the runner's report tells a figure that is not the committed one.
fn is_change(line: &str) -> bool {
    ["(regressed", "(improved", "(new)"].iter().any(|status| line.contains(status))
}

/// Installs the runner into the target folder, unless it is there; unoptimised, since the work is done by the replica.
fn install() -> Result<PathBuf, String> {
    let folder = target_dir().join(format!("canbench-{VERSION}"));
    let runner = folder.join("bin/canbench");
    if !runner.exists() {
        fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let mut install = cargo(&["install", "canbench", "--version", VERSION, "--locked", "--debug", "--root"]);
        let built = folder.join("build");
        run(install.arg(&folder).arg("--target-dir").arg(&built))?;
        fs::remove_dir_all(&built).map_err(|e| format!("{}: {e}", built.display()))?;
    }
    Ok(runner)
}

#[cfg(test)]
mod tests {
    use super::is_change;

    #[test]
    fn a_figure_that_moved_is_seen() {
        assert!(is_change("  instructions: 3.20 M (regressed by 12.00%)"));
        assert!(is_change("  instructions: 2.20 M (improved by 12.00%)"));
        assert!(is_change("Benchmark: put_chunk (new)"));
        assert!(!is_change("  instructions: 3.20 M (no change)"));
    }
}
