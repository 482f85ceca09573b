//! What a product costs.

use super::{BLOCK, COLUMN_GROUP};

/// Metered instructions of [`super::gemm_int8`].
pub fn estimate_int8_instructions(rows: usize, k: usize, columns: usize) -> u64 {
    let (k, columns) = (k.next_multiple_of(BLOCK) as u64, columns.next_multiple_of(COLUMN_GROUP) as u64);
    rows as u64 * k * columns * 7 / 10 + rows as u64 * columns * 4 + 1000
}

/// Metered instructions of [`super::gemm_int4`].
pub fn estimate_int4_instructions(rows: usize, k: usize, columns: usize, zero_points: bool) -> u64 {
    let (k, columns) = (k.next_multiple_of(BLOCK) as u64, columns.next_multiple_of(COLUMN_GROUP) as u64);
    rows as u64 * k * columns * if zero_points { 9 } else { 8 } / 10 + rows as u64 * columns * 4 + 1000
}
