//! Inference: tensors in, tensors or labels out, and what it cost.

use crate::{JobId, ModelRef};
use candid::CandidType;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// Element types of tensors, named as in ONNX.
#[derive(CandidType, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    #[serde(rename = "float32")]
    Float32,
    #[serde(rename = "float64")]
    Float64,
    #[serde(rename = "float16")]
    Float16,
    #[serde(rename = "uint8")]
    Uint8,
    #[serde(rename = "int8")]
    Int8,
    #[serde(rename = "uint16")]
    Uint16,
    #[serde(rename = "int16")]
    Int16,
    #[serde(rename = "uint32")]
    Uint32,
    #[serde(rename = "int32")]
    Int32,
    #[serde(rename = "uint64")]
    Uint64,
    #[serde(rename = "int64")]
    Int64,
    /// One byte an element, 0 or 1.
    #[serde(rename = "bool")]
    Bool,
}

impl ElementType {
    /// Bytes of one element.
    pub const fn size_bytes(self) -> u64 {
        match self {
            Self::Uint8 | Self::Int8 | Self::Bool => 1,
            Self::Float16 | Self::Uint16 | Self::Int16 => 2,
            Self::Float32 | Self::Uint32 | Self::Int32 => 4,
            Self::Float64 | Self::Uint64 | Self::Int64 => 8,
        }
    }
}

/// A dense tensor: row-major elements, little-endian.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Tensor {
    pub element_type: ElementType,
    pub shape: Vec<u64>,
    pub data: ByteBuf,
}

/// Name, type and shape of a model's input or output.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    pub name: String,
    pub element_type: ElementType,
    /// `None` for a dimension that is free.
    pub shape: Vec<Option<u64>>,
}

/// Where an input tensor's bytes are.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum InputSource {
    /// In this message.
    #[serde(rename = "tensor")]
    Tensor(Tensor),
    /// Put there by the same caller with `put_input`.
    #[serde(rename = "staged")]
    Staged(String),
}

#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct InferInput {
    pub name: String,
    pub source: InputSource,
}

/// Most that one call may use; `None` is the canister's setting.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct CallLimits {
    pub max_messages: Option<u32>,
    pub max_instructions: Option<u64>,
}

#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct InferRequest {
    pub model: ModelRef,
    pub inputs: Vec<InferInput>,
    /// Outputs to compute and return; `None` is all of them.
    pub outputs: Option<Vec<String>>,
    pub limits: Option<CallLimits>,
}

/// One named output: its first bytes, and how many there are in all.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct OutputPage {
    pub name: String,
    pub element_type: ElementType,
    pub shape: Vec<u64>,
    /// Bytes of the whole tensor.
    pub size_bytes: u64,
    /// Where `data` starts in the whole tensor.
    pub offset_bytes: u64,
    pub data: ByteBuf,
}

#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct InferResponse {
    /// Every output asked for. `data` holds all bytes where the reply has room; the rest is had with `read_output`.
    pub outputs: Vec<OutputPage>,
    /// The job whose outputs `read_output` reads; `None` after a query.
    pub job: Option<JobId>,
    pub cost: Cost,
}

/// What an answer cost.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Instructions of all messages, decoding included; within 1 % of what the network charges.
    pub instructions: u64,
    /// Of these, instructions spent decoding and preparing the input (image decoding, resizing, normalising).
    pub decode_instructions: u64,
    /// Messages that were charged: calls, timers, steps and callbacks.
    pub messages: u32,
}

#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum ClassifyInput {
    /// PNG or JPEG bytes, prepared as the manifest's preprocessing says.
    #[serde(rename = "image")]
    Image(ByteBuf),
    /// The input tensor itself.
    #[serde(rename = "tensor")]
    Tensor(Tensor),
    /// A tensor, or a `uint8` vector of image bytes, put there by the same caller with `put_input`.
    #[serde(rename = "staged")]
    Staged(String),
}

#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct ClassifyRequest {
    pub model: ModelRef,
    pub input: ClassifyInput,
    /// How many labels to return, best first; default 5.
    pub top_k: Option<u32>,
    pub limits: Option<CallLimits>,
}

#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Label {
    pub label: String,
    pub index: u32,
    pub score: f32,
}

#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Classification {
    /// Best first; ties by lower index.
    pub labels: Vec<Label>,
    pub model: ModelRef,
    pub cost: Cost,
}

/// A part of an input too large for one message. The first part names type and shape and reserves the space.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct PutInput {
    /// 1 to 64 printable characters of ASCII; private to the caller.
    pub key: String,
    pub element_type: ElementType,
    pub shape: Vec<u64>,
    pub offset_bytes: u64,
    pub data: ByteBuf,
}

#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct StagedInput {
    pub key: String,
    pub size_bytes: u64,
    /// Bytes received so far, from the start without a gap.
    pub received_bytes: u64,
}

/// Asks for a page of a finished job's output.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ReadOutput {
    pub job: JobId,
    pub name: String,
    pub offset_bytes: u64,
    /// At most 1,900,000.
    pub length_bytes: u32,
}
