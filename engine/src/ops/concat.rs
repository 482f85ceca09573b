//! `Concat`: inputs side by side along an axis.

use super::{CALL_INSTRUCTIONS, Call, Op, Operator, Shapes};
use crate::graph::ValueId;
use crate::graph::import::{Lowering, is_number};
use std::ops::Range;
use tract_onnx::tract_core::ops::array::TypedConcat;

/// Inputs: any number, of one element type and equal but for the axis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Concat {
    pub axis: usize,
}

pub(crate) fn lower(lowering: &mut Lowering<'_>, op: &TypedConcat) -> Option<ValueId> {
    // Small constants of symbolic numbers are int64 here.
    let inputs: Option<Vec<ValueId>> =
        lowering.inputs.clone().into_iter().map(|input| lowering.number(input)).collect();
    let inputs = inputs?;
    let datum_type = lowering.graph.values[inputs[0]].datum_type;
    let same = |input: &ValueId| lowering.graph.values[*input].datum_type == datum_type;
    if !is_number(datum_type) || !inputs.iter().all(same) {
        return None;
    }
    let dims = lowering.output_dims();
    let name = &lowering.node.name;
    Some(lowering.graph.add_node(name, Op::Concat(Concat { axis: op.axis }), inputs, datum_type, dims))
}

impl Operator for Concat {
    fn name(&self) -> &'static str {
        "Concat"
    }

    fn instructions(&self, shapes: &Shapes, _units: Range<usize>) -> u64 {
        let outer: usize = shapes.output[..self.axis].iter().product();
        CALL_INSTRUCTIONS + (outer * shapes.inputs.len()) as u64 * 140 + 8 * shapes.output_elements() as u64
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        let outer: usize = call.shapes.output[..self.axis].iter().product();
        if outer == 0 {
            return Ok(());
        }
        let row_bytes = call.output.len() / outer;
        let mut start = 0;
        for input in call.inputs {
            let bytes = input.len() / outer;
            for row in 0..outer {
                let at = row * row_bytes + start;
                call.output[at..at + bytes].copy_from_slice(&input[row * bytes..(row + 1) * bytes]);
            }
            start += bytes;
        }
        Ok(())
    }
}
