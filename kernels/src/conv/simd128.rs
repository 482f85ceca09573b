//! A WebAssembly body with 128-bit SIMD: the blocks of [`crate::gemm`], whose rows of A need not follow one another.
//!
//! With many channels, the rows of A are the input's pixels themselves, tap after tap; a pixel outside the input is a
//! row of zeros. With few, the input under a window is gathered first, so that the blocks are deep.

use super::Filter;
use super::cost::{gathered_rows, is_direct};
use crate::gemm::simd128::{CHUNK_ROWS, Chunk, Operand};
use crate::matrix::{Epilogue, MatrixMut, MatrixRef};
use crate::window::Window;
use std::arch::wasm32::*;
use std::ops::Range;

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
                gathered(input, window, filter, pixels, chunk, scratch);
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

/// Copies the input under each window to `scratch`, and multiplies it. Of a filter of one group.
fn gathered(
    input: MatrixRef<'_>,
    window: &Window,
    filter: &Filter,
    pixels: Range<usize>,
    mut chunk: Chunk<'_>,
    scratch: &mut [f32],
) {
    let len = filter.taps() * filter.group_inputs();
    let mut table = [std::ptr::null(); CHUNK_ROWS];
    let mut patches = &mut scratch[..pixels.len() * len];
    for (entry, patch) in table.iter_mut().zip(patches.chunks_exact(len)) {
        *entry = patch.as_ptr();
    }
    for_each_row(window, pixels.clone(), |row, columns| {
        let (row_patches, rest) = std::mem::take(&mut patches).split_at_mut(columns.len() * len);
        patches = rest;
        gather_row(input, window, row, columns, row_patches);
    });
    let columns = 0..filter.group_outputs();
    // SAFETY: every entry points to a gathered window of `len` values, which are all of B's rows.
    unsafe {
        chunk.accumulate(&table[..pixels.len()], 0..len, &columns);
        chunk.finish(&columns);
    }
}

/// The windows of the pixels `columns` of output row `row`, one behind the other; zeros outside the input.
fn gather_row(input: MatrixRef<'_>, window: &Window, row: usize, columns: Range<usize>, patches: &mut [f32]) {
    let inputs = input.columns;
    let (width, len) = (window.kernel[1] * inputs, window.taps() * inputs);
    let clamped = |range: Range<usize>| {
        let start = range.start.clamp(columns.start, columns.end);
        start..range.end.clamp(start, columns.end)
    };
    for tap_row in 0..window.kernel[0] {
        let Some(source_row) = window.source(0, row, tap_row) else {
            fill_runs(&mut patches[tap_row * width..], width, len, columns.len());
            continue;
        };
        let source_row = &input.data[source_row * window.input[1] * input.stride..];
        // Where the whole width of a window is inside, its taps follow one another in the input.
        let mut whole = columns.start..columns.start;
        if window.dilation[1] == 1 && input.stride == inputs {
            let (first, last) = (clamped(window.inside(1, 0)), clamped(window.inside(1, window.kernel[1] - 1)));
            whole = first.start.max(last.start)..first.end.min(last.end);
            if let Some(source) = (!whole.is_empty()).then(|| window.source(1, whole.start, 0)).flatten() {
                let places = &mut patches[(whole.start - columns.start) * len + tap_row * width..];
                copy_runs(&source_row[source * inputs..], window.stride[1] * inputs, places, len, width, whole.len());
            } else {
                whole = columns.start..columns.start;
            }
        }
        for tap_column in 0..window.kernel[1] {
            let inside = clamped(window.inside(1, tap_column));
            let rests = [columns.start..whole.start.max(columns.start), whole.end..columns.end];
            for rest in rests {
                for column in rest {
                    let at = (column - columns.start) * len + tap_row * width + tap_column * inputs;
                    let places = &mut patches[at..][..inputs];
                    match inside.contains(&column).then(|| window.source(1, column, tap_column)).flatten() {
                        Some(source) => places.copy_from_slice(&source_row[source * input.stride..][..inputs]),
                        None => places.fill(0.0),
                    }
                }
            }
        }
    }
}

/// Copies `count` runs of `width` values, whose starts are the strides apart.
fn copy_runs(from: &[f32], from_stride: usize, to: &mut [f32], to_stride: usize, width: usize, count: usize) {
    assert!(count > 0 && (count - 1) * from_stride + width <= from.len());
    assert!((count - 1) * to_stride + width <= to.len());
    let copy = match width {
        0..4 => copy_short_runs,
        4..=8 => copy_runs_of::<1>,
        9..=12 => copy_runs_of::<2>,
        13..=16 => copy_runs_of::<3>,
        17..=20 => copy_runs_of::<4>,
        21..=24 => copy_runs_of::<5>,
        _ => copy_long_runs,
    };
    // SAFETY: `width` values from each start on are within the slices.
    unsafe { copy(from.as_ptr(), from_stride, to.as_mut_ptr(), to_stride, width, count) };
}

/// As [`copy_runs`], of 1 + `VECTORS` vectors, the last of which may overlap the one before.
///
/// Never inlined, like those below: where the compiler sees that source and destination are apart it makes a loop a
/// `memory.copy`, which costs a hundred instructions before the first value.
#[inline(never)]
unsafe fn copy_runs_of<const VECTORS: usize>(
    mut from: *const f32,
    from_stride: usize,
    mut to: *mut f32,
    to_stride: usize,
    width: usize,
    count: usize,
) {
    for _ in 0..count {
        // SAFETY: 4 * VECTORS <= width, and the caller's word.
        unsafe {
            let last = v128_load(from.add(width - 4).cast());
            for vector in 0..VECTORS {
                v128_store(to.add(4 * vector).cast(), v128_load(from.add(4 * vector).cast()));
            }
            v128_store(to.add(width - 4).cast(), last);
        }
        (from, to) = (from.wrapping_add(from_stride), to.wrapping_add(to_stride));
    }
}

/// As [`copy_runs`], of at least four values.
#[inline(never)]
unsafe fn copy_long_runs(
    mut from: *const f32,
    from_stride: usize,
    mut to: *mut f32,
    to_stride: usize,
    width: usize,
    count: usize,
) {
    for _ in 0..count {
        // SAFETY: the last vector ends with the run; the rest is the caller's word.
        unsafe {
            let last = width - 4;
            let mut at = 0;
            while at < last {
                v128_store(to.add(at).cast(), v128_load(from.add(at).cast()));
                at += 4;
            }
            v128_store(to.add(last).cast(), v128_load(from.add(last).cast()));
        }
        (from, to) = (from.wrapping_add(from_stride), to.wrapping_add(to_stride));
    }
}

/// As [`copy_runs`], of fewer than four values.
#[inline(never)]
unsafe fn copy_short_runs(
    mut from: *const f32,
    from_stride: usize,
    mut to: *mut f32,
    to_stride: usize,
    width: usize,
    count: usize,
) {
    for _ in 0..count {
        for at in 0..width {
            // SAFETY: the caller's word.
            unsafe { *to.add(at) = *from.add(at) };
        }
        (from, to) = (from.wrapping_add(from_stride), to.wrapping_add(to_stride));
    }
}

/// Fills `count` runs of `width` values, whose starts are the stride apart, with zeros.
fn fill_runs(to: &mut [f32], width: usize, stride: usize, count: usize) {
    for run in 0..count {
        for place in &mut to[run * stride..][..width] {
            *place = 0.0;
        }
    }
}
