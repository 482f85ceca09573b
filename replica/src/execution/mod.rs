//! Runs one message of one canister by the network's rules.
//!
//! [`Module::compile`] validates and instruments a Wasm module; [`Instance`] holds its heap, globals and stable
//! memory between messages; [`Instance::execute`] runs one [`Message`] against them and either commits everything or
//! leaves everything as it was.

pub mod costs;
mod engine;
mod failure;
mod heap;
mod image;
mod instance;
mod instrument;
mod mapping;
mod meter;
mod module;
mod sections;
mod stable;
mod system_api;
mod types;
mod validate;

pub use engine::Engine;
pub use image::{GlobalValue, MemoryImage, PAGE_BYTES};
pub use instance::Instance;
pub use module::{CustomSection, InvalidModule, Module};
pub use stable::StableMemory;
pub use types::{
    Closure, Effects, EntryPoint, Environment, LogVisit, Message, Outcome, OutgoingCall, SystemInfo, Trap,
};
