//! Copies, named by what they do and the shape.

use super::Row;
use crate::meter::{floats, instructions};
use onnx_kernels::copy::{Copy, Gather, Layout};

pub fn rows() -> Vec<Row> {
    let mut rows = vec![
        copy("transpose 64x512", Copy::transpose(&[64, 512], &[1, 0]), 5.5),
        copy("transpose 61x509", Copy::transpose(&[61, 509], &[1, 0]), 6.0),
        copy("transpose 32x64", Copy::transpose(&[32, 64], &[1, 0]), 7.0),
        copy("transpose 4096x3", Copy::transpose(&[4096, 3], &[1, 0]), 13.0),
        copy("planes to pixels 64x784", Copy::transpose(&[1, 64, 28, 28], &[0, 2, 3, 1]), 5.5),
        copy("pixels to planes 49x1280", Copy::transpose(&[1, 7, 7, 1280], &[0, 3, 1, 2]), 6.0),
        copy("heads 128x12x32", Copy::transpose(&[128, 12, 32], &[1, 0, 2]), 6.0),
        copy("heads transposed 128x12x32", Copy::transpose(&[128, 12, 32], &[1, 2, 0]), 5.5),
        copy("consecutive 65536", Copy::transpose(&[65_536], &[0]), 1.6),
    ];
    let mut expanded = Layout::row_major(&[64, 512]);
    expanded.strides[0] = 0;
    rows.push(copy("expand rows 64x512", Copy::new(&[64, 512], expanded, Layout::row_major(&[64, 512])), 2.0));
    let gather = Gather { outer: 1, length: 100, inner: 384 };
    rows.push(Row {
        name: "gather 32 rows of 384".to_string(),
        work: 32 * 384,
        unit: "element",
        asked: Some(2.2),
        estimate: Some(gather.estimate_instructions(32, 4)),
        run: Box::new(move || {
            let (input, mut output) = (floats(100 * 384), vec![0.0; 32 * 384]);
            let indices: Vec<i64> = (0..32).map(|index| index * 37 % 100).collect();
            instructions(|| gather.run(&input, &indices, 0..32, &mut output).expect("indices within the axis"))
        }),
    });
    rows
}

fn copy(name: &str, copy: Copy, asked: f64) -> Row {
    let elements = copy.elements();
    Row {
        name: format!("copy {name}"),
        work: elements as u64,
        unit: "element",
        asked: Some(asked),
        estimate: Some(copy.estimate_instructions(4)),
        run: Box::new(move || {
            let (input, mut output) = (floats(elements), vec![0.0; elements]);
            instructions(|| copy.run(&input, &mut output))
        }),
    }
}
