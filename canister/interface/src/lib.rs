//! The canister's Candid types, shared by the canister, the uploader and the tests.
//!
//! One rule holds for every type here: whatever a caller can get wrong comes back as a variant of
//! [`Error`] that names the place and the value, never as a trap.

mod error;
mod generation;
mod inference;
mod job;
mod model;
mod profile;
mod settings;

pub use error::Error;
pub use generation::{ChatMessage, FinishReason, GenerateRequest, Generation, Prompt, SamplingOptions, SessionId};
pub use inference::{
    CallLimits, Classification, ClassifyInput, ClassifyRequest, Cost, ElementType, InferInput, InferRequest,
    InferResponse, InputSource, Label, OutputPage, PutInput, ReadOutput, StagedInput, Tensor, TensorInfo,
};
pub use job::{JobId, JobInfo, JobResult, JobState};
pub use model::{
    ChannelOrder, ChunkReceipt, FileManifest, Layout, Manifest, MissingChunks, ModelInfo, ModelRef, ModelState,
    Preprocessing, PutChunk, Resize, Task, UploadStatus, WeightForm,
};
pub use profile::{NodeProfile, OperatorProfile, Profile, ProfileRequest};
pub use settings::{Health, HeapPolicy, InferenceAccess, InitArgs, Settings, SettingsPatch};

/// Largest chunk of a file that [`PutChunk`] takes, in bytes: a 2 MiB ingress message less its envelope.
pub const CHUNK_BYTES_MAX: u32 = 1_900_000;

/// Largest image that `classify` decodes, in pixels.
pub const IMAGE_PIXELS_MAX: u64 = 24_000_000;
