//! What a canister has executed and paid since it was created: what the tests and the demo hold the canister's own
//! accounting against. The product never reads it.

use serde::{Deserialize, Serialize};

/// Cycles charged, by use case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CyclesCharged {
    /// Induction of ingress messages.
    pub ingress: u128,
    /// Base fee and instructions of executed messages, installs and their compilation included.
    pub execution: u128,
    /// Memory and the base fee per second.
    pub storage: u128,
    /// Requests and responses between canisters.
    pub transmission: u128,
    /// Compute allocation.
    pub compute: u128,
    /// Burned by the canister itself.
    pub burned: u128,
}

/// Cumulative counters of one canister.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Instructions executed in replicated mode, page charges included.
    pub instructions: u64,
    /// Of these, charges for pages touched.
    pub page_charge: u64,
    /// Messages executed in replicated mode.
    pub messages: u64,
    /// Slices these took: rounds on a real subnet.
    pub slices: u64,
    /// Pages of 64 KiB written by these messages.
    pub pages_dirtied: u64,
    pub cycles: CyclesCharged,
}

/// What the last replicated message of a canister cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageCost {
    pub instructions: u64,
    pub page_charge: u64,
    pub slices: u64,
    pub pages_dirtied: u64,
    /// Execution alone: base fee and instructions.
    pub cycles: u128,
}
