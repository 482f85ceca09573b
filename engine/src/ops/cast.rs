//! `Cast` between number types.

use super::{CALL_INSTRUCTIONS, Call, Op, Operator, Shapes, element_units, unit_elements};
use crate::graph::ValueId;
use crate::graph::import::Lowering;
use onnx_kernels::cast::{Type, cast_bytes};
use std::ops::Range;
use tract_onnx::prelude::DatumType;

/// Input: x of element type `from`. Output: of element type `to`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cast {
    pub from: Type,
    pub to: Type,
}

fn kernel_type(datum_type: DatumType) -> Option<Type> {
    Some(match datum_type {
        DatumType::Bool => Type::Bool,
        DatumType::U8 => Type::U8,
        DatumType::I8 => Type::I8,
        DatumType::U16 => Type::U16,
        DatumType::I16 => Type::I16,
        DatumType::U32 => Type::U32,
        DatumType::I32 => Type::I32,
        DatumType::U64 => Type::U64,
        DatumType::I64 => Type::I64,
        DatumType::F32 => Type::F32,
        DatumType::F64 => Type::F64,
        _ => return None,
    })
}

/// The node's input as elements of `to`: the value itself where it is of that type.
pub(crate) fn lower(lowering: &mut Lowering<'_>, to: DatumType) -> Option<ValueId> {
    let to = match to {
        DatumType::F16 => DatumType::F32,
        // Numbers that are sizes are int64 here.
        DatumType::TDim => DatumType::I64,
        to => to,
    };
    let x = lowering.number(lowering.inputs[0])?;
    let is = lowering.graph.values[x].datum_type;
    if is == to {
        return Some(x);
    }
    let op = Op::Cast(Cast { from: kernel_type(is)?, to: kernel_type(to)? });
    let (name, dims) = (lowering.node.name.clone(), lowering.graph.values[x].dims.clone());
    Some(lowering.graph.add_node(&name, op, vec![x], to, dims))
}

impl Operator for Cast {
    fn name(&self) -> &'static str {
        "Cast"
    }

    fn units(&self, shapes: &Shapes) -> usize {
        element_units(shapes.output_elements())
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let elements = unit_elements(shapes.output_elements(), &units).len();
        CALL_INSTRUCTIONS + self.from.estimate_instructions(self.to, elements)
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        let range = unit_elements(call.shapes.output_elements(), &call.units);
        let bytes = |size: usize| range.start * size..range.end * size;
        let input = &call.inputs[0][bytes(self.from.size_bytes())];
        cast_bytes(self.from, self.to, input, &mut call.output[bytes(self.to.size_bytes())]);
        Ok(())
    }
}
