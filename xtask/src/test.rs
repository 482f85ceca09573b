//! `cargo xtask test`, `bench` and `lint`.

use crate::build::{self, CanisterWasm};
use crate::kernels;
use crate::process::{cargo, root, run, target_dir};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Builds the canister and the replica, fetches the models that tests classify with, runs every test.
///
/// `POCKET_IC_BIN`, when set, names the server that the `pocket-ic` tests run on: the genuine one runs them as well.
pub fn test(arguments: &[&str]) -> Result<(), String> {
    // Building the tests builds the binaries they run, with the same features: nothing is compiled twice.
    run(&mut cargo(&["test", "--locked", "--workspace", "--no-run"]))?;
    let binaries = target_dir().join("debug");
    kernels::test(&binaries.join("replica"))?;
    let canister = build::canister()?;
    for model in ["efficientnet-lite0", "efficientnet-lite0-int8", "magika", "minilm-l6-int8", "smollm2-135m-instruct"]
    {
        run(Command::new(binaries.join("model-uploader")).current_dir(root()).args(["fetch", model]))?;
    }
    let mut tests = cargo(&["test", "--locked", "--workspace"]);
    tests
        .args(arguments)
        .env("REPLICA_BIN", binaries.join("replica"))
        .env("MODEL_UPLOADER_BIN", binaries.join("model-uploader"))
        .env("ONNX_CANISTER_WASM", &canister.gzip)
        .env("POCKET_IC_MUTE_SERVER", "1");
    if std::env::var_os("POCKET_IC_BIN").is_none() {
        tests.env("POCKET_IC_BIN", binaries.join("replica"));
    }
    run_counting(&mut tests)?;
    // The figures of the models that the tests have fetched.
    run_bench(&["--check", "--quick"], &binaries, &canister)
}

/// Runs `cargo test`, shows what it prints, and ends with the number of tests and their duration.
fn run_counting(tests: &mut Command) -> Result<(), String> {
    let started = Instant::now();
    let mut child = tests.stdout(Stdio::piped()).spawn().map_err(|e| format!("cannot run cargo test: {e}"))?;
    let mut passed = 0;
    for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines) {
        let line = line.map_err(|e| format!("what cargo test prints: {e}"))?;
        println!("{line}");
        passed += passed_tests(&line).unwrap_or(0);
    }
    let status = child.wait().map_err(|e| format!("cargo test: {e}"))?;
    if !status.success() {
        return Err(format!("`cargo test` failed: {status}"));
    }
    println!("{passed} tests passed in {} s", started.elapsed().as_secs());
    Ok(())
}

/// The count in a test binary's last line: `test result: ok. 33 passed; 0 failed; ...`.
fn passed_tests(line: &str) -> Option<u64> {
    let (count, _) = line.strip_prefix("test result: ok. ")?.split_once(" passed;")?;
    count.parse().ok()
}

/// Measures what an inference costs, or checks it against the committed figures.
pub fn bench(arguments: &[&str]) -> Result<(), String> {
    run_bench(arguments, &build::binaries()?, &build::canister()?)
}

/// Measures what plain tract takes for the same: it does not change unless its version does.
pub fn bench_baseline(arguments: &[&str]) -> Result<(), String> {
    let module = build::baseline()?;
    let module = module.to_str().ok_or("the target folder's path is not UTF-8")?;
    run_bench(&[&["--baseline", module], arguments].concat(), &build::binaries()?, &build::canister()?)
}

fn run_bench(arguments: &[&str], binaries: &Path, canister: &CanisterWasm) -> Result<(), String> {
    run(Command::new(binaries.join("bench"))
        .current_dir(root())
        .args(arguments)
        .env("REPLICA_BIN", binaries.join("replica"))
        .env("MODEL_UPLOADER_BIN", binaries.join("model-uploader"))
        .env("ONNX_CANISTER_WASM", &canister.gzip))
}

/// Runs the cases of ONNX's own suite.
pub fn conformance(arguments: &[&str]) -> Result<(), String> {
    let binaries = build::binaries()?;
    run(Command::new(binaries.join("onnx-conformance")).current_dir(root()).args(arguments))
}

/// Writes the files that the fuzzers begin with.
pub fn fuzz_seeds(folders: &[&str]) -> Result<(), String> {
    run(Command::new(build::binaries()?.join("fuzz-seeds")).args(folders))
}

/// Formatting and clippy, warnings denied.
pub fn lint() -> Result<(), String> {
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    run(&mut cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

#[cfg(test)]
mod tests {
    use super::passed_tests;

    #[test]
    fn tests_are_counted_from_the_line_that_ends_a_binary() {
        let line = "test result: ok. 33 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s";
        assert_eq!(passed_tests(line), Some(33));
        assert_eq!(passed_tests("test upload::works ... ok"), None);
    }
}
