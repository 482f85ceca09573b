//! The memories of an instance between messages, as plain bytes: what a canister snapshot keeps, and what a network
//! that is started again begins with.

use super::costs::WASM_PAGE_BYTES;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use wasmtime::Val;

/// Bytes of a page.
pub const PAGE_BYTES: usize = WASM_PAGE_BYTES as usize;

/// A memory with holes: pages that are not there hold zeros.
#[derive(Clone, Debug, Default)]
pub struct MemoryImage {
    /// Size in bytes, a multiple of [`PAGE_BYTES`].
    pub bytes: u64,
    /// Pages of [`PAGE_BYTES`] by number.
    pub pages: BTreeMap<u32, Arc<[u8]>>,
    /// Changes with the content.
    revision: u64,
}

impl MemoryImage {
    /// So many zeros.
    pub fn zeros(bytes: u64) -> MemoryImage {
        MemoryImage { bytes, pages: BTreeMap::new(), revision: next_revision() }
    }

    /// The copy of a memory whose content has this revision.
    pub(super) fn of(bytes: u64, pages: BTreeMap<u32, Arc<[u8]>>, revision: u64) -> MemoryImage {
        MemoryImage { bytes, pages, revision }
    }

    /// A number that changes whenever the content does; a copy of a memory has the memory's own.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// `len` bytes at `offset`; `None` if they do not lie inside of the memory.
    pub fn read(&self, offset: u64, len: u64) -> Option<Vec<u8>> {
        let end = offset.checked_add(len).filter(|end| *end <= self.bytes)?;
        let mut bytes = vec![0; usize::try_from(len).ok()?];
        let mut position = offset;
        while position < end {
            let (page, start) = ((position / WASM_PAGE_BYTES) as u32, (position % WASM_PAGE_BYTES) as usize);
            let len = (PAGE_BYTES - start).min((end - position) as usize);
            let target = (position - offset) as usize;
            if let Some(content) = self.pages.get(&page) {
                bytes[target..target + len].copy_from_slice(&content[start..start + len]);
            }
            position += len as u64;
        }
        Some(bytes)
    }

    /// Writes `bytes` at `offset`; false, and nothing is changed, if they do not fit into the memory.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> bool {
        let end = offset.checked_add(bytes.len() as u64);
        if end.is_none_or(|end| end > self.bytes) {
            return false;
        }
        self.revision = next_revision();
        let (mut position, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let (page, start) = ((position / WASM_PAGE_BYTES) as u32, (position % WASM_PAGE_BYTES) as usize);
            let (piece, after) = rest.split_at((PAGE_BYTES - start).min(rest.len()));
            let content = self.pages.entry(page).or_insert_with(|| vec![0; PAGE_BYTES].into());
            Arc::make_mut(content)[start..start + piece.len()].copy_from_slice(piece);
            position += piece.len() as u64;
            rest = after;
        }
        true
    }
}

/// The value of a mutable global.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GlobalValue {
    I32(i32),
    I64(i64),
    /// The bits of the number, so that every NaN stays what it is.
    F32(u32),
    F64(u64),
    V128(u128),
}

impl GlobalValue {
    /// References live as long as one message and have no plain form.
    pub(super) fn from_val(value: &Val) -> Option<GlobalValue> {
        match value {
            Val::I32(value) => Some(GlobalValue::I32(*value)),
            Val::I64(value) => Some(GlobalValue::I64(*value)),
            Val::F32(bits) => Some(GlobalValue::F32(*bits)),
            Val::F64(bits) => Some(GlobalValue::F64(*bits)),
            Val::V128(value) => Some(GlobalValue::V128(value.as_u128())),
            _ => None,
        }
    }

    pub(super) fn to_val(self) -> Val {
        match self {
            GlobalValue::I32(value) => Val::I32(value),
            GlobalValue::I64(value) => Val::I64(value),
            GlobalValue::F32(bits) => Val::F32(bits),
            GlobalValue::F64(bits) => Val::F64(bits),
            GlobalValue::V128(value) => Val::V128(value.into()),
        }
    }
}

/// A number that no other content of any memory of this process has: equal numbers mean equal content.
pub(super) fn next_revision() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_cross_pages_and_holes() {
        let mut image = MemoryImage::zeros(3 * WASM_PAGE_BYTES);
        image.pages.insert(1, vec![7; PAGE_BYTES].into());
        assert_eq!(image.read(65_534, 4), Some(vec![0, 0, 7, 7]));
        assert_eq!(image.read(131_070, 4), Some(vec![7, 7, 0, 0]));
        assert_eq!(image.read(3 * 65_536, 0), Some(vec![]));
        assert_eq!(image.read(3 * 65_536 - 1, 2), None);
        assert_eq!(image.read(u64::MAX, 2), None);
        assert!(image.write(131_071, &[1, 2, 3]));
        assert_eq!(image.read(131_070, 5), Some(vec![7, 1, 2, 3, 0]));
        assert!(!image.write(3 * 65_536 - 1, &[1, 2]) && !image.write(u64::MAX, &[1]));
    }
}
