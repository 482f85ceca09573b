//! A body for any target, whose inner loops are over channels.

use super::{Pool, divisor};
use crate::matrix::{MatrixMut, MatrixRef};
use crate::window::Window;
use std::ops::Range;

/// See [`super::pool`].
pub fn pool(kind: Pool, input: MatrixRef<'_>, window: &Window, pixels: Range<usize>, output: &mut MatrixMut<'_>) {
    for pixel in pixels {
        let (row, column) = (pixel / window.output[1], pixel % window.output[1]);
        let results = output.row_mut(pixel);
        results.fill(if kind == Pool::Max { f32::NEG_INFINITY } else { 0.0 });
        for source_row in (0..window.kernel[0]).filter_map(|tap| window.source(0, row, tap)) {
            for source_column in (0..window.kernel[1]).filter_map(|tap| window.source(1, column, tap)) {
                let values = input.row(source_row * window.input[1] + source_column);
                if kind == Pool::Max {
                    for (result, value) in results.iter_mut().zip(values) {
                        *result = if *result < *value { *value } else { *result };
                    }
                } else {
                    for (result, value) in results.iter_mut().zip(values) {
                        *result += value;
                    }
                }
            }
        }
        if kind != Pool::Max {
            let divisor = divisor(kind, window, row, column);
            results.iter_mut().for_each(|result| *result /= divisor);
        }
    }
}
