//! What a product costs: the blocks of the simd128 body, counted as its driver runs them.
//!
//! The figures are those of the emitted code on the Internet Computer's price list; `cargo xtask bench-kernels --check`
//! compares the estimates with what is metered. They do not depend on the target this is compiled for.

use super::pack::{LANES, PANEL_COLUMNS, PANEL_VECTORS, panels};
use std::ops::Range;

/// Rows that go through the blocks together. A block's part of B is loaded once for all of them.
pub(crate) const CHUNK_ROWS: usize = 256;

/// Up to so many rows are cheaper one by one: then a part of B is used once instead of being loaded for later.
pub(crate) const VECTOR_ROWS: usize = 4;

/// Depths of the blocks are powers of two up to these.
pub(crate) const DEPTH: usize = 32;
pub(crate) const VECTOR_DEPTH: usize = 64;

/// A depth with a block of its own, for products that are just so deep: the windows of most first layers, 3x3 of three
/// channels.
pub(crate) const WHOLE_DEPTH: usize = 27;

/// Of a call of a block, apart from its loops; the driver's part is most of it.
const CALL: u64 = 95;
/// Of a row in a block: reading the table, moving the pointers.
const ROW: u64 = 20;
/// Of a row in a chunk: writing the table.
pub(crate) const TABLE_ROW: u64 = 9;
/// Of a panel in a chunk, and of a chunk.
const PANEL: u64 = 90;
const CHUNK: u64 = 250;
/// Of a panel in a vector block: moving the pointers.
const VECTOR_PANEL: u64 = 19;

/// Metered instructions of [`super::gemm`] over `rows` rows with a packed `k` x `n` matrix, or of [`super::gemv`] with
/// `rows` = 1 and `n` columns; with a bias and a clamp or without. Without page charges.
///
/// A residual costs about 4 for each value of C on top.
pub fn estimate_instructions(rows: usize, k: usize, n: usize) -> u64 {
    if rows > VECTOR_ROWS {
        return estimate_instructions_unpacked(rows, k, n);
    }
    let full = n / PANEL_COLUMNS;
    let rest = rest(rows, 0..k, k, n);
    let vectors = (full * PANEL_VECTORS) as u64;
    let calls = calls(k, VECTOR_DEPTH);
    // In a call: loading x; a chain of products, with reading and writing C, for each vector; moving to the next panel.
    let row = if full == 0 {
        0
    } else {
        calls * (CALL + vectors * 4 + full as u64 * VECTOR_PANEL) + k as u64 * (3 + 7 * vectors) + 4 * vectors
    };
    CHUNK + rows as u64 * row + rest
}

/// The same of [`super::gemm_unpacked`].
pub fn estimate_instructions_unpacked(rows: usize, k: usize, n: usize) -> u64 {
    let chunk = |rows: usize| CHUNK + rows as u64 * TABLE_ROW + segment(rows, 0..k, k, n) + finish(rows, n);
    let (full, rest) = (rows / CHUNK_ROWS, rows % CHUNK_ROWS);
    full as u64 * chunk(CHUNK_ROWS) + if rest == 0 { 0 } else { chunk(rest) }
}

/// Of the rows `segment` of B, `k` in all, times a chunk of rows.
pub(crate) fn segment(rows: usize, segment: Range<usize>, k: usize, n: usize) -> u64 {
    let full = (n / PANEL_COLUMNS) as u64 * panel(PANEL_VECTORS, rows, segment.clone(), k);
    full + rest(rows, segment, k, n)
}

/// Of the panels that are not full.
fn rest(rows: usize, segment: Range<usize>, k: usize, n: usize) -> u64 {
    panels(0, n % PANEL_COLUMNS).map(|rest| panel(rest.vectors, rows, segment.clone(), k)).sum()
}

/// Of what happens to a chunk after all its blocks.
pub(crate) fn finish(rows: usize, n: usize) -> u64 {
    if n.is_multiple_of(LANES) { 0 } else { 12 * rows as u64 }
}

/// Blocks of a segment of `k` rows.
fn calls(k: usize, depth: usize) -> u64 {
    (k / depth) as u64 + u64::from((k % depth).count_ones())
}

fn panel(vectors: usize, rows: usize, segment: Range<usize>, k: usize) -> u64 {
    if vectors == 0 || rows == 0 {
        return 0;
    }
    let (v, rows, depth) = (vectors as u64, rows as u64, segment.len() as u64);
    let calls = if k == WHOLE_DEPTH && depth == k as u64 { 1 } else { calls(segment.len(), DEPTH) };
    // The first block has its bias in locals, the last one clamps.
    let (first, last) = (u64::from(segment.start == 0), u64::from(segment.end == k));
    PANEL
        + calls * (CALL + rows * (ROW + 4 * v))
        + depth * (3 * v + 3)
        + rows * depth * (6 * v + 2)
        + first * 3 * v
        + last * rows * 4 * v
        - first * rows * v
}
