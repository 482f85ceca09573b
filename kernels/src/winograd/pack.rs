//! Transformed filters.

use super::{ELEMENTS, TILE};
use crate::gemm::{PackedMatrix, PackedRef};
use crate::matrix::MatrixRef;

/// A transformed filter: for each of the 16 values of a transformed tile a packed matrix with a row per input channel and
/// a column per output channel.
#[derive(Clone, Debug, PartialEq)]
pub struct WinogradFilter {
    inputs: usize,
    matrices: Vec<PackedMatrix>,
}

impl WinogradFilter {
    /// A filter of zeros, to be filled piece by piece.
    pub fn zeros(input_channels: usize, output_channels: usize) -> WinogradFilter {
        let matrices = vec![PackedMatrix::zeros(input_channels, output_channels); ELEMENTS];
        WinogradFilter { inputs: input_channels, matrices }
    }

    /// Transforms and packs ONNX's weights: `[output_channels, input_channels, 3, 3]`.
    ///
    /// # Panics
    /// When the number of weights is another.
    pub fn from_oihw(weights: &[f32], input_channels: usize, output_channels: usize) -> WinogradFilter {
        assert_eq!(weights.len(), output_channels * input_channels * 9, "weights of a filter");
        let mut filter = WinogradFilter::zeros(input_channels, output_channels);
        filter.set_output_channels(0, weights);
        filter
    }

    /// Sets whole output channels from `first` on, given as in [`WinogradFilter::from_oihw`].
    ///
    /// # Panics
    /// When there are too many weights, or not those of whole channels.
    pub fn set_output_channels(&mut self, first: usize, weights: &[f32]) {
        /// Output channels that are transformed before they are packed, a panel's.
        const AT_ONCE: usize = crate::gemm::PANEL_COLUMNS;
        if self.inputs == 0 {
            return;
        }
        let channel_len = self.inputs * 9;
        assert!(weights.len().is_multiple_of(channel_len), "{} weights, {channel_len} a channel", weights.len());
        let mut transformed = vec![0.0; ELEMENTS * AT_ONCE.min(weights.len() / channel_len) * self.inputs];
        // The first piece ends where a panel does.
        let mut at = first;
        let mut left = weights;
        while !left.is_empty() {
            let count = (AT_ONCE - at % AT_ONCE).min(left.len() / channel_len);
            let (now, rest) = left.split_at(count * channel_len);
            let len = count * self.inputs;
            for (index, weights) in now.as_chunks::<9>().0.iter().enumerate() {
                for (element, value) in transform(weights).into_iter().enumerate() {
                    transformed[element * len + index] = value;
                }
            }
            for (matrix, values) in self.matrices.iter_mut().zip(transformed.chunks_exact(len)) {
                matrix.set_columns(at, MatrixRef::new(values, count, self.inputs));
            }
            (at, left) = (at + count, rest);
        }
    }

    pub fn input_channels(&self) -> usize {
        self.inputs
    }

    pub fn output_channels(&self) -> usize {
        self.matrices[0].n()
    }

    /// The matrix of value `element` of a transformed tile.
    pub(crate) fn matrix(&self, element: usize) -> PackedRef<'_> {
        self.matrices[element].view()
    }

    /// Bytes on the heap.
    pub fn bytes(&self) -> usize {
        self.matrices.iter().map(PackedMatrix::bytes).sum()
    }
}

/// G g G^T of the nine weights g of an input and an output channel: G has the rows (1, 0, 0), (1, 1, 1) / 2,
/// (1, -1, 1) / 2 and (0, 0, 1). Columns of g first, then rows; in f64, rounded to f32 once.
pub(super) fn transform(weights: &[f32; 9]) -> [f32; ELEMENTS] {
    let one = |a: f64, b: f64, c: f64| [a, ((a + c) + b) * 0.5, ((a + c) - b) * 0.5, c];
    let g = weights.map(f64::from);
    let columns: [[f64; TILE]; 3] = std::array::from_fn(|column| one(g[column], g[3 + column], g[6 + column]));
    let mut transformed = [0.0; ELEMENTS];
    for row in 0..TILE {
        for (column, value) in one(columns[0][row], columns[1][row], columns[2][row]).into_iter().enumerate() {
            transformed[row * TILE + column] = value as f32;
        }
    }
    transformed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_the_whole() {
        let (inputs, outputs) = (5, 70);
        let weights: Vec<f32> = (0..inputs * outputs * 9).map(|index| (index % 89) as f32 - 44.0).collect();
        let whole = WinogradFilter::from_oihw(&weights, inputs, outputs);
        for cut in [1, 31, 32, 33, 69] {
            let mut pieces = WinogradFilter::zeros(inputs, outputs);
            pieces.set_output_channels(cut, &weights[cut * inputs * 9..]);
            pieces.set_output_channels(0, &weights[..cut * inputs * 9]);
            assert_eq!(pieces, whole, "cut at {cut}");
        }
        let first = transform(weights.first_chunk().unwrap());
        assert_eq!(whole.matrix(3).get(0, 0), first[3]);
        assert_eq!(
            transform(&[1.0; 9]),
            [1.0, 1.5, 0.5, 1.0, 1.5, 2.25, 0.75, 1.5, 0.5, 0.75, 0.25, 0.5, 1.0, 1.5, 0.5, 1.0]
        );
    }
}
