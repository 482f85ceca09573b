//! Depthwise convolutions with a bias and a clip, named by window, channels and output side.

use super::Row;
use crate::meter::{floats, instructions};
use onnx_kernels::depthwise::{self, DepthwiseFilter};
use onnx_kernels::matrix::{Clamp, Epilogue, MatrixMut, MatrixRef};
use onnx_kernels::window::Window;

pub fn rows() -> Vec<Row> {
    vec![
        square(56, 3, 1, 144, Some(2.6)),
        // Those of EfficientNet-Lite0.
        square(112, 3, 1, 32, Some(2.6)),
        square(112, 3, 2, 96, Some(2.6)),
        square(56, 5, 2, 144, Some(2.6)),
        square(28, 5, 1, 240, Some(2.6)),
        square(28, 3, 2, 240, Some(2.6)),
        square(14, 3, 1, 480, Some(2.6)),
        square(14, 5, 1, 672, Some(2.6)),
        square(14, 5, 2, 672, Some(2.6)),
        square(7, 5, 1, 1152, Some(2.6)),
        square(7, 3, 1, 1152, Some(2.6)),
        square(14, 7, 1, 100, Some(2.6)),
    ]
}

fn square(side: usize, kernel: usize, stride: usize, channels: usize, asked: Option<f64>) -> Row {
    let window = Window::square([side; 2], kernel, stride, kernel / 2).expect("a window");
    let (in_pixels, out_pixels) = (window.input_pixels(), window.output_pixels());
    let filter = move || DepthwiseFilter::from_oihw(&floats(channels * kernel * kernel), [kernel; 2], channels);
    Row {
        name: format!("depthwise {kernel}x{kernel} /{stride} {channels} @{}", window.output[0]),
        work: (out_pixels * window.taps() * channels) as u64,
        unit: "MAC",
        asked,
        estimate: Some(depthwise::estimate_instructions(&window, &filter(), out_pixels)),
        run: Box::new(move || {
            let (input, bias, mut output) =
                (floats(in_pixels * channels), floats(channels), vec![0.0; out_pixels * channels]);
            let filter = filter();
            let epilogue = Epilogue { bias: Some(&bias), residual: None, clamp: Clamp::RELU6 };
            let mut scratch = vec![0.0; depthwise::scratch_len(&window, &filter)];
            let input = MatrixRef::new(&input, in_pixels, channels);
            instructions(|| {
                let mut output = MatrixMut::new(&mut output, out_pixels, channels);
                depthwise::depthwise(input, &window, &filter, &epilogue, 0..out_pixels, &mut output, &mut scratch);
            })
        }),
    }
}
