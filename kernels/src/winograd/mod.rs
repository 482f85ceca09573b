//! 3x3 convolutions of stride 1 by Winograd's minimal filtering algorithm F(2x2, 3x3): 16 multiplications for the 36 of
//! four output pixels (Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks", section 4.1).
//!
//! Half the instructions of [`crate::conv`], for a filter that takes 16 / 9 of the memory, and other bits: the sums are
//! of transformed values. An output pixel's bits do not depend on what else is computed. Output pixels are computed in
//! tiles of two by two, from the first row and column on; a range of pixels that cuts tiles computes them for each part.

mod cost;
pub mod naive;
mod pack;
pub mod portable;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub mod simd128;
mod tiles;

pub use cost::estimate_instructions;
pub use pack::WinogradFilter;
pub use tiles::scratch_len;

use crate::matrix::{Epilogue, MatrixMut, MatrixRef};
use crate::window::Window;
use std::ops::Range;

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
use portable::BODY;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use simd128::BODY;

/// Height and width of a tile's input; of its output 2.
pub(crate) const TILE: usize = 4;

/// Values of a transformed tile, each with a matrix of its own.
pub(crate) const ELEMENTS: usize = TILE * TILE;

/// Whether a convolution with this window, of one group, can be computed so.
pub fn applies_to(window: &Window) -> bool {
    window.kernel == [3; 2] && window.stride == [1; 2] && window.dilation == [1; 2]
}

/// Output pixels `pixels` of a 3x3 convolution of stride 1: see [`naive::conv2d`] for what that is.
///
/// Operands are those of [`crate::conv::conv2d`]. `scratch` has at least [`scratch_len`] values; what is in it before and
/// after is of no meaning. The cost of a call is told by [`estimate_instructions`].
///
/// # Panics
/// When shapes do not fit each other, or when the window is another.
pub fn conv2d(
    input: MatrixRef<'_>,
    window: &Window,
    filter: &WinogradFilter,
    epilogue: &Epilogue<'_>,
    pixels: Range<usize>,
    output: &mut MatrixMut<'_>,
    scratch: &mut [f32],
) {
    tiles::conv2d(&BODY, input, window, filter, epilogue, pixels, output, scratch);
}
