//! Conversions between f32 and integers, per value.

use super::Row;
use crate::meter::{floats, instructions};
use onnx_kernels::quantise::{
    Conversion, Grid, centre, dequantize_centred, dequantize_linear, dynamic_parameters, estimate_instructions,
    quantize_centred, quantize_linear, row, uncentre,
};

/// Values of a long tensor and of one as short as they get.
const LENGTHS: [usize; 2] = [4096, 384];

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for length in LENGTHS {
        let mut add = |name: &str, kind: Conversion, run: Box<dyn Fn() -> u64>| {
            rows.push(Row {
                name: format!("quantise {name} {length}"),
                work: length as u64,
                unit: "value",
                asked: None,
                estimate: Some(estimate_instructions(kind, length)),
                run,
            });
        };
        let run = move || {
            let (input, mut output) = (floats(length), vec![0; length]);
            instructions(|| {
                row(&input, 4095, &mut output);
            })
        };
        add("row", Conversion::Row, Box::new(run));
        let run = move || {
            let (input, mut output) = (floats(length), vec![0i8; length]);
            let grid = Grid { scales: &[0.01], zero_points: &[3], inner: 1 };
            instructions(|| quantize_linear(&input, grid, &mut output))
        };
        add("quantize_linear", Conversion::Quantize, Box::new(run));
        let run = move || {
            let (input, mut output) = (floats(length), vec![0; length]);
            instructions(|| quantize_centred(&input, 0.01, -128, 127, &mut output))
        };
        add("quantize_centred", Conversion::Quantize, Box::new(run));
        let run = move || {
            let (input, mut output) = (vec![5u8; length], vec![0.0; length]);
            let grid = Grid { scales: &[0.01], zero_points: &[3], inner: 1 };
            instructions(|| dequantize_linear(&input, grid, &mut output))
        };
        add("dequantize_linear", Conversion::Dequantize, Box::new(run));
        let run = move || {
            let (input, mut output) = (vec![5; length], vec![0.0; length]);
            instructions(|| dequantize_centred(&input, 0.01, &mut output))
        };
        add("dequantize_centred", Conversion::Dequantize, Box::new(run));
        let run = move || {
            let (input, mut output) = (vec![5u8; length], vec![0; length]);
            instructions(|| centre(&input, 3, &mut output))
        };
        add("centre", Conversion::Centre, Box::new(run));
        let run = move || {
            let (input, mut output) = (vec![5; length], vec![0u8; length]);
            instructions(|| uncentre(&input, 3, &mut output))
        };
        add("uncentre", Conversion::Uncentre, Box::new(run));
        let run = move || {
            let input = floats(length);
            instructions(|| {
                std::hint::black_box(dynamic_parameters(&input));
            })
        };
        add("dynamic_parameters", Conversion::DynamicParameters, Box::new(run));
    }
    let (pixels, channels) = (100, 96);
    let run = move || {
        let (input, mut output) = (floats(pixels * channels), vec![0i8; pixels * channels]);
        let (scales, zero_points) = (vec![0.01; channels], vec![3; channels]);
        let grid = Grid { scales: &scales, zero_points: &zero_points, inner: 1 };
        instructions(|| quantize_linear(&input, grid, &mut output))
    };
    rows.push(Row {
        name: format!("quantise quantize_linear channels last {pixels}x{channels}"),
        work: (pixels * channels) as u64,
        unit: "value",
        asked: None,
        estimate: None,
        run: Box::new(run),
    });
    rows
}
