//! Convolutions and pooling of centred 16-bit activations, channels last, one image at a time.
//!
//! A pointwise convolution is [`crate::int8::gemm_requantised`] with a row for each pixel. Any other convolution but a
//! depthwise one is the same after [`gather`] has put the pixels that an output sees into a row. Activations are centred,
//! so padding is 0 whatever the zero point.

pub mod naive;
mod pack;
pub mod portable;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub mod simd128;

pub use crate::int8::Requantise;
pub use pack::{DepthwiseWeights, pack_depthwise};
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub use portable::{add, depthwise, gather, mean};
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub use simd128::{add, depthwise, gather, mean};

/// Where the window of a convolution is over its input. All pairs are (height, width).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub input: (usize, usize),
    pub kernel: (usize, usize),
    pub stride: (usize, usize),
    pub dilation: (usize, usize),
    /// Rows of padding above and columns to the left. What is read below and to the right of the input is 0 too.
    pub padding: (usize, usize),
    pub output: (usize, usize),
}

impl Window {
    /// The input row or column that tap `tap` of output `output` sees along one axis, unless it is padding.
    pub(crate) fn tap(
        output: usize,
        tap: usize,
        stride: usize,
        dilation: usize,
        padding: usize,
        input: usize,
    ) -> Option<usize> {
        (output * stride + tap * dilation).checked_sub(padding).filter(|at| *at < input)
    }

    /// The input pixel that a tap of an output pixel sees, unless it is padding.
    pub(crate) fn pixel(&self, output: (usize, usize), tap: (usize, usize)) -> Option<usize> {
        let row = Self::tap(output.0, tap.0, self.stride.0, self.dilation.0, self.padding.0, self.input.0)?;
        let column = Self::tap(output.1, tap.1, self.stride.1, self.dilation.1, self.padding.1, self.input.1)?;
        Some(row * self.input.1 + column)
    }

    /// # Panics
    /// If a size is not what the window says.
    pub(crate) fn check(&self, channels: usize, input: usize) {
        let pixels = self.input.0.checked_mul(self.input.1).and_then(|pixels| pixels.checked_mul(channels));
        assert_eq!(pixels, Some(input), "input of {:?} pixels of {channels} channels", self.input);
    }
}

/// How two centred tensors are added: `clamp(round_half_to_even(f32(a) * scales.0 + f32(b) * scales.1), low, high)`.
///
/// For scales a, b of the operands and c of the sum, `scales = (a / c, b / c)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sum {
    pub scales: (f32, f32),
    pub low: i16,
    pub high: i16,
}

impl Sum {
    pub(crate) fn apply(&self, first: i16, second: i16) -> i16 {
        let sum = f32::from(first) * self.scales.0 + f32::from(second) * self.scales.1;
        (sum.round_ties_even() as i32).clamp(self.low.into(), self.high.into()) as i16
    }
}
