//! Convolutions of NHWC images in f32: any window, stride, dilation, padding and grouping.
//!
//! A convolution is a product of a matrix with a row per output pixel, the input under its window, and the filter. The
//! sum of an output value starts with its bias, or +0, and adds its products in the order (tap row, tap column, input
//! channel); pixels outside the input take part as zeros. So a pointwise convolution has the bits of
//! [`crate::gemm::gemm`].
//!
//! Input and output are matrices of a row per pixel and a column per channel, whose stride lets them be slices of the
//! channels of a wider image. A depthwise convolution is cheaper by [`crate::depthwise`], to the same bits.

mod cost;
pub mod naive;
mod pack;
pub mod portable;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub mod simd128;

pub use cost::estimate_instructions;
pub use pack::Filter;

use crate::matrix::{Epilogue, MatrixMut, MatrixRef};
use crate::window::Window;
use std::ops::Range;

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
use portable as body;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use simd128 as body;

/// Values of scratch memory that [`conv2d`] needs. Does not depend on how many pixels are computed.
pub fn scratch_len(window: &Window, filter: &Filter) -> usize {
    if is_product(window, filter) { 0 } else { body::scratch_len(window, filter) }
}

/// Output pixels `pixels` of a convolution: see [`naive::conv2d`] for what that is.
///
/// `input` has a row per input pixel and a column per input channel; `output` (and a residual) a row per output pixel and
/// a column per output channel. Rows of pixels outside the range are not written. `scratch` has at least [`scratch_len`]
/// values; what is in it before and after is of no meaning. The cost of a call is told by [`estimate_instructions`].
///
/// # Panics
/// When shapes do not fit each other.
pub fn conv2d(
    input: MatrixRef<'_>,
    window: &Window,
    filter: &Filter,
    epilogue: &Epilogue<'_>,
    pixels: Range<usize>,
    output: &mut MatrixMut<'_>,
    scratch: &mut [f32],
) {
    assert_eq!((input.rows, input.columns), (window.input_pixels(), filter.input_channels()), "input");
    assert_eq!((output.rows, output.columns), (window.output_pixels(), filter.output_channels()), "output");
    assert_eq!(window.kernel, filter.kernel(), "the filter has another window");
    assert!(pixels.start <= pixels.end && pixels.end <= output.rows, "pixels {pixels:?} of {}", output.rows);
    epilogue.assert_fits(output.rows, output.columns);
    if is_product(window, filter) {
        return crate::gemm::gemm(input, filter.matrix(0), epilogue, pixels, output);
    }
    assert!(scratch.len() >= body::scratch_len(window, filter), "scratch of {} values", scratch.len());
    body::conv2d(input, window, filter, epilogue, pixels, output, scratch);
}

/// Whether the rows of the product are the input's as they are.
fn is_product(window: &Window, filter: &Filter) -> bool {
    window.is_pointwise() && filter.groups() == 1
}
