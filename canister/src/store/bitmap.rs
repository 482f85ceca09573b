//! Which chunks of a model version are stored: one bit a chunk, in a record of its own and on the heap.
//!
//! ```text
//! byte 0:  chunk 7 .. chunk 0 (lowest bit first), byte 1: chunk 15 .. chunk 8, ...
//! ```
//!
//! Chunks are numbered through all files in the manifest's order.

use super::ModelKey;
use crate::stable::{Kind, directory};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// A bitmap as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BitmapRecord {
    pub chunks: ByteBuf,
    pub total: u32,
}

#[derive(Debug)]
pub struct Bitmap {
    record: BitmapRecord,
    stored: u32,
}

impl Bitmap {
    /// A new bitmap of `total` chunks, none stored.
    pub fn new(total: u32) -> Self {
        Self { record: BitmapRecord { chunks: ByteBuf::from(vec![0; total.div_ceil(8) as usize]), total }, stored: 0 }
    }

    /// The bitmap of a version; a new one, of no chunk, when that was lost.
    pub fn open(key: &ModelKey) -> Self {
        let lost = || BitmapRecord { chunks: ByteBuf::new(), total: 0 };
        let record = directory::get::<BitmapRecord>(Kind::Bitmap, &key.to_bytes()).unwrap_or_else(lost);
        let stored = record.chunks.iter().map(|byte| byte.count_ones()).sum();
        Self { record, stored }
    }

    /// Writes the bitmap of a version to stable memory.
    pub fn save(&self, key: &ModelKey) {
        directory::set(Kind::Bitmap, &key.to_bytes(), &self.record);
    }

    /// Forgets the bitmap of a version.
    pub fn forget(key: &ModelKey) {
        directory::remove(Kind::Bitmap, &key.to_bytes());
    }

    pub fn stored(&self) -> u32 {
        self.stored
    }

    pub fn total(&self) -> u32 {
        self.record.total
    }

    pub fn is_complete(&self) -> bool {
        self.stored == self.record.total
    }

    pub fn contains(&self, chunk: u32) -> bool {
        self.record.chunks.get(chunk as usize / 8).is_some_and(|byte| byte & (1 << (chunk % 8)) != 0)
    }

    /// Marks a chunk as stored.
    pub fn insert(&mut self, chunk: u32) {
        if chunk < self.record.total && !self.contains(chunk) {
            self.record.chunks[chunk as usize / 8] |= 1 << (chunk % 8);
            self.stored += 1;
        }
    }

    /// Marks a chunk as not stored.
    pub fn remove(&mut self, chunk: u32) {
        if self.contains(chunk) {
            self.record.chunks[chunk as usize / 8] &= !(1 << (chunk % 8));
            self.stored -= 1;
        }
    }

    /// Runs of chunks in `from..to` that are not stored, as first and count.
    pub fn missing(&self, from: u32, to: u32) -> Vec<(u32, u32)> {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for chunk in (from..to).filter(|chunk| !self.contains(*chunk)) {
            match runs.last_mut() {
                Some((first, count)) if *first + *count == chunk => *count += 1,
                _ => runs.push((chunk, 1)),
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subset_of_ten_chunks_is_kept_and_its_gaps_are_told() {
        let key = ModelKey { name: "m".into(), version: 1 };
        for subset in 0_u32..1 << 10 {
            let mut bitmap = Bitmap::new(10);
            for chunk in (0..10).rev().filter(|chunk| subset & (1 << chunk) != 0) {
                bitmap.insert(chunk);
                bitmap.insert(chunk);
            }
            bitmap.save(&key);
            let mut opened = Bitmap::open(&key);
            assert_eq!(opened.stored(), subset.count_ones());
            assert_eq!(opened.is_complete(), subset == (1 << 10) - 1);
            let mut rebuilt = subset;
            let mut end_before = None;
            for (first, count) in opened.missing(0, 10) {
                assert!(count > 0 && end_before != Some(first), "runs are as long as they can be");
                for chunk in first..first + count {
                    assert_eq!(rebuilt & (1 << chunk), 0);
                    rebuilt |= 1 << chunk;
                }
                end_before = Some(first + count);
            }
            assert_eq!(rebuilt, (1 << 10) - 1, "stored and missing together are all chunks");
            (0..10).for_each(|chunk| opened.remove(chunk));
            assert_eq!((opened.stored(), opened.missing(0, 10)), (0, vec![(0, 10)]));
        }
    }

    #[test]
    fn chunks_beyond_the_end_are_not_stored() {
        let mut bitmap = Bitmap::new(3);
        bitmap.insert(3);
        bitmap.insert(100);
        bitmap.remove(100);
        assert_eq!((bitmap.stored(), bitmap.contains(3), bitmap.missing(0, 3)), (0, false, vec![(0, 3)]));
    }
}
