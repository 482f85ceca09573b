//! Reductions, named by kind and axes.

use super::Row;
use crate::meter::{floats, instructions};
use onnx_kernels::reduce::{self, Axes, Extreme, Reduce};

pub fn rows() -> Vec<Row> {
    vec![
        row(Reduce::Sum, 64, 512, 1, 1.6),
        row(Reduce::Sum, 61, 509, 1, 2.0),
        row(Reduce::Mean, 1280, 49, 1, 6.5),
        row(Reduce::Mean, 1, 49, 1280, 3.3),
        row(Reduce::MeanOfSquares, 64, 576, 1, 2.8),
        row(Reduce::Max, 64, 512, 1, 2.1),
        row(Reduce::Max, 8, 61, 509, 3.8),
        arg(49_152, 4.5),
    ]
}

fn row(kind: Reduce, outer: usize, reduced: usize, inner: usize, asked: f64) -> Row {
    let axes = Axes { outer, reduced, inner };
    let results = axes.results();
    Row {
        name: format!("{kind:?} {outer}x{reduced}x{inner}"),
        work: (outer * reduced * inner) as u64,
        unit: "element",
        asked: Some(asked),
        estimate: Some(reduce::estimate_instructions(kind, axes, results)),
        run: Box::new(move || {
            let (input, mut output) = (floats(outer * reduced * inner), vec![0.0; results]);
            instructions(|| reduce::reduce(kind, &input, axes, 0..results, &mut output))
        }),
    }
}

/// The place of the largest of `count`, which is the last.
fn arg(count: usize, asked: f64) -> Row {
    let axes = Axes { outer: 1, reduced: count, inner: 1 };
    Row {
        name: format!("ArgMax {count}"),
        work: count as u64,
        unit: "element",
        asked: Some(asked),
        estimate: Some(reduce::estimate_arg(axes, 1)),
        run: Box::new(move || {
            let (mut input, mut output) = (floats(count), [0]);
            input[count - 1] = 2.0;
            instructions(|| reduce::arg(Extreme::Max, &input, axes, false, 0..1, &mut output))
        }),
    }
}
