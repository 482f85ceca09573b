//! The Wasm heap: pages that know whether the current message touched them.
//!
//! Between messages every page is inaccessible. The first access of a message faults: it is charged, and the page
//! becomes readable. The first write faults again (or at once, where the processor tells reads from writes): it is
//! charged, what the page held is kept for a rollback, and the page becomes writable. The host's own accesses take
//! the same steps in software before they happen. So a message costs what it touches, in instructions, in time and
//! in memory, however large the heap is.

use super::costs::{PAGE_ACCESS_INSTRUCTIONS, PAGE_WRITE_INSTRUCTIONS, WASM_PAGE_BYTES};
use super::image::next_revision;
use super::mapping::{Mapping, Protection};
use super::meter::Counter;
use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

const PAGE: usize = WASM_PAGE_BYTES as usize;

/// State of a page: two bits of protection, then flags.
const PROTECTION_MASK: u8 = 0b11;
const PROTECTION_READ: u8 = 1;
const PROTECTION_WRITE: u8 = 2;
/// The current message accessed the page.
const ACCESSED: u8 = 1 << 2;
/// The current message wrote the page.
const WRITTEN: u8 = 1 << 3;
/// A committed message or a data segment wrote the page; otherwise it holds zeros.
const MATERIAL: u8 = 1 << 4;

/// Undo slots that keep their memory between messages.
const RESIDENT_SLOTS: usize = 64;
/// Pages between two touched ones that a single change of protection may span.
const MERGE_GAP_PAGES: usize = 16;
/// A page that held zeros needs no slot.
const NO_SLOT: u32 = u32::MAX;

/// The heap of one canister.
pub(super) struct Heap {
    pages: Mapping,
    /// Copies of pages as they were before the message wrote them.
    undo: Mapping,
    max_bytes: usize,
    counter: Arc<Counter>,
    state: UnsafeCell<State>,
}

struct State {
    /// Current size; grows during a message.
    bytes: usize,
    /// Size when the message began.
    committed_bytes: usize,
    /// State of every page up to the largest size.
    page_states: Vec<u8>,
    /// Pages the message touched, in order of touch.
    touched: Vec<u32>,
    /// Pages the message wrote, with their undo slots.
    written: Vec<(u32, u32)>,
    slots_used: usize,
    charge_writes: bool,
    checkpoint: Option<Checkpoint>,
    /// Changes with the content and the size.
    revision: u64,
}

/// What undoes the messages committed since it was taken: the size, and pages as they were (`None` for zeros).
struct Checkpoint {
    bytes: usize,
    saved: BTreeMap<u32, Option<Box<[u8]>>>,
}

// SAFETY: a heap is used by one thread at a time: it sits in an `Instance`, whose `execute` takes `&mut self`. The
// signal handler that also changes the state runs on the very thread that executes.
unsafe impl Send for Heap {}
// SAFETY: as above; `Arc<Heap>` is shared only between the instance and the Wasm store of its running message.
unsafe impl Sync for Heap {}

impl Heap {
    /// A heap of `bytes` zeros that may grow to `max_bytes`, in `reserved` bytes of address space.
    pub(super) fn new(bytes: u64, max_bytes: u64, reserved: usize, counter: Arc<Counter>) -> io::Result<Self> {
        let too_large = || io::Error::from_raw_os_error(libc::ENOMEM);
        let max_bytes = usize::try_from(max_bytes).map_err(|_| too_large())?;
        let bytes = usize::try_from(bytes).ok().filter(|bytes| *bytes <= max_bytes).ok_or_else(too_large)?;
        let max_pages = max_bytes / PAGE;
        Ok(Heap {
            pages: Mapping::new(reserved.max(max_bytes), Protection::None)?,
            undo: Mapping::new(max_bytes, Protection::ReadWrite)?,
            max_bytes,
            counter,
            state: UnsafeCell::new(State {
                bytes,
                committed_bytes: bytes,
                page_states: vec![0; max_pages],
                // The signal handler must not allocate, so these never grow.
                touched: Vec::with_capacity(max_pages),
                written: Vec::with_capacity(max_pages),
                slots_used: 0,
                charge_writes: true,
                checkpoint: None,
                revision: next_revision(),
            }),
        })
    }

    /// SAFETY: see the `Send` and `Sync` implementations; no two of these references may be alive at once.
    #[expect(clippy::mut_from_ref, reason = "the cell's exclusivity is the caller's duty")]
    unsafe fn state(&self) -> &mut State {
        // SAFETY: the caller's duty.
        unsafe { &mut *self.state.get() }
    }

    pub(super) fn base(&self) -> *mut u8 {
        self.pages.base()
    }

    pub(super) fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// Current size in bytes.
    pub(super) fn bytes(&self) -> usize {
        // SAFETY: no other reference is alive.
        unsafe { self.state() }.bytes
    }

    /// Grows to `bytes`.
    pub(super) fn grow_to(&self, bytes: usize) -> bool {
        // SAFETY: no other reference is alive: a growth happens in a host call.
        let state = unsafe { self.state() };
        if bytes < state.bytes || bytes > self.max_bytes {
            return false;
        }
        state.bytes = bytes;
        true
    }

    /// Writes an active data segment before the first message; `false` if it does not fit.
    pub(super) fn initialise(&self, offset: u64, data: &[u8]) -> io::Result<bool> {
        // SAFETY: no message runs, no other reference is alive.
        let state = unsafe { self.state() };
        let Some(end) = usize::try_from(offset).ok().and_then(|offset| offset.checked_add(data.len())) else {
            return Ok(false);
        };
        if end > state.bytes {
            return Ok(false);
        }
        if data.is_empty() {
            return Ok(true);
        }
        let offset = end - data.len();
        let (first, last) = (offset / PAGE, (end - 1) / PAGE);
        let (start, len) = (first * PAGE, (last - first + 1) * PAGE);
        self.pages.protect(start, len, Protection::ReadWrite)?;
        // SAFETY: the range lies inside of the heap and was just made writable.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), self.pages.base().add(offset), data.len()) };
        self.pages.protect(start, len, Protection::None)?;
        for page_state in &mut state.page_states[first..=last] {
            *page_state |= MATERIAL;
        }
        state.revision = next_revision();
        Ok(true)
    }

    /// A number that changes whenever content or size do.
    pub(super) fn revision(&self) -> u64 {
        // SAFETY: no other reference is alive.
        unsafe { self.state() }.revision
    }

    /// Shows every page that was ever written, between messages, in order.
    pub(super) fn visit(&self, visit: &mut dyn FnMut(u32, &[u8]) -> io::Result<()>) -> io::Result<()> {
        // SAFETY: no message runs, no other reference is alive.
        let state = unsafe { self.state() };
        let pages = state.bytes / PAGE;
        self.pages.protect(0, pages * PAGE, Protection::Read)?;
        let result = (0..pages).filter(|page| state.page_states[*page] & MATERIAL != 0).try_for_each(|page| {
            // SAFETY: the page lies inside of the heap and was just made readable.
            let bytes = unsafe { std::slice::from_raw_parts(self.pages.base().add(page * PAGE).cast_const(), PAGE) };
            visit(page as u32, bytes)
        });
        self.pages.protect(0, pages * PAGE, Protection::None)?;
        result
    }

    /// Begins a message; writes are charged unless it is a query.
    pub(super) fn begin(&self, charge_writes: bool) {
        // SAFETY: no other reference is alive.
        let state = unsafe { self.state() };
        debug_assert!(state.touched.is_empty());
        state.committed_bytes = state.bytes;
        state.charge_writes = charge_writes;
    }

    /// Pages written by the current message.
    pub(super) fn pages_written(&self) -> u64 {
        // SAFETY: no other reference is alive.
        unsafe { self.state() }.written.len() as u64
    }

    /// Handles a fault at `address`: `false` if it is not one of ours. Async-signal-safe.
    ///
    /// # Safety
    /// Only from the signal handler of the thread that runs the message.
    pub(super) unsafe fn handle_fault(&self, address: usize, is_write: Option<bool>) -> bool {
        // SAFETY: Wasm code (or a bulk operation on its behalf) was interrupted; host code that holds a reference
        // to the state touches no heap pages that are not accessible yet.
        let state = unsafe { self.state() };
        let Some(offset) = address.checked_sub(self.pages.base() as usize).filter(|offset| *offset < state.bytes)
        else {
            return false;
        };
        let page = offset / PAGE;
        let protection = state.page_states[page] & PROTECTION_MASK;
        let write = match (protection, is_write) {
            (PROTECTION_WRITE, _) => return false,
            // Without help from the processor, a fault on a readable page can only be a write.
            (PROTECTION_READ, _) => true,
            (_, is_write) => is_write.unwrap_or(false),
        };
        self.touch_page(state, page, write).is_ok()
    }

    /// Charges and unlocks a page as far as an access needs it. Async-signal-safe.
    fn touch_page(&self, state: &mut State, page: usize, write: bool) -> io::Result<()> {
        let flags = state.page_states[page];
        if flags & ACCESSED == 0 {
            state.page_states[page] |= ACCESSED;
            state.touched.push(page as u32);
            self.counter.charge_page(PAGE_ACCESS_INSTRUCTIONS);
        }
        let first_write = write && flags & WRITTEN == 0;
        let wanted = if write || flags & WRITTEN != 0 { PROTECTION_WRITE } else { PROTECTION_READ };
        if flags & PROTECTION_MASK < wanted {
            self.unlock(state, page, wanted)?;
        }
        if first_write {
            state.page_states[page] |= WRITTEN;
            if state.charge_writes {
                self.counter.charge_page(PAGE_WRITE_INSTRUCTIONS);
            }
            let slot = if flags & MATERIAL == 0 {
                NO_SLOT
            } else {
                let slot = state.slots_used;
                state.slots_used += 1;
                // SAFETY: the page was just made readable; every written page has its own slot, so the slots fit
                // in a mapping as large as the heap.
                unsafe {
                    std::ptr::copy_nonoverlapping(
                        self.pages.base().add(page * PAGE),
                        self.undo.base().add(slot * PAGE),
                        PAGE,
                    );
                }
                slot as u32
            };
            state.written.push((page as u32, slot));
        }
        Ok(())
    }

    /// Sets the protection of a page of the current message.
    fn unlock(&self, state: &mut State, page: usize, wanted: u8) -> io::Result<()> {
        let protection = if wanted == PROTECTION_WRITE { Protection::ReadWrite } else { Protection::Read };
        if self.pages.protect(page * PAGE, PAGE, protection).is_err() {
            // The kernel limits how many areas of different protection a process may have, and a message that
            // touches every second page of a large heap reaches that. Locking all pages again merges them into one
            // area; those touched before fault once more, and are then unlocked without a charge.
            self.pages.protect(0, state.bytes, Protection::None)?;
            for page in &state.touched {
                state.page_states[*page as usize] &= !PROTECTION_MASK;
            }
            self.pages.protect(page * PAGE, PAGE, protection)?;
        }
        state.page_states[page] = state.page_states[page] & !PROTECTION_MASK | wanted;
        Ok(())
    }

    /// Charges and unlocks the pages of a range that the host is about to access; `None` if it is out of bounds.
    fn touch(&self, offset: u64, len: u64, write: bool) -> Option<io::Result<*mut u8>> {
        // SAFETY: a host call: no other reference is alive.
        let state = unsafe { self.state() };
        let offset = usize::try_from(offset).ok()?;
        let end = offset.checked_add(usize::try_from(len).ok()?)?;
        if end > state.bytes {
            return None;
        }
        if len > 0 {
            for page in offset / PAGE..=(end - 1) / PAGE {
                if let Err(error) = self.touch_page(state, page, write) {
                    return Some(Err(error));
                }
                // Re-locking (see `unlock`) may have taken pages of this very range away again.
            }
            for page in offset / PAGE..=(end - 1) / PAGE {
                let flags = state.page_states[page];
                let wanted = if flags & WRITTEN != 0 { PROTECTION_WRITE } else { PROTECTION_READ };
                if flags & PROTECTION_MASK < wanted
                    && let Err(error) = self.unlock(state, page, wanted)
                {
                    return Some(Err(error));
                }
            }
        }
        // SAFETY: the offset lies inside of the mapping.
        Some(Ok(unsafe { self.pages.base().add(offset) }))
    }

    /// The bytes of a range, charged as an access; `None` if it is out of bounds.
    ///
    /// # Safety
    /// The slice must be dropped before anything else accesses the heap.
    pub(super) unsafe fn read(&self, offset: u64, len: u64) -> Option<io::Result<&[u8]>> {
        // SAFETY: the range was checked and made readable.
        let slice = |pointer: *mut u8| unsafe { std::slice::from_raw_parts(pointer.cast_const(), len as usize) };
        Some(self.touch(offset, len, false)?.map(slice))
    }

    /// The bytes of a range to write to, charged as an access and a write; `None` if it is out of bounds.
    ///
    /// # Safety
    /// The slice must be dropped before anything else accesses the heap.
    #[expect(clippy::mut_from_ref, reason = "the bytes belong to the mapping; exclusivity is the caller's duty")]
    pub(super) unsafe fn write(&self, offset: u64, len: u64) -> Option<io::Result<&mut [u8]>> {
        // SAFETY: the range was checked and made writable.
        let slice = |pointer: *mut u8| unsafe { std::slice::from_raw_parts_mut(pointer, len as usize) };
        Some(self.touch(offset, len, true)?.map(slice))
    }

    /// Ends the message: keeps its writes or undoes them, and locks every page it touched.
    pub(super) fn end(&self, commit: bool) -> io::Result<()> {
        // SAFETY: the message is over, no other reference is alive.
        let state = unsafe { self.state() };
        let high_water = state.bytes;
        let mut lock_all = false;
        if commit {
            if !state.written.is_empty() || state.bytes != state.committed_bytes {
                state.revision = next_revision();
            }
            for (page, slot) in &state.written {
                if let Some(checkpoint) = &mut state.checkpoint {
                    checkpoint.saved.entry(*page).or_insert_with(|| {
                        // SAFETY: the slot holds the page as it was before this message.
                        let saved = |slot: u32| unsafe {
                            std::slice::from_raw_parts(self.undo.base().add(slot as usize * PAGE).cast_const(), PAGE)
                        };
                        (*slot != NO_SLOT).then(|| saved(*slot).into())
                    });
                }
                state.page_states[*page as usize] |= MATERIAL;
            }
        } else {
            let mut written = std::mem::take(&mut state.written);
            written.sort_unstable();
            for run in written.chunk_by(|a, b| a.1 == NO_SLOT && b.1 == NO_SLOT && a.0 + 1 == b.0) {
                let (start, len) = (run[0].0 as usize * PAGE, run.len() * PAGE);
                if self.pages.protect(start, len, Protection::ReadWrite).is_err() {
                    // Too many areas (see `unlock`): one for everything, until all is locked below.
                    self.pages.protect(0, high_water, Protection::ReadWrite)?;
                    lock_all = true;
                }
                if run[0].1 == NO_SLOT {
                    self.pages.discard(start, len)?;
                } else {
                    // SAFETY: the slot holds the page as it was; the page was just made writable.
                    unsafe {
                        std::ptr::copy_nonoverlapping(
                            self.undo.base().add(run[0].1 as usize * PAGE),
                            self.pages.base().add(start),
                            PAGE,
                        );
                    }
                }
            }
            state.written = written;
            state.bytes = state.committed_bytes;
        }
        state.written.clear();
        if state.slots_used > RESIDENT_SLOTS {
            self.undo.discard(RESIDENT_SLOTS * PAGE, (state.slots_used - RESIDENT_SLOTS) * PAGE)?;
        }
        state.slots_used = 0;
        let mut touched = std::mem::take(&mut state.touched);
        touched.sort_unstable();
        let result = if lock_all {
            self.pages.protect(0, high_water, Protection::None)
        } else {
            self.lock(&touched, high_water)
        };
        for page in &touched {
            state.page_states[*page as usize] &= MATERIAL;
        }
        touched.clear();
        state.touched = touched;
        result
    }

    /// From here on [`Heap::rollback_to_checkpoint`] can undo what messages commit.
    pub(super) fn checkpoint(&self) {
        // SAFETY: no message runs, no other reference is alive.
        let state = unsafe { self.state() };
        state.checkpoint = Some(Checkpoint { bytes: state.bytes, saved: BTreeMap::new() });
    }

    /// Restores the heap as it was at the checkpoint, and ends it.
    pub(super) fn rollback_to_checkpoint(&self) -> io::Result<()> {
        // SAFETY: no message runs, no other reference is alive.
        let state = unsafe { self.state() };
        let Some(checkpoint) = state.checkpoint.take() else { return Ok(()) };
        for (page, saved) in checkpoint.saved {
            let start = page as usize * PAGE;
            self.pages.protect(start, PAGE, Protection::ReadWrite)?;
            match saved {
                // SAFETY: the page was just made writable, and the copy is a page long.
                Some(bytes) => unsafe {
                    std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.pages.base().add(start), PAGE)
                },
                None => {
                    self.pages.discard(start, PAGE)?;
                    state.page_states[page as usize] &= !MATERIAL;
                }
            }
            self.pages.protect(start, PAGE, Protection::None)?;
        }
        state.bytes = checkpoint.bytes;
        state.revision = next_revision();
        Ok(())
    }

    /// Makes the touched pages (sorted) inaccessible again.
    fn lock(&self, touched: &[u32], high_water: usize) -> io::Result<()> {
        let mut runs = touched.chunk_by(|a, b| (*b - *a) as usize <= MERGE_GAP_PAGES);
        let merged = runs.try_for_each(|run| {
            let (first, last) = (run[0] as usize, run[run.len() - 1] as usize);
            self.pages.protect(first * PAGE, (last - first + 1) * PAGE, Protection::None)
        });
        // Splitting an area can run into the kernel's limit on areas; locking everything never splits one.
        merged.or_else(|_| self.pages.protect(0, high_water, Protection::None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn heap(bytes: u64) -> (Heap, Arc<Counter>) {
        let counter = Arc::new(Counter::new(0).unwrap());
        counter.start(i64::MAX);
        (Heap::new(bytes, 4 << 30, 0, counter.clone()).unwrap(), counter)
    }

    fn poke(heap: &Heap, offset: u64, byte: u8) {
        // SAFETY: the slice is dropped at once.
        unsafe { heap.write(offset, 1).unwrap().unwrap()[0] = byte }
    }

    fn peek(heap: &Heap, offset: u64) -> u8 {
        // SAFETY: the slice is dropped at once.
        unsafe { heap.read(offset, 1).unwrap().unwrap()[0] }
    }

    #[test]
    fn charges_access_and_write_once_a_message() {
        let (heap, counter) = heap(MIB);
        heap.begin(true);
        assert_eq!(peek(&heap, 5), 0);
        assert_eq!(peek(&heap, 65_535), 0);
        assert_eq!(counter.page_charge(), 80_000);
        poke(&heap, 7, 1);
        assert_eq!(counter.page_charge(), 160_000);
        poke(&heap, 65_536, 1);
        assert_eq!(counter.page_charge(), 320_000);
        heap.end(true).unwrap();
        counter.start(i64::MAX);
        heap.begin(false);
        poke(&heap, 7, 2);
        assert_eq!(counter.page_charge(), 80_000);
        heap.end(true).unwrap();
    }

    #[test]
    fn rolls_back_bytes_and_size() {
        let (heap, _) = heap(MIB);
        assert!(heap.initialise(100, b"data").unwrap());
        assert!(!heap.initialise(MIB - 3, b"data").unwrap());
        heap.begin(true);
        poke(&heap, 200_000, 7);
        heap.end(true).unwrap();
        heap.begin(true);
        assert!(heap.grow_to(2 << 20));
        for offset in [100, 200_000, 400_000, MIB + 5] {
            poke(&heap, offset, 9);
        }
        heap.end(false).unwrap();
        assert_eq!(heap.bytes() as u64, MIB);
        heap.begin(true);
        assert_eq!([peek(&heap, 100), peek(&heap, 200_000), peek(&heap, 400_000)], [b'd', 7, 0]);
        assert!(heap.grow_to(2 << 20));
        assert_eq!(peek(&heap, MIB + 5), 0);
        heap.end(true).unwrap();
    }

    #[test]
    fn a_checkpoint_undoes_committed_messages() {
        let (heap, _) = heap(MIB);
        assert!(heap.initialise(0, b"data").unwrap());
        heap.checkpoint();
        for byte in [1, 2] {
            heap.begin(true);
            heap.grow_to(2 << 20);
            poke(&heap, 0, byte);
            poke(&heap, 70_000, byte);
            poke(&heap, MIB + 9, byte);
            heap.end(true).unwrap();
        }
        heap.rollback_to_checkpoint().unwrap();
        assert_eq!(heap.bytes() as u64, MIB);
        heap.begin(true);
        heap.grow_to(2 << 20);
        assert_eq!([peek(&heap, 0), peek(&heap, 70_000), peek(&heap, MIB + 9)], [b'd', 0, 0]);
        heap.end(true).unwrap();
    }

    #[test]
    fn refuses_what_is_out_of_bounds() {
        let (heap, counter) = heap(MIB);
        heap.begin(true);
        // SAFETY: no slice is kept.
        unsafe {
            assert!(heap.read(MIB, 1).is_none());
            assert!(heap.read(u64::MAX, 2).is_none());
            assert!(heap.read(MIB, 0).is_some());
        }
        assert_eq!(counter.page_charge(), 0);
        assert!(!heap.grow_to((4 << 30) + 1));
        heap.end(true).unwrap();
    }

    /// In a process of its own: while it has all the areas that the kernel gives a process, other tests get none.
    #[test]
    fn a_sparse_heap_of_4_gib_outlasts_the_kernels_area_limit() {
        let test = "execution::heap::tests::every_second_page_of_4_gib";
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", test])
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
    }

    /// Every second page, read and written: more areas than Linux allows by default.
    #[test]
    #[ignore = "takes all of the process's memory areas: the test above runs it in another process"]
    fn every_second_page_of_4_gib() {
        let (heap, counter) = heap(4 << 30);
        heap.begin(true);
        for page in (0..65_536u64).step_by(2) {
            assert_eq!(peek(&heap, page * 65_536), 0);
        }
        for page in (1..65_536u64).step_by(4) {
            poke(&heap, page * 65_536 + 9, page as u8);
        }
        assert_eq!(counter.page_charge(), 80_000 * (32_768 + 2 * 16_384));
        heap.end(true).unwrap();
        heap.begin(true);
        assert_eq!(peek(&heap, 65_533 * 65_536 + 9), 65_533u64 as u8);
        heap.end(true).unwrap();
    }
}
