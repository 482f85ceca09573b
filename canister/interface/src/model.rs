//! Models: what is uploaded, and the states it goes through.

use candid::CandidType;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// A model by name, and by version where the active one is not meant.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModelRef {
    pub name: String,
    /// `None` is the active version.
    pub version: Option<u32>,
}

/// All that is known of a model version before its first byte is sent.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Manifest {
    /// 1 to 64 characters of `a-z 0-9 . _ -`.
    pub name: String,
    /// The ONNX file first, its external-data files after it in any order.
    pub files: Vec<FileManifest>,
    /// Bytes of every chunk but a file's last; at most [`crate::CHUNK_BYTES_MAX`].
    pub chunk_size: u32,
    pub task: Task,
    /// How an image becomes the input tensor; needed by [`Task::Classify`] to take image bytes.
    pub preprocessing: Option<Preprocessing>,
    /// Label of each class by index; empty when there are none. In any language, without control characters.
    pub labels: Vec<String>,
    /// Free text for people: where the model is from, its licence.
    pub description: String,
    /// What weights become on the heap; `None`: as the file has them, and 4-bit ones as int8 while the heap has room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<WeightForm>,
}

/// What the weights of matrix products and convolutions become when a model is loaded.
#[derive(CandidType, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightForm {
    /// As the file has them: 4-bit weights stay 4-bit, which takes half the memory of int8 and a fifth more instructions.
    #[serde(rename = "stored")]
    Stored,
    /// Float weights are quantised to int8 with a scale for each output, which takes a quarter of the memory and about a
    /// third of the instructions, and changes the answers; 4-bit ones are widened without loss.
    #[serde(rename = "int8")]
    Int8,
}

/// One file of a model.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct FileManifest {
    /// 1 to 512 printable characters of ASCII; an external-data file's is its `location` in the ONNX file.
    pub name: String,
    pub size_bytes: u64,
    /// SHA-256 of the whole file, 32 bytes.
    pub sha256: ByteBuf,
    /// SHA-256 of each chunk in order, 32 bytes each.
    pub chunk_sha256: Vec<ByteBuf>,
}

/// What the model is for.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// One input tensor, one output tensor of class scores: `classify` answers with labels.
    #[serde(rename = "classify")]
    Classify {
        /// Apply softmax to the output before ranking (the file ends in logits).
        softmax: bool,
    },
    /// Anything: `infer` with named tensors.
    #[serde(rename = "infer")]
    Infer,
    /// A causal language model with keys and values as inputs and outputs: `generate` with text, tokens or messages.
    ///
    /// Of its files these have a meaning by their names, as Hugging Face gives them: `tokenizer.json`,
    /// `tokenizer_config.json`, `generation_config.json` and `chat_template.jinja`. All may be missing; without the first
    /// there are only tokens.
    #[serde(rename = "generate")]
    Generate {
        /// Tokens that the model was made for, prompt and text together.
        context_length: u32,
    },
}

/// How image bytes become the model's input tensor.
///
/// In this order: decode to RGB, 8 bits a channel (alpha dropped, 16 bits rounded to 8), resize, centre crop to
/// `height` x `width`, reorder channels, then `(value - mean) * (1 / std)` per channel in f32, laid out as `layout` says.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Preprocessing {
    pub height: u32,
    pub width: u32,
    pub resize: Resize,
    pub channel_order: ChannelOrder,
    pub layout: Layout,
    /// Per channel in the model's order, on the 0 to 255 scale.
    pub mean: Vec<f32>,
    /// Per channel in the model's order, on the 0 to 255 scale.
    pub std: Vec<f32>,
}

/// How an image is brought to size before the centre crop.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Resize {
    /// No resizing: the image must be at least the crop's size.
    #[serde(rename = "none")]
    None,
    /// The shorter side becomes `shorter_side` pixels, the aspect ratio kept; triangle (bilinear) filter with
    /// antialiasing, as Pillow's `BILINEAR`.
    #[serde(rename = "shorter_side")]
    ShorterSide(u32),
    /// The whole image is stretched to `height` x `width`; same filter.
    #[serde(rename = "stretch")]
    Stretch,
}

#[derive(CandidType, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelOrder {
    #[serde(rename = "rgb")]
    Rgb,
    #[serde(rename = "bgr")]
    Bgr,
}

/// Order of the input tensor's axes.
#[derive(CandidType, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Batch, channel, row, column.
    #[serde(rename = "nchw")]
    Nchw,
    /// Batch, row, column, channel.
    #[serde(rename = "nhwc")]
    Nhwc,
}

/// A model version's state; anyone can see it.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum ModelState {
    /// Chunks are missing, or `commit` has not verified the whole.
    #[serde(rename = "uploading")]
    Uploading { chunks_stored: u32, chunks_total: u32 },
    /// `commit` is hashing.
    #[serde(rename = "committing")]
    Committing { bytes_done: u64, bytes_total: u64 },
    /// Verified and in stable memory; not on the heap.
    #[serde(rename = "committed")]
    Committed,
    /// Being brought onto the heap, by itself, over as many messages as it takes. Units of work: bytes, then nodes.
    #[serde(rename = "loading")]
    Loading { done: u64, total: u64 },
    #[serde(rename = "ready")]
    Ready,
    /// Verified but not loadable; the files stay.
    #[serde(rename = "failed")]
    Failed { reason: String },
}

/// What `list_models` and `model_info` tell.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct ModelInfo {
    pub name: String,
    pub version: u32,
    pub active: bool,
    pub state: ModelState,
    pub task: Task,
    pub description: String,
    /// Bytes of all files.
    pub size_bytes: u64,
    pub files: Vec<String>,
    /// Bytes this version occupies in stable memory.
    pub stable_bytes: u64,
    /// Bytes of the heap that it holds; 0 when not loaded.
    pub heap_bytes: u64,
    /// Known once loaded.
    pub inputs: Vec<crate::TensorInfo>,
    pub outputs: Vec<crate::TensorInfo>,
    /// Instructions and messages the last load took: every message that was charged, timers and callbacks too.
    pub load_cost: crate::Cost,
    pub labels_count: u32,
    pub preprocessing: Option<Preprocessing>,
}

/// Answer of `begin_upload`.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct UploadStatus {
    /// The version this manifest uploads to: a new one, or the one an equal manifest began before.
    pub version: u32,
    pub state: ModelState,
}

/// One chunk of one file. Storing it twice, in any order or in parallel, is the same as once.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct PutChunk {
    pub name: String,
    pub version: u32,
    /// Index into the manifest's files.
    pub file: u32,
    /// Index of the chunk in the file; it starts at `index * chunk_size`.
    pub index: u32,
    pub bytes: ByteBuf,
}

#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ChunkReceipt {
    /// The chunk was there already; nothing was written.
    pub already_stored: bool,
    pub chunks_stored: u32,
    pub chunks_total: u32,
}

/// A run of chunks not yet stored.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct MissingChunks {
    pub file: u32,
    pub first: u32,
    pub count: u32,
}
