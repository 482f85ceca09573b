//! Element-wise functions and chains of them.

use super::{Numbers, equal_bits};
use crate::pointwise::{self, Binary, Chain, Operand, Step, Unary};

/// Every function of one number.
const UNARY: &[Unary] = &[
    Unary::Neg,
    Unary::Abs,
    Unary::Sign,
    Unary::Square,
    Unary::Sqrt,
    Unary::Rsqrt,
    Unary::Reciprocal,
    Unary::Floor,
    Unary::Ceil,
    Unary::Round,
    Unary::Trunc,
    Unary::Exp,
    Unary::Log,
    Unary::Sin,
    Unary::Cos,
    Unary::Erf,
    Unary::Tanh,
    Unary::Sigmoid,
    Unary::Gelu,
    Unary::GeluTanh,
    Unary::Silu,
    Unary::Softplus,
    Unary::Softsign,
    Unary::Mish,
    Unary::HardSwish,
    Unary::Relu,
    Unary::Clamp { low: -0.5, high: 0.25 },
    Unary::Clamp { low: -0.0, high: 6.0 },
    Unary::LeakyRelu { alpha: 0.01 },
    Unary::Elu { alpha: 1.5 },
    Unary::Selu { alpha: 1.673_263_2, gamma: 1.050_701 },
    Unary::Celu { alpha: 0.7 },
    Unary::ThresholdedRelu { alpha: 0.3 },
    Unary::HardSigmoid { alpha: 0.2, beta: 0.5 },
];

const BINARY: &[Binary] =
    &[Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Min, Binary::Max, Binary::Pow, Binary::PRelu];

/// Shapes of an output, and shapes that broadcast to them.
const SHAPES: &[(&[usize], &[&[usize]])] = &[
    (&[], &[&[]]),
    (&[1], &[&[], &[1]]),
    (&[0], &[&[0], &[1]]),
    (&[3, 0, 2], &[&[0, 1], &[3, 1, 1], &[3, 0, 2]]),
    (&[3], &[&[3], &[1]]),
    (&[131], &[&[131], &[1]]),
    (&[64], &[&[64], &[]]),
    (&[2, 3], &[&[3], &[2, 1], &[1, 1], &[2, 3]]),
    (&[5, 7, 9], &[&[5, 7, 9], &[7, 9], &[9], &[7, 1], &[5, 1, 1], &[5, 1, 9], &[1, 7, 1]]),
    (&[2, 1, 3, 1, 70], &[&[70], &[3, 1, 1], &[2, 1, 1, 1, 70], &[2, 1, 3, 1, 1], &[1, 1, 3, 1, 70]]),
    (&[2, 2, 2, 2, 2, 2, 2, 5], &[&[2, 1, 2, 1, 2, 1, 2, 1], &[1, 2, 1, 2, 1, 2, 1, 5], &[5], &[2, 5]]),
];

pub fn check(seed: u64) -> Result<u32, String> {
    let mut numbers = Numbers::new(seed);
    Ok(functions(&mut numbers)? + chains(&mut numbers)? + far_apart(&mut numbers)?)
}

/// Numbers of every exponent and both signs, with the special ones.
fn all_exponents(numbers: &mut Numbers, count: usize) -> Vec<f32> {
    let mut values = numbers.wild_floats(count);
    for (index, value) in values.iter_mut().enumerate() {
        match index % 3 {
            0 => *value = f32::from_bits(numbers.next() as u32),
            1 => *value *= 20.0,
            _ => {}
        }
    }
    values
}

fn functions(numbers: &mut Numbers) -> Result<u32, String> {
    let mut checked = 0;
    for function in UNARY {
        for count in [0, 1, 2, 3, 4, 5, 7, 16, 31, 64, 67, 300] {
            let input = all_exponents(numbers, count);
            let reference: Vec<f32> = input.iter().map(|x| pointwise::naive::apply(*function, *x)).collect();
            let case = format!("{function:?} of {count}");
            let mut output = vec![9.0; count];
            pointwise::portable::unary(*function, &input, &mut output);
            equal_bits("unary", "portable", &case, &reference, &output)?;
            let mut output = vec![9.0; count];
            pointwise::unary(*function, &input, &mut output);
            equal_bits("unary", "selected", &case, &reference, &output)?;
            let mut data = input;
            pointwise::unary_in_place(*function, &mut data);
            equal_bits("unary", "in place", &case, &reference, &data)?;
            checked += 3;
        }
    }
    for function in BINARY {
        for count in [0, 1, 3, 4, 5, 16, 67, 300] {
            let (a, b) = (all_exponents(numbers, count), all_exponents(numbers, count));
            let each = a.iter().zip(&b);
            let reference: Vec<f32> = each.map(|(a, b)| pointwise::naive::combine(*function, *a, *b)).collect();
            let case = format!("{function:?} of {count}");
            let mut output = vec![9.0; count];
            pointwise::portable::binary(*function, &a, &b, &mut output);
            equal_bits("binary", "portable", &case, &reference, &output)?;
            pointwise::binary(*function, &a, &b, &mut output);
            equal_bits("binary", "selected", &case, &reference, &output)?;
            checked += 2;
        }
    }
    Ok(checked)
}

fn chains(numbers: &mut Numbers) -> Result<u32, String> {
    let mut checked = 0;
    for (shape, operand_shapes) in SHAPES {
        let elements: usize = shape.iter().product();
        for variant in 0..60 {
            // Arrays of operands are made first, so that the steps can borrow from them.
            let choices: Vec<(usize, Vec<f32>)> = (0..5)
                .map(|_| {
                    let choice = numbers.below(operand_shapes.len());
                    let count = operand_shapes[choice].iter().product();
                    (choice, if variant % 3 == 0 { all_exponents(numbers, count) } else { numbers.floats(count) })
                })
                .collect();
            let operand = |index: usize| {
                let (choice, data) = &choices[index];
                Operand::broadcast(data, operand_shapes[*choice], shape).map_err(|e| e.to_string())
            };
            let mut steps = Vec::new();
            for index in 1..choices.len() {
                // Additions, multiplications and clamps often, so that the fused passes occur.
                let function = match numbers.below(6) {
                    0 | 1 => Binary::Add,
                    2 | 3 => Binary::Mul,
                    _ => BINARY[numbers.below(BINARY.len())],
                };
                let number = Operand::number(numbers.floats(1)[0]);
                let with = if numbers.below(4) == 0 { number } else { operand(index)? };
                match numbers.below(8) {
                    0 => steps.push(Step::Reversed(function, with)),
                    1 => steps.push(Step::Unary(UNARY[numbers.below(UNARY.len())])),
                    2 => steps.extend([Step::Binary(function, with), Step::Unary(Unary::Relu)]),
                    3 => {
                        let clamp = Unary::Clamp { low: -0.2, high: 0.4 };
                        steps.extend([Step::Binary(function, with), Step::Unary(clamp)]);
                    }
                    4 => {
                        let gates = [Unary::Silu, Unary::Gelu, Unary::GeluTanh, Unary::Sigmoid];
                        let gate = Step::Unary(gates[numbers.below(gates.len())]);
                        let pair = [gate, Step::Binary(Binary::Mul, with)];
                        steps.extend(if numbers.below(2) == 0 {
                            pair
                        } else {
                            [Step::Binary(Binary::Add, with), gate]
                        });
                    }
                    _ => steps.push(Step::Binary(function, with)),
                }
            }
            steps.truncate(numbers.below(pointwise::MAX_STEPS + 1));
            let input = operand(0)?;
            let case = format!("{shape:?}, {steps:.0?} of {input:.0?}");
            let mut reference = vec![0.0; elements];
            pointwise::naive::run(shape, input, &steps, &mut reference);
            let chain = Chain::new(shape, input, &steps).map_err(|e| e.to_string())?;
            let mut output = vec![9.0; elements];
            pointwise::portable::run(&chain, 0..elements, &mut output);
            equal_bits("chain", "portable", &case, &reference, &output)?;
            let cut = numbers.below(elements + 1);
            let mut output = vec![9.0; elements];
            let (head, tail) = output.split_at_mut(cut);
            chain.run(cut..elements, tail);
            chain.run(0..cut, head);
            equal_bits("chain", "selected", &format!("cut at {cut}, {case}"), &reference, &output)?;
            if operand_shapes[choices[0].0] == *shape {
                let chain = Chain::new(shape, Operand::in_place(shape).map_err(|e| e.to_string())?, &steps);
                let mut data = choices[0].1.clone();
                chain.map_err(|e| e.to_string())?.run(0..elements, &mut data);
                equal_bits("chain", "in place", &case, &reference, &data)?;
                checked += 1;
            }
            checked += 2;
        }
    }
    Ok(checked)
}

/// Rows of the operands that are far from each other, or overlap.
fn far_apart(numbers: &mut Numbers) -> Result<u32, String> {
    let shape = [3, 2, 70];
    let data = numbers.wild_floats(300_000);
    let mut checked = 0;
    for (first, second) in [(100_003, 50_001), (1, 140_000), (0, 0), (70, 1)] {
        let operand = |strides: [usize; 3]| Operand::strided(&data, &strides, &shape).map_err(|e| e.to_string());
        let input = operand([first, second, 1])?;
        let steps = [
            Step::Binary(Binary::Mul, operand([second, first, 1])?),
            Step::Binary(Binary::Add, operand([first, 0, 0])?),
            Step::Unary(Unary::Silu),
            Step::Binary(Binary::Mul, operand([0, first, 1])?),
        ];
        let mut reference = [0.0; 420];
        pointwise::naive::run(&shape, input, &steps, &mut reference);
        let chain = Chain::new(&shape, input, &steps).map_err(|e| e.to_string())?;
        let mut output = [9.0; 420];
        pointwise::portable::run(&chain, 0..420, &mut output);
        let case = format!("strides {first}, {second}");
        equal_bits("chain", "portable", &case, &reference, &output)?;
        chain.run(0..420, &mut output);
        equal_bits("chain", "selected", &case, &reference, &output)?;
        checked += 2;
    }
    Ok(checked)
}
