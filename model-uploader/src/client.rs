//! The canister's methods as typed calls.
//!
//! A [`Client`] encodes and decodes Candid and tries transient failures again; the bytes go through a [`Transport`],
//! which is ic-agent in the program and a simulated canister in tests.

use crate::retry::{RetryPolicy, Safety};
use candid::{CandidType, Principal, Reserved};
use onnx_canister_interface::{
    ChunkReceipt, Classification, ClassifyRequest, Error, GenerateRequest, Generation, Health, InferRequest,
    InferResponse, JobId, JobInfo, Manifest, MissingChunks, ModelInfo, ModelRef, OutputPage, Profile, ProfileRequest,
    PutChunk, PutInput, ReadOutput, Settings, SettingsPatch, StagedInput, UploadStatus,
};
use serde::de::DeserializeOwned;
use std::future::Future;
use std::time::Duration;

/// How a method is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// Through consensus; the answer is certified.
    Update,
    /// Answered and signed by one node.
    Query,
}

/// Why no reply came back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// May succeed when tried again. `maybe_executed`: the message may have been executed all the same.
    #[error("{message}")]
    Transient { message: String, maybe_executed: bool },
    /// The canister or the network refused, and would again.
    #[error("{message}")]
    Rejected { message: String, error_code: Option<String> },
    /// Anything else that trying again does not mend.
    #[error("{message}")]
    Fatal { message: String },
}

/// Carries Candid bytes to one canister and back.
pub trait Transport: Send + Sync {
    /// Calls `method` with the encoded `arg` and returns the encoded reply.
    fn call(
        &self,
        kind: CallKind,
        method: &'static str,
        arg: &[u8],
    ) -> impl Future<Output = Result<Vec<u8>, TransportError>> + Send;
}

/// Why a call of the canister failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// The canister's own answer.
    #[error("{error}")]
    Canister { method: &'static str, error: Error },
    /// The network, or the canister by rejecting.
    #[error("{method} was rejected{}: {message}", .error_code.as_deref().map(|c| format!(" ({c})")).unwrap_or_default())]
    Rejected { method: &'static str, message: String, error_code: Option<String> },
    /// No answer after all attempts.
    #[error("{method} failed, after {attempts} {}: {message}", if *.attempts == 1 { "attempt" } else { "attempts" })]
    Unreachable { method: &'static str, attempts: u32, message: String },
    #[error("{method}: {message}")]
    Failed { method: &'static str, message: String },
    /// The reply is not what the method answers: another canister, or another version of it.
    #[error("{method} answered what this program does not understand: {message}")]
    Reply { method: &'static str, message: String },
}

impl CallError {
    /// The canister's typed error, if it is one.
    pub fn canister_error(&self) -> Option<&Error> {
        match self {
            Self::Canister { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// The canister, as seen through a transport.
pub struct Client<T> {
    transport: T,
    retry: RetryPolicy,
}

type CallResult<R> = Result<R, CallError>;

impl<T: Transport> Client<T> {
    pub fn new(transport: T) -> Self {
        Self { transport, retry: RetryPolicy::default() }
    }

    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// Starts or finds the upload of `manifest`.
    pub async fn begin_upload(&self, manifest: &Manifest) -> CallResult<UploadStatus> {
        self.call(CallKind::Update, Safety::Idempotent, "begin_upload", manifest).await
    }

    /// Stores one chunk; storing it again changes nothing.
    pub async fn put_chunk(&self, chunk: &PutChunk) -> CallResult<ChunkReceipt> {
        self.call(CallKind::Update, Safety::Idempotent, "put_chunk", chunk).await
    }

    /// Chunks not yet stored, as runs in order.
    pub async fn missing_chunks(&self, model: &ModelRef) -> CallResult<Vec<MissingChunks>> {
        self.call(CallKind::Query, Safety::Idempotent, "missing_chunks", model).await
    }

    /// Verifies the files' hashes. `Err(StillRunning)` means that it goes on by itself: watch [`Self::model_info`].
    pub async fn commit(&self, model: &ModelRef) -> CallResult<()> {
        self.call_ignoring_answer(Safety::Idempotent, "commit", model).await
    }

    /// Starts bringing the model onto the heap and returns at once: watch [`Self::model_info`].
    pub async fn load(&self, model: &ModelRef) -> CallResult<()> {
        self.call_ignoring_answer(Safety::Idempotent, "load", model).await
    }

    /// Makes this version the one that calls without a version mean.
    pub async fn activate(&self, model: &ModelRef) -> CallResult<()> {
        self.call_ignoring_answer(Safety::Idempotent, "activate", model).await
    }

    /// Makes the version that was active before the active one.
    pub async fn rollback(&self, name: &str) -> CallResult<()> {
        self.call_ignoring_answer(Safety::Once, "rollback", &name).await
    }

    /// Frees the model's heap; its files stay.
    pub async fn unload(&self, model: &ModelRef) -> CallResult<()> {
        self.call_ignoring_answer(Safety::Idempotent, "unload", model).await
    }

    /// Deletes a version, files and all.
    pub async fn delete_model(&self, model: &ModelRef) -> CallResult<()> {
        self.call_ignoring_answer(Safety::Once, "delete_model", model).await
    }

    pub async fn list_models(&self) -> CallResult<Vec<ModelInfo>> {
        decode("list_models", &self.query_without_argument("list_models").await?)
    }

    pub async fn model_info(&self, model: &ModelRef) -> CallResult<ModelInfo> {
        self.call(CallKind::Query, Safety::Idempotent, "model_info", model).await
    }

    /// The labels of an image or tensor, over as many messages as it takes.
    pub async fn classify(&self, request: &ClassifyRequest) -> CallResult<Classification> {
        self.call(CallKind::Update, Safety::Once, "classify", request).await
    }

    /// The labels of an image or tensor, in one query.
    pub async fn classify_query(&self, request: &ClassifyRequest) -> CallResult<Classification> {
        self.call(CallKind::Query, Safety::Idempotent, "classify_query", request).await
    }

    pub async fn infer(&self, request: &InferRequest) -> CallResult<InferResponse> {
        self.call(CallKind::Update, Safety::Once, "infer", request).await
    }

    /// What each node of an inference takes.
    pub async fn profile(&self, request: &ProfileRequest) -> CallResult<Profile> {
        self.call(CallKind::Update, Safety::Once, "profile", request).await
    }

    pub async fn infer_query(&self, request: &InferRequest) -> CallResult<InferResponse> {
        self.call(CallKind::Query, Safety::Idempotent, "infer_query", request).await
    }

    /// Stores a part of a large input; storing it again changes nothing.
    pub async fn put_input(&self, part: &PutInput) -> CallResult<StagedInput> {
        self.call(CallKind::Update, Safety::Idempotent, "put_input", part).await
    }

    /// Text, over as many messages as a call has.
    pub async fn generate(&self, request: &GenerateRequest) -> CallResult<Generation> {
        self.call(CallKind::Update, Safety::Once, "generate", request).await
    }

    /// As much text as one query holds.
    pub async fn generate_query(&self, request: &GenerateRequest) -> CallResult<Generation> {
        self.call(CallKind::Query, Safety::Idempotent, "generate_query", request).await
    }

    /// Starts a generation and returns its job.
    pub async fn start_generation(&self, request: &GenerateRequest) -> CallResult<JobId> {
        self.call(CallKind::Update, Safety::Once, "start_generation", request).await
    }

    /// Starts an inference and returns its job.
    pub async fn start_infer(&self, request: &InferRequest) -> CallResult<JobId> {
        self.call(CallKind::Update, Safety::Once, "start_infer", request).await
    }

    pub async fn poll(&self, job: JobId) -> CallResult<JobInfo> {
        self.call(CallKind::Query, Safety::Idempotent, "poll", &job).await
    }

    pub async fn cancel(&self, job: JobId) -> CallResult<()> {
        self.call_ignoring_answer(Safety::Idempotent, "cancel", &job).await
    }

    pub async fn read_output(&self, request: &ReadOutput) -> CallResult<OutputPage> {
        self.call(CallKind::Query, Safety::Idempotent, "read_output", request).await
    }

    pub async fn health(&self) -> CallResult<Health> {
        decode_plain("health", &self.query_without_argument("health").await?)
    }

    pub async fn get_settings(&self) -> CallResult<Settings> {
        decode_plain("get_settings", &self.query_without_argument("get_settings").await?)
    }

    pub async fn update_settings(&self, patch: &SettingsPatch) -> CallResult<()> {
        self.call_ignoring_answer(Safety::Idempotent, "update_settings", patch).await
    }

    async fn call<A: CandidType, R: CandidType + DeserializeOwned>(
        &self,
        kind: CallKind,
        safety: Safety,
        method: &'static str,
        argument: &A,
    ) -> CallResult<R> {
        let bytes = candid::encode_one(argument)
            .map_err(|e| CallError::Failed { method, message: format!("encoding the request: {e}") })?;
        decode(method, &self.send(kind, safety, method, &bytes).await?)
    }

    async fn query_without_argument(&self, method: &'static str) -> CallResult<Vec<u8>> {
        let bytes = candid::encode_args(())
            .map_err(|e| CallError::Failed { method, message: format!("encoding the request: {e}") })?;
        self.send(CallKind::Query, Safety::Idempotent, method, &bytes).await
    }

    /// For methods whose `Ok` only says that it was done.
    async fn call_ignoring_answer<A: CandidType>(
        &self,
        safety: Safety,
        method: &'static str,
        argument: &A,
    ) -> CallResult<()> {
        self.call::<A, Reserved>(CallKind::Update, safety, method, argument).await.map(|_| ())
    }

    /// Sends until there is a reply, a refusal, or no attempt left.
    async fn send(
        &self,
        kind: CallKind,
        safety: Safety,
        method: &'static str,
        bytes: &[u8],
    ) -> Result<Vec<u8>, CallError> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.transport.call(kind, method, bytes).await {
                Ok(reply) => return Ok(reply),
                Err(TransportError::Rejected { message, error_code }) => {
                    return Err(CallError::Rejected { method, message, error_code });
                }
                Err(TransportError::Fatal { message }) => return Err(CallError::Failed { method, message }),
                Err(TransportError::Transient { message, maybe_executed }) => {
                    match self.retry.delay_after(attempts, safety, maybe_executed) {
                        Some(delay) => tokio::time::sleep(delay).await,
                        None => return Err(CallError::Unreachable { method, attempts, message }),
                    }
                }
            }
        }
    }

    /// How long to wait before looking again at something that goes on by itself: short at first, then longer.
    pub(crate) fn poll_delay(&self, polls_done: u32) -> Duration {
        self.retry.poll_delay(polls_done)
    }
}

fn decode<R: CandidType + DeserializeOwned>(method: &'static str, reply: &[u8]) -> CallResult<R> {
    decode_plain::<Result<R, Error>>(method, reply)?.map_err(|error| CallError::Canister { method, error })
}

/// For methods that answer without `Ok` and `Err`.
fn decode_plain<R: CandidType + DeserializeOwned>(method: &'static str, reply: &[u8]) -> CallResult<R> {
    candid::decode_one(reply).map_err(|e| CallError::Reply { method, message: e.to_string() })
}

/// A model by name and, where not the active one is meant, by version.
pub fn model_ref(name: &str, version: Option<u32>) -> ModelRef {
    ModelRef { name: name.to_string(), version }
}

/// Text of a principal, or of the anonymous one, as people know it.
pub fn principal_name(principal: &Principal) -> String {
    if *principal == Principal::anonymous() { "anonymous".to_string() } else { principal.to_text() }
}
