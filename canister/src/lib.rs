//! An Internet Computer canister that runs ONNX models itself, deterministically.
//!
//! ```text
//! endpoints     every entry point, thin
//! arguments     what comes in, decoded
//! access        who may call what            settings    what a controller can set
//! store         models: upload, commit, activate, delete
//! loading       models onto the heap         inference   one request on one model (classify, infer, inputs)
//! jobs          what outgrows a message      lifecycle   install and upgrade
//! language      prompts, sessions and generation of language models
//! health        cycles                       metrics     /metrics
//! runtime       every system call            stable      stable memory's map
//! record        how records are encoded      limits      every limit
//! ```
//!
//! Only `endpoints` and `runtime` know the system; the rest runs natively, where its tests are.

mod access;
#[cfg(target_family = "wasm")]
mod allocator;
mod arguments;
#[cfg(feature = "canbench")]
mod canbench;
mod classify;
#[cfg(target_family = "wasm")]
mod constructors;
mod counters;
mod endpoints;
mod engine_error;
#[cfg(target_family = "wasm")]
mod entropy;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod health;
mod image_cost;
mod infer;
mod inference;
mod inputs;
mod jobs;
mod language;
mod lifecycle;
mod limits;
mod loading;
mod metrics;
mod profile;
mod record;
pub mod runtime;
mod settings;
mod stable;
mod store;
mod tensors;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use endpoints::candid_service;
