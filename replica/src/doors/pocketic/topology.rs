//! Which subnets an instance shows: its one application subnet, and on request an NNS that exists as the bearer of the
//! root key only, for clients that look the key up there.

use super::types::{Base64, CanisterIdRange, RawCanisterId, SubnetConfig, Topology};
use crate::doors::network::Facts;
use candid::Principal;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The topology of a network that is its own root.
pub fn of_network(facts: &Facts) -> Topology {
    let canister_id = |id: &Principal| RawCanisterId { canister_id: Base64::from(id) };
    let range = |(start, end): &(Principal, Principal)| CanisterIdRange { start: canister_id(start), end: canister_id(end) };
    let application = SubnetConfig {
        subnet_kind: "Application",
        subnet_admins: None,
        cost_schedule: "Normal",
        subnet_seed: public_seed(&facts.subnet_id),
        instruction_config: if facts.benchmark { "Benchmarking" } else { "Production" },
        canister_ranges: facts.canister_ranges.iter().map(range).collect(),
    };
    Topology {
        subnet_configs: BTreeMap::from([(facts.subnet_id, application)]),
        default_effective_canister_id: canister_id(&facts.default_effective_canister_id),
    }
}

/// The same with an NNS that has no canisters.
pub fn with_nns(facts: &Facts) -> Topology {
    let mut topology = of_network(facts);
    let nns_id = nns_subnet_id(facts);
    let nns = SubnetConfig {
        subnet_kind: "NNS",
        subnet_admins: None,
        cost_schedule: "Normal",
        subnet_seed: public_seed(&nns_id),
        instruction_config: "Production",
        canister_ranges: Vec::new(),
    };
    topology.subnet_configs.insert(nns_id, nns);
    topology
}

/// The id that stands for the NNS: no subnet's key gives it.
pub fn nns_subnet_id(facts: &Facts) -> Principal {
    Principal::self_authenticating([b"nns".as_slice(), &facts.root_key_der].concat())
}

/// What stands for a subnet's seed: clients use it as a name only, and the true one is the secret of its keys.
fn public_seed(subnet_id: &Principal) -> [u8; 32] {
    Sha256::digest(subnet_id.as_slice()).into()
}
