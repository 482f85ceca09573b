//! The same models and inputs on plain tract, in the canister of `benches/baseline`.

use super::work::{Request, Work};
use anyhow::{Context, Result};
use candid::{CandidType, Encode};
use end_to_end_tests::network::{Canister, Network};
use onnx_canister_interface::{ClassifyInput, ElementType, InputSource, ModelInfo};
use serde::Serialize;
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What fits into an ingress message.
const PART_BYTES: usize = 1_900_000;

/// As the baseline's canister takes it.
#[derive(CandidType)]
struct Input {
    name: String,
    element_type: &'static str,
    shape: Vec<u64>,
    data: ByteBuf,
}

/// What is committed: instructions by the results' row, of a load with its page charges, of a run without.
#[derive(Serialize, Default)]
struct Figures {
    tract: &'static str,
    instructions: BTreeMap<String, u64>,
    /// What went wrong instead.
    failures: BTreeMap<String, String>,
}

/// Measures every model on `wasm` and writes `baseline.json`.
pub async fn measure(works: Vec<Work>, wasm: &Path, folder: &Path) -> Result<()> {
    let wasm = fs::read(wasm).with_context(|| wasm.display().to_string())?;
    let mut figures = Figures { tract: "0.23.9", ..Figures::default() };
    for work in works {
        let network = Network::start(0)?;
        let canister = Canister::deploy_wasm(&network.agent()?, &wasm, &Encode!()?).await?;
        let name = work.name.clone();
        if let Err(error) = one(work, &network, &canister, &mut figures).await {
            figures.failures.insert(name, format!("{error:#}").chars().take(400).collect());
        }
    }
    let text = serde_json::to_string_pretty(&figures)? + "\n";
    fs::write(folder.join("baseline.json"), &text)?;
    print!("{text}");
    Ok(())
}

/// The first request of a model that is made of tensors.
async fn one(work: Work, network: &Network, canister: &Canister, figures: &mut Figures) -> Result<()> {
    let file = work.model.files.first().context("no file")?;
    for part in file.chunks(PART_BYTES) {
        call(canister, "put", ByteBuf::from(part)).await?;
    }
    let info = super::measure::info(&work).await?;
    let inputs = work.requests.iter().find_map(|(what, ask)| Some((*what, inputs(ask(&info), &info)?)));
    let (what, inputs) = inputs.context("no request of tensors")?;
    let before = network.charges(canister.id)?;
    call(canister, "load", &inputs).await?;
    let load = network.charges(canister.id)?.since(&before);
    figures.instructions.insert(format!("{}: load", work.name), load.instructions);
    let before = network.charges(canister.id)?;
    call(canister, "run", &inputs).await?;
    let run = network.charges(canister.id)?.since(&before);
    figures.instructions.insert(format!("{}: {what}", work.name), run.instructions - run.page_charge);
    Ok(())
}

async fn call<A: CandidType>(canister: &Canister, method: &str, argument: A) -> Result<()> {
    eprintln!("{method}");
    canister.agent.update(&canister.id, method).with_arg(Encode!(&argument)?).call_and_wait().await?;
    Ok(())
}

fn inputs(request: Request, info: &ModelInfo) -> Option<Vec<Input>> {
    let element_type = |name: ElementType| match name {
        ElementType::Float32 => Some("float32"),
        ElementType::Float16 => Some("float16"),
        ElementType::Int32 => Some("int32"),
        ElementType::Int64 => Some("int64"),
        _ => None,
    };
    let named: Vec<(String, InputSource)> = match request {
        Request::Infer(request) => request.inputs.into_iter().map(|input| (input.name, input.source)).collect(),
        Request::Classify(request) => match request.input {
            ClassifyInput::Tensor(tensor) => vec![(info.inputs.first()?.name.clone(), InputSource::Tensor(tensor))],
            _ => return None,
        },
    };
    let input = |(name, source): (String, InputSource)| match source {
        InputSource::Tensor(tensor) => {
            let element_type = element_type(tensor.element_type)?;
            Some(Input { name, element_type, shape: tensor.shape, data: tensor.data })
        }
        InputSource::Staged(_) => None,
    };
    named.into_iter().map(input).collect()
}
