//! Stable memory.

use super::costs::{OS_PAGE_BYTES, PAGE_ACCESS_INSTRUCTIONS, PAGE_WRITE_INSTRUCTIONS, WASM_PAGE_BYTES};
use super::image::{MemoryImage, next_revision};
use super::mapping::{Mapping, Protection};
use super::meter::Counter;
use std::collections::BTreeMap;
use std::io;

const PAGE: usize = WASM_PAGE_BYTES as usize;
/// Address space is reserved in steps of 1 GiB.
const SEGMENT_PAGES: usize = 16_384;

/// The stable memory of one canister: pages of 64 KiB that survive upgrades.
///
/// Every page knows whether the current message accessed or wrote it, for the charges and for the rollback; memory
/// is taken only by pages that were written.
pub struct StableMemory {
    segments: Vec<Mapping>,
    pages: Vec<PageState>,
    message: Option<Message>,
    checkpoint: Option<Checkpoint>,
    /// Changes with the content and the size.
    revision: u64,
}

#[derive(Clone, Copy, Default)]
struct PageState {
    /// Ever written, by a committed message or by the current one; otherwise the page holds zeros.
    material: bool,
    /// The current message accessed, wrote the page.
    accessed: bool,
    written: bool,
    /// OS pages of it that the current message accessed, wrote: the network limits those.
    os_accessed: u16,
    os_written: u16,
}

struct Message {
    size_pages: usize,
    charge_writes: bool,
    /// OS pages the message may still access, write.
    access_left: u64,
    write_left: u64,
    touched: Vec<usize>,
    written: Vec<(usize, Saved)>,
}

/// What undoes the messages since an upgrade began.
struct Checkpoint {
    size_pages: usize,
    saved: BTreeMap<usize, Saved>,
}

/// The content of a page before it was written; `None` for zeros.
type Saved = Option<Box<[u8]>>;

/// A message touched more stable memory than its kind may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LimitExceeded {
    Accessed,
    Written,
}

impl StableMemory {
    /// An empty stable memory.
    pub fn new() -> anyhow::Result<Self> {
        Ok(StableMemory {
            segments: Vec::new(),
            pages: Vec::new(),
            message: None,
            checkpoint: None,
            revision: next_revision(),
        })
    }

    /// A stable memory of so many zeros, rounded up to 64 KiB, to put pages in.
    pub fn with_size(bytes: u64) -> anyhow::Result<Self> {
        let mut memory = StableMemory::new()?;
        memory.grow_to(usize::try_from(bytes.div_ceil(WASM_PAGE_BYTES))?)?;
        Ok(memory)
    }

    /// A number that changes whenever content or size do.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Shows every page that was ever written, between messages, in order.
    pub fn visit(&self, visit: &mut dyn FnMut(u32, &[u8]) -> io::Result<()>) -> io::Result<()> {
        (0..self.pages.len())
            .filter(|page| self.pages[*page].material)
            .try_for_each(|page| visit(page as u32, self.page(page)))
    }

    /// Replaces one page, between messages; false if there is no such page or it has another length.
    pub fn put_page(&mut self, page: u32, bytes: &[u8]) -> bool {
        let page = page as usize;
        if page >= self.pages.len() || bytes.len() != PAGE {
            return false;
        }
        self.page_mut(page).copy_from_slice(bytes);
        self.pages[page].material = true;
        self.revision = next_revision();
        true
    }

    /// A copy of the content.
    pub fn image(&self) -> MemoryImage {
        let material = (0..self.pages.len()).filter(|page| self.pages[*page].material);
        let pages = material.map(|page| (page as u32, self.page(page).into())).collect();
        MemoryImage::of(self.size_bytes(), pages, self.revision)
    }

    /// Current size in bytes, a multiple of 64 KiB.
    pub fn size_bytes(&self) -> u64 {
        self.pages.len() as u64 * WASM_PAGE_BYTES
    }

    /// The whole content.
    pub fn read_all(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.pages.len() * PAGE];
        for (page, chunk) in bytes.chunks_exact_mut(PAGE).enumerate() {
            if self.pages[page].material {
                chunk.copy_from_slice(self.page(page));
            }
        }
        bytes
    }

    /// Replaces the whole content; the size becomes `bytes` rounded up to 64 KiB.
    pub fn write_all(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut fresh = StableMemory::new()?;
        fresh.grow_to(bytes.len().div_ceil(PAGE))?;
        for (page, chunk) in bytes.chunks(PAGE).enumerate() {
            if chunk.iter().any(|byte| *byte != 0) {
                fresh.page_mut(page)[..chunk.len()].copy_from_slice(chunk);
                fresh.pages[page].material = true;
            }
        }
        *self = fresh;
        Ok(())
    }

    /// From here on [`StableMemory::rollback_to_checkpoint`] can undo every write, committed messages included.
    ///
    /// An upgrade takes it before pre_upgrade of the old instance, moves the memory into the new instance
    /// ([`super::Instance::into_stable`] or [`super::Instance::replace_stable`]), runs start and post_upgrade there,
    /// and then either releases the checkpoint or rolls back and moves the memory into the old instance again.
    pub fn checkpoint(&mut self) {
        self.checkpoint = Some(Checkpoint { size_pages: self.pages.len(), saved: BTreeMap::new() });
    }

    /// Restores content and size as they were at the checkpoint, and ends it.
    pub fn rollback_to_checkpoint(&mut self) {
        if let Some(checkpoint) = self.checkpoint.take() {
            for (page, saved) in checkpoint.saved {
                self.restore(page, saved);
            }
            self.shrink_to(checkpoint.size_pages);
            self.revision = next_revision();
        }
    }

    /// Ends the checkpoint and keeps what was written since.
    pub fn release_checkpoint(&mut self) {
        self.checkpoint = None;
    }

    /// Begins a message that may access, and write, `limit_bytes` of stable memory; writes are charged unless it is
    /// a query.
    pub(super) fn begin(&mut self, limit_bytes: u64, charge_writes: bool) {
        self.message = Some(Message {
            size_pages: self.pages.len(),
            charge_writes,
            access_left: limit_bytes / OS_PAGE_BYTES,
            write_left: limit_bytes / OS_PAGE_BYTES,
            touched: Vec::new(),
            written: Vec::new(),
        });
    }

    /// Ends the message: keeps its writes or undoes them.
    pub(super) fn end(&mut self, commit: bool) {
        let Some(message) = self.message.take() else { return };
        if commit && (!message.written.is_empty() || self.pages.len() != message.size_pages) {
            self.revision = next_revision();
        }
        for page in message.touched {
            self.pages[page] = PageState { material: self.pages[page].material, ..PageState::default() };
        }
        if !commit {
            for (page, saved) in message.written {
                self.restore(page, saved);
            }
            self.shrink_to(message.size_pages);
        }
    }

    /// Pages written by the current message.
    pub(super) fn pages_written(&self) -> u64 {
        self.message.as_ref().map_or(0, |message| message.written.len() as u64)
    }

    /// Grows to `pages` pages of zeros.
    pub(super) fn grow_to(&mut self, pages: usize) -> io::Result<()> {
        while self.segments.len() * SEGMENT_PAGES < pages {
            self.segments.push(Mapping::new(SEGMENT_PAGES * PAGE, Protection::ReadWrite)?);
        }
        if pages > self.pages.len() {
            self.pages.resize(pages, PageState::default());
        }
        Ok(())
    }

    fn shrink_to(&mut self, pages: usize) {
        for page in pages..self.pages.len() {
            if self.pages[page].material {
                self.restore(page, None);
            }
        }
        self.pages.truncate(pages);
        self.segments.truncate(pages.div_ceil(SEGMENT_PAGES));
    }

    fn page(&self, page: usize) -> &[u8] {
        debug_assert!(page < self.pages.len());
        let base = self.segments[page / SEGMENT_PAGES].base();
        // SAFETY: the page lies inside of its segment, which is mapped for as long as `self` lives.
        unsafe { std::slice::from_raw_parts(base.add(page % SEGMENT_PAGES * PAGE), PAGE) }
    }

    fn page_mut(&mut self, page: usize) -> &mut [u8] {
        debug_assert!(page < self.pages.len());
        let base = self.segments[page / SEGMENT_PAGES].base();
        // SAFETY: as in `page`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(base.add(page % SEGMENT_PAGES * PAGE), PAGE) }
    }

    /// A copy of the page, unless it holds zeros.
    fn save(&self, page: usize) -> Saved {
        self.pages[page].material.then(|| self.page(page).into())
    }

    fn restore(&mut self, page: usize, saved: Saved) {
        if page >= self.pages.len() {
            return;
        }
        match saved {
            Some(bytes) => self.page_mut(page).copy_from_slice(&bytes),
            None => {
                let offset = page % SEGMENT_PAGES * PAGE;
                if self.segments[page / SEGMENT_PAGES].discard(offset, PAGE).is_err() {
                    self.page_mut(page).fill(0);
                }
                self.pages[page].material = false;
            }
        }
    }

    /// Reads `target.len()` bytes at `offset`, which must lie inside of the memory, charging first accesses.
    pub(super) fn read(&mut self, counter: &Counter, offset: u64, target: &mut [u8]) -> Result<(), LimitExceeded> {
        let mut done = 0;
        for (page, start, len) in pieces(offset, target.len()) {
            self.touch(counter, page, start, len, false)?;
            target[done..done + len].copy_from_slice(&self.page(page)[start..start + len]);
            done += len;
        }
        Ok(())
    }

    /// Writes `source` at `offset`; the range must lie inside of the memory. Charges first accesses and writes.
    pub(super) fn write(&mut self, counter: &Counter, offset: u64, source: &[u8]) -> Result<(), LimitExceeded> {
        let mut done = 0;
        for (page, start, len) in pieces(offset, source.len()) {
            self.touch(counter, page, start, len, true)?;
            self.page_mut(page)[start..start + len].copy_from_slice(&source[done..done + len]);
            done += len;
        }
        Ok(())
    }

    fn touch(
        &mut self,
        counter: &Counter,
        page: usize,
        start: usize,
        len: usize,
        write: bool,
    ) -> Result<(), LimitExceeded> {
        let first_write = write && !self.pages[page].written;
        let before = if first_write { self.save(page) } else { None };
        let Some(message) = &mut self.message else { return Ok(()) };
        let state = &mut self.pages[page];
        // One bit for each of the 16 OS pages that the range covers.
        let (first_os, last_os) = (start / OS_PAGE_BYTES as usize, (start + len - 1) / OS_PAGE_BYTES as usize);
        let covered = (u16::MAX << first_os) & (u16::MAX >> (15 - last_os));
        let newly = u64::from((covered & !state.os_accessed).count_ones());
        message.access_left = message.access_left.checked_sub(newly).ok_or(LimitExceeded::Accessed)?;
        state.os_accessed |= covered;
        if write {
            let newly = u64::from((covered & !state.os_written).count_ones());
            message.write_left = message.write_left.checked_sub(newly).ok_or(LimitExceeded::Written)?;
            state.os_written |= covered;
        }
        if !state.accessed {
            state.accessed = true;
            message.touched.push(page);
            counter.charge_page(PAGE_ACCESS_INSTRUCTIONS);
        }
        if first_write {
            state.written = true;
            state.material = true;
            if message.charge_writes {
                counter.charge_page(PAGE_WRITE_INSTRUCTIONS);
            }
            if let Some(checkpoint) = &mut self.checkpoint
                && page < checkpoint.size_pages
            {
                checkpoint.saved.entry(page).or_insert_with(|| before.clone());
            }
            message.written.push((page, before));
        }
        Ok(())
    }
}

/// Cuts a range into the parts that lie in one page each: page, offset in it, length.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let mut position = offset as usize;
    let end = position + len;
    std::iter::from_fn(move || {
        (position < end).then(|| {
            let start = position % PAGE;
            let len = (PAGE - start).min(end - position);
            let piece = (position / PAGE, start, len);
            position += len;
            piece
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 1 << 30;

    fn counter() -> Counter {
        let counter = Counter::new(0).unwrap();
        counter.start(i64::MAX);
        counter
    }

    fn read(memory: &mut StableMemory, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        memory.read(&counter(), offset, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn charges_every_page_once_a_message() {
        let mut memory = StableMemory::new().unwrap();
        memory.begin(LIMIT, true);
        memory.grow_to(4).unwrap();
        let counter = counter();
        memory.write(&counter, 65_530, b"across a page").unwrap();
        assert_eq!(counter.page_charge(), 320_000);
        memory.read(&counter, 0, &mut [0; 10]).unwrap();
        assert_eq!(counter.page_charge(), 320_000);
        memory.read(&counter, 3 * 65_536, &mut [0; 65_536]).unwrap();
        assert_eq!(counter.page_charge(), 400_000);
        assert_eq!(memory.pages_written(), 2);
        memory.end(true);
        assert_eq!(read(&mut memory, 65_530, 13), b"across a page");
    }

    #[test]
    fn undoes_a_message() {
        let mut memory = StableMemory::new().unwrap();
        memory.write_all(b"before").unwrap();
        memory.begin(LIMIT, true);
        memory.grow_to(20_000).unwrap();
        memory.write(&counter(), 0, b"after!").unwrap();
        memory.write(&counter(), 19_999 * 65_536, b"end").unwrap();
        memory.end(false);
        assert_eq!(memory.size_bytes(), 65_536);
        assert_eq!(read(&mut memory, 0, 6), b"before");
        memory.grow_to(20_000).unwrap();
        assert_eq!(read(&mut memory, 19_999 * 65_536, 3), [0; 3]);
    }

    #[test]
    fn a_checkpoint_undoes_committed_messages() {
        let mut memory = StableMemory::new().unwrap();
        memory.write_all(b"one").unwrap();
        memory.checkpoint();
        for text in [b"two", b"six"] {
            memory.begin(LIMIT, true);
            memory.grow_to(3).unwrap();
            memory.write(&counter(), 0, text).unwrap();
            memory.write(&counter(), 2 * 65_536, text).unwrap();
            memory.end(true);
        }
        assert_eq!(read(&mut memory, 0, 3), b"six");
        memory.rollback_to_checkpoint();
        assert_eq!(memory.read_all()[..4], *b"one\0");
        assert_eq!(memory.size_bytes(), 65_536);
        memory.grow_to(3).unwrap();
        assert_eq!(read(&mut memory, 2 * 65_536, 3), [0; 3]);
    }

    #[test]
    fn limits_the_os_pages_of_a_message() {
        let mut memory = StableMemory::new().unwrap();
        memory.grow_to(2).unwrap();
        memory.begin(4 * 4_096, true);
        memory.read(&counter(), 4_095, &mut [0; 2]).unwrap();
        memory.write(&counter(), 65_535, &[1]).unwrap();
        memory.write(&counter(), 65_535, &[2]).unwrap();
        memory.read(&counter(), 65_536, &mut [0; 4_096]).unwrap();
        assert_eq!(memory.read(&counter(), 65_536 + 4_096, &mut [0; 1]), Err(LimitExceeded::Accessed));
        memory.end(true);
    }

    #[test]
    fn sparse_content_survives_a_copy() {
        let mut bytes = vec![0; 300_000];
        bytes[299_999] = 7;
        let mut memory = StableMemory::new().unwrap();
        memory.write_all(&bytes).unwrap();
        assert_eq!(memory.size_bytes(), 327_680);
        assert_eq!(memory.read_all()[..300_000], bytes);
    }
}
