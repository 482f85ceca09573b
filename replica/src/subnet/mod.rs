//! The replicated state machine: canisters, messages, cycles, time.
//!
//! [`Subnet`] holds all state in plain structures. Messages come in through [`Subnet::submit`], and
//! [`Subnet::execute_round`] moves everything on by one round, in an order that depends on nothing but the state.
//! Time stands still unless the doors move it; a round adds one nanosecond, so that no two rounds share a time.

mod call_context;
mod canister;
mod charging;
mod counters;
mod errors;
mod history;
mod ingress;
mod logs;
mod management;
mod message;
mod persistence;
pub mod prices;
mod query;
mod run;
mod scheduler;
mod settings;
mod snapshots;
mod state_tree;
mod system_canisters;
mod types;

#[cfg(test)]
mod tests;

pub use counters::{Counters, CyclesCharged, MessageCost};
pub use scheduler::RoundSummary;
pub use types::{ErrorCode, Ingress, IngressState, IngressStatus, QueryCall, RejectCode, Rejection, RequestId};

use crate::certification::{NodeKey, Path, RootKey};
use crate::execution::Engine;
use candid::Principal;
use canister::Canister;
use message::{CallbackId, Request};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use run::SubnetInfo;
use sha2::{Digest, Sha256};
use state_tree::CertifiedState;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

/// Number of the first canister made without a name of its choice; lower ones can be chosen.
const FIRST_CANISTER: u64 = 0x8000_0000_0010_0000;

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
    /// The subnet has a cycles ledger, an ICP ledger and a cycles minting canister.
    pub system_canisters: bool,
    /// Where the state is kept between runs; a state that is there goes on, whatever `seed` says.
    pub state_dir: Option<PathBuf>,
}

/// One subnet and all its canisters.
pub struct Subnet {
    engine: Engine,
    seed: [u8; 32],
    state_dir: Option<persistence::StateDir>,
    root_key: RootKey,
    node_key: NodeKey,
    info: SubnetInfo,
    random: ChaCha20Rng,
    round: u64,
    canisters: BTreeMap<Principal, Canister>,
    next_canister: u64,
    /// Calls of the management canister.
    management: VecDeque<Request>,
    /// Balances of the system canisters, on a subnet that has them.
    system: Option<system_canisters::SystemCanisters>,
    /// Calls of the system canisters.
    system_requests: VecDeque<Request>,
    history: history::IngressHistory,
    certified: CertifiedState,
    /// Best-effort calls by deadline: caller and callback.
    deadlines: BTreeSet<(u64, Principal, CallbackId)>,
}

/// The id of the canister with this number (Interface Specification, "Principals", opaque ids as the network
/// makes them).
fn canister_id(number: u64) -> Principal {
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[8..].copy_from_slice(&[1, 1]);
    Principal::from_slice(&bytes)
}

impl Subnet {
    /// An empty subnet, or the one that the state folder holds.
    ///
    /// # Errors
    /// When the Wasm engine or its cache can't be set up, or the state folder is damaged or in use.
    pub fn new(config: SubnetConfig) -> anyhow::Result<Subnet> {
        if let Some(dir) = &config.state_dir {
            let mut state_dir = persistence::StateDir::open(dir)?;
            let mut subnet = match state_dir.load(&config)? {
                Some(subnet) => subnet,
                None => Subnet::new(SubnetConfig { state_dir: None, ..config.clone() })?,
            };
            subnet.state_dir = Some(state_dir);
            return Ok(subnet);
        }
        let root_key = RootKey::from_seed(&config.seed);
        let node_key = NodeKey::from_seed(&config.seed);
        let root_key_der = root_key.der();
        let subnet_id = root_key.subnet_id();
        // Hashed under a domain of its own: randomness tells nothing of the keys.
        let random_seed = Sha256::new().chain_update(b"replica-raw-rand").chain_update(config.seed).finalize();
        let ranges = [(canister_id(0), canister_id(u64::MAX))];
        Ok(Subnet {
            seed: config.seed,
            state_dir: None,
            engine: Engine::new(config.cache_dir.as_deref())?,
            certified: CertifiedState::new(&subnet_id, &root_key_der, &node_key, &ranges),
            info: SubnetInfo {
                subnet_id,
                root_key_der: Arc::new(root_key_der),
                time_ns: config.start_time_ns,
                benchmark: config.benchmark,
            },
            root_key,
            node_key,
            random: ChaCha20Rng::from_seed(random_seed.into()),
            round: 0,
            canisters: BTreeMap::new(),
            next_canister: FIRST_CANISTER,
            management: VecDeque::new(),
            system: config.system_canisters.then(Default::default),
            system_requests: VecDeque::new(),
            history: history::IngressHistory::default(),
            deadlines: BTreeSet::new(),
        })
    }

    /// Writes what changed to the state folder; nothing without one.
    pub fn save(&mut self) -> anyhow::Result<()> {
        let Some(mut state_dir) = self.state_dir.take() else { return Ok(()) };
        let saved = state_dir.save(self);
        self.state_dir = Some(state_dir);
        saved
    }

    /// The state is kept in a folder.
    pub fn has_state_dir(&self) -> bool {
        self.state_dir.is_some()
    }

    pub fn subnet_id(&self) -> Principal {
        self.info.subnet_id
    }

    pub fn root_key(&self) -> &RootKey {
        &self.root_key
    }

    /// The key of the subnet's only node, which signs answers to queries; the state tree shows its public half.
    pub fn node_key(&self) -> &NodeKey {
        &self.node_key
    }

    pub fn time_ns(&self) -> u64 {
        self.info.time_ns
    }

    /// Moves time forward; what falls due in between is seen to by the next round. Time never goes backwards: an
    /// earlier time than the current one is ignored.
    pub fn set_time_ns(&mut self, time_ns: u64) {
        self.info.time_ns = self.info.time_ns.max(time_ns);
    }

    /// Where an ingress message stands; `None` once it is forgotten or if it was never accepted.
    pub fn ingress_status(&self, id: &RequestId) -> Option<&IngressStatus> {
        self.history.get(id)
    }

    /// A CBOR certificate of the current state that reveals `paths` and the time.
    pub fn certificate(&mut self, paths: &[Path]) -> Vec<u8> {
        self.certified.certificate(&self.root_key, self.info.time_ns, paths)
    }

    pub fn canister_exists(&self, id: &Principal) -> bool {
        self.canisters.contains_key(id)
    }

    pub fn controllers(&self, id: &Principal) -> Option<Vec<Principal>> {
        self.canisters.get(id).map(|canister| canister.settings.controllers.iter().copied().collect())
    }

    /// The canister's balance.
    pub fn cycles(&self, id: &Principal) -> Option<u128> {
        self.canisters.get(id).map(|canister| canister.cycles)
    }

    /// Adds cycles out of nothing, as PocketIC's `add_cycles` does, and returns the new balance.
    pub fn add_cycles(&mut self, id: &Principal, cycles: u128) -> Option<u128> {
        let canister = self.canisters.get_mut(id)?;
        canister.cycles = canister.cycles.saturating_add(cycles);
        Some(canister.cycles)
    }

    /// The whole stable memory; empty when no module is installed.
    pub fn stable_memory(&self, id: &Principal) -> Option<Vec<u8>> {
        let canister = self.canisters.get(id)?;
        Some(canister.code.as_ref().map_or_else(Vec::new, |code| code.instance.stable().read_all()))
    }

    /// Replaces the stable memory; false when there is no such canister, it has no module, or memory is short.
    pub fn set_stable_memory(&mut self, id: &Principal, bytes: Vec<u8>) -> bool {
        match self.canisters.get_mut(id).and_then(|canister| canister.code.as_mut()) {
            Some(code) => code.instance.stable_mut().write_all(&bytes).is_ok(),
            None => false,
        }
    }

    /// An `icp:` custom section of the canister's module: whether it is public, and its bytes.
    pub fn metadata(&self, id: &Principal, name: &str) -> Option<(bool, Vec<u8>)> {
        let code = self.canisters.get(id)?.code.as_ref()?;
        let section = code.module.custom_sections().get(name)?;
        Some((section.is_public, section.data.clone()))
    }

    /// An effective canister id under which clients may create canisters here.
    pub fn default_effective_canister_id(&self) -> Principal {
        canister_id(FIRST_CANISTER)
    }

    /// Inclusive ranges of canister ids that this subnet serves: all there are.
    pub fn canister_ranges(&self) -> Vec<(Principal, Principal)> {
        vec![(canister_id(0), canister_id(u64::MAX))]
    }

    /// Cumulative counters of one canister.
    pub fn counters(&self, id: &Principal) -> Option<Counters> {
        self.canisters.get(id).map(|canister| canister.counters)
    }

    /// What the canister's last replicated message cost.
    pub fn last_message_cost(&self, id: &Principal) -> Option<MessageCost> {
        self.canisters.get(id).map(|canister| canister.last_cost)
    }
}
