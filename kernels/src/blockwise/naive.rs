//! The reference: each output by itself, from the definition.

use super::{
    Activations, BLOCK, INT4_ACTIVATION_LIMIT, INT4_PREPARED_BLOCK, Int4Weights, Int8Weights, Output, Rescale, Tile,
    check, padded_inner, prepared_inner,
};
use crate::quantise::SMALLEST_MAGNITUDE;

/// A product with int8 weights, see [`super`]. Any i16 is an activation.
///
/// # Panics
/// If a slice is too short for the tile.
pub fn gemm_int8(
    activations: Activations<'_>,
    weights: Int8Weights<'_>,
    rescale: Rescale<'_>,
    tile: Tile,
    output: Output<'_, f32>,
) {
    check(&activations, padded_inner(weights.k), weights.n, &rescale, &tile, &output);
    for row in tile.rows {
        for column in tile.columns.clone() {
            let mut total = 0f32;
            for start in (0..weights.k).step_by(BLOCK) {
                let mut sum = 0i32;
                for index in start..weights.k.min(start + BLOCK) {
                    let activation = activations.values[row * activations.stride + index];
                    sum += i32::from(activation) * i32::from(weights.weight(index, column));
                }
                total += sum as f32 * weights.scale(start, column);
            }
            output.values[row * output.stride + column] = rescale.apply(total, row, column);
        }
    }
}

/// A product with 4-bit weights, see [`super`]. The activations are what [`prepare_int4`] makes; the sum of a block is
/// 16 times that of its products, the stored scale a sixteenth of the weights'.
///
/// # Panics
/// If a slice is too short for the tile.
pub fn gemm_int4(
    activations: Activations<'_>,
    weights: Int4Weights<'_>,
    rescale: Rescale<'_>,
    tile: Tile,
    output: Output<'_, f32>,
) {
    check(&activations, prepared_inner(weights.k), weights.n, &rescale, &tile, &output);
    for row in tile.rows {
        let values = &activations.values[row * activations.stride..];
        for column in tile.columns.clone() {
            let mut total = 0f32;
            for start in (0..weights.k).step_by(BLOCK) {
                let mut sum = 0i32;
                for index in start..padded_inner(weights.k).min(start + BLOCK) {
                    sum += 16 * prepared_value(values, index) * weights.weight(index, column);
                }
                total += sum as f32 * weights.scale(start, column);
            }
            output.values[row * output.stride + column] = rescale.apply(total, row, column);
        }
    }
}

/// Activation `index` of a prepared row.
fn prepared_value(prepared: &[i16], index: usize) -> i32 {
    let block = &prepared[index / BLOCK * INT4_PREPARED_BLOCK..];
    let four = index % BLOCK / 4 * 4;
    let high = i32::from(block[four + 2 + index % 2]);
    if index % 4 >= 2 { high } else { (i32::from(block[four + index % 2]) + high) / 16 }
}

/// Brings a row of activations, at most [`INT4_ACTIVATION_LIMIT`] in magnitude, into the form [`gemm_int4`] reads.
///
/// For each block of 32 values a, missing ones 0: for each four of them `16 a0 - a2, 16 a1 - a3, a2, a3`; then, as two
/// halves with the lower one first, -128 times the sum of all a0 and a1; then minus the sum of all a0 and a1 and minus the
/// sum of all a2 and a3.
///
/// # Panics
/// If `output` is not [`prepared_inner`] of the row's length, or a value is too large.
pub fn prepare_int4(row: &[i16], output: &mut [i16]) {
    assert_eq!(output.len(), prepared_inner(row.len()), "prepared row of {}", row.len());
    let limit = -INT4_ACTIVATION_LIMIT..=INT4_ACTIVATION_LIMIT;
    assert!(row.iter().all(|value| limit.contains(value)), "an activation beyond {INT4_ACTIVATION_LIMIT}");
    for (number, output) in output.chunks_mut(INT4_PREPARED_BLOCK).enumerate() {
        let value = |index: usize| row.get(number * BLOCK + index).copied().unwrap_or(0);
        let (mut low, mut high) = (0i32, 0i32);
        for four in (0..BLOCK).step_by(4) {
            for pair in 0..2 {
                let (first, second) = (value(four + pair), value(four + 2 + pair));
                output[four + pair] = 16 * first - second;
                output[four + 2 + pair] = second;
                low += i32::from(first);
                high += i32::from(second);
            }
        }
        let start = -128 * low;
        output[BLOCK] = start as i16;
        output[BLOCK + 1] = (start >> 16) as i16;
        output[BLOCK + 2] = -low as i16;
        output[BLOCK + 3] = -high as i16;
    }
}

/// Widens 4-bit weights, two in a byte and the first in its lower half, to the bytes of int8 ones: each less `less`.
///
/// # Panics
/// If `output` is not twice as long as `bytes`.
pub fn widen_int4(bytes: &[u8], less: u8, output: &mut [u8]) {
    assert_eq!(Some(output.len()), bytes.len().checked_mul(2), "{} bytes of 4-bit weights", bytes.len());
    for (byte, output) in bytes.iter().zip(output.chunks_exact_mut(2)) {
        output[0] = (byte & 15).wrapping_sub(less);
        output[1] = (byte >> 4).wrapping_sub(less);
    }
}

/// Brings a block of 4-bit weights, which mean `(weight - zero_point) * scale`, to the bytes of int8 ones whose zero point is
/// 0, and tells their scale. None is off by more than half of that, which is 1/254 of the largest of the sixteen.
///
/// # Panics
/// If `output` is not twice as long as `bytes`.
pub fn recentre_int4(bytes: &[u8], scale: f32, zero_point: f32, output: &mut [u8]) -> f32 {
    assert_eq!(Some(output.len()), bytes.len().checked_mul(2), "{} bytes of 4-bit weights", bytes.len());
    let (largest, factor) = match recentred_range(scale, zero_point) {
        Ok(range) => range,
        Err(scale) => {
            output.fill(0);
            return scale;
        }
    };
    let level = |weight: u8| (((f32::from(weight) - zero_point) * scale) * factor).round_ties_even() as i8 as u8;
    for (byte, output) in bytes.iter().zip(output.chunks_exact_mut(2)) {
        (output[0], output[1]) = (level(byte & 15), level(byte >> 4));
    }
    largest / 127.0
}

/// The largest magnitude of the sixteen levels, and what brings it to 127. The scale of zeros instead if all are next to
/// nothing, which is 0, or if one is no finite number, so that it shows in what is computed from it.
pub(crate) fn recentred_range(scale: f32, zero_point: f32) -> Result<(f32, f32), f32> {
    let (first, last) = (((0.0 - zero_point) * scale).abs(), ((15.0 - zero_point) * scale).abs());
    let largest = if last > first { last } else { first };
    if !(first + last).is_finite() {
        return Err(f32::NAN);
    }
    if largest < SMALLEST_MAGNITUDE { Err(0.0) } else { Ok((largest, 127.0 / largest)) }
}
