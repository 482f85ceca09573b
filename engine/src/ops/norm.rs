//! `LayerNormalization` and `RMSNormalization` over the last axis.

use super::{CALL_INSTRUCTIONS, Call, Operator, Shapes};
use crate::EngineError;
use crate::graph::weights::Weights;
use crate::graph::{Graph, Node};
use onnx_kernels::norm::{LayerNorm, RmsNorm};
use std::ops::Range;

/// Inputs: x; then the weight if any, then the bias if any, one number for each column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Norm {
    /// Whether the mean is taken away first: a layer normalisation, else an RMS normalisation.
    pub is_centred: bool,
    pub has_weight: bool,
    pub has_bias: bool,
    pub epsilon: f32,
}

/// Rows of a unit.
const ROWS_PER_UNIT: usize = 64;

impl Norm {
    pub fn pack(
        &self,
        graph: &Graph,
        node: &Node,
        weights: &mut Weights<'_>,
    ) -> Result<Box<dyn Operator>, EngineError> {
        let mut values = node.inputs[1..].iter().map(|input| weights.f32(graph, *input).map(|values| values.to_vec()));
        let mut next = |wanted: bool| if wanted { values.next().transpose() } else { Ok(None) };
        let (weight, bias) = (next(self.has_weight)?, next(self.has_bias)?);
        Ok(Box::new(PackedNorm { norm: self.clone(), weight, bias }))
    }
}

struct PackedNorm {
    norm: Norm,
    weight: Option<Vec<f32>>,
    bias: Option<Vec<f32>>,
}

enum Kernel<'a> {
    Layer(LayerNorm<'a>),
    Rms(RmsNorm<'a>),
}

impl PackedNorm {
    fn kernel(&self, shapes: &Shapes) -> (usize, Kernel<'_>) {
        let columns = shapes.output.last().copied().unwrap_or(1);
        let rows = shapes.output_elements().checked_div(columns).unwrap_or(0);
        let (weight, bias, epsilon) = (self.weight.as_deref(), self.bias.as_deref(), self.norm.epsilon);
        let kernel = match self.norm.is_centred {
            true => Kernel::Layer(LayerNorm { columns, weight, bias, epsilon }),
            false => Kernel::Rms(RmsNorm { columns, weight, epsilon }),
        };
        (rows, kernel)
    }
}

impl Operator for PackedNorm {
    fn name(&self) -> &'static str {
        if self.norm.is_centred { "LayerNormalization" } else { "RMSNormalization" }
    }

    fn units(&self, shapes: &Shapes) -> usize {
        self.kernel(shapes).0.div_ceil(ROWS_PER_UNIT).max(1)
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let (rows, kernel) = self.kernel(shapes);
        let rows = (units.len() * ROWS_PER_UNIT).min(rows);
        CALL_INSTRUCTIONS
            + match kernel {
                Kernel::Layer(norm) => norm.estimate_instructions(rows),
                Kernel::Rms(norm) => norm.estimate_instructions(rows),
            }
    }

    fn weight_bytes(&self) -> usize {
        4 * (self.weight.as_ref().map_or(0, Vec::len) + self.bias.as_ref().map_or(0, Vec::len))
    }

    fn run(&self, mut call: Call<'_>) -> Result<(), String> {
        let (rows, kernel) = self.kernel(call.shapes);
        let columns = call.shapes.output.last().copied().unwrap_or(1);
        let range = (call.units.start * ROWS_PER_UNIT).min(rows)..(call.units.end * ROWS_PER_UNIT).min(rows);
        let input = call.f32(0);
        let output = &mut call.output_f32()[range.start * columns..range.end * columns];
        match kernel {
            Kernel::Layer(norm) => norm.run(input, range, output),
            Kernel::Rms(norm) => norm.run(input, range, output),
        }
        Ok(())
    }
}
