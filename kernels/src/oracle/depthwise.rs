//! Depthwise convolutions.

use super::conv::{WINDOWS, window};
use super::gemm::{CLAMPS, SENTINEL};
use super::{Numbers, equal_bits};
use crate::conv;
use crate::depthwise::{self, DepthwiseFilter};
use crate::matrix::{Epilogue, MatrixMut, MatrixRef};
use crate::window::Window;
use std::ops::Range;

/// Channels, around every block size of the bodies.
const CHANNELS: &[usize] = &[0, 1, 3, 4, 5, 8, 15, 16, 28, 31, 32, 45, 64, 67];

type Depthwise =
    fn(MatrixRef<'_>, &Window, &DepthwiseFilter, &Epilogue<'_>, Range<usize>, &mut MatrixMut<'_>, &mut [f32]);

pub fn check(seed: u64) -> Result<u32, String> {
    let mut numbers = Numbers::new(seed);
    let mut checked = 0;
    for (index, shape) in WINDOWS.iter().enumerate() {
        let window = window(shape)?;
        for (variant, &channels) in CHANNELS.iter().enumerate() {
            let gap = (index + variant) % 3;
            let (input_stride, output_stride) = (channels + gap * 3, channels + gap * 5);
            let (in_pixels, out_pixels) = (window.input_pixels(), window.output_pixels());
            let wild = variant % 4 == 3;
            let make = |numbers: &mut Numbers, count| {
                if wild { numbers.wild_floats(count) } else { numbers.floats(count) }
            };
            let input = make(&mut numbers, in_pixels * input_stride);
            let input = MatrixRef::with_stride(&input, in_pixels, channels, input_stride);
            let weights = make(&mut numbers, channels * window.taps());
            let bias = make(&mut numbers, channels);
            let residual = make(&mut numbers, out_pixels * channels);
            let filter = DepthwiseFilter::from_oihw(&weights, window.kernel, channels);
            let epilogue = Epilogue {
                bias: (variant % 3 != 0).then_some(&bias[..]),
                residual: (index % 2 == 1).then(|| MatrixRef::new(&residual, out_pixels, channels)),
                clamp: CLAMPS[(index + variant) % CLAMPS.len()],
            };
            let mut reference = vec![SENTINEL; out_pixels * output_stride];
            let mut c = MatrixMut::with_stride(&mut reference, out_pixels, channels, output_stride);
            depthwise::naive::depthwise(input, &window, &weights, &epilogue, &mut c);
            let cut = numbers.below(out_pixels + 1);
            let case = format!("{window:?}, {channels} channels, cut at {cut}");

            if channels > 0 {
                // The same as a convolution in groups of one channel.
                let mut grouped = vec![SENTINEL; out_pixels * output_stride];
                let mut c = MatrixMut::with_stride(&mut grouped, out_pixels, channels, output_stride);
                conv::naive::conv2d(input, &window, &weights, channels, &epilogue, &mut c);
                equal_bits("depthwise", "grouped", &case, &reference, &grouped)?;
                checked += 1;
            }

            let bodies: [(&str, Depthwise); 2] =
                [("portable", depthwise::portable::depthwise), ("selected", depthwise::depthwise)];
            for (name, body) in bodies {
                let mut scratch = vec![f32::NAN; depthwise::scratch_len(&window, &filter)];
                let mut output = vec![SENTINEL; out_pixels * output_stride];
                for pixels in [cut..out_pixels, 0..cut] {
                    let mut c = MatrixMut::with_stride(&mut output, out_pixels, channels, output_stride);
                    body(input, &window, &filter, &epilogue, pixels, &mut c, &mut scratch);
                }
                equal_bits("depthwise", name, &case, &reference, &output)?;
                checked += 1;
            }
        }
    }
    Ok(checked)
}
