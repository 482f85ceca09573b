//! A WebAssembly body with 128-bit SIMD.
//!
//! A table tells where every tap of every pixel lies, a tap outside the input being a pixel of zeros, so that the blocks
//! know nothing of edges. It is made once for all channels.

mod block;

use super::DepthwiseFilter;
use super::cost::{chunk_pixels, next_block};
use crate::gemm::simd128::add_and_clamp;
use crate::matrix::{Clamp, Epilogue, MatrixMut, MatrixRef};
use crate::window::Window;
use block::{Block, block};
use std::ops::Range;

/// Values of a vector.
const LANES: usize = 4;

/// What sums start with where there is no bias.
static ZEROS: [f32; 16 * LANES] = [0.0; 16 * LANES];

/// A pixel of zeros, and the table.
pub fn scratch_len(window: &Window, filter: &DepthwiseFilter) -> usize {
    filter.channels() + chunk_pixels(window.taps()) * window.taps()
}

/// See [`super::depthwise`].
pub fn depthwise(
    input: MatrixRef<'_>,
    window: &Window,
    filter: &DepthwiseFilter,
    epilogue: &Epilogue<'_>,
    pixels: Range<usize>,
    output: &mut MatrixMut<'_>,
    scratch: &mut [f32],
) {
    let (channels, taps) = (filter.channels(), window.taps());
    if channels < LANES || taps == 0 {
        return super::portable::depthwise(input, window, filter, epilogue, pixels, output, scratch);
    }
    let (zeros, table) = scratch.split_at_mut(channels);
    zeros.fill(0.0);
    for first in pixels.clone().step_by(chunk_pixels(taps)) {
        let pixels = first..pixels.end.min(first + chunk_pixels(taps));
        let table = &mut table[..pixels.len() * taps];
        fill_table(input, window, pixels.clone(), zeros, table);
        let mut channel = 0;
        while channel < channels {
            if channels - channel < LANES {
                // The last vector's first channels are computed again, to the same bits.
                channel = channels - LANES;
            }
            let vectors = (channels - channel) / LANES;
            channel += LANES * convolve(filter, epilogue, channel, vectors, pixels.clone(), table, output);
        }
        if let Some(residual) = &epilogue.residual {
            for pixel in pixels {
                add_and_clamp(output.row_mut(pixel), residual.row(pixel), epilogue.clamp);
            }
        }
    }
}

/// All taps of as many of the `vectors` vectors of channels from `channel` on as there is a block for; tells how many.
fn convolve(
    filter: &DepthwiseFilter,
    epilogue: &Epilogue<'_>,
    channel: usize,
    vectors: usize,
    pixels: Range<usize>,
    table: &[f32],
    output: &mut MatrixMut<'_>,
) -> usize {
    let (channels, taps) = (filter.channels(), filter.taps());
    let (_, vectors) = next_block(taps, vectors);
    assert!(channel + vectors * LANES <= channels && table.len() >= pixels.len() * taps);
    let table: *const *const f32 = table.as_ptr().cast();
    let mut tap = 0;
    while tap < taps {
        let (count, _) = next_block(taps - tap, vectors);
        let function = block(count, vectors, tap == 0);
        let last = tap + count == taps && epilogue.residual.is_none();
        let block = Block {
            taps: table.wrapping_add(tap),
            taps_end: table.wrapping_add(tap + pixels.len() * taps),
            taps_stride: taps * size_of::<*const f32>(),
            channel_offset: channel * size_of::<f32>(),
            weights: filter.tap(tap)[channel..].as_ptr(),
            weights_stride: channels * size_of::<f32>(),
            bias: epilogue.bias.map_or(ZEROS.as_ptr(), |bias| bias[channel..].as_ptr()),
            c: output.data[pixels.start * output.stride + channel..].as_mut_ptr(),
            c_stride: output.stride * size_of::<f32>(),
            clamp: if last { epilogue.clamp } else { Clamp::NONE },
        };
        // SAFETY: the table was filled for these pixels with places of `channels` values; weights, bias and the rows of
        // the output have `channels` values as well, and the block's are within them.
        unsafe { function(&block) };
        tap += count;
    }
    vectors
}

/// Writes for each of `pixels` where each of its taps is: in the input, or `zeros`.
fn fill_table(input: MatrixRef<'_>, window: &Window, pixels: Range<usize>, zeros: &[f32], table: &mut [f32]) {
    let (taps, width) = (window.taps(), window.output[1]);
    assert!(table.len() >= pixels.len() * taps);
    let mut place: *mut *const f32 = table.as_mut_ptr().cast();
    let mut first = pixels.start;
    while first < pixels.end {
        let (row, column) = (first / width, first % width);
        let columns = column..width.min(column + pixels.end - first);
        for tap_row in 0..window.kernel[0] {
            let source_row = window.source(0, row, tap_row).map(|source_row| {
                let row_len = window.input[1] * input.stride;
                input.data.as_ptr().wrapping_add(source_row * row_len)
            });
            let places = place.wrapping_add(tap_row * window.kernel[1]);
            // SAFETY: the entries of `columns.len()` pixels, of which these are a row of taps.
            unsafe { fill_row(input.stride, window, source_row, columns.clone(), zeros.as_ptr(), places, taps) };
        }
        place = place.wrapping_add(columns.len() * taps);
        first += columns.len();
    }
}

/// [`fill_table`] for the taps of one window row, in one output row.
///
/// # Safety
/// There are entries at `places` for each column, `taps` apart.
unsafe fn fill_row(
    stride: usize,
    window: &Window,
    source_row: Option<*const f32>,
    columns: Range<usize>,
    zeros: *const f32,
    places: *mut *const f32,
    taps: usize,
) {
    let width = window.kernel[1];
    let clamped = |range: Range<usize>| {
        let start = range.start.clamp(columns.start, columns.end);
        start..range.end.clamp(start, columns.end)
    };
    // The columns whose taps are all inside.
    let (first, last) = (clamped(window.inside(1, 0)), clamped(window.inside(1, width - 1)));
    let whole = first.start.max(last.start)..first.end.min(last.end);
    let whole = if whole.is_empty() { columns.end..columns.end } else { whole };
    for column in (columns.start..whole.start).chain(whole.end..columns.end) {
        for tap in 0..width {
            let source = source_row.zip(window.source(1, column, tap));
            let source = source.map_or(zeros, |(row, source_column)| row.wrapping_add(source_column * stride));
            // SAFETY: the entry of `column`.
            unsafe { *places.add((column - columns.start) * taps + tap) = source };
        }
    }
    let Some(source_column) = window.source(1, whole.start, 0).filter(|_| !whole.is_empty()) else { return };
    let (source, step, tap_step) = match source_row {
        Some(row) => (row.wrapping_add(source_column * stride), window.stride[1] * stride, window.dilation[1] * stride),
        None => (zeros, 0, 0),
    };
    let places = places.wrapping_add((whole.start - columns.start) * taps);
    // SAFETY: the entries of the columns in `whole`, all taps of a window row at once or one after the other.
    unsafe {
        match width {
            3 => fill_whole::<3>(places, taps, source, step, tap_step, whole.len()),
            5 => fill_whole::<5>(places, taps, source, step, tap_step, whole.len()),
            7 => fill_whole::<7>(places, taps, source, step, tap_step, whole.len()),
            _ => {
                for tap in 0..width {
                    let source = source.wrapping_add(tap * tap_step);
                    fill_whole::<1>(places.add(tap), taps, source, step, tap_step, whole.len());
                }
            }
        }
    }
}

/// Writes `WIDTH` taps, which are `tap_step` values apart, of each of `count` windows, which are `step` values apart and
/// whose entries are `taps` apart.
unsafe fn fill_whole<const WIDTH: usize>(
    mut places: *mut *const f32,
    taps: usize,
    mut source: *const f32,
    step: usize,
    tap_step: usize,
    count: usize,
) {
    for _ in 0..count {
        for tap in 0..WIDTH {
            // SAFETY: the caller's word.
            unsafe { *places.add(tap) = source.wrapping_add(tap * tap_step) };
        }
        (places, source) = (places.wrapping_add(taps), source.wrapping_add(step));
    }
}
