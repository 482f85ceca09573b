//! Builds the canister's Wasm, and the programs that the demo and the tests run.

use crate::process::{cargo, output, root, run, target_dir};
use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

pub const WASM_TARGET: &str = "wasm32-unknown-unknown";

/// What `build-canister` leaves behind.
pub struct CanisterWasm {
    pub wasm: PathBuf,
    pub gzip: PathBuf,
}

/// Builds `target/wasm/onnx-canister.wasm` with its public Candid metadata, and the same gzipped.
pub fn canister() -> Result<CanisterWasm, String> {
    ensure_wasm_target()?;
    eprintln!("building the canister (a full link-time optimisation: some minutes when anything changed)");
    run(&mut cargo(&["build", "--locked", "-p", "onnx-canister", "--target", WASM_TARGET, "--profile", "canister"]))?;

    let built = target_dir().join(WASM_TARGET).join("canister/onnx_canister.wasm");
    let mut wasm = fs::read(&built).map_err(|e| format!("{}: {e}", built.display()))?;
    let did_path = root().join("canister/onnx-canister.did");
    let did = fs::read(&did_path).map_err(|e| format!("{}: {e}", did_path.display()))?;
    append_custom_section(&mut wasm, "icp:public candid:service", &did);
    append_custom_section(&mut wasm, "icp:public candid:args", b"(opt InitArgs)");

    let folder = target_dir().join("wasm");
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let paths = CanisterWasm { wasm: folder.join("onnx-canister.wasm"), gzip: folder.join("onnx-canister.wasm.gz") };
    write_if_changed(&paths.wasm, &wasm)?;
    write_if_changed(&paths.gzip, &gzip(&wasm)?)?;
    eprintln!(
        "{}: {} bytes, code section {} bytes, sha256 {}",
        paths.wasm.display(),
        wasm.len(),
        crate::size::code_section_bytes(&wasm)?,
        hex::encode(Sha256::digest(&wasm)),
    );
    Ok(paths)
}

/// Builds the named binaries of the workspace natively and returns the folder they are in.
pub fn binaries(packages: &[&str]) -> Result<PathBuf, String> {
    let mut arguments = vec!["build", "--locked", "--bins"];
    for package in packages {
        arguments.extend(["-p", package]);
    }
    run(&mut cargo(&arguments))?;
    Ok(target_dir().join("debug"))
}

/// Adds the Wasm target to the toolchain when rustup is there and it is missing.
pub fn ensure_wasm_target() -> Result<(), String> {
    let Ok(installed) = output(Command::new("rustup").current_dir(root()).args(["target", "list", "--installed"]))
    else {
        // Without rustup the toolchain is somebody else's business; cargo's own message is clear when it lacks the target.
        return Ok(());
    };
    if installed.lines().any(|line| line.trim() == WASM_TARGET) {
        return Ok(());
    }
    run(Command::new("rustup").current_dir(root()).args(["target", "add", WASM_TARGET]))
}

/// Appends a custom section (WebAssembly Core Specification, 5.5.3) to a module.
fn append_custom_section(wasm: &mut Vec<u8>, name: &str, data: &[u8]) {
    let mut body = Vec::new();
    push_leb128(&mut body, name.len());
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(data);
    wasm.push(0);
    push_leb128(wasm, body.len());
    wasm.extend_from_slice(&body);
}

fn push_leb128(bytes: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Gzip without a time stamp, so that equal modules give equal files.
fn gzip(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).map_err(|e| format!("gzip: {e}"))
}

/// Keeps the file's time when nothing changed, so that what depends on it is not rebuilt.
fn write_if_changed(path: &PathBuf, bytes: &[u8]) -> Result<(), String> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    fs::write(path, bytes).map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_custom_section_is_read_back_by_a_parser() {
        let mut wasm = b"\0asm\x01\0\0\0".to_vec();
        let data = vec![7; 300];
        append_custom_section(&mut wasm, "icp:public candid:service", &data);
        let sections: Vec<_> = wasmparser::Parser::new(0)
            .parse_all(&wasm)
            .filter_map(|payload| match payload {
                Ok(wasmparser::Payload::CustomSection(section)) => {
                    Some((section.name().to_string(), section.data().to_vec()))
                }
                _ => None,
            })
            .collect();
        assert_eq!(sections, [("icp:public candid:service".to_string(), data)]);
    }
}
