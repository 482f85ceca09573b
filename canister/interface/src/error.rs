//! The one error type of every endpoint.

use crate::{ElementType, JobId};
use candid::{CandidType, Nat, Principal};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::fmt;

/// Why a call was refused or failed. Nothing stored is harmed by any of them.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum Error {
    /// The caller lacks the right; `needs` says which.
    NotAuthorized {
        caller: Principal,
        needs: String,
    },
    ModelNotFound {
        name: String,
        version: Option<u32>,
    },
    NoActiveVersion {
        name: String,
    },
    JobNotFound {
        job: JobId,
    },
    InputNotFound {
        key: String,
    },
    SessionNotFound {
        session: u64,
    },
    /// An argument is out of its range; `place` is its path in the request.
    InvalidArgument {
        place: String,
        value: String,
        reason: String,
    },
    /// The model version is in a state in which this can't be done.
    WrongState {
        name: String,
        version: u32,
        state: String,
        needs: String,
    },
    ChunkOutOfRange {
        file: u32,
        index: u32,
        chunks: u32,
    },
    ChunkSize {
        file: u32,
        index: u32,
        expected_bytes: u64,
        got_bytes: u64,
    },
    ChunkHash {
        file: u32,
        index: u32,
        expected_sha256: ByteBuf,
        got_sha256: ByteBuf,
    },
    ChunksMissing {
        missing: u32,
        first_file: u32,
        first_index: u32,
    },
    FileHash {
        file: u32,
        name: String,
        expected_sha256: ByteBuf,
        got_sha256: ByteBuf,
    },
    /// Stored bytes can't be read as an ONNX model that runs here; `place` names the node, tensor or byte.
    ModelInvalid {
        place: String,
        reason: String,
    },
    UnknownTensor {
        name: String,
        available: Vec<String>,
    },
    MissingTensor {
        name: String,
    },
    TensorType {
        name: String,
        expected: ElementType,
        got: ElementType,
    },
    TensorShape {
        name: String,
        expected: Vec<Option<u64>>,
        got: Vec<u64>,
    },
    TensorLength {
        name: String,
        expected_bytes: u64,
        got_bytes: u64,
    },
    /// The bytes are not a PNG or JPEG image that can be decoded.
    ImageInvalid {
        reason: String,
    },
    ImageTooLarge {
        pixels: u64,
        limit_pixels: u64,
    },
    /// A job holds the model; it is free again when `job` ends.
    Busy {
        job: JobId,
    },
    /// The call gave up waiting; `poll` the job for its answer.
    StillRunning {
        job: JobId,
    },
    /// The canister is stopping; after the upgrade the job starts again by itself: `poll` it.
    Interrupted {
        job: JobId,
    },
    Cancelled {
        job: JobId,
    },
    /// A query cannot hold this inference; call the update.
    QueryBudget {
        spent: u64,
        budget: u64,
    },
    /// The job reached its limit of instructions or messages.
    JobLimit {
        job: JobId,
        instructions: u64,
        messages: u32,
        reason: String,
    },
    CyclesLow {
        balance: Nat,
        reserve: Nat,
    },
    StableMemoryFull {
        needed_bytes: u64,
        free_bytes: u64,
    },
    HeapFull {
        needed_bytes: u64,
        free_bytes: u64,
    },
    /// Bytes in stable memory are not those that were written; `place` names what they belong to. Nothing else is
    /// affected.
    StoredDataDamaged {
        place: String,
        reason: String,
    },
    /// Execution trapped; the message was rolled back and the model is free.
    Trapped {
        place: String,
        message: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAuthorized { caller, needs } => write!(f, "{caller} is not authorized: this needs {needs}"),
            Self::ModelNotFound { name, version: Some(version) } => write!(f, "no model '{name}' version {version}"),
            Self::ModelNotFound { name, version: None } => write!(f, "no model '{name}'"),
            Self::NoActiveVersion { name } => write!(f, "model '{name}' has no active version: activate one"),
            Self::JobNotFound { job } => write!(f, "no job {job}"),
            Self::SessionNotFound { session } => write!(f, "no session {session} of this caller"),
            Self::InputNotFound { key } => write!(f, "no staged input '{key}' of this caller"),
            Self::InvalidArgument { place, value, reason } => write!(f, "{place} = {value}: {reason}"),
            Self::WrongState { name, version, state, needs } => {
                write!(f, "model '{name}' version {version} is {state}; this needs {needs}")
            }
            Self::ChunkOutOfRange { file, index, chunks } => {
                write!(f, "file {file} has chunks 0 to {}; there is no chunk {index}", i64::from(*chunks) - 1)
            }
            Self::ChunkSize { file, index, expected_bytes, got_bytes } => {
                write!(f, "chunk {index} of file {file} has {got_bytes} bytes, expected {expected_bytes}")
            }
            Self::ChunkHash { file, index, expected_sha256, got_sha256 } => write!(
                f,
                "chunk {index} of file {file} has sha256 {}, the manifest says {}",
                hex(got_sha256),
                hex(expected_sha256)
            ),
            Self::ChunksMissing { missing, first_file, first_index } => {
                write!(f, "{missing} chunks are missing, the first is chunk {first_index} of file {first_file}")
            }
            Self::FileHash { file, name, expected_sha256, got_sha256 } => write!(
                f,
                "file {file} ('{name}') has sha256 {}, the manifest says {}",
                hex(got_sha256),
                hex(expected_sha256)
            ),
            Self::ModelInvalid { place, reason } => write!(f, "invalid model, {place}: {reason}"),
            Self::UnknownTensor { name, available } => {
                write!(f, "no tensor '{name}'; there are: {}", available.join(", "))
            }
            Self::MissingTensor { name } => write!(f, "input '{name}' is missing"),
            Self::TensorType { name, expected, got } => {
                write!(f, "tensor '{name}' has type {got:?}, expected {expected:?}")
            }
            Self::TensorShape { name, expected, got } => {
                let expected: Vec<String> =
                    expected.iter().map(|d| d.map_or("?".to_string(), |d| d.to_string())).collect();
                write!(f, "tensor '{name}' has shape {got:?}, expected [{}]", expected.join(", "))
            }
            Self::TensorLength { name, expected_bytes, got_bytes } => {
                write!(f, "tensor '{name}' has {got_bytes} bytes of data, its type and shape need {expected_bytes}")
            }
            Self::ImageInvalid { reason } => write!(f, "not a PNG or JPEG image that can be decoded: {reason}"),
            Self::ImageTooLarge { pixels, limit_pixels } => {
                write!(f, "image of {pixels} pixels, the limit is {limit_pixels}")
            }
            Self::Busy { job } => write!(f, "the model is leased by job {job}"),
            Self::StillRunning { job } => write!(f, "still running: poll job {job}"),
            Self::Interrupted { job } => {
                write!(f, "the canister is stopping: job {job} starts again after it, poll it")
            }
            Self::Cancelled { job } => write!(f, "job {job} was cancelled"),
            Self::QueryBudget { spent, budget } => {
                write!(f, "more than a query can hold ({spent} instructions spent of {budget}): call the update")
            }
            Self::JobLimit { job, instructions, messages, reason } => {
                write!(f, "job {job} ended after {instructions} instructions and {messages} messages: {reason}")
            }
            Self::CyclesLow { balance, reserve } => {
                write!(f, "cycle balance {balance} is below the reserve {reserve}: top the canister up")
            }
            Self::StableMemoryFull { needed_bytes, free_bytes } => {
                write!(f, "stable memory: {needed_bytes} bytes needed, {free_bytes} free")
            }
            Self::HeapFull { needed_bytes, free_bytes } => {
                write!(f, "heap: {needed_bytes} bytes needed, {free_bytes} free")
            }
            Self::StoredDataDamaged { place, reason } => write!(f, "stable memory is damaged: {place}: {reason}"),
            Self::Trapped { place, message } => write!(f, "trapped in {place}: {message}"),
        }
    }
}

impl std::error::Error for Error {}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
