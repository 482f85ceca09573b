//! Normalisation.

use super::{Numbers, equal_bits};
use crate::norm::{self, GroupNorm, LayerNorm, RmsNorm};

const SHAPES: &[(usize, usize)] = &[(0, 4), (3, 0), (2, 1), (3, 3), (2, 8), (3, 31), (2, 64), (2, 384), (1, 577)];

pub fn check(seed: u64) -> Result<u32, String> {
    let mut numbers = Numbers::new(seed);
    let mut checked = 0;
    for &(rows, columns) in SHAPES {
        for variant in 0..8 {
            let count = rows * columns;
            let mut input = if variant == 7 { numbers.wild_floats(count) } else { numbers.floats(count) };
            input.iter_mut().for_each(|value| *value += (variant % 3) as f32 * 50.0);
            let (weight, bias) = (numbers.floats(columns), numbers.floats(columns));
            let (weight, bias) = ((variant & 1 == 1).then_some(&weight[..]), (variant & 2 == 2).then_some(&bias[..]));
            let case = format!("{rows} rows of {columns}, variant {variant}");
            let cut = numbers.below(rows + 1);

            let layer = LayerNorm { columns, weight, bias, epsilon: 1e-5 };
            let mut reference = vec![0.0; count];
            norm::naive::layer(&layer, &input, &mut reference);
            let mut output = vec![9.0; count];
            norm::portable::layer(&layer, &input, 0..rows, &mut output);
            equal_bits("layer norm", "portable", &case, &reference, &output)?;
            let (head, tail) = output.split_at_mut(cut * columns);
            layer.run(&input, cut..rows, tail);
            layer.run(&input, 0..cut, head);
            equal_bits("layer norm", "selected", &case, &reference, &output)?;
            let mut data = input.clone();
            layer.run_in_place(&mut data);
            equal_bits("layer norm", "in place", &case, &reference, &data)?;

            let rms = RmsNorm { columns, weight, epsilon: 1e-6 };
            norm::naive::rms(&rms, &input, &mut reference);
            norm::portable::rms(&rms, &input, 0..rows, &mut output);
            equal_bits("rms norm", "portable", &case, &reference, &output)?;
            rms.run(&input, 0..rows, &mut output);
            equal_bits("rms norm", "selected", &case, &reference, &output)?;
            rms.run_in_place(&mut input);
            equal_bits("rms norm", "in place", &case, &reference, &input)?;
            checked += 6;
        }
    }
    for (images, groups, channels, pixels) in [(1, 1, 1, 1), (2, 2, 6, 15), (1, 3, 3, 49), (2, 1, 4, 64), (1, 2, 2, 0)]
    {
        let input = numbers.floats(images * channels * pixels);
        let (weight, bias) = (numbers.floats(channels), numbers.floats(channels));
        let group = GroupNorm { groups, channels, pixels, weight: &weight, bias: &bias, epsilon: 1e-5 };
        let case = format!("{images} images, {groups} groups, {channels} channels, {pixels} pixels");
        let mut reference = vec![0.0; input.len()];
        norm::naive::group(&group, &input, &mut reference);
        let mut output = vec![9.0; input.len()];
        norm::portable::group(&group, &input, 0..images * groups, &mut output);
        equal_bits("group norm", "portable", &case, &reference, &output)?;
        let cut = numbers.below(images * groups + 1);
        let (head, tail) = output.split_at_mut(cut * (channels / groups) * pixels);
        group.run(&input, cut..images * groups, tail);
        group.run(&input, 0..cut, head);
        equal_bits("group norm", "selected", &case, &reference, &output)?;
        checked += 2;
    }
    Ok(checked)
}
