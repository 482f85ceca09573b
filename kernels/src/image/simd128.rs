//! WebAssembly bodies with 128-bit SIMD.

use super::{CHANNELS, Channel, Coefficients, HALF, PRECISION_BITS, portable};
use std::arch::wasm32::*;

/// Bytes of a vector.
const LANES: usize = 16;

/// Four sums brought back to 8 bits, still as i32.
fn clip_lanes(sums: v128) -> v128 {
    i32x4_min(i32x4_max(i32x4_shr(sums, PRECISION_BITS), i32x4_splat(0)), i32x4_splat(255))
}

/// See [`super::naive::resample_columns`]. A pixel and the byte after it are one vector of four sums; of the last pixel
/// of the input there is no byte after, so the last row goes the portable way.
pub fn resample_columns(input: &[u8], width: usize, rows: usize, columns: &Coefficients, output: &mut [u8]) {
    let (row_bytes, out_row_bytes) = (width * CHANNELS, columns.len() * CHANNELS);
    let vector_rows = rows.saturating_sub(1);
    assert!(input.len() >= rows * row_bytes && output.len() >= rows * out_row_bytes);
    for row in 0..vector_rows {
        for column in 0..columns.len() {
            let taps = columns.taps(column);
            assert!(taps.start + taps.weights.len() <= width);
            let mut sums = i32x4_splat(HALF);
            for (tap, weight) in taps.weights.iter().enumerate() {
                let at = row * row_bytes + (taps.start + tap) * CHANNELS;
                // SAFETY: the pixel is in row `row`, which is not the last: the four bytes from `at` on end at most one
                // byte after this row and so within `input`, whose length was checked.
                let pixel = unsafe { v128_load32_zero(input.as_ptr().add(at).cast()) };
                let values = u32x4_extend_low_u16x8(u16x8_extend_low_u8x16(pixel));
                sums = i32x4_add(sums, i32x4_mul(values, i32x4_splat(*weight)));
            }
            let clipped = clip_lanes(sums);
            let to = &mut output[row * out_row_bytes + column * CHANNELS..][..CHANNELS];
            to[0] = i32x4_extract_lane::<0>(clipped) as u8;
            to[1] = i32x4_extract_lane::<1>(clipped) as u8;
            to[2] = i32x4_extract_lane::<2>(clipped) as u8;
        }
    }
    if rows > 0 {
        let (input, output) = (&input[vector_rows * row_bytes..], &mut output[vector_rows * out_row_bytes..]);
        portable::resample_columns(input, width, 1, columns, output);
    }
}

/// See [`super::naive::resample_rows`]. Sixteen bytes of a row at a time; what is left of a row byte by byte.
pub fn resample_rows(input: &[u8], width: usize, rows: &Coefficients, output: &mut [u8]) {
    let row_bytes = width * CHANNELS;
    for row in 0..rows.len() {
        let taps = rows.taps(row);
        assert!(input.len() >= (taps.start + taps.weights.len()) * row_bytes);
        let out_row = &mut output[row * row_bytes..][..row_bytes];
        let (vectors, rest) = out_row.as_chunks_mut::<LANES>();
        let rest_start = vectors.len() * LANES;
        for (index, out_vector) in vectors.iter_mut().enumerate() {
            let mut sums = [i32x4_splat(HALF); 4];
            for (tap, weight) in taps.weights.iter().enumerate() {
                let at = (taps.start + tap) * row_bytes + index * LANES;
                // SAFETY: sixteen bytes within row `start + tap`, all rows of the taps being within `input` as checked.
                let bytes = unsafe { v128_load(input.as_ptr().add(at).cast()) };
                let (low, high) = (u16x8_extend_low_u8x16(bytes), u16x8_extend_high_u8x16(bytes));
                let weight = i32x4_splat(*weight);
                sums[0] = i32x4_add(sums[0], i32x4_mul(u32x4_extend_low_u16x8(low), weight));
                sums[1] = i32x4_add(sums[1], i32x4_mul(u32x4_extend_high_u16x8(low), weight));
                sums[2] = i32x4_add(sums[2], i32x4_mul(u32x4_extend_low_u16x8(high), weight));
                sums[3] = i32x4_add(sums[3], i32x4_mul(u32x4_extend_high_u16x8(high), weight));
            }
            // Clipped to 0..=255, so that narrowing changes no value.
            let low = u16x8_narrow_i32x4(clip_lanes(sums[0]), clip_lanes(sums[1]));
            let high = u16x8_narrow_i32x4(clip_lanes(sums[2]), clip_lanes(sums[3]));
            // SAFETY: `out_vector` is sixteen bytes; v128_store needs no alignment.
            unsafe { v128_store(out_vector.as_mut_ptr().cast(), u8x16_narrow_i16x8(low, high)) };
        }
        for (index, byte) in rest.iter_mut().enumerate() {
            let mut sum = HALF;
            for (tap, weight) in taps.weights.iter().enumerate() {
                sum += i32::from(input[(taps.start + tap) * row_bytes + rest_start + index]) * weight;
            }
            *byte = super::clip(sum);
        }
    }
}

/// See [`super::naive::normalise`]. Four pixels at a time where their values go to consecutive places.
pub fn normalise(input: &[u8], channel: Channel, output: &mut [f32]) {
    const PIXELS: usize = 4;
    let pixels = input.len() / CHANNELS;
    if channel.stride != 1 || pixels < PIXELS {
        return portable::normalise(input, channel, output);
    }
    // A vector holds five pixels and a byte: the last ones have no sixteen bytes to load.
    let vectors = (input.len().saturating_sub(LANES - PIXELS * CHANNELS) / (PIXELS * CHANNELS)).min(pixels / PIXELS);
    let places = &mut output[channel.offset..][..pixels];
    let mut lanes = [0x80u8; LANES];
    for pixel in 0..PIXELS {
        lanes[pixel * 4] = (pixel * CHANNELS + channel.source) as u8;
    }
    // SAFETY: `lanes` is sixteen bytes.
    let lanes = unsafe { v128_load(lanes.as_ptr().cast()) };
    let (mean, scale) = (f32x4_splat(channel.mean), f32x4_splat(channel.scale));
    for vector in 0..vectors {
        let at = vector * PIXELS * CHANNELS;
        assert!(at + LANES <= input.len());
        // SAFETY: sixteen bytes from `at` on are within `input`.
        let bytes = unsafe { v128_load(input.as_ptr().add(at).cast()) };
        // Picks the channel's byte of each pixel into a 32-bit lane; other bytes become 0.
        let values = f32x4_convert_i32x4(i8x16_swizzle(bytes, lanes));
        let normal = f32x4_mul(f32x4_sub(values, mean), scale);
        let place = &mut places[vector * PIXELS..][..PIXELS];
        // SAFETY: `place` is four f32, sixteen bytes.
        unsafe { v128_store(place.as_mut_ptr().cast(), normal) };
    }
    let done = vectors * PIXELS;
    let rest = Channel { offset: channel.offset + done, ..channel };
    portable::normalise(&input[done * CHANNELS..], rest, output);
}
