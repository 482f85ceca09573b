//! Passes over one row, for kernels that need them between others.

use super::driver::{self, Pass, Segment};
use super::estimate;
use super::fused::{self, PARAMETERS};
use crate::lanes::Lanes;

unsafe fn run<V: Lanes, F: fused::Function>(
    value: *const f32,
    numbers: &[f32],
    streams: [*const f32; fused::STREAMS],
    output: *mut f32,
    elements: usize,
) {
    let mut parameters = [0.0; PARAMETERS];
    parameters[..numbers.len()].copy_from_slice(numbers);
    let segment = Segment { value, streams, output, elements };
    // SAFETY: the caller's.
    unsafe { driver::body::<V, F>(&segment, &parameters) };
}

/// `x scale`, or `x scale + other`.
///
/// # Safety
/// The pointers are valid for `elements`; `output` is `x` or overlaps nothing.
pub unsafe fn scale_and_add<V: Lanes>(
    x: *const f32,
    by: f32,
    other: Option<*const f32>,
    output: *mut f32,
    elements: usize,
) {
    // SAFETY: the caller's.
    match other {
        Some(other) => unsafe { run::<V, fused::MulPAddS>(x, &[by], [other; 2], output, elements) },
        None => unsafe { scale::<V>(x, by, output, elements) },
    }
}

/// `x by`.
///
/// # Safety
/// As [`scale_and_add`].
pub unsafe fn scale<V: Lanes>(x: *const f32, by: f32, output: *mut f32, elements: usize) {
    // SAFETY: the caller's.
    unsafe { run::<V, fused::MulP>(x, &[by], [x; 2], output, elements) };
}

/// `(x - first) - second`.
///
/// # Safety
/// As [`scale_and_add`].
pub unsafe fn subtract_twice<V: Lanes>(x: *const f32, first: f32, second: f32, output: *mut f32, elements: usize) {
    // SAFETY: the caller's.
    unsafe { run::<V, fused::SubPSubP>(x, &[first, second], [x; 2], output, elements) };
}

/// `(x - mean) scale`, then times `weight` and plus `bias` where given.
///
/// # Safety
/// As [`scale_and_add`]; `weight` and `bias` are as long.
pub unsafe fn normalise<V: Lanes>(
    x: *const f32,
    mean: f32,
    scale: f32,
    weight: Option<*const f32>,
    bias: Option<*const f32>,
    output: *mut f32,
    elements: usize,
) {
    let numbers = [mean, scale];
    // SAFETY: the caller's.
    unsafe {
        match (weight, bias) {
            (None, None) => run::<V, fused::SubPMulP>(x, &numbers, [x; 2], output, elements),
            (Some(weight), None) => run::<V, fused::SubPMulPMulS>(x, &numbers, [weight, x], output, elements),
            (Some(weight), Some(bias)) => {
                run::<V, fused::SubPMulPMulSAddS>(x, &numbers, [weight, bias], output, elements);
            }
            (None, Some(bias)) => run::<V, fused::SubPMulPAddS>(x, &numbers, [bias, x], output, elements),
        }
    }
}

/// `x scale`, then times `weight` where given.
///
/// # Safety
/// As [`normalise`].
pub unsafe fn scale_weighted<V: Lanes>(
    x: *const f32,
    by: f32,
    weight: Option<*const f32>,
    output: *mut f32,
    elements: usize,
) {
    // SAFETY: the caller's.
    match weight {
        Some(weight) => unsafe { run::<V, fused::MulPMulS>(x, &[by], [weight; 2], output, elements) },
        None => unsafe { scale::<V>(x, by, output, elements) },
    }
}

/// `(x - mean) scale weight + bias`, all of them numbers.
///
/// # Safety
/// As [`scale_and_add`].
pub unsafe fn normalise_by<V: Lanes>(x: *const f32, numbers: [f32; 4], output: *mut f32, elements: usize) {
    // SAFETY: the caller's.
    unsafe { run::<V, fused::SubPMulPMulPAddP>(x, &numbers, [x; 2], output, elements) };
}

/// Metered instructions of a pass of `vector` for four elements.
pub fn cost(vector: u64, elements: usize) -> u64 {
    estimate::segments(Pass { body: driver::nothing, cost: vector, steps: 1 }, 1, elements)
}
