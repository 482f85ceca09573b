//! An embedded Internet Computer replica: one process, one subnet, the network's own execution rules, spoken to by
//! the official clients only.
//!
//! Layers, each knowing only those above it in this list:
//!
//! - [`certification`]: hash tree, BLS root key, certificates. Knows no canister.
//! - [`execution`] runs one message of one canister: instrumentation, page charges, system API, limits.
//! - [`subnet`] is the replicated state machine: canisters, messages, call contexts, cycles, timers, the management
//!   canister.
//! - [`doors`] are the ways in: the IC HTTP interface with certificates, the HTTP gateway, PocketIC's REST subset.
//! - [`cli`] is the binary's commands.

pub mod certification;
pub mod cli;
pub mod doors;
pub mod execution;
pub mod subnet;
