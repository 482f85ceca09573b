//! The layout that depthwise filters are kept in.

/// A depthwise filter: a row of one weight per channel for every tap, in the order (tap row, tap column).
#[derive(Clone, Debug, PartialEq)]
pub struct DepthwiseFilter {
    kernel: [usize; 2],
    channels: usize,
    data: Vec<f32>,
}

impl DepthwiseFilter {
    /// Packs ONNX's weights: `[channels, 1, kernel rows, kernel columns]`.
    ///
    /// # Panics
    /// When the number of weights is another.
    pub fn from_oihw(weights: &[f32], kernel: [usize; 2], channels: usize) -> DepthwiseFilter {
        let taps = kernel[0] * kernel[1];
        assert_eq!(weights.len(), channels * taps, "weights of a depthwise filter");
        let mut data = vec![0.0; channels * taps];
        if taps > 0 && channels > 0 {
            for (tap, row) in data.chunks_exact_mut(channels).enumerate() {
                for (place, weights) in row.iter_mut().zip(weights.chunks_exact(taps)) {
                    *place = weights[tap];
                }
            }
        }
        DepthwiseFilter { kernel, channels, data }
    }

    /// Height and width of the window.
    pub fn kernel(&self) -> [usize; 2] {
        self.kernel
    }

    /// Taps of the window.
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The weights of one tap.
    pub(crate) fn tap(&self, tap: usize) -> &[f32] {
        &self.data[tap * self.channels..][..self.channels]
    }

    /// Bytes on the heap.
    pub fn bytes(&self) -> usize {
        self.data.capacity() * size_of::<f32>()
    }
}
