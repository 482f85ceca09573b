//! The state tree: leaves under labelled paths, each node's digest kept until something below it changes.

use super::labels::Labels;
use super::{Digest, Path, RootKey, to_cbor};
use ic_certification::hash_tree::{HashTree, leaf, pruned};
use sha2::{Digest as _, Sha256};
use std::sync::OnceLock;

/// The digest of a node of the hash tree: its kind as domain separator, then its parts
/// (Interface Specification, "Certificate", `reconstruct`).
pub(super) fn hash_parts(domain: &str, parts: &[&[u8]]) -> Digest {
    #[cfg(test)]
    tests::HASHES.with(|count| count.set(count.get() + 1));
    let mut hasher = Sha256::new();
    hasher.update([domain.len() as u8]);
    hasher.update(domain);
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

pub(super) enum Node {
    Leaf { value: Vec<u8>, digest: OnceLock<Digest> },
    Tree(Labels),
}

impl Default for Node {
    fn default() -> Self {
        Node::Tree(Labels::default())
    }
}

impl Node {
    pub fn digest(&self) -> Digest {
        match self {
            Node::Leaf { value, digest } => *digest.get_or_init(|| hash_parts("ic-hashtree-leaf", &[value])),
            Node::Tree(labels) => labels.digest(),
        }
    }

    pub fn full(&self) -> HashTree<Vec<u8>> {
        match self {
            Node::Leaf { value, .. } => leaf(value.clone()),
            Node::Tree(labels) => labels.full(),
        }
    }

    pub fn witness(&self, paths: &[&[Vec<u8>]]) -> HashTree<Vec<u8>> {
        if paths.iter().any(|path| path.is_empty()) {
            return self.full();
        }
        match self {
            // A path that goes on below a leaf asks for nothing that exists; the leaf's value stays hidden.
            Node::Leaf { .. } => pruned(self.digest()),
            Node::Tree(_) if paths.is_empty() => pruned(self.digest()),
            Node::Tree(labels) => labels.witness(paths),
        }
    }
}

/// The labelled state tree. Digests of untouched subtrees are kept, so a change costs its path, not the tree.
#[derive(Default)]
pub struct StateTree {
    root: Labels,
}

impl StateTree {
    /// Sets the leaf at `path` (at least one label), making the subtrees on the way and replacing what stood there.
    pub fn set(&mut self, path: &[&[u8]], value: Vec<u8>) {
        let Some((last, parents)) = path.split_last() else { return };
        let mut labels = &mut self.root;
        for label in parents {
            let node = labels.entry(label);
            if let Node::Leaf { .. } = node {
                *node = Node::default();
            }
            let Node::Tree(below) = node else { unreachable!("a leaf was just replaced by a subtree") };
            labels = below;
        }
        *labels.entry(last) = Node::Leaf { value, digest: OnceLock::new() };
    }

    /// Removes the leaf or subtree at `path`, and subtrees that this leaves empty.
    pub fn remove(&mut self, path: &[&[u8]]) {
        fn remove_below(labels: &mut Labels, path: &[&[u8]]) {
            let Some((label, rest)) = path.split_first() else { return };
            if labels.get(label).is_none() {
                return;
            }
            if rest.is_empty() {
                labels.remove(label);
            } else if let Node::Tree(below) = labels.entry(label) {
                remove_below(below, rest);
                if below.is_empty() {
                    labels.remove(label);
                }
            }
        }
        remove_below(&mut self.root, path);
    }

    /// The leaf at `path`.
    pub fn get(&self, path: &[&[u8]]) -> Option<&[u8]> {
        let (last, parents) = path.split_last()?;
        let mut labels = &self.root;
        for label in parents {
            match labels.get(label)? {
                Node::Tree(below) => labels = below,
                Node::Leaf { .. } => return None,
            }
        }
        match labels.get(last)? {
            Node::Leaf { value, .. } => Some(value),
            Node::Tree(_) => None,
        }
    }

    /// The root digest, which certificates sign.
    pub fn digest(&self) -> Digest {
        self.root.digest()
    }

    /// The tree pruned to `paths`: each the whole subtree below it, or the proof that it is absent. The digest is
    /// that of the full tree.
    pub fn witness(&self, paths: &[Path]) -> HashTree<Vec<u8>> {
        if paths.iter().any(|path| path.is_empty()) {
            return self.root.full();
        }
        self.root.witness(&paths.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    /// A CBOR certificate that reveals `paths` (each the whole subtree below it, or the proof that it is absent).
    pub fn certificate(&self, key: &RootKey, paths: &[Path]) -> Vec<u8> {
        let signature = key.sign_state_root(&self.digest());
        to_cbor(&ic_certification::Certificate { tree: self.witness(paths), signature, delegation: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ic_certification::{Certificate, LookupResult};
    use std::cell::Cell;

    thread_local! {
        /// Digests computed by this thread.
        pub static HASHES: Cell<u64> = const { Cell::new(0) };
    }

    fn path(labels: &[&str]) -> Path {
        labels.iter().map(|label| label.as_bytes().to_vec()).collect()
    }

    fn sample() -> StateTree {
        let mut tree = StateTree::default();
        tree.set(&[b"time"], b"now".to_vec());
        for canister in ["a", "ab", "abc", "b", "d", "dd"] {
            tree.set(&[b"canister", canister.as_bytes(), b"module_hash"], canister.repeat(3).into_bytes());
            tree.set(&[b"canister", canister.as_bytes(), b"controllers"], b"none".to_vec());
        }
        tree.set(&[b"request_status", b"", b"status"], b"replied".to_vec());
        tree
    }

    /// Every subset of a small set of paths, absent ones among them.
    #[test]
    fn witnesses_have_the_digest_of_the_full_tree() {
        let tree = sample();
        assert_eq!(tree.digest(), tree.witness(&[vec![]]).digest());
        let paths = [
            path(&["time"]),
            path(&["canister", "ab"]),
            path(&["canister", "c"]),
            path(&["canister", "d", "module_hash"]),
            path(&["request_status", "", "status"]),
            path(&["nowhere"]),
            path(&["time", "below a leaf"]),
        ];
        for subset in 0..1_u32 << paths.len() {
            let chosen: Vec<Path> =
                paths.iter().enumerate().filter(|(i, _)| subset >> i & 1 == 1).map(|(_, p)| p.clone()).collect();
            assert_eq!(tree.witness(&chosen).digest(), tree.digest(), "{chosen:?}");
        }
    }

    #[test]
    fn an_independent_verifier_accepts_certificates() {
        let (tree, key) = (sample(), RootKey::from_seed(&[9; 32]));
        let bytes = tree.certificate(&key, &[path(&["time"]), path(&["canister", "b"])]);
        let certificate: Certificate = serde_cbor::from_slice(&bytes).unwrap();
        assert_eq!(certificate.tree.digest(), tree.digest());
        let message = [b"\x0Dic-state-root".as_slice(), &certificate.tree.digest()].concat();
        ic_verify_bls_signature::verify_bls_signature(&certificate.signature, &message, &key.der()[37..]).unwrap();
        assert!(certificate.delegation.is_none());
        assert_eq!(certificate.tree.lookup_path(path(&["time"])), LookupResult::Found(b"now"));
        assert_eq!(
            certificate.tree.lookup_path(path(&["canister", "b", "module_hash"])),
            LookupResult::Found(b"bbb".as_slice())
        );
        // What was not asked for is neither shown nor denied.
        let hidden = certificate.tree.lookup_path(path(&["canister", "dd", "module_hash"]));
        assert_eq!(hidden, LookupResult::Unknown);
        assert!(!bytes.windows(6).any(|window| window == b"dddddd"));
    }

    #[test]
    fn absence_is_proved_at_every_place() {
        let tree = sample();
        for absent in ["", "A", "aa", "abb", "abcd", "ac", "bb", "c", "cc", "da", "ddd", "zz"] {
            let wanted = path(&["canister", absent, "module_hash"]);
            let witness = tree.witness(std::slice::from_ref(&wanted));
            assert_eq!(witness.lookup_path(&wanted), LookupResult::Absent, "{absent}");
            // And a witness of something else proves nothing about it.
            let other = tree.witness(&[path(&["time"])]);
            assert_eq!(other.lookup_path(&wanted), LookupResult::Unknown, "{absent}");
        }
        for present in ["a", "ab", "abc", "b", "d", "dd"] {
            let wanted = path(&["canister", present, "controllers"]);
            let witness = tree.witness(std::slice::from_ref(&wanted));
            assert_eq!(witness.lookup_path(&wanted), LookupResult::Found(b"none"), "{present}");
        }
        let empty = StateTree::default();
        assert_eq!(empty.witness(&[path(&["x"])]).lookup_path(path(&["x"])), LookupResult::Absent);
    }

    #[test]
    fn the_digest_depends_on_the_content_only() {
        let mut tree = sample();
        let before = tree.digest();
        tree.set(&[b"canister", b"abz", b"module_hash"], b"x".to_vec());
        tree.set(&[b"canister", b"abz", b"controllers"], b"y".to_vec());
        assert_ne!(tree.digest(), before);
        tree.remove(&[b"canister", b"abz", b"module_hash"]);
        tree.remove(&[b"canister", b"abz", b"controllers"]);
        tree.remove(&[b"canister", b"never there", b"controllers"]);
        assert_eq!(tree.digest(), before);
        tree.remove(&[b"canister"]);
        tree.remove(&[b"request_status", b"", b"status"]);
        tree.remove(&[b"time"]);
        assert_eq!(tree.digest(), StateTree::default().digest());
    }

    #[test]
    fn get_reads_leaves_only() {
        let mut tree = sample();
        assert_eq!(tree.get(&[b"time"]), Some(b"now".as_slice()));
        assert_eq!(tree.get(&[b"canister"]), None);
        assert_eq!(tree.get(&[b"time", b"x"]), None);
        tree.set(&[b"time", b"x"], b"a leaf gives way to a subtree".to_vec());
        assert_eq!(tree.get(&[b"time"]), None);
        assert_eq!(tree.get(&[b"time", b"x"]), Some(b"a leaf gives way to a subtree".as_slice()));
    }

    #[test]
    fn a_change_among_100_000_leaves_costs_its_path() {
        let mut tree = StateTree::default();
        let label = |i: u32| -> Digest { Sha256::digest(i.to_be_bytes()).into() };
        for i in 0..100_000 {
            tree.set(&[b"request_status", &label(i), b"status"], b"received".to_vec());
        }
        tree.digest();
        let counted = |action: &mut dyn FnMut()| {
            let before = HASHES.get();
            action();
            HASHES.get() - before
        };
        let mut digests = vec![tree.digest()];
        for i in [5, 100_001, 100_002] {
            let hashes = counted(&mut || {
                tree.set(&[b"request_status", &label(i), b"status"], b"replied".to_vec());
                digests.push(tree.digest());
            });
            // Forks of a random crit-bit tree are about log2(100,000) = 17 deep; the leaf and its labels are 4 more.
            assert!((4..60).contains(&hashes), "{hashes} hashes for one change");
        }
        let hashes = counted(&mut || {
            tree.remove(&[b"request_status", &label(7)]);
            digests.push(tree.digest());
            tree.witness(&[vec![b"request_status".to_vec(), label(5).to_vec()]]);
        });
        assert!(hashes < 60, "{hashes} hashes for a removal and a witness");
        digests.dedup();
        assert_eq!(digests.len(), 5);
        // The cached digest is the true one.
        assert_eq!(tree.witness(&[vec![]]).digest(), tree.digest());
    }
}
