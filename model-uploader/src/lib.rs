//! Gets ONNX models into an onnx-canister and answers out of it: recipes, resumable parallel upload, inference.
//!
//! The program `model-uploader` is a thin shell around this library; tests and other tools call it directly:
//! [`connect`] gives a [`Client`], [`recipe::fetch`] a model's files, [`upload`] brings them in, [`classify`] and
//! [`infer`] use them, and [`prices`] says what it costs.

mod agent_transport;
pub mod client;
mod connect;
pub mod error;
pub mod gguf;
pub mod inference;
pub mod inspection;
pub mod manifest;
pub mod native;
pub mod prices;
mod quantisation;
pub mod recipe;
mod retry;
pub mod tensor_file;
mod upload;

#[cfg(test)]
mod simulation;

pub use agent_transport::AgentTransport;
pub use client::{CallError, CallKind, Client, Transport, TransportError, model_ref};
pub use connect::{ConnectOptions, Connection, IdentityChoice, LOCAL_NETWORK, MAINNET, RootKey, connect};
pub use inference::{Answer, ProfileInput, Subject, classify, infer, profile};
pub use quantisation::{Loss, quantisation_loss};
pub use retry::RetryPolicy;
pub use upload::{DEFAULT_CONCURRENCY, Event, UploadOptions, UploadReport, load, upload};
