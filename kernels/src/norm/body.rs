//! The bodies, over lanes.

use super::{GroupNorm, LayerNorm, RmsNorm};
use crate::lanes::Lanes;
use crate::pointwise::row as pointwise;
use crate::reduce::{self, Centred, SumOp, SumSquares};
use std::ops::Range;

/// Mean and scale of `count` elements.
unsafe fn moments<V: Lanes>(values: *const f32, count: usize, epsilon: f32) -> (f32, f32) {
    // SAFETY: the caller's.
    unsafe {
        let mean = reduce::row::<V, SumOp>(values, count, 0.0) / count as f32;
        let variance = reduce::row::<V, Centred>(values, count, mean) / count as f32;
        (mean, 1.0 / (variance + epsilon).sqrt())
    }
}

/// A slice of exactly `columns`, as a pointer.
fn along(values: Option<&[f32]>, columns: usize) -> Option<*const f32> {
    values.map(|values| {
        assert_eq!(values.len(), columns, "a weight or bias");
        values.as_ptr()
    })
}

/// Whole rows; without an input, in place.
fn rows(input: Option<&[f32]>, output: &mut [f32], columns: usize, mut row: impl FnMut(*const f32, *mut f32)) {
    if columns == 0 {
        return;
    }
    assert_eq!(output.len() % columns, 0, "whole rows of {columns}");
    assert!(input.is_none_or(|input| input.len() == output.len()), "input and output differ in length");
    for index in (0..output.len()).step_by(columns) {
        let place = output[index..][..columns].as_mut_ptr();
        row(input.map_or(place.cast_const(), |input| input[index..][..columns].as_ptr()), place);
    }
}

/// See [`LayerNorm::run`].
pub fn layer<V: Lanes>(norm: &LayerNorm, input: Option<&[f32]>, output: &mut [f32]) {
    let columns = norm.columns;
    let (weight, bias) = (along(norm.weight, columns), along(norm.bias, columns));
    rows(input, output, columns, |values, place| {
        // SAFETY: all pointers are to `columns` elements; what is written is what is read, or of another slice.
        unsafe {
            let (mean, scale) = moments::<V>(values, columns, norm.epsilon);
            pointwise::normalise::<V>(values, mean, scale, weight, bias, place, columns);
        }
    });
}

/// See [`RmsNorm::run`].
pub fn rms<V: Lanes>(norm: &RmsNorm, input: Option<&[f32]>, output: &mut [f32]) {
    let columns = norm.columns;
    let weight = along(norm.weight, columns);
    rows(input, output, columns, |values, place| {
        // SAFETY: all pointers are to `columns` elements; what is written is what is read, or of another slice.
        unsafe {
            let mean = reduce::row::<V, SumSquares>(values, columns, 0.0) / columns as f32;
            pointwise::scale_weighted::<V>(values, 1.0 / (mean + norm.epsilon).sqrt(), weight, place, columns);
        }
    });
}

/// See [`GroupNorm::run`].
pub fn group<V: Lanes>(norm: &GroupNorm, input: &[f32], groups: Range<usize>, output: &mut [f32]) {
    assert!(
        norm.groups > 0 && norm.channels.is_multiple_of(norm.groups),
        "{} groups of {}",
        norm.groups,
        norm.channels
    );
    let elements = norm.elements();
    let input = &input[groups.start * elements..groups.end * elements];
    assert_eq!(input.len(), output.len(), "input and output differ in length");
    let channels = norm.channels / norm.groups;
    for (index, group) in groups.enumerate() {
        let values = input[index * elements..][..elements].as_ptr();
        // SAFETY: `elements` of one slice.
        let (mean, scale) = unsafe { moments::<V>(values, elements, norm.epsilon) };
        for plane in 0..channels {
            let at = index * elements + plane * norm.pixels;
            let channel = group % norm.groups * channels + plane;
            let numbers = [mean, scale, norm.weight[channel], norm.bias[channel]];
            let (values, place) = (&input[at..][..norm.pixels], &mut output[at..][..norm.pixels]);
            // SAFETY: as long as each other, and different slices.
            unsafe { pointwise::normalise_by::<V>(values.as_ptr(), numbers, place.as_mut_ptr(), norm.pixels) };
        }
    }
}
