//! Softmax.

use super::{Numbers, equal_bits};
use crate::softmax::{self, Causal, Mask, Softmax};

const SHAPES: &[(usize, usize)] =
    &[(0, 5), (5, 0), (1, 1), (3, 1), (2, 3), (6, 5), (6, 8), (4, 15), (6, 16), (6, 31), (4, 64), (2, 77), (2, 300)];

pub fn check(seed: u64) -> Result<u32, String> {
    let mut numbers = Numbers::new(seed);
    let mut checked = 0;
    for &(rows, columns) in SHAPES {
        for variant in 0..16 {
            let count = rows * columns;
            let mut input = if variant % 8 == 7 { numbers.wild_floats(count) } else { numbers.floats(count) };
            input.iter_mut().for_each(|value| *value *= [1.0, 30.0, 200.0][variant % 3]);
            let mut values = numbers.floats(2 * columns);
            for value in &mut values {
                if *value < -0.5 {
                    *value = if variant % 3 == 0 { f32::NEG_INFINITY } else { -10_000.0 };
                }
            }
            let mask = (variant & 1 == 1).then_some(Mask { values: &values, rows: 2, repeat: 3 });
            let causal = (variant & 2 == 2).then_some(Causal { past: numbers.below(columns + 1), queries: 3 });
            let scale = if variant & 4 == 4 { 0.125 } else { 1.0 };
            let softmax = Softmax { columns, scale, mask, causal, log: variant & 8 == 8 };
            let case = format!("{rows} rows of {columns}, variant {variant}");
            let mut reference = vec![0.0; count];
            softmax::naive::run(&softmax, &input, &mut reference);
            let mut output = vec![9.0; count];
            softmax::portable::run(&softmax, &input, 0..rows, &mut output);
            equal_bits("softmax", "portable", &case, &reference, &output)?;
            let cut = numbers.below(rows + 1);
            let (head, tail) = output.split_at_mut(cut * columns);
            softmax.run(&input, cut..rows, tail);
            softmax.run(&input, 0..cut, head);
            equal_bits("softmax", "selected", &case, &reference, &output)?;
            softmax.run_in_place(0..rows, &mut input);
            equal_bits("softmax", "in place", &case, &reference, &input)?;
            checked += 3;
        }
    }
    Ok(checked + causality(&mut numbers)?)
}

/// Causality gives what a mask of minus infinity gives.
fn causality(numbers: &mut Numbers) -> Result<u32, String> {
    let (queries, past) = (7, 12);
    let columns = queries + past;
    let input = numbers.floats(queries * columns);
    let hidden = |index: usize| index % columns > past + index / columns;
    let values: Vec<f32> = (0..input.len()).map(|index| if hidden(index) { f32::NEG_INFINITY } else { 0.0 }).collect();
    let mask = Some(Mask { values: &values, rows: queries, repeat: 1 });
    let [mut masked, mut causal] = [vec![9.0; input.len()], vec![9.0; input.len()]];
    Softmax { mask, ..Softmax::new(columns) }.run(&input, 0..queries, &mut masked);
    let causality = Some(Causal { past, queries });
    Softmax { causal: causality, ..Softmax::new(columns) }.run(&input, 0..queries, &mut causal);
    equal_bits("softmax", "causal", "against a mask", &masked, &causal)?;
    Ok(1)
}
