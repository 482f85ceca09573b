//! Convolutions, sums and means of centred integers.

use super::Row;
use crate::meter::instructions;
use onnx_kernels::int8::padded_inner;
use onnx_kernels::qconv::{
    DepthwiseWeights, Requantise, Sum, Window, add, depthwise, estimate_add_instructions,
    estimate_depthwise_instructions, estimate_gather_instructions, estimate_mean_instructions, gather, mean,
};

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    // The depthwise convolutions of EfficientNet-Lite0: side of the input, channels, kernel, stride.
    for (side, channels, kernel, stride) in [
        (112, 32, 3, 1),
        (112, 96, 3, 2),
        (56, 144, 3, 1),
        (56, 144, 5, 2),
        (28, 240, 5, 1),
        (28, 240, 3, 2),
        (14, 480, 3, 1),
        (14, 480, 5, 1),
        (14, 672, 5, 1),
        (14, 672, 5, 2),
        (7, 1152, 5, 1),
        (7, 1152, 3, 1),
        (28, 64, 7, 1),
        (28, 19, 3, 1),
    ] {
        rows.push(depthwise_row(side, channels, kernel, stride));
    }
    rows.push(gather_row(224, 3, 3, 2));
    rows.push(gather_row(28, 64, 3, 1));
    let (length, sum) = (14 * 14 * 112, Sum { scales: (0.7, 0.9), low: -128, high: 127 });
    rows.push(Row {
        name: format!("qconv add {length}"),
        work: length as u64,
        unit: "value",
        asked: None,
        estimate: Some(estimate_add_instructions(length)),
        run: Box::new(move || {
            let (first, second, mut output) = (vec![3; length], vec![5; length], vec![0; length]);
            instructions(|| add(&first, &second, sum, &mut output))
        }),
    });
    rows.push(Row {
        name: "qconv mean 49x1280".to_string(),
        work: 49 * 1280,
        unit: "value",
        asked: None,
        estimate: Some(estimate_mean_instructions(49, 1280)),
        run: Box::new(move || {
            let (input, mut output) = (vec![3; 49 * 1280], vec![0; 1280]);
            instructions(|| mean(&input, 0.02, -128, 127, &mut output))
        }),
    });
    rows
}

fn window(side: usize, kernel: usize, stride: usize) -> Window {
    Window::square([side; 2], kernel, stride, kernel / 2).expect("a window")
}

fn depthwise_row(side: usize, channels: usize, kernel: usize, stride: usize) -> Row {
    let window = window(side, kernel, stride);
    let run = move || {
        let input = vec![3; window.input_pixels() * channels];
        let packed = vec![2; DepthwiseWeights::packed_len(channels, window.kernel).expect("small")];
        let weights = DepthwiseWeights::new(&packed, channels, window.kernel);
        let (multipliers, bias) = (vec![0.01; channels], vec![17; channels]);
        let requantise = Requantise { multipliers: &multipliers, bias: Some(&bias), low: 0, high: 255 };
        let mut output = vec![0; window.output_pixels() * channels];
        instructions(|| depthwise(&input, &window, weights, requantise, 0..window.output[0], &mut output))
    };
    Row {
        name: format!("qconv depthwise {kernel}x{kernel}/{stride} {side}x{side}x{channels}"),
        work: (window.output_pixels() * channels * window.taps()) as u64,
        unit: "MAC",
        asked: None,
        estimate: Some(estimate_depthwise_instructions(&window, channels, window.output[0])),
        run: Box::new(run),
    }
}

fn gather_row(side: usize, channels: usize, kernel: usize, stride: usize) -> Row {
    let window = window(side, kernel, stride);
    let run = move || {
        let input = vec![3; window.input_pixels() * channels];
        let stride = padded_inner(window.taps() * channels);
        let mut output = vec![0; window.output_pixels() * stride];
        instructions(|| {
            gather(&input, channels, 0..channels, &window, 0..window.output_pixels(), &mut output, stride);
        })
    };
    Row {
        name: format!("qconv gather {kernel}x{kernel}/{stride} {side}x{side}x{channels}"),
        work: (window.output_pixels() * channels * window.taps()) as u64,
        unit: "value",
        asked: None,
        estimate: Some(estimate_gather_instructions(&window, channels, window.output_pixels())),
        run: Box::new(run),
    }
}
