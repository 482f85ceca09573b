//! `Softmax` and `LogSoftmax` along the last axis, of values times a number.

use super::{CALL_INSTRUCTIONS, Call, Op, Operator, Shapes};
use crate::graph::ValueId;
use crate::graph::import::Lowering;
use onnx_kernels::softmax;
use std::ops::Range;
use tract_onnx::tract_core::ops::nn::{self, SoftmaxKind};

/// Input: x.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Softmax {
    pub is_log: bool,
    /// What x is multiplied by.
    pub scale: f32,
}

pub(crate) fn lower(lowering: &mut Lowering<'_>, op: &nn::Softmax) -> Option<ValueId> {
    let (x, dims) = (lowering.inputs[0], lowering.output_dims());
    if op.quant_output_dt.is_some() || op.axes.is_empty() || dims.is_empty() {
        return None;
    }
    let softmax = Op::Softmax(Softmax { is_log: op.kind == SoftmaxKind::LogSoftmax, scale: 1.0 });
    if op.axes.len() > 1 {
        // Several axes at the end are one; the rest are rows.
        let first = dims.len() - op.axes.len();
        if !op.axes.iter().enumerate().all(|(index, axis)| *axis == first + index) {
            return None;
        }
        let columns = dims[first..].iter().try_fold(1, |product, dim| Some(product * dim.known()?))?;
        let rows = [&dims[..first], &[crate::graph::dims::Dim::Known(columns)]].concat();
        let flat = lowering.emit_move(Op::Reshape, x, rows.clone());
        let result = lowering.emit(softmax, vec![flat], rows);
        return Some(lowering.emit_move(Op::Reshape, result, dims));
    }
    // The axis goes last for the kernel, and back.
    let last = dims.len() - 1;
    let mut order: Vec<usize> = (0..dims.len()).collect();
    order.swap(op.axes[0], last);
    let x = lowering.transposed(x, order.clone());
    let moved = order.iter().map(|axis| dims[*axis]).collect();
    let softmax = lowering.emit(softmax, vec![x], moved);
    Some(lowering.transposed(softmax, order))
}

/// Rows of a unit.
const ROWS_PER_UNIT: usize = 64;

impl Softmax {
    fn kernel(&self, shapes: &Shapes) -> (usize, softmax::Softmax<'static>) {
        let columns = shapes.output.last().copied().unwrap_or(1);
        let rows = shapes.output_elements().checked_div(columns).unwrap_or(0);
        let kernel = softmax::Softmax { scale: self.scale, log: self.is_log, ..softmax::Softmax::new(columns) };
        (rows, kernel)
    }
}

impl Operator for Softmax {
    fn name(&self) -> &'static str {
        if self.is_log { "LogSoftmax" } else { "Softmax" }
    }

    fn units(&self, shapes: &Shapes) -> usize {
        self.kernel(shapes).0.div_ceil(ROWS_PER_UNIT).max(1)
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let (rows, kernel) = self.kernel(shapes);
        CALL_INSTRUCTIONS + kernel.estimate_instructions((units.len() * ROWS_PER_UNIT).min(rows))
    }

    fn run(&self, mut call: Call<'_>) -> Result<(), String> {
        let (rows, kernel) = self.kernel(call.shapes);
        let range = (call.units.start * ROWS_PER_UNIT).min(rows)..(call.units.end * ROWS_PER_UNIT).min(rows);
        let input = call.f32(0);
        let columns = kernel.columns;
        kernel.run(input, range.clone(), &mut call.output_f32()[range.start * columns..range.end * columns]);
        Ok(())
    }
}
