//! Casts, and operators on other types than f32.

use super::Row;
use crate::meter::{floats, instructions};
use onnx_kernels::cast::{self, Half};
use onnx_kernels::rotary::{Pairs, Rotary};
use onnx_kernels::typed::{self, Arithmetic, Comparison, View};

const ELEMENTS: usize = 32_769;

pub fn rows() -> Vec<Row> {
    let shape = [64, 512];
    vec![
        row("cast f16 to f32", ELEMENTS, 9.5, Some(Half::FromF16.estimate_instructions(ELEMENTS)), || {
            let (input, mut output) = (vec![0x3c00; ELEMENTS], vec![0.0; ELEMENTS]);
            instructions(|| cast::f16_to_f32(&input, &mut output))
        }),
        row("cast f32 to f16", ELEMENTS, 16.0, Some(Half::ToF16.estimate_instructions(ELEMENTS)), || {
            let (input, mut output) = (floats(ELEMENTS), vec![0; ELEMENTS]);
            instructions(|| cast::f32_to_f16(&input, &mut output))
        }),
        row("cast bf16 to f32", ELEMENTS, 3.0, Some(Half::FromBf16.estimate_instructions(ELEMENTS)), || {
            let (input, mut output) = (vec![0x3c00; ELEMENTS], vec![0.0; ELEMENTS]);
            instructions(|| cast::bf16_to_f32(&input, &mut output))
        }),
        row("cast f32 to bf16", ELEMENTS, 9.0, Some(Half::ToBf16.estimate_instructions(ELEMENTS)), || {
            let (input, mut output) = (floats(ELEMENTS), vec![0; ELEMENTS]);
            instructions(|| cast::f32_to_bf16(&input, &mut output))
        }),
        row("cast i64 to f32", ELEMENTS, 16.0, Some(cast::estimate_instructions::<i64, f32>(ELEMENTS)), || {
            let (input, mut output) = (vec![7i64; ELEMENTS], vec![0.0f32; ELEMENTS]);
            instructions(|| cast::cast(&input, &mut output))
        }),
        row("cast i8 to f32", ELEMENTS, 8.0, None, || {
            let (input, mut output) = (vec![7i8; ELEMENTS], vec![0.0f32; ELEMENTS]);
            instructions(|| cast::cast(&input, &mut output))
        }),
        row("cast f32 to i64", ELEMENTS, 34.0, Some(cast::estimate_instructions::<f32, i64>(ELEMENTS)), || {
            let (input, mut output) = (floats(ELEMENTS), vec![0i64; ELEMENTS]);
            instructions(|| cast::cast(&input, &mut output))
        }),
        row("less f32 64x512", 64 * 512, 10.0, None, move || {
            let (input, mut output) = (floats(64 * 512), vec![0; 64 * 512]);
            let view = View::broadcast(&input, &shape, &shape).expect("a view");
            instructions(|| typed::compare(Comparison::Less, &shape, view, view, &mut output))
        }),
        row("where f32 64x512", 64 * 512, 9.0, None, move || {
            let (input, other, mut output) = (floats(64 * 512), [0.0], vec![0.0; 64 * 512]);
            let condition: Vec<u8> = (0..64 * 512).map(|index| (index % 3 == 0) as u8).collect();
            let condition = View::broadcast(&condition, &shape, &shape).expect("a view");
            let (yes, no) = (View::broadcast(&input, &shape, &shape), View::broadcast(&other, &[1], &shape));
            let (yes, no) = (yes.expect("a view"), no.expect("a view"));
            instructions(|| typed::select(&shape, condition, yes, no, &mut output))
        }),
        row("div i64 64x512", 64 * 512, 50.0, Some(typed::estimate_instructions(64 * 512, 512)), move || {
            let (input, by, mut output) = (vec![70i64; 64 * 512], vec![3i64; 512], vec![0; 64 * 512]);
            let (a, b) = (View::broadcast(&input, &shape, &shape), View::broadcast(&by, &[512], &shape));
            let (a, b) = (a.expect("a view"), b.expect("a view"));
            instructions(|| typed::arithmetic(Arithmetic::Div, &shape, a, b, &mut output))
        }),
        rotary(),
    ]
}

fn row(name: &str, work: usize, asked: f64, estimate: Option<u64>, run: impl Fn() -> u64 + 'static) -> Row {
    Row { name: name.to_string(), work: work as u64, unit: "element", asked: Some(asked), estimate, run: Box::new(run) }
}

/// The heads of a token of a small decoder.
fn rotary() -> Row {
    let rotary = Rotary { pairs: Pairs::Halves, half: 32, full_tables: false, first: 5, positions: 1, repeat: 9 };
    row("rotary 9 heads of 64", 9 * 64, 9.0, Some(rotary.estimate_instructions(9)), move || {
        let (table, mut data) = (floats(6 * 32), floats(9 * 64));
        instructions(|| rotary.run(&table, &table, 0..9, &mut data))
    })
}
