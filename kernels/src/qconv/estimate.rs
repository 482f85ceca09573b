//! What the kernels cost, without page charges.

use super::{DepthwiseWeights, Window};

/// Metered instructions of [`super::depthwise`] for `rows` output rows.
pub fn estimate_depthwise_instructions(window: &Window, channels: usize, rows: usize) -> u64 {
    let _ = DepthwiseWeights::pairs(window.kernel);
    (rows * window.output[1] * channels * window.taps()) as u64
}

/// Metered instructions of [`super::gather`] for `pixels` output pixels.
pub fn estimate_gather_instructions(window: &Window, channels: usize, pixels: usize) -> u64 {
    (pixels * channels * window.taps()) as u64
}

/// Metered instructions of [`super::add`].
pub fn estimate_add_instructions(length: usize) -> u64 {
    length as u64 * 6
}

/// Metered instructions of [`super::mean`].
pub fn estimate_mean_instructions(pixels: usize, channels: usize) -> u64 {
    (pixels * channels * 2) as u64
}
