//! The reference: each value from the definition.

use super::{Grid, Integer, SMALLEST_MAGNITUDE};

/// Quantises one row to i16 with a scale of its own, which is returned: `input` is about `scale * output`.
///
/// With m the largest magnitude of the row: `output = round_half_to_even(input * (limit / m))` and `scale = m / limit`. A
/// row with m below [`SMALLEST_MAGNITUDE`] becomes zeros with scale 0; a row with a NaN or an infinity becomes zeros with
/// scale NaN, so that it shows in everything computed from it. Values of `output` past the row's length become 0.
///
/// # Panics
/// If `output` is shorter than the row or `limit` is not positive.
pub fn row(input: &[f32], limit: i16, output: &mut [i16]) -> f32 {
    assert!(output.len() >= input.len() && limit > 0, "{} values to {}, limit {limit}", input.len(), output.len());
    output.fill(0);
    let mut magnitude = 0f32;
    for value in input {
        if !value.is_finite() {
            return f32::NAN;
        }
        magnitude = if value.abs() > magnitude { value.abs() } else { magnitude };
    }
    if magnitude < SMALLEST_MAGNITUDE {
        return 0.0;
    }
    let factor = f32::from(limit) / magnitude;
    for (output, value) in output.iter_mut().zip(input) {
        *output = (value * factor).round_ties_even() as i16;
    }
    magnitude / f32::from(limit)
}

/// `round_half_to_even(value / scale)`, clamped to `low..=high`; NaN becomes 0, clamped.
fn centred(value: f32, scale: f32, low: i32, high: i32) -> i32 {
    ((value / scale).round_ties_even() as i32).clamp(low, high)
}

/// ONNX QuantizeLinear: `saturate(round_half_to_even(input / scale) + zero point)`. NaN becomes the zero point.
///
/// # Panics
/// If lengths do not agree or a zero point is not of the type.
pub fn quantize_linear<T: Integer>(input: &[f32], grid: Grid<'_>, output: &mut [T]) {
    grid.check::<T>(input.len());
    assert_eq!(input.len(), output.len(), "input and output");
    for (index, (output, value)) in output.iter_mut().zip(input).enumerate() {
        let channel = index / grid.inner % grid.scales.len();
        let zero_point = grid.zero_point(channel);
        let value = centred(*value, grid.scales[channel], T::MIN - zero_point, T::MAX - zero_point);
        *output = T::narrow(value + zero_point);
    }
}

/// QuantizeLinear with one scale to centred values: `clamp(round_half_to_even(input / scale), low, high)`.
///
/// For zero point z and an 8-bit type of values a to b, `low = a - z` and `high = b - z`. NaN becomes 0, clamped.
///
/// # Panics
/// If lengths do not agree or the range is empty.
pub fn quantize_centred(input: &[f32], scale: f32, low: i16, high: i16, output: &mut [i16]) {
    assert!(input.len() == output.len() && low <= high, "{} values, {low} to {high}", input.len());
    for (output, value) in output.iter_mut().zip(input) {
        *output = centred(*value, scale, low.into(), high.into()) as i16;
    }
}

/// ONNX DequantizeLinear: `f32(input - zero point) * scale`.
///
/// # Panics
/// If lengths do not agree or a zero point is not of the type.
pub fn dequantize_linear<T: Integer>(input: &[T], grid: Grid<'_>, output: &mut [f32]) {
    grid.check::<T>(input.len());
    assert_eq!(input.len(), output.len(), "input and output");
    for (index, (output, value)) in output.iter_mut().zip(input).enumerate() {
        let channel = index / grid.inner % grid.scales.len();
        *output = (value.wide() - grid.zero_point(channel)) as f32 * grid.scales[channel];
    }
}

/// DequantizeLinear of centred values with one scale: `f32(input) * scale`.
///
/// # Panics
/// If lengths do not agree.
pub fn dequantize_centred(input: &[i16], scale: f32, output: &mut [f32]) {
    assert_eq!(input.len(), output.len(), "input and output");
    for (output, value) in output.iter_mut().zip(input) {
        *output = f32::from(*value) * scale;
    }
}

/// Subtracts the zero point: from stored 8-bit values to centred ones.
///
/// # Panics
/// If lengths do not agree.
pub fn centre<T: Integer>(input: &[T], zero_point: T, output: &mut [i16]) {
    assert_eq!(input.len(), output.len(), "input and output");
    for (output, value) in output.iter_mut().zip(input) {
        *output = (value.wide() - zero_point.wide()) as i16;
    }
}

/// Adds the zero point and saturates: from centred values to stored 8-bit ones.
///
/// # Panics
/// If lengths do not agree.
pub fn uncentre<T: Integer>(input: &[i16], zero_point: T, output: &mut [T]) {
    assert_eq!(input.len(), output.len(), "input and output");
    for (output, value) in output.iter_mut().zip(input) {
        *output = T::narrow((i32::from(*value) + zero_point.wide()).clamp(T::MIN, T::MAX));
    }
}

/// The sum of each block of `block` values, the last of which may be shorter, times `scale`: what a zero point that is no
/// part of the weights is multiplied by.
///
/// # Panics
/// If a block has no values or more than 2^16, or there is not a sum for each block.
pub fn block_sums(values: &[i16], block: usize, scale: f32, sums: &mut [f32]) {
    assert!((1..=1 << 16).contains(&block) && values.len().div_ceil(block) == sums.len(), "sums of blocks of {block}");
    for (sum, values) in sums.iter_mut().zip(values.chunks(block)) {
        *sum = values.iter().map(|value| i32::from(*value)).sum::<i32>() as f32 * scale;
    }
}

/// Raises the magnitude of each column to the largest of the rows of `input`: what scales of weights that are stored
/// `[inner][column]` are made of, so that they can be quantised by [`quantize_linear`]. A NaN is larger than infinity.
///
/// # Panics
/// If the rows are not whole.
pub fn column_magnitudes(input: &[f32], magnitudes: &mut [f32]) {
    assert!(!magnitudes.is_empty() && input.len().is_multiple_of(magnitudes.len()), "rows of {}", magnitudes.len());
    for row in input.chunks_exact(magnitudes.len()) {
        for (magnitude, value) in magnitudes.iter_mut().zip(row) {
            // Magnitudes are ordered as their bits are.
            *magnitude = f32::from_bits(magnitude.to_bits().max(value.to_bits() & i32::MAX as u32));
        }
    }
}

/// What ONNX DynamicQuantizeLinear derives from the data: scale and zero point.
///
/// With a and b the least and largest value, 0 included: `scale = (b - a) / 255`, or 1 where that is 0;
/// `zero point = clamp(round_half_to_even(-a / scale), 0, 255)`. NaNs are left out of a and b.
pub fn dynamic_parameters(input: &[f32]) -> (f32, u8) {
    let (mut least, mut largest) = (0f32, 0f32);
    for value in input {
        least = if *value < least { *value } else { least };
        largest = if *value > largest { *value } else { largest };
    }
    parameters(least, largest)
}

pub(crate) fn parameters(least: f32, largest: f32) -> (f32, u8) {
    let scale = (largest - least) / 255.0;
    let scale = if scale == 0.0 { 1.0 } else { scale };
    (scale, (-least / scale).round_ties_even() as u8)
}
