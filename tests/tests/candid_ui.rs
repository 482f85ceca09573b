//! DFINITY's Candid UI in a real browser. Not a part of the usual tests: it needs Chromium and Node.js, and is run by
//! `cargo xtask test --test candid_ui -- --ignored`.

use anyhow::{Context, Result, ensure};
use end_to_end_tests::icp::Project;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

const BROWSER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/candid_ui/browser.mjs");
const CANISTER: &str = "onnx-canister";
const MODEL: &str = "efficientnet-lite0";

/// The browser: what `CHROMIUM_BIN` names, else Debian's `chromium`.
fn chromium() -> PathBuf {
    std::env::var_os("CHROMIUM_BIN").map_or_else(|| PathBuf::from("/usr/bin/chromium"), PathBuf::from)
}

#[test]
#[ignore = "needs Chromium"]
fn methods_are_called_by_their_forms() -> Result<()> {
    let project = Project::new()?;
    project.icp(&["network", "start", "--background"])?;
    project.icp(&["deploy"])?;
    let network = project.icp_json(&["network", "status", "--json"])?;
    let status = project.icp_json(&["canister", "status", CANISTER, "--json"])?;
    let text = |value: &Value, key: &str| {
        value[key].as_str().map(str::to_string).with_context(|| format!("no {key} in {value}"))
    };
    let gateway = text(&network, "gateway_url")?;
    let (_, host) = gateway.trim_end_matches('/').split_once("//").context("a URL")?;
    let url = format!("http://{}.{host}/?id={}", text(&network, "candid_ui_principal")?, text(&status, "id")?);

    let screenshot = std::env::temp_dir().join("onnx-canister-candid-ui.png");
    let mut browser = Command::new("node");
    browser.arg(BROWSER).arg(chromium()).arg(&url).arg(&screenshot);
    let output = browser.args(["list_models", "model_info=nobody", "health"]).output().context("node")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answers: Value = serde_json::from_slice(&output.stdout)?;
    println!("{answers:#}\nscreenshot: {}", screenshot.display());

    // Fields have their names, and a form's text arrives.
    let models = answers["list_models"]["Ok"].as_array().context("a list of models")?;
    ensure!(models.len() == 1 && models[0]["name"] == MODEL && models[0]["active"] == true, "{answers}");
    ensure!(answers["model_info"]["Err"]["ModelNotFound"]["name"] == "nobody", "{answers}");
    ensure!(answers["health"]["models_ready"] == 1 && answers["health"]["version"] == env!("CARGO_PKG_VERSION"));
    ensure!(std::fs::read(&screenshot)?.starts_with(b"\x89PNG"));
    Ok(())
}
