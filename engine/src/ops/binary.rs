//! Operators on two values with broadcasting: `Add`, `Sub`, `Mul`, `Div`, `Max`, `Min`, `Pow`.

use super::{CALL_INSTRUCTIONS, Call, Op, Operator, Shapes, clamp::Clamp};
use crate::graph::ValueId;
use crate::graph::import::Lowering;
use crate::kernel::BinaryKind;
use onnx_kernels::matrix;
use std::ops::Range;
use tract_onnx::prelude::DatumType;
use tract_onnx::tract_core::ops::binary::TypedBinOp;

/// Inputs: a and b, of equal rank; where one's dimension is 1 it stands for all of the other's.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Binary {
    pub kind: BinaryKind,
}

pub(crate) fn lower(lowering: &mut Lowering<'_>, op: &TypedBinOp) -> Option<ValueId> {
    let &[a, b] = lowering.inputs.as_slice() else { return None };
    if op.1.is_some_and(|to| !matches!(to, DatumType::F32 | DatumType::F16)) {
        return None;
    }
    let dims = lowering.output_dims();
    let scalar = |value: ValueId| lowering.graph.scalar(value);
    // A minimum or maximum with one number is a clamp. Not with a NaN, which would be the result.
    let clamp = |bound: fn(f32) -> matrix::Clamp| {
        let of = |value, other| scalar(value).filter(|number: &f32| !number.is_nan()).map(|number| (other, bound(number)));
        of(b, a).or_else(|| of(a, b)).filter(|(other, _)| lowering.graph.values[*other].dims == dims)
    };
    let kind = match op.0.name() {
        "Add" => BinaryKind::Add,
        "Sub" => BinaryKind::Sub,
        "Mul" => BinaryKind::Mul,
        "Div" => BinaryKind::Div,
        "Pow" => BinaryKind::Pow,
        "Max" => {
            if let Some((x, clamp)) = clamp(|low| matrix::Clamp { low, high: f32::INFINITY }) {
                return Some(lowering.emit(Op::Clamp(Clamp(clamp)), vec![x], dims));
            }
            BinaryKind::Max
        }
        "Min" => {
            if let Some((x, clamp)) = clamp(|high| matrix::Clamp { low: f32::NEG_INFINITY, high }) {
                return Some(lowering.emit(Op::Clamp(Clamp(clamp)), vec![x], dims));
            }
            BinaryKind::Min
        }
        _ => return None,
    };
    if kind == BinaryKind::Pow {
        return None;
    }
    Some(lowering.emit(Op::Binary(Binary { kind }), vec![a, b], dims))
}

/// How the two inputs are passed: `outer` times, each a run of `inner` elements that are each either consecutive or one
/// and the same.
struct Runs {
    /// Sizes of the outer axes and what each input moves by along them, in elements.
    outer: Vec<(usize, usize, usize)>,
    inner: usize,
    /// Whether the input's elements are consecutive within a run.
    moves: [bool; 2],
}

impl Runs {
    fn new(shapes: &Shapes) -> Runs {
        let (a, b, output) = (&shapes.inputs[0], &shapes.inputs[1], &shapes.output);
        let mut axes: Vec<(usize, usize, usize)> = Vec::with_capacity(output.len() + 1);
        let (mut a_stride, mut b_stride) = (1, 1);
        for axis in (0..output.len()).rev() {
            if output[axis] == 1 {
                continue;
            }
            let steps = (if a[axis] == 1 { 0 } else { a_stride }, if b[axis] == 1 { 0 } else { b_stride });
            a_stride *= a[axis];
            b_stride *= b[axis];
            // Axes along which both inputs move, or stand, alike are one.
            if let Some(last) = axes.last_mut()
                && steps.0 == last.1 * last.0
                && steps.1 == last.2 * last.0
            {
                last.0 *= output[axis];
                continue;
            }
            axes.push((output[axis], steps.0, steps.1));
        }
        let (inner, a_step, b_step) = if axes.is_empty() { (1, 1, 1) } else { axes.remove(0) };
        axes.reverse();
        Runs { outer: axes, inner, moves: [a_step != 0, b_step != 0] }
    }

    fn count(&self) -> usize {
        self.outer.iter().map(|axis| axis.0).product()
    }

    /// Where the inputs' run of that number begins.
    fn starts(&self, run: usize) -> (usize, usize) {
        let (mut left, mut a, mut b) = (run, 0, 0);
        for (size, a_step, b_step) in self.outer.iter().rev() {
            let index = left % size;
            left /= size;
            a += index * a_step;
            b += index * b_step;
        }
        (a, b)
    }
}

/// Runs that are one unit.
fn runs_per_unit(inner: usize) -> usize {
    (super::ELEMENTS_PER_UNIT / inner.max(1)).max(1)
}

impl Operator for Binary {
    fn name(&self) -> &'static str {
        self.kind.name()
    }

    fn units(&self, shapes: &Shapes) -> usize {
        let runs = Runs::new(shapes);
        runs.count().div_ceil(runs_per_unit(runs.inner)).max(1)
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let runs = Runs::new(shapes);
        let count = (units.len() * runs_per_unit(runs.inner)).min(runs.count()) as u64;
        let element = self.kind.instructions_per_element();
        CALL_INSTRUCTIONS + count * (runs.inner as u64 * element + 120)
    }

    fn run(&self, mut call: Call<'_>) {
        let runs = Runs::new(call.shapes);
        let per_unit = runs_per_unit(runs.inner);
        let (a, b) = (call.f32(0), call.f32(1));
        let range = call.units.start * per_unit..(call.units.end * per_unit).min(runs.count());
        let output = call.output_f32();
        for run in range {
            let (a_start, b_start) = runs.starts(run);
            let a = &a[a_start..a_start + if runs.moves[0] { runs.inner } else { 1 }];
            let b = &b[b_start..b_start + if runs.moves[1] { runs.inner } else { 1 }];
            crate::kernel::binary(self.kind, a, b, &mut output[run * runs.inner..(run + 1) * runs.inner]);
        }
    }
}
