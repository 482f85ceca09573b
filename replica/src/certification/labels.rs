//! The labels of one subtree, in order, as a crit-bit tree whose forks are the forks of the hash tree.
//!
//! A crit-bit tree's shape depends on nothing but the set of its labels, and adding or removing one of n random labels
//! changes about log2(n) forks; everything else keeps its digest.
//!
//! ```text
//!            fork at the first bit where labels differ
//!           /                                         \
//!   fork / tip of labels with a 0 there        fork / tip of labels with a 1 there
//! ```

use super::Digest;
use super::tree::{Node, hash_parts};
use ic_certification::hash_tree::{HashTree, empty, fork, label, pruned};
use std::sync::OnceLock;

/// Each byte of a label counts as nine bits: a 1 that says that the byte exists, then the byte. So a label comes
/// before the longer ones that begin with it, and bit order is the order of the bytes.
const BITS_PER_BYTE: usize = 9;

fn bit(label: &[u8], position: usize) -> bool {
    label.get(position / BITS_PER_BYTE).is_some_and(|byte| match position % BITS_PER_BYTE {
        0 => true,
        offset => (byte >> (8 - offset)) & 1 == 1,
    })
}

/// The first position where two labels differ; `None` when they are equal.
fn critical_position(a: &[u8], b: &[u8]) -> Option<usize> {
    let common = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    match (a.get(common), b.get(common)) {
        (None, None) => None,
        (Some(x), Some(y)) => Some(common * BITS_PER_BYTE + 1 + (x ^ y).leading_zeros() as usize),
        _ => Some(common * BITS_PER_BYTE),
    }
}

/// A label to reveal, and the rest of the paths that go on below it; none when the label only proves an absence.
type Revealed<'a> = (&'a [u8], Vec<&'a [Vec<u8>]>);

#[derive(Default)]
pub(super) struct Labels {
    root: Option<Trie>,
}

enum Trie {
    Tip { label: Vec<u8>, node: Box<Node>, digest: OnceLock<Digest> },
    Fork { position: usize, children: Box<(Trie, Trie)>, digest: OnceLock<Digest> },
}

impl Labels {
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    pub fn digest(&self) -> Digest {
        match &self.root {
            None => hash_parts("ic-hashtree-empty", &[]),
            Some(trie) => trie.digest(),
        }
    }

    pub fn get(&self, label: &[u8]) -> Option<&Node> {
        match self.root.as_ref()?.nearest(label) {
            (found, node) if found == label => Some(node),
            _ => None,
        }
    }

    /// The node under `label`, made if it is missing. Digests on the way are forgotten: the caller is about to change it.
    pub fn entry(&mut self, label: &[u8]) -> &mut Node {
        let trie = match self.root.take() {
            None => Trie::tip(label),
            Some(trie) => match critical_position(trie.nearest(label).0, label) {
                None => trie,
                Some(critical) => trie.with_label(label, critical),
            },
        };
        let mut trie = self.root.insert(trie);
        loop {
            match trie {
                Trie::Tip { node, digest, .. } => {
                    *digest = OnceLock::new();
                    return node;
                }
                Trie::Fork { position, children, digest } => {
                    *digest = OnceLock::new();
                    trie = if bit(label, *position) { &mut children.1 } else { &mut children.0 };
                }
            }
        }
    }

    pub fn remove(&mut self, label: &[u8]) {
        if self.get(label).is_some() {
            self.root = self.root.take().and_then(|trie| trie.without(label));
        }
    }

    pub fn full(&self) -> HashTree<Vec<u8>> {
        self.root.as_ref().map_or_else(empty, Trie::full)
    }

    /// The tree pruned to `paths` (none of which is empty); beside absent labels their neighbours are revealed.
    pub fn witness(&self, paths: &[&[Vec<u8>]]) -> HashTree<Vec<u8>> {
        let Some(root) = &self.root else { return empty() };
        let mut revealed: std::collections::BTreeMap<&[u8], Vec<&[Vec<u8>]>> = std::collections::BTreeMap::new();
        for path in paths {
            let Some((label, rest)) = path.split_first() else { continue };
            if self.get(label).is_some() {
                revealed.entry(label).or_default().push(rest);
            } else {
                for neighbour in root.neighbours(label).into_iter().flatten() {
                    revealed.entry(neighbour).or_default();
                }
            }
        }
        root.witness(&revealed.into_iter().collect::<Vec<_>>())
    }
}

impl Trie {
    fn tip(label: &[u8]) -> Trie {
        Trie::Tip { label: label.to_vec(), node: Box::default(), digest: OnceLock::new() }
    }

    fn fork(position: usize, left: Trie, right: Trie) -> Trie {
        Trie::Fork { position, children: Box::new((left, right)), digest: OnceLock::new() }
    }

    fn digest(&self) -> Digest {
        match self {
            Trie::Tip { label, node, digest } => {
                *digest.get_or_init(|| hash_parts("ic-hashtree-labeled", &[label, &node.digest()]))
            }
            Trie::Fork { children, digest, .. } => {
                *digest.get_or_init(|| hash_parts("ic-hashtree-fork", &[&children.0.digest(), &children.1.digest()]))
            }
        }
    }

    /// The tip that `label` leads to: its own if present, else one that shares the most bits at forks.
    fn nearest(&self, label: &[u8]) -> (&[u8], &Node) {
        match self {
            Trie::Tip { label, node, .. } => (label, node),
            Trie::Fork { position, children, .. } => {
                if bit(label, *position) {
                    children.1.nearest(label)
                } else {
                    children.0.nearest(label)
                }
            }
        }
    }

    /// Adds a tip for `label`, which differs at `critical` first from the nearest label present.
    fn with_label(self, label: &[u8], critical: usize) -> Trie {
        match self {
            Trie::Fork { position, children, .. } if position < critical => {
                let (left, right) = *children;
                if bit(label, position) {
                    Trie::fork(position, left, right.with_label(label, critical))
                } else {
                    Trie::fork(position, left.with_label(label, critical), right)
                }
            }
            below if bit(label, critical) => Trie::fork(critical, below, Trie::tip(label)),
            below => Trie::fork(critical, Trie::tip(label), below),
        }
    }

    /// Removes the tip of `label`, which is present.
    fn without(self, label: &[u8]) -> Option<Trie> {
        match self {
            Trie::Tip { .. } => None,
            Trie::Fork { position, children, .. } => {
                let (left, right) = *children;
                Some(if bit(label, position) {
                    match right.without(label) {
                        Some(right) => Trie::fork(position, left, right),
                        None => left,
                    }
                } else {
                    match left.without(label) {
                        Some(left) => Trie::fork(position, left, right),
                        None => right,
                    }
                })
            }
        }
    }

    fn first(&self) -> &[u8] {
        match self {
            Trie::Tip { label, .. } => label,
            Trie::Fork { children, .. } => children.0.first(),
        }
    }

    fn last(&self) -> &[u8] {
        match self {
            Trie::Tip { label, .. } => label,
            Trie::Fork { children, .. } => children.1.last(),
        }
    }

    /// The labels next before and next after `label`, which is absent.
    fn neighbours(&self, label: &[u8]) -> [Option<&[u8]>; 2] {
        let Some(critical) = critical_position(self.nearest(label).0, label) else { return [None, None] };
        let (mut before, mut after) = (None, None);
        let mut trie = self;
        while let Trie::Fork { position, children, .. } = trie {
            if *position > critical {
                break;
            }
            if bit(label, *position) {
                before = Some(&children.0);
                trie = &children.1;
            } else {
                after = Some(&children.1);
                trie = &children.0;
            }
        }
        // Every label below here agrees with the absent one up to the critical bit and differs there.
        if bit(label, critical) {
            before = Some(trie);
        } else {
            after = Some(trie);
        }
        [before.map(Trie::last), after.map(Trie::first)]
    }

    fn full(&self) -> HashTree<Vec<u8>> {
        match self {
            Trie::Tip { label: name, node, .. } => label(name.clone(), node.full()),
            Trie::Fork { children, .. } => fork(children.0.full(), children.1.full()),
        }
    }

    /// Prunes everything but `revealed`: sorted labels, all of them present below here.
    fn witness(&self, revealed: &[Revealed]) -> HashTree<Vec<u8>> {
        match (self, revealed) {
            (_, []) => pruned(self.digest()),
            (Trie::Tip { label: name, node, .. }, [(_, paths), ..]) => label(name.clone(), node.witness(paths)),
            (Trie::Fork { position, children, .. }, _) => {
                let split = revealed.partition_point(|(label, _)| !bit(label, *position));
                fork(children.0.witness(&revealed[..split]), children.1.witness(&revealed[split..]))
            }
        }
    }
}
