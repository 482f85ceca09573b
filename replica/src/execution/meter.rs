//! The instruction counter of a message, and its slices.

use super::costs;
use super::failure::Failure;
use super::mapping::{Mapping, Protection};
use std::io;

/// The counter, in a page of its own that Wasm code reaches as its second linear memory.
///
/// ```text
/// byte  0  i64  instructions left in the slice; the Wasm code subtracts at the start of every block
/// byte  8  i64  page charges not yet subtracted; only the host writes it, the Wasm code adds it to its checks
/// byte 16  i64  all page charges of the message; the host's alone
/// ```
///
/// Page charges stand apart because a page fault happens in the middle of compiled code that may hold the counter in
/// a register: were the fault to change the counter, the next store could undo it. The compiler must reload the
/// second word wherever it is read, because every check follows a store to the same memory.
pub(super) struct Counter {
    page: Mapping,
}

/// Offset of the pending page charges in the counter's page.
pub(super) const PENDING_OFFSET_BYTES: u64 = 8;
const TOTAL_OFFSET_BYTES: usize = 16;

impl Counter {
    /// Makes the page and, behind it, `reserved` bytes of address space that compiled code may rely on.
    pub(super) fn new(reserved: usize) -> io::Result<Self> {
        let page = Mapping::new(reserved.max(costs::WASM_PAGE_BYTES as usize), Protection::None)?;
        page.protect(0, costs::WASM_PAGE_BYTES as usize, Protection::ReadWrite)?;
        Ok(Counter { page })
    }

    pub(super) fn base(&self) -> *mut u8 {
        self.page.base()
    }

    fn word(&self, offset: usize) -> *mut i64 {
        debug_assert!(offset <= TOTAL_OFFSET_BYTES);
        // SAFETY: the offsets are 0, 8 and 16 in a page of 64 KiB.
        unsafe { self.page.base().add(offset).cast() }
    }

    fn get(&self, offset: usize) -> i64 {
        // SAFETY: the word is mapped and aligned; only the thread that runs the message accesses it.
        unsafe { self.word(offset).read_volatile() }
    }

    fn set(&self, offset: usize, value: i64) {
        // SAFETY: as for `get`.
        unsafe { self.word(offset).write_volatile(value) }
    }

    /// Starts a message with `left` instructions.
    pub(super) fn start(&self, left: i64) {
        self.set(0, left);
        self.set(PENDING_OFFSET_BYTES as usize, 0);
        self.set(TOTAL_OFFSET_BYTES, 0);
    }

    /// Adds a page charge. Async-signal-safe.
    pub(super) fn charge_page(&self, instructions: u64) {
        let instructions = instructions as i64;
        let pending = PENDING_OFFSET_BYTES as usize;
        self.set(pending, self.get(pending).saturating_add(instructions));
        self.set(TOTAL_OFFSET_BYTES, self.get(TOTAL_OFFSET_BYTES).saturating_add(instructions));
    }

    /// Instructions left in the slice (negative when overrun), pending page charges subtracted. Only while no Wasm
    /// code is between a read and a write of the counter: in host calls and after the message.
    pub(super) fn settle(&self) -> i64 {
        let pending = PENDING_OFFSET_BYTES as usize;
        let left = self.get(0).saturating_sub(self.get(pending));
        self.set(pending, 0);
        self.set(0, left);
        left
    }

    pub(super) fn set_left(&self, left: i64) {
        self.set(0, left);
    }

    /// All page charges of the message.
    pub(super) fn page_charge(&self) -> u64 {
        self.get(TOTAL_OFFSET_BYTES).max(0) as u64
    }
}

/// Deterministic time slicing: a message runs in slices, and what one slice overruns is missing in the next.
#[derive(Clone, Debug)]
pub(super) struct Slices {
    /// Limit of the whole message.
    limit: i64,
    /// Limit of a slice that follows one without overrun.
    max_slice: i64,
    /// Limit of the current slice.
    slice: i64,
    /// Executed in the slices before.
    executed_before: i64,
    /// Slices begun so far.
    begun: u32,
    /// Slices that may still begin.
    left: u64,
}

impl Slices {
    pub(super) fn new(limit: u64, max_slice: u64) -> Self {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let max_slice = i64::try_from(max_slice).unwrap_or(i64::MAX).min(limit).max(1);
        let slices = (2 * (limit as u64).div_ceil(max_slice as u64)).clamp(1, costs::MAX_SLICES);
        Slices { limit, max_slice, slice: max_slice.min(limit), executed_before: 0, begun: 1, left: slices - 1 }
    }

    /// What the counter starts from.
    pub(super) fn first_slice(&self) -> i64 {
        self.slice
    }

    pub(super) fn begun(&self) -> u32 {
        self.begun
    }

    /// Instructions executed in the message when the counter stands at `left`.
    pub(super) fn executed(&self, left: i64) -> u64 {
        let in_slice = self.slice.saturating_sub(left).max(0);
        self.executed_before.saturating_add(in_slice).max(0) as u64
    }

    /// The counter ran below zero: begins the next slice and returns its counter, or says why there is none.
    pub(super) fn next(&mut self, left: i64) -> Result<i64, Failure> {
        let executed = self.slice.saturating_sub(left).max(0);
        let total_left = self.limit.saturating_sub(self.executed_before);
        if self.slice >= total_left || self.left == 0 {
            return Err(Failure::InstructionLimit { limit: self.limit as u64 });
        }
        let overrun = (executed - self.slice).max(0);
        let next = (self.max_slice - overrun).min(total_left.saturating_sub(executed)).max(0);
        if next == 0 {
            // The message has instructions left but the slice has not: one operation cost a whole slice.
            return Err(Failure::SliceOverrun { instructions: executed as u64, limit: self.max_slice as u64 });
        }
        self.executed_before += executed;
        self.slice = next;
        self.begun += 1;
        self.left -= 1;
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_add_up_to_the_limit() {
        let mut slices = Slices::new(40, 20);
        assert_eq!(slices.first_slice(), 20);
        // An overrun of 3 is missing in the next slice, so that two slices together stay at 40.
        assert_eq!(slices.next(-3), Ok(17));
        assert_eq!(slices.executed(17), 23);
        assert_eq!(slices.executed(-1), 41);
        assert_eq!(slices.next(-1), Err(Failure::InstructionLimit { limit: 40 }));
        assert_eq!(slices.begun(), 2);
    }

    #[test]
    fn an_overrun_of_a_whole_slice_fails() {
        let mut slices = Slices::new(4_000, 20);
        assert_eq!(slices.next(-20), Err(Failure::SliceOverrun { instructions: 40, limit: 20 }));
        let mut slices = Slices::new(4_000, 20);
        assert_eq!(slices.next(-19), Ok(1));
    }

    #[test]
    fn page_charges_reach_the_counter_when_it_settles() {
        let counter = Counter::new(0).unwrap();
        counter.start(100);
        counter.charge_page(70);
        assert_eq!(counter.settle(), 30);
        counter.charge_page(70);
        assert_eq!(counter.settle(), -40);
        assert_eq!(counter.settle(), -40);
        assert_eq!(counter.page_charge(), 140);
    }
}
