//! Softmax and log-softmax of rows, with what attention does before: a scale, an additive mask, causality.
//!
//! Of each row: `z = x scale + mask`; `m` the maximum of `z`, NaN not counting; `e = exp_of_difference(z - m)` (see
//! [`crate::math::exp_of_difference`]); `s` the sum of `e`. The result is `e (1 / s)`, or `(z - m) - log(s)`. Maximum and
//! sum have the order of [`crate::reduce`]. A row with a NaN, or of nothing but minus infinities, is NaN throughout.
//!
//! Columns that causality hides count for nothing and have the result 0 (minus infinity in log-softmax): bit for bit what a
//! mask of minus infinity gives, for less work.

mod body;
pub mod naive;

use crate::lanes::Native;
use std::ops::Range;

/// An additive mask: row `r` has its row `r / repeat % rows`, so that `[batch, 1, 1, columns]` is `rows` = batch and
/// `repeat` = heads x queries, and `[queries, columns]` is `rows` = queries and `repeat` = 1.
#[derive(Clone, Copy, Debug)]
pub struct Mask<'a> {
    /// `rows` x columns numbers.
    pub values: &'a [f32],
    pub rows: usize,
    pub repeat: usize,
}

/// Causality: row `r` is that of query `r % queries` and sees the first `past + 1 + r % queries` columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Causal {
    pub past: usize,
    pub queries: usize,
}

/// A softmax over the last axis.
#[derive(Clone, Copy, Debug)]
pub struct Softmax<'a> {
    pub columns: usize,
    /// What every element is multiplied by.
    pub scale: f32,
    pub mask: Option<Mask<'a>>,
    pub causal: Option<Causal>,
    /// Whether the logarithm of the softmax is wanted.
    pub log: bool,
}

impl<'a> Softmax<'a> {
    /// Rows of `columns`, nothing else.
    pub fn new(columns: usize) -> Self {
        Self { columns, scale: 1.0, mask: None, causal: None, log: false }
    }

    /// Columns that a row sees.
    fn visible(&self, row: usize) -> usize {
        self.causal.map_or(self.columns, |causal| (causal.past + 1 + row % causal.queries).min(self.columns))
    }

    /// The mask of a row.
    fn mask(&self, row: usize) -> Option<&'a [f32]> {
        let mask = self.mask?;
        Some(&mask.values[row / mask.repeat % mask.rows * self.columns..][..self.columns])
    }

    /// Rows `rows` into `output`, which holds as many; `input` holds all rows.
    ///
    /// # Panics
    /// When slices are too short.
    pub fn run(&self, input: &[f32], rows: Range<usize>, output: &mut [f32]) {
        let input = &input[rows.start * self.columns..rows.end * self.columns];
        body::run::<Native>(self, Some(input), rows, output);
    }

    /// Rows `rows`, which are what `data` holds, in place.
    ///
    /// # Panics
    /// When slices are too short.
    pub fn run_in_place(&self, rows: Range<usize>, data: &mut [f32]) {
        body::run::<Native>(self, None, rows, data);
    }

    /// Metered instructions of `rows` rows that see everything (under causality: at most), in WebAssembly with SIMD and
    /// without page charges.
    pub fn estimate_instructions(&self, rows: usize) -> u64 {
        body::estimate(self, rows)
    }
}

/// Bodies for any target.
pub mod portable {
    use super::*;
    use crate::lanes::portable::Four;

    /// See [`Softmax::run`].
    pub fn run(softmax: &Softmax, input: &[f32], rows: Range<usize>, output: &mut [f32]) {
        let input = &input[rows.start * softmax.columns..rows.end * softmax.columns];
        body::run::<Four>(softmax, Some(input), rows, output);
    }
}
