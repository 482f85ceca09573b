//! Certified state: a labelled hash tree with cached digests, and the keys that sign it and the answers to queries.
//!
//! Source: Interface Specification, "Certification" and "The system state tree".

mod keys;
mod labels;
mod tree;

pub use keys::{NodeKey, RootKey};
pub use tree::StateTree;

/// A path into the tree, one label an element.
pub type Path = Vec<Vec<u8>>;

/// A SHA-256 digest of a node of the tree.
pub type Digest = [u8; 32];

/// Serialises `value` as CBOR with the self-describing tag, the form of every structure of the HTTP interface.
pub fn to_cbor<T: serde::Serialize>(value: &T) -> Vec<u8> {
    let mut serializer = serde_cbor::Serializer::new(Vec::new());
    // Writing to a vector can't fail, and no type of ours has a failing `Serialize`.
    serializer.self_describe().expect("a vector takes every byte");
    value.serialize(&mut serializer).expect("our own types serialise");
    serializer.into_inner()
}
