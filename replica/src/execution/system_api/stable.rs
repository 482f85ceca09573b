//! Stable memory.

use super::state::{MessageState, heap_error};
use super::{fixed, sized};
use crate::execution::costs;
use crate::execution::failure::{Failure, TrapKind};
use wasmtime::Linker;

impl MessageState {
    /// The 32-bit calls trap once the memory is larger than they can address.
    fn check_32_bit(&self) -> Result<(), Failure> {
        if self.stable.size_bytes() > costs::MAX_STABLE32_BYTES {
            return Err(Failure::Trapped(TrapKind::StableTooBigFor32Bit));
        }
        Ok(())
    }

    fn check_stable_range(&self, offset: u64, len: u64) -> Result<(), Failure> {
        match offset.checked_add(len) {
            Some(end) if end <= self.stable.size_bytes() => Ok(()),
            _ => Err(Failure::Trapped(TrapKind::StableOutOfBounds)),
        }
    }

    /// Grows by `additional` pages; the old size, or `None` when there is no room.
    fn grow_stable(&mut self, additional: u64, max_bytes: u64) -> Option<u64> {
        let current = self.stable.size_bytes() / costs::WASM_PAGE_BYTES;
        let pages = current.checked_add(additional)?;
        if pages > max_bytes / costs::WASM_PAGE_BYTES {
            return None;
        }
        self.stable.grow_to(pages as usize).ok()?;
        Some(current)
    }

    fn read_stable(&mut self, target: u64, offset: u64, len: u64) -> Result<(), Failure> {
        if len == 0 {
            return Ok(());
        }
        self.check_stable_range(offset, len)?;
        // SAFETY: the slice is filled and dropped before anything else accesses the heap.
        let target = unsafe { self.heap.write(target, len) };
        let target = target.ok_or(Failure::Trapped(TrapKind::HeapOutOfBounds))?.map_err(heap_error)?;
        self.stable.read(&self.counter, offset, target).map_err(Failure::StableAccess)
    }

    fn write_stable(&mut self, offset: u64, source: u64, len: u64) -> Result<(), Failure> {
        if len == 0 {
            return Ok(());
        }
        self.check_stable_range(offset, len)?;
        // SAFETY: the slice is read and dropped before anything else accesses the heap.
        let source = unsafe { self.heap.read(source, len) };
        let source = source.ok_or(Failure::Trapped(TrapKind::HeapOutOfBounds))?.map_err(heap_error)?;
        self.stable.write(&self.counter, offset, source).map_err(Failure::StableAccess)
    }
}

pub(super) fn link(linker: &mut Linker<MessageState>) -> wasmtime::Result<()> {
    fixed!(linker, "stable64_size", |state| -> u64 { Ok(state.stable.size_bytes() / costs::WASM_PAGE_BYTES) });
    fixed!(linker, "stable64_grow", |state, pages: u64| -> u64 {
        Ok(state.grow_stable(pages, costs::MAX_STABLE_BYTES).unwrap_or(u64::MAX))
    });
    sized!(linker, "stable64_read", bytes len, |state, target: u64, offset: u64, len: u64| -> () {
        state.read_stable(target, offset, len)
    });
    sized!(linker, "stable64_write", bytes len, |state, offset: u64, source: u64, len: u64| -> () {
        state.write_stable(offset, source, len)
    });
    fixed!(linker, "stable_size", |state| -> u32 {
        state.check_32_bit()?;
        Ok((state.stable.size_bytes() / costs::WASM_PAGE_BYTES) as u32)
    });
    fixed!(linker, "stable_grow", |state, pages: u32| -> u32 {
        state.check_32_bit()?;
        let current = state.grow_stable(u64::from(pages), costs::MAX_STABLE32_BYTES);
        Ok(current.map_or(u32::MAX, |current| current as u32))
    });
    sized!(linker, "stable_read", bytes u64::from(len), |state, target: u32, offset: u32, len: u32| -> () {
        state.check_32_bit()?;
        state.read_stable(u64::from(target), u64::from(offset), u64::from(len))
    });
    sized!(linker, "stable_write", bytes u64::from(len), |state, offset: u32, source: u32, len: u32| -> () {
        state.check_32_bit()?;
        // Unlike the other three, this call checks the range before it returns early.
        state.check_stable_range(u64::from(offset), u64::from(len))?;
        state.write_stable(u64::from(offset), u64::from(source), u64::from(len))
    });
    Ok(())
}
