//! Windows of convolutions and poolings, before the size of the input is known.

use super::Shapes;
use onnx_kernels::window::Window;
use tract_onnx::tract_core::ops::cnn::{PaddingSpec, PoolSpec};
use tract_onnx::tract_core::ops::nn::DataFormat;

/// Padding of the spatial axes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Padding {
    /// Before and after.
    Explicit([usize; 2], [usize; 2]),
    /// So that the output is the input's size divided by the stride, an odd one after the input.
    SameUpper,
    /// An odd one before the input.
    SameLower,
}

/// A window over one or two spatial axes; over one, the vertical axis has size 1.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Windowed {
    pub kernel: [usize; 2],
    pub strides: [usize; 2],
    pub dilations: [usize; 2],
    pub padding: Padding,
}

/// Two spatial sizes of one or two; the missing vertical one is `missing`.
fn pair(sizes: &[usize], missing: usize) -> Option<[usize; 2]> {
    match sizes {
        [horizontal] => Some([missing, *horizontal]),
        [vertical, horizontal] => Some([*vertical, *horizontal]),
        _ => None,
    }
}

impl Windowed {
    /// The window of tract's operator; `None` when it has more axes or another layout than ONNX's.
    pub fn of(spec: &PoolSpec) -> Option<Windowed> {
        if spec.data_format != DataFormat::NCHW {
            return None;
        }
        let padding = match &spec.padding {
            PaddingSpec::Valid => Padding::Explicit([0; 2], [0; 2]),
            // How many windows fit is told by the output's shape, so rounding up needs nothing here.
            PaddingSpec::Explicit(before, after) | PaddingSpec::ExplicitOnnxPool(before, after, _) => {
                Padding::Explicit(pair(before, 0)?, pair(after, 0)?)
            }
            PaddingSpec::SameUpper => Padding::SameUpper,
            PaddingSpec::SameLower => Padding::SameLower,
        };
        let or_ones = |sizes: Option<&[usize]>| sizes.map_or(Some([1; 2]), |sizes| pair(sizes, 1));
        Some(Windowed {
            kernel: pair(&spec.kernel_shape, 1)?,
            strides: or_ones(spec.strides.as_deref())?,
            dilations: or_ones(spec.dilations.as_deref())?,
            padding,
        })
    }

    fn padding(&self, axis: usize, input: usize) -> (usize, usize) {
        let window = (self.kernel[axis] - 1) * self.dilations[axis] + 1;
        let same = || {
            let output = input.div_ceil(self.strides[axis]);
            (output.saturating_sub(1) * self.strides[axis] + window).saturating_sub(input)
        };
        match &self.padding {
            Padding::Explicit(before, after) => (before[axis], after[axis]),
            Padding::SameUpper => (same() / 2, same() - same() / 2),
            Padding::SameLower => (same() - same() / 2, same() / 2),
        }
    }

    /// The window for a step's input and output `[n, h, w, c]` or `[n, w, c]`.
    pub fn of_shapes(&self, shapes: &Shapes) -> Window {
        let spatial = |shape: &[usize]| {
            let inner = shape.get(1..shape.len().saturating_sub(1)).unwrap_or_default();
            pair(inner, 1).unwrap_or([0; 2])
        };
        let (input, output) = (spatial(&shapes.inputs[0]), spatial(&shapes.output));
        let (vertical, horizontal) = (self.padding(0, input[0]), self.padding(1, input[1]));
        Window {
            input,
            output,
            kernel: self.kernel,
            stride: self.strides,
            dilation: self.dilations,
            pad_before: [vertical.0, horizontal.0],
            pad_after: [vertical.1, horizontal.1],
        }
    }
}
