//! The engine's errors as the canister's callers see them.

use crate::store::manifest::invalid;
use crate::tensors::element_type;
use onnx_canister_interface::Error;
use onnx_engine::EngineError;

/// An error met while loading a model: whatever it is, the model's bytes are at fault.
pub fn of_model(error: EngineError) -> Error {
    match error {
        EngineError::Invalid { place, reason } => Error::ModelInvalid { place, reason },
        EngineError::Unsupported { node, operator, reason } => {
            Error::ModelInvalid { place: format!("node {node} ({operator})"), reason }
        }
        EngineError::NodeTooExpensive { node, estimate, limit } => too_expensive(node, estimate, limit),
        EngineError::Run { node, reason } => Error::ModelInvalid { place: format!("node {node}"), reason },
        other => Error::ModelInvalid { place: "the model".into(), reason: other.to_string() },
    }
}

/// An error met while preparing or running a request. `place` is where in the request its values are.
pub fn of_request(place: &str, error: EngineError) -> Error {
    match error {
        EngineError::UnknownTensor { name, available } => Error::UnknownTensor { name, available },
        EngineError::MissingTensor { name } => Error::MissingTensor { name },
        EngineError::DuplicateTensor { name } => invalid(place, name, "given twice"),
        EngineError::TensorType { name, expected, got } => {
            Error::TensorType { name, expected: element_type(expected), got: element_type(got) }
        }
        EngineError::TensorShape { name, expected, got } => Error::TensorShape { name, expected, got },
        EngineError::TensorLength { name, expected_bytes, got_bytes } => {
            Error::TensorLength { name, expected_bytes, got_bytes }
        }
        EngineError::Cast { from, to } => {
            Error::TensorType { name: place.into(), expected: element_type(to), got: element_type(from) }
        }
        EngineError::TooLarge { place: what, value, limit } => {
            invalid(format!("{place}: {what}"), value, format!("the limit is {limit}"))
        }
        EngineError::ImageInvalid { reason } => Error::ImageInvalid { reason },
        EngineError::ImageTooLarge { pixels, limit_pixels } => Error::ImageTooLarge { pixels, limit_pixels },
        EngineError::ImageTooSmall { .. } => Error::ImageInvalid { reason: error.to_string() },
        EngineError::Preprocessing { place: field, value, reason } => {
            invalid(format!("manifest.preprocessing.{field}"), value, reason)
        }
        EngineError::Invalid { .. }
        | EngineError::Unsupported { .. }
        | EngineError::NodeTooExpensive { .. }
        | EngineError::Run { .. }
        | EngineError::NotDone { .. }
        | EngineError::Read { .. } => of_model(error),
    }
}

fn too_expensive(node: String, estimate: u64, limit: u64) -> Error {
    Error::ModelInvalid {
        place: format!("node {node}"),
        reason: format!("it may take {estimate} instructions, and {limit} is the most that one node may"),
    }
}
