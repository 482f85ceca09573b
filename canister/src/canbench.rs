//! What `canbench` measures: the way from bytes to an answer on EfficientNet-Lite0, in the canister's own steps.
//!
//! Compiled with the feature `canbench` only, by `cargo xtask canbench`. Each benchmark is a query of a canister that has
//! nothing stored: what comes before the measured part is done in the same query, unmeasured, and forgotten after it.

use crate::arguments::decode_borrowed;
use crate::inference::{Answer, Request, Run};
use crate::loading;
use crate::store::ModelKey;
use crate::store::upload::{self, PutChunkBorrowed};
use crate::store::{commit, models};
use canbench_rs::{BenchResult, bench, bench_fn};
use candid::Principal;
use onnx_canister_interface::{
    ChannelOrder, ChunkReceipt, ClassifyInput, ClassifyRequest, Error, FileManifest, Label, Layout, Manifest, ModelRef,
    Preprocessing, PutChunk, Resize, Task,
};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

const ONNX: &[u8] = include_bytes!(env!("ONNX_CANISTER_BENCH_MODEL"));
/// A photo of the size that the model takes.
const IMAGE: &[u8] = include_bytes!("../../models/photos/crop224/chelsea.png");
const CHUNK_BYTES: usize = 1_900_000;
const NAME: &str = "efficientnet-lite0";

/// One chunk of 1.9 MB, from the message's bytes to stable memory.
#[bench(raw)]
fn put_chunk() -> BenchResult {
    let key = begun();
    let argument = chunk_argument(&key, 0);
    bench_fn(|| expect("put_chunk", put(&argument)))
}

/// SHA-256 of the whole file.
#[bench(raw)]
fn commit_model() -> BenchResult {
    let key = uploaded();
    bench_fn(|| hash(&key))
}

/// From stable memory to ready.
#[bench(raw)]
fn load_model() -> BenchResult {
    let key = committed();
    bench_fn(|| load(&key))
}

/// From the bytes of a PNG to labels.
#[bench(raw)]
fn classify_photo() -> BenchResult {
    let key = committed();
    load(&key);
    bench_fn(|| expect("classify", classify(&key)))
}

fn begun() -> ModelKey {
    let status = expect("begin_upload", upload::begin(manifest()));
    ModelKey { name: NAME.to_string(), version: status.version }
}

fn uploaded() -> ModelKey {
    let key = begun();
    for index in 0..ONNX.len().div_ceil(CHUNK_BYTES) {
        expect("put_chunk", put(&chunk_argument(&key, index)));
    }
    key
}

fn committed() -> ModelKey {
    let key = uploaded();
    hash(&key);
    key
}

fn hash(key: &ModelKey) {
    expect("commit", commit::begin(key));
    while commit::is_pending(key) {
        commit::step(key);
    }
    expect("commit", commit::outcome(key));
}

fn load(key: &ModelKey) {
    let model = ModelRef { name: key.name.clone(), version: Some(key.version) };
    expect("load", loading::load(&model));
    while loading::is_pending(key) {
        loading::step(key);
    }
    expect("load", models::resolve_ready(&model));
}

fn classify(key: &ModelKey) -> Result<Vec<Label>, Error> {
    let request = Request::Classify(ClassifyRequest {
        model: ModelRef { name: key.name.clone(), version: Some(key.version) },
        input: ClassifyInput::Image(ByteBuf::from(IMAGE)),
        top_k: None,
        limits: None,
    });
    let mut run = Run::prepare(&Principal::anonymous(), key, &request, u64::MAX)?;
    while !run.advance(u64::MAX)? {}
    match run.answer(key, &request)? {
        Answer::Classify(labels) => Ok(labels),
        Answer::Infer(_) | Answer::Profile(_) | Answer::Generate(_) => Ok(Vec::new()),
    }
}

fn put(argument: &[u8]) -> Result<ChunkReceipt, Error> {
    upload::put_chunk(&decode_borrowed::<PutChunkBorrowed>("put_chunk", argument)?)
}

fn chunk_argument(key: &ModelKey, index: usize) -> Vec<u8> {
    let end = ONNX.len().min((index + 1) * CHUNK_BYTES);
    let bytes = ByteBuf::from(&ONNX[index * CHUNK_BYTES..end]);
    let chunk = PutChunk { name: key.name.clone(), version: key.version, file: 0, index: index as u32, bytes };
    candid::encode_one(&chunk).unwrap_or_else(|error| ic_cdk::trap(format!("put_chunk's argument: {error}")))
}

fn manifest() -> Manifest {
    let sha256 = |bytes: &[u8]| ByteBuf::from(&Sha256::digest(bytes)[..]);
    Manifest {
        name: NAME.to_string(),
        files: vec![FileManifest {
            name: "efficientnet-lite0.onnx".to_string(),
            size_bytes: ONNX.len() as u64,
            sha256: sha256(ONNX),
            chunk_sha256: ONNX.chunks(CHUNK_BYTES).map(sha256).collect(),
        }],
        chunk_size: CHUNK_BYTES as u32,
        task: Task::Classify { softmax: true },
        preprocessing: Some(Preprocessing {
            height: 224,
            width: 224,
            resize: Resize::None,
            channel_order: ChannelOrder::Rgb,
            layout: Layout::Nchw,
            mean: vec![127.0; 3],
            std: vec![128.0; 3],
        }),
        labels: Vec::new(),
        description: String::new(),
        weights: None,
    }
}

/// A benchmark whose work failed measures nothing: it traps, and `canbench` stops with the message.
fn expect<T>(what: &str, result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| ic_cdk::trap(format!("{what}: {error}")))
}
