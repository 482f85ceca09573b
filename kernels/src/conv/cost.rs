//! What a convolution costs.

use super::Filter;
use crate::gemm;
use crate::window::Window;

/// Metered instructions of [`super::conv2d`] over `pixels` output pixels. Without page charges.
pub fn estimate_instructions(window: &Window, filter: &Filter, pixels: usize) -> u64 {
    let k = window.taps() * filter.group_inputs();
    gemm::estimate_instructions(pixels, k, filter.group_outputs()) * filter.groups() as u64
}
