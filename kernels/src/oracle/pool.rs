//! Pooling.

use super::conv::{WINDOWS, window};
use super::gemm::SENTINEL;
use super::{Numbers, equal_bits};
use crate::matrix::{MatrixMut, MatrixRef};
use crate::pool::{self, Pool};
use crate::window::Window;
use std::ops::Range;

const CHANNELS: &[usize] = &[0, 1, 3, 4, 5, 16, 30, 32, 67];

type PoolBody = fn(Pool, MatrixRef<'_>, &Window, Range<usize>, &mut MatrixMut<'_>);

pub fn check(seed: u64) -> Result<u32, String> {
    let mut numbers = Numbers::new(seed);
    let mut checked = 0;
    for (index, shape) in WINDOWS.iter().enumerate() {
        let mut window = window(shape)?;
        if index % 3 == 2 && window.input[1] > 0 {
            // A last window that reaches beyond the padding.
            window.output[1] += 1;
        }
        for (variant, &channels) in CHANNELS.iter().enumerate() {
            for kind in [Pool::Max, Pool::Average, Pool::AverageWithPadding] {
                let gap = (index + variant) % 3;
                let (input_stride, output_stride) = (channels + gap * 3, channels + gap * 5);
                let (in_pixels, out_pixels) = (window.input_pixels(), window.output_pixels());
                let count = in_pixels * input_stride;
                let input = if variant % 3 == 2 { numbers.wild_floats(count) } else { numbers.floats(count) };
                let input = MatrixRef::with_stride(&input, in_pixels, channels, input_stride);
                let mut reference = vec![SENTINEL; out_pixels * output_stride];
                let mut c = MatrixMut::with_stride(&mut reference, out_pixels, channels, output_stride);
                pool::naive::pool(kind, input, &window, &mut c);
                let cut = numbers.below(out_pixels + 1);
                let case = format!("{kind:?}, {window:?}, {channels} channels, cut at {cut}");
                let bodies: [(&str, PoolBody); 2] = [("portable", pool::portable::pool), ("selected", pool::pool)];
                for (name, body) in bodies {
                    let mut output = vec![SENTINEL; out_pixels * output_stride];
                    for pixels in [cut..out_pixels, 0..cut] {
                        let mut c = MatrixMut::with_stride(&mut output, out_pixels, channels, output_stride);
                        body(kind, input, &window, pixels, &mut c);
                    }
                    equal_bits("pool", name, &case, &reference, &output)?;
                    checked += 1;
                }
            }
        }
    }
    Ok(checked)
}
