//! WebAssembly bodies with 128-bit SIMD.

use super::{Grid, Integer, SMALLEST_MAGNITUDE, naive};
use crate::unroll::{Cursor, unroll};
use std::arch::wasm32::*;

/// Values that a pass of a loop takes.
const STEP: usize = 16;

/// Calls `vectors` with pointers to each 16 values of input and output, and `rest` with what is left of both.
#[inline(always)]
fn stream<A, B>(input: &[A], output: &mut [B], vectors: impl Fn(*const A, *mut B), rest: impl FnOnce(&[A], &mut [B])) {
    assert_eq!(input.len(), output.len(), "input and output");
    let whole = input.len() / STEP * STEP;
    let (mut from, mut to) = (input.as_ptr(), output.as_mut_ptr());
    let (mut from_cursor, mut to_cursor) = (Cursor::new(from), Cursor::new(to.cast_const()));
    for _ in 0..whole / STEP {
        vectors(from, to);
        from = from_cursor.advance(from, STEP);
        to = to_cursor.advance(to.cast_const(), STEP).cast_mut();
    }
    if whole < input.len() {
        rest(&input[whole..], &mut output[whole..]);
    }
}

/// Four values divided, rounded half to even and made i32; NaN becomes 0.
#[inline(always)]
fn divided(values: v128, scales: v128) -> v128 {
    i32x4_trunc_sat_f32x4(f32x4_nearest(f32x4_div(values, scales)))
}

/// The same of eight values, as i16, saturated.
///
/// # Safety
/// Eight values are readable.
#[inline(always)]
unsafe fn eight_divided(values: *const f32, scales: [v128; 2]) -> v128 {
    // SAFETY: as promised by the caller.
    unsafe {
        let (first, second) = (v128_load(values.cast()), v128_load(values.add(4).cast()));
        i16x8_narrow_i32x4(divided(first, scales[0]), divided(second, scales[1]))
    }
}

/// Eight values of T as i16.
///
/// # Safety
/// They are readable.
#[inline(always)]
unsafe fn widened<T: Integer>(values: *const T) -> v128 {
    // SAFETY: as promised by the caller; T is u8 or i8.
    unsafe { if T::MIN < 0 { i16x8_load_extend_i8x8(values.cast()) } else { i16x8_load_extend_u8x8(values.cast()) } }
}

/// Sixteen i16 as values of T, saturated.
#[inline(always)]
fn narrowed<T: Integer>(first: v128, second: v128) -> v128 {
    if T::MIN < 0 { i8x16_narrow_i16x8(first, second) } else { u8x16_narrow_i16x8(first, second) }
}

/// See [`naive::row`].
///
/// # Panics
/// If `output` is shorter than the row or `limit` is not positive.
pub fn row(input: &[f32], limit: i16, output: &mut [i16]) -> f32 {
    assert!(output.len() >= input.len() && limit > 0, "{} values to {}, limit {limit}", input.len(), output.len());
    let magnitude = magnitude(input);
    let (output, behind) = output.split_at_mut(input.len());
    behind.fill(0);
    if magnitude.is_nan() || magnitude < SMALLEST_MAGNITUDE {
        output.fill(0);
        return if magnitude.is_nan() { f32::NAN } else { 0.0 };
    }
    let factor = f32::from(limit) / magnitude;
    let factors = f32x4_splat(factor);
    let scaled = |values: v128| i32x4_trunc_sat_f32x4(f32x4_nearest(f32x4_mul(values, factors)));
    let vectors = |from: *const f32, to: *mut i16| {
        unroll!(V in 2 {
            // SAFETY: sixteen values at both pointers.
            unsafe {
                let first = scaled(v128_load(from.add(8 * V).cast()));
                let second = scaled(v128_load(from.add(8 * V + 4).cast()));
                v128_store(to.add(8 * V).cast(), i16x8_narrow_i32x4(first, second));
            }
        });
    };
    stream(input, output, vectors, |input, output| {
        for (output, value) in output.iter_mut().zip(input) {
            *output = i32x4_extract_lane::<0>(scaled(f32x4_splat(*value))) as i16;
        }
    });
    magnitude / f32::from(limit)
}

/// The largest magnitude of the values, NaN if one of them is not finite.
fn magnitude(input: &[f32]) -> f32 {
    // Magnitudes are ordered as their bits are; infinities and then NaNs are above all others.
    let mask = i32x4_splat(i32::MAX);
    let mut largest = i32x4_splat(0);
    let whole = input.len() / STEP * STEP;
    let mut from = input.as_ptr();
    let mut cursor = Cursor::new(from);
    for _ in 0..whole / STEP {
        unroll!(V in 4 {
            // SAFETY: sixteen values from `from` on are within `input`.
            let values = unsafe { v128_load(from.add(4 * V).cast()) };
            largest = i32x4_max(largest, v128_and(values, mask));
        });
        from = cursor.advance(from, STEP);
    }
    for value in &input[whole..] {
        largest = i32x4_max(largest, v128_and(f32x4_splat(*value), mask));
    }
    let lanes = [
        i32x4_extract_lane::<0>(largest),
        i32x4_extract_lane::<1>(largest),
        i32x4_extract_lane::<2>(largest),
        i32x4_extract_lane::<3>(largest),
    ];
    let magnitude = f32::from_bits(lanes.into_iter().max().unwrap_or(0) as u32);
    if magnitude.is_finite() { magnitude } else { f32::NAN }
}

/// See [`naive::quantize_linear`].
pub(super) fn quantize_linear<T: Integer>(input: &[f32], grid: Grid<'_>, output: &mut [T]) {
    grid.check::<T>(input.len());
    assert_eq!(input.len(), output.len(), "input and output");
    let channels = grid.scales.len();
    if grid.inner >= STEP || channels == 1 {
        // One channel is one run, however short its inner part is.
        let run = if channels == 1 { input.len().max(1) } else { grid.inner };
        for (number, (input, output)) in input.chunks(run).zip(output.chunks_mut(run)).enumerate() {
            quantize_run(input, grid.scales[number % channels], grid.zero_point(number % channels), output);
        }
    } else if grid.inner == 1 && channels >= STEP {
        let mut zero_points = |channel: usize| zero_points(&grid, channel);
        for (input, output) in input.chunks(channels).zip(output.chunks_mut(channels)) {
            quantize_channels(input, &grid, &mut zero_points, output);
        }
    } else {
        naive::quantize_linear(input, grid, output);
    }
}

fn quantize_run<T: Integer>(input: &[f32], scale: f32, zero_point: i32, output: &mut [T]) {
    let (scales, zero_points) = (f32x4_splat(scale), i16x8_splat(zero_point as i16));
    let vectors = |from: *const f32, to: *mut T| {
        // SAFETY: sixteen values at both pointers.
        unsafe {
            let first = i16x8_add_sat(eight_divided(from, [scales; 2]), zero_points);
            let second = i16x8_add_sat(eight_divided(from.add(8), [scales; 2]), zero_points);
            v128_store(to.cast(), narrowed::<T>(first, second));
        }
    };
    stream(input, output, vectors, |input, output| {
        naive::quantize_linear(input, Grid { scales: &[scale], zero_points: &[zero_point], inner: 1 }, output);
    });
}

/// Zero points of eight channels, as i16.
fn zero_points(grid: &Grid<'_>, channel: usize) -> v128 {
    if grid.zero_points.is_empty() {
        return i16x8_splat(0);
    }
    let eight = &grid.zero_points[channel..channel + 8];
    // SAFETY: `eight` is eight i32, two vectors.
    unsafe { i16x8_narrow_i32x4(v128_load(eight.as_ptr().cast()), v128_load(eight[4..].as_ptr().cast())) }
}

/// Scales of eight channels.
fn scales(grid: &Grid<'_>, channel: usize) -> [v128; 2] {
    let eight = &grid.scales[channel..channel + 8];
    // SAFETY: `eight` is eight f32, two vectors.
    unsafe { [v128_load(eight.as_ptr().cast()), v128_load(eight[4..].as_ptr().cast())] }
}

/// Quantises the channels of one pixel.
fn quantize_channels<T: Integer>(
    input: &[f32],
    grid: &Grid<'_>,
    zero_points: &mut impl FnMut(usize) -> v128,
    output: &mut [T],
) {
    let whole = input.len() / STEP * STEP;
    for channel in (0..whole).step_by(STEP) {
        let (from, to) = (&input[channel..channel + STEP], &mut output[channel..channel + STEP]);
        // SAFETY: sixteen values in both slices.
        unsafe {
            let first = eight_divided(from.as_ptr(), scales(grid, channel));
            let second = eight_divided(from.as_ptr().add(8), scales(grid, channel + 8));
            let first = i16x8_add_sat(first, zero_points(channel));
            let second = i16x8_add_sat(second, zero_points(channel + 8));
            v128_store(to.as_mut_ptr().cast(), narrowed::<T>(first, second));
        }
    }
    for channel in whole..input.len() {
        let zero_point = grid.zero_point(channel);
        let grid = Grid { scales: &grid.scales[channel..=channel], zero_points: &[zero_point], inner: 1 };
        naive::quantize_linear(&input[channel..=channel], grid, &mut output[channel..=channel]);
    }
}

/// See [`naive::quantize_centred`].
///
/// # Panics
/// If lengths do not agree or the range is empty.
pub fn quantize_centred(input: &[f32], scale: f32, low: i16, high: i16, output: &mut [i16]) {
    assert!(low <= high, "{low} to {high}");
    let (scales, lows, highs) = (f32x4_splat(scale), i16x8_splat(low), i16x8_splat(high));
    let vectors = |from: *const f32, to: *mut i16| {
        unroll!(V in 2 {
            // SAFETY: sixteen values at both pointers.
            unsafe {
                let eight = eight_divided(from.add(8 * V), [scales; 2]);
                v128_store(to.add(8 * V).cast(), i16x8_min(i16x8_max(eight, lows), highs));
            }
        });
    };
    stream(input, output, vectors, |input, output| naive::quantize_centred(input, scale, low, high, output));
}

/// See [`naive::dequantize_linear`].
pub(super) fn dequantize_linear<T: Integer>(input: &[T], grid: Grid<'_>, output: &mut [f32]) {
    grid.check::<T>(input.len());
    assert_eq!(input.len(), output.len(), "input and output");
    let channels = grid.scales.len();
    if grid.inner >= STEP || channels == 1 {
        let run = if channels == 1 { input.len().max(1) } else { grid.inner };
        for (number, (input, output)) in input.chunks(run).zip(output.chunks_mut(run)).enumerate() {
            dequantize_run(input, grid.scales[number % channels], grid.zero_point(number % channels), output);
        }
    } else if grid.inner == 1 && channels >= STEP {
        for (input, output) in input.chunks(channels).zip(output.chunks_mut(channels)) {
            dequantize_channels(input, &grid, output);
        }
    } else {
        naive::dequantize_linear(input, grid, output);
    }
}

/// Eight i16 times their scales.
///
/// # Safety
/// Eight values are writable.
#[inline(always)]
unsafe fn store_scaled(values: v128, scales: [v128; 2], to: *mut f32) {
    // SAFETY: as promised by the caller.
    unsafe {
        let first = f32x4_convert_i32x4(i32x4_extend_low_i16x8(values));
        v128_store(to.cast(), f32x4_mul(first, scales[0]));
        let second = f32x4_convert_i32x4(i32x4_extend_high_i16x8(values));
        v128_store(to.add(4).cast(), f32x4_mul(second, scales[1]));
    }
}

fn dequantize_run<T: Integer>(input: &[T], scale: f32, zero_point: i32, output: &mut [f32]) {
    let (scales, zero_points) = (f32x4_splat(scale), i16x8_splat(zero_point as i16));
    let vectors = |from: *const T, to: *mut f32| {
        unroll!(V in 2 {
            // SAFETY: sixteen values at both pointers.
            unsafe {
                store_scaled(i16x8_sub(widened(from.add(8 * V)), zero_points), [scales; 2], to.add(8 * V));
            }
        });
    };
    stream(input, output, vectors, |input, output| {
        naive::dequantize_linear(input, Grid { scales: &[scale], zero_points: &[zero_point], inner: 1 }, output);
    });
}

/// Dequantises the channels of one pixel.
fn dequantize_channels<T: Integer>(input: &[T], grid: &Grid<'_>, output: &mut [f32]) {
    const EIGHT: usize = 8;
    let whole = input.len() / EIGHT * EIGHT;
    for channel in (0..whole).step_by(EIGHT) {
        let (from, to) = (&input[channel..channel + EIGHT], &mut output[channel..channel + EIGHT]);
        // SAFETY: eight values in both slices.
        unsafe {
            let values = i16x8_sub(widened(from.as_ptr()), zero_points(grid, channel));
            store_scaled(values, scales(grid, channel), to.as_mut_ptr());
        }
    }
    for channel in whole..input.len() {
        output[channel] = (input[channel].wide() - grid.zero_point(channel)) as f32 * grid.scales[channel];
    }
}

/// See [`naive::dequantize_centred`].
///
/// # Panics
/// If lengths do not agree.
pub fn dequantize_centred(input: &[i16], scale: f32, output: &mut [f32]) {
    let scales = f32x4_splat(scale);
    let vectors = |from: *const i16, to: *mut f32| {
        unroll!(V in 2 {
            // SAFETY: sixteen values at both pointers.
            unsafe { store_scaled(v128_load(from.add(8 * V).cast()), [scales; 2], to.add(8 * V)) }
        });
    };
    stream(input, output, vectors, |input, output| naive::dequantize_centred(input, scale, output));
}

/// See [`naive::centre`].
pub(super) fn centre<T: Integer>(input: &[T], zero_point: T, output: &mut [i16]) {
    let zero_points = i16x8_splat(zero_point.wide() as i16);
    let vectors = |from: *const T, to: *mut i16| {
        unroll!(V in 2 {
            // SAFETY: sixteen values at both pointers.
            unsafe { v128_store(to.add(8 * V).cast(), i16x8_sub(widened(from.add(8 * V)), zero_points)) }
        });
    };
    stream(input, output, vectors, |input, output| naive::centre(input, zero_point, output));
}

/// See [`naive::uncentre`].
pub(super) fn uncentre<T: Integer>(input: &[i16], zero_point: T, output: &mut [T]) {
    let zero_points = i16x8_splat(zero_point.wide() as i16);
    let vectors = |from: *const i16, to: *mut T| {
        // SAFETY: sixteen values at both pointers.
        unsafe {
            let first = i16x8_add_sat(v128_load(from.cast()), zero_points);
            let second = i16x8_add_sat(v128_load(from.add(8).cast()), zero_points);
            v128_store(to.cast(), narrowed::<T>(first, second));
        }
    };
    stream(input, output, vectors, |input, output| naive::uncentre(input, zero_point, output));
}

/// See [`naive::block_sums`].
///
/// # Panics
/// If a block has no values or more than 2^16, or there is not a sum for each block.
pub fn block_sums(values: &[i16], block: usize, scale: f32, sums: &mut [f32]) {
    assert!((1..=1 << 16).contains(&block) && values.len().div_ceil(block) == sums.len(), "sums of blocks of {block}");
    let ones = i16x8_splat(1);
    for (sum, values) in sums.iter_mut().zip(values.chunks(block)) {
        let (vectors, rest) = values.as_chunks::<8>();
        let mut lanes = i32x4_splat(0);
        for vector in vectors {
            // SAFETY: eight values are there.
            lanes = i32x4_add(lanes, i32x4_dot_i16x8(unsafe { v128_load(vector.as_ptr().cast()) }, ones));
        }
        let halves = i32x4_add(lanes, i32x4_shuffle::<2, 3, 0, 1>(lanes, lanes));
        let whole = i32x4_extract_lane::<0>(halves) + i32x4_extract_lane::<1>(halves);
        *sum = rest.iter().fold(whole, |sum, value| sum + i32::from(*value)) as f32 * scale;
    }
}

/// See [`naive::column_magnitudes`]. Magnitudes are not negative, so their bits are ordered as i32 too.
///
/// # Panics
/// If the rows are not whole.
pub fn column_magnitudes(input: &[f32], magnitudes: &mut [f32]) {
    const STEP: usize = 4;
    assert!(!magnitudes.is_empty() && input.len().is_multiple_of(magnitudes.len()), "rows of {}", magnitudes.len());
    let mask = i32x4_splat(i32::MAX);
    let columns = magnitudes.len();
    let whole = columns / STEP * STEP;
    for column in (0..whole).step_by(STEP) {
        let place = magnitudes[column..column + STEP].as_mut_ptr();
        // SAFETY: four values of `magnitudes`, and of each row of the input.
        unsafe {
            let mut largest = v128_load(place.cast());
            let mut from = input.as_ptr().wrapping_add(column);
            for _ in 0..input.len() / columns {
                largest = i32x4_max(largest, v128_and(v128_load(from.cast()), mask));
                from = from.wrapping_add(columns);
            }
            v128_store(place.cast(), largest);
        }
    }
    if whole < columns {
        for row in input.chunks_exact(columns) {
            naive::column_magnitudes(&row[whole..], &mut magnitudes[whole..]);
        }
    }
}

/// See [`naive::dynamic_parameters`].
pub fn dynamic_parameters(input: &[f32]) -> (f32, u8) {
    let (mut least, mut largest) = (f32x4_splat(0.0), f32x4_splat(0.0));
    let whole = input.len() / STEP * STEP;
    let mut from = input.as_ptr();
    let mut cursor = Cursor::new(from);
    for _ in 0..whole / STEP {
        unroll!(V in 4 {
            // SAFETY: sixteen values from `from` on are within `input`.
            let values = unsafe { v128_load(from.add(4 * V).cast()) };
            // `pmin(a, b)` is b < a ? b : a, which leaves a where b is NaN.
            least = f32x4_pmin(least, values);
            largest = f32x4_pmax(largest, values);
        });
        from = cursor.advance(from, STEP);
    }
    for value in &input[whole..] {
        least = f32x4_pmin(least, f32x4_splat(*value));
        largest = f32x4_pmax(largest, f32x4_splat(*value));
    }
    let lanes = |vector: v128| {
        [
            f32x4_extract_lane::<0>(vector),
            f32x4_extract_lane::<1>(vector),
            f32x4_extract_lane::<2>(vector),
            f32x4_extract_lane::<3>(vector),
        ]
    };
    let least = lanes(least).into_iter().fold(0f32, |least, value| if value < least { value } else { least });
    let largest = lanes(largest).into_iter().fold(0f32, |largest, value| if value > largest { value } else { largest });
    naive::parameters(least, largest)
}
