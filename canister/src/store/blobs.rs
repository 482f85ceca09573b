//! Byte strings of any size in stable memory: files, manifests, inputs, requests and results.
//!
//! A blob lies in whole pages of one memory, in as many runs of pages ("extents") as free space has:
//!
//! ```text
//! blob table:    blob number -> record { size_bytes, extents: [(first page, pages), ...] }
//! free extents:  first page  -> pages          neighbours are always merged
//!
//! pages:         | blob 1 | free | blob 2      | blob 1, second extent | ...
//! ```
//!
//! Reads and writes go straight to their place. The bytes of a new blob are whatever was there before: who allocates
//! one keeps account of what has been written.

use crate::counters;
use crate::limits::STABLE_IO_BYTES_MAX;
use crate::memory::{self, PAGE_BYTES, Stable};
use crate::record;
use crate::runtime;
use ic_stable_structures::{Memory, StableBTreeMap};
use onnx_canister_interface::Error;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::rc::Rc;

/// A blob's number; never used twice.
pub type BlobId = u64;

/// Runs of pages that one blob may be made of. Free space in more pieces than that is left for smaller blobs.
const EXTENTS_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Extent {
    first_page: u64,
    pages: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct BlobRecord {
    size_bytes: u64,
    extents: Vec<Extent>,
}

/// An open blob: knows where its bytes are, and is cheap to clone.
#[derive(Clone, Debug)]
pub struct Blob {
    id: BlobId,
    size_bytes: u64,
    extents: Rc<[Extent]>,
}

thread_local! {
    static TABLE: RefCell<StableBTreeMap<u64, Vec<u8>, Stable>> =
        RefCell::new(StableBTreeMap::init(memory::get(memory::BLOB_TABLE)));
    static FREE: RefCell<StableBTreeMap<u64, u64, Stable>> =
        RefCell::new(StableBTreeMap::init(memory::get(memory::FREE_EXTENTS)));
    static PAGES: Stable = memory::get(memory::BLOBS);
}

/// Opens the maps.
pub fn open_all() {
    TABLE.with_borrow(|_| ());
    FREE.with_borrow(|_| ());
}

/// Reserves room for `size_bytes` bytes, reusing what was freed. Nothing changes when there isn't enough.
pub fn allocate(size_bytes: u64) -> Result<Blob, Error> {
    let mut wanted = size_bytes.div_ceil(PAGE_BYTES);
    // Free space first, lowest address first, so that the memory stays dense.
    let reused: Vec<(Extent, u64)> = FREE.with_borrow(|free| {
        let mut reused = Vec::new();
        for entry in free.iter() {
            if wanted == 0 || reused.len() == EXTENTS_MAX - 1 {
                break;
            }
            let (first_page, free_pages) = entry.into_pair();
            let pages = free_pages.min(wanted);
            reused.push((Extent { first_page, pages }, free_pages));
            wanted -= pages;
        }
        reused
    });
    let grown = match wanted {
        0 => None,
        pages => {
            let first_page = PAGES.with(|memory| memory::grow(memory, pages)).map_err(|error| {
                Error::StableMemoryFull { needed_bytes: error.needed_bytes, free_bytes: error.free_bytes }
            })?;
            Some(Extent { first_page, pages })
        }
    };
    FREE.with_borrow_mut(|free| {
        for (extent, free_pages) in &reused {
            free.remove(&extent.first_page);
            if extent.pages < *free_pages {
                free.insert(extent.first_page + extent.pages, free_pages - extent.pages);
            }
        }
    });
    let mut extents: Vec<Extent> = Vec::new();
    for extent in reused.into_iter().map(|(extent, _)| extent).chain(grown) {
        match extents.last_mut() {
            Some(last) if last.first_page + last.pages == extent.first_page => last.pages += extent.pages,
            _ => extents.push(extent),
        }
    }
    let id = counters::next_blob();
    let record = record::encode(&BlobRecord { size_bytes, extents: extents.clone() });
    TABLE.with_borrow_mut(|table| table.insert(id, record));
    Ok(Blob { id, size_bytes, extents: extents.into() })
}

/// Stores `bytes` as a new blob.
pub fn store(bytes: &[u8]) -> Result<Blob, Error> {
    let blob = allocate(bytes.len() as u64)?;
    blob.write_at(0, bytes);
    Ok(blob)
}

/// Opens a blob that a record of ours names.
pub fn open(id: BlobId) -> Blob {
    match TABLE.with_borrow(|table| table.get(&id)) {
        Some(bytes) => {
            let record: BlobRecord = record::decode_own(&format!("blob {id}"), &bytes);
            Blob { id, size_bytes: record.size_bytes, extents: record.extents.into() }
        }
        None => runtime::trap(&format!("stable memory is damaged: there is no blob {id}")),
    }
}

/// Gives a blob's pages back.
pub fn free(id: BlobId) {
    let blob = open(id);
    TABLE.with_borrow_mut(|table| table.remove(&id));
    FREE.with_borrow_mut(|free| {
        for extent in blob.extents.iter() {
            let (mut first_page, mut pages) = (extent.first_page, extent.pages);
            if let Some(next_pages) = free.remove(&(first_page + pages)) {
                pages += next_pages;
            }
            let before = free.range(..first_page).next_back().map(|entry| entry.into_pair());
            if let Some((before_first, before_pages)) = before
                && before_first + before_pages == first_page
            {
                free.remove(&before_first);
                first_page = before_first;
                pages += before_pages;
            }
            free.insert(first_page, pages);
        }
    });
}

/// Bytes of stable memory that blobs could use without it growing.
pub fn free_bytes() -> u64 {
    FREE.with_borrow(|free| free.values().map(|pages| pages * PAGE_BYTES).sum())
}

impl Blob {
    pub fn id(&self) -> BlobId {
        self.id
    }

    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Bytes of stable memory that the blob's pages take.
    pub fn stable_bytes(&self) -> u64 {
        self.extents.iter().map(|extent| extent.pages * PAGE_BYTES).sum()
    }

    /// Writes `bytes` at `offset`.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) {
        let mut done = 0;
        self.for_each_run(offset, bytes.len(), |address, length| {
            PAGES.with(|memory| memory.write(address, &bytes[done..done + length]));
            done += length;
        });
    }

    /// Fills `buffer` with the bytes from `offset` on.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) {
        let mut done = 0;
        self.for_each_run(offset, buffer.len(), |address, length| {
            PAGES.with(|memory| memory.read(address, &mut buffer[done..done + length]));
            done += length;
        });
    }

    /// All bytes.
    pub fn read(&self) -> Vec<u8> {
        // Sizes come from `allocate`, so a blob that was stored whole fits the heap it came from.
        let mut bytes = vec![0; self.size_bytes as usize];
        self.read_at(0, &mut bytes);
        bytes
    }

    /// Calls `f` with address and length of each piece of stable memory that makes up `length` bytes from `offset` on,
    /// none longer than one system call may move.
    fn for_each_run(&self, offset: u64, length: usize, mut f: impl FnMut(u64, usize)) {
        let end = offset.checked_add(length as u64);
        if end.is_none_or(|end| end > self.size_bytes) {
            runtime::trap(&format!("bytes {offset}+{length} of blob {}, which has {} bytes", self.id, self.size_bytes));
        }
        let mut skip = offset;
        let mut left = length;
        for extent in self.extents.iter() {
            let extent_bytes = extent.pages * PAGE_BYTES;
            if skip >= extent_bytes {
                skip -= extent_bytes;
                continue;
            }
            let mut address = extent.first_page * PAGE_BYTES + skip;
            let mut here = (extent_bytes - skip).min(left as u64) as usize;
            left -= here;
            skip = 0;
            while here > 0 {
                let run = here.min(STABLE_IO_BYTES_MAX);
                f(address, run);
                address += run as u64;
                here -= run;
            }
            if left == 0 {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(blob: &Blob) -> Vec<(u64, u64)> {
        blob.extents.iter().map(|extent| (extent.first_page, extent.pages)).collect()
    }

    fn free_list() -> Vec<(u64, u64)> {
        FREE.with_borrow(|free| free.iter().map(|entry| entry.into_pair()).collect())
    }

    fn pattern(seed: u8, length: usize) -> Vec<u8> {
        (0..length).map(|i| seed.wrapping_add((i / 7) as u8)).collect()
    }

    #[test]
    fn a_blob_gives_back_its_bytes_also_across_extents() {
        let page = PAGE_BYTES as usize;
        let first = store(&pattern(1, page)).expect("there is room");
        let kept = store(&pattern(2, page)).expect("there is room");
        let third = store(&pattern(3, 2 * page)).expect("there is room");
        free(first.id());
        free(third.id());
        let bytes = pattern(9, 4 * page + 5);
        let split = store(&bytes).expect("there is room");
        assert_eq!(pages(&split), [(0, 1), (2, 4)], "the two holes and what was grown behind them");
        assert_eq!(split.read(), bytes);
        assert_eq!(kept.read(), pattern(2, page));
        let mut window = vec![0; 3 * page];
        split.read_at(17, &mut window);
        assert_eq!(window, bytes[17..17 + 3 * page]);
        split.write_at(page as u64 - 2, &[7; 4]);
        assert_eq!(open(split.id()).read()[page - 3..page + 3], [bytes[page - 3], 7, 7, 7, 7, bytes[page + 2]]);
    }

    #[test]
    fn freed_neighbours_become_one() {
        let blobs: Vec<Blob> = (0..5).map(|_| allocate(PAGE_BYTES).expect("there is room")).collect();
        let size = PAGES.with(|memory| memory.size());
        free(blobs[1].id());
        free(blobs[3].id());
        assert_eq!(free_list(), [(1, 1), (3, 1)]);
        free(blobs[2].id());
        assert_eq!(free_list(), [(1, 3)]);
        assert_eq!(free_bytes(), 3 * PAGE_BYTES);
        let reused = allocate(2 * PAGE_BYTES).expect("there is room");
        assert_eq!(pages(&reused), [(1, 2)]);
        assert_eq!(free_list(), [(3, 1)]);
        assert_eq!(PAGES.with(|memory| memory.size()), size, "nothing was grown");
    }

    #[test]
    fn too_large_is_an_error_that_changes_nothing() {
        let blob = allocate(PAGE_BYTES).expect("there is room");
        free(blob.id());
        let error = allocate(crate::limits::STABLE_BYTES_MAX).expect_err("more than there is");
        assert!(matches!(error, Error::StableMemoryFull { needed_bytes, .. } if needed_bytes > 0));
        assert_eq!(free_list(), [(0, 1)]);
    }

    #[test]
    #[should_panic(expected = "which has 10 bytes")]
    fn reading_beyond_the_end_traps() {
        let blob = store(&[1; 10]).expect("there is room");
        blob.read_at(5, &mut [0; 6]);
    }
}
