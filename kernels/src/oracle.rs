//! Compares every body of every kernel with its reference, on the target this runs on.
//!
//! A native test calls [`check`] for the portable bodies, a Wasm module for the simd128 ones.

use crate::image::{self, CHANNELS, Channel, Coefficients};

/// A fixed sequence of numbers (splitmix64: Steele, Lea and Flood 2014).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        // Extremes are where clipping and overflow would show.
        let byte = |number: u64| match number % 4 {
            0 => 0,
            1 => 255,
            _ => (number >> 8) as u8,
        };
        (0..count).map(|_| byte(self.next())).collect()
    }
}

/// Kernels whose bodies were compared, and on how many inputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub resample_columns: u32,
    pub resample_rows: u32,
    pub normalise: u32,
}

type ResampleColumns = fn(&[u8], usize, usize, &Coefficients, &mut [u8]);
type ResampleRows = fn(&[u8], usize, &Coefficients, &mut [u8]);
type Normalise = fn(&[u8], Channel, &mut [f32]);

/// Compares the body that this target runs, and the portable one, with the reference. Fails on the first value that
/// differs, and says which.
pub fn check(seed: u64) -> Result<Checked, String> {
    let mut numbers = Numbers(seed);
    let mut checked = Checked::default();
    let sizes = [(1, 1), (1, 5), (5, 1), (7, 3), (3, 7), (16, 16), (17, 9), (40, 13), (13, 40), (100, 11), (33, 32)];
    for (input_size, output_size) in sizes {
        let other = 1 + (numbers.next() % 21) as usize;
        let input = numbers.bytes(input_size as usize * other * CHANNELS);
        let first = (numbers.next() % u64::from(output_size)) as u32;
        for range in [0..output_size, first..output_size] {
            let coefficients = Coefficients::triangle(input_size, output_size, range.clone());
            let case = format!("{input_size} to {output_size} pixels {range:?} by {other}");
            let width = input_size as usize;
            let bodies: [ResampleColumns; 3] =
                [image::naive::resample_columns, image::portable::resample_columns, image::resample_columns];
            let outputs = bodies.map(|body| {
                let mut output = vec![0xaa; coefficients.len() * other * CHANNELS];
                body(&input, width, other, &coefficients, &mut output);
                output
            });
            equal("resample_columns", &case, &outputs)?;
            checked.resample_columns += 1;

            let bodies: [ResampleRows; 3] =
                [image::naive::resample_rows, image::portable::resample_rows, image::resample_rows];
            let outputs = bodies.map(|body| {
                let mut output = vec![0xaa; coefficients.len() * other * CHANNELS];
                body(&input, other, &coefficients, &mut output);
                output
            });
            equal("resample_rows", &case, &outputs)?;
            checked.resample_rows += 1;
        }
    }
    for pixels in [0usize, 1, 3, 4, 5, 6, 8, 15, 16, 64, 101] {
        let input = numbers.bytes(pixels * CHANNELS);
        for source in 0..CHANNELS {
            for (offset, stride) in [(source * pixels, 1), (source, CHANNELS)] {
                let (mean, scale) = (100.0 + source as f32 / 3.0, 1.0 / (50.0 + source as f32));
                let channel = Channel { source, offset, stride, mean, scale };
                let bodies: [Normalise; 3] = [image::naive::normalise, image::portable::normalise, image::normalise];
                let outputs = bodies.map(|body| {
                    let mut output = vec![-1.0; pixels * CHANNELS];
                    body(&input, channel, &mut output);
                    output.iter().map(|value| value.to_bits()).collect::<Vec<u32>>()
                });
                equal("normalise", &format!("{pixels} pixels, {channel:?}"), &outputs)?;
                checked.normalise += 1;
            }
        }
    }
    Ok(checked)
}

fn equal<T: PartialEq + std::fmt::Debug>(kernel: &str, case: &str, outputs: &[Vec<T>; 3]) -> Result<(), String> {
    for (body, output) in ["portable", "selected"].iter().zip(&outputs[1..]) {
        let reference = &outputs[0];
        if let Some(index) = (0..reference.len()).find(|&index| reference[index] != output[index]) {
            let (expected, got) = (&reference[index], &output[index]);
            return Err(format!("{kernel}, {body}, {case}: value {index} is {got:?}, the reference {expected:?}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_give_the_same_bits() {
        let checked = check(1).unwrap();
        assert_eq!(checked, Checked { resample_columns: 22, resample_rows: 22, normalise: 66 });
        check(2).unwrap();
    }

    #[test]
    fn a_difference_is_found() {
        let outputs = [vec![1, 2], vec![1, 2], vec![1, 3]];
        let expected = "k, selected, c: value 1 is 3, the reference 2";
        assert_eq!(equal("k", "c", &outputs), Err(expected.to_string()));
    }
}
