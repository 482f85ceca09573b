//! The reference: each output by itself, from the definition.

use super::{DepthwiseWeights, Requantise, Sum, Window};
use std::ops::Range;

/// Depthwise convolution: output rows `rows` of all channels, sums brought back to the 8-bit grid as [`Requantise`] says.
///
/// `input` is `[height][width][channels]`, `output` the same for the output's size; rows keep their places whatever `rows`.
/// Sums are exact: a product is below 2^31 / 65,536 for centred 8-bit values, and a kernel has fewer taps than that.
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
    let channels = weights.channels();
    check_depthwise(input, window, &weights, &requantise, &rows, output);
    for row in rows {
        for column in 0..window.output[1] {
            for channel in 0..channels {
                let mut sum = 0i32;
                for tap in (0..window.kernel[0]).flat_map(|row| (0..window.kernel[1]).map(move |column| (row, column)))
                {
                    if let Some(pixel) = super::pixel(window, (row, column), tap) {
                        let product =
                            i32::from(input[pixel * channels + channel]) * i32::from(weights.at(channel, tap));
                        sum = sum.wrapping_add(product);
                    }
                }
                output[(row * window.output[1] + column) * channels + channel] = requantise.apply(sum, channel);
            }
        }
    }
}

pub(crate) fn check_depthwise(
    input: &[i16],
    window: &Window,
    weights: &DepthwiseWeights<'_>,
    requantise: &Requantise<'_>,
    rows: &Range<usize>,
    output: &[i16],
) {
    let channels = weights.channels();
    check_input(window, channels, input.len());
    weights.check(window);
    requantise.check_columns(channels);
    let outputs = window.output[0].checked_mul(window.output[1]).and_then(|pixels| pixels.checked_mul(channels));
    assert_eq!(outputs, Some(output.len()), "output of {:?} pixels of {channels} channels", window.output);
    assert!(rows.end <= window.output[0], "rows {rows:?} of {}", window.output[0]);
}

fn check_input(window: &Window, channels: usize, length: usize) {
    let values = window.input[0].checked_mul(window.input[1]).and_then(|pixels| pixels.checked_mul(channels));
    assert_eq!(values, Some(length), "input of {:?} pixels of {channels} channels", window.input);
}

/// Puts what output pixels `pixels` see into rows of `stride` values: `[row of the kernel][column][channel]`, padding 0, and
/// zeros to the end of the row. Row 0 is the first of `pixels`. `channels` are those of the range in pixels of
/// `input_channels`, for convolutions in groups.
///
/// # Panics
/// If a length does not fit.
pub fn gather(
    input: &[i16],
    input_channels: usize,
    channels: Range<usize>,
    window: &Window,
    pixels: Range<usize>,
    output: &mut [i16],
    stride: usize,
) {
    check_gather(input, input_channels, &channels, window, &pixels, output, stride);
    for (pixel, row) in pixels.zip(output.chunks_mut(stride)) {
        row.fill(0);
        let at = (pixel / window.output[1], pixel % window.output[1]);
        for tap in (0..window.kernel[0]).flat_map(|row| (0..window.kernel[1]).map(move |column| (row, column))) {
            if let Some(pixel) = super::pixel(window, at, tap) {
                let place = (tap.0 * window.kernel[1] + tap.1) * channels.len();
                let values = &input[pixel * input_channels..][channels.clone()];
                row[place..place + channels.len()].copy_from_slice(values);
            }
        }
    }
}

pub(crate) fn check_gather(
    input: &[i16],
    input_channels: usize,
    channels: &Range<usize>,
    window: &Window,
    pixels: &Range<usize>,
    output: &[i16],
    stride: usize,
) {
    check_input(window, input_channels, input.len());
    assert!(channels.end <= input_channels, "channels {channels:?} of {input_channels}");
    let taps = window.kernel[0].checked_mul(window.kernel[1]).and_then(|taps| taps.checked_mul(channels.len()));
    assert!(stride > 0 && taps.is_some_and(|taps| taps <= stride), "{taps:?} taps in a row of {stride}");
    let outputs = window.output[0].checked_mul(window.output[1]);
    assert!(outputs.is_some_and(|outputs| pixels.end <= outputs), "pixels {pixels:?} of {:?}", window.output);
    let needed = pixels.len().checked_mul(stride);
    assert!(needed.is_some_and(|needed| needed <= output.len()), "{} rows of {stride}", pixels.len());
}

/// Adds two tensors, see [`Sum`].
///
/// # Panics
/// If lengths differ.
pub fn add(first: &[i16], second: &[i16], sum: Sum, output: &mut [i16]) {
    assert!(first.len() == second.len() && first.len() == output.len(), "lengths of a sum");
    for ((output, first), second) in output.iter_mut().zip(first).zip(second) {
        *output = sum.apply(*first, *second);
    }
}

/// The mean of each channel over all pixels, requantised: the exact sum as f32 times `multiplier`, which is input scale /
/// output scale / number of pixels, rounded half to even and clamped to `low..=high`.
///
/// # Panics
/// If lengths do not fit or there are more than 65,536 pixels, whose sum might overflow.
pub fn mean(input: &[i16], multiplier: f32, low: i16, high: i16, output: &mut [i16]) {
    check_mean(input, output);
    let channels = output.len();
    for (channel, output) in output.iter_mut().enumerate() {
        let sum: i32 = input.iter().skip(channel).step_by(channels).map(|value| i32::from(*value)).sum();
        *output = ((sum as f32 * multiplier).round_ties_even() as i32).clamp(low.into(), high.into()) as i16;
    }
}

pub(crate) fn check_mean(input: &[i16], output: &[i16]) {
    let channels = output.len();
    let fits = channels > 0 && input.len().is_multiple_of(channels) && input.len() / channels <= 1 << 16;
    assert!(fits, "{} values of {channels} channels", input.len());
}
