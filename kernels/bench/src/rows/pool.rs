//! Pooling, named by kind, window, channels and output side.

use super::Row;
use crate::meter::{floats, instructions};
use onnx_kernels::matrix::{MatrixMut, MatrixRef};
use onnx_kernels::pool::{self, Pool};
use onnx_kernels::window::Window;

pub fn rows() -> Vec<Row> {
    vec![
        square(Pool::Max, 111, 3, 2, 0, 64),
        square(Pool::Max, 112, 3, 2, 1, 64),
        square(Pool::Average, 14, 2, 2, 0, 256),
        square(Pool::Average, 7, 7, 1, 0, 1280),
    ]
}

fn square(kind: Pool, side: usize, kernel: usize, stride: usize, pad: usize, channels: usize) -> Row {
    let window = Window::square([side; 2], kernel, stride, pad).expect("a window");
    let (in_pixels, out_pixels) = (window.input_pixels(), window.output_pixels());
    Row {
        name: format!("pool {kind:?} {kernel}x{kernel} /{stride} {channels} @{}", window.output[0]),
        work: (out_pixels * window.taps() * channels) as u64,
        unit: "element",
        asked: None,
        estimate: Some(pool::estimate_instructions(kind, &window, channels, out_pixels)),
        run: Box::new(move || {
            let (input, mut output) = (floats(in_pixels * channels), vec![0.0; out_pixels * channels]);
            let input = MatrixRef::new(&input, in_pixels, channels);
            instructions(|| {
                let mut output = MatrixMut::new(&mut output, out_pixels, channels);
                pool::pool(kind, input, &window, 0..out_pixels, &mut output);
            })
        }),
    }
}
