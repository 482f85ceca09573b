//! Byte strings of any size: files, manifests, inputs, requests and results.
//!
//! A blob lies in whole pages, in as many runs of pages as free space has. Where they are, how long the blob is and the
//! checksums of its bytes are part of the record that owns it. Reads and writes go straight to their place. The bytes of
//! a new blob are whatever was there before: who allocates one keeps account of what has been written.

use super::pages::{self, Extent, for_each_run};
use super::{PAGE_BYTES, damage, directory};
use crate::runtime;
use ic_stable_structures::Memory;
use onnx_canister_interface::Error;
use onnx_kernels::crc32::{self, add_blocks, fold, sum_bytes};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// Bytes under one checksum.
pub const BLOCK_BYTES: u64 = PAGE_BYTES;
const _: () = assert!(BLOCK_BYTES == crc32::BLOCK_BYTES as u64, "blocks are summed together");
const CRC_BYTES: usize = 4;

/// A blob as its owner's record has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    size_bytes: u64,
    extents: Vec<Extent>,
    /// CRC-32 of each block of 64 KiB from the first on, little-endian; of the last, of as much as was summed.
    sums: ByteBuf,
}

/// A block whose bytes are not those that were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    pub offset_bytes: u64,
    pub length_bytes: u64,
}

impl Damage {
    /// Notes the damage to `place` and gives the error that says so.
    pub fn error(&self, place: impl Into<String>) -> Error {
        damage::error(place, self.to_string())
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = self.offset_bytes + self.length_bytes;
        write!(f, "bytes {} to {end} do not match their checksum", self.offset_bytes)
    }
}

impl Blob {
    /// Reserves room for `size_bytes` bytes, reusing what was freed. Nothing changes when there isn't enough.
    pub fn allocate(size_bytes: u64) -> Result<Self, Error> {
        Ok(Self { size_bytes, extents: directory::allocate(size_bytes)?, sums: ByteBuf::new() })
    }

    /// Stores `bytes` as a new blob.
    pub fn store(bytes: &[u8]) -> Result<Self, Error> {
        let mut blob = Self::allocate(bytes.len() as u64)?;
        blob.write_at(0, bytes);
        blob.push_sums(bytes);
        Ok(blob)
    }

    /// A blob that lies somewhere already, its bytes not yet summed.
    pub fn at(size_bytes: u64, extents: Vec<Extent>) -> Self {
        Self { size_bytes, extents, sums: ByteBuf::new() }
    }

    /// Gives the blob's pages back.
    pub fn free(self) {
        directory::free(&self.extents);
    }

    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// Bytes of stable memory that the blob's pages take.
    pub fn stable_bytes(&self) -> u64 {
        pages::bytes_of(&self.extents)
    }

    /// Writes `bytes` at `offset`; their checksums are the caller's to make.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) {
        self.check_range(offset, bytes.len());
        let memory = runtime::stable_memory();
        let mut done = 0;
        for_each_run(&self.extents, offset, bytes.len() as u64, |address, length| {
            memory.write(address, &bytes[done..done + length]);
            done += length;
        });
    }

    /// Fills `buffer` with the bytes from `offset` on, whatever they are.
    pub fn read_unchecked(&self, offset: u64, buffer: &mut [u8]) {
        self.check_range(offset, buffer.len());
        let memory = runtime::stable_memory();
        let mut done = 0;
        for_each_run(&self.extents, offset, buffer.len() as u64, |address, length| {
            memory.read(address, &mut buffer[done..done + length]);
            done += length;
        });
    }

    /// Fills `buffer` with the bytes from `offset` on, which must match their checksums.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Damage> {
        Reader::new(self.clone()).read_at(offset, buffer)
    }

    /// All bytes.
    pub fn read(&self) -> Result<Vec<u8>, Damage> {
        // Sizes come from `allocate`, so a blob that was stored whole fits the heap it came from.
        let mut bytes = vec![0; self.size_bytes as usize];
        self.read_at(0, &mut bytes)?;
        Ok(bytes)
    }

    /// Whether all bytes are under checksums.
    pub fn is_summed(&self) -> bool {
        self.sums.len() as u64 == self.size_bytes.div_ceil(BLOCK_BYTES) * CRC_BYTES as u64
    }

    /// Takes all checksums away.
    pub fn clear_sums(&mut self) {
        self.sums.clear();
    }

    /// Adds the checksums of the bytes that follow those that are summed, which must be whole blocks.
    pub fn push_sums(&mut self, bytes: &[u8]) {
        let mut scratch = Vec::new();
        for block in bytes.chunks(BLOCK_BYTES as usize) {
            self.sums.extend(crc32(block, &mut scratch).to_le_bytes());
        }
    }

    /// Makes the checksums of what was written from `offset` to `end`, when all before `offset` is summed.
    pub fn sum_written(&mut self, offset: u64, end: u64) {
        let mut at = offset / BLOCK_BYTES * BLOCK_BYTES;
        self.sums.truncate((at / BLOCK_BYTES) as usize * CRC_BYTES);
        let (mut block, mut scratch) = (vec![0; BLOCK_BYTES as usize], Vec::new());
        while at < end {
            let bytes = &mut block[..BLOCK_BYTES.min(end - at) as usize];
            self.read_unchecked(at, bytes);
            self.sums.extend(crc32(bytes, &mut scratch).to_le_bytes());
            at += BLOCK_BYTES;
        }
    }

    /// Ranges come from checked requests and records; one beyond the end is a mistake of ours, and must not read or
    /// write another blob's bytes.
    fn check_range(&self, offset: u64, length: usize) {
        if offset.checked_add(length as u64).is_none_or(|end| end > self.size_bytes) {
            runtime::trap(&format!("bytes {offset}+{length} of a blob of {} bytes", self.size_bytes));
        }
    }

    fn sum(&self, block: u64) -> Option<&[u8]> {
        let at = usize::try_from(block).ok()?.checked_mul(CRC_BYTES)?;
        self.sums.get(at..at + CRC_BYTES)
    }
}

/// The CRC-32 of a block: of the few bytes that it folds into, which costs a seventh of going over all of it with tables.
fn crc32(block: &[u8], scratch: &mut Vec<u8>) -> u32 {
    let folded = fold(block, scratch);
    // The library's initial value is the CRC of what came before, which is the register inverted.
    let mut hasher = crc32fast::Hasher::new_with_initial(!folded.register);
    hasher.update(folded.bytes);
    hasher.finalize()
}

/// A block's bytes, in a buffer that is as long as one from its first use on.
fn read_block<'a>(blob: &Blob, block: u64, buffer: &'a mut Vec<u8>) -> &'a [u8] {
    if buffer.is_empty() {
        *buffer = vec![0; BLOCK_BYTES as usize];
    }
    let start = block * BLOCK_BYTES;
    let bytes = &mut buffer[..BLOCK_BYTES.min(blob.size_bytes - start) as usize];
    blob.read_unchecked(start, bytes);
    bytes
}

/// The register of a CRC after another 16 zeros.
fn shifted(register: u32) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(!register);
    hasher.update(&[0; 16]);
    !hasher.finalize()
}

/// Reads a blob in any pieces, looking at each block's checksum once.
#[derive(Debug)]
pub struct Reader {
    blob: Blob,
    verified: Vec<bool>,
    block: Vec<u8>,
    sum: Vec<u8>,
    scratch: Vec<u8>,
}

impl Reader {
    pub fn new(blob: Blob) -> Self {
        let blocks = blob.size_bytes.div_ceil(BLOCK_BYTES) as usize;
        Self { blob, verified: vec![false; blocks], block: Vec::new(), sum: Vec::new(), scratch: Vec::new() }
    }

    /// Fills `buffer` with the bytes from `offset` on, which must match their checksums.
    pub fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Damage> {
        self.blob.read_unchecked(offset, buffer);
        let end = offset + buffer.len() as u64;
        let blocks = offset / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES);
        let open = |block: &u64| !self.verified[*block as usize];
        let open: Vec<u64> = blocks.filter(open).collect();
        // The file's last block may be shorter, and is looked at alone.
        let whole = open.iter().filter(|block| (*block + 1) * BLOCK_BYTES <= self.blob.size_bytes).count();
        let (together, alone) = open.split_at(if whole > 1 { whole } else { 0 });
        if !self.match_together(together, offset, buffer) {
            return self.match_each(&open, offset, buffer);
        }
        for block in together {
            self.verified[*block as usize] = true;
        }
        self.match_each(alone, offset, buffer)
    }

    /// Whether whole blocks match their checksums, all added up: dearer than one alone, and cheaper than two.
    fn match_together(&mut self, blocks: &[u64], offset: u64, buffer: &[u8]) -> bool {
        if blocks.is_empty() {
            return true;
        }
        // Not resized from nothing, which is a loop over bytes here.
        let length = sum_bytes(blocks.len());
        if self.sum.len() < length {
            self.sum = vec![0; length];
        }
        self.sum[..length].fill(0);
        let end = offset + buffer.len() as u64;
        let mut place = 0;
        let is_next = |block: &u64, next: &u64| *next == block + 1;
        for run in blocks.chunk_by(is_next) {
            let (mut first, mut stop) = (run[0] * BLOCK_BYTES, (run[0] + run.len() as u64) * BLOCK_BYTES);
            if first < offset {
                place += self.add_block(run[0], place);
                first += BLOCK_BYTES;
            }
            let last = (stop > end && stop > first).then(|| stop / BLOCK_BYTES - 1);
            stop -= if last.is_some() { BLOCK_BYTES } else { 0 };
            if first < stop {
                let bytes = &buffer[(first - offset) as usize..(stop - offset) as usize];
                add_blocks(bytes, place, &mut self.sum);
                place += bytes.len() / BLOCK_BYTES as usize;
            }
            if let Some(last) = last {
                place += self.add_block(last, place);
            }
        }
        let mut register = 0;
        for block in blocks {
            let Some(Ok(sum)) = self.blob.sum(*block).map(|sum| sum.try_into()) else { return false };
            register = shifted(register) ^ !u32::from_le_bytes(sum);
        }
        crc32(&self.sum[..length], &mut self.scratch) == !register
    }

    /// Adds a block that isn't in the buffer whole; tells how many were added.
    fn add_block(&mut self, block: u64, place: usize) -> usize {
        let block = read_block(&self.blob, block, &mut self.block);
        add_blocks(block, place, &mut self.sum);
        1
    }

    /// Whether blocks match their checksums, one by one.
    fn match_each(&mut self, blocks: &[u64], offset: u64, buffer: &[u8]) -> Result<(), Damage> {
        let end = offset + buffer.len() as u64;
        for block in blocks {
            let start = block * BLOCK_BYTES;
            let stop = (start + BLOCK_BYTES).min(self.blob.size_bytes);
            let crc = if start >= offset && stop <= end {
                crc32(&buffer[(start - offset) as usize..(stop - offset) as usize], &mut self.scratch)
            } else {
                crc32(read_block(&self.blob, *block, &mut self.block), &mut self.scratch)
            };
            if self.blob.sum(*block) != Some(&crc.to_le_bytes()) {
                return Err(Damage { offset_bytes: start, length_bytes: stop - start });
            }
            self.verified[*block as usize] = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = BLOCK_BYTES as usize;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn bytes_come_back_across_runs_of_pages() {
        let whole = bytes(3 * BLOCK + 10);
        let blobs: Vec<Blob> = (0..5).map(|_| Blob::store(&whole[..BLOCK]).expect("there is room")).collect();
        blobs[1].clone().free();
        blobs[3].clone().free();
        let split = Blob::store(&whole).expect("there is room");
        assert_eq!(split.extents().len(), 3);
        assert_eq!(split.read(), Ok(whole.clone()));
        let mut piece = vec![0; BLOCK + 7];
        split.read_at(BLOCK as u64 - 3, &mut piece).expect("it is whole");
        assert_eq!(piece, whole[BLOCK - 3..2 * BLOCK + 4]);
        for blob in [&blobs[0], &blobs[2], &blobs[4]] {
            assert_eq!(blob.read(), Ok(whole[..BLOCK].to_vec()), "nothing of another blob was touched");
        }
    }

    #[test]
    fn a_flipped_byte_is_told_by_whoever_reads_its_block() {
        let whole = bytes(2 * BLOCK + 5);
        let blob = Blob::store(&whole).expect("there is room");
        for at in [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK, 2 * BLOCK + 4] {
            blob.write_at(at as u64, &[whole[at] ^ 0x80]);
            let start = at / BLOCK * BLOCK;
            let length_bytes = BLOCK.min(whole.len() - start) as u64;
            let expected = Err(Damage { offset_bytes: start as u64, length_bytes });
            assert_eq!(blob.read().map(|_| ()), expected);
            assert_eq!(blob.read_at(start as u64, &mut [0; 2]), expected, "also beside the byte");
            let mut reader = Reader::new(blob.clone());
            let other = if start == 0 { BLOCK as u64 } else { 0 };
            assert_eq!(reader.read_at(other, &mut [0; 5]), Ok(()), "other blocks are whole");
            blob.write_at(at as u64, &[whole[at]]);
        }
        assert_eq!(blob.read(), Ok(whole));
    }

    #[test]
    fn parts_are_summed_as_they_come() {
        let whole = bytes(2 * BLOCK + 100);
        let mut blob = Blob::allocate(whole.len() as u64).expect("there is room");
        let mut at = 0;
        for length in [10, BLOCK - 20, 30, BLOCK, 80] {
            blob.write_at(at as u64, &whole[at..at + length]);
            blob.sum_written(at as u64, (at + length) as u64);
            at += length;
        }
        assert_eq!(blob, Blob { sums: Blob::store(&whole).expect("there is room").sums, ..blob.clone() });
        assert_eq!((blob.is_summed(), blob.read()), (true, Ok(whole)));
        let unsummed = Blob::at(blob.size_bytes(), blob.extents().to_vec());
        assert!(!unsummed.is_summed() && unsummed.read().is_err());
        assert!(Blob::allocate(0).expect("there is room").is_summed());
    }

    #[test]
    fn the_checksum_is_the_one_that_older_blobs_have() {
        let mut scratch = Vec::new();
        for length in [0, 1, 4_800, 4_816, 5_000, BLOCK - 1, BLOCK] {
            let block = bytes(length);
            assert_eq!(crc32(&block, &mut scratch), crc32fast::hash(&block), "{length} bytes");
        }
    }

    #[test]
    #[should_panic(expected = "of a blob of 10 bytes")]
    fn reading_beyond_the_end_traps() {
        let blob = Blob::store(&[1; 10]).expect("there is room");
        let _ = blob.read_at(5, &mut [0; 6]);
    }
}
