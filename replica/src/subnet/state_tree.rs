//! The certified view of the state, kept up to date at each change.
//!
//! Source: Interface Specification, "The system state tree".

use super::canister::Canister;
use super::types::{IngressState, RequestId};
use crate::certification::{NodeKey, Path, RootKey, StateTree, to_cbor};
use candid::Principal;

/// The state tree with the paths that a subnet has.
#[derive(Default)]
pub struct CertifiedState {
    tree: StateTree,
}

impl CertifiedState {
    /// A subnet without canisters.
    pub fn new(subnet_id: &Principal, root_key_der: &[u8], node: &NodeKey, ranges: &[(Principal, Principal)]) -> Self {
        let mut tree = StateTree::default();
        let subnet = subnet_id.as_slice();
        let ranges_cbor = to_cbor(&ranges);
        tree.set(&[b"subnet", subnet, b"public_key"], root_key_der.to_vec());
        tree.set(&[b"subnet", subnet, b"type"], b"application".to_vec());
        tree.set(&[b"subnet", subnet, b"canister_ranges"], ranges_cbor.clone());
        tree.set(&[b"subnet", subnet, b"node", node.node_id().as_slice(), b"public_key"], node.der());
        if let Some((first, _)) = ranges.first() {
            tree.set(&[b"canister_ranges", subnet, first.as_slice()], ranges_cbor);
        }
        CertifiedState { tree }
    }

    /// A certificate of `paths` and the time, which becomes `time_ns`.
    pub fn certificate(&mut self, key: &RootKey, time_ns: u64, paths: &[Path]) -> Vec<u8> {
        self.tree.set(&[b"time"], leb128(time_ns));
        let mut paths = paths.to_vec();
        paths.push(vec![b"time".to_vec()]);
        self.tree.certificate(key, &paths)
    }

    /// Writes everything of one canister anew.
    pub fn set_canister(&mut self, canister: &Canister) {
        let id = canister.id.as_slice();
        self.tree.remove(&[b"canister", id]);
        let controllers: Vec<Principal> = canister.settings.controllers.iter().copied().collect();
        self.tree.set(&[b"canister", id, b"controllers"], to_cbor(&controllers));
        if let Some(code) = &canister.code {
            self.tree.set(&[b"canister", id, b"module_hash"], code.module_hash.to_vec());
            for (name, section) in code.module.custom_sections() {
                self.tree.set(&[b"canister", id, b"metadata", name.as_bytes()], section.data.clone());
            }
        }
        self.set_certified_data(canister);
    }

    /// Writes the certified data of a canister, if it changed.
    pub fn set_certified_data(&mut self, canister: &Canister) {
        let path: [&[u8]; 3] = [b"canister", canister.id.as_slice(), b"certified_data"];
        if canister.code.is_some() && self.tree.get(&path) != Some(&canister.certified_data) {
            self.tree.set(&path, canister.certified_data.clone());
        }
    }

    pub fn remove_canister(&mut self, id: &Principal) {
        self.tree.remove(&[b"canister", id.as_slice()]);
    }

    /// Writes where an ingress message stands.
    pub fn set_request_status(&mut self, id: &RequestId, state: &IngressState) {
        let mut set = |label: &[u8], value: Vec<u8>| self.tree.set(&[b"request_status", id, label], value);
        match state {
            IngressState::Received => set(b"status", b"received".to_vec()),
            IngressState::Processing => set(b"status", b"processing".to_vec()),
            IngressState::Replied(reply) => {
                set(b"status", b"replied".to_vec());
                set(b"reply", reply.clone());
            }
            IngressState::Rejected(rejection) => {
                set(b"status", b"rejected".to_vec());
                set(b"reject_code", leb128(rejection.reject_code as u64));
                set(b"reject_message", rejection.message.clone().into_bytes());
                set(b"error_code", rejection.error_code.to_ic_string().into_bytes());
            }
            IngressState::Done => set(b"status", b"done".to_vec()),
        }
    }

    pub fn remove_request_status(&mut self, id: &RequestId) {
        self.tree.remove(&[b"request_status", id]);
    }
}

/// Unsigned LEB128, the form of numbers in the tree.
fn leb128(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::leb128;

    #[test]
    fn numbers_are_leb128() {
        assert_eq!(leb128(0), [0]);
        assert_eq!(leb128(127), [0x7f]);
        assert_eq!(leb128(624_485), [0xe5, 0x8e, 0x26]);
    }
}
