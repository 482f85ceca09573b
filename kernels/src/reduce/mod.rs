//! Reductions of f32 along any axes, seen as `outer x reduced x inner`.
//!
//! A tensor's axes that are reduced next to each other are one; a reduction over the last axes has `inner` 1. The
//! order of the additions is the same for every shape and every body: element `r` of the reduced axis goes to lane
//! `r mod 8`, each lane is combined in order starting from the operation's neutral element, and the lanes are combined as
//! `a[j] = lane[j] . lane[j + 4]`, then `(a[0] . a[2]) . (a[1] . a[3])`. So a result depends on nothing but the elements
//! it is made of.

mod argument;
mod body;
pub mod naive;

pub use argument::{Extreme, arg, estimate_arg};
pub(crate) use body::{Centred, Reduction, SumOp, SumSquares, row, row_cost};

use crate::lanes::Native;
use std::ops::Range;

/// Lanes of a reduction.
pub const REDUCTION_LANES: usize = 8;

/// What is computed of the reduced elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    Sum,
    /// The sum divided by the number of elements: NaN of none.
    Mean,
    SumOfSquares,
    /// The sum of squares divided by the number of elements.
    MeanOfSquares,
    SumOfMagnitudes,
    Product,
    /// IEEE 754-2019 `maximum`, so NaN if any is; minus infinity of none.
    Max,
    /// IEEE 754-2019 `minimum`, so NaN if any is; infinity of none.
    Min,
}

/// Sizes of the axes before, along and after the reduced ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axes {
    pub outer: usize,
    pub reduced: usize,
    pub inner: usize,
}

impl Axes {
    /// Elements of the result.
    pub fn results(&self) -> usize {
        self.outer * self.inner
    }
}

/// Results `range` (of `outer * inner`, row-major) into `output`, which has as many.
///
/// # Panics
/// When `input` is not as long as `axes` say, or the range is not within the results.
pub fn reduce(kind: Reduce, input: &[f32], axes: Axes, range: Range<usize>, output: &mut [f32]) {
    check(input.len(), axes, &range, output.len());
    body::reduce::<Native>(kind, input, axes, range, output);
}

fn check(input: usize, axes: Axes, range: &Range<usize>, output: usize) {
    assert_eq!(input, axes.outer * axes.reduced * axes.inner, "elements of {axes:?}");
    assert!(range.start <= range.end && range.end <= axes.results(), "{range:?} of {axes:?}");
    assert_eq!(range.len(), output, "range and output differ in length");
}

/// Metered instructions of [`reduce`] over `results` results, in WebAssembly with SIMD and without page charges.
pub fn estimate_instructions(kind: Reduce, axes: Axes, results: usize) -> u64 {
    let vector = match kind {
        Reduce::Sum | Reduce::Mean => 4,
        Reduce::SumOfSquares | Reduce::MeanOfSquares => 8,
        Reduce::SumOfMagnitudes | Reduce::Max | Reduce::Min => 6,
        Reduce::Product => 4,
    };
    let (reduced, results) = (axes.reduced as u64, results as u64);
    if axes.inner == 1 {
        return 60 + results * (body::row_cost(reduced as usize, vector) + 55);
    }
    let vectors = results.div_ceil(axes.inner as u64) * (axes.inner as u64).min(results).div_ceil(4);
    60 + vectors * (reduced * (vector + 7) + 75)
}

/// Bodies for any target.
pub mod portable {
    use super::*;
    use crate::lanes::portable::Four;

    /// See [`super::reduce`].
    pub fn reduce(kind: Reduce, input: &[f32], axes: Axes, range: Range<usize>, output: &mut [f32]) {
        check(input.len(), axes, &range, output.len());
        body::reduce::<Four>(kind, input, axes, range, output);
    }

    /// See [`super::arg`].
    pub fn arg(kind: Extreme, input: &[f32], axes: Axes, last: bool, range: Range<usize>, output: &mut [i64]) {
        check(input.len(), axes, &range, output.len());
        argument::body::<Four>(kind, input, axes, last, range, output);
    }
}
