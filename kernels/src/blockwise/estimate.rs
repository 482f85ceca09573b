//! What a product costs, counted as the simd128 bodies run: without page charges.

use super::{BLOCK, COLUMN_GROUP};
use crate::int8::{ESTIMATE_COLUMNS, row_blocks};

/// Instructions of a kind of weights.
struct Kind {
    /// A block, a row and a group, where several rows are computed together.
    dots: u64,
    /// Getting the weights of a block and a group ready for several rows.
    weights: u64,
    /// A block and a group of a single row.
    single: u64,
    /// Getting the activations of a block and a row ready.
    splats: u64,
}

/// Setting a call up.
const CALL: u64 = 250;
/// Setting a block of rows up, for up to [`ESTIMATE_COLUMNS`] columns.
const ROWS: u64 = 250;
/// Setting up the kernel of one or a few blocks.
const PASS: u64 = 130;
/// Going on to the next group of columns.
const STEP: u64 = 30;

fn product(rows: usize, k: usize, columns: usize, kind: &Kind) -> u64 {
    let (blocks, groups) = (k.div_ceil(BLOCK) as u64, columns.div_ceil(COLUMN_GROUP) as u64);
    let chunks = (columns as u64).div_ceil(ESTIMATE_COLUMNS);
    let of_rows = |mr: u64| {
        let (passes, step) = if mr == 1 { (blocks.div_ceil(4), STEP / 4) } else { (blocks.div_ceil(2), STEP) };
        let block = if mr == 1 { kind.single } else { mr * kind.dots + kind.weights };
        // Reading a total and writing it again; in the end, writing the output.
        let totals = passes * (4 * mr + step) + 11 * mr + 18;
        chunks * (ROWS + passes * PASS + blocks * mr * kind.splats) + groups * (blocks * block + totals)
    };
    CALL + row_blocks(rows).iter().map(|(mr, count)| count * of_rows(*mr)).sum::<u64>()
}

/// Metered instructions of [`super::gemm_int8`].
pub fn estimate_int8_instructions(rows: usize, k: usize, columns: usize) -> u64 {
    product(rows, k, columns, &Kind { dots: 69, weights: 34, single: 86, splats: 48 })
}

/// Metered instructions of [`super::gemm_int4`].
pub fn estimate_int4_instructions(rows: usize, k: usize, columns: usize, zero_points: bool) -> u64 {
    let kind = match zero_points {
        true => Kind { dots: 75, weights: 51, single: 109, splats: 54 },
        false => Kind { dots: 71, weights: 46, single: 104, splats: 54 },
    };
    product(rows, k, columns, &kind)
}
