//! Where the largest or smallest element is.

use super::{Axes, Reduce, body as reduction, check};
use crate::lanes::{LANES, Lanes, Native};
use std::ops::Range;

/// Which element is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extreme {
    Max,
    Min,
}

impl Extreme {
    fn reduce(self) -> Reduce {
        match self {
            Self::Max => Reduce::Max,
            Self::Min => Reduce::Min,
        }
    }
}

/// Indices along the reduced axis of the extremes, for results `range`, into `output`, which has as many. Of equal
/// elements the first, or the last if `last`; zeros of both signs are equal, and NaN counts as the extreme, as in NumPy.
///
/// # Panics
/// As [`super::reduce`], and when `reduced` is 0.
pub fn arg(kind: Extreme, input: &[f32], axes: Axes, last: bool, range: Range<usize>, output: &mut [i64]) {
    check(input.len(), axes, &range, output.len());
    body::<Native>(kind, input, axes, last, range, output);
}

/// See [`arg`]; the arguments are checked.
pub fn body<V: Lanes>(kind: Extreme, input: &[f32], axes: Axes, last: bool, range: Range<usize>, output: &mut [i64]) {
    assert!(axes.reduced > 0, "the extreme of no elements");
    for (index, place) in range.zip(output) {
        let mut extreme = [0.0];
        reduction::reduce::<V>(kind.reduce(), input, axes, index..index + 1, &mut extreme);
        let [extreme] = extreme;
        let is = |value: f32| value == extreme || value.is_nan() && extreme.is_nan();
        let start = index / axes.inner * axes.reduced * axes.inner + index % axes.inner;
        let at = |r: usize| input[start + r * axes.inner];
        let found = if last {
            (0..axes.reduced).rev().find(|&r| is(at(r)))
        } else if axes.inner == 1 {
            let row = &input[start..][..axes.reduced];
            let skipped = if extreme.is_nan() { 0 } else { vectors_without::<V>(row, extreme) };
            (skipped..axes.reduced).find(|&r| is(row[r]))
        } else {
            (0..axes.reduced).find(|&r| is(at(r)))
        };
        *place = found.expect("the extreme is one of the elements") as i64;
    }
}

/// Elements at the start of `row`, in whole vectors, none of which is `extreme`.
fn vectors_without<V: Lanes>(row: &[f32], extreme: f32) -> usize {
    let wanted = V::splat(extreme);
    let mut vectors = row.chunks_exact(4 * LANES);
    for (index, vector) in vectors.by_ref().enumerate() {
        let load = |part: usize| {
            // SAFETY: a vector of a chunk of four.
            unsafe { V::load(vector.as_ptr().add(part * LANES)) }.eq(wanted)
        };
        if load(0).or(load(1)).or(load(2).or(load(3))).any() {
            return index * 4 * LANES;
        }
    }
    row.len() - vectors.remainder().len()
}

/// Metered instructions of [`arg`] over `results` results, in WebAssembly with SIMD and without page charges; at most,
/// since the search ends where the extreme is found.
pub fn estimate_arg(axes: Axes, results: usize) -> u64 {
    let each = super::estimate_instructions(Reduce::Max, axes, 1);
    let search = if axes.inner == 1 { axes.reduced as u64 * 5 / 2 } else { axes.reduced as u64 * 12 };
    results as u64 * (each + search + 120)
}
