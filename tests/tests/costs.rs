//! What the canister says that work cost, against what the replica charged for it.

use anyhow::Result;
use end_to_end_tests::models::{MLP, input, mlp, request};
use end_to_end_tests::network::{Canister, Charges, Network};
use onnx_canister_interface::{
    ChunkReceipt, Cost, InferResponse, JobId, JobInfo, JobState, ModelInfo, ModelRef, ModelState, Settings,
    SettingsPatch, UploadStatus,
};
use std::time::Duration;

struct Deployed {
    network: Network,
    canister: Canister,
    model: ModelRef,
}

impl Deployed {
    /// A canister with a committed model.
    async fn new() -> Result<Deployed> {
        let network = Network::start(0)?;
        let canister = Canister::deploy(&network.agent()?, None).await?;
        let model = mlp("mlp");
        let status: UploadStatus = canister.update("begin_upload", model.manifest.clone()).await??;
        for (index, chunk) in model.files[0].chunks(model.manifest.chunk_size as usize).enumerate() {
            let chunk = model.chunk(status.version, 0, index as u32, chunk);
            let _: ChunkReceipt = canister.update("put_chunk", chunk).await??;
        }
        let model = ModelRef { name: "mlp".to_string(), version: Some(status.version) };
        let _: ModelInfo = canister.update("commit", model.clone()).await??;
        Ok(Deployed { network, canister, model })
    }

    fn charges(&self) -> Charges {
        self.network.charges(self.canister.id).expect("the replica's own count")
    }

    async fn set_message_budget(&self, budget: u64) -> Result<()> {
        let patch = SettingsPatch { message_budget: Some(budget), ..SettingsPatch::default() };
        let _: Settings = self.canister.update("update_settings", patch).await??;
        Ok(())
    }

    async fn load(&self) -> Result<Cost> {
        let _: ModelInfo = self.canister.update("load", self.model.clone()).await??;
        loop {
            let info: ModelInfo = self.canister.query("model_info", self.model.clone()).await??;
            match info.state {
                ModelState::Ready => return self.settled(info.load_cost).await,
                ModelState::Failed { reason } => panic!("{reason}"),
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// Waits until the callback of the last step has run as well.
    async fn settled(&self, cost: Cost) -> Result<Cost> {
        while self.canister.query_plain::<onnx_canister_interface::Health>("health").await?.open_calls > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok(cost)
    }

    async fn wait_for(&self, job: JobId) -> Result<Cost> {
        loop {
            let info: JobInfo = self.canister.query("poll", job).await??;
            match info.state {
                JobState::Done(_) => return self.settled(info.cost).await,
                JobState::Failed(error) => panic!("{error}"),
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

/// Instructions of touching a page and of writing to it. The figure is in the reply that is still to be encoded when it is
/// made, and whether that takes a page more is not known before.
const PAGE_INSTRUCTIONS: u64 = 160_000;

/// Messages exactly, instructions within 1 %, or within a page where the work is so small that this is more.
fn agrees(what: &str, told: &Cost, charged: &Charges) {
    println!("{what}: told {told:?}, charged {} in {} messages", charged.instructions, charged.messages);
    assert_eq!(u64::from(told.messages), charged.messages, "{what}: messages");
    let difference = told.instructions.abs_diff(charged.instructions);
    assert!(
        difference <= (charged.instructions / 100).max(PAGE_INSTRUCTIONS),
        "{what}: told {} instructions, charged {}",
        told.instructions,
        charged.instructions
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn loading_tells_what_it_was_charged() -> Result<()> {
    let deployed = Deployed::new().await?;
    let before = deployed.charges();
    let cost = deployed.load().await?;
    agrees("loading", &cost, &deployed.charges().since(&before));

    // The same with a message for every piece of work.
    let _: ModelInfo = deployed.canister.update("unload", deployed.model.clone()).await??;
    deployed.set_message_budget(1).await?;
    let before = deployed.charges();
    let cost = deployed.load().await?;
    agrees("loading in small steps", &cost, &deployed.charges().since(&before));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inference_tells_what_it_was_charged_however_it_is_driven() -> Result<()> {
    let deployed = Deployed::new().await?;
    deployed.load().await?;
    let ask = || request(&deployed.model, &input());

    let before = deployed.charges();
    let response: InferResponse = deployed.canister.update("infer", ask()).await??;
    assert_eq!(response.cost.messages, 1);
    agrees("one message", &response.cost, &deployed.charges().since(&before));

    let patch = SettingsPatch { max_call_messages: Some(1_000), ..SettingsPatch::default() };
    let _: Settings = deployed.canister.update("update_settings", patch).await??;
    deployed.set_message_budget(1).await?;
    let before = deployed.charges();
    let response: InferResponse = deployed.canister.update("infer", ask()).await??;
    assert!(response.cost.messages >= MLP.layers, "{} messages", response.cost.messages);
    agrees("a call that waits", &response.cost, &deployed.charges().since(&before));

    let before = deployed.charges();
    let job: JobId = deployed.canister.update("start_infer", ask()).await??;
    let cost = deployed.wait_for(job).await?;
    agrees("a job that is started", &cost, &deployed.charges().since(&before));
    Ok(())
}
