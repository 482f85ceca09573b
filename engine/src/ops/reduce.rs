//! Reductions over axes: `ReduceSum`, `ReduceMean`, `ReduceMax` and the like. The axes stay, with size 1.

use super::{CALL_INSTRUCTIONS, Call, ELEMENTS_PER_UNIT, Op, Operator, Shapes};
use crate::graph::ValueId;
use crate::graph::import::Lowering;
use onnx_kernels::reduce::{self, Axes};
use std::ops::Range;
use tract_onnx::tract_core::ops::nn::{self, Reducer};

/// Input: x.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reduce {
    pub kind: reduce::Reduce,
    /// In order, none between two of them.
    pub axes: Vec<usize>,
}

pub(crate) fn lower(lowering: &mut Lowering<'_>, op: &nn::Reduce) -> Option<ValueId> {
    let kind = match op.reducer {
        Reducer::Sum => reduce::Reduce::Sum,
        Reducer::Max => reduce::Reduce::Max,
        Reducer::Min => reduce::Reduce::Min,
        Reducer::Prod => reduce::Reduce::Product,
        Reducer::MeanOfSquares => reduce::Reduce::MeanOfSquares,
        _ => return None,
    };
    let mut axes = op.axes.to_vec();
    axes.sort_unstable();
    let (dims, x) = (lowering.output_dims(), lowering.inputs[0]);
    if axes.is_empty() || axes.windows(2).any(|pair| pair[1] != pair[0] + 1) {
        return None;
    }
    Some(lowering.emit(Op::Reduce(Reduce { kind, axes }), vec![x], dims))
}

impl Reduce {
    pub fn name(&self) -> &'static str {
        match self.kind {
            reduce::Reduce::Sum => "ReduceSum",
            reduce::Reduce::Mean => "ReduceMean",
            reduce::Reduce::SumOfSquares => "ReduceSumSquare",
            reduce::Reduce::MeanOfSquares => "ReduceMeanSquare",
            reduce::Reduce::SumOfMagnitudes => "ReduceL1",
            reduce::Reduce::Product => "ReduceProd",
            reduce::Reduce::Max => "ReduceMax",
            reduce::Reduce::Min => "ReduceMin",
        }
    }

    /// Sizes before, of and after the reduced axes.
    fn sizes(&self, shapes: &Shapes) -> Axes {
        let shape = &shapes.inputs[0];
        let (first, last) = (self.axes[0], self.axes[self.axes.len() - 1]);
        let product = |axes: Range<usize>| shape[axes].iter().product::<usize>();
        Axes { outer: product(0..first), reduced: product(first..last + 1), inner: product(last + 1..shape.len()) }
    }

    /// Results of a unit: a whole number of vectors.
    fn results_per_unit(axes: Axes) -> usize {
        (ELEMENTS_PER_UNIT / axes.reduced.max(1)).max(1).next_multiple_of(16)
    }
}

impl Operator for Reduce {
    fn name(&self) -> &'static str {
        Reduce::name(self)
    }

    fn units(&self, shapes: &Shapes) -> usize {
        let axes = self.sizes(shapes);
        axes.results().div_ceil(Self::results_per_unit(axes)).max(1)
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let axes = self.sizes(shapes);
        let results = (units.len() * Self::results_per_unit(axes)).min(axes.results());
        CALL_INSTRUCTIONS + reduce::estimate_instructions(self.kind, axes, results)
    }

    fn run(&self, mut call: Call<'_>) -> Result<(), String> {
        let axes = self.sizes(call.shapes);
        let (per_unit, results) = (Self::results_per_unit(axes), axes.results());
        let range = (call.units.start * per_unit).min(results)..(call.units.end * per_unit).min(results);
        let input = call.f32(0);
        reduce::reduce(self.kind, input, axes, range.clone(), &mut call.output_f32()[range]);
        Ok(())
    }
}
