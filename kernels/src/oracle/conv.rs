//! Convolutions.

use super::gemm::{CLAMPS, SENTINEL};
use super::{Numbers, equal_bits};
use crate::conv::{self, Filter};
use crate::matrix::{Epilogue, MatrixMut, MatrixRef};
use crate::window::Window;
use std::ops::Range;

/// Input, kernel, stride, dilation, padding before and after.
pub(super) type Shape = ([usize; 2], [usize; 2], [usize; 2], [usize; 2], [usize; 2], [usize; 2]);

pub(super) const WINDOWS: &[Shape] = &[
    ([5, 7], [1, 1], [1, 1], [1, 1], [0, 0], [0, 0]),
    ([5, 7], [1, 1], [2, 3], [1, 1], [0, 0], [0, 0]),
    ([4, 3], [1, 1], [1, 1], [1, 1], [1, 0], [0, 2]),
    ([6, 5], [3, 3], [1, 1], [1, 1], [1, 1], [1, 1]),
    ([7, 9], [3, 3], [2, 2], [1, 1], [0, 0], [1, 1]),
    ([9, 8], [5, 5], [1, 1], [1, 1], [2, 2], [2, 2]),
    ([9, 8], [5, 5], [2, 2], [1, 1], [2, 1], [2, 2]),
    ([8, 11], [3, 2], [1, 3], [2, 3], [3, 2], [0, 4]),
    ([1, 23], [1, 5], [1, 2], [1, 2], [0, 4], [0, 4]),
    ([2, 2], [3, 3], [1, 1], [2, 2], [4, 4], [4, 4]),
    ([3, 3], [3, 3], [1, 1], [1, 1], [0, 0], [0, 0]),
    ([0, 4], [2, 2], [1, 1], [1, 1], [1, 0], [1, 0]),
    ([12, 12], [7, 7], [2, 2], [1, 1], [3, 3], [3, 3]),
];

/// Input channels, output channels, groups.
const CHANNELS: &[(usize, usize, usize)] = &[
    (1, 1, 1),
    (3, 8, 1),
    (4, 5, 1),
    (6, 9, 3),
    (32, 16, 1),
    (40, 33, 1),
    (16, 12, 4),
    (5, 10, 5),
    (66, 40, 2),
    (0, 4, 1),
];

pub(super) fn window(shape: &Shape) -> Result<Window, String> {
    let (input, kernel, stride, dilation, pad_before, pad_after) = *shape;
    Window::new(input, kernel, stride, dilation, pad_before, pad_after).ok_or(format!("{shape:?} is no window"))
}

type Conv = fn(MatrixRef<'_>, &Window, &Filter, &Epilogue<'_>, Range<usize>, &mut MatrixMut<'_>, &mut [f32]);

pub fn check(seed: u64) -> Result<u32, String> {
    let mut numbers = Numbers::new(seed);
    let mut checked = 0;
    for (index, shape) in WINDOWS.iter().enumerate() {
        let window = window(shape)?;
        for (variant, &(inputs, outputs, groups)) in CHANNELS.iter().enumerate() {
            // Images of their own, and slices of the channels of wider ones.
            let gap = (index + variant) % 3;
            let (input_stride, output_stride) = (inputs + gap * 3, outputs + gap * 5);
            let (in_pixels, out_pixels) = (window.input_pixels(), window.output_pixels());
            let wild = variant % 4 == 3;
            let make = |numbers: &mut Numbers, count| {
                if wild { numbers.wild_floats(count) } else { numbers.floats(count) }
            };
            let input = make(&mut numbers, in_pixels * input_stride);
            let input = MatrixRef::with_stride(&input, in_pixels, inputs, input_stride);
            let weights = make(&mut numbers, outputs * inputs / groups * window.taps());
            let bias = make(&mut numbers, outputs);
            let residual = make(&mut numbers, out_pixels * outputs);
            let filter = Filter::from_oihw(&weights, window.kernel, inputs, outputs, groups);
            let fused = (index + variant) % CLAMPS.len();
            let epilogue = Epilogue {
                bias: (variant % 3 != 0).then_some(&bias[..]),
                residual: (variant % 2 == 1).then(|| MatrixRef::new(&residual, out_pixels, outputs)),
                clamp: CLAMPS[fused],
            };
            let mut reference = vec![SENTINEL; out_pixels * output_stride];
            let mut c = MatrixMut::with_stride(&mut reference, out_pixels, outputs, output_stride);
            conv::naive::conv2d(input, &window, &weights, groups, &epilogue, &mut c);
            let cut = numbers.below(out_pixels + 1);
            let case = format!("{window:?}, {inputs} to {outputs} channels in {groups} groups, cut at {cut}");
            let bodies: [(&str, Conv); 2] = [("portable", conv::portable::conv2d), ("selected", conv::conv2d)];
            for (name, body) in bodies {
                let scratch_len =
                    conv::scratch_len(&window, &filter).max(conv::portable::scratch_len(&window, &filter));
                let mut scratch = vec![f32::NAN; scratch_len];
                let mut output = vec![SENTINEL; out_pixels * output_stride];
                for pixels in [cut..out_pixels, 0..cut] {
                    let mut c = MatrixMut::with_stride(&mut output, out_pixels, outputs, output_stride);
                    body(input, &window, &filter, &epilogue, pixels, &mut c, &mut scratch);
                }
                equal_bits("conv2d", name, &case, &reference, &output)?;
                checked += 1;
            }
        }
    }
    Ok(checked)
}
