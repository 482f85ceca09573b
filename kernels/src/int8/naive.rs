//! The reference: each output by itself, from the definition.

use super::{Activations, Output, Requantise, Rescale, SEGMENT, Tile, Weights, check};
use std::ops::Range;

fn sum(activations: &Activations<'_>, weights: &Weights<'_>, inner: Range<usize>, row: usize, column: usize) -> i32 {
    let zero_point = weights.zero_points().map_or(0, |zero_points| zero_points[column]);
    inner.fold(0i32, |sum, index| {
        let activation = i32::from(activations.values[row * activations.stride + index]);
        let weight = i32::from(weights.at(index, column)).wrapping_sub(zero_point);
        sum.wrapping_add(activation.wrapping_mul(weight))
    })
}

/// Sums rescaled to f32, see [`Rescale`].
///
/// # Panics
/// If a slice is too short for the tile.
pub fn gemm_f32(
    activations: Activations<'_>,
    weights: Weights<'_>,
    rescale: Rescale<'_>,
    tile: Tile,
    output: Output<'_, f32>,
) {
    check(&activations, &weights, &tile, &output);
    rescale.check(&weights, &tile);
    for row in tile.rows {
        for column in tile.columns.clone() {
            let mut segments = (0..weights.k().max(1)).step_by(SEGMENT).map(|start| {
                let end = weights.k().min(start + SEGMENT);
                sum(&activations, &weights, start..end, row, column) as f32
            });
            let first = segments.next().unwrap_or(0.0);
            let total = segments.fold(first, |total, segment| total + segment);
            output.values[row * output.stride + column] = rescale.apply(total, row, column);
        }
    }
}

/// The sums themselves.
///
/// # Panics
/// If a slice is too short for the tile.
pub fn gemm_i32(activations: Activations<'_>, weights: Weights<'_>, tile: Tile, output: Output<'_, i32>) {
    check(&activations, &weights, &tile, &output);
    for row in tile.rows {
        for column in tile.columns.clone() {
            let sum = sum(&activations, &weights, 0..weights.k(), row, column);
            output.values[row * output.stride + column] = sum;
        }
    }
}

/// Sums brought back to an 8-bit grid, see [`Requantise`].
///
/// # Panics
/// If a slice is too short for the tile.
pub fn gemm_requantised(
    activations: Activations<'_>,
    weights: Weights<'_>,
    requantise: Requantise<'_>,
    tile: Tile,
    output: Output<'_, i16>,
) {
    check(&activations, &weights, &tile, &output);
    requantise.check_columns(weights.n());
    for row in tile.rows {
        for column in tile.columns.clone() {
            let sum = sum(&activations, &weights, 0..weights.k(), row, column);
            output.values[row * output.stride + column] = requantise.apply(sum, column);
        }
    }
}
