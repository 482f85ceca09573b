//! The reference: each output value by itself.
//!
//! Resampling: `clip((half + sum of value * weight) >> 22)` in i32. The weights add up to at most 2^22 + 2^15 and values
//! are at most 255, so no partial sum overflows and the order of additions does not matter.
//! Normalisation: `(value - mean) * scale` in f32, rounded after each of the two operations.

use super::{CHANNELS, Channel, Coefficients, HALF, clip};

/// Resamples `rows` rows of `width` pixels along each row: `output` gets `rows` rows of `columns.len()` pixels.
pub fn resample_columns(input: &[u8], width: usize, rows: usize, columns: &Coefficients, output: &mut [u8]) {
    for row in 0..rows {
        for column in 0..columns.len() {
            let taps = columns.taps(column);
            for channel in 0..CHANNELS {
                let mut sum = HALF;
                for (tap, weight) in taps.weights.iter().enumerate() {
                    let pixel = row * width + taps.start + tap;
                    sum += i32::from(input[pixel * CHANNELS + channel]) * weight;
                }
                output[(row * columns.len() + column) * CHANNELS + channel] = clip(sum);
            }
        }
    }
}

/// Resamples rows of `width` pixels along the columns: `output` gets `rows.len()` rows.
pub fn resample_rows(input: &[u8], width: usize, rows: &Coefficients, output: &mut [u8]) {
    let row_bytes = width * CHANNELS;
    for row in 0..rows.len() {
        let taps = rows.taps(row);
        for byte in 0..row_bytes {
            let mut sum = HALF;
            for (tap, weight) in taps.weights.iter().enumerate() {
                sum += i32::from(input[(taps.start + tap) * row_bytes + byte]) * weight;
            }
            output[row * row_bytes + byte] = clip(sum);
        }
    }
}

/// Writes one channel of all pixels of `input`, normalised, where `channel` says.
pub fn normalise(input: &[u8], channel: Channel, output: &mut [f32]) {
    for (index, pixel) in input.chunks_exact(CHANNELS).enumerate() {
        let value = f32::from(pixel[channel.source]);
        output[channel.offset + index * channel.stride] = (value - channel.mean) * channel.scale;
    }
}
