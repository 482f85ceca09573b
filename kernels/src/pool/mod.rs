//! Pooling of NHWC images in f32.
//!
//! Pixels outside the input take no part. A window is walked in the order (row, column).

mod cost;
pub mod naive;
pub mod portable;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub mod simd128;

pub use cost::estimate_instructions;

use crate::matrix::{MatrixMut, MatrixRef};
use crate::window::Window;
use std::ops::Range;

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
use portable as body;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use simd128 as body;

/// What becomes of the values under a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// The largest: starting from -inf, `x` replaces the maximum `m` when `m < x`. So a NaN is passed over, and of +0 and
    /// -0 the first stays.
    Max,
    /// Their sum, starting from +0, divided by their number.
    Average,
    /// Their sum, starting from +0, divided by the number of the window's taps that lie in the padded input: ONNX's
    /// `count_include_pad`.
    AverageWithPadding,
}

/// Output pixels `pixels` of a pooling: see [`naive::pool`] for what that is. A global pooling is one whose window is the
/// whole input.
///
/// `input` and `output` have a row per pixel and a column per channel. Rows of pixels outside the range are not written.
/// The cost of a call is told by [`estimate_instructions`].
///
/// # Panics
/// When shapes do not fit each other.
pub fn pool(kind: Pool, input: MatrixRef<'_>, window: &Window, pixels: Range<usize>, output: &mut MatrixMut<'_>) {
    assert_eq!(input.rows, window.input_pixels(), "input");
    assert_eq!((output.rows, output.columns), (window.output_pixels(), input.columns), "output");
    assert!(pixels.start <= pixels.end && pixels.end <= output.rows, "pixels {pixels:?} of {}", output.rows);
    body::pool(kind, input, window, pixels, output);
}

/// What the sum of an average is divided by: how many taps of the window of output pixel (`row`, `column`) count.
fn divisor(kind: Pool, window: &Window, row: usize, column: usize) -> f32 {
    let count = |axis: usize, at: usize| match kind {
        Pool::AverageWithPadding => {
            let padded = window.input[axis] + window.pad_before[axis] + window.pad_after[axis];
            let left = padded.saturating_sub(at * window.stride[axis]);
            left.div_ceil(window.dilation[axis]).min(window.kernel[axis])
        }
        Pool::Average | Pool::Max => window.taps_inside(axis, at).len(),
    };
    (count(0, row) * count(1, column)) as f32
}
