//! Layer, RMS, group and instance normalisation.
//!
//! Sums have the order of [`crate::reduce`]. Of a row of `n` elements: `mean = sum(x) / n`; `variance = sum((x - mean)^2)
//! / n`; `scale = 1 / sqrt(variance + epsilon)`; the result is `((x - mean) scale) weight + bias`. RMS normalisation has
//! `scale = 1 / sqrt(sum(x^2) / n + epsilon)` and the result `(x scale) weight`. A weight or bias that is not given is left
//! out, not a one or a zero.

mod body;
pub mod naive;

use crate::lanes::Native;
use crate::pointwise::row::cost;
use crate::reduce::row_cost;
use std::ops::Range;

/// Layer normalisation of rows.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm<'a> {
    pub columns: usize,
    /// One number per column.
    pub weight: Option<&'a [f32]>,
    /// One number per column.
    pub bias: Option<&'a [f32]>,
    pub epsilon: f32,
}

/// RMS normalisation of rows (Zhang and Sennrich 2019).
#[derive(Clone, Copy, Debug)]
pub struct RmsNorm<'a> {
    pub columns: usize,
    /// One number per column.
    pub weight: Option<&'a [f32]>,
    pub epsilon: f32,
}

/// Group normalisation of images whose channels are planes (NCHW); with a group per channel, instance normalisation.
#[derive(Clone, Copy, Debug)]
pub struct GroupNorm<'a> {
    pub groups: usize,
    pub channels: usize,
    /// Pixels of a plane.
    pub pixels: usize,
    /// One number per channel.
    pub weight: &'a [f32],
    /// One number per channel.
    pub bias: &'a [f32],
    pub epsilon: f32,
}

impl LayerNorm<'_> {
    /// Rows `rows` into `output`, which holds as many; `input` holds all rows.
    ///
    /// # Panics
    /// When slices are too short.
    pub fn run(&self, input: &[f32], rows: Range<usize>, output: &mut [f32]) {
        body::layer::<Native>(self, Some(&input[rows.start * self.columns..rows.end * self.columns]), output);
    }

    /// The rows that `data` holds, in place.
    pub fn run_in_place(&self, data: &mut [f32]) {
        body::layer::<Native>(self, None, data);
    }

    /// Metered instructions of `rows` rows, in WebAssembly with SIMD and without page charges.
    pub fn estimate_instructions(&self, rows: usize) -> u64 {
        let streams = self.weight.iter().count() as u64 + self.bias.iter().count() as u64;
        let last = cost(10 + 4 * streams, self.columns);
        100 + rows as u64 * (180 + row_cost(self.columns, 4) + row_cost(self.columns, 10) + last)
    }
}

impl RmsNorm<'_> {
    /// Rows `rows` into `output`, which holds as many; `input` holds all rows.
    ///
    /// # Panics
    /// When slices are too short.
    pub fn run(&self, input: &[f32], rows: Range<usize>, output: &mut [f32]) {
        body::rms::<Native>(self, Some(&input[rows.start * self.columns..rows.end * self.columns]), output);
    }

    /// The rows that `data` holds, in place.
    pub fn run_in_place(&self, data: &mut [f32]) {
        body::rms::<Native>(self, None, data);
    }

    /// Metered instructions of `rows` rows, in WebAssembly with SIMD and without page charges.
    pub fn estimate_instructions(&self, rows: usize) -> u64 {
        let last = cost(if self.weight.is_some() { 11 } else { 7 }, self.columns);
        100 + rows as u64 * (150 + row_cost(self.columns, 8) + last)
    }
}

impl GroupNorm<'_> {
    /// Elements of a group.
    fn elements(&self) -> usize {
        self.channels / self.groups * self.pixels
    }

    /// Groups `groups` (of all images, one after the other) into `output`, which holds as many; `input` holds all.
    ///
    /// # Panics
    /// When slices are too short, or `groups` does not divide `channels`.
    pub fn run(&self, input: &[f32], groups: Range<usize>, output: &mut [f32]) {
        body::group::<Native>(self, input, groups, output);
    }

    /// Metered instructions of `groups` groups, in WebAssembly with SIMD and without page charges.
    pub fn estimate_instructions(&self, groups: usize) -> u64 {
        let planes = (self.channels / self.groups) as u64 * (60 + cost(16, self.pixels));
        100 + groups as u64 * (180 + row_cost(self.elements(), 4) + row_cost(self.elements(), 10) + planes)
    }
}

/// Bodies for any target.
pub mod portable {
    use super::*;
    use crate::lanes::portable::Four;

    /// See [`LayerNorm::run`].
    pub fn layer(norm: &LayerNorm, input: &[f32], rows: Range<usize>, output: &mut [f32]) {
        body::layer::<Four>(norm, Some(&input[rows.start * norm.columns..rows.end * norm.columns]), output);
    }

    /// See [`RmsNorm::run`].
    pub fn rms(norm: &RmsNorm, input: &[f32], rows: Range<usize>, output: &mut [f32]) {
        body::rms::<Four>(norm, Some(&input[rows.start * norm.columns..rows.end * norm.columns]), output);
    }

    /// See [`GroupNorm::run`].
    pub fn group(norm: &GroupNorm, input: &[f32], groups: Range<usize>, output: &mut [f32]) {
        body::group::<Four>(norm, input, groups, output);
    }
}
