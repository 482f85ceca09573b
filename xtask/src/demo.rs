//! `cargo xtask demo`.

use crate::build;
use crate::process::{root, run};
use std::process::Command;

/// Builds what the demo runs and hands over to it.
pub fn demo(arguments: &[&str]) -> Result<(), String> {
    let binaries = build::binaries()?;
    let canister = build::canister()?;
    run(Command::new(binaries.join("demo"))
        .current_dir(root())
        .args(arguments)
        .env("REPLICA_BIN", binaries.join("replica"))
        .env("MODEL_UPLOADER_BIN", binaries.join("model-uploader"))
        .env("ONNX_CANISTER_WASM", canister.gzip))
}
