//! The reference.

use super::{Pool, divisor};
use crate::matrix::{MatrixMut, MatrixRef};
use crate::window::Window;

/// A whole pooling, as [`Pool`] says. A window without any pixel gives -inf or 0 / 0, a NaN.
pub fn pool(kind: Pool, input: MatrixRef<'_>, window: &Window, output: &mut MatrixMut<'_>) {
    for row in 0..window.output[0] {
        for column in 0..window.output[1] {
            for channel in 0..output.columns {
                let mut result = if kind == Pool::Max { f32::NEG_INFINITY } else { 0.0 };
                for tap_row in 0..window.kernel[0] {
                    for tap_column in 0..window.kernel[1] {
                        let source = window.source(0, row, tap_row).zip(window.source(1, column, tap_column));
                        let Some((source_row, source_column)) = source else { continue };
                        let value = input.row(source_row * window.input[1] + source_column)[channel];
                        if kind != Pool::Max {
                            result += value;
                        } else if result < value {
                            result = value;
                        }
                    }
                }
                if kind != Pool::Max {
                    result /= divisor(kind, window, row, column);
                }
                output.row_mut(row * window.output[1] + column)[channel] = result;
            }
        }
    }
}
