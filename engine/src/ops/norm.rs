//! Layer and RMS normalisation over the last axis.

use super::{CALL_INSTRUCTIONS, Call, Operator, Shapes};
use crate::EngineError;
use crate::graph::weights::Weights;
use crate::graph::{Graph, Node};
use onnx_kernels::norm::{LayerNorm, RmsNorm};
use std::ops::Range;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// Of the deviations from the mean.
    Layer,
    Rms,
}

/// Inputs: x `[.., columns]`; then weights of as many columns if any, then a bias if any, both packed with it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Norm {
    pub kind: Kind,
    pub epsilon: f32,
    pub has_weight: bool,
    pub has_bias: bool,
}

impl Norm {
    pub fn pack(
        &self,
        graph: &Graph,
        node: &Node,
        weights: &mut Weights<'_>,
    ) -> Result<Box<dyn Operator>, EngineError> {
        let mut inputs = node.inputs[1..].iter();
        let mut row = |wanted: bool| match inputs.next() {
            Some(value) if wanted => weights.f32(graph, *value).map(|row| Some(row.to_vec())),
            _ => Ok(None),
        };
        let (weight, bias) = (row(self.has_weight)?, row(self.has_bias)?);
        Ok(Box::new(PackedNorm { norm: self.clone(), weight, bias }))
    }
}

struct PackedNorm {
    norm: Norm,
    weight: Option<Vec<f32>>,
    bias: Option<Vec<f32>>,
}

/// Rows of a unit.
const ROWS_PER_UNIT: usize = 64;

impl PackedNorm {
    fn rows(shapes: &Shapes) -> (usize, usize) {
        let columns = shapes.output.last().copied().unwrap_or(1);
        (shapes.output_elements().checked_div(columns).unwrap_or(0), columns)
    }

    fn layer(&self, columns: usize) -> LayerNorm<'_> {
        let (weight, bias) = (self.weight.as_deref(), self.bias.as_deref());
        LayerNorm { columns, weight, bias, epsilon: self.norm.epsilon }
    }

    fn rms(&self, columns: usize) -> RmsNorm<'_> {
        RmsNorm { columns, weight: self.weight.as_deref(), epsilon: self.norm.epsilon }
    }
}

impl Operator for PackedNorm {
    fn name(&self) -> &'static str {
        match self.norm.kind {
            Kind::Layer => "LayerNormalization",
            Kind::Rms => "RMSNormalization",
        }
    }

    fn units(&self, shapes: &Shapes) -> usize {
        Self::rows(shapes).0.div_ceil(ROWS_PER_UNIT).max(1)
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let (rows, columns) = Self::rows(shapes);
        let rows = (units.len() * ROWS_PER_UNIT).min(rows);
        CALL_INSTRUCTIONS
            + match self.norm.kind {
                Kind::Layer => self.layer(columns).estimate_instructions(rows),
                Kind::Rms => self.rms(columns).estimate_instructions(rows),
            }
    }

    fn weight_bytes(&self) -> usize {
        [&self.weight, &self.bias].into_iter().flatten().map(|row| row.len() * size_of::<f32>()).sum()
    }

    fn run(&self, mut call: Call<'_>) -> Result<(), String> {
        let (rows, columns) = Self::rows(call.shapes);
        let is_row = |row: &Option<Vec<f32>>| row.as_ref().is_none_or(|row| row.len() == columns);
        if !is_row(&self.weight) || !is_row(&self.bias) {
            return Err(format!("its weights are not of {columns} columns"));
        }
        let range = (call.units.start * ROWS_PER_UNIT).min(rows)..(call.units.end * ROWS_PER_UNIT).min(rows);
        let input = call.f32(0);
        let output = &mut call.output_f32()[range.start * columns..range.end * columns];
        match self.norm.kind {
            Kind::Layer => self.layer(columns).run(input, range, output),
            Kind::Rms => self.rms(columns).run(input, range, output),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_normalised_each_alone() {
        let x: Vec<f32> = (0..140 * 6).map(|at| ((at * 37) % 101) as f32 / 50.0 - 1.0).collect();
        let (weight, bias) = (vec![1.0, -2.0, 0.5, 3.0, 1.5, 1.0], vec![0.1, 0.2, 0.3, 0.4, 0.5, 0.6]);
        let shapes = Shapes { inputs: vec![vec![2, 70, 6]], output: vec![2, 70, 6], parameters: Vec::new() };
        for kind in [Kind::Layer, Kind::Rms] {
            let norm = Norm { kind, epsilon: 1e-3, has_weight: true, has_bias: kind == Kind::Layer };
            let bias = norm.has_bias.then(|| bias.clone());
            let op = PackedNorm { norm, weight: Some(weight.clone()), bias: bias.clone() };
            let mut output = vec![0f32; x.len()];
            for unit in 0..op.units(&shapes) {
                let (inputs, output) = ([bytemuck::cast_slice(&x)], bytemuck::cast_slice_mut(&mut output));
                op.run(Call { shapes: &shapes, inputs: &inputs, output, scratch: &mut [], units: unit..unit + 1 })
                    .unwrap();
            }
            for (row, got) in x.chunks(6).zip(output.chunks(6)) {
                let row: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
                let mean = if kind == Kind::Layer { row.iter().sum::<f64>() / 6.0 } else { 0.0 };
                let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 6.0;
                for (column, x) in row.iter().enumerate() {
                    let scaled = (x - mean) / (variance + 1e-3).sqrt() * f64::from(weight[column]);
                    let expected = scaled + bias.as_ref().map_or(0.0, |bias| f64::from(bias[column]));
                    assert!((f64::from(got[column]) - expected).abs() < 1e-5, "{} is not {expected}", got[column]);
                }
            }
        }
    }
}
