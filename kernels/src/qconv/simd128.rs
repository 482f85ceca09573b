//! WebAssembly bodies with 128-bit SIMD.
//!
//! The dot product adds products of neighbouring lanes, so a depthwise convolution needs two taps of a channel side by
//! side. For 8 channels and an output row, or two where the stride is 1, the input rows are first interleaved in pairs in a
//! buffer, with the padding as zeros. A dot product then takes two taps of four channels; the second output row takes the
//! same pairs with weights that are one row further. No column is special in the loop over the outputs.

use super::naive::{check_depthwise, check_gather, check_mean};
use super::pack::CHANNEL_GROUP;
use super::{DepthwiseWeights, Requantise, Sum, Window, naive, portable};
use crate::int8::simd128::requantise_lanes;
use crate::unroll::{Cursor, unroll};
use std::arch::wasm32::*;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Values of the buffer of interleaved rows.
const BUFFER: usize = 1 << 14;
/// Values of a column of the buffer and a pair of rows: 8 channels of two rows.
const PAIR: usize = 2 * CHANNEL_GROUP;
/// Most pairs of rows that are interleaved; kernels with more rows go the portable way.
const MOST_PAIRS: usize = 8;

/// What the sums of 8 channels become.
#[derive(Clone, Copy)]
struct Grid {
    multipliers: [v128; 2],
    bias: [v128; 2],
    low: v128,
    high: v128,
}

impl Grid {
    fn new(requantise: &Requantise<'_>, channel: usize) -> Self {
        let multipliers = &requantise.multipliers[channel..channel + CHANNEL_GROUP];
        let bias = requantise.bias.map(|bias| &bias[channel..channel + CHANNEL_GROUP]);
        // SAFETY: slices of 8 values of 4 bytes, two vectors each.
        unsafe {
            let load = |values: *const v128| [v128_load(values), v128_load(values.add(1))];
            Self {
                multipliers: load(multipliers.as_ptr().cast()),
                bias: bias.map_or([i32x4_splat(0); 2], |bias| load(bias.as_ptr().cast())),
                low: i16x8_splat(requantise.low),
                high: i16x8_splat(requantise.high),
            }
        }
    }

    /// Eight values, from the sums of the two halves.
    #[inline(always)]
    fn eight(&self, first: v128, second: v128) -> v128 {
        let both = i16x8_narrow_i32x4(first, second);
        i16x8_min(i16x8_max(both, self.low), self.high)
    }
}

/// Where the outputs of one or two rows and 8 channels come from and go to.
#[derive(Clone, Copy)]
struct Columns {
    /// The buffer's column of the first output's first tap.
    buffer: *const i16,
    /// Values from there to that of the next output.
    step: usize,
    weights: *const i16,
    /// The first output of each row; the second is null where there is one row.
    outputs: [*mut i16; 2],
    channels: usize,
    count: usize,
}

/// Computes the outputs of ROWS rows with kernels of KW columns and PAIRS pairs of rows.
///
/// # Safety
/// The pointers of `columns` are valid for `count` > 0 outputs: the buffer for `count - 1` steps and KW columns, the outputs
/// for 8 values every `channels` values, the weights for both starts.
#[inline(never)]
unsafe fn taps<const KW: usize, const PAIRS: usize, const ROWS: usize>(columns: &Columns, grid: &Grid) {
    let Columns { buffer, step, weights, outputs, channels, count } = *columns;
    let Grid { multipliers, bias, low, high } = *grid;
    // SAFETY: all offsets are within what the caller promises.
    unsafe {
        let mut taps = [[[[i32x4_splat(0); 2]; PAIRS]; KW]; ROWS];
        unroll!(R in 2 { if R < ROWS { unroll!(X in 8 { if X < KW { unroll!(P in 4 { if P < PAIRS { unroll!(H in 2 {
            let at = (((R * KW) + X) * PAIRS + P) * PAIR + H * CHANNEL_GROUP;
            taps[R][X][P][H] = v128_load(weights.add(at).cast());
        }) } }) } }) } });
        let mut from = buffer;
        let mut cursor = Cursor::new(from);
        let [mut first, mut second] = outputs;
        for _ in 0..count {
            let mut halves = [[i32x4_splat(0); 2]; ROWS];
            unroll!(H in 2 {
                let mut values = [[i32x4_splat(0); PAIRS]; KW];
                unroll!(R in 2 {
                    if R < ROWS {
                        let mut sum = i32x4_splat(0);
                        unroll!(X in 8 { if X < KW { unroll!(P in 4 { if P < PAIRS {
                            if R == 0 {
                                let at = (X * PAIRS + P) * PAIR + H * CHANNEL_GROUP;
                                values[X][P] = v128_load(from.add(at).cast());
                            }
                            let dot = i32x4_dot_i16x8(values[X][P], taps[R][X][P][H]);
                            sum = if X == 0 && P == 0 { dot } else { i32x4_add(sum, dot) };
                        } }) } });
                        halves[R][H] = requantise_lanes(sum, bias[H], multipliers[H]);
                    }
                });
            });
            unroll!(R in 2 {
                if R < ROWS {
                    let both = i16x8_narrow_i32x4(halves[R][0], halves[R][1]);
                    let place = if R == 0 { first } else { second };
                    v128_store(place.cast(), i16x8_min(i16x8_max(both, low), high));
                }
            });
            first = first.wrapping_add(channels);
            if ROWS == 2 {
                second = second.wrapping_add(channels);
            }
            from = cursor.advance(from, step);
        }
    }
}

/// The same for any kernel: `pairs` pairs of rows, columns `apart` values apart in the buffer.
///
/// # Safety
/// As for [`taps`].
unsafe fn any_taps(width: usize, apart: usize, pairs: usize, rows: usize, columns: &Columns, grid: &Grid) {
    // SAFETY: all offsets are within what the caller promises.
    unsafe {
        for index in 0..columns.count {
            let from = columns.buffer.add(index * columns.step);
            for row in 0..rows {
                let mut sums = [i32x4_splat(0); 2];
                for tap in 0..width {
                    for pair in 0..pairs {
                        let weights = columns.weights.add(((row * width + tap) * pairs + pair) * PAIR);
                        let values = from.add(tap * apart + pair * PAIR);
                        unroll!(H in 2 {
                            let weights = v128_load(weights.add(H * CHANNEL_GROUP).cast());
                            let values = v128_load(values.add(H * CHANNEL_GROUP).cast());
                            sums[H] = i32x4_add(sums[H], i32x4_dot_i16x8(values, weights));
                        });
                    }
                }
                let first = requantise_lanes(sums[0], grid.bias[0], grid.multipliers[0]);
                let second = requantise_lanes(sums[1], grid.bias[1], grid.multipliers[1]);
                v128_store(columns.outputs[row].add(index * columns.channels).cast(), grid.eight(first, second));
            }
        }
    }
}

/// Interleaves `count` columns of PAIRS pairs of input rows, of 8 channels. MASKED: rows whose mask is 0 are padding.
///
/// # Safety
/// Each row, as far from `input` as `rows` says, is readable for 8 values every `channels` values, and the buffer writable
/// for the columns.
#[inline(never)]
unsafe fn interleave<const PAIRS: usize, const MASKED: bool>(
    input: *const i16,
    rows: &[(usize, bool); 2 * MOST_PAIRS],
    channels: usize,
    count: usize,
    buffer: *mut i16,
) {
    // SAFETY: all offsets are within what the caller promises.
    unsafe {
        let mut starts = [[std::ptr::null::<i16>(); 2]; PAIRS];
        let mut masks = [[i32x4_splat(0); 2]; PAIRS];
        unroll!(P in 8 {
            if P < PAIRS {
                unroll!(R in 2 {
                    starts[P][R] = input.add(rows[2 * P + R].0);
                    masks[P][R] = i32x4_splat(if rows[2 * P + R].1 { -1 } else { 0 });
                });
            }
        });
        let mut to = buffer;
        let mut cursor = Cursor::new(to.cast_const());
        let mut offset = 0;
        for _ in 0..count {
            unroll!(P in 8 {
                if P < PAIRS {
                    let mut both = [i32x4_splat(0); 2];
                    unroll!(R in 2 {
                        both[R] = v128_load(starts[P][R].wrapping_byte_add(offset).cast());
                        if MASKED {
                            both[R] = v128_and(both[R], masks[P][R]);
                        }
                    });
                    let low = i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(both[0], both[1]);
                    v128_store(to.add(P * PAIR).cast(), low);
                    let high = i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(both[0], both[1]);
                    v128_store(to.add(P * PAIR + CHANNEL_GROUP).cast(), high);
                }
            });
            offset += channels * size_of::<i16>();
            to = cursor.advance(to.cast_const(), PAIRS * PAIR).cast_mut();
        }
    }
}

/// See [`naive::depthwise`].
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
    let (pairs, width) = (DepthwiseWeights::pairs(window.kernel), window.kernel[1]);
    let span = width.saturating_sub(1).saturating_mul(window.dilation[1]).saturating_add(1);
    let column_values = pairs.saturating_mul(PAIR);
    let fits = span.checked_mul(column_values).is_some_and(|needed| needed <= BUFFER);
    if channels < CHANNEL_GROUP || pairs > MOST_PAIRS || width == 0 || !fits || window.input_pixels() == 0 {
        return portable::depthwise(input, window, weights, requantise, rows, output);
    }
    // Outputs whose taps the buffer holds at once.
    let chunk = (BUFFER / column_values - span) / window.stride[1] + 1;
    let together = if window.stride[0] == 1 && window.dilation[0] == 1 { 2 } else { 1 };
    let mut buffer = Buffer { values: [MaybeUninit::uninit(); BUFFER], padded: None };
    for row in rows.clone().step_by(together) {
        // A row of padding reads the input's first row, and drops it.
        let mut sources = [(0, false); 2 * MOST_PAIRS];
        for (tap, place) in sources.iter_mut().enumerate().take(2 * pairs) {
            if let Some(source) = window.source(0, row, tap) {
                *place = (source * window.input[1] * channels, true);
            }
        }
        let count = (rows.end - row).min(together);
        for first in (0..window.output[1]).step_by(chunk) {
            let outputs = (window.output[1] - first).min(chunk);
            let part = Part { row, rows: count, first, outputs, pairs };
            let columns = part.columns(window, (outputs - 1) * window.stride[1] + span);
            buffer.pad(columns, pairs);
            for group in 0..channels.div_ceil(CHANNEL_GROUP) {
                let channel = DepthwiseWeights::first_channel(channels, group);
                part.fill(input, &sources, channels, channel, columns, &mut buffer);
                let grid = Grid::new(&requantise, channel);
                part.compute(window, &weights, &grid, group, &buffer, output);
            }
        }
    }
}

/// Interleaved rows of 8 channels, in the order `[column][pair of rows][channel][row of the pair]`.
struct Buffer {
    values: [MaybeUninit<i16>; BUFFER],
    /// The columns whose padding is in place: it stays from one filling to the next.
    padded: Option<InputColumns>,
}

impl Buffer {
    fn pad(&mut self, columns: InputColumns, pairs: usize) {
        if self.padded != Some(columns) {
            let InputColumns { left, inside, total, .. } = columns;
            self.values[..left * pairs * PAIR].fill(MaybeUninit::new(0));
            self.values[(left + inside) * pairs * PAIR..total * pairs * PAIR].fill(MaybeUninit::new(0));
            self.padded = Some(columns);
        }
    }
}

/// Which columns of the input the buffer has: `inside` of them from `first` on, after `left` of padding, `total` with the
/// padding to their right.
#[derive(Clone, Copy, PartialEq, Eq)]
struct InputColumns {
    left: usize,
    first: usize,
    inside: usize,
    total: usize,
}

/// Outputs of one or two rows that are computed, for each 8 channels, from one filling of the buffer.
struct Part {
    row: usize,
    rows: usize,
    first: usize,
    outputs: usize,
    pairs: usize,
}

impl Part {
    fn columns(&self, window: &Window, total: usize) -> InputColumns {
        let start = self.first * window.stride[1];
        let left = window.pad_before[1].saturating_sub(start).min(total);
        let first = (start + left).saturating_sub(window.pad_before[1]);
        let inside = window.input[1].saturating_sub(first).min(total - left);
        InputColumns { left, first, inside, total }
    }

    /// Fills the buffer with the channels from `channel` on of the rows that start at `sources`.
    fn fill(
        &self,
        input: &[i16],
        sources: &[(usize, bool); 2 * MOST_PAIRS],
        channels: usize,
        channel: usize,
        columns: InputColumns,
        buffer: &mut Buffer,
    ) {
        if columns.inside == 0 {
            return;
        }
        let all = sources[..2 * self.pairs].iter().all(|(_, inside)| *inside);
        let (offset, inside) = (columns.first * channels + channel, columns.inside);
        let to = buffer.values[columns.left * self.pairs * PAIR..].as_mut_ptr().cast();
        macro_rules! dispatch {
            ($($pairs:literal)*) => {
                match (self.pairs, all) {
                    // SAFETY: every row has `inside` pixels from `first` on, each with 8 channels from `channel` on; the
                    // buffer has room for all columns.
                    $(($pairs, true) => unsafe {
                        interleave::<$pairs, false>(input.as_ptr().add(offset), sources, channels, inside, to)
                    },
                    ($pairs, false) => unsafe {
                        interleave::<$pairs, true>(input.as_ptr().add(offset), sources, channels, inside, to)
                    },)*
                    _ => unreachable!("{} pairs of rows", self.pairs),
                }
            };
        }
        dispatch!(1 2 3 4 5 6 7 8);
    }

    fn compute(
        &self,
        window: &Window,
        weights: &DepthwiseWeights<'_>,
        grid: &Grid,
        group: usize,
        buffer: &Buffer,
        output: &mut [i16],
    ) {
        let (pairs, channels, width) = (self.pairs, weights.channels(), window.kernel[1]);
        let channel = DepthwiseWeights::first_channel(channels, group);
        let group = DepthwiseWeights::index(window.kernel, group, 0, 0, (0, 0));
        let mut outputs = [std::ptr::null_mut(); 2];
        for (row, place) in outputs.iter_mut().enumerate().take(self.rows) {
            let pixel = (self.row + row) * window.output[1] + self.first;
            *place = output[pixel * channels + channel..].as_mut_ptr();
        }
        let columns = Columns {
            buffer: buffer.values.as_ptr().cast(),
            step: window.stride[1] * pairs * PAIR,
            weights: weights.packed()[group..].as_ptr(),
            outputs,
            channels,
            count: self.outputs,
        };
        let apart = window.dilation[1] * pairs * PAIR;
        // SAFETY: the buffer has the columns that the taps of these outputs see; the rows have as many outputs from `first`
        // on, each with 8 channels from `channel` on; the packed weights have the group's two starts.
        unsafe {
            match (width, pairs, self.rows, window.dilation[1]) {
                (3, 2, 1, 1) => taps::<3, 2, 1>(&columns, grid),
                (3, 2, 2, 1) => taps::<3, 2, 2>(&columns, grid),
                (5, 3, 1, 1) => taps::<5, 3, 1>(&columns, grid),
                (5, 3, 2, 1) => taps::<5, 3, 2>(&columns, grid),
                (7, 4, 1, 1) => taps::<7, 4, 1>(&columns, grid),
                (7, 4, 2, 1) => taps::<7, 4, 2>(&columns, grid),
                _ => any_taps(width, apart, pairs, self.rows, &columns, grid),
            }
        }
    }
}

/// Copies a short run of values. Written without a loop over single values, which the compiler would make a bulk copy of:
/// that costs 100 instructions before the first byte.
#[inline(always)]
fn copy(from: &[i16], to: &mut [i16]) {
    assert_eq!(from.len(), to.len(), "a run and its place");
    let length = from.len();
    let (mut from, mut to) = (from.as_ptr(), to.as_mut_ptr());
    let (mut from_cursor, mut to_cursor) = (Cursor::new(from), Cursor::new(to.cast_const()));
    // SAFETY: 8, 4, 2 and 1 values as often as the length has them, in both.
    unsafe {
        for _ in 0..length / 8 {
            v128_store(to.cast(), v128_load(from.cast()));
            from = from_cursor.advance(from, 8);
            to = to_cursor.advance(to.cast_const(), 8).cast_mut();
        }
        if length & 4 != 0 {
            to.cast::<u64>().write_unaligned(from.cast::<u64>().read_unaligned());
            (from, to) = (from.add(4), to.add(4));
        }
        if length & 2 != 0 {
            to.cast::<u32>().write_unaligned(from.cast::<u32>().read_unaligned());
            (from, to) = (from.add(2), to.add(2));
        }
        if length & 1 != 0 {
            *to = *from;
        }
    }
}

/// Zeros a short run of values, in the same way.
#[inline(always)]
fn zero(to: &mut [i16]) {
    let length = to.len();
    let mut to = to.as_mut_ptr();
    let mut cursor = Cursor::new(to.cast_const());
    // SAFETY: 8, 4, 2 and 1 values as often as the length has them.
    unsafe {
        for _ in 0..length / 8 {
            v128_store(to.cast(), i16x8_splat(0));
            to = cursor.advance(to.cast_const(), 8).cast_mut();
        }
        if length & 4 != 0 {
            to.cast::<u64>().write_unaligned(0);
            to = to.add(4);
        }
        if length & 2 != 0 {
            to.cast::<u32>().write_unaligned(0);
            to = to.add(2);
        }
        if length & 1 != 0 {
            *to = 0;
        }
    }
}

/// Copies `count` runs of `length` values, whose starts are `from_step` and `to_step` values apart.
///
/// # Safety
/// All runs are readable at `from` and writable at `to`.
#[inline(never)]
unsafe fn copy_runs(from: *const i16, from_step: usize, to: *mut i16, to_step: usize, length: usize, count: usize) {
    let (mut from, mut to) = (from, to);
    // SAFETY: all offsets are within the runs.
    unsafe {
        for _ in 0..count {
            if length < 8 {
                copy(std::slice::from_raw_parts(from, length), std::slice::from_raw_parts_mut(to, length));
            } else {
                let mut at = 0;
                while at + 32 < length {
                    let (from, to) = (from.wrapping_add(at), to.wrapping_add(at));
                    unroll!(V in 4 {
                        v128_store(to.add(8 * V).cast(), v128_load(from.add(8 * V).cast()));
                    });
                    at += 32;
                }
                while at + 8 < length {
                    v128_store(to.wrapping_add(at).cast(), v128_load(from.wrapping_add(at).cast()));
                    at += 8;
                }
                // The last eight values, some of them perhaps once more.
                v128_store(to.add(length - 8).cast(), v128_load(from.add(length - 8).cast()));
            }
            (from, to) = (from.wrapping_add(from_step), to.wrapping_add(to_step));
        }
    }
}

/// See [`naive::gather`]. The columns of a kernel are one run of values where they follow one another in the input.
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
    let (width, kernel) = (channels.len(), window.kernel);
    let run = kernel[1] * width;
    // The outputs of a row whose kernel is inside from left to right, if its columns follow one another in the input.
    let together =
        width == input_channels && window.dilation[1] == 1 && window.input[1] + window.pad_before[1] >= kernel[1];
    let inside = match together {
        true => {
            let last = (window.input[1] + window.pad_before[1] - kernel[1]) / window.stride[1];
            window.pad_before[1].div_ceil(window.stride[1])..(last + 1).min(window.output[1])
        }
        false => 0..0,
    };
    let mut pixel = pixels.start;
    while pixel < pixels.end {
        let (row, first) = (pixel / window.output[1], pixel % window.output[1]);
        let end = window.output[1].min(first + pixels.end - pixel);
        let place = |column: usize| (pixel - pixels.start + column - first) * stride;
        for tap in 0..kernel[0] {
            let source = window.source(0, row, tap);
            let (start, stop) = match source {
                Some(_) => (inside.start.clamp(first, end), inside.end.clamp(first, end)),
                None => (first, first),
            };
            if let (Some(source), true) = (source, start < stop) {
                let from = (source * window.input[1] + start * window.stride[1] - window.pad_before[1]) * width;
                let (from, to) = (&input[from..], &mut output[place(start) + tap * run..]);
                // SAFETY: the kernel is inside of the input for all columns from `start` to `stop`, and the output, as
                // `check_gather` made sure, has a row for each of them.
                unsafe {
                    let (from, to) = (from.as_ptr(), to.as_mut_ptr());
                    copy_runs(from, window.stride[1] * width, to, stride, run, stop - start);
                }
            }
            for column in (first..start).chain(stop.max(start)..end) {
                let places = &mut output[place(column) + tap * run..][..run];
                for (tap, to) in places.chunks_mut(width.max(1)).enumerate() {
                    match source.zip(window.source(1, column, tap)) {
                        Some((source, at)) => {
                            let at = (source * window.input[1] + at) * input_channels;
                            copy(&input[at..][channels.clone()], to);
                        }
                        None => zero(to),
                    }
                }
            }
        }
        let used = kernel[0] * run;
        if used < stride {
            for column in first..end {
                zero(&mut output[place(column) + used..place(column) + stride]);
            }
        }
        pixel += end - first;
    }
}

/// See [`naive::add`].
///
/// # Panics
/// If lengths differ.
pub fn add(first: &[i16], second: &[i16], sum: Sum, output: &mut [i16]) {
    const STEP: usize = 8;
    assert!(first.len() == second.len() && first.len() == output.len(), "lengths of a sum");
    let scales = (f32x4_splat(sum.scales.0), f32x4_splat(sum.scales.1));
    let (low, high) = (i16x8_splat(sum.low), i16x8_splat(sum.high));
    let whole = output.len() / STEP * STEP;
    let add = |first: v128, second: v128| {
        let (first, second) = (f32x4_convert_i32x4(first), f32x4_convert_i32x4(second));
        let sum = f32x4_add(f32x4_mul(first, scales.0), f32x4_mul(second, scales.1));
        i32x4_trunc_sat_f32x4(f32x4_nearest(sum))
    };
    let (mut a, mut b, mut to) = (first.as_ptr(), second.as_ptr(), output.as_mut_ptr());
    for _ in 0..whole / STEP {
        // SAFETY: eight values from the same place on, within the three slices.
        unsafe {
            // Widened by the loads: conversions of a vector's halves would be compiled lane by lane.
            let lower = add(i32x4_load_extend_i16x4(a), i32x4_load_extend_i16x4(b));
            let upper = add(i32x4_load_extend_i16x4(a.add(4)), i32x4_load_extend_i16x4(b.add(4)));
            let both = i16x8_min(i16x8_max(i16x8_narrow_i32x4(lower, upper), low), high);
            v128_store(to.cast(), both);
            (a, b, to) = (a.add(STEP), b.add(STEP), to.add(STEP));
        }
    }
    naive::add(&first[whole..], &second[whole..], sum, &mut output[whole..]);
}

/// See [`naive::mean`].
///
/// # Panics
/// If lengths do not fit or there are more than 65,536 pixels.
pub fn mean(input: &[i16], multiplier: f32, low: i16, high: i16, output: &mut [i16]) {
    check_mean(input, output);
    let channels = output.len();
    let whole = channels / CHANNEL_GROUP * CHANNEL_GROUP;
    let multipliers = f32x4_splat(multiplier);
    for channel in (0..whole).step_by(CHANNEL_GROUP) {
        let mut sums = [i32x4_splat(0); 2];
        for at in (channel..input.len()).step_by(channels) {
            // SAFETY: a pixel has 8 channels from `channel` on.
            let values = unsafe { v128_load(input.as_ptr().add(at).cast()) };
            sums[0] = i32x4_add(sums[0], i32x4_extend_low_i16x8(values));
            sums[1] = i32x4_add(sums[1], i32x4_extend_high_i16x8(values));
        }
        let halves = sums.map(|sum| requantise_lanes(sum, i32x4_splat(0), multipliers));
        let both = i16x8_narrow_i32x4(halves[0], halves[1]);
        let both = i16x8_min(i16x8_max(both, i16x8_splat(low)), i16x8_splat(high));
        // SAFETY: the output has 8 values from `channel` on.
        unsafe { v128_store(output.as_mut_ptr().add(channel).cast(), both) };
    }
    for (channel, output) in output.iter_mut().enumerate().skip(whole) {
        let sum: i32 = input.iter().skip(channel).step_by(channels).map(|value| i32::from(*value)).sum();
        *output = ((sum as f32 * multiplier).round_ties_even() as i32).clamp(low.into(), high.into()) as i16;
    }
}
