//! Numbers that are never given twice: of blobs and of jobs.

use crate::memory::{self, Stable};
use crate::record;
use ic_stable_structures::StableCell;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Counters {
    next_blob: u64,
    next_job: u64,
}

thread_local! {
    static COUNTERS: RefCell<StableCell<Vec<u8>, Stable>> = RefCell::new(StableCell::init(
        memory::get(memory::COUNTERS),
        record::encode(&Counters { next_blob: 1, next_job: 1 }),
    ));
}

/// Opens the cell.
pub fn open() {
    COUNTERS.with_borrow(|_| ());
}

fn take(choose: impl FnOnce(&mut Counters) -> &mut u64) -> u64 {
    COUNTERS.with_borrow_mut(|cell| {
        let mut counters: Counters = record::decode_own("the counters", cell.get());
        let counter = choose(&mut counters);
        let number = *counter;
        *counter += 1;
        cell.set(record::encode(&counters));
        number
    })
}

/// A blob's number.
pub fn next_blob() -> u64 {
    take(|counters| &mut counters.next_blob)
}

/// A job's number.
pub fn next_job() -> u64 {
    take(|counters| &mut counters.next_job)
}
