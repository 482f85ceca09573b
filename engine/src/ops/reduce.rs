//! Reductions over axes: sum, mean, maximum, minimum. The axes stay, with size 1.

use super::{CALL_INSTRUCTIONS, Call, Op, Operator, Shapes};
use crate::graph::ValueId;
use crate::graph::import::Lowering;
use crate::kernel::ReduceKind;
use std::ops::Range;
use tract_onnx::tract_core::ops::nn::{self, Reducer};

/// Input: x.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reduce {
    pub kind: ReduceKind,
    /// In order.
    pub axes: Vec<usize>,
}

pub(crate) fn lower(lowering: &mut Lowering<'_>, op: &nn::Reduce) -> Option<ValueId> {
    let kind = match op.reducer {
        Reducer::Sum => ReduceKind::Sum,
        Reducer::Max => ReduceKind::Max,
        Reducer::Min => ReduceKind::Min,
        _ => return None,
    };
    let mut axes = op.axes.to_vec();
    axes.sort_unstable();
    let (dims, x) = (lowering.output_dims(), lowering.inputs[0]);
    Some(lowering.emit(Op::Reduce(Reduce { kind, axes }), vec![x], dims))
}

impl Reduce {
    /// Sizes before, of and after the reduced axes, when those are adjacent but for axes of size 1.
    fn sizes(&self, shape: &[usize]) -> (usize, usize, usize) {
        let (Some(&first), Some(&last)) = (self.axes.first(), self.axes.last()) else {
            return (shape.iter().product(), 1, 1);
        };
        let product = |axes: Range<usize>| shape[axes].iter().product::<usize>();
        (product(0..first), product(first..last + 1), product(last + 1..shape.len()))
    }

    /// Whether the axes are adjacent, which is what the kernel does in one pass.
    pub fn is_adjacent(&self) -> bool {
        self.axes.windows(2).all(|pair| pair[1] == pair[0] + 1)
    }
}

impl Operator for Reduce {
    fn name(&self) -> &'static str {
        self.kind.name()
    }

    fn units(&self, shapes: &Shapes) -> usize {
        self.sizes(&shapes.inputs[0]).0.max(1)
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let (_, reduced, after) = self.sizes(&shapes.inputs[0]);
        CALL_INSTRUCTIONS + units.len() as u64 * (200 + 4 * (reduced * after) as u64 + 8 * after as u64)
    }

    fn run(&self, mut call: Call<'_>) -> Result<(), String> {
        let (before, reduced, after) = self.sizes(&call.shapes.inputs[0]);
        let input = call.f32(0);
        let units = call.units.start.min(before)..call.units.end.min(before);
        let output = call.output_f32();
        for unit in units {
            let input = &input[unit * reduced * after..(unit + 1) * reduced * after];
            crate::kernel::reduce(self.kind, input, reduced, &mut output[unit * after..(unit + 1) * after]);
        }
        Ok(())
    }
}
