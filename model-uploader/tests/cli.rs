//! The program as a user runs it: exit codes, help, and what goes where.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    run_in(Path::new(env!("CARGO_MANIFEST_DIR")), arguments)
}

fn run_in(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_model-uploader"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("ICP_ENVIRONMENT")
        .env_remove("ICP_CLI_CID")
        .output()
        .expect("the program was built for this test")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("standard output is one JSON value")
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_is_wrong() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (arguments, expected) in [
        (vec!["frobnicate"], "frobnicate"),
        (vec!["upload"], "NAME"),
        (vec!["fetch", "no-such-model"], "efficientnet-lite0"),
        (vec!["list", "--canister", "not-there", "--anonymous"], "not-there"),
        (vec!["list", "--canister", "aaaaa-aa", "--anonymous", "--network", "nowhere"], "nowhere"),
        (vec!["list", "--canister", "aaaaa-aa", "--identity", "no-such-identity-here"], "no-such-identity-here"),
        (vec!["list", "--canister", "aaaaa-aa", "--anonymous", "--replica-url", "no url"], "no url"),
        (vec!["infer", "m", "--input", "x"], "NAME=FILE"),
    ] {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
    }
    let output = run_in(folder.path(), &["fetch", "magika"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("--recipes"));
}

#[test]
fn failures_exit_with_1_and_a_hint() {
    // Port 1 of this machine has no listener.
    let arguments = ["list", "--canister", "aaaaa-aa", "--anonymous", "--replica-url", "http://127.0.0.1:1"];
    let output = run(&arguments);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("hint: is the network running"), "{}", stderr(&output));
    assert!(output.stdout.is_empty());

    let output = run(&[&arguments[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(json(&output)["error"].as_str().is_some_and(|text| text.contains("root key")));

    let output = run(&["inspect", "no-such-file.onnx"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no-such-file.onnx"));
}

#[test]
fn recipes_are_listed_with_their_licences() {
    let output = run(&["fetch", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let recipes = json(&output);
    let recipe = recipes.as_array().and_then(|list| list.iter().find(|recipe| recipe["name"] == "magika"));
    assert!(recipe.is_some_and(|recipe| recipe["licence"].as_str().is_some_and(|text| text.contains("Apache-2.0"))));
}

#[test]
fn every_command_describes_itself() {
    let help = run(&["--help"]);
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(text.contains("Exit codes") && text.contains("ICP_ENVIRONMENT"));
    for command in [
        "inspect", "fetch", "upload", "classify", "infer", "list", "status", "load", "unload", "activate", "rollback",
        "delete", "health",
    ] {
        assert!(text.contains(&format!("\n  {command} ")), "{command}");
        assert_eq!(run(&[command, "--help"]).status.code(), Some(0), "{command}");
    }
}
