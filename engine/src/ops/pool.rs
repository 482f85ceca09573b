//! `MaxPool` and `AveragePool` over one or two spatial axes.

use super::window::Windowed;
use super::{CALL_INSTRUCTIONS, Call, Op, Operator, Shapes};
use crate::graph::ValueId;
use crate::graph::import::Lowering;
use onnx_kernels::matrix::{MatrixMut, MatrixRef};
use onnx_kernels::pool;
use std::ops::Range;
use tract_onnx::tract_core::ops::cnn::{MaxPool, SumPool};

/// Input: x `[n, h, w, c]`, once [`crate::graph::layout`] is done with it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pool {
    pub window: Windowed,
    pub kind: pool::Pool,
}

pub(crate) fn lower_max(lowering: &mut Lowering<'_>, op: &MaxPool) -> Option<ValueId> {
    let window = Windowed::of(&op.pool_spec)?;
    if op.with_index_outputs.is_some() {
        return None;
    }
    let (dims, x) = (lowering.output_dims(), lowering.inputs[0]);
    Some(lowering.emit(Op::Pool(Pool { window, kind: pool::Pool::Max }), vec![x], dims))
}

pub(crate) fn lower_sum(lowering: &mut Lowering<'_>, op: &SumPool) -> Option<ValueId> {
    let window = Windowed::of(&op.pool_spec)?;
    if !op.normalize {
        return None;
    }
    let kind = if op.count_include_pad { pool::Pool::AverageWithPadding } else { pool::Pool::Average };
    let (dims, x) = (lowering.output_dims(), lowering.inputs[0]);
    Some(lowering.emit(Op::Pool(Pool { window, kind }), vec![x], dims))
}

/// A row of output pixels, of one image, is a unit.
impl Operator for Pool {
    fn name(&self) -> &'static str {
        match self.kind {
            pool::Pool::Max => "MaxPool",
            pool::Pool::Average | pool::Pool::AverageWithPadding => "AveragePool",
        }
    }

    fn units(&self, shapes: &Shapes) -> usize {
        shapes.output[0] * self.window.of_shapes(shapes).output[0]
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let window = self.window.of_shapes(shapes);
        let channels = shapes.output.last().copied().unwrap_or(1);
        CALL_INSTRUCTIONS + pool::estimate_instructions(self.kind, &window, channels, units.len() * window.output[1])
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        let window = self.window.of_shapes(call.shapes);
        let channels = call.shapes.output.last().copied().unwrap_or(1);
        let (in_pixels, out_pixels) = (window.input_pixels(), window.output_pixels());
        let input = call.f32(0);
        let output: &mut [f32] = bytemuck::cast_slice_mut(call.output);
        let mut row = call.units.start;
        while row < call.units.end {
            let (image, first) = (row / window.output[0], row % window.output[0]);
            let rows = (window.output[0] - first).min(call.units.end - row);
            let pixels = first * window.output[1]..(first + rows) * window.output[1];
            let input = MatrixRef::new(&input[image * in_pixels * channels..], in_pixels, channels);
            let output = &mut output[image * out_pixels * channels..];
            let mut output = MatrixMut::new(output, out_pixels, channels);
            pool::pool(self.kind, input, &window, pixels, &mut output);
            row += rows;
        }
        Ok(())
    }
}
