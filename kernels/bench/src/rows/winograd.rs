//! 3x3 convolutions of stride 1 by Winograd's algorithm, named by channels and output side. Work is that of the direct
//! convolution, so that the rows compare with its own.

use super::Row;
use crate::meter::{floats, instructions};
use onnx_kernels::matrix::{Clamp, Epilogue, MatrixMut, MatrixRef};
use onnx_kernels::window::Window;
use onnx_kernels::winograd::{self, WinogradFilter};

pub fn rows() -> Vec<Row> {
    vec![
        square(56, 64, 64, Some(1.1)),
        // SqueezeNet's expansions.
        square(55, 16, 64, Some(1.1)),
        square(27, 32, 128, Some(1.1)),
        square(13, 48, 192, Some(1.1)),
        square(13, 64, 256, Some(1.1)),
        square(7, 512, 512, Some(1.1)),
        pack(128, 128),
    ]
}

fn square(side: usize, inputs: usize, outputs: usize, asked: Option<f64>) -> Row {
    let window = Window::square([side; 2], 3, 1, 1).expect("a window");
    let pixels = window.output_pixels();
    let estimate = winograd::estimate_instructions(&window, &WinogradFilter::zeros(inputs, outputs), pixels);
    Row {
        name: format!("winograd 3x3 {inputs} to {outputs} @{side}"),
        work: (pixels * window.taps() * inputs * outputs) as u64,
        unit: "MAC",
        asked,
        estimate: Some(estimate),
        run: Box::new(move || {
            let (input, bias, mut output) = (floats(pixels * inputs), floats(outputs), vec![0.0; pixels * outputs]);
            let filter = WinogradFilter::from_oihw(&floats(outputs * inputs * 9), inputs, outputs);
            let epilogue = Epilogue { bias: Some(&bias), residual: None, clamp: Clamp::RELU };
            let mut scratch = vec![0.0; winograd::scratch_len(&window, &filter)];
            let input = MatrixRef::new(&input, pixels, inputs);
            instructions(|| {
                let mut output = MatrixMut::new(&mut output, pixels, outputs);
                winograd::conv2d(input, &window, &filter, &epilogue, 0..pixels, &mut output, &mut scratch);
            })
        }),
    }
}

fn pack(inputs: usize, outputs: usize) -> Row {
    Row {
        name: format!("pack_winograd {inputs} to {outputs}"),
        work: (inputs * outputs * 9) as u64,
        unit: "element",
        asked: None,
        estimate: None,
        run: Box::new(move || {
            let weights = floats(outputs * inputs * 9);
            let mut filter = WinogradFilter::zeros(inputs, outputs);
            instructions(|| filter.set_output_channels(0, &weights))
        }),
    }
}
