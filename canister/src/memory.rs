//! Stable memory: who owns which part, and the check that it is ours before anything is written.
//!
//! ```text
//! -------------------------------------------------- <- 0
//! The memory manager's table            ↕ 1 page of 64 KiB
//! -------------------------------------------------- <- buckets of 32 pages, each owned by one memory
//! memory 0: header                      this canister's magic and layout version (below)
//! memory 1: settings                    cell, one record
//! memory 2: counters                    cell, one record
//! memory 3: names                       map, model name -> record
//! memory 4: models                      map, name and version -> record
//! memory 5: blob table                  map, blob number -> record (size, extents)
//! memory 6: free extents                map, first page -> pages
//! memory 7: blobs                       raw pages: files, manifests, bitmaps, inputs, requests, results
//! memory 8: jobs                        map, job number -> record
//! memory 9: inputs                      map, caller and key -> record
//! --------------------------------------------------
//! ```
//!
//! Maps and cells are `ic-stable-structures`' own layouts with their own magic and version; every value in them is a
//! record as `record.rs` describes. The header, at address 0 of memory 0:
//!
//! ```text
//! -------------------------------------------------- <- 0
//! Magic "ONNXCAN\0"                     ↕ 8 bytes
//! --------------------------------------------------
//! Layout version, little-endian (1)     ↕ 4 bytes
//! --------------------------------------------------
//! Reserved, zero                        ↕ 52 bytes
//! --------------------------------------------------
//! ```
//!
//! The library would start anew over a memory whose magic it doesn't know. Here that would destroy uploads, so the
//! magics are looked at first and a mismatch traps, which leaves every byte in place.

use crate::runtime;
use ic_stable_structures::memory_manager::{MemoryId, MemoryManager, VirtualMemory};
use ic_stable_structures::{DefaultMemoryImpl, Memory};

/// Bytes of a page of Wasm memory, heap or stable.
pub const PAGE_BYTES: u64 = 65_536;
/// Pages of a bucket: 32,768 buckets of 2 MiB reach 64 GiB, and a new canister occupies 20 MiB.
pub const BUCKET_PAGES: u16 = 32;

pub const HEADER: MemoryId = MemoryId::new(0);
pub const SETTINGS: MemoryId = MemoryId::new(1);
pub const COUNTERS: MemoryId = MemoryId::new(2);
pub const NAMES: MemoryId = MemoryId::new(3);
pub const MODELS: MemoryId = MemoryId::new(4);
pub const BLOB_TABLE: MemoryId = MemoryId::new(5);
pub const FREE_EXTENTS: MemoryId = MemoryId::new(6);
pub const BLOBS: MemoryId = MemoryId::new(7);
pub const JOBS: MemoryId = MemoryId::new(8);
pub const INPUTS: MemoryId = MemoryId::new(9);
const ALL: [MemoryId; 10] = [HEADER, SETTINGS, COUNTERS, NAMES, MODELS, BLOB_TABLE, FREE_EXTENTS, BLOBS, JOBS, INPUTS];

const MANAGER_MAGIC: [u8; 3] = *b"MGR";
const MANAGER_VERSION: u8 = 1;
const MAGIC: [u8; 8] = *b"ONNXCAN\0";
const LAYOUT_VERSION: u32 = 1;

/// One of the memories above.
pub type Stable = VirtualMemory<DefaultMemoryImpl>;

thread_local! {
    static MANAGER: MemoryManager<DefaultMemoryImpl> = open();
}

/// Gives one of the memories above.
pub fn get(id: MemoryId) -> Stable {
    MANAGER.with(|manager| manager.get(id))
}

/// Opens stable memory now, so that a memory which is not ours traps in the message that installs the module.
pub fn check() {
    MANAGER.with(|_| ());
}

/// Grows `memory` by `pages` without ever failing halfway: the system is asked first for every bucket that this takes.
/// Tells the bytes that were missing when it can't be done.
pub fn grow(memory: &Stable, pages: u64) -> Result<u64, GrowError> {
    let bucket = u64::from(BUCKET_PAGES);
    let buckets = |pages: u64| pages.div_ceil(bucket);
    let allocated: u64 = ALL.iter().map(|id| buckets(get(*id).size())).sum();
    let added = buckets(memory.size() + pages) - buckets(memory.size());
    let backing = runtime::stable_memory();
    let needed_pages = 1 + (allocated + added) * bucket;
    let limit_pages = (crate::limits::STABLE_BYTES_MAX - crate::limits::STABLE_HEADROOM_BYTES) / PAGE_BYTES;
    let refused = GrowError {
        needed_bytes: pages * PAGE_BYTES,
        free_bytes: limit_pages.saturating_sub(1 + allocated * bucket) * PAGE_BYTES,
    };
    if needed_pages > limit_pages {
        return Err(refused);
    }
    let lacking = needed_pages.saturating_sub(backing.size());
    if lacking > 0 && backing.grow(lacking) < 0 {
        return Err(GrowError { free_bytes: 0, ..refused });
    }
    match u64::try_from(memory.grow(pages)) {
        Ok(first_page) => Ok(first_page),
        Err(_) => Err(refused),
    }
}

/// Stable memory can't grow by what is needed.
#[derive(Debug, PartialEq, Eq)]
pub struct GrowError {
    pub needed_bytes: u64,
    pub free_bytes: u64,
}

fn open() -> MemoryManager<DefaultMemoryImpl> {
    let backing = runtime::stable_memory();
    if backing.size() == 0 {
        let manager = MemoryManager::init_with_bucket_size(backing, BUCKET_PAGES);
        let header = manager.get(HEADER);
        header.grow(1);
        header.write(0, &MAGIC);
        header.write(8, &LAYOUT_VERSION.to_le_bytes());
        return manager;
    }
    let mut start = [0; 8];
    backing.read(0, &mut start);
    if start[..3] != MANAGER_MAGIC || start[3] != MANAGER_VERSION {
        runtime::trap(&format!(
            "stable memory does not begin with a memory manager's table that this version knows ({:02x?}, expected \
             {MANAGER_MAGIC:02x?} version {MANAGER_VERSION}): it belongs to another canister. Nothing was changed.",
            &start[..4]
        ));
    }
    let bucket_pages = u16::from_le_bytes([start[6], start[7]]);
    if bucket_pages != BUCKET_PAGES {
        runtime::trap(&format!(
            "stable memory has buckets of {bucket_pages} pages, this version's have {BUCKET_PAGES}: it belongs to \
             another canister. Nothing was changed."
        ));
    }
    let manager = MemoryManager::init_with_bucket_size(backing, BUCKET_PAGES);
    let header = manager.get(HEADER);
    let mut bytes = [0; 12];
    if header.size() > 0 {
        header.read(0, &mut bytes);
    }
    if bytes[..8] != MAGIC {
        runtime::trap(&format!(
            "stable memory holds another canister's data (header {:02x?}, expected {MAGIC:02x?}). Nothing was changed.",
            &bytes[..8]
        ));
    }
    let version = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    if version != LAYOUT_VERSION {
        runtime::trap(&format!(
            "stable memory has layout version {version}, this version of the canister reads {LAYOUT_VERSION}. Nothing \
             was changed: install the version that wrote it."
        ));
    }
    manager
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::fake;

    /// Opens a memory that begins with `bytes` in a thread of its own, and gives the trap's message and the bytes after it.
    fn open_with(bytes: Vec<u8>) -> (Option<String>, Vec<u8>) {
        std::thread::spawn(move || {
            fake::set_stable_image(&bytes);
            let opened = std::panic::catch_unwind(check);
            let message = opened.err().map(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_default());
            (message, fake::stable_image())
        })
        .join()
        .expect("the thread catches its panic")
    }

    fn image() -> Vec<u8> {
        std::thread::spawn(|| {
            check();
            fake::stable_image()
        })
        .join()
        .expect("a new memory opens")
    }

    #[test]
    fn a_memory_of_ours_opens_again() {
        let image = image();
        assert_eq!(open_with(image.clone()), (None, image));
    }

    #[test]
    fn a_foreign_memory_traps_and_keeps_its_bytes() {
        let header_at = PAGE_BYTES as usize;
        let cases: [(usize, u8, &str); 5] = [
            (0, b'X', "does not begin with a memory manager's table"),
            (3, 9, "does not begin with a memory manager's table"),
            (6, 128, "buckets of 128 pages"),
            (header_at, b'X', "another canister's data"),
            (header_at + 8, 7, "layout version 7"),
        ];
        for (at, byte, expected) in cases {
            let mut bytes = image();
            bytes[at] = byte;
            let (message, after) = open_with(bytes.clone());
            let message = message.expect("a memory that isn't ours must trap");
            assert!(message.contains(expected), "{message}");
            assert!(after == bytes, "the memory must be left as it was");
        }
    }

    #[test]
    fn growing_asks_for_whole_buckets_and_reports_what_is_missing() {
        let blobs = get(BLOBS);
        assert_eq!(grow(&blobs, 1), Ok(0));
        assert_eq!(grow(&blobs, u64::from(BUCKET_PAGES)), Ok(1));
        assert_eq!(blobs.size(), 33);
        let too_many = crate::limits::STABLE_BYTES_MAX / PAGE_BYTES;
        let error = grow(&blobs, too_many).expect_err("more than there is");
        assert_eq!(error.needed_bytes, crate::limits::STABLE_BYTES_MAX);
        assert!(error.free_bytes > 0 && error.free_bytes < error.needed_bytes);
        assert_eq!(blobs.size(), 33);
    }
}
