//! The replicated state machine: canisters, messages, cycles, time.

mod types;

pub use types::{ErrorCode, Ingress, IngressState, IngressStatus, QueryCall, RejectCode, Rejection, RequestId};
