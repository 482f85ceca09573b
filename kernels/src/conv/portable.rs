//! A body for any target: the input under a window is gathered, then multiplied as a row.

use super::Filter;
use crate::gemm;
use crate::matrix::{Epilogue, MatrixMut, MatrixRef};
use crate::window::Window;
use std::ops::Range;

/// One gathered window of one group.
pub fn scratch_len(window: &Window, filter: &Filter) -> usize {
    window.taps() * filter.group_inputs()
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
    let (inputs, outputs) = (filter.group_inputs(), filter.group_outputs());
    if outputs == 0 {
        return;
    }
    let patch = &mut scratch[..scratch_len(window, filter)];
    for pixel in pixels {
        for group in 0..filter.groups() {
            gather(input, window, pixel, group * inputs..(group + 1) * inputs, patch);
            let columns = group * outputs..(group + 1) * outputs;
            let epilogue = epilogue.columns(columns.clone());
            let places = &mut output.row_mut(pixel)[columns];
            gemm::portable::row_times(patch, filter.matrix(group), &epilogue, pixel, 0..outputs, places);
        }
    }
}

/// The channels `channels` of the input under the window of output pixel `pixel`, tap by tap; zeros outside.
fn gather(input: MatrixRef<'_>, window: &Window, pixel: usize, channels: Range<usize>, patch: &mut [f32]) {
    let (row, column) = (pixel / window.output[1], pixel % window.output[1]);
    let mut places = patch.chunks_exact_mut(channels.len().max(1));
    for tap_row in 0..window.kernel[0] {
        let source_row = window.source(0, row, tap_row);
        for tap_column in 0..window.kernel[1] {
            let Some(place) = places.next() else { return };
            match source_row.zip(window.source(1, column, tap_column)) {
                Some((source_row, source_column)) => {
                    let source = input.row(source_row * window.input[1] + source_column);
                    place.copy_from_slice(&source[channels.clone()]);
                }
                None => place.fill(0.0),
            }
        }
    }
}
