//! The reference.

use crate::matrix::{Epilogue, MatrixMut, MatrixRef};
use crate::window::Window;

/// A whole depthwise convolution with ONNX's weights, `[channels, 1, kernel rows, kernel columns]`.
///
/// Every sum starts with its channel's bias, or +0, and adds products in the order (tap row, tap column), each product
/// and each sum rounded to f32. A pixel outside the input is zeros.
pub fn depthwise(
    input: MatrixRef<'_>,
    window: &Window,
    weights: &[f32],
    epilogue: &Epilogue<'_>,
    output: &mut MatrixMut<'_>,
) {
    for row in 0..window.output[0] {
        for column in 0..window.output[1] {
            let pixel = row * window.output[1] + column;
            for channel in 0..output.columns {
                let mut sum = epilogue.start(channel);
                for tap_row in 0..window.kernel[0] {
                    for tap_column in 0..window.kernel[1] {
                        let source = window.source(0, row, tap_row).zip(window.source(1, column, tap_column));
                        let value = source.map_or(0.0, |(source_row, source_column)| {
                            input.row(source_row * window.input[1] + source_column)[channel]
                        });
                        let tap = tap_row * window.kernel[1] + tap_column;
                        sum += value * weights[channel * window.taps() + tap];
                    }
                }
                output.row_mut(pixel)[channel] = epilogue.finish(pixel, channel, sum);
            }
        }
    }
}
