//! Runs one piece of work on a network of its own and books what the network charged.
//!
//! Each model gets a fresh canister, so that its heap is what the model takes.

use super::results::{Results, Row};
use super::work::{Request, Text, Work};
use anyhow::{Result, bail};
use end_to_end_tests::network::{Canister, Charges, Network};
use end_to_end_tests::pocket::Model;
use end_to_end_tests::requests;
use onnx_canister_interface::{
    CallLimits, ChunkReceipt, Classification, Cost, FinishReason, GenerateRequest, Generation, Health, InferResponse,
    ModelInfo, ModelRef, ModelState, Profile, ProfileRequest, Prompt, Settings, SettingsPatch, UploadStatus,
};
use std::time::{Duration, Instant};

/// The largest budget of a message, in instructions: what the canister's setting takes.
const MESSAGE_BUDGET_MAX: u64 = 38_800_000_000;
/// More tokens than any model decodes in a message.
const DECODED_TOKENS_MAX: u32 = 1_000;
const PROMPT_TOKENS: u32 = 512;

struct Bench<'a> {
    network: Network,
    canister: Canister,
    before: Charges,
    results: &'a mut Results,
}

/// Uploads, commits, loads and asks.
pub async fn measure(work: Work, results: &mut Results) -> Result<()> {
    let network = Network::start(0)?;
    let started = Instant::now();
    let canister = Canister::deploy(&network.agent()?, None).await?;
    let mut bench = Bench { network, canister, before: Charges::default(), results };
    if bench.results.lacks("install") {
        bench.note("install", started)?;
    }
    bench.before = bench.network.charges(bench.canister.id)?;
    let (name, model) = (work.name, work.model);
    let info = bench.upload(&name, &model).await?;
    for (what, ask) in work.requests {
        bench.ask(&format!("{name}: {what}"), ask(&info)).await?;
    }
    if let Some(text) = work.text {
        bench.generate(&name, &requests::reference(&info), &text).await?;
    }
    Ok(())
}

/// What the canister knows of a model once it is loaded.
pub async fn info(work: &Work) -> Result<ModelInfo> {
    let network = Network::start(0)?;
    let canister = Canister::deploy(&network.agent()?, None).await?;
    let before = network.charges(canister.id)?;
    Bench { network, canister, before, results: &mut Results::default() }.upload(&work.name, &work.model).await
}

impl Bench<'_> {
    /// Books what was charged since the last time under `name`.
    fn note(&mut self, name: &str, started: Instant) -> Result<&mut Row> {
        let wall = started.elapsed();
        let now = self.network.charges(self.canister.id)?;
        let charges = now.since(&self.before);
        self.before = now;
        eprintln!("{name}: {} instructions", charges.instructions);
        Ok(self.results.add(name, charges, wall))
    }

    async fn upload(&mut self, name: &str, model: &Model) -> Result<ModelInfo> {
        let started = Instant::now();
        let status: UploadStatus = self.canister.update("begin_upload", model.manifest.clone()).await??;
        for (file, bytes) in model.files.iter().enumerate() {
            for (index, chunk) in bytes.chunks(model.manifest.chunk_size as usize).enumerate() {
                let chunk = model.chunk(status.version, file as u32, index as u32, chunk);
                let _: ChunkReceipt = self.canister.update("put_chunk", chunk).await??;
            }
        }
        let model_bytes = model.files.iter().map(|file| file.len() as u64).sum();
        self.note(&format!("{name}: upload"), started)?.bytes = Some(model_bytes);

        let model = ModelRef { name: model.manifest.name.clone(), version: Some(status.version) };
        let started = Instant::now();
        let _: ModelInfo = self.canister.update("commit", model.clone()).await??;
        self.wait(&model, &ModelState::Committed).await?;
        self.note(&format!("{name}: commit (SHA-256)"), started)?.bytes = Some(model_bytes);

        let started = Instant::now();
        let _: ModelInfo = self.canister.update("load", model.clone()).await??;
        let info = self.wait(&model, &ModelState::Ready).await?;
        let health: Health = self.canister.query_plain("health").await?;
        let row = self.note(&format!("{name}: load"), started)?;
        row.bytes = Some(model_bytes);
        row.heap_bytes = Some(health.heap_bytes);
        Ok(info)
    }

    async fn wait(&self, model: &ModelRef, state: &ModelState) -> Result<ModelInfo> {
        loop {
            let info: ModelInfo = self.canister.query("model_info", model.clone()).await??;
            if info.state == *state {
                return Ok(info);
            }
            if let ModelState::Failed { reason } = info.state {
                bail!("{}: {reason}", model.name);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Lets a language model write as much as one message holds, the prompt read before, and read a long prompt.
    async fn generate(&mut self, name: &str, model: &ModelRef, text: &Text) -> Result<()> {
        let (message_budget, max_call_messages) = (Some(MESSAGE_BUDGET_MAX), Some(1_000));
        let patch = SettingsPatch { message_budget, max_call_messages, ..SettingsPatch::default() };
        let _: Settings = self.canister.update("update_settings", patch).await??;
        let request = |prompt: Prompt, session: Option<u64>, max_tokens: u32, messages: Option<u32>| GenerateRequest {
            model: model.clone(),
            prompt,
            session,
            sampling: None,
            max_tokens: Some(max_tokens),
            stop: None,
            limits: Some(CallLimits { max_messages: messages, max_instructions: None }),
        };
        let begun: Generation = self.canister.update("generate", request(text.prompt.clone(), None, 1, None)).await??;
        self.before = self.network.charges(self.canister.id)?;
        let started = Instant::now();
        let resumed = request(Prompt::Resume, begun.session, DECODED_TOKENS_MAX, Some(1));
        let decoded: Generation = self.canister.update("generate", resumed).await??;
        if decoded.finish_reason != Some(FinishReason::Budget) {
            bail!("{name}: the text ended by {:?} before its message", decoded.finish_reason);
        }
        let row = self.note(&format!("{name}: decode, one update"), started)?;
        row.tokens = Some(decoded.generated_tokens - begun.generated_tokens);
        row.parameters = Some(text.parameters);

        let started = Instant::now();
        let tokens = (0..PROMPT_TOKENS).map(|index| index * 7_919 % text.vocabulary).collect();
        let read: Generation =
            self.canister.update("generate", request(Prompt::Tokens(tokens), None, 1, None)).await??;
        if read.generated_tokens != 1 {
            bail!("{name}: the prompt was not read to its end: {:?}", read.finish_reason);
        }
        let row = self.note(&format!("{name}: prompt of {PROMPT_TOKENS} tokens"), started)?;
        row.tokens = Some(read.prompt_tokens);
        row.parameters = Some(text.parameters);
        Ok(())
    }

    /// Asks, and then asks again for the profile.
    async fn ask(&mut self, name: &str, request: Request) -> Result<()> {
        let started = Instant::now();
        let cost: Cost = match &request {
            Request::Classify(request) => {
                let answer: Classification = self.canister.update("classify", request.clone()).await??;
                answer.cost
            }
            Request::Infer(request) => {
                let answer: InferResponse = self.canister.update("infer", request.clone()).await??;
                answer.cost
            }
        };
        self.note(name, started)?;
        let request = match request {
            Request::Classify(request) => ProfileRequest::Classify(request),
            Request::Infer(request) => ProfileRequest::Infer(request),
        };
        let profile: Profile = self.canister.update("profile", request).await??;
        let row = self.results.row(name);
        row.decode_instructions = Some(cost.decode_instructions);
        let sum =
            |value: fn(&onnx_canister_interface::OperatorProfile) -> u64| profile.operators.iter().map(value).sum();
        row.run_instructions = Some(sum(|operator| operator.instructions));
        row.multiply_accumulates = Some(sum(|operator| operator.multiply_accumulates));
        let is_tract = |name: &str| name.starts_with("tract ");
        row.tract_nodes = match profile.operators.is_empty() {
            true => None,
            false => Some(profile.operators.iter().filter(|o| is_tract(&o.operator)).map(|o| o.nodes).sum()),
        };
        self.before = self.network.charges(self.canister.id)?;
        Ok(())
    }
}
