//! What the kernels cost, counted as the simd128 bodies run: without page charges.

use super::pack::CHANNEL_GROUP;
use super::{DepthwiseWeights, Window};

/// Metered instructions of [`super::depthwise`] for `rows` output rows.
pub fn estimate_depthwise_instructions(window: &Window, channels: usize, rows: usize) -> u64 {
    let columns = window.output[1] as u64;
    if channels < CHANNEL_GROUP {
        // The portable body, tap by tap.
        return (rows * channels * window.taps()) as u64 * columns * 30;
    }
    let (pairs, width) = (DepthwiseWeights::pairs(window.kernel) as u64, window.kernel[1] as u64);
    let groups = channels.div_ceil(CHANNEL_GROUP) as u64;
    let together = if window.stride[0] == 1 && window.dilation[0] == 1 { 2 } else { 1 };
    let unrolled = matches!(window.kernel, [2 | 3, 3] | [4 | 5, 5] | [6 | 7, 7]) && window.dilation[1] == 1;
    // Interleaving the columns of the input that are read.
    let read = (window.input[1] as u64).min(columns * window.stride[1] as u64 + width * window.dilation[1] as u64);
    let interleaved = read * (25 * pairs + 12);
    let part = |rows: u64| {
        let output = match unrolled {
            true => 2 * width * pairs * (5 * rows) + 33 * rows + 16,
            false => rows * (34 * width * pairs + 80),
        };
        300 + 6 * rows * width * pairs + interleaved + columns * output
    };
    let rows = rows as u64;
    100 + groups * (rows / together * part(together) + rows % together * part(1))
}

/// Metered instructions of [`super::gather`] of all channels for `pixels` output pixels.
pub fn estimate_gather_instructions(window: &Window, channels: usize, pixels: usize) -> u64 {
    let run = (window.kernel[1] * channels) as u64;
    pixels as u64 * (window.kernel[0] as u64 * (45 + 2 * run) + 60)
}

/// Metered instructions of [`super::add`].
pub fn estimate_add_instructions(length: usize) -> u64 {
    length as u64 * 65 / 8 + 100
}

/// Metered instructions of [`super::mean`].
pub fn estimate_mean_instructions(pixels: usize, channels: usize) -> u64 {
    channels.div_ceil(CHANNEL_GROUP) as u64 * (24 * pixels as u64 + 90)
}
