//! Reductions.

use super::{Numbers, equal, equal_bits};
use crate::reduce::{self, Axes, Extreme, Reduce};

const KINDS: &[Reduce] = &[
    Reduce::Sum,
    Reduce::Mean,
    Reduce::SumOfSquares,
    Reduce::MeanOfSquares,
    Reduce::SumOfMagnitudes,
    Reduce::Product,
    Reduce::Max,
    Reduce::Min,
];

/// Outer, reduced, inner.
const AXES: &[(usize, usize, usize)] = &[
    (0, 3, 2),
    (2, 0, 3),
    (2, 0, 1),
    (2, 3, 0),
    (1, 1, 1),
    (3, 7, 1),
    (2, 8, 1),
    (3, 49, 1),
    (2, 64, 1),
    (2, 200, 1),
    (1, 1001, 1),
    (2, 5, 2),
    (2, 17, 3),
    (3, 8, 4),
    (2, 15, 5),
    (2, 49, 19),
    (1, 130, 66),
];

pub fn check(seed: u64) -> Result<u32, String> {
    let mut numbers = Numbers::new(seed);
    let mut checked = 0;
    for &(outer, reduced, inner) in AXES {
        let axes = Axes { outer, reduced, inner };
        for wild in [false, true] {
            let count = outer * reduced * inner;
            let input = if wild { numbers.wild_floats(count) } else { numbers.floats(count) };
            let results = axes.results();
            let cut = numbers.below(results + 1);
            let case = format!("{axes:?}, wild {wild}, cut at {cut}");
            for &kind in KINDS {
                let case = format!("{kind:?}, {case}");
                let mut reference = vec![0.0; results];
                reduce::naive::reduce(kind, &input, axes, &mut reference);
                for (name, body) in
                    [("portable", reduce::portable::reduce as fn(_, &_, _, _, &mut _)), ("selected", reduce::reduce)]
                {
                    let mut output = vec![9.0; results];
                    let (head, tail) = output.split_at_mut(cut);
                    body(kind, &input[..], axes, cut..results, tail);
                    body(kind, &input[..], axes, 0..cut, head);
                    equal_bits("reduce", name, &case, &reference, &output)?;
                    checked += 1;
                }
            }
            if reduced == 0 {
                continue;
            }
            // Few different values, so that there are equal ones.
            let input: Vec<f32> = input.iter().map(|value| (value * 20.0).trunc()).collect();
            for kind in [Extreme::Max, Extreme::Min] {
                for last in [false, true] {
                    let case = format!("{kind:?}, last {last}, {case}");
                    let mut reference = vec![0; results];
                    reduce::naive::arg(kind, &input, axes, last, &mut reference);
                    let mut output = vec![-1; results];
                    reduce::portable::arg(kind, &input, axes, last, 0..results, &mut output);
                    equal("arg", "portable", &case, &reference, &output)?;
                    let (head, tail) = output.split_at_mut(cut);
                    reduce::arg(kind, &input, axes, last, cut..results, tail);
                    reduce::arg(kind, &input, axes, last, 0..cut, head);
                    equal("arg", "selected", &case, &reference, &output)?;
                    checked += 2;
                }
            }
        }
    }
    Ok(checked)
}
