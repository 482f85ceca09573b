//! The superblock: where the journal is. It is there twice, in pages 0 and 1.
//!
//! ```text
//! -------------------------------------------------- <- 0
//! Magic "ONNXCAN\0"                     8 bytes
//! --------------------------------------------------
//! Layout version (2)                    4 bytes
//! --------------------------------------------------
//! Length of the superblock in bytes     4 bytes
//! --------------------------------------------------
//! Generation: +1 for every rewrite      8 bytes
//! --------------------------------------------------
//! Sequence number of the first entry    8 bytes
//! --------------------------------------------------
//! For each of: copy 1 in use, copy 2 in use, copy 1 spare, copy 2 spare
//!   Number of runs of pages             4 bytes
//!   For each run: first page, pages     8 bytes each
//! --------------------------------------------------
//! CRC-32 of all bytes before            4 bytes
//! --------------------------------------------------
//! ```
//!
//! Numbers are little-endian.

use super::pages::Extent;
use super::{PAGE_BYTES, damage};
use ic_stable_structures::Memory;

pub const MAGIC: [u8; 8] = *b"ONNXCAN\0";
pub const LAYOUT_VERSION: u32 = 2;
/// Pages that the two copies take, from page 0 on.
pub const PAGES: u64 = 2;

/// Magic, version and length.
const PREFIX_BYTES: usize = 16;
const CRC_BYTES: usize = 4;

/// Where the journal is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Superblock {
    pub generation: u64,
    pub first_sequence: u64,
    /// The pages of each copy of the journal.
    pub in_use: [Vec<Extent>; 2],
    /// As many pages for the next time that the journal is written anew.
    pub spare: [Vec<Extent>; 2],
}

/// Why a copy can't be used.
#[derive(Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It isn't ours, or its first bytes are damaged.
    Magic([u8; 8]),
    /// It is whole, and of a version that this one doesn't read.
    Version(u32),
    Damaged,
}

impl Superblock {
    /// All pages it names.
    pub fn extents(&self) -> impl Iterator<Item = Extent> {
        self.in_use.iter().chain(&self.spare).flatten().copied()
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(LAYOUT_VERSION.to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend(self.generation.to_le_bytes());
        bytes.extend(self.first_sequence.to_le_bytes());
        for extents in self.in_use.iter().chain(&self.spare) {
            bytes.extend((extents.len() as u32).to_le_bytes());
            for extent in extents {
                bytes.extend(extent.first_page.to_le_bytes());
                bytes.extend(extent.pages.to_le_bytes());
            }
        }
        let length = (bytes.len() + CRC_BYTES) as u32;
        bytes[12..16].copy_from_slice(&length.to_le_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// Reads a copy from the bytes of its page.
    fn decode(page: &[u8]) -> Result<Self, Unusable> {
        let magic: [u8; 8] = page.first_chunk().copied().unwrap_or_default();
        if magic != MAGIC {
            return Err(Unusable::Magic(magic));
        }
        let mut at = MAGIC.len();
        let mut number = |length: usize| {
            let bytes = page.get(at..at + length)?;
            at += length;
            Some(bytes.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)))
        };
        let (version, length) = (number(4), number(4));
        // Layout 1 had no superblock, and its header in page 1 no more than these two.
        if version == Some(1) {
            return Err(Unusable::Version(1));
        }
        let length = length.ok_or(Unusable::Damaged)? as usize;
        let crc_at = length.checked_sub(CRC_BYTES).filter(|at| *at >= PREFIX_BYTES).ok_or(Unusable::Damaged)?;
        let crc = page.get(crc_at..length).ok_or(Unusable::Damaged)?;
        if crc != crc32fast::hash(&page[..crc_at]).to_le_bytes() {
            return Err(Unusable::Damaged);
        }
        if version != Some(u64::from(LAYOUT_VERSION)) {
            return Err(Unusable::Version(version.unwrap_or_default() as u32));
        }
        let mut superblock = Superblock {
            generation: number(8).ok_or(Unusable::Damaged)?,
            first_sequence: number(8).ok_or(Unusable::Damaged)?,
            ..Superblock::default()
        };
        for extents in superblock.in_use.iter_mut().chain(&mut superblock.spare) {
            for _ in 0..number(4).ok_or(Unusable::Damaged)? {
                let first_page = number(8).ok_or(Unusable::Damaged)?;
                extents.push(Extent { first_page, pages: number(8).ok_or(Unusable::Damaged)? });
            }
        }
        Ok(superblock)
    }

    /// Writes both copies.
    pub fn write(&self, memory: &impl Memory) {
        let bytes = self.encode();
        for copy in 0..PAGES {
            memory.write(copy * PAGE_BYTES, &bytes);
        }
    }
}

/// Reads the newest whole copy; tells also whether the other has to be repaired. Fails with what is wrong with both.
pub fn read(memory: &impl Memory) -> Result<(Superblock, bool), [Unusable; 2]> {
    let copy = |number: u64| {
        let mut page = vec![0; PAGE_BYTES as usize];
        if memory.size() > number {
            memory.read(number * PAGE_BYTES, &mut page);
        }
        Superblock::decode(&page)
    };
    let name = |number: u64| format!("copy {} of the superblock was damaged, and was restored from the other", number);
    match (copy(0), copy(1)) {
        (Ok(first), Ok(second)) if first == second => Ok((first, false)),
        (Ok(first), Ok(second)) => {
            damage::note("the copies of the superblock differed: the newer was taken".into());
            Ok((if first.generation >= second.generation { first } else { second }, true))
        }
        (Ok(first), Err(_)) => {
            damage::note(name(2));
            Ok((first, true))
        }
        (Err(_), Ok(second)) => {
            damage::note(name(1));
            Ok((second, true))
        }
        (Err(first), Err(second)) => Err([first, second]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime;

    fn superblock() -> Superblock {
        let run = |first_page, pages| vec![Extent { first_page, pages }];
        Superblock {
            generation: 7,
            first_sequence: 1 << 40,
            in_use: [run(2, 1), run(3, 1)],
            spare: [vec![], [run(4, 9), run(40, 2)].concat()],
        }
    }

    #[test]
    fn it_comes_back_and_every_flipped_byte_is_repaired() {
        let memory = runtime::stable_memory();
        memory.grow(2);
        superblock().write(&memory);
        assert_eq!(read(&memory), Ok((superblock(), false)));
        let length = superblock().encode().len() as u64;
        for at in (0..length).chain(PAGE_BYTES..PAGE_BYTES + length) {
            let mut byte = [0];
            memory.read(at, &mut byte);
            memory.write(at, &[byte[0] ^ 0x10]);
            assert_eq!(read(&memory), Ok((superblock(), true)), "byte {at}");
            memory.write(at, &byte);
        }
        assert_eq!(damage::found().len(), 2);
    }

    #[test]
    fn of_two_whole_copies_the_newer_is_taken() {
        let memory = runtime::stable_memory();
        memory.grow(2);
        superblock().write(&memory);
        let newer = Superblock { generation: 8, ..superblock() };
        memory.write(PAGE_BYTES, &newer.encode());
        assert_eq!(read(&memory), Ok((newer, true)));
    }

    #[test]
    fn what_is_neither_is_told() {
        let memory = runtime::stable_memory();
        assert_eq!(read(&memory), Err([Unusable::Magic([0; 8]), Unusable::Magic([0; 8])]));
        memory.grow(2);
        let mut other = superblock().encode();
        other[8] = 9;
        let end = other.len() - 4;
        let crc = crc32fast::hash(&other[..end]).to_le_bytes();
        other[end..].copy_from_slice(&crc);
        memory.write(0, &other);
        memory.write(PAGE_BYTES, &superblock().encode()[..30]);
        assert_eq!(read(&memory), Err([Unusable::Version(9), Unusable::Damaged]));
    }
}
