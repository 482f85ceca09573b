//! Errors that decide the program's exit code.

use crate::client::CallError;
use onnx_canister_interface::Error;

/// A mistake in how the program was called; its exit code is 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Makes a [`UsageError`] into an [`anyhow::Error`].
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    UsageError(message.into()).into()
}

/// What a user can do next about `error`, if there is something to say.
pub fn hint(error: &anyhow::Error) -> Option<String> {
    match error.chain().find_map(|cause| cause.downcast_ref::<CallError>())? {
        CallError::Canister { error, .. } => canister_hint(error),
        CallError::Rejected { error_code, .. } => rejection_hint(error_code.as_deref()?).map(str::to_string),
        CallError::Unreachable { .. } => {
            Some("is the network running, and are --network and --replica-url right?".to_string())
        }
        CallError::Reply { .. } => {
            Some("is --canister an onnx-canister of the same version as this program?".to_string())
        }
        CallError::Failed { .. } => None,
    }
}

fn canister_hint(error: &Error) -> Option<String> {
    Some(match error {
        Error::NotAuthorized { .. } => {
            "call with --identity or --pem of a controller or named uploader, or have a controller allow this one \
             (update_settings)"
                .to_string()
        }
        Error::ModelNotFound { .. } => "`model-uploader list` shows what is there".to_string(),
        Error::NoActiveVersion { name } => format!("`model-uploader status {name}` shows its versions and states"),
        Error::WrongState { name, .. } => format!("`model-uploader status {name}` shows where it is"),
        Error::ChunksMissing { .. } => "run the same upload again: it sends only what is missing".to_string(),
        Error::ChunkHash { .. } | Error::FileHash { .. } => {
            "did the file change while it was uploaded? Run the upload again".to_string()
        }
        Error::ModelInvalid { .. } => "`model-uploader inspect FILE` tells what the file holds".to_string(),
        Error::UnknownTensor { .. }
        | Error::MissingTensor { .. }
        | Error::TensorType { .. }
        | Error::TensorShape { .. } => "`model-uploader status MODEL` shows inputs and outputs".to_string(),
        Error::Busy { .. } => "try again when that job has ended".to_string(),
        Error::QueryBudget { .. } => "leave out --query".to_string(),
        Error::JobLimit { .. } => "a controller can raise the limits (update_settings)".to_string(),
        Error::CyclesLow { .. } => "`icp canister top-up` adds cycles".to_string(),
        Error::StableMemoryFull { .. } => "`model-uploader delete MODEL --version N` frees space".to_string(),
        Error::HeapFull { .. } => "unload a model, or raise the canister's wasm_memory_limit".to_string(),
        _ => return None,
    })
}

/// For error codes of the Interface Specification.
fn rejection_hint(error_code: &str) -> Option<&'static str> {
    Some(match error_code {
        "IC0301" => "there is no such canister on this network: check --canister and --network",
        "IC0406" => {
            "the canister turns this caller away: call with --identity or --pem of a controller, or of whom its \
             settings let in"
        }
        "IC0508" | "IC0509" => "the canister is stopped or stopping: start it first",
        "IC0207" => "the canister is out of cycles: `icp canister top-up` adds some",
        "IC0536" => "the canister has no such method: is it an onnx-canister, of this version?",
        "IC0537" => "the canister is empty: deploy it first",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_hint_is_found_below_added_context() {
        let error = CallError::Canister { method: "load", error: Error::NoActiveVersion { name: "m".to_string() } };
        let wrapped: anyhow::Result<()> = Err(error).context("loading").context("uploading");
        let Err(wrapped) = wrapped else { panic!("an error stays an error") };
        assert!(hint(&wrapped).is_some_and(|h| h.contains("status m")));
        assert!(hint(&usage("bad")).is_none());
    }
}
