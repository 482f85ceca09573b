//! The committed Candid file, the module's metadata and the module's exports tell of one service.

use anyhow::{Context, Result, bail, ensure};
use candid::Encode;
use candid_parser::syntax::IDLInitArgs;
use candid_parser::typing::check_init_args;
use candid_parser::utils::{CandidSource, instantiate_candid, service_compatible, service_equal};
use end_to_end_tests::{environment, npm};
use onnx_canister_interface::{InitArgs, SettingsPatch};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use wasmparser::{Parser, Payload};

const DID: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../canister/onnx-canister.did");
const IC_WASM: &str = "0.11.1";

/// What the module exports and the service does not name, as ic-wasm writes it: the network's own entry points, the
/// canister's step to itself, and what two crates export under names of theirs.
const HIDDEN: &str = "\
canister_init
canister_pre_upgrade
canister_post_upgrade
canister_inspect_message
canister_global_timer
canister_update:__run_step
__getrandom_v03_custom
get_candid_pointer
";

fn did() -> Result<String> {
    std::fs::read_to_string(DID).context(DID)
}

/// A custom section of the module, as text.
fn metadata(name: &str) -> Result<String> {
    let module = environment::canister_module()?;
    for payload in Parser::new(0).parse_all(&module) {
        if let Payload::CustomSection(section) = payload?
            && section.name() == name
        {
            return Ok(String::from_utf8(section.data().to_vec())?);
        }
    }
    bail!("the module has no section {name}")
}

#[test]
fn the_public_metadata_are_the_committed_file() -> Result<()> {
    let (did, service) = (did()?, metadata("icp:public candid:service")?);
    ensure!(service == did, "the metadata differ from {DID}");
    service_equal(CandidSource::Text(&service), CandidSource::Text(&did))?;
    // Compatibility is seen where it ends: a method less, a field more that is needed.
    for (before, after) in [
        ("  cancel : (JobId) -> (variant { Ok : JobInfo; Err : Error });\n", ""),
        ("type ReadOutput = record { job : JobId;", "type ReadOutput = record { job : JobId; page : nat32;"),
    ] {
        ensure!(did.contains(before), "{before}");
        let other = did.replace(before, after);
        CandidSource::Text(&other).load()?;
        ensure!(service_compatible(CandidSource::Text(&other), CandidSource::Text(&did)).is_err(), "{before}");
    }
    Ok(())
}

#[test]
fn the_install_argument_is_in_the_metadata() -> Result<()> {
    let args: IDLInitArgs = metadata("icp:public candid:args")?.parse()?;
    let (of_service, (service_env, _)) = instantiate_candid(CandidSource::Text(&did()?))?;
    // The section may name types of the service.
    let mut env = candid::TypeEnv::new();
    let of_metadata = check_init_args(&mut env, &service_env, &args)?;
    ensure!(of_metadata == of_service && of_service.len() == 1, "{of_metadata:?}");
    let argument = Encode!(&Some(InitArgs {
        settings: Some(SettingsPatch { max_call_messages: Some(7), ..SettingsPatch::default() })
    }))?;
    let decoded = candid::IDLArgs::from_bytes_with_types(&argument, &env, &of_metadata)?.to_string();
    ensure!(decoded.contains("max_call_messages = opt (7 : nat32)"), "{decoded}");
    Ok(())
}

/// The real ic-wasm.
fn program() -> Result<PathBuf> {
    npm::binary("IC_WASM_BIN", "@icp-sdk/ic-wasm", IC_WASM, "ic-wasm")
}

#[test]
fn ic_wasm_finds_every_endpoint_and_no_other() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let (module, hidden) = (path("onnx-canister.wasm"), path("hidden.txt"));
    std::fs::write(&module, environment::canister_module()?)?;
    std::fs::write(&hidden, HIDDEN)?;
    let check = |module: &Path| -> Result<Output> {
        let mut command = Command::new(program()?);
        command.arg(module).args(["check-endpoints", "--candid", DID, "--hidden"]).arg(&hidden);
        Ok(command.env("RUST_BACKTRACE", "0").output()?)
    };
    let output = check(&module)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // It compares with the module's metadata where there are any: with a method less there, it finds one too many.
    let cut = did()?.replace("  rollback : (text) -> (variant { Ok : nat32; Err : Error });\n", "");
    std::fs::write(path("cut.did"), &cut)?;
    let other = path("other.wasm");
    let output = Command::new(program()?)
        .arg("-o")
        .arg(&other)
        .arg(&module)
        .args(["metadata", "candid:service", "-v", "public", "-f"])
        .arg(path("cut.did"))
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = check(&other)?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && message.contains("unexpected") && message.contains("rollback"), "{message}");
    Ok(())
}
