//! The project in the hands of `icp`, the real one: a network, a deployment with its model, and all that its users do
//! with a canister afterwards. One network serves the whole file, so the steps are one test, in order.

use anyhow::{Context, Result, ensure};
use candid::{Decode, Encode, Principal};
use end_to_end_tests::environment;
use end_to_end_tests::icp::Project;
use end_to_end_tests::models::{classify_request, photo};
use onnx_canister_interface::{Classification, Error, ModelInfo, ModelRef, ModelState};
use serde_json::Value;
use std::fs;

const CANISTER: &str = "onnx-canister";
const MODEL: &str = "efficientnet-lite0";
/// Who calls when no identity was made.
const ANONYMOUS: &str = "2vxsx-fae";

/// A canister with one composite query: asks the canister whose id is its argument for `health`, and passes the answer on.
const COMPOSITE: &str = r#"(module
    (import "ic0" "msg_arg_data_size" (func $arg_size (result i32)))
    (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (import "ic0" "call_new" (func $call_new (param i32 i32 i32 i32 i32 i32 i32 i32)))
    (import "ic0" "call_data_append" (func $call_data (param i32 i32)))
    (import "ic0" "call_perform" (func $perform (result i32)))
    (table 2 2 funcref)
    (elem (i32.const 0) $answered $refused)
    (memory 1)
    (data (i32.const 0) "health")
    (data (i32.const 16) "DIDL\00\00")
    (func $answered (param i32)
        (call $arg_copy (i32.const 64) (i32.const 0) (call $arg_size))
        (call $append (i32.const 64) (call $arg_size))
        (call $reply))
    (func $refused (param i32) unreachable)
    (func (export "canister_composite_query ask")
        (call $arg_copy (i32.const 32) (i32.const 0) (call $arg_size))
        (call $call_new (i32.const 32) (call $arg_size) (i32.const 0) (i32.const 6)
            (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0))
        (call $call_data (i32.const 16) (i32.const 6))
        (if (call $perform) (then unreachable))))"#;

#[test]
fn a_project_lives_in_the_hands_of_icp() -> Result<()> {
    let project = Project::new()?;
    ensure!(project.icp(&["--version"])?.contains(end_to_end_tests::icp::VERSION));
    project.icp(&["settings", "update-check", "disabled"])?;

    let status = the_network_starts(&project)?;
    let canister = deploying_uploads_the_model(&project)?;
    classify_answers(&project)?;
    an_upgrade_keeps_the_model(&project)?;
    settings_are_shown_and_changed(&project)?;
    traps_are_in_the_log(&project)?;
    a_snapshot_brings_a_deleted_model_back(&project)?;
    a_downloaded_snapshot_is_uploaded_and_restored(&project)?;
    delegated_identities_are_who_they_speak_for(&project, canister)?;
    the_proxy_passes_calls_on(&project, &status)?;
    a_composite_query_asks_another_canister(&project, canister)?;
    cycles_go_in_and_come_back(&project)?;
    the_network_stops_and_starts_again(&project)
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("no {key} in {value}"))
}

fn the_network_starts(project: &Project) -> Result<Value> {
    project.icp(&["network", "start", "--background"])?;
    let status = project.icp_json(&["network", "status", "--json"])?;
    ensure!(status["managed"] == true, "{status}");
    // Both are Wasm of DFINITY's that icp brings and installs.
    for principal in ["candid_ui_principal", "proxy_canister_principal"] {
        Principal::from_text(text(&status, principal)?)?;
    }
    Ok(status)
}

fn deploying_uploads_the_model(project: &Project) -> Result<Principal> {
    project.icp(&["deploy"])?;
    let info = model_info(project, &[])?;
    ensure!(info.state == ModelState::Ready && info.active, "the sync step left {info:?}");
    let status = project.icp_json(&["canister", "status", CANISTER, "--json"])?;
    Principal::from_text(text(&status, "id")?).context("the canister's id")
}

/// A call's reply as bytes; `options` go between canister and method.
fn call(project: &Project, method: &str, argument: &[u8], options: &[&str]) -> Result<Vec<u8>> {
    // By file: the argument of a photo is longer than a command line may be.
    let path = project.path().join("argument.bin");
    fs::write(&path, argument)?;
    let mut arguments = vec!["canister", "call", CANISTER, method, "--args-file", "argument.bin"];
    arguments.extend(["--args-format", "bin", "--output", "hex"]);
    arguments.extend(options);
    let printed = project.icp(&arguments)?;
    let digits = printed.split_whitespace().last().unwrap_or_default();
    hex::decode(digits).with_context(|| format!("{method} printed {printed}"))
}

fn model_info(project: &Project, options: &[&str]) -> Result<ModelInfo> {
    let argument = Encode!(&ModelRef { name: MODEL.to_string(), version: None })?;
    let reply = call(project, "model_info", &argument, &[&["--query"], options].concat())?;
    Ok(Decode!(&reply, Result<ModelInfo, Error>)??)
}

fn classify_answers(project: &Project) -> Result<()> {
    let request = classify_request(&ModelRef { name: MODEL.to_string(), version: None }, photo("chelsea.png"));
    let reply = call(project, "classify", &Encode!(&request)?, &[])?;
    let answer = Decode!(&reply, Result<Classification, Error>)??;
    ensure!(answer.labels[0].label.contains("cat"), "{:?}", answer.labels);
    // The same as people see it: names come from the module's Candid metadata.
    let printed = project.icp(&[
        "canister",
        "call",
        CANISTER,
        "classify",
        "--args-file",
        "argument.bin",
        "--args-format",
        "bin",
    ])?;
    for shown in ["Ok = record", "label = ", "cat", "instructions = "] {
        ensure!(printed.contains(shown), "no {shown} in {printed}");
    }
    Ok(())
}

fn an_upgrade_keeps_the_model(project: &Project) -> Result<()> {
    project.icp(&["deploy", "--mode", "upgrade", "--yes"])?;
    let info = model_info(project, &[])?;
    // Heap is lost at an upgrade; the sync step has loaded the stored model again and sent nothing.
    ensure!(info.state == ModelState::Ready && info.active && info.version == 1, "{info:?}");
    classify_answers(project)
}

fn settings_are_shown_and_changed(project: &Project) -> Result<()> {
    let settings =
        || -> Result<Value> { Ok(project.icp_json(&["canister", "status", CANISTER, "--json"])?["settings"].clone()) };
    let before = settings()?;
    ensure!(before["wasm_memory_limit"] == "4_294_967_296" && before["freezing_threshold"] == "7_776_000", "{before}");
    ensure!(before["log_visibility"]["type"] == "Controllers", "{before}");
    project.icp(&["canister", "settings", "update", CANISTER, "--log-visibility", "public"])?;
    let after = settings()?;
    ensure!(after["log_visibility"]["type"] == "Public", "{after}");
    let shown = project.icp(&["canister", "settings", "show", CANISTER])?;
    ensure!(shown.contains("Log visibility: Public") && shown.contains("4_294_967_296"), "{shown}");
    Ok(())
}

fn traps_are_in_the_log(project: &Project) -> Result<()> {
    // Bytes that are no Candid: decoding them traps, in the canister's own words.
    let refused = ["canister", "call", CANISTER, "delete_input", "00ff", "--args-format", "hex"];
    let message = project.icp_fails(&refused)?;
    ensure!(message.contains("IC0503") || message.contains("IC0502"), "{message}");
    let log = project.icp(&["canister", "logs", CANISTER])?;
    ensure!(log.contains("Cannot parse header 00ff"), "{log}");
    Ok(())
}

fn a_snapshot_brings_a_deleted_model_back(project: &Project) -> Result<()> {
    let message = project.icp_fails(&["canister", "snapshot", "create", CANISTER])?;
    ensure!(message.contains("stop the canister first"), "{message}");
    project.icp(&["canister", "stop", CANISTER])?;
    project.icp(&["canister", "snapshot", "create", CANISTER])?;
    project.icp(&["canister", "start", CANISTER])?;
    let id = only_snapshot(project)?;

    let delete = format!("(record {{ name = \"{MODEL}\"; version = opt 1 }})");
    project.icp(&["canister", "call", CANISTER, "delete_model", &delete])?;
    ensure!(model_info(project, &[]).is_err(), "the model is still there");

    project.icp(&["canister", "stop", CANISTER])?;
    project.icp(&["canister", "snapshot", "restore", CANISTER, &id])?;
    project.icp(&["canister", "start", CANISTER])?;
    let info = model_info(project, &[])?;
    // The heap came back as well: nothing has to be loaded again.
    ensure!(info.state == ModelState::Ready && info.active, "{info:?}");
    classify_answers(project)
}

fn only_snapshot(project: &Project) -> Result<String> {
    let listed = project.icp_json(&["canister", "snapshot", "list", CANISTER, "--json"])?;
    let snapshots = listed["snapshots"].as_array().context("a list")?;
    ensure!(snapshots.len() == 1, "{listed}");
    ensure!(snapshots[0]["total_size_bytes"].as_u64() > Some(50_000_000), "model and heap are not in it: {listed}");
    Ok(text(&snapshots[0], "snapshot_id")?.to_string())
}

fn a_downloaded_snapshot_is_uploaded_and_restored(project: &Project) -> Result<()> {
    let first = only_snapshot(project)?;
    project.icp(&["canister", "snapshot", "download", CANISTER, &first, "--output", "snapshot"])?;
    project.icp(&["canister", "snapshot", "delete", CANISTER, &first])?;
    project.icp(&["canister", "snapshot", "upload", CANISTER, "--input", "snapshot"])?;
    let second = only_snapshot(project)?;
    ensure!(second != first, "the id of a deleted snapshot came again");
    project.icp(&["canister", "stop", CANISTER])?;
    project.icp(&["canister", "snapshot", "restore", CANISTER, &second])?;
    project.icp(&["canister", "start", CANISTER])?;
    classify_answers(project)?;
    project.icp(&["canister", "snapshot", "delete", CANISTER, &second])?;
    let message = project.icp_fails(&["canister", "snapshot", "restore", CANISTER, &second])?;
    ensure!(message.contains("IC0305") || message.to_lowercase().contains("stop"), "{message}");
    Ok(())
}

/// A session key that an owner's key delegates to, in icp and in the uploader.
fn delegated_identities_are_who_they_speak_for(project: &Project, canister: Principal) -> Result<()> {
    project.icp(&["identity", "new", "alice", "--storage", "plaintext"])?;
    let alice = project.icp(&["identity", "principal", "--identity", "alice"])?.trim().to_string();
    let key = project.icp(&["identity", "delegation", "request", "session", "--storage", "plaintext"])?;
    fs::write(project.path().join("session.pem"), key)?;
    let sign =
        ["identity", "delegation", "sign", "--identity", "alice", "--key-pem", "session.pem", "--duration", "1h"];
    let chain = project.icp(&[&sign[..], &["--canisters", &canister.to_text()]].concat())?;
    fs::write(project.path().join("chain.json"), chain)?;
    project.icp(&["identity", "delegation", "use", "session", "--from-json", "chain.json"])?;
    ensure!(project.icp(&["identity", "principal", "--identity", "session"])?.trim() == alice);

    // Guarded endpoints turn strangers away, and let in whom a controller made one.
    let unload = format!("(record {{ name = \"{MODEL}\" }})");
    let as_session = ["canister", "call", CANISTER, "unload", &unload, "--identity", "session"];
    let uploader = environment::uploader_bin()?;
    let list = || -> Result<std::process::Output> {
        Ok(project
            .command(&uploader)?
            .args(["--identity", "session", "--canister", CANISTER, "load", MODEL])
            .output()?)
    };
    let message = project.icp_fails(&as_session)?;
    ensure!(message.contains("IC0406"), "{message}");
    ensure!(!list()?.status.success(), "a stranger loaded a model");
    project.icp(&["canister", "settings", "update", CANISTER, "--add-controller", &alice])?;
    project.icp(&as_session)?;
    let loaded = list()?;
    ensure!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    ensure!(model_info(project, &[])?.state == ModelState::Ready);
    Ok(())
}

fn the_proxy_passes_calls_on(project: &Project, status: &Value) -> Result<()> {
    let proxy = text(status, "proxy_canister_principal")?;
    let direct = project.icp(&["canister", "call", CANISTER, "health", "()"])?;
    let proxied =
        project.icp(&["canister", "call", CANISTER, "health", "()", "--proxy", proxy, "--cycles", "1000000"])?;
    let models = |printed: &str| printed.lines().find(|line| line.contains("models_ready")).map(str::to_string);
    ensure!(models(&direct).is_some() && models(&direct) == models(&proxied), "{direct}\n{proxied}");
    // Whom the canister sees is the proxy: an endpoint for controllers tells it that it is none.
    let refused = project.icp(&["canister", "call", CANISTER, "rollback", "(\"x\")", "--proxy", proxy])?;
    ensure!(refused.contains("NotAuthorized") && refused.contains(proxy), "{refused}");
    Ok(())
}

fn a_composite_query_asks_another_canister(project: &Project, canister: Principal) -> Result<()> {
    fs::write(project.path().join("composite.wasm"), wat::parse_str(COMPOSITE)?)?;
    let created = project.icp_json(&["canister", "create", "--detached", "--json"])?;
    let id = text(&created, "canister_id")?.to_string();
    project.icp(&["canister", "install", &id, "--wasm", "composite.wasm"])?;
    let argument = hex::encode(canister.as_slice());
    let ask = ["canister", "call", &id, "ask", &argument, "--args-format", "hex", "--output", "hex"];
    let printed = project.icp(&[&ask[..], &["--query"]].concat())?;
    let reply = hex::decode(printed.split_whitespace().last().unwrap_or_default())?;
    let health = Decode!(&reply, onnx_canister_interface::Health)?;
    ensure!(health.models_ready == 1, "{health:?}");
    let message = project.icp_fails(&ask)?;
    ensure!(message.contains("IC0527") || message.contains("composite"), "{message}");
    Ok(())
}

fn cycles_go_in_and_come_back(project: &Project) -> Result<()> {
    let digits = |printed: &str| -> Result<u128> {
        let digits: String = printed.chars().filter(char::is_ascii_digit).collect();
        digits.parse().with_context(|| format!("cycles in {printed}"))
    };
    let own = || digits(&project.icp(&["cycles", "balance", "--identity", "alice"])?);
    let balance = || -> Result<u128> {
        let status = project.icp_json(&["canister", "status", CANISTER, "--json"])?;
        digits(&status["cycles"].to_string())
    };
    let alice = project.icp(&["identity", "principal", "--identity", "alice"])?.trim().to_string();
    ensure!(own()? == 0);
    project.icp(&["cycles", "transfer", "5t", &alice])?;
    ensure!(own()? == 5_000_000_000_000);
    let before = balance()?;
    project.icp(&["canister", "top-up", CANISTER, "--amount", "1t", "--identity", "alice"])?;
    ensure!(balance()? > before + 990_000_000_000, "{before}");
    ensure!(own()? < 4_000_000_000_000);
    project.icp(&["cycles", "mint", "--icp", "1"])?;

    // Deleting sends what the canister has left to the ledger first.
    project.icp(&["canister", "stop", CANISTER])?;
    let (left, before) = (balance()?, own()?);
    project.icp(&["canister", "delete", CANISTER, "--identity", "alice"])?;
    let recovered = own()? - before;
    ensure!(recovered > left / 2, "{recovered} of {left} came back");
    ensure!(project.try_icp(&["canister", "status", CANISTER])?.status.code() != Some(0));
    Ok(())
}

fn the_network_stops_and_starts_again(project: &Project) -> Result<()> {
    project.icp(&["network", "stop"])?;
    let message = project.icp_fails(&["network", "status"])?;
    ensure!(message.contains("not running"), "{message}");
    project.icp(&["network", "start", "--background"])?;
    project.icp(&["network", "ping"])?;
    // icp clears a managed network when it starts it: nothing is deployed, and deploying works as before.
    ensure!(project.icp_fails(&["canister", "status", CANISTER])?.contains("could not find ID"));
    let anonymous = project.icp(&["identity", "principal"])?;
    ensure!(anonymous.trim() == ANONYMOUS, "{anonymous}");
    project.icp(&["network", "stop"])?;
    Ok(())
}
