//! `DynamicQuantizeLinear`, as three operators: the scale and the zero point that a tensor's least and largest value give,
//! and the tensor on that grid.

use super::{CALL_INSTRUCTIONS, Call, Op, Operator, Shapes, element_units, unit_elements};
use crate::graph::ValueId;
use crate::graph::import::Lowering;
use onnx_kernels::quantise::{self, Conversion, Grid};
use std::ops::Range;
use tract_onnx::prelude::DatumType;

/// Input: x, float32. Output: one float32, or one uint8.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum DynamicParameter {
    Scale,
    ZeroPoint,
}

/// Inputs: x, float32, its scale and zero point. Output: uint8.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DynamicQuantize;

/// The quantised tensor, its scale and its zero point.
pub(crate) fn lower(lowering: &mut Lowering<'_>) -> Option<Vec<ValueId>> {
    let name = lowering.node.name.clone();
    let &[x] = lowering.inputs.as_slice() else { return None };
    if lowering.graph.values[x].datum_type != DatumType::F32 || lowering.node.outputs.len() != 3 {
        return None;
    }
    let dims = lowering.output_dims();
    let graph = &mut lowering.graph;
    let scale_op = Op::DynamicParameter(DynamicParameter::Scale);
    let scale = graph.add_node(&name, scale_op, vec![x], DatumType::F32, vec![]);
    let zero_point_op = Op::DynamicParameter(DynamicParameter::ZeroPoint);
    let zero_point = graph.add_node(&name, zero_point_op, vec![x], DatumType::U8, vec![]);
    let inputs = vec![x, scale, zero_point];
    let quantized = graph.add_node(&name, Op::DynamicQuantize(DynamicQuantize), inputs, DatumType::U8, dims);
    Some(vec![quantized, scale, zero_point])
}

impl Operator for DynamicParameter {
    fn name(&self) -> &'static str {
        "DynamicQuantizeLinear (grid)"
    }

    fn instructions(&self, shapes: &Shapes, _units: Range<usize>) -> u64 {
        let length = shapes.inputs[0].iter().product();
        CALL_INSTRUCTIONS + quantise::estimate_instructions(Conversion::DynamicParameters, length)
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        let (scale, zero_point) = quantise::dynamic_parameters(call.f32(0));
        match self {
            DynamicParameter::Scale => call.output.copy_from_slice(&scale.to_le_bytes()),
            DynamicParameter::ZeroPoint => call.output.copy_from_slice(&[zero_point]),
        }
        Ok(())
    }
}

impl Operator for DynamicQuantize {
    fn name(&self) -> &'static str {
        "DynamicQuantizeLinear"
    }

    fn units(&self, shapes: &Shapes) -> usize {
        element_units(shapes.output_elements())
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let length = unit_elements(shapes.output_elements(), &units).len();
        CALL_INSTRUCTIONS + quantise::estimate_instructions(Conversion::Quantize, length)
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        let range = unit_elements(call.shapes.output_elements(), &call.units);
        let (scale, zero_point) = (call.f32(1), call.inputs[2]);
        let (Some(scale), Some(zero_point)) = (scale.first(), zero_point.first()) else {
            return Err("it has no scale or no zero point".into());
        };
        if range.is_empty() {
            return Ok(());
        }
        let (scales, zero_points) = ([*scale], [i32::from(*zero_point)]);
        let grid = Grid { scales: &scales, zero_points: &zero_points, inner: 1 };
        quantise::quantize_linear(&call.f32(0)[range.clone()], grid, &mut call.output[range]);
        Ok(())
    }
}
