//! What goes into the execution of a message, and what comes out.

use candid::Principal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The function a message enters by, and so its kind, limits and permitted system calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryPoint {
    /// The module's start function (exported as `canister_start` by instrumentation); run before init, pre- and post-upgrade.
    Start,
    Init,
    PreUpgrade,
    PostUpgrade,
    /// Asks whether an ingress message to this method is accepted.
    InspectMessage(String),
    Update(String),
    /// `replicated` when an update call reached a query method.
    Query {
        method: String,
        replicated: bool,
    },
    /// Commits, so that its callbacks see its heap: the state machine takes a checkpoint of the instance before it
    /// and rolls back when the query is done.
    CompositeQuery(String),
    Heartbeat,
    GlobalTimer,
    OnLowWasmMemory,
    ReplyCallback(Closure),
    RejectCallback(Closure),
    Cleanup(Closure),
}

/// A callback of the canister: an index into its table, and the word it gets as argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closure {
    pub function: u32,
    pub environment: u32,
}

/// What a message brings with it.
#[derive(Clone, Debug)]
pub struct Message {
    pub entry_point: EntryPoint,
    /// Originator of the call context (anonymous / management canister where there is none).
    pub caller: Principal,
    /// The argument, or in a reply callback the reply's bytes.
    pub argument: Vec<u8>,
    /// In a reject callback: the code (1 to 6) and the message.
    pub reject: Option<(u32, String)>,
    /// Cycles of the call context not yet accepted.
    pub cycles_available: u128,
    /// In a callback: cycles that came back with the response.
    pub cycles_refunded: u128,
    /// Deadline of a best-effort call in nanoseconds; 0 for guaranteed response.
    pub deadline_ns: u64,
    /// The call context has been replied to or rejected before this message.
    pub already_responded: bool,
    /// Instructions that earlier messages of this call context executed: what `performance_counter(1)` starts from.
    pub call_context_instructions: u64,
}

/// What the system API shows of canister and subnet; constant during a message.
#[derive(Clone, Debug)]
pub struct SystemInfo {
    pub canister_id: Principal,
    pub subnet_id: Principal,
    /// DER form of the root key.
    pub root_key: Arc<Vec<u8>>,
    pub time_ns: u64,
    pub controllers: Vec<Principal>,
    /// 1 running, 2 stopping, 3 stopped.
    pub status: u32,
    pub canister_version: u64,
    /// Balance after the message's prepayment was taken.
    pub cycle_balance: u128,
    /// Balance below which the canister is frozen: what calls and burning must leave.
    pub freezing_limit: u128,
    /// Cycles that one `call_perform` reserves for the callback's execution and a reply of maximal size.
    pub call_reservation: u128,
    /// The global timer in nanoseconds, 0 when it is not armed: what `global_timer_set` returns.
    pub global_timer_ns: u64,
    pub environment_variables: BTreeMap<String, String>,
    /// Certificate of the certified data; only in non-replicated queries.
    pub data_certificate: Option<Vec<u8>>,
    /// Setting `wasm_memory_limit` in bytes; 0 is none. Enforced as the network does, by kind of message.
    pub wasm_memory_limit_bytes: u64,
    /// Bytes of canister log that still have room.
    pub log_remaining_bytes: u64,
}

/// Everything [`super::Instance::execute`] needs beside the instance.
#[derive(Clone, Debug)]
pub struct Environment {
    pub system: SystemInfo,
    pub message: Message,
    /// Overrides the limit of the message's kind, in instructions: a composite query's remaining budget, a
    /// benchmarking subnet's higher one.
    pub instruction_limit: Option<u64>,
    /// The message is a callback of a composite query: the system API is that of a query, and the state machine
    /// rolls back to a checkpoint of the instance when the query is done.
    pub in_composite_query: bool,
}

/// A call that the message made; it is sent when the message commits.
#[derive(Clone, Debug)]
pub struct OutgoingCall {
    pub callee: Principal,
    pub method: String,
    pub argument: Vec<u8>,
    pub cycles: u128,
    pub on_reply: Closure,
    pub on_reject: Closure,
    pub on_cleanup: Option<Closure>,
    /// `Some(seconds)` when `call_with_best_effort_response` was used.
    pub timeout_s: Option<u32>,
}

/// What a successful message changes outside of the canister's memories.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    /// `Ok` of a reply's bytes or `Err` of a reject's message.
    pub response: Option<Result<Vec<u8>, String>>,
    pub calls: Vec<OutgoingCall>,
    pub certified_data: Option<Vec<u8>>,
    /// New global timer in nanoseconds, 0 to disarm.
    pub global_timer_ns: Option<u64>,
    pub cycles_accepted: u128,
    pub cycles_burned: u128,
    /// `accept_message` was called (inspect_message only).
    pub accepted: bool,
}

/// Log lines written by one message, kept also when it traps.
#[derive(Clone, Debug, Default)]
pub struct LogVisit {
    pub lines: Vec<Vec<u8>>,
}

/// Why a message was rolled back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trap {
    pub code: crate::subnet::ErrorCode,
    /// The network's wording after "Error from Canister <id>: ".
    pub message: String,
}

/// The end of one message.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Instructions executed, page charges included; what `performance_counter(0)` would have read at the end.
    pub instructions: u64,
    /// Of these, charges for pages touched.
    pub page_charge: u64,
    /// Slices of deterministic time slicing it took: rounds on a real subnet.
    pub slices: u32,
    /// Pages of 64 KiB written, heap and stable memory together.
    pub pages_dirtied: u64,
    pub log: LogVisit,
    pub result: Result<Effects, Trap>,
}
