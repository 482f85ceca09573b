//! Products of 16-bit activations and int8 weights, summed exactly in 32 bits.
//!
//! `sum[i][j] = sum over l < k of activations[i][l] * (weights[l][j] - zero_points[j])`, as wrapping i32, so that neither
//! the order of additions nor the number of rows computed at once can show in a bit. Three things are made of the sums:
//!
//! * [`gemm_f32`] rescales them to f32: float models with int8 weights, whose activations [`crate::quantise::rows`]
//!   brings to 12 to 16 bits row by row, and `DynamicQuantizeLinear` with `MatMulInteger`.
//! * [`gemm_requantised`] brings them back to an 8-bit grid: `QLinearMatMul`, `QLinearConv` and QDQ graphs.
//! * [`gemm_i32`] hands them out: `MatMulInteger`, `ConvInteger`.
//!
//! Activations are i16 with the zero point already subtracted ("centred"). Between quantised layers they stay that way:
//! a dot product of int16 costs what one of int8 would, nothing has to be widened in the inner loops, padding is zero and
//! needs no correction, and a clamp to the 8-bit grid is all that saturation and a folded ReLU need.
//!
//! Weights are packed once by [`pack`] into what the kernels read, see [`Weights`].

mod estimate;
pub mod naive;
mod pack;
pub mod portable;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(crate) mod rescale;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub mod simd128;

use std::ops::Range;

pub(crate) use estimate::{ESTIMATE_COLUMNS, row_blocks};
pub use estimate::{estimate_instructions, estimate_instructions_requantised};
pub(crate) use pack::pack_whole;
pub use pack::{Source, pack};
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub use portable::{gemm_f32, gemm_i32, gemm_requantised};
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub use simd128::{gemm_f32, gemm_i32, gemm_requantised};

/// Columns that are packed and computed together. Column ranges start at multiples of it.
pub const COLUMN_GROUP: usize = 4;
/// Rows of the weights are padded with zeros to a multiple of this.
pub const INNER_GROUP: usize = 8;
/// Rows of the weights that are packed together.
pub(crate) const INNER_BLOCK: usize = 128;
/// [`gemm_f32`] sums at most this many products in 32 bits; longer rows are summed segment by segment, in f32.
pub const SEGMENT: usize = 8192;

/// Length of an activation row for `k` inner values.
///
/// The values from `k` to there are multiplied by zero: they may be anything, but have to be there.
pub const fn padded_inner(k: usize) -> usize {
    k.next_multiple_of(INNER_GROUP)
}

/// The largest magnitude that activations of [`gemm_f32`] may have so that no sum of a segment overflows:
/// `128 * limit * min(k, SEGMENT) < 2^31`, and an i16. 15 bits up to k = 512, 12 bits at 4096, 11 bits at 8192 and more.
pub const fn activation_limit(k: usize) -> i16 {
    let segment = if k < SEGMENT { k } else { SEGMENT };
    let limit = (i32::MAX as usize) / 128 / if segment == 0 { 1 } else { segment };
    if limit < i16::MAX as usize { limit as i16 } else { i16::MAX }
}

/// A k x n matrix of int8 weights as the kernels read it.
///
/// Rows are cut into blocks of 128, the last one shorter but padded to a multiple of 8; columns into groups of 4, the last
/// one padded. Bytes are in the order `[block][group][pair of rows][column of the group][row of the pair]`, so that eight
/// consecutive bytes are what one dot product of four columns takes.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    packed: &'a [i8],
    k: usize,
    n: usize,
    zero_points: Option<&'a [i32]>,
}

impl<'a> Weights<'a> {
    /// Bytes of a packed k x n matrix; `None` if there is no such number.
    pub fn packed_len(k: usize, n: usize) -> Option<usize> {
        k.checked_next_multiple_of(INNER_GROUP)?.checked_mul(n.checked_next_multiple_of(COLUMN_GROUP)?)
    }

    /// Bytes that [`pack`] made.
    ///
    /// # Panics
    /// If `packed` is not [`Self::packed_len`] bytes.
    pub fn new(packed: &'a [i8], k: usize, n: usize) -> Self {
        assert_eq!(Some(packed.len()), Self::packed_len(k, n), "packed weights of {k} x {n}");
        Self { packed, k, n, zero_points: None }
    }

    /// Weights that have a zero point each column, subtracted from every one of the column's values.
    ///
    /// # Panics
    /// If there are not n of them.
    pub fn with_zero_points(self, zero_points: &'a [i32]) -> Self {
        assert_eq!(zero_points.len(), self.n, "zero points of {} columns", self.n);
        Self { zero_points: Some(zero_points), ..self }
    }

    /// Inner values: rows of the matrix.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Outputs: columns of the matrix.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Where in the packed bytes block `block` of the rows starts, for the columns of `group`, and how many rows it has.
    pub(crate) fn block(k: usize, n: usize, block: usize, group: usize) -> (usize, usize) {
        let first = block * INNER_BLOCK;
        let rows = (padded_inner(k) - first).min(INNER_BLOCK);
        (first * n.next_multiple_of(COLUMN_GROUP) + group * COLUMN_GROUP * rows, rows)
    }

    /// Index of a weight in the packed bytes.
    pub(crate) fn index(k: usize, n: usize, row: usize, column: usize) -> usize {
        let (start, _) = Self::block(k, n, row / INNER_BLOCK, column / COLUMN_GROUP);
        let row = row % INNER_BLOCK;
        start + row / 2 * (2 * COLUMN_GROUP) + column % COLUMN_GROUP * 2 + row % 2
    }

    /// One weight, without its zero point.
    pub fn at(&self, row: usize, column: usize) -> i8 {
        self.packed[Self::index(self.k, self.n, row, column)]
    }

    /// Reads one column back: the weights of one output, which are a row of an embedding table whose transpose is packed.
    ///
    /// # Panics
    /// If the matrix has no such column or `output` is not k long.
    pub fn column(&self, column: usize, output: &mut [i8]) {
        assert!(column < self.n && output.len() == self.k, "column {column} of {} x {}", self.k, self.n);
        for (block, output) in output.chunks_mut(INNER_BLOCK).enumerate() {
            let (start, _) = Self::block(self.k, self.n, block, column / COLUMN_GROUP);
            let packed = &self.packed[start + column % COLUMN_GROUP * 2..];
            for (pair, output) in output.chunks_mut(2).enumerate() {
                let at = pair * 2 * COLUMN_GROUP;
                output.copy_from_slice(&packed[at..at + output.len()]);
            }
        }
    }

    pub(crate) fn packed(&self) -> &'a [i8] {
        self.packed
    }

    pub(crate) fn zero_points(&self) -> Option<&'a [i32]> {
        self.zero_points
    }
}

/// Rows of centred 16-bit activations: row i is the [`padded_inner`]`(k)` values from `i * stride` on.
#[derive(Clone, Copy, Debug)]
pub struct Activations<'a> {
    pub values: &'a [i16],
    pub stride: usize,
}

/// What part of a product to compute: rows of the activations, columns of the weights.
///
/// Rows and columns keep their numbers: row i and column j go to the same place of the output whatever the ranges, so a
/// product may be computed in pieces.
#[derive(Clone, Debug)]
pub struct Tile {
    pub rows: Range<usize>,
    /// Starts at a multiple of [`COLUMN_GROUP`].
    pub columns: Range<usize>,
}

/// Row i, column j is at `values[i * stride + j]`.
#[derive(Debug)]
pub struct Output<'a, T> {
    pub values: &'a mut [T],
    pub stride: usize,
}

/// `((f32(sum) * column_scales[j]) * row_scales[i]) + bias[j]`, rounded after each operation.
///
/// Where k exceeds [`SEGMENT`], f32(sum) is `(f32(sum of segment 0) + f32(sum of segment 1)) + ...`.
#[derive(Clone, Copy, Debug)]
pub struct Rescale<'a> {
    /// One for each row, or a single one for all.
    pub row_scales: &'a [f32],
    /// One for each column of the weights.
    pub column_scales: &'a [f32],
    /// One for each column of the weights.
    pub bias: Option<&'a [f32]>,
}

/// `clamp(round_half_to_even(f32(sum + bias[j]) * multipliers[j]), low, high)`, centred again.
///
/// For output zero point z and an 8-bit type of values a to b, `low = a - z` and `high = b - z`, or narrower where a ReLU
/// or Clip follows. NaN, which only a multiplier that is not finite can cause, becomes 0 clamped.
#[derive(Clone, Copy, Debug)]
pub struct Requantise<'a> {
    /// Of each column: activation scale * weight scale / output scale.
    pub multipliers: &'a [f32],
    /// Of each column, in units of activation scale * weight scale; added with wrapping.
    pub bias: Option<&'a [i32]>,
    pub low: i16,
    pub high: i16,
}

/// Checks that everything a kernel will touch is there.
///
/// # Panics
/// If something is not; the message says what.
fn check<T>(activations: &Activations<'_>, weights: &Weights<'_>, tile: &Tile, output: &Output<'_, T>) {
    let (rows, columns) = (&tile.rows, &tile.columns);
    assert!(
        columns.end <= weights.n && columns.start.is_multiple_of(COLUMN_GROUP),
        "columns {columns:?} of {}",
        weights.n
    );
    if !rows.is_empty() {
        let needed =
            (rows.end - 1).checked_mul(activations.stride).and_then(|at| at.checked_add(padded_inner(weights.k)));
        let length = activations.values.len();
        assert!(needed.is_some_and(|needed| needed <= length), "activation row {} of {length} values", rows.end - 1);
        let needed = (rows.end - 1).checked_mul(output.stride).and_then(|at| at.checked_add(columns.end));
        let length = output.values.len();
        assert!(needed.is_some_and(|needed| needed <= length), "output row {} of {length} values", rows.end - 1);
    }
}

impl Rescale<'_> {
    fn check(&self, weights: &Weights<'_>, tile: &Tile) {
        let scales = self.row_scales.len();
        assert!(scales == 1 || scales >= tile.rows.end, "{scales} row scales for rows {:?}", tile.rows);
        assert_eq!(self.column_scales.len(), weights.n, "column scales");
        assert!(self.bias.is_none_or(|bias| bias.len() == weights.n), "bias of {} columns", weights.n);
    }

    fn row_scale(&self, row: usize) -> f32 {
        if self.row_scales.len() == 1 { self.row_scales[0] } else { self.row_scales[row] }
    }

    fn apply(&self, sum: f32, row: usize, column: usize) -> f32 {
        let value = sum * self.column_scales[column] * self.row_scale(row);
        match self.bias {
            Some(bias) => value + bias[column],
            None => value,
        }
    }
}

impl Requantise<'_> {
    /// # Panics
    /// If there is not a multiplier and a bias for each of `n` columns, or no value is allowed.
    pub(crate) fn check_columns(&self, n: usize) {
        assert_eq!(self.multipliers.len(), n, "multipliers");
        assert!(self.bias.is_none_or(|bias| bias.len() == n), "bias of {n} columns");
        assert!(self.low <= self.high, "an empty range {} to {}", self.low, self.high);
    }

    pub(crate) fn apply(&self, sum: i32, column: usize) -> i16 {
        let sum = sum.wrapping_add(self.bias.map_or(0, |bias| bias[column]));
        let value = (sum as f32 * self.multipliers[column]).round_ties_even() as i32;
        value.clamp(self.low.into(), self.high.into()) as i16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Numbers;
    use crate::quantise;

    #[test]
    fn no_sum_of_a_segment_can_overflow() {
        for k in [0, 1, 511, 512, 513, 4096, 8191, 8192, 8193, 100_000] {
            let limit = i64::from(activation_limit(k));
            assert!(limit > 0 && 128 * limit * (k.min(SEGMENT) as i64) < 1 << 31, "{k}: {limit}");
        }
        let bits = [512, 4096, SEGMENT, 100_000].map(|k| i16::BITS - 1 - activation_limit(k).leading_zeros() + 1);
        assert_eq!(bits, [15, 12, 11, 11]);
    }

    #[test]
    fn the_largest_sum_is_exact() {
        let k = SEGMENT;
        let (values, mut packed) = (vec![activation_limit(k); k], vec![0; Weights::packed_len(k, 4).unwrap()]);
        let bytes = vec![0x80; k * 4];
        pack(Source { bytes: &bytes, row_stride: 4, column_stride: 1, unsigned: false }, k, 4, 0..4, &mut packed);
        let mut sums = [0; 4];
        let (activations, weights) = (Activations { values: &values, stride: k }, Weights::new(&packed, k, 4));
        gemm_i32(activations, weights, Tile { rows: 0..1, columns: 0..4 }, Output { values: &mut sums, stride: 4 });
        assert_eq!(sums.map(i64::from), [-128 * i64::from(activation_limit(k)) * k as i64; 4]);
    }

    #[test]
    fn requantising_rounds_half_to_even_and_saturates() {
        let requantise = Requantise { multipliers: &[0.5], bias: Some(&[1]), low: -128, high: 127 };
        let values = [0, 2, 4, -2, -4, 1000, -1000].map(|sum| requantise.apply(sum, 0));
        assert_eq!(values, [0, 2, 2, 0, -2, 127, -128]);
        let requantise = Requantise { multipliers: &[f32::NAN], bias: None, low: 3, high: 127 };
        assert_eq!(requantise.apply(5, 0), 3);
    }

    /// What int8 weights and quantised rows are for: the error is that of the weights' 8 bits, not of the activations'.
    #[test]
    fn activations_of_more_than_8_bits_hardly_add_an_error() {
        let (k, n) = (768, 32);
        let mut numbers = Numbers::new(5);
        let (input, bytes) = (numbers.floats(k), numbers.bytes(k * n));
        let mut packed = vec![0; Weights::packed_len(k, n).unwrap()];
        pack(Source { bytes: &bytes, row_stride: n, column_stride: 1, unsigned: false }, k, n, 0..n, &mut packed);
        let error = |limit: i16| {
            let mut row = vec![0; padded_inner(k)];
            let scale = quantise::row(&input, limit, &mut row);
            let mut output = vec![0.0; n];
            gemm_f32(
                Activations { values: &row, stride: row.len() },
                Weights::new(&packed, k, n),
                Rescale { row_scales: &[scale], column_scales: &vec![1.0; n], bias: None },
                Tile { rows: 0..1, columns: 0..n },
                Output { values: &mut output, stride: n },
            );
            let exact = |column: usize| -> f64 {
                (0..k).map(|row| f64::from(input[row]) * f64::from(bytes[row * n + column] as i8)).sum()
            };
            let squares: f64 = (0..n).map(|column| (f64::from(output[column]) - exact(column)).powi(2)).sum();
            (squares / n as f64).sqrt()
        };
        let (of_8_bits, of_14_bits) = (error(127), error(activation_limit(k)));
        assert!(of_14_bits * 64.0 < of_8_bits, "{of_14_bits} against {of_8_bits}");
    }

    #[test]
    #[should_panic(expected = "activation row 1 of 15 values")]
    fn a_row_without_its_padding_is_refused() {
        let packed = [0; 32];
        let activations = Activations { values: &[0; 15], stride: 8 };
        let mut sums = [0; 8];
        let output = Output { values: &mut sums, stride: 4 };
        gemm_i32(activations, Weights::new(&packed, 5, 4), Tile { rows: 0..2, columns: 0..4 }, output);
    }
}
