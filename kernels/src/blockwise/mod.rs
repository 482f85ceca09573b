//! Products of 16-bit activations and int8 or 4-bit weights that have a scale every 32 values of a column.
//!
//! Inside a block of 32 the products are summed exactly in i32; blocks are added up in f32, the first one first:
//!
//! ```text
//! total = (f32(sum 0) * scale 0 + f32(sum 1) * scale 1) + f32(sum 2) * scale 2 ...     starting from 0.0 + ...
//! output[i][j] = total * row_scale[i] + bias[j]
//! ```
//!
//! rounded after each operation, whatever the number of rows. Larger blocks (64, 128) are packed as several of 32 with the
//! same scale. 4-bit weights have an optional zero point for each block.

mod estimate;
pub mod naive;
mod pack;
pub mod portable;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub mod simd128;

pub use crate::int8::{Activations, COLUMN_GROUP, Output, Source, Tile};
pub use estimate::{estimate_int4_instructions, estimate_int8_instructions};
pub use pack::{Int4Source, pack_int4, pack_int8};
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub use portable::{gemm_int4, gemm_int8, prepare_int4, recentre_int4, widen_int4};
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub use simd128::{gemm_int4, gemm_int8, prepare_int4, recentre_int4, widen_int4};

/// Inner values that share a scale.
pub const BLOCK: usize = 32;
/// Inner values that are packed together.
pub(crate) const INNER_BLOCK: usize = 128;
/// Largest magnitude of activations for [`gemm_int8`]: 32 products with an int8 stay below 2^27.
pub const INT8_ACTIVATION_LIMIT: i16 = i16::MAX;
/// Largest magnitude of activations for [`gemm_int4`], so that 17 times it fits an i16. Not quite 12 bits.
pub const INT4_ACTIVATION_LIMIT: i16 = 1927;
/// Values of an activation block as [`gemm_int4`] reads it, see [`prepare_int4`].
pub const INT4_PREPARED_BLOCK: usize = 36;

/// Length of an activation row of [`gemm_int8`]; what is past k is multiplied by zero.
pub const fn padded_inner(k: usize) -> usize {
    k.next_multiple_of(BLOCK)
}

/// Length of a prepared activation row of [`gemm_int4`].
pub const fn prepared_inner(k: usize) -> usize {
    k.div_ceil(BLOCK) * INT4_PREPARED_BLOCK
}

/// Number of scales of a k x n matrix, for each of the two kinds of weights; `None` if there is no such number.
pub fn scales_len(k: usize, n: usize) -> Option<usize> {
    k.div_ceil(BLOCK).checked_mul(n.checked_next_multiple_of(COLUMN_GROUP)?)
}

/// Where block `block` (of 32) of the columns of `group` starts, counted in such blocks of such groups.
///
/// The order is `[128 rows][group][32 rows of the 128]`.
pub(crate) fn block_number(k: usize, n: usize, block: usize, group: usize) -> usize {
    let per_outer = INNER_BLOCK / BLOCK;
    let (outer, inner) = (block / per_outer, block % per_outer);
    let inner_blocks = (k.div_ceil(BLOCK) - outer * per_outer).min(per_outer);
    outer * per_outer * n.div_ceil(COLUMN_GROUP) + group * inner_blocks + inner
}

/// A k x n matrix of int8 weights with a scale every 32 rows of each column.
///
/// Rows are padded with zeros to a multiple of 32 and cut into blocks of 128, the last one possibly shorter; columns are
/// padded to a multiple of 4 and cut into groups of 4. Bytes are in the order
/// `[128 rows][group][pair of rows][column][row of the pair]`, scales in the order `[128 rows][group][32 rows][column]`.
#[derive(Clone, Copy, Debug)]
pub struct Int8Weights<'a> {
    pub(crate) packed: &'a [i8],
    pub(crate) scales: &'a [f32],
    pub(crate) k: usize,
    pub(crate) n: usize,
}

impl<'a> Int8Weights<'a> {
    /// Bytes of a packed k x n matrix; `None` if there is no such number.
    pub fn packed_len(k: usize, n: usize) -> Option<usize> {
        scales_len(k, n)?.checked_mul(BLOCK)
    }

    /// What [`pack_int8`] made.
    ///
    /// # Panics
    /// If a length is not [`Self::packed_len`] or [`scales_len`].
    pub fn new(packed: &'a [i8], scales: &'a [f32], k: usize, n: usize) -> Self {
        assert_eq!(Some(packed.len()), Self::packed_len(k, n), "packed weights of {k} x {n}");
        assert_eq!(Some(scales.len()), scales_len(k, n), "scales of {k} x {n}");
        Self { packed, scales, k, n }
    }

    /// Inner values: rows of the matrix.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Outputs: columns of the matrix.
    pub fn n(&self) -> usize {
        self.n
    }

    pub(crate) fn index(k: usize, n: usize, row: usize, column: usize) -> usize {
        let block = block_number(k, n, row / BLOCK, column / COLUMN_GROUP);
        block * BLOCK * COLUMN_GROUP + row % BLOCK / 2 * (2 * COLUMN_GROUP) + column % COLUMN_GROUP * 2 + row % 2
    }

    pub(crate) fn weight(&self, row: usize, column: usize) -> i8 {
        self.packed[Self::index(self.k, self.n, row, column)]
    }

    pub(crate) fn scale(&self, row: usize, column: usize) -> f32 {
        self.scales[scale_index(self.k, self.n, row, column)]
    }

    /// Reads one column back, weights times their scales.
    ///
    /// # Panics
    /// If there is no such column or `output` is not k long.
    pub fn column(&self, column: usize, output: &mut [f32]) {
        assert!(column < self.n && output.len() == self.k, "column {column} of {} x {}", self.k, self.n);
        for (row, value) in output.iter_mut().enumerate() {
            *value = f32::from(self.weight(row, column)) * self.scale(row, column);
        }
    }
}

pub(crate) fn scale_index(k: usize, n: usize, row: usize, column: usize) -> usize {
    block_number(k, n, row / BLOCK, column / COLUMN_GROUP) * COLUMN_GROUP + column % COLUMN_GROUP
}

/// A k x n matrix of 4-bit weights with a scale, and optionally a zero point, every 32 rows of each column.
///
/// A weight is `(q - zero point) * scale` with q and zero point from 0 to 15; the zero point is 8 where none is given.
/// Padding and groups are those of [`Int8Weights`]. A byte holds two weights of a column: of four rows 4i to 4i + 3, the
/// byte `[4 rows][column][0]` has row 4i in its low and row 4i + 2 in its high half, `[..][1]` rows 4i + 1 and 4i + 3. Low
/// halves are q; high halves are q - 8 in two's complement, so that a byte is `16 * (q_high - 8) + q_low` as an i8.
/// Scales are a sixteenth of the weights', zero points are stored as `16 * (zero point - 8)`, twice each.
#[derive(Clone, Copy, Debug)]
pub struct Int4Weights<'a> {
    pub(crate) packed: &'a [i8],
    pub(crate) scales: &'a [f32],
    pub(crate) zero_points: Option<&'a [i8]>,
    pub(crate) k: usize,
    pub(crate) n: usize,
}

impl<'a> Int4Weights<'a> {
    /// Bytes of a packed k x n matrix; `None` if there is no such number.
    pub fn packed_len(k: usize, n: usize) -> Option<usize> {
        scales_len(k, n)?.checked_mul(BLOCK / 2)
    }

    /// Bytes of the packed zero points of a k x n matrix; `None` if there is no such number.
    pub fn zero_points_len(k: usize, n: usize) -> Option<usize> {
        scales_len(k, n)?.checked_mul(2)
    }

    /// What [`pack_int4`] made.
    ///
    /// # Panics
    /// If a length is not [`Self::packed_len`], [`scales_len`] or [`Self::zero_points_len`].
    pub fn new(packed: &'a [i8], scales: &'a [f32], zero_points: Option<&'a [i8]>, k: usize, n: usize) -> Self {
        assert_eq!(Some(packed.len()), Self::packed_len(k, n), "packed weights of {k} x {n}");
        assert_eq!(Some(scales.len()), scales_len(k, n), "scales of {k} x {n}");
        if let Some(zero_points) = zero_points {
            assert_eq!(Some(zero_points.len()), Self::zero_points_len(k, n), "zero points of {k} x {n}");
        }
        Self { packed, scales, zero_points, k, n }
    }

    /// Inner values: rows of the matrix.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Outputs: columns of the matrix.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Index of the byte that has a weight, and whether it is in the high half.
    pub(crate) fn index(k: usize, n: usize, row: usize, column: usize) -> (usize, bool) {
        let block = block_number(k, n, row / BLOCK, column / COLUMN_GROUP) * (BLOCK / 2 * COLUMN_GROUP);
        let byte = row % BLOCK / 4 * (2 * COLUMN_GROUP) + column % COLUMN_GROUP * 2 + row % 2;
        (block + byte, row % 4 >= 2)
    }

    /// The weight from 0 to 15, less its zero point.
    pub(crate) fn weight(&self, row: usize, column: usize) -> i32 {
        let (byte, high) = Self::index(self.k, self.n, row, column);
        let byte = self.packed[byte];
        let centred = if high { i32::from(byte >> 4) } else { i32::from(byte & 15) - 8 };
        let zero_point =
            self.zero_points.map_or(0, |zero_points| zero_points[2 * scale_index(self.k, self.n, row, column)] / 16);
        centred - i32::from(zero_point)
    }

    /// A sixteenth of the weight's scale.
    pub(crate) fn scale(&self, row: usize, column: usize) -> f32 {
        self.scales[scale_index(self.k, self.n, row, column)]
    }

    /// Reads one column back, weights times their scales.
    ///
    /// # Panics
    /// If there is no such column or `output` is not k long.
    pub fn column(&self, column: usize, output: &mut [f32]) {
        assert!(column < self.n && output.len() == self.k, "column {column} of {} x {}", self.k, self.n);
        for (row, value) in output.iter_mut().enumerate() {
            *value = (16 * self.weight(row, column)) as f32 * self.scale(row, column);
        }
    }
}

/// What becomes of a total: `total * row_scales[i] + bias[j]`.
#[derive(Clone, Copy, Debug)]
pub struct Rescale<'a> {
    /// One for each row, or a single one for all.
    pub row_scales: &'a [f32],
    /// One for each column.
    pub bias: Option<&'a [f32]>,
}

impl Rescale<'_> {
    pub(crate) fn row_scale(&self, row: usize) -> f32 {
        if self.row_scales.len() == 1 { self.row_scales[0] } else { self.row_scales[row] }
    }

    pub(crate) fn apply(&self, total: f32, row: usize, column: usize) -> f32 {
        let value = total * self.row_scale(row);
        match self.bias {
            Some(bias) => value + bias[column],
            None => value,
        }
    }
}

/// Checks that everything a kernel will touch is there; `inner` is the length of an activation row.
///
/// # Panics
/// If something is not; the message says what.
pub(crate) fn check(
    activations: &Activations<'_>,
    inner: usize,
    n: usize,
    rescale: &Rescale<'_>,
    tile: &Tile,
    output: &Output<'_, f32>,
) {
    let (rows, columns) = (&tile.rows, &tile.columns);
    assert!(columns.end <= n && columns.start.is_multiple_of(COLUMN_GROUP), "columns {columns:?} of {n}");
    let scales = rescale.row_scales.len();
    assert!(scales == 1 || scales >= rows.end, "{scales} row scales for rows {rows:?}");
    assert!(rescale.bias.is_none_or(|bias| bias.len() == n), "bias of {n} columns");
    if !rows.is_empty() {
        let needed = (rows.end - 1).checked_mul(activations.stride).and_then(|at| at.checked_add(inner));
        let length = activations.values.len();
        assert!(needed.is_some_and(|needed| needed <= length), "activation row {} of {length} values", rows.end - 1);
        let needed = (rows.end - 1).checked_mul(output.stride).and_then(|at| at.checked_add(columns.end));
        let length = output.values.len();
        assert!(needed.is_some_and(|needed| needed <= length), "output row {} of {length} values", rows.end - 1);
    }
}
