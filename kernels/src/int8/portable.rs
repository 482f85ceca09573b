//! Bodies for any target: four columns at a time, in the order of the packed bytes.

use super::{
    Activations, COLUMN_GROUP, INNER_BLOCK, Output, Requantise, Rescale, SEGMENT, Tile, Weights, check, padded_inner,
};
use std::ops::Range;

/// The sums of one row and a group of columns over the blocks `blocks`, without zero points.
fn sums(row: &[i16], weights: &Weights<'_>, blocks: Range<usize>, group: usize) -> [i32; COLUMN_GROUP] {
    let mut sums = [0i32; COLUMN_GROUP];
    for block in blocks {
        let (start, rows) = Weights::block(weights.k(), weights.n(), block, group);
        let pairs = row[block * INNER_BLOCK..][..rows].as_chunks::<2>().0;
        let packed = weights.packed()[start..][..rows * COLUMN_GROUP].as_chunks::<{ 2 * COLUMN_GROUP }>().0;
        for ([first, second], bytes) in pairs.iter().zip(packed) {
            for (sum, byte) in sums.iter_mut().zip(bytes.as_chunks::<2>().0) {
                let products = i32::from(*first) * i32::from(byte[0]) + i32::from(*second) * i32::from(byte[1]);
                *sum = sum.wrapping_add(products);
            }
        }
    }
    sums
}

/// Calls `take` with row, first column and sums of every group of columns, once for each segment of `segment` inner values.
fn for_each_group(
    activations: &Activations<'_>,
    weights: &Weights<'_>,
    tile: &Tile,
    segment: usize,
    mut take: impl FnMut(usize, usize, usize, [i32; COLUMN_GROUP]),
) {
    let k = weights.k();
    for row in tile.rows.clone() {
        let values = &activations.values[row * activations.stride..][..padded_inner(k)];
        for column in tile.columns.clone().step_by(COLUMN_GROUP) {
            for (number, start) in (0..k.max(1)).step_by(segment).enumerate() {
                let end = k.min(start.saturating_add(segment));
                let blocks = start / INNER_BLOCK..end.div_ceil(INNER_BLOCK);
                let mut sums = sums(values, weights, blocks, column / COLUMN_GROUP);
                if let Some(zero_points) = weights.zero_points() {
                    let total = values[start..end].iter().fold(0i32, |sum, value| sum.wrapping_add((*value).into()));
                    for (sum, zero_point) in sums.iter_mut().zip(&zero_points[column..]) {
                        *sum = sum.wrapping_sub(total.wrapping_mul(*zero_point));
                    }
                }
                take(row, column, number, sums);
            }
        }
    }
}

/// See [`super::naive::gemm_f32`].
pub fn gemm_f32(
    activations: Activations<'_>,
    weights: Weights<'_>,
    rescale: Rescale<'_>,
    tile: Tile,
    output: Output<'_, f32>,
) {
    check(&activations, &weights, &tile, &output);
    rescale.check(&weights, &tile);
    let segments = weights.k().div_ceil(SEGMENT).max(1);
    let mut totals = [0f32; COLUMN_GROUP];
    for_each_group(&activations, &weights, &tile, SEGMENT, |row, column, segment, sums| {
        for (total, sum) in totals.iter_mut().zip(sums) {
            *total = if segment == 0 { sum as f32 } else { *total + sum as f32 };
        }
        if segment + 1 == segments {
            let width = (tile.columns.end - column).min(COLUMN_GROUP);
            let place = &mut output.values[row * output.stride + column..][..width];
            for (index, (place, total)) in place.iter_mut().zip(totals).enumerate() {
                *place = rescale.apply(total, row, column + index);
            }
        }
    });
}

/// See [`super::naive::gemm_i32`].
pub fn gemm_i32(activations: Activations<'_>, weights: Weights<'_>, tile: Tile, output: Output<'_, i32>) {
    check(&activations, &weights, &tile, &output);
    for_each_group(&activations, &weights, &tile, usize::MAX, |row, column, _, sums| {
        let width = (tile.columns.end - column).min(COLUMN_GROUP);
        output.values[row * output.stride + column..][..width].copy_from_slice(&sums[..width]);
    });
}

/// See [`super::naive::gemm_requantised`].
pub fn gemm_requantised(
    activations: Activations<'_>,
    weights: Weights<'_>,
    requantise: Requantise<'_>,
    tile: Tile,
    output: Output<'_, i16>,
) {
    check(&activations, &weights, &tile, &output);
    requantise.check_columns(weights.n());
    for_each_group(&activations, &weights, &tile, usize::MAX, |row, column, _, sums| {
        let width = (tile.columns.end - column).min(COLUMN_GROUP);
        let place = &mut output.values[row * output.stride + column..][..width];
        for (index, (place, sum)) in place.iter_mut().zip(sums).enumerate() {
            *place = requantise.apply(sum, column + index);
        }
    });
}
