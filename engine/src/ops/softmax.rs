//! `Softmax` along the last axis.

use super::{CALL_INSTRUCTIONS, Call, Op, Operator, Shapes};
use crate::graph::ValueId;
use crate::graph::import::Lowering;
use std::ops::Range;
use tract_onnx::tract_core::ops::nn::{self, SoftmaxKind};

/// Input: x.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Softmax;

pub(crate) fn lower(lowering: &mut Lowering<'_>, op: &nn::Softmax) -> Option<ValueId> {
    let (x, dims) = (lowering.inputs[0], lowering.output_dims());
    if op.kind != SoftmaxKind::Softmax || op.quant_output_dt.is_some() || op.axes.len() != 1 || dims.is_empty() {
        return None;
    }
    // The axis goes last for the kernel, and back.
    let last = dims.len() - 1;
    let mut order: Vec<usize> = (0..dims.len()).collect();
    order.swap(op.axes[0], last);
    let x = lowering.transposed(x, order.clone());
    let moved = order.iter().map(|axis| dims[*axis]).collect();
    let softmax = lowering.emit(Op::Softmax(Softmax), vec![x], moved);
    Some(lowering.transposed(softmax, order))
}

/// Rows of a unit.
const ROWS_PER_UNIT: usize = 64;

fn rows_and_columns(shapes: &Shapes) -> (usize, usize) {
    let columns = shapes.output.last().copied().unwrap_or(1);
    (shapes.output_elements().checked_div(columns).unwrap_or(0), columns)
}

impl Operator for Softmax {
    fn name(&self) -> &'static str {
        "Softmax"
    }

    fn units(&self, shapes: &Shapes) -> usize {
        rows_and_columns(shapes).0.div_ceil(ROWS_PER_UNIT).max(1)
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let (rows, columns) = rows_and_columns(shapes);
        let rows = (units.len() * ROWS_PER_UNIT).min(rows) as u64;
        CALL_INSTRUCTIONS + rows * (300 + 40 * columns as u64)
    }

    fn run(&self, mut call: Call<'_>) -> Result<(), String> {
        let (rows, columns) = rows_and_columns(call.shapes);
        let range = (call.units.start * ROWS_PER_UNIT).min(rows)..(call.units.end * ROWS_PER_UNIT).min(rows);
        let input = call.f32(0);
        let output = call.output_f32();
        for row in range {
            let row = row * columns..(row + 1) * columns;
            crate::kernel::softmax(&input[row.clone()], &mut output[row]);
        }
        Ok(())
    }
}
