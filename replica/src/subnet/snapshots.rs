//! Snapshots of a canister: module, memories, chunk store, kept beside it until somebody deletes them.

use super::canister::{Canister, Chunk, Code, LowMemoryHook};
use super::prices;
use crate::execution::{GlobalValue, MemoryImage};
use candid::Principal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where a snapshot comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    Taken,
    Uploaded,
}

/// One snapshot of a canister.
#[derive(Clone, Serialize, Deserialize)]
pub struct Snapshot {
    pub source: Source,
    pub taken_at_ns: u64,
    /// Version of the canister when it was taken.
    pub canister_version: u64,
    pub certified_data: Vec<u8>,
    pub chunks: BTreeMap<[u8; 32], Chunk>,
    /// `None` when no message had run yet.
    pub globals: Option<Vec<GlobalValue>>,
    pub global_timer_ns: u64,
    pub low_memory_hook: LowMemoryHook,
    /// Kept apart from the rest; see [`super::persistence`].
    #[serde(skip)]
    pub memory: SnapshotMemory,
}

/// The bulk of a snapshot.
#[derive(Clone, Default)]
pub struct SnapshotMemory {
    /// The module as it was handed in, zipped or not.
    pub wasm: Arc<[u8]>,
    pub heap: MemoryImage,
    pub stable: MemoryImage,
}

impl Snapshot {
    /// Copies what `code` and `canister` hold.
    pub fn take(canister: &Canister, code: &Code, time_ns: u64) -> anyhow::Result<Snapshot> {
        Ok(Snapshot {
            source: Source::Taken,
            taken_at_ns: time_ns,
            canister_version: canister.version,
            certified_data: canister.certified_data.clone(),
            chunks: canister.chunks.clone(),
            globals: code.instance.globals()?,
            global_timer_ns: canister.global_timer_ns,
            low_memory_hook: canister.low_memory_hook,
            memory: SnapshotMemory {
                wasm: code.wasm.clone(),
                heap: code.instance.heap_image()?,
                stable: code.instance.stable().image(),
            },
        })
    }

    /// What it takes, in bytes, as the network counts: memories at their full size, chunks as whole ones.
    pub fn bytes(&self) -> u64 {
        let SnapshotMemory { wasm, heap, stable } = &self.memory;
        wasm.len() as u64
            + heap.bytes
            + stable.bytes
            + self.chunks.len() as u64 * prices::CHUNK_BYTES
            + self.certified_data.len() as u64
    }
}

/// The id of a canister's snapshot as clients see it: its number, then the canister's id behind its length.
pub fn snapshot_id(canister: &Principal, number: u64) -> Vec<u8> {
    let id = canister.as_slice();
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.push(id.len() as u8);
    bytes.extend_from_slice(id);
    bytes
}

/// The canister and the number that an id names.
pub fn parse_snapshot_id(bytes: &[u8]) -> Option<(Principal, u64)> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    let (len, id) = rest.split_first()?;
    let canister = Principal::try_from_slice(id).ok().filter(|_| id.len() == usize::from(*len))?;
    Some((canister, u64::from_be_bytes(*number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_back() {
        let canister = Principal::from_slice(&[0, 0, 0, 0, 0, 0, 0, 7, 1, 1]);
        let id = snapshot_id(&canister, 258);
        assert_eq!(parse_snapshot_id(&id), Some((canister, 258)));
        assert_eq!(parse_snapshot_id(&id[..id.len() - 1]), None);
        assert_eq!(parse_snapshot_id(&[]), None);
        assert_eq!(parse_snapshot_id(&[0; 8]), None);
    }
}
