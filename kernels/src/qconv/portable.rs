//! Bodies for any target.

use super::naive::check_depthwise;
use super::{DepthwiseWeights, Requantise, Window};
use std::ops::Range;

pub use super::naive::{add, gather, mean};

/// Channels whose sums are kept at once.
const CHANNELS: usize = 32;

/// See [`super::naive::depthwise`].
///
/// # Panics
/// If a length does not fit.
pub fn depthwise(
    input: &[i16],
    window: &Window,
    weights: DepthwiseWeights<'_>,
    requantise: Requantise<'_>,
    rows: Range<usize>,
    output: &mut [i16],
) {
    check_depthwise(input, window, &weights, &requantise, &rows, output);
    let channels = weights.channels();
    for row in rows {
        for column in 0..window.output[1] {
            for first in (0..channels).step_by(CHANNELS) {
                let width = (channels - first).min(CHANNELS);
                let mut sums = [0i32; CHANNELS];
                for tap in (0..window.kernel[0]).flat_map(|row| (0..window.kernel[1]).map(move |column| (row, column)))
                {
                    let Some(pixel) = super::pixel(window, (row, column), tap) else { continue };
                    let values = &input[pixel * channels + first..][..width];
                    for (index, (sum, value)) in sums.iter_mut().zip(values).enumerate() {
                        *sum = sum.wrapping_add(i32::from(*value) * i32::from(weights.at(first + index, tap)));
                    }
                }
                let place = &mut output[(row * window.output[1] + column) * channels + first..][..width];
                for (index, (place, sum)) in place.iter_mut().zip(sums).enumerate() {
                    *place = requantise.apply(sum, first + index);
                }
            }
        }
    }
}
