//! What is measured: models, and the requests that they answer.

use anyhow::{Context, Result};
use end_to_end_tests::models::{classify_request, magika_request, manifest, photo, recipe};
use end_to_end_tests::onnx::weights;
use end_to_end_tests::pocket::Model;
use onnx_canister_interface::{
    CHUNK_BYTES_MAX, ClassifyRequest, ElementType, InferInput, InferRequest, InputSource, ModelInfo, ModelRef, Tensor,
    TensorInfo,
};
use serde_bytes::ByteBuf;
use std::path::Path;

/// Tokens of the texts that embedding models are measured on.
const TOKENS: u64 = 32;

/// A model and what it is asked.
pub struct Work {
    /// As the results' rows call it.
    pub name: String,
    pub model: Model,
    pub requests: Vec<(&'static str, Ask)>,
}

/// How a request is made, once the model's inputs are known.
pub type Ask = fn(&ModelInfo) -> Result<Request>;

pub enum Request {
    Classify(ClassifyRequest),
    Infer(InferRequest),
}

impl Work {
    /// What the tests use as well.
    pub fn quick() -> Vec<Work> {
        vec![
            Work::of_recipe(
                "EfficientNet-Lite0 f32",
                "efficientnet-lite0",
                &[("classify a 224x224 PNG", small_photo), ("classify a 451x300 PNG", large_photo), ("infer", numbers)],
            ),
            Work::of_recipe("Magika", "magika", &[("classify 2048 tokens", magika_tokens)]),
        ]
    }

    /// Every model of `models/`.
    pub fn all() -> Vec<Work> {
        let mut all = Work::quick();
        let photos: &[(&'static str, Ask)] = &[("classify a 224x224 PNG", small_photo), ("infer", numbers)];
        all.push(Work::of_recipe("EfficientNet-Lite0 int8", "efficientnet-lite0-int8", photos));
        let tokens: &[(&'static str, Ask)] = &[("infer 32 tokens", text_tokens)];
        all.push(Work::of_recipe("MiniLM-L6 f32", "minilm-l6", tokens));
        all.push(Work::of_recipe("MiniLM-L6 int8", "minilm-l6-int8", tokens));
        all
    }

    fn of_recipe(name: &str, recipe_name: &str, requests: &[(&'static str, Ask)]) -> Work {
        Work { name: name.to_string(), model: recipe(recipe_name), requests: requests.to_vec() }
    }

    /// A file that no recipe makes.
    pub fn of_file(name: &str, path: &Path) -> Result<Work> {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        let model = Model::new(manifest("file", CHUNK_BYTES_MAX), vec![("model.onnx".to_string(), bytes)]);
        Ok(Work { name: name.to_string(), model, requests: vec![("infer", numbers)] })
    }
}

fn reference(info: &ModelInfo) -> ModelRef {
    ModelRef { name: info.name.clone(), version: Some(info.version) }
}

fn small_photo(info: &ModelInfo) -> Result<Request> {
    Ok(Request::Classify(classify_request(&reference(info), photo("crop224/chelsea.png"))))
}

fn large_photo(info: &ModelInfo) -> Result<Request> {
    Ok(Request::Classify(classify_request(&reference(info), photo("chelsea.png"))))
}

fn magika_tokens(info: &ModelInfo) -> Result<Request> {
    Ok(Request::Classify(magika_request(&reference(info), include_bytes!("../../../../LICENSE"))))
}

/// Numbers from 0 to 255 for every input, its free sizes being 1.
fn numbers(info: &ModelInfo) -> Result<Request> {
    infer(info, |input| {
        let shape: Vec<u64> = input.shape.iter().map(|size| size.unwrap_or(1)).collect();
        let count = shape.iter().product::<u64>() as usize;
        let values: Vec<f32> = weights(count, 7).into_iter().map(|value| ((value + 0.5) * 255.0).floor()).collect();
        tensor(ElementType::Float32, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    })
}

/// A text of 32 tokens: any words, none left out, all of one kind.
fn text_tokens(info: &ModelInfo) -> Result<Request> {
    infer(info, |input| {
        let value = |index: usize, word: f32| match &*input.name {
            "input_ids" => 1_000 + ((word + 0.5) * 28_000.0) as i64,
            "attention_mask" => 1,
            "position_ids" => index as i64,
            _ => 0,
        };
        let values = weights(TOKENS as usize, 3).into_iter().enumerate().map(|(index, word)| value(index, word));
        tensor(ElementType::Int64, vec![1, TOKENS], values.flat_map(i64::to_le_bytes).collect())
    })
}

fn tensor(element_type: ElementType, shape: Vec<u64>, data: Vec<u8>) -> Tensor {
    Tensor { element_type, shape, data: ByteBuf::from(data) }
}

fn infer(info: &ModelInfo, tensor: impl Fn(&TensorInfo) -> Tensor) -> Result<Request> {
    let input =
        |input: &TensorInfo| InferInput { name: input.name.clone(), source: InputSource::Tensor(tensor(input)) };
    let inputs = info.inputs.iter().map(input).collect();
    Ok(Request::Infer(InferRequest { model: reference(info), inputs, outputs: None, limits: None }))
}
