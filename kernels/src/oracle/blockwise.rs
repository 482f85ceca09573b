//! Products with weights that have a scale every 32.

use super::int8::cuts;
use super::{Numbers, equal, equal_bits};
use crate::blockwise::{
    self, Activations, BLOCK, INT4_ACTIVATION_LIMIT, Int4Source, Int4Weights, Int8Weights, Output, Rescale, Source,
    Tile, padded_inner, prepared_inner, scales_len,
};

/// Rows, inner values, columns: zero, one, every number of blocks in the last 128, and every remainder.
const SHAPES: &[(usize, usize, usize)] = &[
    (0, 32, 4),
    (2, 0, 5),
    (3, 32, 0),
    (1, 1, 1),
    (3, 31, 5),
    (8, 32, 8),
    (9, 33, 9),
    (15, 64, 17),
    (7, 96, 12),
    (6, 100, 30),
    (4, 128, 7),
    (17, 129, 16),
    (2, 160, 1030),
    (1, 224, 2053),
    (13, 288, 19),
    (1, 512, 40),
    (64, 353, 11),
];

/// A body of either kind of product, with its weights.
type Body<'a> = &'a dyn Fn(Activations<'_>, Rescale<'_>, Tile, Output<'_, f32>);

/// The three bodies of a product with `weights`.
macro_rules! bodies {
    ($product:ident, $weights:expr) => {
        [
            &|a, rescale, tile, output| blockwise::naive::$product(a, $weights, rescale, tile, output),
            &|a, rescale, tile, output| blockwise::portable::$product(a, $weights, rescale, tile, output),
            &|a, rescale, tile, output| blockwise::$product(a, $weights, rescale, tile, output),
        ]
    };
}

pub fn check(seed: u64) -> Result<u32, String> {
    let mut numbers = Numbers::new(seed);
    let mut checked = 0;
    for (index, &(m, k, n)) in SHAPES.iter().enumerate() {
        checked += check_int8(&mut numbers, index, (m, k, n))?;
        checked += check_int4(&mut numbers, index, (m, k, n))?;
    }
    Ok(checked)
}

/// Block sizes that files have.
const BLOCK_SIZES: [usize; 3] = [32, 64, 128];

fn check_int8(numbers: &mut Numbers, index: usize, (m, k, n): (usize, usize, usize)) -> Result<u32, String> {
    let block_size = BLOCK_SIZES[index % 3];
    let blocks = k.div_ceil(block_size);
    let (bytes, unsigned) = (numbers.bytes(k * n), index % 2 == 1);
    let source_scales = numbers.floats(blocks * n);
    let mut packed = vec![99; Int8Weights::packed_len(k, n).ok_or("shape")?];
    let mut scales = vec![f32::NAN; scales_len(k, n).ok_or("shape")?];
    let cut = n / 8 * 4;
    for columns in [0..cut, cut..n] {
        let source = Source { bytes: &bytes[columns.start * k..], row_stride: 1, column_stride: k, unsigned };
        let source_scales = &source_scales[columns.start * blocks..];
        blockwise::pack_int8(source, source_scales, block_size, k, n, columns, &mut packed, &mut scales);
    }
    let weights = Int8Weights::new(&packed, &scales, k, n);
    let case = format!("{m} x {k} x {n}, blocks of {block_size}");
    for column in 0..n {
        let mut read = vec![f32::NAN; k];
        weights.column(column, &mut read);
        let stored: Vec<f32> = (0..k)
            .map(|row| {
                f32::from((bytes[column * k + row] ^ if unsigned { 0x80 } else { 0 }) as i8)
                    * source_scales[column * blocks + row / block_size]
            })
            .collect();
        equal_bits("blockwise int8 column", "packed", &case, &stored, &read)?;
    }
    let stride = padded_inner(k) + [0, 7, 4099][index % 3];
    let values: Vec<i16> = (0..m * stride + padded_inner(k)).map(|_| numbers.next() as i16).collect();
    let activations = Activations { values: &values, stride };
    compare("blockwise gemm_int8", &case, numbers, (m, n), activations, bodies!(gemm_int8, weights))
}

fn check_int4(numbers: &mut Numbers, index: usize, (m, k, n): (usize, usize, usize)) -> Result<u32, String> {
    let block_size = BLOCK_SIZES[index % 3];
    let blocks = k.div_ceil(block_size);
    let column_bytes = blocks * block_size / 2;
    let bytes = numbers.bytes(column_bytes * n);
    let source_scales = numbers.floats(blocks * n);
    let source_zero_points = numbers.bytes(blocks.div_ceil(2) * n);
    let with_zero_points = index % 2 == 1;
    let mut packed = vec![99; Int4Weights::packed_len(k, n).ok_or("shape")?];
    let mut scales = vec![f32::NAN; scales_len(k, n).ok_or("shape")?];
    let zero_points_len = Int4Weights::zero_points_len(k, n).ok_or("shape")?;
    let mut zero_points = vec![99; if with_zero_points { zero_points_len } else { 0 }];
    let cut = n / 8 * 4;
    for columns in [0..cut, cut..n] {
        let source = Int4Source {
            bytes: &bytes[columns.start * column_bytes..],
            scales: &source_scales[columns.start * blocks..],
            zero_points: with_zero_points.then_some(&source_zero_points[columns.start * blocks.div_ceil(2)..]),
            block_size,
        };
        blockwise::pack_int4(source, k, n, columns, &mut packed, &mut scales, &mut zero_points);
    }
    let weights = Int4Weights::new(&packed, &scales, with_zero_points.then_some(&zero_points[..]), k, n);
    let case = format!("{m} x {k} x {n}, blocks of {block_size}, zero points {with_zero_points}");
    for column in 0..n {
        let mut read = vec![f32::NAN; k];
        weights.column(column, &mut read);
        let half = |byte: u8, high: bool| i32::from(if high { byte >> 4 } else { byte & 15 });
        let stored = (0..k).map(|row| {
            let block = row / block_size;
            let zero_point = match with_zero_points {
                true => half(source_zero_points[column * blocks.div_ceil(2) + block / 2], block % 2 == 1),
                false => 8,
            };
            let weight = half(bytes[column * column_bytes + row / 2], row % 2 == 1) - zero_point;
            weight as f32 * source_scales[column * blocks + block]
        });
        equal_bits("blockwise int4 column", "packed", &case, &stored.collect::<Vec<f32>>(), &read)?;
    }
    let less = (index % 16) as u8;
    let widened = |body: fn(&[u8], u8, &mut [u8])| {
        let mut widened = vec![99; 2 * bytes.len()];
        body(&bytes, less, &mut widened);
        widened
    };
    let reference = widened(blockwise::naive::widen_int4);
    equal("blockwise widen_int4", "portable", &case, &reference, &widened(blockwise::portable::widen_int4))?;
    equal("blockwise widen_int4", "selected", &case, &reference, &widened(blockwise::widen_int4))?;
    for (scale, zero_point) in [(0.02, 7.3), (-0.5, -3.0), (1.0, f32::NAN), (3.0e38, -20.0), (1.0e-32, 2.0), (0.0, 8.0)]
    {
        let recentred = |body: fn(&[u8], f32, f32, &mut [u8]) -> f32| {
            let mut recentred = vec![99; 2 * bytes.len()];
            let scale = body(&bytes, scale, zero_point, &mut recentred);
            (recentred, [scale])
        };
        let case = format!("{} bytes, scale {scale}, zero point {zero_point}", bytes.len());
        let reference = recentred(blockwise::naive::recentre_int4);
        let others = [
            ("portable", recentred(blockwise::portable::recentre_int4)),
            ("selected", recentred(blockwise::recentre_int4)),
        ];
        for (name, (weights, scale)) in others {
            equal("blockwise recentre_int4", name, &case, &reference.0, &weights)?;
            equal_bits("blockwise recentre_int4, scale", name, &case, &reference.1, &scale)?;
        }
    }
    let row_len = prepared_inner(k);
    let stride = row_len + [0, 7, 4099][index % 3];
    let limit = i32::from(INT4_ACTIVATION_LIMIT);
    let mut values = vec![0; m * stride + row_len];
    for start in (0..m).map(|row| row * stride) {
        // The extremes are frequent.
        let row: Vec<i16> =
            numbers.bytes(k).iter().map(|byte| ((i32::from(*byte) * 2 - 255) * limit / 255) as i16).collect();
        let mut reference = vec![-7; row_len];
        blockwise::naive::prepare_int4(&row, &mut reference);
        for (name, body) in [
            ("portable", blockwise::portable::prepare_int4 as fn(&[i16], &mut [i16])),
            ("selected", blockwise::prepare_int4),
        ] {
            let prepared = &mut values[start..start + row_len];
            prepared.fill(-7);
            body(&row, prepared);
            equal("blockwise prepare_int4", name, &case, &reference, prepared)?;
        }
    }
    let activations = Activations { values: &values, stride };
    compare("blockwise gemm_int4", &case, numbers, (m, n), activations, bodies!(gemm_int4, weights))
        .map(|compared| compared + 2 * m as u32 + 2 + u32::from(k % BLOCK == 0))
}

/// Compares the bodies on the whole product, on the same in pieces, and row by row.
fn compare(
    kernel: &str,
    case: &str,
    numbers: &mut Numbers,
    (m, n): (usize, usize),
    activations: Activations<'_>,
    bodies: [Body<'_>; 3],
) -> Result<u32, String> {
    let out_stride = n + numbers.below(3) * 77;
    let (row_scales, bias) = (numbers.floats(if n % 2 == 0 { m.max(1) } else { 1 }), numbers.floats(n));
    let rescale = Rescale { row_scales: &row_scales, bias: (n % 3 != 0).then_some(&bias[..]) };
    let product = |body: Body<'_>, tiles: &[Tile]| {
        let mut values = vec![-7.0; m * out_stride + n];
        for tile in tiles {
            body(activations, rescale, tile.clone(), Output { values: &mut values, stride: out_stride });
        }
        values
    };
    let [whole, pieces] = cuts(numbers, m, n);
    let reference = product(bodies[0], &whole);
    let mut checked = 0;
    let by_rows = |rows: usize| -> Vec<Tile> {
        (0..m).step_by(rows).map(|row| Tile { rows: row..(row + rows).min(m), columns: 0..n }).collect()
    };
    for tiles in [whole, pieces, by_rows(1), by_rows(2), by_rows(7)] {
        for (name, body) in ["portable", "selected"].iter().zip(&bodies[1..]) {
            equal_bits(kernel, name, case, &reference, &product(body, &tiles))?;
            checked += 1;
        }
    }
    Ok(checked)
}
