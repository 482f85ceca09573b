//! A body for any target.

use super::naive;
use super::tiles::{self, Body};
use super::{ELEMENTS, WinogradFilter};
use crate::gemm;
use crate::matrix::{Clamp, Epilogue, MatrixMut, MatrixRef};
use crate::window::Window;
use std::ops::Range;

pub(super) const BODY: Body = Body { transform_input, gemm: gemm::portable::gemm, transform_output };

/// See [`super::conv2d`].
pub fn conv2d(
    input: MatrixRef<'_>,
    window: &Window,
    filter: &WinogradFilter,
    epilogue: &Epilogue<'_>,
    pixels: Range<usize>,
    output: &mut MatrixMut<'_>,
    scratch: &mut [f32],
) {
    tiles::conv2d(&BODY, input, window, filter, epilogue, pixels, output, scratch);
}

pub(super) fn transform_input(pixels: &[&[f32]; ELEMENTS], transformed: &mut [f32], stride: usize) {
    for channel in 0..pixels[0].len() {
        let values = naive::transform_input(pixels.map(|pixel| pixel[channel]));
        for (place, value) in values.into_iter().enumerate() {
            transformed[place * stride + channel] = value;
        }
    }
}

pub(super) fn transform_output(sums: &[f32], stride: usize, clamp: Clamp, pixels: [&mut [f32]; 4]) {
    for channel in 0..pixels[0].len() {
        let values = naive::transform_output(std::array::from_fn(|place| sums[place * stride + channel]));
        for (pixel, value) in values.into_iter().enumerate() {
            pixels[pixel][channel] = clamp.apply(value);
        }
    }
}
