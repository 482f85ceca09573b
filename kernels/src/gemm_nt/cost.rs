//! What a product costs: the blocks of the simd128 body, counted as its driver runs them. See [`crate::gemm`]'s cost.

/// Rows of A that go through the blocks together, if there are so many left.
pub(crate) const TILE_ROWS: usize = 8;
/// Rows of B that do.
pub(crate) const TILE_COLUMNS: usize = 64;
/// Vectors of the deepest block; the others are powers of two.
pub(crate) const DEPTH: usize = 16;

/// Lengths of a row for which single rows of A have a block of their own, with four rows of B at a time.
pub(crate) const QUAD_LEN: usize = 4 * DEPTH;
pub(crate) const HALF_QUAD_LEN: usize = QUAD_LEN / 2;

/// Of a call of that block, and of four rows of B in it, apart from the products.
const QUAD_CALL: u64 = 110;
const QUAD: u64 = 80;

/// Of a tile; of a block, apart from its loop; of a row of B in a block: moving the pointers.
const TILE: u64 = 130;
const CALL: u64 = 95;
const COLUMN: u64 = 19;
/// Of a value of C: adding its four sums, and of a row of a tile.
const REDUCE: u64 = 17;
const REDUCE_ROW: u64 = 45;
/// Of a value of C and each value of k beyond a multiple of 4.
const REST: u64 = 25;

/// Metered instructions of [`super::gemm_nt`] over `rows` rows. Without page charges.
pub fn estimate_instructions(rows: usize, k: usize, n: usize) -> u64 {
    let columns = |rows: usize, n: usize| {
        let (full, rest) = (n / TILE_COLUMNS, n % TILE_COLUMNS);
        full as u64 * tile(rows, k, TILE_COLUMNS) + if rest == 0 { 0 } else { tile(rows, k, rest) }
    };
    let single = match k {
        QUAD_LEN | HALF_QUAD_LEN if n >= 4 => {
            QUAD_CALL + (n / 4 * (7 * k)) as u64 + (n / 4) as u64 * QUAD + columns(1, n % 4)
        }
        _ => columns(1, n),
    };
    150 + (rows / TILE_ROWS) as u64 * columns(TILE_ROWS, n) + (rows % TILE_ROWS) as u64 * single
}

fn tile(rows: usize, k: usize, columns: usize) -> u64 {
    let (vectors, rest) = (k / 4, (k % 4) as u64);
    let blocks = (vectors / DEPTH) as u64 + u64::from((vectors % DEPTH).count_ones());
    let (rows, columns, vectors) = (rows as u64, columns as u64, vectors as u64);
    let chains = columns * (blocks * (COLUMN + 4 * rows) + vectors * (6 * rows + if rows == 1 { 1 } else { 2 }));
    let reduce = rows * (REDUCE_ROW + columns * (REDUCE + REST * rest));
    TILE + blocks * CALL + vectors * rows * 3 + chains + reduce
}
