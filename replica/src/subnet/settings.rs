//! A canister's settings, in plain form.

use candid::{Nat, Principal};
use ic_management_canister_types as ic00;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Default freezing threshold: thirty days, in seconds.
pub const DEFAULT_FREEZING_THRESHOLD_S: u64 = 30 * 86_400;
/// Default limit of reserved cycles.
pub const DEFAULT_RESERVED_CYCLES_LIMIT: u128 = 5_000_000_000_000;
/// Default `wasm_memory_limit` of new canisters in bytes.
pub const DEFAULT_WASM_MEMORY_LIMIT_BYTES: u64 = 3 << 30;
/// Default size of the canister log in bytes.
pub const DEFAULT_LOG_MEMORY_LIMIT_BYTES: u64 = 4096;

/// What the controllers of a canister set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub controllers: BTreeSet<Principal>,
    pub compute_allocation_percent: u64,
    /// Memory paid for even when unused; 0 pays for what is used.
    pub memory_allocation_bytes: u64,
    pub freezing_threshold_s: u64,
    pub reserved_cycles_limit: u128,
    pub minimum_incoming_call_cycles: u128,
    pub log_visibility: ic00::LogVisibility,
    pub log_memory_limit_bytes: u64,
    pub snapshot_visibility: ic00::SnapshotVisibility,
    pub status_visibility: ic00::StatusVisibility,
    /// 0 is no limit.
    pub wasm_memory_limit_bytes: u64,
    pub wasm_memory_threshold_bytes: u64,
    pub environment_variables: BTreeMap<String, String>,
}

impl Settings {
    /// Defaults of a new canister with one controller.
    pub fn new(controller: Principal) -> Self {
        Settings {
            controllers: BTreeSet::from([controller]),
            compute_allocation_percent: 0,
            memory_allocation_bytes: 0,
            freezing_threshold_s: DEFAULT_FREEZING_THRESHOLD_S,
            reserved_cycles_limit: DEFAULT_RESERVED_CYCLES_LIMIT,
            minimum_incoming_call_cycles: 0,
            log_visibility: ic00::LogVisibility::Controllers,
            log_memory_limit_bytes: DEFAULT_LOG_MEMORY_LIMIT_BYTES,
            snapshot_visibility: ic00::SnapshotVisibility::Controllers,
            status_visibility: ic00::StatusVisibility::Controllers,
            wasm_memory_limit_bytes: DEFAULT_WASM_MEMORY_LIMIT_BYTES,
            wasm_memory_threshold_bytes: 0,
            environment_variables: BTreeMap::new(),
        }
    }

    /// As `canister_status` shows them.
    pub fn to_definite(&self) -> ic00::DefiniteCanisterSettings {
        ic00::DefiniteCanisterSettings {
            controllers: self.controllers.iter().copied().collect(),
            compute_allocation: Nat::from(self.compute_allocation_percent),
            memory_allocation: Nat::from(self.memory_allocation_bytes),
            freezing_threshold: Nat::from(self.freezing_threshold_s),
            reserved_cycles_limit: Nat::from(self.reserved_cycles_limit),
            minimum_incoming_canister_call_cycles: Nat::from(self.minimum_incoming_call_cycles),
            log_visibility: self.log_visibility.clone(),
            log_memory_limit: Nat::from(self.log_memory_limit_bytes),
            snapshot_visibility: self.snapshot_visibility.clone(),
            status_visibility: self.status_visibility.clone(),
            wasm_memory_limit: Nat::from(self.wasm_memory_limit_bytes),
            wasm_memory_threshold: Nat::from(self.wasm_memory_threshold_bytes),
            environment_variables: self
                .environment_variables
                .iter()
                .map(|(name, value)| ic00::EnvironmentVariable { name: name.clone(), value: value.clone() })
                .collect(),
        }
    }

    /// Whether `viewer` may read the canister's logs.
    pub fn logs_visible_to(&self, viewer: &Principal) -> bool {
        self.controllers.contains(viewer)
            || match &self.log_visibility {
                ic00::LogVisibility::Controllers => false,
                ic00::LogVisibility::Public => true,
                ic00::LogVisibility::AllowedViewers(viewers) => viewers.contains(viewer),
            }
    }

    /// Whether `viewer` may list and read the canister's snapshots.
    pub fn snapshots_visible_to(&self, viewer: &Principal) -> bool {
        self.controllers.contains(viewer)
            || match &self.snapshot_visibility {
                ic00::SnapshotVisibility::Controllers => false,
                ic00::SnapshotVisibility::Public => true,
                ic00::SnapshotVisibility::AllowedViewers(viewers) => viewers.contains(viewer),
            }
    }

    /// Whether `viewer` may read the canister's status.
    pub fn status_visible_to(&self, viewer: &Principal) -> bool {
        self.controllers.contains(viewer)
            || match &self.status_visibility {
                ic00::StatusVisibility::Controllers => false,
                ic00::StatusVisibility::Public => true,
                ic00::StatusVisibility::AllowedViewers(viewers) => viewers.contains(viewer),
            }
    }
}
