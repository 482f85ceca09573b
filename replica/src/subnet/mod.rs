//! The replicated state machine: canisters, messages, cycles, time.

mod counters;
mod types;

pub use counters::{Counters, CyclesCharged, MessageCost};
pub use types::{ErrorCode, Ingress, IngressState, IngressStatus, QueryCall, RejectCode, Rejection, RequestId};

use crate::certification::{Path, RootKey};
use candid::Principal;
use std::path::PathBuf;

/// How a subnet starts.
#[derive(Clone, Debug)]
pub struct SubnetConfig {
    /// Gives the root key, the node key and the subnet's randomness.
    pub seed: [u8; 32],
    /// Where compiled modules are kept between runs, by hash.
    pub cache_dir: Option<PathBuf>,
    /// Time of the first round in nanoseconds since 1970.
    pub start_time_ns: u64,
    /// Queries get a very high instruction limit.
    pub benchmark: bool,
}

/// What one round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoundSummary {
    /// Messages executed, callbacks and timers included.
    pub messages: u64,
    pub instructions: u64,
    /// Nothing was done and nothing waits, but for timers and deadlines in the future.
    pub idle: bool,
}

/// One subnet and all its canisters.
pub struct Subnet {
    root_key: RootKey,
}

impl Subnet {
    pub fn new(_config: SubnetConfig) -> anyhow::Result<Subnet> {
        todo!()
    }

    pub fn subnet_id(&self) -> Principal {
        todo!()
    }

    pub fn root_key(&self) -> &RootKey {
        &self.root_key
    }

    /// DER form of the node's Ed25519 public key, as the state tree shows it.
    pub fn node_public_key_der(&self) -> &[u8] {
        todo!()
    }

    /// Principal of the subnet's only node.
    pub fn node_id(&self) -> Principal {
        todo!()
    }

    /// Signs the response of a query (the bytes to sign, domain separator included) with the node's key.
    pub fn sign_as_node(&self, _message: &[u8]) -> [u8; 64] {
        todo!()
    }

    pub fn time_ns(&self) -> u64 {
        todo!()
    }

    /// Moves time; storage falls due for what passed. Time never goes backwards.
    pub fn set_time_ns(&mut self, _time_ns: u64) {
        todo!()
    }

    /// Takes an ingress message in, if the network would: the canister exists, runs, accepts it and can pay for it.
    /// A message already known by its id is accepted again without effect.
    pub fn submit(&mut self, _ingress: Ingress) -> Result<(), Rejection> {
        todo!()
    }

    pub fn ingress_status(&self, _id: &RequestId) -> Option<&IngressStatus> {
        todo!()
    }

    pub fn execute_round(&mut self) -> RoundSummary {
        todo!()
    }

    /// The earliest global timer of a running canister.
    pub fn next_timer_ns(&self) -> Option<u64> {
        todo!()
    }

    /// A query call, composite ones and those of the management canister included.
    pub fn query(&mut self, _call: QueryCall) -> Result<Vec<u8>, Rejection> {
        todo!()
    }

    /// A CBOR certificate of the current state that reveals `paths` and the time.
    pub fn certificate(&mut self, _paths: &[Path]) -> Vec<u8> {
        todo!()
    }

    pub fn canister_exists(&self, _id: &Principal) -> bool {
        todo!()
    }

    pub fn controllers(&self, _id: &Principal) -> Option<Vec<Principal>> {
        todo!()
    }

    pub fn cycles(&self, _id: &Principal) -> Option<u128> {
        todo!()
    }

    /// Adds cycles out of nothing, as PocketIC's `add_cycles` does, and returns the new balance.
    pub fn add_cycles(&mut self, _id: &Principal, _cycles: u128) -> Option<u128> {
        todo!()
    }

    pub fn stable_memory(&self, _id: &Principal) -> Option<Vec<u8>> {
        todo!()
    }

    /// Replaces the stable memory; false when there is no such canister or it has no module.
    pub fn set_stable_memory(&mut self, _id: &Principal, _bytes: Vec<u8>) -> bool {
        todo!()
    }

    /// An `icp:` custom section of the canister's module: whether it is public, and its bytes.
    pub fn metadata(&self, _id: &Principal, _name: &str) -> Option<(bool, Vec<u8>)> {
        todo!()
    }

    /// What effective canister id a client may use to create canisters here.
    pub fn default_effective_canister_id(&self) -> Principal {
        todo!()
    }

    /// Inclusive ranges of canister ids that this subnet serves.
    pub fn canister_ranges(&self) -> Vec<(Principal, Principal)> {
        todo!()
    }

    /// Cumulative counters of one canister.
    pub fn counters(&self, _id: &Principal) -> Option<Counters> {
        todo!()
    }

    /// What the canister's last replicated message cost.
    pub fn last_message_cost(&self, _id: &Principal) -> Option<MessageCost> {
        todo!()
    }
}
