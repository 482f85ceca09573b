//! What a product costs, counted as the simd128 bodies run: without page charges, and without zero points of the weights,
//! which cost another 2 instructions a value.

use super::{COLUMN_GROUP, INNER_BLOCK, padded_inner};

/// Blocks of rows that are computed together, and how many there are of each in `rows` rows.
pub(crate) fn row_blocks(rows: usize) -> [(u64, u64); 4] {
    let rest = |size: usize| u64::from(rows & size != 0);
    [(8, rows as u64 / 8), (4, rest(4)), (2, rest(2)), (1, rest(1))]
}

/// Columns that are computed before the next rows are taken up.
pub(crate) const ESTIMATE_COLUMNS: u64 = 1024;
/// Setting a call up.
const CALL: u64 = 250;
/// Setting a block of rows up, for up to [`ESTIMATE_COLUMNS`] columns.
const BLOCK: u64 = 200;
/// Setting up the kernel of a part of the inner values.
const PART: u64 = 80;
/// Going on to the next group of columns.
const STEP: u64 = 21;

/// How the values of four columns and a row are finished, in half instructions, and per group of columns.
struct Finish {
    value: u64,
    group: u64,
}

/// The sums of `count` blocks of `mr` rows in memory, and their finish.
fn block(mr: u64, k: u64, columns: usize, finish: &Finish) -> u64 {
    let chunks = (columns as u64).div_ceil(ESTIMATE_COLUMNS);
    let groups = columns.div_ceil(COLUMN_GROUP) as u64;
    let (pairs, halves) = (k / 2, if mr == 1 { k.div_ceil(INNER_BLOCK as u64) } else { k.div_ceil(64) });
    let splats = chunks * (BLOCK + halves * PART + 3 * mr * pairs);
    let (dots, steps) =
        if mr == 1 { (5 * pairs, halves * (4 + STEP / 3)) } else { ((4 * mr + 2) * pairs, halves * (4 * mr + STEP)) };
    splats + groups * (dots + steps - 3 * mr) + groups * (mr * finish.value / 2 + finish.group)
}

fn product(rows: usize, k: usize, columns: usize, finish: &Finish) -> u64 {
    let k = padded_inner(k) as u64;
    CALL + row_blocks(rows).iter().map(|(mr, count)| count * block(*mr, k, columns, finish)).sum::<u64>()
}

/// Metered instructions of [`super::gemm_f32`].
pub fn estimate_instructions(rows: usize, k: usize, columns: usize) -> u64 {
    product(rows, k, columns, &Finish { value: 32, group: 26 })
}

/// Metered instructions of [`super::gemm_requantised`].
pub fn estimate_instructions_requantised(rows: usize, k: usize, columns: usize) -> u64 {
    let paired = columns / (2 * COLUMN_GROUP) * (2 * COLUMN_GROUP);
    let whole = rows / 8 * 8;
    // Whole blocks of rows are finished in the kernel, which neither stores nor loads their last sums.
    let fused = product(whole, k, paired, &Finish { value: 26, group: 0 });
    let in_memory = Finish { value: 50, group: 30 };
    fused + product(whole, k, columns - paired, &in_memory) + product(rows - whole, k, columns, &in_memory)
}
