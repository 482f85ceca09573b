//! `Transpose`: the axes in another order.

use super::{CALL_INSTRUCTIONS, Call, Operator, Shapes};
use std::ops::Range;

/// Input: x, of any element type. Axis `i` of the output is axis `permutation[i]` of the input.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Transpose {
    pub permutation: Vec<usize>,
}

impl Transpose {
    /// Whether the elements stay in their order: only axes of size 1 move.
    pub fn keeps_order(&self, is_one: impl Fn(usize) -> bool) -> bool {
        let moving: Vec<usize> = self.permutation.iter().copied().filter(|axis| !is_one(*axis)).collect();
        moving.is_sorted()
    }
}

impl Operator for Transpose {
    fn name(&self) -> &'static str {
        "Transpose"
    }

    fn instructions(&self, shapes: &Shapes, _units: Range<usize>) -> u64 {
        CALL_INSTRUCTIONS + 12 * shapes.output_elements() as u64
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        let elements = call.shapes.output_elements();
        if elements == 0 {
            return Ok(());
        }
        let element_bytes = call.output.len() / elements;
        crate::kernel::transpose(call.inputs[0], &call.shapes.inputs[0], &self.permutation, element_bytes, call.output);
        Ok(())
    }
}
