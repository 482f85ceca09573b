//! Certified state: a labelled hash tree with cached digests, and the key that signs it.
//!
//! Source: Interface Specification, "Certification" and "The system state tree".

use candid::Principal;

/// A path into the tree, one label an element.
pub type Path = Vec<Vec<u8>>;

/// The subnet's key; its public half is the root key every client pins.
pub struct RootKey {}

impl RootKey {
    /// The key that this seed always gives.
    pub fn from_seed(_seed: &[u8; 32]) -> Self {
        todo!()
    }

    /// DER form, 133 bytes.
    pub fn der(&self) -> Vec<u8> {
        todo!()
    }

    /// Self-authenticating principal of the key: the id of a subnet that has no delegation.
    pub fn subnet_id(&self) -> Principal {
        todo!()
    }
}

/// The labelled state tree. Digests of untouched subtrees are kept, so a change costs its path, not the tree.
#[derive(Default)]
pub struct StateTree {}

impl StateTree {
    /// Sets the leaf at `path`, making the subtrees on the way.
    pub fn set(&mut self, _path: &[&[u8]], _value: Vec<u8>) {
        todo!()
    }

    /// Removes the leaf or subtree at `path`, and subtrees that this leaves empty.
    pub fn remove(&mut self, _path: &[&[u8]]) {
        todo!()
    }

    /// A CBOR certificate that reveals `paths` (each the whole subtree below it, or the proof that it is absent).
    pub fn certificate(&mut self, _key: &RootKey, _paths: &[Path]) -> Vec<u8> {
        todo!()
    }
}
