//! What is measured: models, and the requests that they answer.

use anyhow::{Context, Result};
use end_to_end_tests::models::{classify_request, magika_request, manifest, photo, recipe};
use end_to_end_tests::onnx::Mlp;
use end_to_end_tests::pocket::Model;
use end_to_end_tests::requests::{self, reference};
use onnx_canister_interface::{CHUNK_BYTES_MAX, ClassifyRequest, InferRequest, ModelInfo, Prompt};
use std::path::Path;

/// A model and what it is asked.
pub struct Work {
    /// As the results' rows call it.
    pub name: String,
    pub model: Model,
    pub requests: Vec<(&'static str, Ask)>,
    /// What is generated, by a language model.
    pub text: Option<Text>,
}

/// How a language model is measured: tokens decoded in one message of the largest budget, and a long prompt.
pub struct Text {
    /// What the decoded tokens follow. Has to keep the model from ending its text.
    pub prompt: Prompt,
    /// Numbers that the model was trained to.
    pub parameters: u64,
    /// Token identifiers are below it.
    pub vocabulary: u32,
}

/// How a request is made, once the model's inputs are known.
pub type Ask = fn(&ModelInfo) -> Request;

pub enum Request {
    Classify(ClassifyRequest),
    Infer(InferRequest),
}

impl Work {
    /// The models that the tests fetch anyway.
    pub fn quick() -> Vec<Work> {
        let photos: &[(&'static str, Ask)] = &[("classify a 224x224 PNG", small_photo), ("infer", numbers)];
        vec![
            Work::of_recipe("EfficientNet-Lite0 int8", "efficientnet-lite0-int8", photos),
            Work::of_recipe(
                "EfficientNet-Lite0 f32",
                "efficientnet-lite0",
                &[photos, &[("classify a 451x300 PNG", large_photo)]].concat(),
            ),
            Work::of_recipe("Magika", "magika", &[("classify 2048 tokens", magika_tokens)]),
            Work::of_recipe("MiniLM-L6 int8", "minilm-l6-int8", &[("infer 32 tokens", text_tokens)]),
        ]
    }

    /// Every model of `models/`.
    pub fn all() -> Vec<Work> {
        let mut all = Work::quick();
        all.push(Work::of_recipe("MiniLM-L6 f32", "minilm-l6", &[("infer 32 tokens", text_tokens)]));
        all.push(Work {
            text: Some(Text {
                prompt: Prompt::Text("Once upon a time".to_string()),
                parameters: 134_515_008,
                vocabulary: 49_152,
            }),
            ..Work::of_recipe("SmolLM2-135M", "smollm2-135m-instruct", &[])
        });
        all
    }

    fn of_recipe(name: &str, recipe_name: &str, requests: &[(&'static str, Ask)]) -> Work {
        Work { name: name.to_string(), model: recipe(recipe_name), requests: requests.to_vec(), text: None }
    }

    /// 32 matrices of 4096 by 4096 in float32, each of its own random weights: 2 GiB of external data.
    pub fn large() -> Work {
        const LARGE: Mlp = Mlp { width: 4_096, layers: 32 };
        let (file, weights) = LARGE.file_with_external_data("weights.bin");
        let files = vec![("model.onnx".to_string(), file), ("weights.bin".to_string(), weights)];
        let model = Model::new(manifest("large", CHUNK_BYTES_MAX), files);
        Work { name: "2 GiB, synthetic".to_string(), model, requests: vec![("infer", numbers)], text: None }
    }

    /// A file that no recipe makes.
    pub fn of_file(name: &str, path: &Path) -> Result<Work> {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        let model = Model::new(manifest("file", CHUNK_BYTES_MAX), vec![("model.onnx".to_string(), bytes)]);
        Ok(Work { name: name.to_string(), model, requests: vec![("infer", anything)], text: None })
    }
}

fn small_photo(info: &ModelInfo) -> Request {
    Request::Classify(classify_request(&reference(info), photo("crop224/chelsea.png")))
}

fn large_photo(info: &ModelInfo) -> Request {
    Request::Classify(classify_request(&reference(info), photo("chelsea.png")))
}

fn magika_tokens(info: &ModelInfo) -> Request {
    Request::Classify(magika_request(&reference(info), include_bytes!("../../../../LICENSE")))
}

/// What fits the model's inputs.
fn anything(info: &ModelInfo) -> Request {
    if requests::has_past(info) { Request::Infer(requests::next_token(info)) } else { numbers(info) }
}

fn numbers(info: &ModelInfo) -> Request {
    Request::Infer(requests::numbers(info))
}

fn text_tokens(info: &ModelInfo) -> Request {
    Request::Infer(requests::text_tokens(info))
}
