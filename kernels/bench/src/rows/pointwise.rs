//! Element-wise functions and chains, named by what they compute and the shape.

use super::Row;
use crate::meter::{floats, instructions};
use onnx_kernels::pointwise::{self, Binary, Chain, Operand, Step, Unary};

/// A shape where everything is a multiple of everything, and one where nothing is.
const SHAPES: [[usize; 2]; 2] = [[64, 512], [61, 509]];

pub fn rows() -> Vec<Row> {
    let unary = [
        (Unary::Relu, 1.9),
        (Unary::Clamp { low: 0.0, high: 6.0 }, 2.4),
        (Unary::Sqrt, 2.6),
        (Unary::Exp, 19.1),
        (Unary::Log, 34.6),
        (Unary::Erf, 23.6),
        (Unary::Tanh, 20.4),
        (Unary::Sigmoid, 22.8),
        (Unary::Gelu, 25.1),
        (Unary::GeluTanh, 26.2),
        (Unary::Silu, 23.0),
        (Unary::Softplus, 59.9),
        (Unary::Mish, 26.4),
        (Unary::HardSwish, 6.0),
        (Unary::LeakyRelu { alpha: 0.01 }, 3.9),
        (Unary::Elu { alpha: 1.0 }, 24.9),
        (Unary::Sin, 169.9),
        (Unary::Cos, 164.9),
    ];
    let mut rows: Vec<Row> = unary.into_iter().map(|(function, asked)| self::unary(function, asked)).collect();
    for shape in SHAPES {
        let [_, columns] = shape;
        let full: &'static [usize] = &[1, 1];
        rows.extend([
            chain("add", shape, &[(Some(Binary::Add), full, None)], 2.5),
            chain("add [columns]", shape, &[(Some(Binary::Add), &[1], None)], 3.9),
            chain("add [rows, 1]", shape, &[(Some(Binary::Add), &[1, 0], None)], 3.5),
            chain("mul div", shape, &[(Some(Binary::Mul), full, None), (Some(Binary::Div), full, None)], 7.2),
            chain(
                "scale shift clamp [rows, 1]",
                shape,
                &[
                    (Some(Binary::Mul), &[1, 0], None),
                    (Some(Binary::Add), &[1, 0], None),
                    (None, full, Some(Unary::Clamp { low: 0.0, high: 6.0 })),
                ],
                5.7,
            ),
            chain(
                "scale shift [columns]",
                shape,
                &[(Some(Binary::Mul), &[1], None), (Some(Binary::Add), &[1], None)],
                5.2,
            ),
            chain("residual relu", shape, &[(Some(Binary::Add), full, None), (None, full, Some(Unary::Relu))], 3.6),
            chain("silu gate", shape, &[(None, full, Some(Unary::Silu)), (Some(Binary::Mul), full, None)], 24.3),
            chain("bias gelu", shape, &[(Some(Binary::Add), &[1], None), (None, full, Some(Unary::Gelu))], 27.7),
        ]);
        debug_assert!(columns > 0);
    }
    rows
}

fn unary(function: Unary, asked: f64) -> Row {
    let elements = 64 * 512;
    Row {
        name: format!("{function:?} {elements}"),
        work: elements as u64,
        unit: "element",
        asked: Some(asked),
        estimate: Some(pointwise::estimate_unary(function, elements)),
        run: Box::new(move || {
            let (input, mut output) = (floats(elements), vec![0.0; elements]);
            instructions(|| pointwise::unary(function, &input, &mut output))
        }),
    }
}

/// A step: a function of two numbers and where its operand is not broadcast (1 for a dimension that it has), or a function
/// of one.
type Described = (Option<Binary>, &'static [usize], Option<Unary>);

fn chain(name: &str, shape: [usize; 2], described: &[Described], asked: f64) -> Row {
    let [rows, columns] = shape;
    let described = described.to_vec();
    let with = move |data: &[&[f32]], action: &mut dyn FnMut(&Chain)| {
        let steps: Vec<Step> = described
            .iter()
            .zip(data)
            .map(|((binary, kept, unary), data)| match (binary, unary) {
                (Some(function), _) => {
                    let skipped = shape.len() - kept.len();
                    let dims: Vec<usize> = kept
                        .iter()
                        .enumerate()
                        .map(|(axis, keep)| if *keep == 1 { shape[skipped + axis] } else { 1 })
                        .collect();
                    Step::Binary(*function, Operand::broadcast(data, &dims, &shape).expect("an operand"))
                }
                (None, Some(function)) => Step::Unary(*function),
                (None, None) => unreachable!("a step computes something"),
            })
            .collect();
        action(&Chain::new(&shape, Operand::full(data[0], &shape).expect("an input"), &steps).expect("a chain"));
    };
    let elements = rows * columns;
    let data = floats(elements);
    let mut estimate = 0;
    with(&[&data[..]; 4], &mut |chain| estimate = chain.estimate_instructions(0..elements));
    Row {
        name: format!("{name} {rows}x{columns}"),
        work: elements as u64,
        unit: "element",
        asked: Some(asked),
        estimate: Some(estimate),
        run: Box::new(move || {
            let (input, mut output) = (floats(elements), vec![0.0; elements]);
            let mut counted = 0;
            with(&[&input[..]; 4], &mut |chain| counted = instructions(|| chain.run(0..elements, &mut output)));
            counted
        }),
    }
}
