//! The reference.

use crate::matrix::{Epilogue, MatrixMut, MatrixRef};
use crate::window::Window;

/// A whole convolution with ONNX's weights, `[output channels, input channels / groups, kernel rows, kernel columns]`.
///
/// Every sum starts with its output channel's bias, or +0, and adds products in the order (tap row, tap column, input
/// channel), each product and each sum rounded to f32. A pixel outside the input is zeros.
pub fn conv2d(
    input: MatrixRef<'_>,
    window: &Window,
    weights: &[f32],
    groups: usize,
    epilogue: &Epilogue<'_>,
    output: &mut MatrixMut<'_>,
) {
    let (group_inputs, group_outputs) = (input.columns / groups, output.columns / groups);
    for row in 0..window.output[0] {
        for column in 0..window.output[1] {
            for channel in 0..output.columns {
                let first_input = channel / group_outputs * group_inputs;
                let mut sum = epilogue.start(channel);
                for tap_row in 0..window.kernel[0] {
                    for tap_column in 0..window.kernel[1] {
                        let source = window.source(0, row, tap_row).zip(window.source(1, column, tap_column));
                        for i in 0..group_inputs {
                            let value = source.map_or(0.0, |(source_row, source_column)| {
                                input.row(source_row * window.input[1] + source_column)[first_input + i]
                            });
                            let at = (channel * group_inputs + i) * window.kernel[0] + tap_row;
                            sum += value * weights[at * window.kernel[1] + tap_column];
                        }
                    }
                }
                let pixel = row * window.output[1] + column;
                output.row_mut(pixel)[channel] = epilogue.finish(pixel, channel, sum);
            }
        }
    }
}
