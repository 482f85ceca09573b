//! `cargo xtask test`, `bench` and `lint`.

use crate::process::{cargo, root, run, target_dir};
use crate::{build, kernels};
use std::process::Command;

/// Builds the canister and the replica, fetches the models that tests classify with, runs every test.
///
/// `POCKET_IC_BIN`, when set, names the server that the `pocket-ic` tests run on: the genuine one runs them as well.
pub fn test(arguments: &[&str]) -> Result<(), String> {
    // Building the tests builds the binaries they run, with the same features: nothing is compiled twice.
    run(&mut cargo(&["test", "--locked", "--workspace", "--no-run"]))?;
    let binaries = target_dir().join("debug");
    kernels::test(&binaries.join("replica"))?;
    let canister = build::canister()?;
    for model in ["efficientnet-lite0", "magika"] {
        run(Command::new(binaries.join("model-uploader")).current_dir(root()).args(["fetch", model]))?;
    }
    let mut tests = cargo(&["test", "--locked", "--workspace"]);
    tests
        .args(arguments)
        .env("REPLICA_BIN", binaries.join("replica"))
        .env("MODEL_UPLOADER_BIN", binaries.join("model-uploader"))
        .env("ONNX_CANISTER_WASM", canister.gzip)
        .env("POCKET_IC_MUTE_SERVER", "1");
    if std::env::var_os("POCKET_IC_BIN").is_none() {
        tests.env("POCKET_IC_BIN", binaries.join("replica"));
    }
    run(&mut tests)
}

/// Measures what an inference costs, or checks it against the committed figures.
pub fn bench(arguments: &[&str]) -> Result<(), String> {
    let binaries = build::binaries(&["replica", "model-uploader", "end-to-end-tests"])?;
    let canister = build::canister()?;
    run(Command::new(binaries.join("bench"))
        .current_dir(root())
        .args(arguments)
        .env("REPLICA_BIN", binaries.join("replica"))
        .env("MODEL_UPLOADER_BIN", binaries.join("model-uploader"))
        .env("ONNX_CANISTER_WASM", canister.gzip))
}

/// Formatting and clippy, warnings denied.
pub fn lint() -> Result<(), String> {
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    run(&mut cargo(&["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}
