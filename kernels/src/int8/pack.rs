//! From int8 matrices in any order to the packed form.

use super::{COLUMN_GROUP, INNER_BLOCK, Weights, padded_inner};
use std::ops::Range;

/// A k x n matrix of bytes: row i, column j is at `bytes[i * row_stride + j * column_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    pub bytes: &'a [u8],
    pub row_stride: usize,
    pub column_stride: usize,
    /// Unsigned bytes are packed as `byte - 128`; their zero points are then 128 less too.
    pub unsigned: bool,
}

/// Packs the columns of `columns`, of which the first is the source's column 0, so that a large matrix may come in pieces.
///
/// # Panics
/// If `columns` does not start at a multiple of [`COLUMN_GROUP`] or end at one or at n, or if a slice is too short.
pub fn pack(source: Source<'_>, k: usize, n: usize, columns: Range<usize>, packed: &mut [i8]) {
    assert_eq!(Some(packed.len()), Weights::packed_len(k, n), "packed weights of {k} x {n}");
    let ends = columns.end.is_multiple_of(COLUMN_GROUP) || columns.end == n;
    assert!(columns.start.is_multiple_of(COLUMN_GROUP) && ends && columns.end <= n, "columns {columns:?} of {n}");
    if k == 0 || columns.is_empty() {
        return;
    }
    let last = (k - 1)
        .checked_mul(source.row_stride)
        .zip((columns.len() - 1).checked_mul(source.column_stride))
        .and_then(|(row, column)| row.checked_add(column));
    assert!(
        last.is_some_and(|last| last < source.bytes.len()),
        "weights of {k} x {} in {}",
        columns.len(),
        source.bytes.len()
    );
    let flip = if source.unsigned { 0x80 } else { 0 };
    for group in columns.start / COLUMN_GROUP..columns.end.div_ceil(COLUMN_GROUP) {
        let first_column = group * COLUMN_GROUP;
        let width = (columns.end - first_column).min(COLUMN_GROUP);
        for block in 0..padded_inner(k).div_ceil(INNER_BLOCK) {
            let (start, rows) = Weights::block(k, n, block, group);
            let target = &mut packed[start..start + rows * COLUMN_GROUP];
            if width < COLUMN_GROUP || (block * INNER_BLOCK + rows) > k {
                target.fill(0);
            }
            let rows = rows.min(k - block * INNER_BLOCK);
            let first = (first_column - columns.start) * source.column_stride + block * INNER_BLOCK * source.row_stride;
            let done = if width == COLUMN_GROUP { pack_whole(&source, first, rows, flip, target) } else { 0 };
            for column in 0..width {
                let at = first + column * source.column_stride;
                for row in done..rows {
                    let byte = source.bytes[at + row * source.row_stride] ^ flip;
                    target[row / 2 * (2 * COLUMN_GROUP) + column * 2 + row % 2] = byte as i8;
                }
            }
        }
    }
}

/// Packs as many of the rows of four whole columns as there is a quick way for, and tells how many that were. The first of
/// them is at `first`.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub(crate) fn pack_whole(_: &Source<'_>, _first: usize, _rows: usize, _flip: u8, _target: &mut [i8]) -> usize {
    0
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(crate) use super::simd128::pack_whole;
