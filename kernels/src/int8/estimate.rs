//! What a product costs.

use super::{COLUMN_GROUP, padded_inner};

/// Metered instructions of [`super::gemm_f32`], without page charges.
pub fn estimate_instructions(rows: usize, k: usize, columns: usize) -> u64 {
    sums(rows, k, columns) + rows as u64 * columns as u64 * 5
}

/// Metered instructions of [`super::gemm_requantised`], without page charges.
pub fn estimate_instructions_requantised(rows: usize, k: usize, columns: usize) -> u64 {
    sums(rows, k, columns) + rows as u64 * columns as u64 * 5
}

fn sums(rows: usize, k: usize, columns: usize) -> u64 {
    let (rows, k) = (rows as u64, padded_inner(k) as u64);
    let columns = columns.next_multiple_of(COLUMN_GROUP) as u64;
    rows * k * columns * 5 / 8
}
