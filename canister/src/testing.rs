//! What tests need to build and to do again and again: manifests, small ONNX files, whole uploads.

use crate::jobs::{self, JobId};
use crate::runtime::fake;
use crate::store::upload::{self, PutChunkBorrowed};
use crate::store::{commit, models, versions};
use crate::{inference, loading};
use onnx_canister_interface::{
    ChunkReceipt, Error, FileManifest, InferInput, InferRequest, InferResponse, InputSource, JobResult, Manifest,
    ModelInfo, ModelRef, ModelState, Task, Tensor,
};
use serde_bytes::{ByteBuf, Bytes};
use sha2::{Digest, Sha256};

/// Runs a test as a canister's life: with a heap and a stable memory that no other test has seen.
pub fn life<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> R {
    match std::thread::spawn(f).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// A manifest for `infer` of files given as name and bytes.
pub fn manifest(name: &str, files: &[(&str, &[u8])], chunk_size: u32) -> Manifest {
    let hash = |bytes: &[u8]| ByteBuf::from(Sha256::digest(bytes).to_vec());
    Manifest {
        name: name.into(),
        files: files
            .iter()
            .map(|(name, bytes)| FileManifest {
                name: name.to_string(),
                size_bytes: bytes.len() as u64,
                sha256: hash(bytes),
                chunk_sha256: bytes.chunks(chunk_size as usize).map(hash).collect(),
            })
            .collect(),
        chunk_size,
        task: Task::Infer,
        preprocessing: None,
        labels: Vec::new(),
        description: String::new(),
        weights: None,
    }
}

pub fn model(name: &str, version: impl Into<Option<u32>>) -> ModelRef {
    ModelRef { name: name.into(), version: version.into() }
}

/// Puts chunk `index` of `file`, whose whole bytes are given.
pub fn put(name: &str, version: u32, file: u32, whole: &[u8], size: usize, index: u32) -> Result<ChunkReceipt, Error> {
    let start = index as usize * size;
    let bytes = Bytes::new(&whole[start..whole.len().min(start + size)]);
    fake::begin_message();
    upload::put_chunk(&PutChunkBorrowed { name: name.into(), version, file, index, bytes })
}

/// Uploads a manifest's files in order; tells the version.
pub fn upload_all(manifest: &Manifest, files: &[(&str, &[u8])]) -> u32 {
    let version = upload::begin(manifest.clone()).expect("a good manifest").version;
    for (file, (_, bytes)) in files.iter().enumerate() {
        for index in 0..manifest.files[file].chunk_sha256.len() as u32 {
            put(&manifest.name, version, file as u32, bytes, manifest.chunk_size as usize, index)
                .expect("a good chunk");
        }
    }
    version
}

/// Commits in a call of its own.
pub fn commit(name: &str, version: u32) -> Result<ModelInfo, Error> {
    fake::begin_message();
    fake::block_on(commit::commit(model(name, version)))
}

/// Uploads, commits, loads and activates a version.
pub fn make_ready(manifest: &Manifest, files: &[(&str, &[u8])]) -> u32 {
    let version = upload_all(manifest, files);
    commit(&manifest.name, version).expect("good files");
    let reference = model(&manifest.name, version);
    loading::load(&reference).expect("it is committed");
    fake::run_timers(1_000);
    let state = models::resolve(&reference).and_then(|key| models::state(&key));
    assert_eq!(state, Ok(ModelState::Ready));
    versions::activate(&reference).expect("it is ready");
    version
}

/// Makes version 1 of a model that runs `nodes` nodes on 4 numbers.
pub fn make_chain(name: &str, nodes: usize) -> u32 {
    make_onnx(name, &onnx::chain(nodes))
}

/// The same with operators of the caller's choice.
pub fn make_chain_of(name: &str, operators: &[&str], nodes: usize) -> u32 {
    make_onnx(name, &onnx::chain_of(operators, nodes))
}

fn make_onnx(name: &str, onnx: &[u8]) -> u32 {
    let files: [(&str, &[u8]); 1] = [("model.onnx", onnx)];
    make_ready(&manifest(name, &files, 64), &files)
}

pub fn f32_tensor(shape: &[u64], values: &[f32]) -> Tensor {
    Tensor {
        element_type: onnx_canister_interface::ElementType::Float32,
        shape: shape.to_vec(),
        data: ByteBuf::from(values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()),
    }
}

/// A request to a [`make_chain`] model.
pub fn chain_request(name: &str) -> InferRequest {
    let source = InputSource::Tensor(f32_tensor(&[1, 4], &[0.1, -0.7, 2.0, 0.0]));
    InferRequest {
        model: model(name, None),
        inputs: vec![InferInput { name: "x".into(), source }],
        outputs: None,
        limits: None,
    }
}

/// Calls `infer` and waits.
pub fn infer(request: InferRequest) -> Result<InferResponse, Error> {
    fake::begin_message();
    let owner = crate::runtime::caller();
    match fake::block_on(jobs::run(owner, inference::Request::Infer(request))).map(jobs::with_reply_cost)? {
        JobResult::Infer(response) => Ok(response),
        other => panic!("{other:?}"),
    }
}

/// Calls `start_infer`.
pub fn start(request: InferRequest) -> Result<JobId, Error> {
    fake::begin_message();
    jobs::start(crate::runtime::caller(), inference::Request::Infer(request))
}

pub mod onnx {
    //! ONNX files by hand: the few fields of `onnx.proto3` that the tests need, written as protobuf.

    /// A length-delimited field.
    pub fn field(number: u32, bytes: &[u8]) -> Vec<u8> {
        let mut out = varint(u64::from(number << 3 | 2));
        out.extend(varint(bytes.len() as u64));
        out.extend_from_slice(bytes);
        out
    }

    /// A varint field.
    pub fn number(number: u32, value: u64) -> Vec<u8> {
        let mut out = varint(u64::from(number << 3));
        out.extend(varint(value));
        out
    }

    fn varint(mut value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
        out
    }

    /// `NodeProto`, named as its output.
    pub fn node(operator: &str, inputs: &[&str], output: &str) -> Vec<u8> {
        let mut node: Vec<u8> = inputs.iter().flat_map(|input| field(1, input.as_bytes())).collect();
        node.extend(field(2, output.as_bytes()));
        node.extend(field(3, output.as_bytes()));
        node.extend(field(4, operator.as_bytes()));
        node
    }

    /// `ValueInfoProto` of a float32 tensor; a dimension of 0 is free.
    pub fn value(name: &str, shape: &[u64]) -> Vec<u8> {
        let dimensions: Vec<u8> = shape
            .iter()
            .flat_map(|dimension| match dimension {
                0 => field(1, &field(2, b"n")),
                known => field(1, &number(1, *known)),
            })
            .collect();
        let tensor_type = [number(1, 1), field(2, &dimensions)].concat();
        [field(1, name.as_bytes()), field(2, &field(1, &tensor_type))].concat()
    }

    /// `TensorProto` of float32 values, in the file or in external data at `location`.
    pub fn tensor(name: &str, shape: &[u64], values: &[f32], location: Option<&str>) -> Vec<u8> {
        let mut out: Vec<u8> = shape.iter().flat_map(|dimension| number(1, *dimension)).collect();
        out.extend(number(2, 1));
        out.extend(field(8, name.as_bytes()));
        match location {
            None => out.extend(field(9, &bytes(values))),
            Some(location) => {
                out.extend(field(13, &[field(1, b"location"), field(2, location.as_bytes())].concat()));
                out.extend(number(14, 1));
            }
        }
        out
    }

    /// `TensorProto` of int64 values.
    pub fn ints(name: &str, shape: &[u64], values: &[i64]) -> Vec<u8> {
        let mut out: Vec<u8> = shape.iter().flat_map(|dimension| number(1, *dimension)).collect();
        out.extend(number(2, 7));
        out.extend(field(8, name.as_bytes()));
        out.extend(field(9, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()));
        out
    }

    pub fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    /// `ModelProto` with one graph.
    pub fn model(nodes: &[Vec<u8>], initializers: &[Vec<u8>], inputs: &[Vec<u8>], outputs: &[Vec<u8>]) -> Vec<u8> {
        let each = |number: u32, messages: &[Vec<u8>]| -> Vec<u8> {
            messages.iter().flat_map(|message| field(number, message)).collect()
        };
        let graph =
            [each(1, nodes), field(2, b"graph"), each(5, initializers), each(11, inputs), each(12, outputs)].concat();
        [number(1, 8), field(7, &graph), field(8, &number(2, 13))].concat()
    }

    /// `y = f(...f(x))` over 4 float32 values, in `nodes` nodes, of which no two neighbours are joined into one.
    pub fn chain(nodes: usize) -> Vec<u8> {
        chain_of(&["Tanh", "Softmax"], nodes)
    }

    /// `y = f(...f(x))` over 4 float32 values, in `nodes` nodes that take these operators in turn.
    pub fn chain_of(operators: &[&str], nodes: usize) -> Vec<u8> {
        let name = |index: usize| match index {
            0 => "x".to_string(),
            index if index == nodes => "y".to_string(),
            index => format!("n{index}"),
        };
        let nodes: Vec<Vec<u8>> = (0..nodes)
            .map(|index| node(operators[index % operators.len()], &[&name(index)], &name(index + 1)))
            .collect();
        model(&nodes, &[], &[value("x", &[1, 4])], &[value("y", &[1, 4])])
    }

    /// `scores = flatten(image) x w` of an image of 3 channels, 2 by 2 pixels, into 3 classes. Class `c` scores the sum
    /// of channel `c`. With `location`, `w` is external data: the file's bytes come second.
    pub fn classifier(location: Option<&str>) -> (Vec<u8>, Vec<u8>) {
        let weights: Vec<f32> = (0..36).map(|at| if at / 3 / 4 == at % 3 { 1.0 } else { 0.0 }).collect();
        let nodes = [node("Flatten", &["image"], "flat"), node("MatMul", &["flat", "w"], "scores")];
        let initializers = [tensor("w", &[12, 3], &weights, location)];
        let file = model(&nodes, &initializers, &[value("image", &[1, 3, 2, 2])], &[value("scores", &[1, 3])]);
        (file, bytes(&weights))
    }
}
