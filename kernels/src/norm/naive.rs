//! The reference: row by row, element by element.

use super::{GroupNorm, LayerNorm, RmsNorm};
use crate::reduce::naive::sum;

/// Mean and scale of a row.
fn moments(row: &[f32], epsilon: f32) -> (f32, f32) {
    let count = row.len() as f32;
    let mean = sum(row.iter().copied()) / count;
    let variance = sum(row.iter().map(|x| (x - mean) * (x - mean))) / count;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

/// All rows.
pub fn layer(norm: &LayerNorm, input: &[f32], output: &mut [f32]) {
    if norm.columns == 0 {
        return;
    }
    for (row, output) in input.chunks_exact(norm.columns).zip(output.chunks_exact_mut(norm.columns)) {
        let (mean, scale) = moments(row, norm.epsilon);
        for (column, place) in output.iter_mut().enumerate() {
            let mut value = (row[column] - mean) * scale;
            if let Some(weight) = norm.weight {
                value *= weight[column];
            }
            if let Some(bias) = norm.bias {
                value += bias[column];
            }
            *place = value;
        }
    }
}

/// All rows.
pub fn rms(norm: &RmsNorm, input: &[f32], output: &mut [f32]) {
    if norm.columns == 0 {
        return;
    }
    for (row, output) in input.chunks_exact(norm.columns).zip(output.chunks_exact_mut(norm.columns)) {
        let scale = 1.0 / (sum(row.iter().map(|x| x * x)) / row.len() as f32 + norm.epsilon).sqrt();
        for (column, place) in output.iter_mut().enumerate() {
            let value = row[column] * scale;
            *place = norm.weight.map_or(value, |weight| value * weight[column]);
        }
    }
}

/// All groups of all images.
pub fn group(norm: &GroupNorm, input: &[f32], output: &mut [f32]) {
    let elements = norm.elements();
    if elements == 0 {
        return;
    }
    for (group, (input, output)) in input.chunks_exact(elements).zip(output.chunks_exact_mut(elements)).enumerate() {
        let (mean, scale) = moments(input, norm.epsilon);
        let first = group % norm.groups * (norm.channels / norm.groups);
        for (index, place) in output.iter_mut().enumerate() {
            let channel = first + index / norm.pixels;
            *place = ((input[index] - mean) * scale) * norm.weight[channel] + norm.bias[channel];
        }
    }
}
