//! Functions of one value, element by element.

use super::{CALL_INSTRUCTIONS, Call, Op, Operator, Shapes, element_units, unit_elements};
use crate::graph::ValueId;
use crate::graph::import::Lowering;
use crate::kernel::UnaryKind;
use std::ops::Range;
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;

/// Input: x.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Unary {
    pub kind: UnaryKind,
}

pub(crate) fn lower(lowering: &mut Lowering<'_>, op: &ElementWiseOp) -> Option<ValueId> {
    if op.1.is_some() {
        return None;
    }
    let kind = UnaryKind::of(&op.0.name())?;
    let (dims, x) = (lowering.output_dims(), lowering.inputs[0]);
    Some(lowering.emit(Op::Unary(Unary { kind }), vec![x], dims))
}

impl Unary {
    pub fn name(&self) -> &'static str {
        self.kind.name()
    }
}

impl Operator for Unary {
    fn name(&self) -> &'static str {
        self.kind.name()
    }

    fn units(&self, shapes: &Shapes) -> usize {
        element_units(shapes.output_elements())
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let elements = unit_elements(shapes.output_elements(), &units).len() as u64;
        CALL_INSTRUCTIONS + elements * self.kind.instructions_per_element()
    }

    fn run(&self, mut call: Call<'_>) {
        let range = unit_elements(call.shapes.output_elements(), &call.units);
        let input = &call.f32(0)[range.clone()];
        crate::kernel::unary(self.kind, input, &mut call.output_f32()[range]);
    }
}
