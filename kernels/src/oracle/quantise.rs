//! Conversions between f32 and integers.

use super::{Numbers, bits, equal, equal_bits};
use crate::quantise::{self, Grid, Integer, naive, portable};

/// Lengths, around every step of the bodies.
const LENGTHS: &[usize] = &[0, 1, 3, 7, 8, 15, 16, 17, 31, 32, 33, 100, 1025];

pub fn check(seed: u64) -> Result<u32, String> {
    let mut numbers = Numbers::new(seed);
    let mut checked = 0;
    for (index, &length) in LENGTHS.iter().enumerate() {
        for kind in 0..4 {
            let input = floats(&mut numbers, length, kind);
            checked += check_rows(&input, index)?;
            checked += check_centred(&mut numbers, &input)?;
        }
    }
    for (rows, columns) in [(0, 1), (1, 1), (3, 4), (5, 7), (16, 16), (9, 33)] {
        for kind in [0, 3] {
            let (input, start) = (floats(&mut numbers, rows * columns, kind), vec![0.25; columns]);
            let run = |body: fn(&[f32], &mut [f32])| {
                let mut magnitudes = start.clone();
                body(&input, &mut magnitudes);
                magnitudes
            };
            let (reference, case) = (run(naive::column_magnitudes), format!("{rows} x {columns}"));
            equal_bits("column_magnitudes", "portable", &case, &reference, &run(portable::column_magnitudes))?;
            equal_bits("column_magnitudes", "selected", &case, &reference, &run(quantise::column_magnitudes))?;
            checked += 2;
        }
    }
    // Outer, channels and inner parts: runs, channels last, and neither.
    for (outer, channels, inner) in
        [(1, 1, 40), (3, 1, 1), (2, 3, 16), (2, 5, 35), (3, 16, 1), (2, 37, 1), (2, 7, 1), (1, 20, 3), (0, 4, 4)]
    {
        for kind in 0..4 {
            checked += check_grid::<u8>(&mut numbers, (outer, channels, inner), kind, 0)?;
            checked += check_grid::<i8>(&mut numbers, (outer, channels, inner), kind, -128)?;
        }
    }
    Ok(checked)
}

/// Floats of a magnitude that a grid of scale 1 covers, halves between its points, tiny ones, or all sorts.
fn floats(numbers: &mut Numbers, count: usize, kind: usize) -> Vec<f32> {
    match kind {
        0 => numbers.floats(count).iter().map(|value| value * 300.0).collect(),
        1 => numbers.floats(count).iter().map(|value| (value * 300.0).floor() + 0.5).collect(),
        2 => numbers.floats(count).iter().map(|value| value * 1e-31).collect(),
        _ => numbers.wild_floats(count),
    }
}

fn check_rows(input: &[f32], index: usize) -> Result<u32, String> {
    type Row = fn(&[f32], i16, &mut [i16]) -> f32;
    for limit in [1, 127, 1927, 4095, i16::MAX] {
        let case = format!("{} values, limit {limit}", input.len());
        let run = |body: Row| {
            let mut output = vec![-7; input.len() + index % 3 * 5];
            let scale = body(input, limit, &mut output);
            (output, bits(&[scale]))
        };
        let reference = run(naive::row);
        for (name, body) in [("portable", portable::row as Row), ("selected", quantise::row)] {
            let (output, scale) = run(body);
            equal("quantise row", name, &case, &reference.0, &output)?;
            equal("quantise row, scale", name, &case, &reference.1, &scale)?;
        }
        for block in [1, 16, 32, 33, 256] {
            let values = &reference.0[..input.len()];
            let sums = |body: fn(&[i16], usize, f32, &mut [f32])| {
                let mut sums = vec![0.0; values.len().div_ceil(block)];
                body(values, block, 0.37, &mut sums);
                bits(&sums)
            };
            let expected = sums(naive::block_sums);
            equal("block sums", "portable", &case, &expected, &sums(portable::block_sums))?;
            equal("block sums", "selected", &case, &expected, &sums(quantise::block_sums))?;
        }
    }
    Ok(60)
}

fn check_centred(numbers: &mut Numbers, input: &[f32]) -> Result<u32, String> {
    let case = format!("{} values", input.len());
    let parameters = naive::dynamic_parameters(input);
    let same = |(scale, zero_point): (f32, u8)| (bits(&[scale])[0], zero_point);
    for (name, found) in
        [("portable", portable::dynamic_parameters(input)), ("selected", quantise::dynamic_parameters(input))]
    {
        equal("dynamic_parameters", name, &case, &[same(parameters)], &[same(found)])?;
    }
    type Quantize = fn(&[f32], f32, i16, i16, &mut [i16]);
    for (scale, low, high) in [(1.0, -128, 127), (0.1, -3, 252), (0.0, 0, 255), (3e38, -5, -5), (1e-40, -255, 0)] {
        let run = |body: Quantize| {
            let mut output = vec![-7; input.len()];
            body(input, scale, low, high, &mut output);
            output
        };
        let reference = run(naive::quantize_centred);
        let case = format!("{case}, scale {scale}, {low} to {high}");
        equal("quantize_centred", "portable", &case, &reference, &run(portable::quantize_centred))?;
        equal("quantize_centred", "selected", &case, &reference, &run(quantise::quantize_centred))?;
    }
    type Dequantize = fn(&[i16], f32, &mut [f32]);
    let integers: Vec<i16> = input.iter().map(|_| numbers.next() as i16).collect();
    for scale in [0.3, -1e-40, f32::INFINITY] {
        let run = |body: Dequantize| {
            let mut output = vec![-7.0; input.len()];
            body(&integers, scale, &mut output);
            output
        };
        let reference = run(naive::dequantize_centred);
        equal_bits("dequantize_centred", "portable", &case, &reference, &run(portable::dequantize_centred))?;
        equal_bits("dequantize_centred", "selected", &case, &reference, &run(quantise::dequantize_centred))?;
    }
    let bytes = numbers.bytes(input.len());
    let signed: Vec<i8> = bytes.iter().map(|byte| *byte as i8).collect();
    Ok(18
        + check_zero_point(&bytes, &integers, 0u8)?
        + check_zero_point(&bytes, &integers, 255u8)?
        + check_zero_point(&signed, &integers, -128i8)?
        + check_zero_point(&signed, &integers, 3i8)?)
}

fn check_zero_point<T: Integer + PartialEq + std::fmt::Debug>(
    bytes: &[T],
    integers: &[i16],
    zero_point: T,
) -> Result<u32, String> {
    let case = format!("{} values, zero point {zero_point:?}", bytes.len());
    let centred = |body: fn(&[T], T, &mut [i16])| {
        let mut output = vec![-7; bytes.len()];
        body(bytes, zero_point, &mut output);
        output
    };
    let reference = centred(naive::centre::<T>);
    equal("centre", "portable", &case, &reference, &centred(portable::centre::<T>))?;
    equal("centre", "selected", &case, &reference, &centred(quantise::centre::<T>))?;
    let stored = |body: fn(&[i16], T, &mut [T])| {
        let mut output = bytes.to_vec();
        body(integers, zero_point, &mut output);
        output
    };
    let reference = stored(naive::uncentre::<T>);
    equal("uncentre", "portable", &case, &reference, &stored(portable::uncentre::<T>))?;
    equal("uncentre", "selected", &case, &reference, &stored(quantise::uncentre::<T>))?;
    Ok(4)
}

fn check_grid<T: Integer + PartialEq + std::fmt::Debug>(
    numbers: &mut Numbers,
    (outer, channels, inner): (usize, usize, usize),
    kind: usize,
    least: i32,
) -> Result<u32, String> {
    let length = outer * channels * inner;
    let input = floats(numbers, length, kind);
    let scales: Vec<f32> = numbers.floats(channels).iter().map(|value| value.abs() * 2.0).collect();
    let zero_points: Vec<i32> = (0..channels).map(|_| numbers.below(256) as i32 + least).collect();
    let zero_points = if kind.is_multiple_of(2) { &zero_points[..] } else { &[] };
    let grid = Grid { scales: &scales, zero_points, inner };
    let case = format!("{outer} x {channels} x {inner}, {} zero points", zero_points.len());
    let quantized = |body: fn(&[f32], Grid<'_>, &mut [T])| {
        let mut output = vec![T::narrow(3); length];
        body(&input, grid, &mut output);
        output
    };
    let reference = quantized(naive::quantize_linear::<T>);
    equal("quantize_linear", "portable", &case, &reference, &quantized(portable::quantize_linear::<T>))?;
    equal("quantize_linear", "selected", &case, &reference, &quantized(quantise::quantize_linear::<T>))?;
    let integers: Vec<T> = numbers.bytes(length).iter().map(|byte| T::narrow(i32::from(*byte) + least)).collect();
    let dequantized = |body: fn(&[T], Grid<'_>, &mut [f32])| {
        let mut output = vec![-7.0; length];
        body(&integers, grid, &mut output);
        output
    };
    let reference = dequantized(naive::dequantize_linear::<T>);
    equal_bits("dequantize_linear", "portable", &case, &reference, &dequantized(portable::dequantize_linear::<T>))?;
    equal_bits("dequantize_linear", "selected", &case, &reference, &dequantized(quantise::dequantize_linear::<T>))?;
    Ok(4)
}
