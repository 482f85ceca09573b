//! Normalisation, named by kind and shape.

use super::Row;
use crate::meter::{floats, instructions};
use onnx_kernels::norm::{GroupNorm, LayerNorm, RmsNorm};

pub fn rows() -> Vec<Row> {
    vec![
        layer(64, 512, 10.5),
        layer(61, 509, 12.2),
        layer(32, 384, 10.8),
        rms(64, 512, 6.5),
        rms(61, 509, 7.5),
        rms(1, 576, 6.5),
        group(),
    ]
}

fn layer(rows: usize, columns: usize, asked: f64) -> Row {
    let values = floats(columns);
    let norm = LayerNorm { columns, weight: Some(&values), bias: Some(&values), epsilon: 1e-5 };
    Row {
        name: format!("layer norm {rows}x{columns}"),
        work: (rows * columns) as u64,
        unit: "element",
        asked: Some(asked),
        estimate: Some(norm.estimate_instructions(rows)),
        run: Box::new(move || {
            let (input, weight, mut output) = (floats(rows * columns), floats(columns), vec![0.0; rows * columns]);
            let norm = LayerNorm { columns, weight: Some(&weight), bias: Some(&weight), epsilon: 1e-5 };
            instructions(|| norm.run(&input, 0..rows, &mut output))
        }),
    }
}

fn rms(rows: usize, columns: usize, asked: f64) -> Row {
    let values = floats(columns);
    let norm = RmsNorm { columns, weight: Some(&values), epsilon: 1e-5 };
    Row {
        name: format!("RMS norm {rows}x{columns}"),
        work: (rows * columns) as u64,
        unit: "element",
        asked: Some(asked),
        estimate: Some(norm.estimate_instructions(rows)),
        run: Box::new(move || {
            let (input, weight, mut output) = (floats(rows * columns), floats(columns), vec![0.0; rows * columns]);
            let norm = RmsNorm { columns, weight: Some(&weight), epsilon: 1e-5 };
            instructions(|| norm.run(&input, 0..rows, &mut output))
        }),
    }
}

fn group() -> Row {
    let (channels, pixels) = (64, 784);
    let values = floats(channels);
    let norm = GroupNorm { groups: 8, channels, pixels, weight: &values, bias: &values, epsilon: 1e-5 };
    let elements = channels * pixels;
    Row {
        name: format!("group norm 8 of {channels}x{pixels}"),
        work: elements as u64,
        unit: "element",
        asked: Some(10.0),
        estimate: Some(norm.estimate_instructions(8)),
        run: Box::new(move || {
            let (input, weight, mut output) = (floats(elements), floats(channels), vec![0.0; elements]);
            let norm = GroupNorm { groups: 8, channels, pixels, weight: &weight, bias: &weight, epsilon: 1e-5 };
            instructions(|| norm.run(&input, 0..8, &mut output))
        }),
    }
}
