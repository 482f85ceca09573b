//! Rotary position embedding.

use super::{Numbers, equal_bits};
use crate::rotary::{self, Pairs, Rotary};

pub fn check(seed: u64) -> Result<u32, String> {
    let mut numbers = Numbers::new(seed);
    let mut checked = 0;
    for (pairs, full_tables) in [(Pairs::Halves, false), (Pairs::Halves, true), (Pairs::Neighbours, false)] {
        for half in [0, 1, 3, 4, 7, 16, 32] {
            for (rows, first, positions, repeat) in [(0, 0, 1, 1), (6, 2, 3, 1), (6, 0, 2, 3), (1, 4, 1, 1)] {
                let rotary = Rotary { pairs, half, full_tables, first, positions, repeat };
                let table = (first + positions) * half;
                let (mut cosines, mut sines) = (vec![9.0; table], vec![9.0; table]);
                rotary::tables(10_000.0, half.max(1), 0..table / half.max(1), &mut cosines, &mut sines);
                if full_tables {
                    (cosines, sines) = (numbers.floats(2 * table), numbers.floats(2 * table));
                }
                let input = numbers.floats(rows * 2 * half);
                let case = format!("{rows} rows, {rotary:?}");
                let mut reference = input.clone();
                rotary::naive::run(&rotary, &cosines, &sines, 0..rows, &mut reference);
                let mut data = input.clone();
                rotary::portable::run(&rotary, &cosines, &sines, 0..rows, &mut data);
                equal_bits("rotary", "portable", &case, &reference, &data)?;
                let mut data = input;
                let cut = numbers.below(rows + 1);
                let (head, tail) = data.split_at_mut(cut * 2 * half);
                rotary.run(&cosines, &sines, cut..rows, tail);
                rotary.run(&cosines, &sines, 0..cut, head);
                equal_bits("rotary", "selected", &case, &reference, &data)?;
                checked += 2;
            }
        }
    }
    Ok(checked)
}
