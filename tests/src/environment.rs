//! The programs under test, as `cargo xtask` passes them.

use anyhow::{Context, Result};
use flate2::read::GzDecoder;
use std::io::Read;
use std::path::PathBuf;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The embedded replica's binary.
pub fn replica_bin() -> Result<PathBuf> {
    variable("REPLICA_BIN")
}

/// The uploader's binary.
pub fn uploader_bin() -> Result<PathBuf> {
    variable("MODEL_UPLOADER_BIN")
}

/// The canister's Wasm, gzipped or not.
pub fn canister_wasm() -> Result<Vec<u8>> {
    let path = variable("ONNX_CANISTER_WASM")?;
    std::fs::read(&path).with_context(|| format!("canister module {}", path.display()))
}

/// The canister's Wasm module itself.
pub fn canister_module() -> Result<Vec<u8>> {
    let bytes = canister_wasm()?;
    if !bytes.starts_with(&GZIP_MAGIC) {
        return Ok(bytes);
    }
    let mut wasm = Vec::new();
    GzDecoder::new(bytes.as_slice()).read_to_end(&mut wasm).context("gzip")?;
    Ok(wasm)
}

fn variable(name: &str) -> Result<PathBuf> {
    std::env::var_os(name)
        .map(PathBuf::from)
        .with_context(|| format!("{name} is not set: run these through `cargo xtask test`, `demo` or `bench`"))
}
