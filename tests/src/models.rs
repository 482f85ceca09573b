//! The models that the tests upload.

use crate::onnx::{Mlp, little_endian, weights};
use crate::pocket::{Model, Pocket};
use model_uploader::recipe::{self, Cache, Recipe};
use onnx_canister_interface::{
    CHUNK_BYTES_MAX, ClassifyInput, ClassifyRequest, ElementType, Error, InferInput, InferRequest, InferResponse,
    InputSource, Manifest, ModelRef, Task, Tensor,
};
use serde_bytes::ByteBuf;
use std::path::Path;

/// A small multilayer perceptron: 12 nodes, 66 kB.
pub const MLP: Mlp = Mlp { width: 64, layers: 4 };

/// A manifest without files, for [`Model::new`] to fill in.
pub fn manifest(name: &str, chunk_size: u32) -> Manifest {
    Manifest {
        name: name.to_string(),
        files: Vec::new(),
        chunk_size,
        task: Task::Infer,
        preprocessing: None,
        labels: Vec::new(),
        description: "a small multilayer perceptron".to_string(),
    }
}

/// [`MLP`] in one file and several chunks.
pub fn mlp(name: &str) -> Model {
    Model::new(manifest(name, 10_000), vec![("mlp.onnx".to_string(), MLP.file())])
}

/// An input of [`MLP`].
pub fn input() -> Vec<f32> {
    weights(MLP.width as usize, 77)
}

/// A f32 tensor of shape `[1, n]`.
pub fn row(values: &[f32]) -> Tensor {
    Tensor {
        element_type: ElementType::Float32,
        shape: vec![1, values.len() as u64],
        data: ByteBuf::from(little_endian(values)),
    }
}

/// The request that [`Pocket::infer`] sends.
pub fn request(model: &ModelRef, x: &[f32]) -> InferRequest {
    InferRequest {
        model: model.clone(),
        inputs: vec![InferInput { name: "x".to_string(), source: InputSource::Tensor(row(x)) }],
        outputs: None,
        limits: None,
    }
}

impl Pocket {
    /// `infer` of an [`Mlp`]: its output `y`.
    pub fn infer(&self, model: &ModelRef, x: &[f32]) -> Result<Vec<f32>, Error> {
        let response: InferResponse = self.update("infer", request(model, x))?;
        Ok(only_output(&response))
    }
}

/// The values of a response's one f32 output.
pub fn only_output(response: &InferResponse) -> Vec<f32> {
    assert_eq!(response.outputs.len(), 1);
    assert_eq!(response.outputs[0].size_bytes, response.outputs[0].data.len() as u64, "all of it in one page");
    floats(&response.outputs[0].data)
}

/// Little-endian f32 values.
pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Bits, so that equality means equality.
pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Fails unless both are equal to 1e-5 of the largest expected value.
pub fn assert_close(got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len());
    let largest = expected.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    assert!(largest > 0.01, "the reference is all but zero: nothing would be tested");
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= 1e-5 * largest.max(1.0), "element {index}: {got} instead of {expected}");
    }
}

/// EfficientNet-Lite0 as its recipe makes it; `cargo xtask test` has fetched it.
pub fn efficientnet() -> Model {
    recipe("efficientnet-lite0")
}

/// Magika, the file-type classifier: bytes in, 214 scores out.
pub fn magika() -> Model {
    recipe("magika")
}

/// The model that a recipe makes; it is fetched if it has not been.
pub fn recipe(name: &str) -> Model {
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let model = (|| {
        let recipe = Recipe::find(&recipes, name)?;
        let folder = recipe::fetch(&recipe, &Cache::of_this_user()?, &mut |_| {})?;
        let source = recipe.model_source(&folder)?;
        let manifest = model_uploader::manifest::build(&source, CHUNK_BYTES_MAX, &|_| {})?;
        let files = source.files.iter().map(|file| std::fs::read(&file.path)).collect::<Result<_, _>>()?;
        anyhow::Ok(Model { manifest, files })
    })();
    model.unwrap_or_else(|error| panic!("recipe {name}: {error:#}"))
}

/// Magika's input for a file of at least 4096 bytes: its first 1024 bytes after leading white space, then its last 1024
/// before trailing white space. Source: `models/magika/tokens.py`, which also pads shorter ones.
pub fn magika_request(model: &ModelRef, content: &[u8]) -> ClassifyRequest {
    let content = content.trim_ascii();
    assert!(content.len() >= 4096, "shorter files need padding");
    let tokens = content[..1024].iter().chain(&content[content.len() - 1024..]);
    let tensor = Tensor {
        element_type: ElementType::Int32,
        shape: vec![1, 2048],
        data: ByteBuf::from(tokens.flat_map(|token| i32::from(*token).to_le_bytes()).collect::<Vec<u8>>()),
    };
    ClassifyRequest { model: model.clone(), input: ClassifyInput::Tensor(tensor), top_k: None, limits: None }
}

/// A file of `models/photos/`, or of any folder when `name` is an absolute path.
pub fn photo(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/photos").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Asks for the top five labels of an image.
pub fn classify_request(model: &ModelRef, image: Vec<u8>) -> ClassifyRequest {
    ClassifyRequest {
        model: model.clone(),
        input: ClassifyInput::Image(ByteBuf::from(image)),
        top_k: None,
        limits: None,
    }
}
