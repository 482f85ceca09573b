//! Weights of depthwise convolutions.

use super::Window;

/// Channels that are packed and computed together.
pub(crate) const CHANNEL_GROUP: usize = 8;

/// Weights of a depthwise convolution, a kernel for each channel, zero points subtracted.
///
/// Taps are paired down the columns, so that a dot product takes two rows of the input. Weights are in the order
/// `[group of 8 channels][start][column of the kernel][pair of rows][half of the group][channel][row of the pair]`: start 0
/// pairs rows (0, 1), (2, 3) ..., start 1 pairs (none, 0), (1, 2) ..., for the second of two output rows that share the
/// input's pairs. What is no row of the kernel is 0. If there are more than 8 channels but no multiple of 8, the last group
/// is the last 8 channels, some of which are then in two groups; if there are fewer, the rest of the group is 0.
#[derive(Clone, Copy, Debug)]
pub struct DepthwiseWeights<'a> {
    packed: &'a [i16],
    channels: usize,
    kernel: [usize; 2],
}

impl<'a> DepthwiseWeights<'a> {
    /// Pairs of input rows that two output rows one apart see.
    pub(crate) fn pairs(kernel: [usize; 2]) -> usize {
        kernel[0] / 2 + 1
    }

    /// Values of the packed weights; `None` if there is no such number.
    pub fn packed_len(channels: usize, kernel: [usize; 2]) -> Option<usize> {
        let taps = Self::pairs(kernel).checked_mul(kernel[1])?.checked_mul(4)?;
        channels.checked_next_multiple_of(CHANNEL_GROUP)?.checked_mul(taps)
    }

    /// What [`pack_depthwise`] made.
    ///
    /// # Panics
    /// If it is not [`Self::packed_len`] values.
    pub fn new(packed: &'a [i16], channels: usize, kernel: [usize; 2]) -> Self {
        assert_eq!(Some(packed.len()), Self::packed_len(channels, kernel), "{channels} kernels of {kernel:?}");
        Self { packed, channels, kernel }
    }

    pub fn channels(&self) -> usize {
        self.channels
    }

    pub fn kernel(&self) -> [usize; 2] {
        self.kernel
    }

    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    pub(crate) fn packed(&self) -> &'a [i16] {
        self.packed
    }

    /// The first channel of a group.
    pub(crate) fn first_channel(channels: usize, group: usize) -> usize {
        (group * CHANNEL_GROUP).min(channels.saturating_sub(CHANNEL_GROUP))
    }

    /// Index of the weight of the channel `lane` of a group.
    pub(crate) fn index(kernel: [usize; 2], group: usize, lane: usize, start: usize, tap: (usize, usize)) -> usize {
        let (pairs, row) = (Self::pairs(kernel), tap.0 + start);
        let vector = (((group * 2 + start) * kernel[1] + tap.1) * pairs + row / 2) * 2 + lane / 4;
        vector * 8 + lane % 4 * 2 + row % 2
    }

    /// One weight.
    pub fn at(&self, channel: usize, tap: (usize, usize)) -> i16 {
        let group = channel / CHANNEL_GROUP;
        let lane = channel - Self::first_channel(self.channels, group);
        self.packed[Self::index(self.kernel, group, lane, 0, tap)]
    }

    /// # Panics
    /// If the window has another kernel.
    pub(crate) fn check(&self, window: &Window) {
        assert_eq!(window.kernel, self.kernel, "kernel of the weights and of the window");
    }
}

/// Packs weights `[channels, kernel rows, kernel columns]`, zero points subtracted.
///
/// # Panics
/// If they are not as many, or `packed` is not [`DepthwiseWeights::packed_len`] values.
pub fn pack_depthwise(weights: &[i16], channels: usize, kernel: [usize; 2], packed: &mut [i16]) {
    assert_eq!(Some(packed.len()), DepthwiseWeights::packed_len(channels, kernel), "{channels} kernels of {kernel:?}");
    assert_eq!(weights.len(), channels * kernel[0] * kernel[1], "weights of {channels} kernels of {kernel:?}");
    packed.fill(0);
    for group in 0..channels.div_ceil(CHANNEL_GROUP) {
        let first = DepthwiseWeights::first_channel(channels, group);
        for lane in 0..CHANNEL_GROUP.min(channels) {
            let weights = &weights[(first + lane) * kernel[0] * kernel[1]..][..kernel[0] * kernel[1]];
            let next_column = DepthwiseWeights::index(kernel, group, lane, 0, (0, 1))
                - DepthwiseWeights::index(kernel, group, lane, 0, (0, 0));
            let mut taps = weights.iter();
            for row in 0..kernel[0] {
                let mut places = [0, 1].map(|start| DepthwiseWeights::index(kernel, group, lane, start, (row, 0)));
                for weight in taps.by_ref().take(kernel[1]) {
                    for place in &mut places {
                        packed[*place] = *weight;
                        *place += next_column;
                    }
                }
            }
        }
    }
}
