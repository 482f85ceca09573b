//! Convolutions, named by window, channels and output side.

use super::Row;
use crate::meter::{floats, instructions};
use onnx_kernels::conv::{self, Filter};
use onnx_kernels::matrix::{Clamp, Epilogue, MatrixMut, MatrixRef};
use onnx_kernels::window::Window;

pub fn rows() -> Vec<Row> {
    vec![
        square(56, 3, 1, 1, 64, 64, 1, Some(2.0)),
        // The first layers of EfficientNet-Lite0, SqueezeNet and ResNet.
        square(224, 3, 2, 1, 3, 32, 1, Some(2.0)),
        square(224, 3, 2, 0, 3, 64, 1, Some(2.0)),
        square(112, 7, 2, 3, 3, 64, 1, Some(2.0)),
        // SqueezeNet's 3x3 expansions.
        square(55, 3, 1, 1, 16, 64, 1, Some(2.0)),
        square(27, 3, 1, 1, 32, 128, 1, Some(2.0)),
        square(13, 3, 1, 1, 48, 192, 1, Some(2.0)),
        square(13, 3, 1, 1, 64, 256, 1, Some(2.0)),
        square(7, 3, 1, 1, 512, 512, 1, Some(2.0)),
        square(28, 3, 2, 1, 128, 128, 1, Some(2.0)),
        square(28, 3, 1, 1, 128, 128, 32, None),
        square(56, 1, 2, 0, 64, 128, 1, Some(2.0)),
        pack(512, 512, 3),
    ]
}

#[expect(clippy::too_many_arguments, reason = "the shape of a convolution, in the order of its name")]
fn square(
    side: usize,
    kernel: usize,
    stride: usize,
    pad: usize,
    inputs: usize,
    outputs: usize,
    groups: usize,
    asked: Option<f64>,
) -> Row {
    let window = Window::square([side; 2], kernel, stride, pad).expect("a window");
    let (in_pixels, out_pixels) = (window.input_pixels(), window.output_pixels());
    let estimate = {
        let filter = Filter::zeros(window.kernel, inputs, outputs, groups);
        conv::estimate_instructions(&window, &filter, out_pixels)
    };
    let in_groups = if groups > 1 { format!(" in {groups} groups") } else { String::new() };
    let name = format!("conv {kernel}x{kernel} /{stride} {inputs} to {outputs}{in_groups} @{}", window.output[0]);
    Row {
        name,
        work: (out_pixels * window.taps() * inputs / groups * outputs) as u64,
        unit: "MAC",
        asked,
        estimate: Some(estimate),
        run: Box::new(move || {
            let (input, bias, mut output) =
                (floats(in_pixels * inputs), floats(outputs), vec![0.0; out_pixels * outputs]);
            let weights = floats(outputs * inputs / groups * kernel * kernel);
            let filter = Filter::from_oihw(&weights, [kernel; 2], inputs, outputs, groups);
            let epilogue = Epilogue { bias: Some(&bias), residual: None, clamp: Clamp::RELU };
            let mut scratch = vec![0.0; conv::scratch_len(&window, &filter)];
            let input = MatrixRef::new(&input, in_pixels, inputs);
            instructions(|| {
                let mut output = MatrixMut::new(&mut output, out_pixels, outputs);
                conv::conv2d(input, &window, &filter, &epilogue, 0..out_pixels, &mut output, &mut scratch);
            })
        }),
    }
}

fn pack(inputs: usize, outputs: usize, kernel: usize) -> Row {
    Row {
        name: format!("pack_filter {kernel}x{kernel} {inputs} to {outputs}"),
        work: (inputs * outputs * kernel * kernel) as u64,
        unit: "element",
        asked: None,
        estimate: None,
        run: Box::new(move || {
            let weights = floats(outputs * inputs * kernel * kernel);
            let mut filter = Filter::zeros([kernel; 2], inputs, outputs, 1);
            instructions(|| filter.set_output_channels(0, &weights))
        }),
    }
}
