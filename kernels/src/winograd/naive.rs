//! The reference.

use super::pack::transform;
use super::{ELEMENTS, TILE};
use crate::matrix::{Epilogue, MatrixMut, MatrixRef};
use crate::window::Window;

/// A whole 3x3 convolution of stride 1 with ONNX's weights, `[output channels, input channels, 3, 3]`.
///
/// For every tile of two by two output pixels, its 4x4 input pixels d (zeros outside the input) become V = B^T d B by
/// [`transform_input`], the filter U by G g G^T; for each of the 16 places the sum over the input channels, ascending, of
/// V times U is made as in [`crate::gemm`]; and their 4x4 sums M become the four pixels A^T M A by [`transform_output`].
/// The sum of place (1, 1), which is in all four pixels once, starts with the bias, the others with +0. Residual and
/// clamp are applied at last. Each operation is rounded to f32.
pub fn conv2d(
    input: MatrixRef<'_>,
    window: &Window,
    weights: &[f32],
    epilogue: &Epilogue<'_>,
    output: &mut MatrixMut<'_>,
) {
    for row in 0..window.output[0] {
        for column in 0..window.output[1] {
            for channel in 0..output.columns {
                let mut sums = [0.0; ELEMENTS];
                sums[TILE + 1] = epilogue.start(channel);
                for i in 0..input.columns {
                    let d = std::array::from_fn(|place| {
                        let at = |axis: usize, at: usize, offset: usize| {
                            (at / 2 * 2 + offset)
                                .checked_sub(window.pad_before[axis])
                                .filter(|&at| at < window.input[axis])
                        };
                        let source = at(0, row, place / TILE).zip(at(1, column, place % TILE));
                        source.map_or(0.0, |(row, column)| input.row(row * window.input[1] + column)[i])
                    });
                    let v = transform_input(d);
                    let g = std::array::from_fn(|tap| weights[(channel * input.columns + i) * 9 + tap]);
                    let u = transform(&g);
                    for place in 0..ELEMENTS {
                        sums[place] += v[place] * u[place];
                    }
                }
                let tile = transform_output(sums);
                let pixel = row * window.output[1] + column;
                let value = epilogue.finish(pixel, channel, tile[row % 2 * 2 + column % 2]);
                output.row_mut(pixel)[channel] = value;
            }
        }
    }
}

/// B^T d B, rows first: B^T has the rows (1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0) and (0, 1, 0, -1).
pub(super) fn transform_input(d: [f32; ELEMENTS]) -> [f32; ELEMENTS] {
    let one = |a: f32, b: f32, c: f32, d: f32| [a - c, b + c, c - b, b - d];
    let columns: [[f32; TILE]; TILE] = std::array::from_fn(|j| one(d[j], d[4 + j], d[8 + j], d[12 + j]));
    let rows: [[f32; TILE]; TILE] =
        std::array::from_fn(|i| one(columns[0][i], columns[1][i], columns[2][i], columns[3][i]));
    std::array::from_fn(|place| rows[place / TILE][place % TILE])
}

/// A^T M A, rows first: A^T has the rows (1, 1, 1, 0) and (0, 1, -1, -1), which are added from the left.
pub(super) fn transform_output(m: [f32; ELEMENTS]) -> [f32; 4] {
    let one = |a: f32, b: f32, c: f32, d: f32| [(a + b) + c, (b - c) - d];
    let columns: [[f32; 2]; TILE] = std::array::from_fn(|j| one(m[j], m[4 + j], m[8 + j], m[12 + j]));
    let rows: [[f32; 2]; 2] = std::array::from_fn(|i| one(columns[0][i], columns[1][i], columns[2][i], columns[3][i]));
    [rows[0][0], rows[0][1], rows[1][0], rows[1][1]]
}
