//! The layout that filters are kept in.

use crate::gemm::{PackedMatrix, PackedRef};
use crate::matrix::MatrixRef;

/// A filter: per group a packed matrix with a row per (tap row, tap column, input channel) and a column per output
/// channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    kernel: [usize; 2],
    group_inputs: usize,
    matrices: Vec<PackedMatrix>,
}

impl Filter {
    /// A filter to be filled piece by piece: until all is set it can't be read.
    ///
    /// # Panics
    /// When `groups` is 0 or does not divide `input_channels` and `output_channels`.
    pub fn zeros(kernel: [usize; 2], input_channels: usize, output_channels: usize, groups: usize) -> Filter {
        assert!(
            groups > 0 && input_channels.is_multiple_of(groups) && output_channels.is_multiple_of(groups),
            "{groups} groups of {input_channels} and {output_channels} channels"
        );
        let group_inputs = input_channels / groups;
        let k = kernel[0] * kernel[1] * group_inputs;
        // Not clones of one: a clone of what is to be filled has no room.
        let matrices = (0..groups).map(|_| PackedMatrix::to_fill(k, output_channels / groups)).collect();
        Filter { kernel, group_inputs, matrices }
    }

    /// Packs ONNX's weights: `[output_channels, input_channels / groups, kernel rows, kernel columns]`.
    ///
    /// # Panics
    /// When the number of weights is another, or as [`Filter::zeros`].
    pub fn from_oihw(
        weights: &[f32],
        kernel: [usize; 2],
        input_channels: usize,
        output_channels: usize,
        groups: usize,
    ) -> Filter {
        let mut filter = Filter::zeros(kernel, input_channels, output_channels, groups);
        filter.set_output_channels(0, weights);
        assert_eq!(weights.len(), output_channels * filter.channel_len(), "weights of a filter");
        filter
    }

    /// Sets whole output channels from `first` on, given as in [`Filter::from_oihw`].
    ///
    /// # Panics
    /// When there are too many weights, or not those of whole channels.
    pub fn set_output_channels(&mut self, first: usize, weights: &[f32]) {
        let (taps, group_outputs, channel_len) = (self.taps(), self.group_outputs(), self.channel_len());
        if channel_len == 0 {
            return;
        }
        assert!(weights.len().is_multiple_of(channel_len), "{} weights, {channel_len} a channel", weights.len());
        let end = first + weights.len() / channel_len;
        assert!(end <= self.output_channels(), "output channels {first}..{end} of {}", self.output_channels());
        let mut at = first;
        while at < end {
            let (group, column) = (at / group_outputs, at % group_outputs);
            let count = (group_outputs - column).min(end - at);
            let source = &weights[(at - first) * channel_len..][..count * channel_len];
            self.matrices[group].set_columns_blocked(column, MatrixRef::new(source, count, channel_len), taps);
            at += count;
        }
    }

    /// Weights of an output channel.
    fn channel_len(&self) -> usize {
        self.taps() * self.group_inputs
    }

    /// Taps of the window.
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Height and width of the window.
    pub fn kernel(&self) -> [usize; 2] {
        self.kernel
    }

    pub fn groups(&self) -> usize {
        self.matrices.len()
    }

    /// Input channels of all groups.
    pub fn input_channels(&self) -> usize {
        self.group_inputs * self.groups()
    }

    /// Output channels of all groups.
    pub fn output_channels(&self) -> usize {
        self.group_outputs() * self.groups()
    }

    /// Input channels of a group.
    pub fn group_inputs(&self) -> usize {
        self.group_inputs
    }

    /// Output channels of a group.
    pub fn group_outputs(&self) -> usize {
        self.matrices[0].n()
    }

    /// The matrix of a group.
    pub fn matrix(&self, group: usize) -> PackedRef<'_> {
        self.matrices[group].view()
    }

    /// Bytes on the heap.
    pub fn bytes(&self) -> usize {
        self.matrices.iter().map(PackedMatrix::bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_taps_then_channels() {
        let (kernel, inputs, outputs, groups) = ([2, 3], 4, 6, 2);
        let weights: Vec<f32> = (0..6 * 2 * 6).map(|index| index as f32).collect();
        let filter = Filter::from_oihw(&weights, kernel, inputs, outputs, groups);
        for output in 0..outputs {
            for channel in 0..2 {
                for tap in 0..6 {
                    let expected = weights[(output * 2 + channel) * 6 + tap];
                    assert_eq!(filter.matrix(output / 3).get(tap * 2 + channel, output % 3), expected);
                }
            }
        }
        let mut pieces = Filter::zeros(kernel, inputs, outputs, groups);
        pieces.set_output_channels(1, &weights[12..60]);
        pieces.set_output_channels(0, &weights[..12]);
        pieces.set_output_channels(5, &weights[60..]);
        assert_eq!(pieces, filter);
    }
}
