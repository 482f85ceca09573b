//! A body for any target, whose inner loops are over channels.

use super::DepthwiseFilter;
use crate::matrix::{Epilogue, MatrixMut, MatrixRef};
use crate::window::Window;
use std::ops::Range;

/// None.
pub fn scratch_len(_window: &Window, _filter: &DepthwiseFilter) -> usize {
    0
}

/// See [`super::depthwise`].
pub fn depthwise(
    input: MatrixRef<'_>,
    window: &Window,
    filter: &DepthwiseFilter,
    epilogue: &Epilogue<'_>,
    pixels: Range<usize>,
    output: &mut MatrixMut<'_>,
    _scratch: &mut [f32],
) {
    for pixel in pixels {
        let (row, column) = (pixel / window.output[1], pixel % window.output[1]);
        let sums = output.row_mut(pixel);
        match epilogue.bias {
            Some(bias) => sums.copy_from_slice(bias),
            None => sums.fill(0.0),
        }
        for tap_row in 0..window.kernel[0] {
            let source_row = window.source(0, row, tap_row);
            for tap_column in 0..window.kernel[1] {
                let weights = filter.tap(tap_row * window.kernel[1] + tap_column);
                match source_row.zip(window.source(1, column, tap_column)) {
                    Some((source_row, source_column)) => {
                        let values = input.row(source_row * window.input[1] + source_column);
                        for ((sum, value), weight) in sums.iter_mut().zip(values).zip(weights) {
                            *sum += value * weight;
                        }
                    }
                    None => {
                        for (sum, weight) in sums.iter_mut().zip(weights) {
                            *sum += 0.0 * weight;
                        }
                    }
                }
            }
        }
        for (channel, sum) in sums.iter_mut().enumerate() {
            *sum = epilogue.finish(pixel, channel, *sum);
        }
    }
}
