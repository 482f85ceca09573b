//! The reference: row by row, element by element.

use super::Softmax;
use crate::math::{at_least, exp_of_difference, log};
use crate::reduce::naive::{lanes, sum};

/// All rows.
pub fn run(softmax: &Softmax, input: &[f32], output: &mut [f32]) {
    if softmax.columns == 0 {
        return;
    }
    let rows = input.chunks_exact(softmax.columns).zip(output.chunks_exact_mut(softmax.columns));
    for (row, (input, output)) in rows.enumerate() {
        let visible = softmax.visible(row);
        let scaled: Vec<f32> = (0..visible)
            .map(|column| {
                let scaled = input[column] * softmax.scale;
                softmax.mask(row).map_or(scaled, |mask| scaled + mask[column])
            })
            .collect();
        let maximum = lanes(scaled.iter().copied(), f32::NEG_INFINITY, at_least);
        let sum = sum(scaled.iter().map(|z| exp_of_difference(z - maximum)));
        for (column, place) in output.iter_mut().enumerate() {
            *place = match (column < visible, softmax.log) {
                (true, false) => exp_of_difference(scaled[column] - maximum) * (1.0 / sum),
                (true, true) => (scaled[column] - maximum) - log(sum),
                (false, false) => 0.0,
                (false, true) => f32::NEG_INFINITY,
            };
        }
    }
}
