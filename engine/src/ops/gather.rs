//! `Gather`: rows of a value picked by number, such as the vectors of an embedding.

use super::{CALL_INSTRUCTIONS, Call, Op, Operator, Shapes};
use crate::graph::ValueId;
use crate::graph::import::{Lowering, is_number};
use onnx_kernels::copy;
use std::ops::Range;
use tract_onnx::tract_core::ops::array;

/// Inputs: data, of any element type, and int64 indices.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Gather {
    pub axis: usize,
}

/// Rows of a unit.
const ROWS_PER_UNIT: usize = 64;

impl Gather {
    fn kernel(&self, shapes: &Shapes) -> copy::Gather {
        let data = &shapes.inputs[0];
        copy::Gather {
            outer: data[..self.axis].iter().product(),
            length: data[self.axis],
            inner: data[self.axis + 1..].iter().product(),
        }
    }

    fn rows(&self, shapes: &Shapes) -> usize {
        self.kernel(shapes).outer * shapes.inputs[1].iter().product::<usize>()
    }
}

pub(crate) fn lower(lowering: &mut Lowering<'_>, op: &array::Gather) -> Option<ValueId> {
    let &[data, indices] = lowering.inputs.as_slice() else { return None };
    let (data, indices) = (lowering.number(data)?, lowering.int64(indices)?);
    let datum_type = lowering.graph.values[data].datum_type;
    if !is_number(datum_type) || op.output_type.is_some_and(|to| to != datum_type) {
        return None;
    }
    let (dims, name) = (lowering.output_dims(), lowering.node.name.clone());
    let gather = Op::Gather(Gather { axis: op.axis });
    Some(lowering.graph.add_node(&name, gather, vec![data, indices], datum_type, dims))
}

impl Operator for Gather {
    fn name(&self) -> &'static str {
        "Gather"
    }

    fn units(&self, shapes: &Shapes) -> usize {
        self.rows(shapes).div_ceil(ROWS_PER_UNIT).max(1)
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let rows = (units.len() * ROWS_PER_UNIT).min(self.rows(shapes));
        CALL_INSTRUCTIONS + self.kernel(shapes).estimate_instructions(rows, 4)
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        let kernel = self.kernel(call.shapes);
        let rows = self.rows(call.shapes);
        let range = (call.units.start * ROWS_PER_UNIT).min(rows)..(call.units.end * ROWS_PER_UNIT).min(rows);
        let elements = kernel.outer * kernel.length * kernel.inner;
        if rows == 0 || kernel.inner == 0 {
            return Ok(());
        }
        if elements == 0 {
            return Err("it picks from an empty axis".into());
        }
        let size = call.inputs[0].len() / elements;
        let indices: &[i64] = bytemuck::cast_slice(call.inputs[1]);
        let row_bytes = kernel.inner * size;
        let output = &mut call.output[range.start * row_bytes..range.end * row_bytes];
        let (input, cast) = (call.inputs[0], bytemuck::cast_slice::<u8, u32>);
        let result = match size {
            1 => kernel.run::<u8>(input, indices, range, output),
            2 => kernel.run::<u16>(bytemuck::cast_slice(input), indices, range, bytemuck::cast_slice_mut(output)),
            4 => kernel.run::<u32>(cast(input), indices, range, bytemuck::cast_slice_mut(output)),
            _ => kernel.run::<u64>(bytemuck::cast_slice(input), indices, range, bytemuck::cast_slice_mut(output)),
        };
        result.map_err(|error| error.to_string())
    }
}
