//! Resampling and normalisation.

use super::Numbers;
use crate::image::{self, CHANNELS, Channel, Coefficients};

type ResampleColumns = fn(&[u8], usize, usize, &Coefficients, &mut [u8]);
type ResampleRows = fn(&[u8], usize, &Coefficients, &mut [u8]);
type Normalise = fn(&[u8], Channel, &mut [f32]);

pub fn check(seed: u64) -> Result<u32, String> {
    let mut numbers = Numbers::new(seed);
    let mut checked = 0;
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
            checked += 1;

            let bodies: [ResampleRows; 3] =
                [image::naive::resample_rows, image::portable::resample_rows, image::resample_rows];
            let outputs = bodies.map(|body| {
                let mut output = vec![0xaa; coefficients.len() * other * CHANNELS];
                body(&input, other, &coefficients, &mut output);
                output
            });
            equal("resample_rows", &case, &outputs)?;
            checked += 1;
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
                checked += 1;
            }
        }
    }
    Ok(checked)
}

/// Compares the portable and the selected body's output, in this order, with the reference's, which is first.
fn equal<T: PartialEq + std::fmt::Debug>(kernel: &str, case: &str, outputs: &[Vec<T>; 3]) -> Result<(), String> {
    super::equal(kernel, "portable", case, &outputs[0], &outputs[1])?;
    super::equal(kernel, "selected", case, &outputs[0], &outputs[2])
}
