//! Bodies for any target, written so that the inner loops are over consecutive bytes.

use super::{CHANNELS, Channel, Coefficients, HALF, clip};

/// See [`super::naive::resample_columns`].
pub fn resample_columns(input: &[u8], width: usize, rows: usize, columns: &Coefficients, output: &mut [u8]) {
    let out_row_bytes = columns.len() * CHANNELS;
    if width == 0 || out_row_bytes == 0 {
        return;
    }
    let in_rows = input.chunks_exact(width * CHANNELS);
    for (row, out_row) in in_rows.zip(output.chunks_exact_mut(out_row_bytes)).take(rows) {
        for (column, out_pixel) in out_row.as_chunks_mut::<CHANNELS>().0.iter_mut().enumerate() {
            let taps = columns.taps(column);
            let pixels = row[taps.start * CHANNELS..].as_chunks::<CHANNELS>().0;
            let mut sums = [HALF; CHANNELS];
            for (pixel, weight) in pixels.iter().zip(taps.weights) {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(*value) * weight;
                }
            }
            *out_pixel = sums.map(clip);
        }
    }
}

/// See [`super::naive::resample_rows`].
pub fn resample_rows(input: &[u8], width: usize, rows: &Coefficients, output: &mut [u8]) {
    let row_bytes = width * CHANNELS;
    if row_bytes == 0 {
        return;
    }
    let mut sums = vec![0i32; row_bytes];
    for (row, out_row) in output.chunks_exact_mut(row_bytes).enumerate().take(rows.len()) {
        let taps = rows.taps(row);
        sums.fill(HALF);
        for (in_row, weight) in input[taps.start * row_bytes..].chunks_exact(row_bytes).zip(taps.weights) {
            for (sum, value) in sums.iter_mut().zip(in_row) {
                *sum += i32::from(*value) * weight;
            }
        }
        for (byte, sum) in out_row.iter_mut().zip(&sums) {
            *byte = clip(*sum);
        }
    }
}

/// See [`super::naive::normalise`].
pub fn normalise(input: &[u8], channel: Channel, output: &mut [f32]) {
    let pixels = input.as_chunks::<CHANNELS>().0;
    if pixels.is_empty() {
        return;
    }
    let places = output[channel.offset..].iter_mut().step_by(channel.stride);
    for (place, pixel) in places.zip(pixels) {
        *place = (f32::from(pixel[channel.source]) - channel.mean) * channel.scale;
    }
}
