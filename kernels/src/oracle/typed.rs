//! Integers, comparisons, logic and selection.

use super::{Numbers, equal};
use crate::typed::{self, Arithmetic, Comparison, Logic, View, naive};

const SHAPES: &[(&[usize], &[&[usize]])] = &[
    (&[], &[&[]]),
    (&[0, 3], &[&[3], &[0, 3]]),
    (&[7], &[&[7], &[1]]),
    (&[3, 5], &[&[3, 5], &[5], &[3, 1], &[1, 1]]),
    (&[2, 3, 40], &[&[2, 3, 40], &[3, 1], &[40], &[2, 1, 40], &[1]]),
];

const ARITHMETIC: &[Arithmetic] = &[
    Arithmetic::Add,
    Arithmetic::Sub,
    Arithmetic::Mul,
    Arithmetic::Div,
    Arithmetic::Mod,
    Arithmetic::Remainder,
    Arithmetic::Min,
    Arithmetic::Max,
];

const COMPARISONS: &[Comparison] =
    &[Comparison::Equal, Comparison::NotEqual, Comparison::Less, Comparison::LessOrEqual];

pub fn check(seed: u64) -> Result<u32, String> {
    let mut numbers = Numbers::new(seed);
    let mut checked = 0;
    for (shape, operands) in SHAPES {
        let elements: usize = shape.iter().product();
        for _ in 0..12 {
            let dims: Vec<&[usize]> = (0..3).map(|_| operands[numbers.below(operands.len())]).collect();
            let case = format!("{shape:?} of {dims:?}");
            let integers: Vec<Vec<i64>> = dims
                .iter()
                .map(|dims| {
                    let extremes = [0, -1, i64::MIN, i64::MAX];
                    let one = |number: u64| match number % 8 {
                        0 => extremes[number as usize / 8 % 4],
                        1..=4 => (number >> 8) as i64 % 10,
                        _ => number as i64,
                    };
                    (0..dims.iter().product()).map(|_| one(numbers.next())).collect()
                })
                .collect();
            let view =
                |index: usize| View::broadcast(&integers[index][..], dims[index], shape).map_err(|e| e.to_string());
            for &function in ARITHMETIC {
                let case = format!("{function:?}, {case}");
                let mut reference = vec![0; elements];
                naive::binary(shape, view(0)?, view(1)?, &mut reference, |a, b| naive::i64(function, a, b));
                let mut output = vec![9; elements];
                typed::arithmetic(function, shape, view(0)?, view(1)?, &mut output);
                equal("arithmetic", "i64", &case, &reference, &output)?;

                // 32 bits as the low bits of 64, where the sum, difference or product is the same.
                let narrow: Vec<Vec<i32>> =
                    integers.iter().map(|values| values.iter().map(|value| *value as i32).collect()).collect();
                let wide: Vec<Vec<i64>> =
                    narrow.iter().map(|values| values.iter().map(|value| i64::from(*value)).collect()).collect();
                let of =
                    |index: usize| View::broadcast(&wide[index][..], dims[index], shape).map_err(|e| e.to_string());
                naive::binary(shape, of(0)?, of(1)?, &mut reference, |a, b| naive::i64(function, a, b));
                let reference: Vec<i32> = reference.iter().map(|value| *value as i32).collect();
                let of =
                    |index: usize| View::broadcast(&narrow[index][..], dims[index], shape).map_err(|e| e.to_string());
                let mut output = vec![9; elements];
                typed::arithmetic(function, shape, of(0)?, of(1)?, &mut output);
                equal("arithmetic", "i32", &case, &reference, &output)?;
                checked += 2;
            }
            // Integers of f64 that are exact in it: what they give is that of i64, but for division.
            let exact: Vec<Vec<i64>> =
                integers.iter().map(|values| values.iter().map(|value| value % (1 << 24)).collect()).collect();
            let doubles: Vec<Vec<f64>> =
                exact.iter().map(|values| values.iter().map(|value| *value as f64).collect()).collect();
            for &function in ARITHMETIC.iter().filter(|function| **function != Arithmetic::Div) {
                let of =
                    |index: usize| View::broadcast(&exact[index][..], dims[index], shape).map_err(|e| e.to_string());
                let mut reference = vec![0; elements];
                naive::binary(shape, of(0)?, of(1)?, &mut reference, |a, b| naive::i64(function, a, b));
                let of =
                    |index: usize| View::broadcast(&doubles[index][..], dims[index], shape).map_err(|e| e.to_string());
                let mut output = vec![9.0; elements];
                typed::arithmetic(function, shape, of(0)?, of(1)?, &mut output);
                // The remainder of a division by zero is NaN here.
                let output: Vec<i64> = output.iter().map(|value| *value as i64).collect();
                equal("arithmetic", "f64", &format!("{function:?}, {case}"), &reference, &output)?;
                checked += 1;
            }
            let floats: Vec<Vec<f32>> = dims
                .iter()
                .map(|dims| numbers.wild_floats(dims.iter().product()).iter().map(|x| (x * 3.0).trunc()).collect())
                .collect();
            let of = |index: usize| View::broadcast(&floats[index][..], dims[index], shape).map_err(|e| e.to_string());
            for &function in COMPARISONS {
                let case = format!("{function:?}, {case}");
                let mut reference = vec![0; elements];
                naive::binary(shape, view(0)?, view(1)?, &mut reference, |a, b| naive::compare(function, a, b));
                let mut output = vec![9; elements];
                typed::compare(function, shape, view(0)?, view(1)?, &mut output);
                equal("compare", "i64", &case, &reference, &output)?;
                naive::binary(shape, of(0)?, of(1)?, &mut reference, |a, b| naive::compare(function, a, b));
                typed::compare(function, shape, of(0)?, of(1)?, &mut output);
                equal("compare", "f32", &case, &reference, &output)?;
                checked += 2;
            }
            let bools: Vec<Vec<u8>> = dims
                .iter()
                .map(|dims| (0..dims.iter().product()).map(|_| numbers.next() as u8 & 1).collect())
                .collect();
            let bool_of =
                |index: usize| View::broadcast(&bools[index][..], dims[index], shape).map_err(|e| e.to_string());
            for function in [Logic::And, Logic::Or, Logic::Xor] {
                let mut reference = vec![0; elements];
                naive::binary(shape, bool_of(0)?, bool_of(1)?, &mut reference, |a, b| naive::logic(function, a, b));
                let mut output = vec![9; elements];
                typed::logic(function, shape, bool_of(0)?, bool_of(1)?, &mut output);
                equal("logic", "u8", &format!("{function:?}, {case}"), &reference, &output)?;
                checked += 1;
            }
            let mut reference = vec![0; elements];
            naive::select(shape, bool_of(0)?, view(1)?, view(2)?, &mut reference);
            let mut output = vec![9; elements];
            typed::select(shape, bool_of(0)?, view(1)?, view(2)?, &mut output);
            equal("select", "i64", &case, &reference, &output)?;
            let mut reference = vec![0; elements];
            naive::select(shape, bool_of(2)?, bool_of(0)?, bool_of(1)?, &mut reference);
            let mut output = vec![9; elements];
            typed::select(shape, bool_of(2)?, bool_of(0)?, bool_of(1)?, &mut output);
            equal("select", "u8", &case, &reference, &output)?;
            checked += 2;
        }
    }
    Ok(checked)
}
