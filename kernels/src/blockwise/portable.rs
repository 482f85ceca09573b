//! Bodies for any target: four columns at a time, in the order of the packed bytes.

use super::{
    Activations, BLOCK, COLUMN_GROUP, INT4_PREPARED_BLOCK, Int4Weights, Int8Weights, Output, Rescale, Tile,
    block_number, check, padded_inner, prepared_inner,
};

pub use super::naive::{prepare_int4, recentre_int4, widen_int4};

/// Bytes that one dot product of a group takes.
const GROUP_BYTES: usize = 2 * COLUMN_GROUP;

/// Adds up the blocks of every group of the tile: `sum` gives the sums of a block from its activations and its number.
#[allow(clippy::too_many_arguments)]
fn product(
    (k, n): (usize, usize),
    inner: usize,
    activations: Activations<'_>,
    scales: &[f32],
    rescale: Rescale<'_>,
    tile: Tile,
    output: Output<'_, f32>,
    sum: impl Fn(&[i16], usize, &mut [i32; COLUMN_GROUP]),
) {
    let blocks = k.div_ceil(BLOCK);
    for row in tile.rows {
        let values = &activations.values[row * activations.stride..][..inner];
        for column in tile.columns.clone().step_by(COLUMN_GROUP) {
            let mut totals = [0f32; COLUMN_GROUP];
            for block in 0..blocks {
                let number = block_number(k, n, block, column / COLUMN_GROUP);
                let mut sums = [0i32; COLUMN_GROUP];
                sum(&values[inner / blocks * block..], number, &mut sums);
                for ((total, sum), scale) in totals.iter_mut().zip(sums).zip(&scales[number * COLUMN_GROUP..]) {
                    *total += sum as f32 * scale;
                }
            }
            let width = (tile.columns.end - column).min(COLUMN_GROUP);
            let place = &mut output.values[row * output.stride + column..][..width];
            for (index, (place, total)) in place.iter_mut().zip(totals).enumerate() {
                *place = rescale.apply(total, row, column + index);
            }
        }
    }
}

fn add_pair(sums: &mut [i32; COLUMN_GROUP], pair: [i16; 2], weights: [i16; GROUP_BYTES]) {
    for (sum, weights) in sums.iter_mut().zip(weights.as_chunks::<2>().0) {
        *sum += i32::from(pair[0]) * i32::from(weights[0]) + i32::from(pair[1]) * i32::from(weights[1]);
    }
}

/// See [`super::naive::gemm_int8`].
///
/// # Panics
/// If a slice is too short for the tile.
pub fn gemm_int8(
    activations: Activations<'_>,
    weights: Int8Weights<'_>,
    rescale: Rescale<'_>,
    tile: Tile,
    output: Output<'_, f32>,
) {
    let (k, n, inner) = (weights.k, weights.n, padded_inner(weights.k));
    check(&activations, inner, n, &rescale, &tile, &output);
    product((k, n), inner, activations, weights.scales, rescale, tile, output, |values, number, sums| {
        let packed = weights.packed[number * BLOCK * COLUMN_GROUP..].as_chunks::<GROUP_BYTES>().0;
        for (pair, bytes) in values[..BLOCK].as_chunks::<2>().0.iter().zip(packed) {
            add_pair(sums, *pair, bytes.map(i16::from));
        }
    });
}

/// See [`super::naive::gemm_int4`].
///
/// # Panics
/// If a slice is too short for the tile.
pub fn gemm_int4(
    activations: Activations<'_>,
    weights: Int4Weights<'_>,
    rescale: Rescale<'_>,
    tile: Tile,
    output: Output<'_, f32>,
) {
    let (k, n, inner) = (weights.k, weights.n, prepared_inner(weights.k));
    check(&activations, inner, n, &rescale, &tile, &output);
    product((k, n), inner, activations, weights.scales, rescale, tile, output, |values, number, sums| {
        let start = i32::from(values[BLOCK + 1]) << 16 | i32::from(values[BLOCK]) & 0xffff;
        sums.fill(start);
        let packed = weights.packed[number * BLOCK / 2 * COLUMN_GROUP..].as_chunks::<GROUP_BYTES>().0;
        for (four, bytes) in values[..BLOCK].as_chunks::<4>().0.iter().zip(packed) {
            add_pair(sums, [four[0], four[1]], bytes.map(|byte| i16::from(byte & 15)));
            add_pair(sums, [four[2], four[3]], bytes.map(i16::from));
        }
        if let Some(zero_points) = weights.zero_points {
            let zero_points = &zero_points[number * GROUP_BYTES..].as_chunks::<GROUP_BYTES>().0[0];
            add_pair(sums, [values[BLOCK + 2], values[BLOCK + 3]], zero_points.map(i16::from));
        }
    });
    const { assert!(INT4_PREPARED_BLOCK == BLOCK + 4) };
}
