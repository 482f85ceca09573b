//! Depthwise convolutions of NHWC images in f32: every channel is convolved with a window of its own.
//!
//! The sum of an output value starts with its bias, or +0, and adds its products in the order (tap row, tap column);
//! pixels outside the input take part as zeros. These are the bits of [`crate::conv`] with as many groups as channels.

mod cost;
pub mod naive;
mod pack;
pub mod portable;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub mod simd128;

pub use cost::estimate_instructions;
pub use pack::DepthwiseFilter;

use crate::matrix::{Epilogue, MatrixMut, MatrixRef};
use crate::window::Window;
use std::ops::Range;

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
use portable as body;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use simd128 as body;

/// Values of scratch memory that [`depthwise`] needs. Does not depend on how many pixels are computed.
pub fn scratch_len(window: &Window, filter: &DepthwiseFilter) -> usize {
    body::scratch_len(window, filter)
}

/// Output pixels `pixels` of a depthwise convolution: see [`naive::depthwise`] for what that is.
///
/// `input`, `output` (and a residual) have a row per pixel and a column per channel. Rows of pixels outside the range are
/// not written. `scratch` has at least [`scratch_len`] values; what is in it before and after is of no meaning. The cost
/// of a call is told by [`estimate_instructions`].
///
/// # Panics
/// When shapes do not fit each other.
pub fn depthwise(
    input: MatrixRef<'_>,
    window: &Window,
    filter: &DepthwiseFilter,
    epilogue: &Epilogue<'_>,
    pixels: Range<usize>,
    output: &mut MatrixMut<'_>,
    scratch: &mut [f32],
) {
    assert_eq!((input.rows, input.columns), (window.input_pixels(), filter.channels()), "input");
    assert_eq!((output.rows, output.columns), (window.output_pixels(), filter.channels()), "output");
    assert_eq!(window.kernel, filter.kernel(), "the filter has another window");
    assert!(pixels.start <= pixels.end && pixels.end <= output.rows, "pixels {pixels:?} of {}", output.rows);
    assert!(scratch.len() >= body::scratch_len(window, filter), "scratch of {} values", scratch.len());
    epilogue.assert_fits(output.rows, output.columns);
    body::depthwise(input, window, filter, epilogue, pixels, output, scratch);
}
