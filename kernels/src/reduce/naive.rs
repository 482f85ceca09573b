//! The reference: each result by itself.

use super::{Axes, Extreme, REDUCTION_LANES, Reduce};
use crate::lanes::{maximum, minimum};

/// Lanes, then the tree, as the module says.
pub fn lanes(values: impl Iterator<Item = f32>, neutral: f32, combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [neutral; REDUCTION_LANES];
    for (index, value) in values.enumerate() {
        let lane = &mut lanes[index % REDUCTION_LANES];
        *lane = combine(*lane, value);
    }
    let a: [f32; 4] = std::array::from_fn(|lane| combine(lanes[lane], lanes[lane + 4]));
    combine(combine(a[0], a[2]), combine(a[1], a[3]))
}

/// The sum in the order of the lanes.
pub fn sum(values: impl Iterator<Item = f32>) -> f32 {
    lanes(values, 0.0, |a, b| a + b)
}

/// One result.
pub fn reduce_one(kind: Reduce, values: impl ExactSizeIterator<Item = f32>) -> f32 {
    let count = values.len() as f32;
    match kind {
        Reduce::Sum => sum(values),
        Reduce::Mean => sum(values) / count,
        Reduce::SumOfSquares => sum(values.map(|x| x * x)),
        Reduce::MeanOfSquares => sum(values.map(|x| x * x)) / count,
        Reduce::SumOfMagnitudes => sum(values.map(f32::abs)),
        Reduce::Product => lanes(values, 1.0, |a, b| a * b),
        Reduce::Max => lanes(values, f32::NEG_INFINITY, maximum),
        Reduce::Min => lanes(values, f32::INFINITY, minimum),
    }
}

/// The elements that result `index` is made of.
fn reduced(input: &[f32], axes: Axes, index: usize) -> impl ExactSizeIterator<Item = f32> + '_ {
    let (outer, inner) = (index / axes.inner, index % axes.inner);
    (0..axes.reduced).map(move |r| input[(outer * axes.reduced + r) * axes.inner + inner])
}

/// Every result.
pub fn reduce(kind: Reduce, input: &[f32], axes: Axes, output: &mut [f32]) {
    for (index, result) in output.iter_mut().enumerate() {
        *result = reduce_one(kind, reduced(input, axes, index));
    }
}

/// Every index: see [`super::arg`].
pub fn arg(kind: Extreme, input: &[f32], axes: Axes, last: bool, output: &mut [i64]) {
    for (index, result) in output.iter_mut().enumerate() {
        let values: Vec<f32> = reduced(input, axes, index).collect();
        let extreme = match kind {
            Extreme::Max => reduce_one(Reduce::Max, values.iter().copied()),
            Extreme::Min => reduce_one(Reduce::Min, values.iter().copied()),
        };
        let is = |value: &f32| *value == extreme || value.is_nan() && extreme.is_nan();
        let place = if last { values.iter().rposition(is) } else { values.iter().position(is) };
        *result = place.expect("at least one element") as i64;
    }
}
