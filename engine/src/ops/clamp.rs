//! `Clip`, `Relu` and minima and maxima with a constant.

use super::{CALL_INSTRUCTIONS, Call, Operator, Shapes, element_units, unit_elements};
use onnx_kernels::matrix;
use std::ops::Range;

/// Input: x.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Clamp(pub matrix::Clamp);

/// One clamp that does what `first` and then `second` do.
pub(crate) fn joined(first: matrix::Clamp, second: matrix::Clamp) -> matrix::Clamp {
    matrix::Clamp { low: second.apply(first.low), high: second.apply(first.high) }
}

impl Operator for Clamp {
    fn name(&self) -> &'static str {
        "Clip"
    }

    fn units(&self, shapes: &Shapes) -> usize {
        element_units(shapes.output_elements())
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        CALL_INSTRUCTIONS + 4 * unit_elements(shapes.output_elements(), &units).len() as u64
    }

    fn run(&self, mut call: Call<'_>) {
        let range = unit_elements(call.shapes.output_elements(), &call.units);
        let input = &call.f32(0)[range.clone()];
        crate::kernel::clamp(input, self.0, &mut call.output_f32()[range]);
    }
}
