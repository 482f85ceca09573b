//! `Where`: the one or the other of two values, element by element.

use super::part::{self, PART_INSTRUCTIONS, Part};
use super::{CALL_INSTRUCTIONS, Call, Op, Operator, Shapes};
use crate::graph::ValueId;
use crate::graph::import::Lowering;
use onnx_kernels::copy::Element;
use onnx_kernels::typed::{self, MAX_RANK, View};
use std::ops::Range;
use tract_onnx::prelude::DatumType;

/// Inputs: a condition of bools, what is taken where it holds and what elsewhere, of one element type, all broadcast to
/// the output's shape.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Select {
    pub element_bytes: usize,
}

pub(crate) fn lower(lowering: &mut Lowering<'_>) -> Option<ValueId> {
    let &[condition, yes, no] = lowering.inputs.as_slice() else { return None };
    let (yes, no) = (lowering.number(yes)?, lowering.number(no)?);
    let values = &lowering.graph.values;
    let datum_type = values[yes].datum_type;
    if values[condition].datum_type != DatumType::Bool || values[no].datum_type != datum_type {
        return None;
    }
    let dims = lowering.output_dims();
    if dims.len() > MAX_RANK {
        return None;
    }
    let (name, element_bytes) = (lowering.node.name.clone(), datum_type.size_of());
    let op = Op::Select(Select { element_bytes });
    Some(lowering.graph.add_node(&name, op, vec![condition, yes, no], datum_type, dims))
}

fn select<T: Element + bytemuck::Pod>(call: &mut Call<'_>) -> Result<(), String> {
    let part = Part::new(&call.shapes.output, &call.units);
    fn view<'a, T: Element + bytemuck::Pod>(part: &Part, call: &Call<'a>, input: usize) -> Result<View<'a, T>, String> {
        let (data, dims) = part.operand(bytemuck::cast_slice(call.inputs[input]), &call.shapes.inputs[input]);
        View::broadcast(data, &dims, &part.shape).map_err(|error| error.to_string())
    }
    let (condition, yes, no) = (view::<u8>(&part, call, 0)?, view(&part, call, 1)?, view(&part, call, 2)?);
    let output: &mut [T] = &mut bytemuck::cast_slice_mut(call.output)[part.output()];
    typed::select(&part.shape, condition, yes, no, output);
    Ok(())
}

impl Operator for Select {
    fn name(&self) -> &'static str {
        "Where"
    }

    fn units(&self, shapes: &Shapes) -> usize {
        part::units(&shapes.output)
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let elements: usize = Part::new(&shapes.output, &units).shape.iter().product();
        let columns = shapes.output.last().copied().unwrap_or(1);
        CALL_INSTRUCTIONS + 2 * PART_INSTRUCTIONS + typed::estimate_instructions(elements, columns) / 4
    }

    fn run(&self, mut call: Call<'_>) -> Result<(), String> {
        match self.element_bytes {
            1 => select::<u8>(&mut call),
            2 => select::<u16>(&mut call),
            4 => select::<u32>(&mut call),
            _ => select::<u64>(&mut call),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_or_the_other_is_taken() {
        let shapes = Shapes { inputs: vec![vec![2, 1], vec![3], vec![]], output: vec![2, 3], parameters: Vec::new() };
        let inputs: [&[u8]; 3] = [&[1, 0], bytemuck::bytes_of(&[1.0f32, 2.0, 3.0]), bytemuck::bytes_of(&-1.0f32)];
        let mut output = [0f32; 6];
        let call = Call {
            shapes: &shapes,
            inputs: &inputs,
            output: bytemuck::bytes_of_mut(&mut output),
            scratch: &mut [],
            units: 0..1,
        };
        Select { element_bytes: 4 }.run(call).unwrap();
        assert_eq!(output, [1.0, 2.0, 3.0, -1.0, -1.0, -1.0]);
    }
}
