//! A WebAssembly body with 128-bit SIMD: the blocks of [`crate::gemm`], whose rows of A need not follow one another.
//!
//! With many channels, the rows of A are the input's pixels themselves, tap after tap; a pixel outside the input is a
//! row of zeros. With few, the input under a window is gathered first, so that the blocks are deep.

use super::Filter;
use crate::gemm::simd128::{CHUNK_ROWS, Chunk, Operand};
use crate::matrix::{Epilogue, MatrixMut, MatrixRef};
use crate::window::Window;
use std::arch::wasm32::*;
use std::ops::Range;

/// Channels of a group from which on its pixels are multiplied where they are.
pub(crate) const DIRECT_CHANNELS: usize = 24;

/// Values that gathered windows may take together: 128 KiB, two pages.
const GATHERED_LEN: usize = 1 << 15;

/// Whether pixels are multiplied where they are.
pub(crate) fn is_direct(filter: &Filter) -> bool {
    filter.group_inputs() >= DIRECT_CHANNELS || filter.taps() == 1
}

/// Windows that are gathered together.
pub(crate) fn gathered_rows(filter: &Filter) -> usize {
    (GATHERED_LEN / (filter.taps() * filter.group_inputs()).max(1)).clamp(1, CHUNK_ROWS)
}

/// A pixel of zeros, or gathered windows.
pub fn scratch_len(_window: &Window, filter: &Filter) -> usize {
    if is_direct(filter) {
        filter.group_inputs()
    } else {
        gathered_rows(filter) * filter.taps() * filter.group_inputs()
    }
}

/// See [`super::conv2d`].
pub fn conv2d(
    input: MatrixRef<'_>,
    window: &Window,
    filter: &Filter,
    epilogue: &Epilogue<'_>,
    pixels: Range<usize>,
    output: &mut MatrixMut<'_>,
    scratch: &mut [f32],
) {
    if filter.taps() * filter.group_inputs() == 0 || filter.group_outputs() == 0 {
        return super::portable::conv2d(input, window, filter, epilogue, pixels, output, scratch);
    }
    let chunk_rows = if is_direct(filter) { CHUNK_ROWS } else { gathered_rows(filter) };
    if is_direct(filter) {
        scratch[..filter.group_inputs()].fill(0.0);
    }
    for group in 0..filter.groups() {
        let columns = group * filter.group_outputs()..(group + 1) * filter.group_outputs();
        let epilogue = epilogue.columns(columns.clone());
        let c = output.data.as_mut_ptr().wrapping_add(columns.start);
        for first in pixels.clone().step_by(chunk_rows) {
            let pixels = first..pixels.end.min(first + chunk_rows);
            let operand = Operand::packed(filter.matrix(group));
            let chunk = Chunk::new(operand, &epilogue, pixels.clone(), c, output.stride);
            let channels = group * filter.group_inputs();
            if is_direct(filter) {
                direct(input, window, filter, channels, pixels, chunk, &scratch[..filter.group_inputs()]);
            } else {
                gathered(input, window, filter, channels, pixels, chunk, scratch);
            }
        }
    }
}

/// Multiplies the channels from `channel` on, tap by tap.
fn direct(
    input: MatrixRef<'_>,
    window: &Window,
    filter: &Filter,
    channel: usize,
    pixels: Range<usize>,
    mut chunk: Chunk<'_>,
    zeros: &[f32],
) {
    let mut table = [std::ptr::null(); CHUNK_ROWS];
    let inputs = filter.group_inputs();
    let columns = 0..filter.group_outputs();
    for tap in 0..window.taps() {
        let mut entries = &mut table[..pixels.len()];
        for_each_row(window, pixels.clone(), |row, row_columns| {
            let (places, rest) = std::mem::take(&mut entries).split_at_mut(row_columns.len());
            entries = rest;
            point_at_sources(input, window, channel, tap, row, row_columns, zeros.as_ptr(), places);
        });
        // SAFETY: every entry points to `inputs` values: of a pixel of the input, or `zeros`.
        unsafe { chunk.accumulate(&table[..pixels.len()], tap * inputs..(tap + 1) * inputs, &columns) };
    }
    // SAFETY: the rows of all taps were accumulated.
    unsafe { chunk.finish(&columns) };
}

/// Calls `visit` with each output row that has some of `pixels`, and the columns of those.
fn for_each_row(window: &Window, pixels: Range<usize>, mut visit: impl FnMut(usize, Range<usize>)) {
    let width = window.output[1];
    let mut first = pixels.start;
    while first < pixels.end {
        let (row, column) = (first / width, first % width);
        let end = width.min(column + pixels.end - first);
        visit(row, column..end);
        first += end - column;
    }
}

/// Where tap `tap` of the pixels `columns` of output row `row` reads its channels from `channel` on.
#[expect(clippy::too_many_arguments, reason = "a loop of its caller, kept apart")]
fn point_at_sources(
    input: MatrixRef<'_>,
    window: &Window,
    channel: usize,
    tap: usize,
    row: usize,
    columns: Range<usize>,
    zeros: *const f32,
    places: &mut [*const f32],
) {
    let (tap_row, tap_column) = (tap / window.kernel[1], tap % window.kernel[1]);
    let Some(source_row) = window.source(0, row, tap_row) else { return places.fill(zeros) };
    let inside = window.inside(1, tap_column);
    let inside = inside.start.clamp(columns.start, columns.end)..inside.end.clamp(columns.start, columns.end);
    let (before, rest) = places.split_at_mut(inside.start - columns.start);
    let (sources, after) = rest.split_at_mut(inside.len());
    before.fill(zeros);
    after.fill(zeros);
    if let Some(source_column) = window.source(1, inside.start, tap_column) {
        let first = (source_row * window.input[1] + source_column) * input.stride + channel;
        let mut source = input.data.as_ptr().wrapping_add(first);
        for place in sources {
            *place = source;
            source = source.wrapping_add(window.stride[1] * input.stride);
        }
    }
}

/// Copies the channels from `channel` on under each window to `scratch`, and multiplies them.
fn gathered(
    input: MatrixRef<'_>,
    window: &Window,
    filter: &Filter,
    channel: usize,
    pixels: Range<usize>,
    mut chunk: Chunk<'_>,
    scratch: &mut [f32],
) {
    let inputs = filter.group_inputs();
    let len = filter.taps() * inputs;
    let mut patches = scratch.chunks_exact_mut(len);
    let mut table = [std::ptr::null(); CHUNK_ROWS];
    let mut entries = table.iter_mut();
    // Taps of a window row whose channels follow one another in the input are copied as one.
    let contiguous = window.dilation[1] == 1 && input.stride == inputs;
    for_each_row(window, pixels.clone(), |row, columns| {
        for column in columns {
            let (Some(patch), Some(entry)) = (patches.next(), entries.next()) else { return };
            *entry = patch.as_ptr();
            let width = window.kernel[1] * inputs;
            let first = window.source(1, column, 0).filter(|_| contiguous);
            let whole = first.filter(|_| window.source(1, column, window.kernel[1] - 1).is_some());
            for (tap_row, places) in patch.chunks_exact_mut(width).enumerate() {
                let Some(source_row) = window.source(0, row, tap_row) else {
                    fill(places);
                    continue;
                };
                let start = |source_column| (source_row * window.input[1] + source_column) * input.stride + channel;
                if let Some(source_column) = whole {
                    copy(&input.data[start(source_column)..][..width], places);
                    continue;
                }
                for (tap_column, places) in places.chunks_exact_mut(inputs).enumerate() {
                    match window.source(1, column, tap_column) {
                        Some(source_column) => copy(&input.data[start(source_column)..][..inputs], places),
                        None => fill(places),
                    }
                }
            }
        }
    });
    let columns = 0..filter.group_outputs();
    // SAFETY: every entry points to a gathered window of `len` values, which are all of B's rows.
    unsafe {
        chunk.accumulate(&table[..pixels.len()], 0..len, &columns);
        chunk.finish(&columns);
    }
}

/// A copy of few values; `memory.copy` costs a hundred instructions before the first.
#[inline(always)]
fn copy(from: &[f32], to: &mut [f32]) {
    let len = from.len();
    assert_eq!(len, to.len());
    if len < 4 {
        for (to, from) in to.iter_mut().zip(from) {
            *to = *from;
        }
        return;
    }
    for at in (0..len - 3).step_by(4).chain([len - 4]) {
        // SAFETY: at + 4 <= len, which is the length of both.
        unsafe { v128_store(to.as_mut_ptr().add(at).cast(), v128_load(from.as_ptr().add(at).cast())) };
    }
}

/// Zeros, few of them.
#[inline(always)]
fn fill(to: &mut [f32]) {
    let len = to.len();
    if len < 4 {
        for to in to {
            *to = 0.0;
        }
        return;
    }
    for at in (0..len - 3).step_by(4).chain([len - 4]) {
        // SAFETY: at + 4 <= len.
        unsafe { v128_store(to.as_mut_ptr().add(at).cast(), f32x4_splat(0.0)) };
    }
}
