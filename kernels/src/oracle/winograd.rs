//! 3x3 convolutions by Winograd's algorithm.

use super::gemm::{CLAMPS, SENTINEL};
use super::{Numbers, equal_bits};
use crate::conv;
use crate::matrix::{Epilogue, MatrixMut, MatrixRef};
use crate::window::Window;
use crate::winograd::{self, WinogradFilter};
use std::ops::Range;

/// Input, padding before and after.
const WINDOWS: &[([usize; 2], [usize; 2], [usize; 2])] = &[
    ([1, 1], [1, 1], [1, 1]),
    ([3, 3], [0, 0], [0, 0]),
    ([5, 4], [1, 1], [1, 1]),
    ([8, 7], [1, 1], [1, 1]),
    ([6, 9], [0, 2], [3, 0]),
    ([1, 9], [1, 1], [1, 1]),
    ([17, 15], [1, 1], [1, 1]),
];

/// Input and output channels.
const CHANNELS: &[(usize, usize)] = &[(1, 1), (3, 5), (4, 4), (7, 33), (16, 12), (35, 6), (0, 4)];

type Conv = fn(MatrixRef<'_>, &Window, &WinogradFilter, &Epilogue<'_>, Range<usize>, &mut MatrixMut<'_>, &mut [f32]);

pub fn check(seed: u64) -> Result<u32, String> {
    let mut numbers = Numbers::new(seed);
    let mut checked = 0;
    for (index, &(input_size, pad_before, pad_after)) in WINDOWS.iter().enumerate() {
        let window = Window::new(input_size, [3; 2], [1; 2], [1; 2], pad_before, pad_after);
        let window = window.ok_or_else(|| format!("{input_size:?} has no window"))?;
        for (variant, &(inputs, outputs)) in CHANNELS.iter().enumerate() {
            let gap = (index + variant) % 3;
            let (input_stride, output_stride) = (inputs + gap * 3, outputs + gap * 5);
            let (in_pixels, out_pixels) = (window.input_pixels(), window.output_pixels());
            let wild = variant % 4 == 3 && index % 2 == 0;
            let make = |numbers: &mut Numbers, count| {
                if wild { numbers.wild_floats(count) } else { numbers.floats(count) }
            };
            let input = make(&mut numbers, in_pixels * input_stride);
            let input = MatrixRef::with_stride(&input, in_pixels, inputs, input_stride);
            let weights = make(&mut numbers, outputs * inputs * 9);
            let bias = make(&mut numbers, outputs);
            let residual = make(&mut numbers, out_pixels * outputs);
            let filter = WinogradFilter::from_oihw(&weights, inputs, outputs);
            let clamp = CLAMPS[(index + variant) % CLAMPS.len()];
            let epilogue = Epilogue {
                bias: (variant % 3 != 0).then_some(&bias[..]),
                residual: (variant % 2 == 1).then(|| MatrixRef::new(&residual, out_pixels, outputs)),
                clamp,
            };
            let case = format!("{window:?}, {inputs} to {outputs} channels");
            let mut reference = vec![SENTINEL; out_pixels * output_stride];
            let mut c = MatrixMut::with_stride(&mut reference, out_pixels, outputs, output_stride);
            winograd::naive::conv2d(input, &window, &weights, &epilogue, &mut c);

            if !wild {
                // The same convolution, but for rounding.
                let mut direct = vec![SENTINEL; out_pixels * output_stride];
                let mut c = MatrixMut::with_stride(&mut direct, out_pixels, outputs, output_stride);
                conv::naive::conv2d(input, &window, &weights, 1, &epilogue, &mut c);
                let tolerance = 1e-6 * (inputs as f32 + 4.0);
                let differs = |(a, b): &(&f32, &f32)| (**a - **b).abs() > tolerance;
                if let Some((got, expected)) = reference.iter().zip(&direct).find(differs) {
                    return Err(format!("winograd, naive, {case}: {got}, a direct convolution gives {expected}"));
                }
                checked += 1;
            }

            let bodies: [(&str, Conv); 2] = [("portable", winograd::portable::conv2d), ("selected", winograd::conv2d)];
            for (name, body) in bodies {
                let cut = numbers.below(out_pixels + 1);
                let mut scratch = vec![f32::NAN; winograd::scratch_len(&window, &filter)];
                let mut output = vec![SENTINEL; out_pixels * output_stride];
                for pixels in [cut..out_pixels, 0..cut] {
                    let mut c = MatrixMut::with_stride(&mut output, out_pixels, outputs, output_stride);
                    body(input, &window, &filter, &epilogue, pixels, &mut c, &mut scratch);
                }
                let case = format!("{case}, cut at {cut}");
                equal_bits("winograd", name, &case, &reference, &output)?;
                checked += 1;
            }
        }
    }
    Ok(checked)
}
