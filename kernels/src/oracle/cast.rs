//! Casts.

use super::{Numbers, equal, equal_bits};
use crate::cast::{self, Bool};

/// A 16-bit pattern with NaNs made equal.
fn quiet(bits: u16, fraction: u32) -> u16 {
    let infinity = 0x7fff >> fraction << fraction;
    if bits & 0x7fff > infinity { 0x7fff } else { bits }
}

type Narrow = fn(&[f32], &mut [u16]);

pub fn check(seed: u64) -> Result<u32, String> {
    let mut numbers = Numbers::new(seed);
    // Every binary16.
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let reference: Vec<f32> = all.iter().map(|bits| cast::naive::f16_to_f32(*bits)).collect();
    let mut output = vec![9.0; all.len()];
    cast::portable::f16_to_f32(&all, &mut output);
    equal_bits("f16 to f32", "portable", "all", &reference, &output)?;
    cast::f16_to_f32(&all, &mut output);
    equal_bits("f16 to f32", "selected", "all", &reference, &output)?;
    let reference: Vec<f32> = all.iter().map(|bits| cast::naive::bf16_to_f32(*bits)).collect();
    cast::portable::bf16_to_f32(&all, &mut output);
    equal_bits("bf16 to f32", "portable", "all", &reference, &output)?;
    cast::bf16_to_f32(&all, &mut output);
    equal_bits("bf16 to f32", "selected", "all", &reference, &output)?;
    let mut checked = 4;
    for count in [0, 1, 3, 31, 32, 33, 5000] {
        // All exponents; halves, ties between halves and their neighbours; the ends of the range.
        let input: Vec<f32> = (0..count)
            .map(|index| match index % 5 {
                0 => f32::from_bits(numbers.next() as u32),
                1 => cast::naive::f16_to_f32(numbers.next() as u16),
                2 => f32::from_bits(cast::naive::f16_to_f32(numbers.next() as u16).to_bits() ^ 0x1000),
                3 => f32::from_bits((numbers.next() as u32 & 0xffff_0000) | 0x8000),
                _ => [65_519.996, 65_520.0, -65_536.0, 3e38, 2.98e-8, 2.980_232_6e-8, 6e-8, -0.0, f32::NAN]
                    [numbers.below(9)],
            })
            .collect();
        let case = format!("{count}");
        let reference: Vec<u16> = input.iter().map(|value| quiet(cast::naive::f32_to_f16(*value), 10)).collect();
        let bodies: [(&str, Narrow); 2] = [("portable", cast::portable::f32_to_f16), ("selected", cast::f32_to_f16)];
        for (name, body) in bodies {
            let mut output = vec![9; count];
            body(&input, &mut output);
            output.iter_mut().for_each(|bits| *bits = quiet(*bits, 10));
            equal("f32 to f16", name, &case, &reference, &output)?;
        }
        let reference: Vec<u16> = input.iter().map(|value| quiet(cast::naive::f32_to_bf16(*value), 7)).collect();
        let bodies: [(&str, Narrow); 2] = [("portable", cast::portable::f32_to_bf16), ("selected", cast::f32_to_bf16)];
        for (name, body) in bodies {
            let mut output = vec![9; count];
            body(&input, &mut output);
            output.iter_mut().for_each(|bits| *bits = quiet(*bits, 7));
            equal("f32 to bf16", name, &case, &reference, &output)?;
        }
        checked += 4;
        let mut output = vec![9i64; count];
        cast::cast(&input, &mut output);
        let reference: Vec<i64> = input.iter().map(|value| *value as i64).collect();
        equal("f32 to i64", "selected", &case, &reference, &output)?;
        let mut output = vec![9i8; count];
        cast::cast(&reference, &mut output);
        let reference: Vec<i8> = reference.iter().map(|value| *value as i8).collect();
        equal("i64 to i8", "selected", &case, &reference, &output)?;
        let mut bools = vec![Bool(9); count];
        cast::cast(&input, &mut bools);
        let reference: Vec<Bool> = input.iter().map(|value| Bool(u8::from(*value != 0.0))).collect();
        equal("f32 to bool", "selected", &case, &reference, &bools)?;
        checked += 3;
    }
    Ok(checked)
}
