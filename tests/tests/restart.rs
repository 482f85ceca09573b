//! A network whose state is kept in a folder goes on where it was, whether it was stopped or killed.

use anyhow::{Context, Result, ensure};
use end_to_end_tests::environment;
use end_to_end_tests::models::{self, bits, only_output, request};
use end_to_end_tests::network::{Canister, Network};
use end_to_end_tests::pocket::Model;
use onnx_canister_interface::{ChunkReceipt, InferResponse, ModelInfo, ModelRef, ModelState, PutChunk, UploadStatus};
use serde_bytes::ByteBuf;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn canisters_outlive_the_process() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let state = folder.path().join("state");
    let network = start(&state)?;
    let canister = Canister::deploy(&network.agent()?, None).await?;
    let model = upload(&canister).await?;
    let expected = infer(&canister, &model).await?;
    let root_key = network.root_key_hex.clone();

    // Two processes must not share a folder.
    let refused =
        Command::new(environment::replica_bin()?).args(["start", "--port", "0", "--state-dir"]).arg(&state).output()?;
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && message.contains("in use by another process"), "{message}");

    network.stop()?;
    let network = start(&state)?;
    ensure!(network.root_key_hex == root_key, "the root key changed");
    let canister = Canister { agent: network.agent()?, id: canister.id };
    // The model is on the heap as it was: nothing is loaded again.
    ensure!(infer(&canister, &model).await? == expected);
    let info: ModelInfo = canister.query("model_info", model.clone()).await??;
    ensure!(info.state == ModelState::Ready && info.active, "{info:?}");

    // Killed: what was saved while nothing was to be done is there. The saves come by themselves.
    let second = Canister::deploy(&canister.agent, None).await?;
    wait_for_a_save(&state)?;
    drop(network);
    let network = start(&state)?;
    let canister = Canister { agent: network.agent()?, id: canister.id };
    ensure!(infer(&canister, &model).await? == expected);
    let health: onnx_canister_interface::Health =
        Canister { agent: network.agent()?, id: second.id }.query_plain("health").await?;
    ensure!(health.models_ready == 0);
    network.stop()?;
    a_damaged_state_is_named_and_left_alone(&state)
}

fn start(state: &Path) -> Result<Network> {
    Network::start_with(&["--port", "0", "--state-dir", state.to_str().context("a path of text")?])
}

async fn upload(canister: &Canister) -> Result<ModelRef> {
    let Model { manifest, files } = models::mlp("mlp");
    let UploadStatus { version, .. } = canister.update("begin_upload", manifest.clone()).await??;
    for (file, bytes) in files.iter().enumerate() {
        for (index, chunk) in bytes.chunks(manifest.chunk_size as usize).enumerate() {
            let put = PutChunk {
                name: manifest.name.clone(),
                version,
                file: file as u32,
                index: index as u32,
                bytes: ByteBuf::from(chunk.to_vec()),
            };
            let _: ChunkReceipt = canister.update("put_chunk", put).await??;
        }
    }
    let model = ModelRef { name: manifest.name, version: Some(version) };
    let _: ModelInfo = canister.update("commit", model.clone()).await??;
    // Loading may go on after its call is answered.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let info: ModelInfo = canister.update("load", model.clone()).await??;
        if info.state == ModelState::Ready {
            break;
        }
        ensure!(Instant::now() < deadline, "not loaded: {info:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let _: ModelInfo = canister.update("activate", model.clone()).await??;
    Ok(model)
}

async fn infer(canister: &Canister, model: &ModelRef) -> Result<Vec<u32>> {
    let response: InferResponse = canister.update("infer", request(model, &models::input())).await??;
    Ok(bits(&only_output(&response)))
}

/// Waits until the state was written anew.
fn wait_for_a_save(state: &Path) -> Result<()> {
    let written = || std::fs::metadata(state.join("replica.state"))?.modified();
    let before = written()?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while written()? == before {
        ensure!(Instant::now() < deadline, "the state is not saved by itself");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn a_damaged_state_is_named_and_left_alone(state: &Path) -> Result<()> {
    let mut entries = std::fs::read_dir(state)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(|entry| entry.file_name());
    let name = |suffix: &str| {
        let names = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned());
        names
            .filter(|name| name.ends_with(suffix))
            .max_by_key(|name| std::fs::metadata(state.join(name)).map_or(0, |metadata| metadata.len()))
    };
    for suffix in ["replica.state", ".wasm", ".pages"] {
        let name = name(suffix).with_context(|| format!("no file {suffix}"))?;
        let path = state.join(&name);
        let good = std::fs::read(&path)?;
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        std::fs::write(&path, &bad)?;
        let output = Command::new(environment::replica_bin()?)
            .args(["start", "--port", "0", "--state-dir"])
            .arg(state)
            .env("RUST_BACKTRACE", "0")
            .output()?;
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && message.contains(&name), "{name}: {message}");
        ensure!(std::fs::read(&path)? == bad, "{name} was changed");
        std::fs::write(&path, good)?;
    }
    start(state)?.stop()
}
