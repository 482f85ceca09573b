//! Every record, on the heap as it is in stable memory, and the way to change one.

use super::entry::{self, HEADER_BYTES};
use super::journal::{self, RecordKey, Records};
use super::pages::{self, Extent, Pages, Room};
use super::superblock::{self, Superblock, Unusable};
use super::{PAGE_BYTES, damage, layout1};
use crate::{record, runtime, store};
use ic_stable_structures::{DefaultMemoryImpl, Memory};
use onnx_canister_interface::Error;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::cell::RefCell;

/// The kinds of records. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// The settings; the key is empty.
    Settings = 1,
    /// Numbers never given twice; the key is empty.
    Counters = 2,
    /// A model's name.
    Name = 3,
    /// A model version.
    Model = 4,
    /// Which chunks of a model version are stored.
    Bitmap = 5,
    /// A job; the key is its number, big-endian.
    Job = 6,
    /// A staged input; the key is its owner's and its own.
    Input = 7,
    /// A generation session; the key is its number, big-endian.
    Session = 8,
}

/// Each copy of a new journal has room for this many times the records' bytes.
const GROWTH: u64 = 4;

struct Directory {
    memory: DefaultMemoryImpl,
    superblock: Superblock,
    records: Records,
    pages: Pages,
    /// Where the next entry goes, and its number.
    end: u64,
    next_sequence: u64,
}

thread_local! {
    static DIRECTORY: RefCell<Option<Directory>> = const { RefCell::new(None) };
}

/// Opens stable memory now, so that a memory which is not ours traps in the message that installs the module.
pub fn open() {
    with(|_| ());
}

fn with<R>(f: impl FnOnce(&mut Directory) -> R) -> R {
    DIRECTORY.with_borrow_mut(|directory| f(directory.get_or_insert_with(Directory::open)))
}

/// The record of a key.
pub fn get<T: DeserializeOwned>(kind: Kind, key: &[u8]) -> Option<T> {
    let bytes = with(|directory| directory.records.get(&(kind as u8, key.to_vec())).cloned())?;
    Some(record::decode_own(&name(&(kind as u8, key.to_vec())), &bytes))
}

pub fn contains(kind: Kind, key: &[u8]) -> bool {
    with(|directory| directory.records.contains_key(&(kind as u8, key.to_vec())))
}

/// Keys of a kind that begin with `prefix`, in order.
pub fn keys(kind: Kind, prefix: &[u8]) -> Vec<Vec<u8>> {
    with(|directory| {
        directory
            .records
            .range((kind as u8, prefix.to_vec())..)
            .take_while(|((its_kind, key), _)| *its_kind == kind as u8 && key.starts_with(prefix))
            .map(|((_, key), _)| key.clone())
            .collect()
    })
}

/// Sets a record.
pub fn set<T: Serialize>(kind: Kind, key: &[u8], value: &T) {
    let bytes = record::encode(value);
    with(|directory| directory.change((kind as u8, key.to_vec()), Some(bytes)));
}

/// Removes a record.
pub fn remove(kind: Kind, key: &[u8]) {
    with(|directory| directory.change((kind as u8, key.to_vec()), None));
}

/// Takes pages for `bytes` bytes of data, or none.
pub fn allocate(bytes: u64) -> Result<Vec<Extent>, Error> {
    with(|directory| directory.pages.allocate(bytes.div_ceil(PAGE_BYTES), Room::Data))
}

/// Gives pages back.
pub fn free(extents: &[Extent]) {
    with(|directory| directory.pages.free(extents));
}

/// Bytes of stable memory that are free without growing.
pub fn free_bytes() -> u64 {
    with(|directory| directory.pages.free_bytes())
}

/// What a record is called in errors.
fn name((kind, key): &RecordKey) -> String {
    store::owned::record_name(*kind, key)
}

/// The superblock, and where the journal ends: for tests that damage them.
#[cfg(test)]
pub fn layout() -> (Superblock, u64) {
    with(|directory| (directory.superblock.clone(), directory.end))
}

impl Directory {
    fn open() -> Self {
        let memory = runtime::stable_memory();
        if memory.size() == 0 {
            return Self::create(memory, Records::new(), Vec::new(), 0);
        }
        match superblock::read(&memory) {
            Ok((superblock, damaged)) => Self::read(memory, superblock, damaged),
            Err(unusable) => Self::from_another_layout(memory, &unusable),
        }
    }

    /// A journal of `records` in a memory in which `used` pages are taken; the superblock is written last.
    fn create(memory: DefaultMemoryImpl, records: Records, used: Vec<Extent>, generation: u64) -> Self {
        let lacking = superblock::PAGES.saturating_sub(memory.size());
        if lacking > 0 && memory.grow(lacking) < 0 {
            runtime::trap("the network gives no stable memory for the superblock. Nothing was changed.");
        }
        let pages = Pages::not_in(used, superblock::PAGES, memory.size()).unwrap_or_else(|error| refuse(&error));
        let superblock = Superblock { generation, ..Superblock::default() };
        let mut directory = Self { memory, superblock, records, pages, end: 0, next_sequence: 0 };
        directory.rewrite();
        directory
    }

    fn read(memory: DefaultMemoryImpl, superblock: Superblock, damaged: bool) -> Self {
        // The superblock's own pages can't be wrong under its checksum, but they must be there before they are read.
        if superblock.extents().any(|extent| extent.end().is_none_or(|end| end > memory.size())) {
            refuse("the superblock names pages that are not there");
        }
        let found = journal::read(&memory, &superblock.in_use, superblock.first_sequence, name)
            .unwrap_or_else(|error| refuse(&error));
        let mut owners_known = true;
        for lost in &found.lost {
            damage::note(format!("{} is damaged in both copies of the journal, and is lost", name(lost)));
            owners_known &= !store::owned::owns_pages(lost.0);
        }
        let mut used: Vec<Extent> = superblock.extents().collect();
        for (key, bytes) in &found.records {
            match store::owned::extents(key.0, bytes) {
                Ok(extents) => used.extend(extents),
                Err(error) => {
                    damage::note(format!("{}: {error}", name(key)));
                    owners_known = false;
                }
            }
        }
        let mut pages = Pages::not_in(used, superblock::PAGES, memory.size()).unwrap_or_else(|error| refuse(&error));
        if !owners_known {
            pages.forbid_reuse();
        }
        let (end, next_sequence) = (found.end, found.next_sequence);
        let mut directory = Self { memory, superblock, records: found.records, pages, end, next_sequence };
        if damaged || found.damaged || !found.lost.is_empty() {
            directory.rewrite();
        }
        directory
    }

    /// A memory without a superblock of this layout: layout 1, or nothing of ours.
    fn from_another_layout(memory: DefaultMemoryImpl, unusable: &[Unusable; 2]) -> Self {
        if layout1::is_it(&memory) {
            let (records, used) = layout1::read(&memory).unwrap_or_else(|error| refuse(&error));
            return Self::create(memory, records, used, 1);
        }
        if unusable.contains(&Unusable::Version(1)) {
            refuse("it has layout 1, whose table of memories is not what it was");
        }
        for copy in unusable {
            if let Unusable::Version(version) = copy {
                runtime::trap(&format!(
                    "stable memory has layout version {version}, this version of the canister reads {} and 1. Nothing \
                     was changed: install the version that wrote it.",
                    superblock::LAYOUT_VERSION
                ));
            }
        }
        if unusable.contains(&Unusable::Damaged) {
            refuse("both copies of the superblock are damaged");
        }
        let first = match &unusable[0] {
            Unusable::Magic(magic) => *magic,
            _ => superblock::MAGIC,
        };
        runtime::trap(&format!(
            "stable memory holds another canister's data (it begins with {first:02x?}, expected {:02x?}). Nothing was \
             changed.",
            superblock::MAGIC
        ))
    }

    /// Sets or removes a record, in stable memory and on the heap.
    fn change(&mut self, key: RecordKey, record: Option<Vec<u8>>) {
        let entry = entry::encode(self.next_sequence, key.0, &key.1, record.as_deref());
        match record {
            Some(record) => self.records.insert(key, record),
            None => self.records.remove(&key),
        };
        let room = self.superblock.in_use.iter().map(|copy| pages::bytes_of(copy)).min().unwrap_or_default();
        if self.end + entry.len() as u64 + HEADER_BYTES as u64 > room {
            return self.rewrite();
        }
        self.end = journal::append(&self.memory, &self.superblock.in_use, self.end, &entry);
        self.next_sequence += 1;
    }

    /// Writes all records anew into the spare pages, or into more of them where they are few.
    fn rewrite(&mut self) {
        let needed = journal::bytes_needed(&self.records);
        let spare = self.superblock.spare.iter().map(|copy| pages::bytes_of(copy)).min().unwrap_or_default();
        let old = std::mem::take(&mut self.superblock);
        let mut given_back: Vec<Extent> = Vec::new();
        self.superblock = match needed.saturating_mul(2) <= spare {
            true => Superblock { in_use: old.spare, spare: old.in_use, ..Superblock::default() },
            false => {
                given_back.extend(old.extents());
                let wanted = needed.saturating_mul(GROWTH).div_ceil(PAGE_BYTES).next_power_of_two();
                let mut copy = || match self.pages.allocate(wanted, Room::Records) {
                    Ok(extents) => extents,
                    Err(error) => runtime::trap(&format!("no room for the canister's records: {error}")),
                };
                Superblock { in_use: [copy(), copy()], spare: [copy(), copy()], ..Superblock::default() }
            }
        };
        self.superblock.generation = old.generation + 1;
        self.superblock.first_sequence = self.next_sequence;
        (self.end, self.next_sequence) =
            journal::write_all(&self.memory, &self.superblock.in_use, &self.records, self.next_sequence);
        self.superblock.write(&self.memory);
        self.pages.free(&given_back);
    }
}

fn refuse(reason: &str) -> ! {
    runtime::trap(&format!(
        "stable memory is damaged beyond what its copies can repair: {reason}. Nothing was changed."
    ))
}
