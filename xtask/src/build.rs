//! Builds the canister's Wasm, and the programs that the demo and the tests run.

use crate::process::{cargo, output, root, run, target_dir};
use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
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
    let mut wasm = build_wasm(&mut cargo_wasm(&[])?)?;
    let did = read(&root().join("canister/onnx-canister.did"))?;
    append_custom_section(&mut wasm, "icp:public candid:service", &did);
    append_custom_section(&mut wasm, "icp:public candid:args", b"(opt InitArgs)");

    let folder = wasm_folder()?;
    let paths = CanisterWasm { wasm: folder.join("onnx-canister.wasm"), gzip: folder.join("onnx-canister.wasm.gz") };
    write_if_changed(&paths.wasm, &wasm)?;
    write_if_changed(&paths.gzip, &gzip(&wasm)?)?;
    eprintln!("{} bytes, code section {} bytes", wasm.len(), crate::size::code_section_bytes(&wasm)?);
    for path in [&paths.wasm, &paths.gzip] {
        eprintln!("sha256 {}  {}", sha256(path)?, path.display());
    }
    Ok(paths)
}

/// Builds `target/wasm/onnx-canister-canbench.wasm`: the canister and its benchmarks of the model at `model`.
pub fn canbench(model: &Path) -> Result<(), String> {
    ensure_wasm_target()?;
    let wasm = build_wasm(cargo_wasm(&["--features", "canbench"])?.env("ONNX_CANISTER_BENCH_MODEL", model))?;
    write_if_changed(&wasm_folder()?.join("onnx-canister-canbench.wasm"), &wasm)
}

/// Runs a command of [`cargo_wasm`] and reads the module that it leaves.
fn build_wasm(command: &mut Command) -> Result<Vec<u8>, String> {
    run(command)?;
    read(&target_dir().join(WASM_TARGET).join("canister/onnx_canister.wasm"))
}

/// Where finished modules go.
fn wasm_folder() -> Result<PathBuf, String> {
    let folder = target_dir().join("wasm");
    fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(folder)
}

/// Builds the canister of plain tract that the engine is compared with, and returns its module.
pub fn baseline() -> Result<PathBuf, String> {
    ensure_wasm_target()?;
    let folder = target_dir().join("baseline");
    // A workspace of its own below this one, so cargo reads the same configuration.
    let mut build = cargo(&["build", "--locked", "--release", "--target", WASM_TARGET]);
    run(build.current_dir(root().join("benches/baseline")).env("CARGO_TARGET_DIR", &folder))?;
    Ok(folder.join(WASM_TARGET).join("release/tract_baseline.wasm"))
}

/// The canister's build command, with further arguments: the same source gives the same bytes in every folder.
fn cargo_wasm(arguments: &[&str]) -> Result<Command, String> {
    // Fetched first: the flags below name the folders that the sources are in.
    run(&mut cargo(&["fetch", "--locked", "--quiet", "--target", WASM_TARGET]))?;
    let flags: Vec<String> = path_prefixes()?
        .iter()
        .map(|(from, to)| format!("{:?}", format!("--remap-path-prefix={}={to}", from.display())))
        .collect();
    // Joined by cargo to the flags in .cargo/config.toml, which the environment would replace.
    let config = format!("target.{WASM_TARGET}.rustflags=[{}]", flags.join(","));
    let mut command = cargo(&["build", "--locked", "-p", "onnx-canister", "--target", WASM_TARGET]);
    command.args(["--profile", "canister", "--config", &config]).args(arguments);
    command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    Ok(command)
}

/// Folders of this machine that panics would name in the Wasm, and what stands for them there.
fn path_prefixes() -> Result<Vec<(PathBuf, &'static str)>, String> {
    let cargo_home = match std::env::var_os("CARGO_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => std::env::home_dir().ok_or("no home folder, and CARGO_HOME is not set")?.join(".cargo"),
    };
    let mut prefixes = vec![(root().to_path_buf(), "/source")];
    // One folder for each registry: its name tells whether crates came from crates.io or a mirror.
    let registries = cargo_home.join("registry/src");
    for entry in fs::read_dir(&registries).map_err(|e| format!("{}: {e}", registries.display()))? {
        prefixes.push((entry.map_err(|e| format!("{}: {e}", registries.display()))?.path(), "/registry"));
    }
    prefixes.sort();
    Ok(prefixes)
}

/// Builds the canister from the last commit in another folder and compares.
pub fn check_reproducible() -> Result<(), String> {
    let changed = output(Command::new("git").current_dir(root()).args(["status", "--porcelain"]))?;
    if !changed.is_empty() {
        return Err(format!("the clone is made of the last commit, and these files differ from it:\n{changed}"));
    }
    let built = canister()?;
    let here = [sha256(&built.wasm)?, sha256(&built.gzip)?];
    // Not below the root: cargo would read the root's configuration as well as the clone's.
    let clone = std::env::temp_dir().join(format!("onnx-canister, another folder {}", std::process::id()));
    let there = build_clone(&clone);
    fs::remove_dir_all(&clone).map_err(|e| format!("{}: {e}", clone.display()))?;
    let there = there?;
    if here != there {
        return Err(format!(
            "the Wasm depends on where it is built: sha256 of module and gzipped module {here:?} here, {there:?} in {}",
            clone.display()
        ));
    }
    let [wasm, gzip] = here;
    println!("two folders, one Wasm: sha256 {wasm}, gzipped {gzip}");
    Ok(())
}

/// Clones the last commit to a folder, builds the canister there and returns the sha256 of the Wasm and of the gzipped one.
fn build_clone(clone: &Path) -> Result<[String; 2], String> {
    run(Command::new("git").args(["clone", "--quiet", "--no-hardlinks"]).arg(root()).arg(clone))?;
    // The clone's own xtask: a change of the build itself is seen too.
    let mut build = cargo(&["run", "--quiet", "--locked", "--package", "xtask", "--", "build-canister"]);
    run(build.current_dir(clone).env("CARGO_TARGET_DIR", clone.join("target")))?;
    let wasm = clone.join("target/wasm/onnx-canister.wasm");
    Ok([sha256(&wasm)?, sha256(&wasm.with_extension("wasm.gz"))?])
}

fn sha256(path: &Path) -> Result<String, String> {
    Ok(hex::encode(Sha256::digest(read(path)?)))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Builds the workspace's binaries natively and returns the folder they are in.
pub fn binaries() -> Result<PathBuf, String> {
    // All of them whatever is wanted: another selection has other features, and would compile the dependencies again.
    run(&mut cargo(&["build", "--locked", "--workspace", "--bins"]))?;
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
