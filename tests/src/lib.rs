//! What the end-to-end tests, the demo and the benchmarks share: a network, a deployed canister, typed calls.
//!
//! Everything goes through official clients: [`network`] through `ic-agent` and `ic-utils` against the embedded replica,
//! [`icp`] through the real `icp`, [`pocket`] through the `pocket-ic` crate against whatever server `POCKET_IC_BIN` names.

pub mod environment;
pub mod icp;
pub mod models;
pub mod network;
pub mod npm;
pub mod onnx;
pub mod pocket;
pub mod replay;
pub mod requests;
