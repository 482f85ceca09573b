//! What a product costs.

use super::{COLUMN_GROUP, padded_inner};

/// Metered instructions of a product of `rows` rows by a k x n matrix, its rescaling included, within a tenth.
pub fn estimate_instructions(rows: usize, k: usize, columns: usize) -> u64 {
    let (rows, k) = (rows as u64, padded_inner(k) as u64);
    let columns = columns.next_multiple_of(COLUMN_GROUP) as u64;
    rows * k * columns * 5 / 8 + rows * columns * 5 + 1000
}
