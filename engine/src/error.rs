//! The engine's errors: each names the place and the value.

use crate::ElementType;
use tract_onnx::prelude::TractResult;

/// A read that the source of bytes refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bytes {offset} to {offset}+{length} of a source of {available} bytes: {reason}")]
pub struct ReadError {
    pub offset: u64,
    pub length: u64,
    /// Length of the source, in bytes.
    pub available: u64,
    pub reason: String,
}

/// Why a model can't be loaded, a request not be run, or an image not be read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EngineError {
    /// The model's bytes contradict themselves or the ONNX format. `place` is a byte, node or tensor.
    #[error("{place}: {reason}")]
    Invalid { place: String, reason: String },
    /// Correct ONNX, but more than this engine does.
    #[error("node {node} ({operator}): {reason}")]
    Unsupported { node: String, operator: String, reason: String },
    /// A request names an input or output that the model does not have.
    #[error("there is no tensor {name:?}; there are {available:?}")]
    UnknownTensor { name: String, available: Vec<String> },
    /// A request lacks an input.
    #[error("input {name:?} is missing")]
    MissingTensor { name: String },
    /// A request gives an input, or asks for an output, twice.
    #[error("{name:?} is given twice")]
    DuplicateTensor { name: String },
    #[error("tensor {name:?} is {got}, needed is {expected}")]
    TensorType { name: String, expected: ElementType, got: ElementType },
    /// `None` is a dimension that is free.
    #[error("tensor {name:?} has shape {got:?}, needed is {expected:?}")]
    TensorShape { name: String, expected: Vec<Option<u64>>, got: Vec<u64> },
    /// Bytes and shape of a tensor made by a caller do not fit together.
    #[error("tensor {name:?} has {got_bytes} bytes, its shape needs {expected_bytes}")]
    TensorLength { name: String, expected_bytes: u64, got_bytes: u64 },
    /// A conversion between element types that is not offered.
    #[error("a tensor of {from} can't be given as {to}")]
    Cast { from: ElementType, to: ElementType },
    /// A value beyond one of the engine's limits.
    #[error("{place} is {value}, the limit is {limit}")]
    TooLarge { place: String, value: u64, limit: u64 },
    /// One node may need more instructions than a whole message has.
    #[error("node {node} may take {estimate} instructions, a message has {limit}")]
    NodeTooExpensive { node: String, estimate: u64, limit: u64 },
    /// Running a node failed: values do not fit its operator.
    #[error("running node {node}: {reason}")]
    Run { node: String, reason: String },
    /// A result was asked for before the last step.
    #[error("{place} is not done: {done} of {total}")]
    NotDone { place: String, done: u64, total: u64 },
    /// The bytes are not a PNG or JPEG image that can be decoded.
    #[error("not a readable PNG or JPEG image: {reason}")]
    ImageInvalid { reason: String },
    #[error("the image has {pixels} pixels, the limit is {limit_pixels}")]
    ImageTooLarge { pixels: u64, limit_pixels: u64 },
    /// The image is smaller than the crop, and no resize is asked for.
    #[error("the image is {width} x {height} pixels, the crop {crop_width} x {crop_height}")]
    ImageTooSmall { width: u32, height: u32, crop_width: u32, crop_height: u32 },
    /// Preprocessing parameters that can't be met. `place` is the field.
    #[error("preprocessing.{place} is {value}: {reason}")]
    Preprocessing { place: String, value: String, reason: String },
    #[error("reading {file}: {error}")]
    Read { file: String, error: ReadError },
}

impl EngineError {
    /// A model's tensor has more or fewer bytes than its shape needs.
    pub(crate) fn wrong_length(place: impl Into<String>, expected_bytes: u64, got_bytes: u64) -> Self {
        Self::invalid(place, format!("it has {got_bytes} bytes, its shape needs {expected_bytes}"))
    }

    pub(crate) fn invalid(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { place: place.into(), reason: reason.into() }
    }
}

/// tract's error, whose text names node and values, as ours.
pub(crate) fn tract<T>(place: &str, result: TractResult<T>) -> Result<T, EngineError> {
    result.map_err(|error| EngineError::invalid(place, format!("{error:#}")))
}
