//! Where the windows of a convolution or a pooling lie.

use std::ops::Range;

/// A window that slides over an image of `input` = [height, width] pixels. Pairs are [vertical, horizontal].
///
/// Images are NHWC: a pixel's channels are consecutive. A signal is an image of height 1. Output pixels are numbered row
/// by row, from 0 to `output[0] * output[1]`; kernels take a range of these numbers, so that a caller can cut the work.
/// Batches are the caller's loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Height and width of the input.
    pub input: [usize; 2],
    /// Height and width of the window, in taps.
    pub kernel: [usize; 2],
    /// Input pixels from one window to the next.
    pub stride: [usize; 2],
    /// Input pixels from one tap to the next.
    pub dilation: [usize; 2],
    /// Pixels above and left of the input.
    pub pad_before: [usize; 2],
    /// Pixels below and right of the input.
    pub pad_after: [usize; 2],
    /// Height and width of the output. Its last windows may reach beyond the padding, as ONNX's `ceil_mode` has it.
    pub output: [usize; 2],
}

impl Window {
    /// The window with the output size that ONNX gives it without `ceil_mode`. `None` when a stride, a dilation or a
    /// kernel side is 0, when the window is larger than the padded input, or when a number overflows.
    pub fn new(
        input: [usize; 2],
        kernel: [usize; 2],
        stride: [usize; 2],
        dilation: [usize; 2],
        pad_before: [usize; 2],
        pad_after: [usize; 2],
    ) -> Option<Window> {
        let mut output = [0; 2];
        for axis in 0..2 {
            if stride[axis] == 0 || dilation[axis] == 0 || kernel[axis] == 0 {
                return None;
            }
            let padded = input[axis].checked_add(pad_before[axis])?.checked_add(pad_after[axis])?;
            let extent = (kernel[axis] - 1).checked_mul(dilation[axis])?.checked_add(1)?;
            output[axis] = padded.checked_sub(extent)? / stride[axis] + 1;
        }
        for pair in [input, kernel, output] {
            pair[0].checked_mul(pair[1])?;
        }
        Some(Window { input, kernel, stride, dilation, pad_before, pad_after, output })
    }

    /// A square window, stride and padding, without dilation.
    pub fn square(input: [usize; 2], kernel: usize, stride: usize, pad: usize) -> Option<Window> {
        Window::new(input, [kernel; 2], [stride; 2], [1; 2], [pad; 2], [pad; 2])
    }

    /// Pixels of the input.
    pub fn input_pixels(&self) -> usize {
        self.input[0] * self.input[1]
    }

    /// Pixels of the output.
    pub fn output_pixels(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Taps of the window.
    pub fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Whether output pixel `i` is made of input pixel `i` alone.
    pub fn is_pointwise(&self) -> bool {
        self.kernel == [1; 2] && self.stride == [1; 2] && self.pad_before == [0; 2] && self.input == self.output
    }

    /// The input row or column that tap `tap` of output row or column `at` reads, when it is inside.
    #[inline]
    pub fn source(&self, axis: usize, at: usize, tap: usize) -> Option<usize> {
        let padded = at * self.stride[axis] + tap * self.dilation[axis];
        padded.checked_sub(self.pad_before[axis]).filter(|&source| source < self.input[axis])
    }

    /// The taps of output row (axis 0) or column (axis 1) `at` that lie inside the input.
    pub fn taps_inside(&self, axis: usize, at: usize) -> Range<usize> {
        let (start, dilation, taps) = (at * self.stride[axis], self.dilation[axis], self.kernel[axis]);
        let (pad, end) = (self.pad_before[axis], self.pad_before[axis] + self.input[axis]);
        if start >= pad && start + (taps - 1) * dilation < end {
            return 0..taps;
        }
        let first = pad.saturating_sub(start).div_ceil(dilation).min(taps);
        let last = end.saturating_sub(start).div_ceil(dilation).min(taps);
        first..last.max(first)
    }

    /// The output columns (axis 1) or rows (axis 0) whose tap `tap` lies inside the input.
    pub fn inside(&self, axis: usize, tap: usize) -> Range<usize> {
        let (stride, offset) = (self.stride[axis], tap * self.dilation[axis]);
        let first = self.pad_before[axis].saturating_sub(offset).div_ceil(stride);
        let end = (self.input[axis] + self.pad_before[axis]).saturating_sub(offset).div_ceil(stride);
        let end = end.min(self.output[axis]);
        first.min(end)..end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_onnx() {
        assert_eq!(Window::square([224, 224], 3, 2, 1).unwrap().output, [112, 112]);
        assert_eq!(Window::square([7, 9], 7, 1, 0).unwrap().output, [1, 3]);
        let dilated = Window::new([10, 10], [3, 2], [2, 3], [2, 4], [1, 0], [0, 2]).unwrap();
        assert_eq!(dilated.output, [4, 3]);
        assert_eq!(Window::square([2, 2], 3, 1, 0), None);
        assert_eq!(Window::square([2, 2], 1, 0, 0), None);
        assert_eq!(Window::square([usize::MAX, 2], 1, 1, 1), None);
        assert_eq!(Window::square([usize::MAX / 2, 3], 1, 1, 0), None);
    }

    #[test]
    fn inside_is_where_the_source_is() {
        for (input, kernel, stride, dilation, pad) in
            [(5, 3, 1, 1, 1), (5, 3, 2, 1, 1), (7, 5, 3, 2, 4), (1, 3, 1, 1, 1), (4, 2, 3, 5, 3), (3, 3, 1, 1, 7)]
        {
            let Some(window) = Window::new([input; 2], [kernel; 2], [stride; 2], [dilation; 2], [pad; 2], [pad; 2])
            else {
                continue;
            };
            for tap in 0..kernel {
                let inside = window.inside(1, tap);
                for column in 0..window.output[1] {
                    let is_inside = window.source(1, column, tap).is_some();
                    assert_eq!(is_inside, inside.contains(&column), "{window:?} {tap}");
                    assert_eq!(is_inside, window.taps_inside(1, column).contains(&tap), "{window:?} {tap}");
                }
            }
        }
    }
}
