//! What is measured: models, and the requests that they answer.

use anyhow::{Context, Result};
use end_to_end_tests::models::{classify_request, magika_request, manifest, photo, recipe};
use end_to_end_tests::pocket::Model;
use end_to_end_tests::requests::{self, reference};
use onnx_canister_interface::{CHUNK_BYTES_MAX, ClassifyRequest, InferRequest, ModelInfo};
use std::path::Path;

/// A model and what it is asked.
pub struct Work {
    /// As the results' rows call it.
    pub name: String,
    pub model: Model,
    pub requests: Vec<(&'static str, Ask)>,
}

/// How a request is made, once the model's inputs are known.
pub type Ask = fn(&ModelInfo) -> Request;

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

fn small_photo(info: &ModelInfo) -> Request {
    Request::Classify(classify_request(&reference(info), photo("crop224/chelsea.png")))
}

fn large_photo(info: &ModelInfo) -> Request {
    Request::Classify(classify_request(&reference(info), photo("chelsea.png")))
}

fn magika_tokens(info: &ModelInfo) -> Request {
    Request::Classify(magika_request(&reference(info), include_bytes!("../../../../LICENSE")))
}

fn numbers(info: &ModelInfo) -> Request {
    Request::Infer(requests::numbers(info))
}

fn text_tokens(info: &ModelInfo) -> Request {
    Request::Infer(requests::text_tokens(info))
}
