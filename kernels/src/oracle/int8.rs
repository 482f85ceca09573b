//! Products with int8 weights.

use super::{Numbers, equal, equal_bits};
use crate::int8::{self, Activations, Output, Requantise, Rescale, SEGMENT, Source, Tile, Weights, padded_inner};
use std::ops::Range;

/// Rows, inner values, columns: zero, one, every remainder of the blocks of 8, 64 and 128 inner values, of 4 and 1,024
/// columns, of 8 rows.
const SHAPES: &[(usize, usize, usize)] = &[
    (0, 5, 7),
    (3, 0, 5),
    (3, 5, 0),
    (1, 1, 1),
    (7, 3, 5),
    (8, 8, 8),
    (9, 16, 3),
    (15, 24, 17),
    (2, 33, 12),
    (3, 40, 9),
    (4, 48, 20),
    (5, 56, 6),
    (64, 64, 10),
    (6, 72, 11),
    (13, 96, 16),
    (12, 127, 13),
    (11, 128, 31),
    (10, 136, 2),
    (1, 190, 26),
    (1, 251, 7),
    (3, 264, 1030),
    (1, 520, 2061),
    (17, 300, 33),
];

/// An activation that is not there must not show: what lies behind k in a row and between rows.
const POISON: i16 = i16::MIN;

fn gemm_f32(
    body: impl Fn(Activations<'_>, Weights<'_>, Rescale<'_>, Tile, Output<'_, f32>),
    activations: Activations<'_>,
    weights: Weights<'_>,
    rescale: Rescale<'_>,
    tiles: &[Tile],
    (length, stride): (usize, usize),
) -> Vec<f32> {
    let mut values = vec![-7.0; length];
    for tile in tiles {
        body(activations, weights, rescale, tile.clone(), Output { values: &mut values, stride });
    }
    values
}

/// The whole product, and the same cut into four.
pub fn cuts(numbers: &mut Numbers, rows: usize, columns: usize) -> [Vec<Tile>; 2] {
    let (row, column) = (numbers.below(rows + 1), (numbers.below(columns + 4) / 4 * 4).min(columns / 4 * 4));
    let tile = |rows: Range<usize>, columns: Range<usize>| Tile { rows, columns };
    let pieces = [(0..row, 0..column), (0..row, column..columns), (row..rows, column..columns), (row..rows, 0..column)];
    [vec![tile(0..rows, 0..columns)], pieces.into_iter().map(|(rows, columns)| tile(rows, columns)).collect()]
}

pub fn check(seed: u64) -> Result<u32, String> {
    let mut numbers = Numbers::new(seed);
    let mut checked = 0;
    let long = [(1, SEGMENT + 1, 5), (3, 2 * SEGMENT + 130, 6), (2, SEGMENT, 4)];
    for (index, &(m, k, n)) in SHAPES.iter().chain(&long).enumerate() {
        let stride = padded_inner(k) + [0, 5, 4099][index % 3];
        let out_stride = n + [0, 3, 5001][index % 3];
        let unsigned = index % 4 == 3;
        let with_zero_points = unsigned || index % 4 == 1;
        // 8-bit activations for sums that are handed out, as large as they may get for those that become f32.
        let limit = i32::from(int8::activation_limit(k));
        let mut small = vec![POISON; m * stride + padded_inner(k)];
        let mut large = small.clone();
        for row in 0..m {
            for inner in 0..k {
                let byte = i32::from(numbers.bytes(1)[0]);
                small[row * stride + inner] = (byte - 100) as i16;
                large[row * stride + inner] = (limit * (byte - 127) / 128) as i16;
            }
        }
        let bytes = numbers.bytes(k * n);
        let mut packed = vec![99; Weights::packed_len(k, n).ok_or("shape")?];
        // From [k][n] and from [n][k], the latter in two pieces.
        if index % 2 == 0 {
            let source = Source { bytes: &bytes, row_stride: n, column_stride: 1, unsigned };
            int8::pack(source, k, n, 0..n, &mut packed);
        } else {
            let cut = n / 8 * 4;
            for columns in [0..cut, cut..n] {
                let source = Source { bytes: &bytes[columns.start * k..], row_stride: 1, column_stride: k, unsigned };
                int8::pack(source, k, n, columns, &mut packed);
            }
        }
        let zero_points: Vec<i32> = (0..n).map(|column| (column as i32 * 37) % 256 - 128).collect();
        let mut weights = Weights::new(&packed, k, n);
        if with_zero_points {
            weights = weights.with_zero_points(&zero_points);
        }
        let case = format!("{m} x {k} x {n}, strides {stride} and {out_stride}, zero points {with_zero_points}");
        for column in 0..n {
            let mut read = vec![0; k];
            weights.column(column, &mut read);
            let (row_stride, column_stride) = if index % 2 == 0 { (n, 1) } else { (1, k) };
            let flip = if unsigned { 128 } else { 0 };
            let stored: Vec<i8> =
                (0..k).map(|row| (bytes[row * row_stride + column * column_stride] ^ flip) as i8).collect();
            equal("int8 column", "packed", &case, &stored, &read)?;
        }

        let length = m * out_stride + n;
        let bias = numbers.floats(n);
        let column_scales = numbers.floats(n);
        let row_scales = numbers.floats(if index % 3 == 1 { 1 } else { m.max(1) });
        let tiles = cuts(&mut numbers, m, n);
        let activations = Activations { values: &large, stride };
        let rescale = Rescale {
            row_scales: &row_scales,
            column_scales: &column_scales,
            bias: (index % 2 == 0).then_some(&bias[..]),
        };
        let out = (length, out_stride);
        let reference = gemm_f32(int8::naive::gemm_f32, activations, weights, rescale, &tiles[0], out);
        for tiles in &tiles {
            let portable = gemm_f32(int8::portable::gemm_f32, activations, weights, rescale, tiles, out);
            let selected = gemm_f32(int8::gemm_f32, activations, weights, rescale, tiles, out);
            equal_bits("int8 gemm_f32", "portable", &case, &reference, &portable)?;
            equal_bits("int8 gemm_f32", "selected", &case, &reference, &selected)?;
            checked += 2;
        }

        let activations = Activations { values: &small, stride };
        let multipliers: Vec<f32> = numbers.floats(n).iter().map(|value| value / (1 + k) as f32 / 16.0).collect();
        let bias: Vec<i32> = (0..n).map(|_| numbers.next() as i32 >> 14).collect();
        let requantise = Requantise {
            multipliers: &multipliers,
            bias: (index % 3 != 0).then_some(&bias[..]),
            low: -100,
            high: if index % 2 == 0 { 155 } else { 27 },
        };
        let mut outputs = Vec::new();
        let mut sums = Vec::new();
        for (number, tiles) in [&tiles[0], &tiles[0], &tiles[1], &tiles[1]].into_iter().enumerate() {
            let bodies: [RequantisedBody; 4] = [
                int8::naive::gemm_requantised,
                int8::portable::gemm_requantised,
                int8::gemm_requantised,
                int8::portable::gemm_requantised,
            ];
            let sum_bodies: [SumBody; 4] =
                [int8::naive::gemm_i32, int8::portable::gemm_i32, int8::gemm_i32, int8::portable::gemm_i32];
            let (mut values, mut all) = (vec![-7i16; length], vec![-7i32; length]);
            for tile in tiles {
                let output = Output { values: &mut values, stride: out_stride };
                bodies[number](activations, weights, requantise, tile.clone(), output);
                let output = Output { values: &mut all, stride: out_stride };
                sum_bodies[number](activations, weights, tile.clone(), output);
            }
            outputs.push(values);
            sums.push(all);
        }
        for (body, output) in ["portable", "selected", "portable in pieces"].iter().zip(&outputs[1..]) {
            equal("int8 gemm_requantised", body, &case, &outputs[0], output)?;
            checked += 1;
        }
        for (body, sums_of) in ["portable", "selected", "portable in pieces"].iter().zip(&sums[1..]) {
            equal("int8 gemm_i32", body, &case, &sums[0], sums_of)?;
            checked += 1;
        }
    }
    checked += rows_do_not_depend_on_their_number(&mut numbers)?;
    Ok(checked)
}

type RequantisedBody = fn(Activations<'_>, Weights<'_>, Requantise<'_>, Tile, Output<'_, i16>);
type SumBody = fn(Activations<'_>, Weights<'_>, Tile, Output<'_, i32>);

fn rows_do_not_depend_on_their_number(numbers: &mut Numbers) -> Result<u32, String> {
    let (k, n) = (203, 70);
    let stride = padded_inner(k);
    let values: Vec<i16> = (0..64 * stride).map(|_| numbers.next() as i16).collect();
    let packed: Vec<i8> =
        numbers.bytes(Weights::packed_len(k, n).ok_or("shape")?).iter().map(|byte| *byte as i8).collect();
    let weights = Weights::new(&packed, k, n);
    let (row_scales, column_scales) = (numbers.floats(64), numbers.floats(n));
    let rescale = Rescale { row_scales: &row_scales, column_scales: &column_scales, bias: None };
    let activations = Activations { values: &values, stride };
    let product = |tiles: &[Tile]| gemm_f32(int8::gemm_f32, activations, weights, rescale, tiles, (64 * n, n));
    let reference = product(&[Tile { rows: 0..64, columns: 0..n }]);
    let mut checked = 0;
    for rows in [1, 2, 7, 64] {
        let tiles: Vec<Tile> =
            (0..64).step_by(rows).map(|row| Tile { rows: row..(row + rows).min(64), columns: 0..n }).collect();
        equal_bits("int8 gemm_f32", "selected", &format!("{rows} rows at once"), &reference, &product(&tiles))?;
        checked += 1;
    }
    Ok(checked)
}
