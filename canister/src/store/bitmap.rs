//! Which chunks of a model version are stored: one bit a chunk, in stable memory and mirrored on the heap.
//!
//! ```text
//! byte 0:  chunk 7 .. chunk 0 (lowest bit first), byte 1: chunk 15 .. chunk 8, ...
//! ```
//!
//! Chunks are numbered through all files in the manifest's order.

use super::blobs::{self, Blob, BlobId};
use onnx_canister_interface::Error;

#[derive(Debug)]
pub struct Bitmap {
    blob: Blob,
    bytes: Vec<u8>,
    stored: u32,
    total: u32,
}

impl Bitmap {
    /// A new bitmap of `total` chunks, none stored.
    pub fn create(total: u32) -> Result<Self, Error> {
        let bytes = vec![0; total.div_ceil(8) as usize];
        Ok(Self { blob: blobs::store(&bytes)?, bytes, stored: 0, total })
    }

    /// The bitmap of `total` chunks in blob `id`.
    pub fn open(id: BlobId, total: u32) -> Self {
        let blob = blobs::open(id);
        let bytes = blob.read();
        let stored = bytes.iter().map(|byte| byte.count_ones()).sum();
        Self { blob, bytes, stored, total }
    }

    pub fn id(&self) -> BlobId {
        self.blob.id()
    }

    pub fn stable_bytes(&self) -> u64 {
        self.blob.stable_bytes()
    }

    pub fn stored(&self) -> u32 {
        self.stored
    }

    pub fn total(&self) -> u32 {
        self.total
    }

    pub fn is_complete(&self) -> bool {
        self.stored == self.total
    }

    pub fn contains(&self, chunk: u32) -> bool {
        self.bytes.get(chunk as usize / 8).is_some_and(|byte| byte & (1 << (chunk % 8)) != 0)
    }

    /// Marks a chunk as stored.
    pub fn insert(&mut self, chunk: u32) {
        if chunk < self.total && !self.contains(chunk) {
            let at = chunk as usize / 8;
            self.bytes[at] |= 1 << (chunk % 8);
            self.blob.write_at(at as u64, &self.bytes[at..=at]);
            self.stored += 1;
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
        for subset in 0_u32..1 << 10 {
            let mut bitmap = Bitmap::create(10).expect("there is room");
            for chunk in (0..10).rev().filter(|chunk| subset & (1 << chunk) != 0) {
                bitmap.insert(chunk);
                bitmap.insert(chunk);
            }
            let opened = Bitmap::open(bitmap.id(), 10);
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
        }
    }

    #[test]
    fn chunks_beyond_the_end_are_not_stored() {
        let mut bitmap = Bitmap::create(3).expect("there is room");
        bitmap.insert(3);
        bitmap.insert(100);
        assert_eq!((bitmap.stored(), bitmap.contains(3), bitmap.missing(0, 3)), (0, false, vec![(0, 3)]));
    }
}
