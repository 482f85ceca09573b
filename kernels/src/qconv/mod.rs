//! Convolutions and pooling of centred 16-bit activations, channels last, one image at a time.
//!
//! A pointwise convolution is [`crate::int8::gemm_requantised`] with a row for each pixel. Any other convolution but a
//! depthwise one is the same after [`gather`] has put the pixels that an output sees into a row. Activations are centred,
//! so padding is 0 whatever the zero point.

mod estimate;
pub mod naive;
mod pack;
pub mod portable;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub mod simd128;

pub use crate::int8::Requantise;
pub use crate::window::Window;
pub use estimate::{
    estimate_add_instructions, estimate_depthwise_instructions, estimate_gather_instructions,
    estimate_mean_instructions,
};
pub use pack::{DepthwiseWeights, pack_depthwise};
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub use portable::{add, depthwise, gather, mean};
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub use simd128::{add, depthwise, gather, mean};

/// The input pixel that a tap of an output pixel sees, unless it is padding.
pub(crate) fn pixel(window: &Window, output: (usize, usize), tap: (usize, usize)) -> Option<usize> {
    let (row, column) = (window.source(0, output.0, tap.0)?, window.source(1, output.1, tap.1)?);
    Some(row * window.input[1] + column)
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
