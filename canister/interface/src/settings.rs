//! Settings, and what `health` tells.

use candid::{CandidType, Nat, Principal};
use serde::{Deserialize, Serialize};

/// Who may call `classify`, `infer` and the rest; controllers always may.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum InferenceAccess {
    #[serde(rename = "controllers")]
    Controllers,
    #[serde(rename = "principals")]
    Principals(Vec<Principal>),
    #[serde(rename = "everyone")]
    Everyone,
}

/// What `load` does when the heap has no room for a model.
#[derive(CandidType, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeapPolicy {
    /// Refuses with the bytes needed and free.
    #[serde(rename = "refuse")]
    Refuse,
    /// Unloads the versions that were least recently used, as many as it takes; refuses when that doesn't suffice.
    #[serde(rename = "evict_least_recently_used")]
    EvictLeastRecentlyUsed,
}

/// Everything a controller can set.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Settings {
    /// Instructions of one update message after which work continues in the next; at most 38.8e9 of the network's 40e9.
    pub message_budget: u64,
    /// Instructions one query may use.
    pub query_budget: u64,
    /// Messages after which a waiting call answers `StillRunning`.
    pub max_call_messages: u32,
    /// Messages one job may take in all.
    pub max_job_messages: u32,
    /// Instructions one job may take in all.
    pub max_job_instructions: u64,
    /// Cycles below which inference is refused so that stored data outlives it.
    pub cycles_reserve: Nat,
    pub inference_access: InferenceAccess,
    /// Principals, besides controllers, who may upload and manage models.
    pub uploaders: Vec<Principal>,
    pub heap_policy: HeapPolicy,
}

/// A change of settings; `None` leaves one as it is.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct SettingsPatch {
    pub message_budget: Option<u64>,
    pub query_budget: Option<u64>,
    pub max_call_messages: Option<u32>,
    pub max_job_messages: Option<u32>,
    pub max_job_instructions: Option<u64>,
    pub cycles_reserve: Option<Nat>,
    pub inference_access: Option<InferenceAccess>,
    pub uploaders: Option<Vec<Principal>>,
    pub heap_policy: Option<HeapPolicy>,
}

/// The install argument: `(opt record { settings = opt record { ... } })`.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct InitArgs {
    pub settings: Option<SettingsPatch>,
}

#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Health {
    pub version: String,
    pub cycle_balance: Nat,
    /// Cycles a day that storage and the canister itself burn, from bytes held and the 13-node price.
    pub idle_cycles_per_day: Nat,
    /// Whole days until the balance reaches the reserve at that burn; `None` when it never does.
    pub days_left: Option<u64>,
    /// Inference is refused because the balance is below the reserve.
    pub below_reserve: bool,
    pub stable_bytes: u64,
    pub heap_bytes: u64,
    pub models_ready: u32,
    pub jobs_pending: u32,
    /// Calls of the canister to itself that are open; an upgrade is refused until this is 0.
    pub open_calls: u32,
    /// Bytes of the heap that are in use; the rest of `heap_bytes` is free for the next model.
    pub heap_used_bytes: u64,
    /// What was found damaged in stable memory since the last upgrade, and what became of it.
    pub damages: Vec<String>,
}
