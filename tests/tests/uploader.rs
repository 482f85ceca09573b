//! The uploader's binary against the embedded replica, as a user runs it.

use anyhow::{Context, Result, ensure};
use end_to_end_tests::environment;
use end_to_end_tests::network::{Canister, Network};
use onnx_canister_interface::{ModelInfo, ModelRef, ModelState};
use serde_json::Value;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const MODEL: &str = "efficientnet-lite0";

struct Uploader<'a> {
    network: &'a Network,
    canister: &'a Canister,
}

impl Uploader<'_> {
    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(environment::uploader_bin()?);
        command
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .args(["--replica-url", &self.network.url, "--root-key", &self.network.root_key_hex, "--anonymous"])
            .args(["--canister", &self.canister.id.to_text(), "--json"])
            .args(arguments)
            .stdin(Stdio::null());
        Ok(command)
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments)?.output().context("cannot run the uploader")
    }

    /// Runs to success and returns what it printed.
    fn json(&self, arguments: &[&str]) -> Result<Value> {
        let output = self.run(arguments)?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{arguments:?} printed {}", String::from_utf8_lossy(&output.stdout)))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_killed_at_any_moment_resumes_without_sending_a_stored_chunk_twice() -> Result<()> {
    let network = Network::start(0)?;
    let canister = Canister::deploy(&network.agent()?, None).await?;
    let uploader = Uploader { network: &network, canister: &canister };
    let model = ModelRef { name: MODEL.to_string(), version: Some(1) };

    // Kill it again and again, each time after at least one more chunk was stored.
    let mut stored_before = 0;
    for _ in 0..3 {
        let mut process = uploader.command(&["--concurrency", "1", "upload", MODEL])?.spawn()?;
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let info: Result<ModelInfo, _> = canister.query("model_info", model.clone()).await?;
            if let Ok(ModelInfo { state: ModelState::Uploading { chunks_stored, .. }, .. }) = info
                && chunks_stored > stored_before
            {
                stored_before = chunks_stored;
                break;
            }
            if process.try_wait()?.is_some() {
                break;
            }
            ensure!(Instant::now() < deadline, "no chunk arrived");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        process.kill()?;
        process.wait()?;
    }
    ensure!(stored_before >= 1, "it was killed in the middle");

    // What was in flight when it was killed may still have arrived.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let info: ModelInfo = canister.query("model_info", model.clone()).await??;
    let ModelState::Uploading { chunks_stored, chunks_total } = info.state else {
        anyhow::bail!("the upload was over before it was killed: {:?}", info.state)
    };
    let report = uploader.json(&["upload", MODEL])?;
    ensure!(report["chunks_sent"] == u64::from(chunks_total - chunks_stored), "{report}");
    let info: ModelInfo = canister.query("model_info", model).await??;
    ensure!(info.state == ModelState::Ready && info.active, "{info:?}");

    let answer = uploader.json(&["classify", MODEL, "models/photos/chelsea.png"])?;
    let label = answer["labels"][0]["label"].as_str().unwrap_or_default().to_string();
    ensure!(label.contains("cat"), "{answer}");

    // Uploading what is there already sends nothing.
    let report = uploader.json(&["upload", MODEL])?;
    ensure!(report["chunks_sent"] == 0, "{report}");
    a_plain_sentence_for_every_mistake(&uploader)?;
    metrics_are_served(&network, &canister)
}

fn a_plain_sentence_for_every_mistake(uploader: &Uploader) -> Result<()> {
    for (arguments, sentence) in [
        (&["classify", "absent", "models/photos/chelsea.png"][..], "no model 'absent'"),
        (&["classify", MODEL, "README.md"], "not a PNG or JPEG"),
        (&["classify", MODEL, "no/such/file.png"], "no/such/file.png"),
        (&["upload", "no-such-recipe"], "no-such-recipe"),
        (&["delete", "absent"], "no model 'absent'"),
    ] {
        let output = uploader.run(arguments)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "{arguments:?} succeeded");
        ensure!(stderr.contains(sentence), "{arguments:?}: {stderr}");
        ensure!(!stderr.contains("panicked") && !stderr.contains("stack backtrace"), "{arguments:?}: {stderr}");
    }
    Ok(())
}

/// Through the HTTP gateway, as Prometheus would ask.
fn metrics_are_served(network: &Network, canister: &Canister) -> Result<()> {
    let response = network.get(&format!("/metrics?canisterId={}", canister.id))?;
    ensure!(response.starts_with("HTTP/1.1 200"), "{response}");
    ensure!(response.contains("# TYPE") && response.contains("cycle_balance"), "{response}");
    Ok(())
}
