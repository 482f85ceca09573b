//! Softmax, named by what comes with it and the shape.

use super::Row;
use crate::meter::{floats, instructions};
use onnx_kernels::softmax::{Mask, Softmax};

pub fn rows() -> Vec<Row> {
    let shapes = [(64, 512), (61, 509), (384, 32)];
    let mut rows = Vec::new();
    for (count, columns) in shapes {
        let asked = if columns == 32 { 34.0 } else { 24.0 };
        let masked = if columns == 32 { 43.5 } else { 28.5 };
        rows.push(softmax("softmax", count, columns, 1.0, false, false, asked));
        rows.push(softmax("softmax scaled, masked", count, columns, 0.125, true, false, masked));
        rows.push(softmax("log-softmax", count, columns, 1.0, false, true, asked + 2.0));
    }
    rows
}

fn softmax(name: &str, rows: usize, columns: usize, scale: f32, masked: bool, log: bool, asked: f64) -> Row {
    fn make(columns: usize, scale: f32, values: Option<&[f32]>, log: bool) -> Softmax<'_> {
        let mask = values.map(|values| Mask { values, rows: 1, repeat: 1 });
        Softmax { scale, mask, log, ..Softmax::new(columns) }
    }
    Row {
        name: format!("{name} {rows}x{columns}"),
        work: (rows * columns) as u64,
        unit: "element",
        asked: Some(asked),
        estimate: Some(make(columns, scale, masked.then_some(&floats(columns)), log).estimate_instructions(rows)),
        run: Box::new(move || {
            let (input, mask, mut output) = (floats(rows * columns), floats(columns), vec![0.0; rows * columns]);
            let softmax = make(columns, scale, masked.then_some(&mask), log);
            instructions(|| softmax.run(&input, 0..rows, &mut output))
        }),
    }
}
