//! Operators along one axis of integers or floats whose kernel is a plain loop: `CumSum`, and reductions of integers.

use super::{CALL_INSTRUCTIONS, Call, Op, Operator, Shapes};
use crate::graph::ValueId;
use crate::graph::import::Lowering;
use onnx_kernels::reduce::{self, Axes, Extreme};
use std::ops::Range;
use tract_onnx::prelude::DatumType;
use tract_onnx::tract_core::ops::array;
use tract_onnx::tract_core::ops::nn::{self, Reducer};

/// `CumSum`. Input: x. Output: `[.., i, ..]` is the sum of `[..=i]` along the axis, added in order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CumSum {
    pub axis: usize,
    pub exclusive: bool,
    pub reverse: bool,
    pub datum_type: DatumType,
}

/// A reduction of integers, or where the extreme of floats is. The axes, none between two of them, stay with size 1.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fold {
    pub kind: FoldKind,
    pub axes: Vec<usize>,
    pub datum_type: DatumType,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum FoldKind {
    Sum,
    Product,
    Max,
    Min,
    /// int64 indices, of equal elements the last or the first.
    ArgMax(bool),
    ArgMin(bool),
}

pub(crate) fn lower_cumsum(lowering: &mut Lowering<'_>, op: &array::CumSum) -> Option<ValueId> {
    let x = lowering.number(lowering.inputs[0])?;
    let datum_type = lowering.graph.values[x].datum_type;
    if !matches!(datum_type, DatumType::F32 | DatumType::I64 | DatumType::I32) {
        return None;
    }
    let (name, dims) = (lowering.node.name.clone(), lowering.output_dims());
    let op = CumSum { axis: op.axis, exclusive: op.exclusive, reverse: op.reverse, datum_type };
    Some(lowering.graph.add_node(&name, Op::CumSum(op), vec![x], datum_type, dims))
}

pub(crate) fn lower_fold(lowering: &mut Lowering<'_>, op: &nn::Reduce) -> Option<ValueId> {
    let x = lowering.number(lowering.inputs[0])?;
    let datum_type = lowering.graph.values[x].datum_type;
    let kind = match op.reducer {
        Reducer::Sum => FoldKind::Sum,
        Reducer::Prod => FoldKind::Product,
        Reducer::Max => FoldKind::Max,
        Reducer::Min => FoldKind::Min,
        Reducer::ArgMax(last) => FoldKind::ArgMax(last),
        Reducer::ArgMin(last) => FoldKind::ArgMin(last),
        _ => return None,
    };
    let is_index = matches!(kind, FoldKind::ArgMax(_) | FoldKind::ArgMin(_));
    let is_done =
        if is_index { datum_type == DatumType::F32 } else { matches!(datum_type, DatumType::I64 | DatumType::I32) };
    let mut axes = op.axes.to_vec();
    axes.sort_unstable();
    if !is_done || axes.is_empty() || axes.windows(2).any(|pair| pair[1] != pair[0] + 1) {
        return None;
    }
    let (name, dims) = (lowering.node.name.clone(), lowering.output_dims());
    let output = if is_index { DatumType::I64 } else { datum_type };
    Some(lowering.graph.add_node(&name, Op::Fold(Fold { kind, axes, datum_type }), vec![x], output, dims))
}

/// Sizes before, of and after these axes.
fn around(shape: &[usize], first: usize, last: usize) -> Axes {
    let product = |axes: Range<usize>| shape[axes].iter().product::<usize>();
    Axes { outer: product(0..first), reduced: product(first..last + 1), inner: product(last + 1..shape.len()) }
}

impl Operator for CumSum {
    fn name(&self) -> &'static str {
        "CumSum"
    }

    fn instructions(&self, shapes: &Shapes, _units: Range<usize>) -> u64 {
        CALL_INSTRUCTIONS + 30 * shapes.output_elements() as u64
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        fn sums<T: bytemuck::Pod>(op: &CumSum, call: Call<'_>, add: impl Fn(T, T) -> T) {
            let Axes { outer, reduced, inner } = around(&call.shapes.output, op.axis, op.axis);
            let input: &[T] = bytemuck::cast_slice(call.inputs[0]);
            let output: &mut [T] = bytemuck::cast_slice_mut(call.output);
            for row in 0..outer * inner {
                let start = row / inner * reduced * inner + row % inner;
                let mut sum = T::zeroed();
                for step in 0..reduced {
                    let index = if op.reverse { reduced - 1 - step } else { step };
                    let at = start + index * inner;
                    let next = add(sum, input[at]);
                    output[at] = if op.exclusive { sum } else { next };
                    sum = next;
                }
            }
        }
        match self.datum_type {
            DatumType::I64 => sums::<i64>(self, call, i64::wrapping_add),
            DatumType::I32 => sums::<i32>(self, call, i32::wrapping_add),
            _ => sums::<f32>(self, call, |a, b| a + b),
        }
        Ok(())
    }
}

impl Operator for Fold {
    fn name(&self) -> &'static str {
        match self.kind {
            FoldKind::Sum => "ReduceSum",
            FoldKind::Product => "ReduceProd",
            FoldKind::Max => "ReduceMax",
            FoldKind::Min => "ReduceMin",
            FoldKind::ArgMax(_) => "ArgMax",
            FoldKind::ArgMin(_) => "ArgMin",
        }
    }

    fn instructions(&self, shapes: &Shapes, _units: Range<usize>) -> u64 {
        let axes = around(&shapes.inputs[0], self.axes[0], self.axes[self.axes.len() - 1]);
        let elements = (axes.results() * axes.reduced) as u64;
        CALL_INSTRUCTIONS + 40 * axes.results() as u64 + 30 * elements
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        fn fold<T: bytemuck::Pod>(axes: Axes, call: Call<'_>, first: T, join: impl Fn(T, T) -> T) {
            let input: &[T] = bytemuck::cast_slice(call.inputs[0]);
            let output: &mut [T] = bytemuck::cast_slice_mut(call.output);
            for (result, place) in output.iter_mut().enumerate() {
                let start = result / axes.inner * axes.reduced * axes.inner + result % axes.inner;
                *place = (0..axes.reduced).fold(first, |so_far, index| join(so_far, input[start + index * axes.inner]));
            }
        }
        let axes = around(&call.shapes.inputs[0], self.axes[0], self.axes[self.axes.len() - 1]);
        macro_rules! of {
            ($type:ty) => {
                match self.kind {
                    FoldKind::Sum => fold::<$type>(axes, call, 0, <$type>::wrapping_add),
                    FoldKind::Product => fold::<$type>(axes, call, 1, <$type>::wrapping_mul),
                    FoldKind::Max => fold::<$type>(axes, call, <$type>::MIN, Ord::max),
                    _ => fold::<$type>(axes, call, <$type>::MAX, Ord::min),
                }
            };
        }
        let (kind, last) = match self.kind {
            FoldKind::ArgMax(last) => (Extreme::Max, last),
            FoldKind::ArgMin(last) => (Extreme::Min, last),
            _ => {
                if self.datum_type == DatumType::I64 {
                    of!(i64)
                } else {
                    of!(i32)
                }
                return Ok(());
            }
        };
        let output: &mut [i64] = bytemuck::cast_slice_mut(call.output);
        if axes.reduced == 0 && !output.is_empty() {
            return Err("it looks for the extreme of no elements".into());
        }
        let results = output.len();
        reduce::arg(kind, bytemuck::cast_slice(call.inputs[0]), axes, last, 0..results, output);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(op: &dyn Operator, input: &[u8], shape: &[usize], output: &[usize], bytes: usize) -> Vec<u8> {
        let shapes = Shapes { inputs: vec![shape.to_vec()], output: output.to_vec(), parameters: Vec::new() };
        let mut result = vec![0; bytes];
        op.run(Call { shapes: &shapes, inputs: &[input], output: &mut result, scratch: &mut [], units: 0..1 }).unwrap();
        result
    }

    #[test]
    fn sums_run_along_their_axis_both_ways() {
        let x = [1i64, 2, 3, 4, 5, 6];
        let sums = |exclusive, reverse| {
            let op = CumSum { axis: 1, exclusive, reverse, datum_type: DatumType::I64 };
            bytemuck::cast_slice::<u8, i64>(&run(&op, bytemuck::bytes_of(&x), &[2, 3], &[2, 3], 48)).to_vec()
        };
        assert_eq!(sums(false, false), [1, 3, 6, 4, 9, 15]);
        assert_eq!(sums(true, false), [0, 1, 3, 0, 4, 9]);
        assert_eq!(sums(false, true), [6, 5, 3, 15, 11, 6]);
        assert_eq!(sums(true, true), [5, 3, 0, 11, 6, 0]);
    }

    #[test]
    fn integers_are_reduced_and_extremes_found() {
        let x = [1i32, 7, 3, 7, -5, 6];
        let fold = |kind| Fold { kind, axes: vec![0], datum_type: DatumType::I32 };
        let max = run(&fold(FoldKind::Max), bytemuck::bytes_of(&x), &[2, 3], &[1, 3], 12);
        assert_eq!(bytemuck::cast_slice::<u8, i32>(&max), [7, 7, 6]);
        let floats = [1f32, 7.0, 3.0, 7.0];
        let arg = |last| Fold { kind: FoldKind::ArgMax(last), axes: vec![0], datum_type: DatumType::F32 };
        let found = |last| run(&arg(last), bytemuck::bytes_of(&floats), &[4], &[1], 8);
        assert_eq!((found(false), found(true)), (1i64.to_le_bytes().to_vec(), 3i64.to_le_bytes().to_vec()));
    }
}
