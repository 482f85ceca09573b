//! What travels between canisters, and who waits for an answer.

use super::types::{ErrorCode, RejectCode, Rejection, RequestId};
use candid::Principal;
use serde::{Deserialize, Serialize};

/// Names an open call of one canister.
pub type CallbackId = u64;

/// The answer to a call.
pub type CallResult = Result<Vec<u8>, Rejection>;

/// Who waits for the answer to a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    Ingress {
        id: RequestId,
        sender: Principal,
    },
    Canister {
        caller: Principal,
        callback: CallbackId,
        /// Zero for guaranteed response.
        deadline_ns: u64,
    },
    /// Nobody: a timer, a heartbeat or a low-memory hook.
    System,
}

impl Origin {
    /// The caller as `msg_caller` shows it.
    pub fn sender(&self) -> Principal {
        match self {
            Origin::Ingress { sender, .. } => *sender,
            Origin::Canister { caller, .. } => *caller,
            Origin::System => Principal::management_canister(),
        }
    }

    /// The deadline as `msg_deadline` shows it.
    pub fn deadline_ns(&self) -> u64 {
        match self {
            Origin::Canister { deadline_ns, .. } => *deadline_ns,
            Origin::Ingress { .. } | Origin::System => 0,
        }
    }
}

/// A call on its way to a method.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    pub origin: Origin,
    pub callee: Principal,
    pub method: String,
    pub argument: Vec<u8>,
    /// Cycles attached.
    pub cycles: u128,
    /// When it is dropped unexecuted: the expiry of an ingress message, the deadline of a best-effort call.
    pub expiry_ns: Option<u64>,
}

/// An answer on its way back to a canister.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Response {
    pub callback: CallbackId,
    pub payload: Payload,
    /// Attached cycles that the callee did not take.
    pub refund: u128,
}

/// What an answer carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    Reply(Vec<u8>),
    Reject { code: RejectCode, message: String },
}

impl Payload {
    /// Bytes that transport is charged for.
    pub fn bytes(&self) -> u64 {
        match self {
            Payload::Reply(bytes) => bytes.len() as u64,
            Payload::Reject { message, .. } => message.len() as u64,
        }
    }
}

impl From<CallResult> for Payload {
    fn from(result: CallResult) -> Self {
        match result {
            Ok(reply) => Payload::Reply(reply),
            // A canister's own words stay as they are; the network's errors carry their code in front.
            Err(rejection) if rejection.error_code == ErrorCode::CanisterRejectedMessage => {
                Payload::Reject { code: rejection.reject_code, message: rejection.message }
            }
            Err(rejection) => Payload::Reject {
                code: rejection.reject_code,
                message: format!("{}: {}", rejection.error_code.to_ic_string(), rejection.message),
            },
        }
    }
}

/// What the system itself makes a canister do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    OnLowWasmMemory,
    GlobalTimer,
    Heartbeat,
}

/// What executing something on a canister sends out.
#[derive(Debug, Default)]
pub struct Output {
    pub requests: Vec<Request>,
    pub responses: Vec<Answer>,
}

/// An answer to whoever waits for it.
#[derive(Debug)]
pub struct Answer {
    pub to: Origin,
    pub result: CallResult,
    pub refund: u128,
}
