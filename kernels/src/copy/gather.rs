//! Rows picked by index.

use super::{Element, run};
use crate::lanes::Native;
use std::fmt;
use std::ops::Range;

/// An index outside the axis it picks from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexError {
    /// Which index it is.
    pub at: usize,
    pub index: i64,
    /// Length of the axis.
    pub length: usize,
}

impl fmt::Display for IndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, index, length } = self;
        write!(f, "index {index} (number {at} of the indices) is outside an axis of length {length}")
    }
}

impl std::error::Error for IndexError {}

/// ONNX's Gather: of an input `outer x length x inner`, along the middle axis. An embedding look-up has `outer` 1 and
/// `inner` the width of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gather {
    pub outer: usize,
    pub length: usize,
    pub inner: usize,
}

impl Gather {
    /// Rows `rows` of the output, which is `outer x indices x inner` and has `outer * indices.len()` rows; `output` holds
    /// the range. An index from -length on counts from the end.
    ///
    /// # Errors
    /// An index outside the axis; nothing is said about what `output` then holds.
    ///
    /// # Panics
    /// When slices are too short.
    pub fn run<T: Element>(
        &self,
        input: &[T],
        indices: &[i64],
        rows: Range<usize>,
        output: &mut [T],
    ) -> Result<(), IndexError> {
        assert_eq!(input.len(), self.outer * self.length * self.inner, "elements of {self:?}");
        assert!(rows.end <= self.outer * indices.len(), "{rows:?} of {} indices", indices.len());
        assert_eq!(output.len(), rows.len() * self.inner, "output of {rows:?}");
        let size = size_of::<T>();
        let (input, mut place) = (input.as_ptr().cast::<u8>(), output.as_mut_ptr().cast::<u8>());
        let bytes = self.inner * size;
        for row in rows {
            let (outer, at) = (row / indices.len(), row % indices.len());
            let index = self.resolve(at, indices[at])?;
            // SAFETY: row `index` of `outer` is within the input, and the output has a row for each of `rows`.
            unsafe {
                copy_run(input.add((outer * self.length + index) * bytes), place, bytes);
                place = place.add(bytes);
            }
        }
        Ok(())
    }

    /// The index as counted from the start.
    pub fn resolve(&self, at: usize, index: i64) -> Result<usize, IndexError> {
        let length = self.length as i64;
        let counted = if index < 0 { index.saturating_add(length) } else { index };
        if (0..length).contains(&counted) {
            Ok(counted as usize)
        } else {
            Err(IndexError { at, index, length: self.length })
        }
    }

    /// Metered instructions of `rows` rows with elements of `size` bytes, in WebAssembly with SIMD and without page
    /// charges.
    pub fn estimate_instructions(&self, rows: usize, size: usize) -> u64 {
        100 + rows as u64 * (run::cost(self.inner * size) + 75)
    }
}

/// Not generic over the element type, so that it is compiled in this crate.
#[inline(never)]
unsafe fn copy_run(from: *const u8, to: *mut u8, bytes: usize) {
    // SAFETY: the caller's.
    unsafe { run::copy::<Native>(from, to, bytes) };
}
