//! The journal: every record that was set or removed, in order, in two copies of the same bytes.
//!
//! A change is appended to both copies. When there is no room left, the records that are set now are written anew into
//! the spare pages, which then change places with those in use. Messages are atomic on the network, so no entry is ever
//! half written; what is guarded against is damage.

use super::entry::{self, HEADER_BYTES, Header};
use super::pages::{Extent, for_each_run};
use super::{damage, pages};
use ic_stable_structures::Memory;
use std::collections::BTreeMap;

/// The kind of a record, and its key.
pub type RecordKey = (u8, Vec<u8>);
/// Every record that is set.
pub type Records = BTreeMap<RecordKey, Vec<u8>>;

/// What reading a journal found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub records: Records,
    /// Where the next entry goes, and its number.
    pub end: u64,
    pub next_sequence: u64,
    /// A copy has to be repaired.
    pub damaged: bool,
    /// Records whose bytes are damaged in both copies.
    pub lost: Vec<RecordKey>,
}

/// Reads both copies. `name` tells what a record is called. Fails when an entry's header is damaged in both, since
/// nothing behind it can then be found.
pub fn read(
    memory: &impl Memory,
    copies: &[Vec<Extent>; 2],
    first_sequence: u64,
    name: impl Fn(&RecordKey) -> String,
) -> Result<Found, String> {
    let mut found = Found { next_sequence: first_sequence, ..Found::default() };
    let capacity = copies.iter().map(|copy| pages::bytes_of(copy)).min().unwrap_or_default();
    while found.end + HEADER_BYTES as u64 <= capacity {
        let entries = [0, 1].map(|copy| Copy::read(memory, &copies[copy], found.end, capacity, found.next_sequence));
        let Some((header, key)) = entries.iter().find_map(|entry| entry.whole.clone()) else {
            if entries.iter().any(|entry| entry.is_end) {
                for number in (1..=2).filter(|number| !entries[number - 1].is_end) {
                    found.damaged = true;
                    damage::note(format!("copy {number} of the journal: its end was damaged, and was restored"));
                }
                break;
            }
            return Err(format!("both copies of the journal are damaged at byte {}", found.end));
        };
        let record_at = found.end + (HEADER_BYTES + key.len()) as u64;
        let records = copies.each_ref().map(|copy| read_at(memory, copy, record_at, header.record_length as usize));
        let record_key = (header.kind, key);
        for copy in 0..2 {
            if entries[copy].whole.is_none() || !header.is_of(&records[copy]) {
                found.damaged = true;
                let (number, what) = (copy + 1, name(&record_key));
                damage::note(format!("copy {number} of the journal: {what} was damaged at entry {}", header.sequence));
            }
        }
        match records.into_iter().find(|record| header.is_of(record)) {
            Some(record) => {
                found.lost.retain(|lost| *lost != record_key);
                match header.set {
                    true => found.records.insert(record_key, record),
                    false => found.records.remove(&record_key),
                };
            }
            // What was set before is out of date.
            None => {
                found.records.remove(&record_key);
                found.lost.push(record_key);
            }
        }
        found.end = record_at + u64::from(header.record_length);
        found.next_sequence += 1;
    }
    Ok(found)
}

/// An entry as one copy has it.
struct Copy {
    /// Header and key, when they are whole.
    whole: Option<(Header, Vec<u8>)>,
    /// There are zeros instead of an entry.
    is_end: bool,
}

impl Copy {
    fn read(memory: &impl Memory, extents: &[Extent], at: u64, capacity: u64, sequence: u64) -> Self {
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(&read_at(memory, extents, at, HEADER_BYTES));
        let left = capacity - at - HEADER_BYTES as u64;
        let header = Header::decode(&bytes).filter(|header| {
            header.sequence == sequence && u64::from(header.key_length) + u64::from(header.record_length) <= left
        });
        let whole = header.and_then(|header| {
            let key = read_at(memory, extents, at + HEADER_BYTES as u64, header.key_length.into());
            header.is_whole(&bytes, &key).then_some((header, key))
        });
        Self { whole, is_end: bytes == [0; HEADER_BYTES] }
    }
}

/// Bytes that all records take when they are written anew, the end included.
pub fn bytes_needed(records: &Records) -> u64 {
    let entries: u64 = records.iter().map(|((_, key), record)| entry::length(key, record)).sum();
    entries + HEADER_BYTES as u64
}

/// Writes all records anew, numbered from `first_sequence` on; tells where the next entry goes and its number.
pub fn write_all(
    memory: &impl Memory,
    copies: &[Vec<Extent>; 2],
    records: &Records,
    first_sequence: u64,
) -> (u64, u64) {
    let (mut end, mut sequence) = (0, first_sequence);
    let mut pending = Vec::new();
    for ((kind, key), record) in records {
        pending.extend(entry::encode(sequence, *kind, key, Some(record)));
        sequence += 1;
        if pending.len() >= super::PAGE_BYTES as usize {
            write_at(memory, copies, end, &pending);
            end += pending.len() as u64;
            pending.clear();
        }
    }
    let entries = end + pending.len() as u64;
    pending.extend([0; HEADER_BYTES]);
    write_at(memory, copies, end, &pending);
    (entries, sequence)
}

/// Appends an entry at `end`, and the end after it; the caller has seen to the room for both.
pub fn append(memory: &impl Memory, copies: &[Vec<Extent>; 2], end: u64, entry: &[u8]) -> u64 {
    let mut bytes = entry.to_vec();
    bytes.extend([0; HEADER_BYTES]);
    write_at(memory, copies, end, &bytes);
    end + entry.len() as u64
}

fn write_at(memory: &impl Memory, copies: &[Vec<Extent>; 2], offset: u64, bytes: &[u8]) {
    for copy in copies {
        let mut done = 0;
        for_each_run(copy, offset, bytes.len() as u64, |address, length| {
            memory.write(address, &bytes[done..done + length]);
            done += length;
        });
    }
}

fn read_at(memory: &impl Memory, extents: &[Extent], offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut done = 0;
    for_each_run(extents, offset, length as u64, |address, length| {
        memory.read(address, &mut bytes[done..done + length]);
        done += length;
    });
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime;

    const FIRST: u64 = 100;

    fn copies() -> [Vec<Extent>; 2] {
        [[0, 3], [1, 2]]
            .map(|[first_page, second]| vec![Extent { first_page, pages: 1 }, Extent { first_page: second, pages: 1 }])
    }

    fn read_all() -> Result<Found, String> {
        read(&runtime::stable_memory(), &copies(), FIRST, |(kind, key)| format!("{kind} {}", key.len()))
    }

    fn record_of(number: u8, length: usize) -> (RecordKey, Vec<u8>) {
        ((number % 3, vec![number; 1 + usize::from(number % 5)]), vec![number ^ 0x5a; length])
    }

    #[test]
    fn what_was_set_last_is_found_across_pages_and_rewrites() {
        let memory = runtime::stable_memory();
        memory.grow(4);
        let mut records: Records = (0..40).map(|number| record_of(number, 2_000)).collect();
        let (mut end, mut sequence) = write_all(&memory, &copies(), &records, FIRST);
        assert_eq!(end + HEADER_BYTES as u64, bytes_needed(&records));
        for number in 30..50 {
            let (key, record) = record_of(number, 50);
            end = append(&memory, &copies(), end, &entry::encode(sequence, key.0, &key.1, Some(&record)));
            sequence += 1;
            records.insert(key, record);
        }
        let (key, _) = record_of(7, 0);
        end = append(&memory, &copies(), end, &entry::encode(sequence, key.0, &key.1, None));
        records.remove(&key);
        let expected = Found { records, end, next_sequence: sequence + 1, damaged: false, lost: vec![] };
        assert_eq!(read_all(), Ok(expected));
    }

    #[test]
    fn a_flipped_byte_in_either_copy_is_named_and_harms_nothing() {
        let memory = runtime::stable_memory();
        memory.grow(4);
        let records: Records = (0..4).map(|number| record_of(number, 30)).collect();
        write_all(&memory, &copies(), &records, FIRST);
        let whole = read_all().expect("it is whole");
        assert_eq!(whole.records, records);
        for page in [0, 1] {
            for at in 0..bytes_needed(&records) {
                let address = page * super::super::PAGE_BYTES + at;
                let mut byte = [0];
                memory.read(address, &mut byte);
                memory.write(address, &[byte[0] ^ 1]);
                let found = read_all().expect("the other copy is whole");
                assert_eq!((&found.records, found.damaged), (&records, true), "page {page}, byte {at}");
                memory.write(address, &byte);
            }
        }
    }

    #[test]
    fn damage_to_both_copies_loses_one_record_or_is_refused() {
        let memory = runtime::stable_memory();
        memory.grow(4);
        let records: Records = (0..4).map(|number| record_of(number, 30)).collect();
        write_all(&memory, &copies(), &records, FIRST);
        let flip = |at: u64| {
            for page in [0, 1] {
                memory.write(page * super::super::PAGE_BYTES + at, &[0xee]);
            }
        };
        let (first_key, first) = records.iter().next().expect("there are four");
        flip(entry::length(&first_key.1, first) - 1);
        let found = read_all().expect("the lengths are whole");
        assert_eq!(found.lost, std::slice::from_ref(first_key));
        assert_eq!(found.records.len(), 3);
        flip(2);
        assert_eq!(read_all(), Err("both copies of the journal are damaged at byte 0".into()));
    }
}
