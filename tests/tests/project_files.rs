//! `icp.yaml` and `dfx.json` are valid by their tools' schemas, and say the same.

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use std::path::Path;

const GIB_4: &str = "4gib";

fn read(path: &str) -> Result<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    // JSON is YAML.
    serde_yaml_ng::from_str(&text).with_context(|| path.display().to_string())
}

/// Fails with everything that the schema finds wrong.
fn validate(instance: &Value, schema: Value) -> Result<()> {
    let mut compiler = boon::Compiler::new();
    let mut schemas = boon::Schemas::new();
    compiler.add_resource("schema.json", schema).map_err(|error| anyhow!("{error}"))?;
    let index = compiler.compile("schema.json", &mut schemas).map_err(|error| anyhow!("{error:#}"))?;
    schemas.validate(instance, index).map_err(|error| anyhow!("{error:#}"))
}

#[test]
fn icp_yaml_is_valid() -> Result<()> {
    let schema = read("schemas/icp-yaml-schema.json")?;
    let project = read("../icp.yaml")?;
    validate(&project, schema.clone())?;
    let canister = &project["canisters"][0];
    ensure!(canister["settings"]["wasm_memory_limit"] == GIB_4, "{canister}");
    let commands = canister["build"]["steps"][0]["commands"].to_string();
    ensure!(commands.contains("cargo xtask build-canister"), "{commands}");
    let sync = canister["sync"]["steps"][0]["commands"].to_string();
    ensure!(sync.contains("model-uploader") && sync.contains("$ICP_CLI_CID"), "{sync}");

    // The schema tells right from wrong.
    let mut wrong = project;
    wrong["canisters"][0]["settings"]["wasm_memory_limit"] = Value::Bool(true);
    ensure!(validate(&wrong, schema).is_err());
    Ok(())
}

#[test]
fn dfx_json_is_valid() -> Result<()> {
    let schema = read("schemas/dfx-json-schema.json")?;
    let project = read("../dfx.json")?;
    validate(&project, schema.clone())?;
    let name = read("../icp.yaml")?["canisters"][0]["name"].as_str().context("a name")?.to_string();
    let canister = &project["canisters"][&name];
    let limit = canister["initialization_values"]["wasm_memory_limit"].as_str().context("a limit")?;
    ensure!(limit.eq_ignore_ascii_case(GIB_4), "{limit}");
    ensure!(canister["build"].to_string().contains("cargo xtask build-canister"), "{canister}");

    let mut wrong = project.clone();
    wrong["canisters"][&name]["type"] = Value::String("cobol".into());
    ensure!(validate(&wrong, schema).is_err());
    Ok(())
}
