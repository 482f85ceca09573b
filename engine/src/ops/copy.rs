//! Operators that only move elements, of any type: `Transpose`, `Slice`, `Expand`.

use super::{CALL_INSTRUCTIONS, Call, Op, Operator, Shapes};
use crate::graph::ValueId;
use crate::graph::dims::Dim;
use crate::graph::import::{Lowering, is_number};
use onnx_kernels::copy::{Copy, Layout, MAX_RANK};
use std::ops::Range;
use tract_onnx::tract_core::internal::TDim;
use tract_onnx::tract_core::ops::array::{MultiBroadcastTo, Slice, StridedSlice};

/// Input: x.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Move {
    /// Axis `i` of the output is axis `permutation[i]` of the input.
    Transpose { permutation: Vec<usize> },
    /// Of each axis, where to start and how far from one element to the next.
    Slice { starts: Vec<Dim>, steps: Vec<i64> },
    /// Axes of size 1, and missing ones in front, stand for all of the output's.
    Broadcast,
}

impl Move {
    /// Whether a transpose leaves the elements in their order: only axes of size 1 move.
    pub fn keeps_order(&self, is_one: impl Fn(usize) -> bool) -> bool {
        let Move::Transpose { permutation } = self else { return false };
        let moving: Vec<usize> = permutation.iter().copied().filter(|axis| !is_one(*axis)).collect();
        moving.is_sorted()
    }

    /// Sizes it needs beside those of its shapes.
    pub fn parameters(&self) -> Vec<Dim> {
        match self {
            Move::Slice { starts, .. } => starts.clone(),
            _ => Vec::new(),
        }
    }

    fn copy(&self, shapes: &Shapes) -> Copy {
        let (input, output) = (&shapes.inputs[0], &shapes.output);
        match self {
            Move::Transpose { permutation } => Copy::transpose(input, permutation),
            Move::Slice { steps, .. } => {
                let mut from = Layout::row_major(input);
                for ((start, step), stride) in shapes.parameters.iter().zip(steps).zip(&mut from.strides) {
                    from.offset += *start as usize * stride.unsigned_abs();
                    *stride *= *step as isize;
                }
                Copy::new(output, from, Layout::row_major(output))
            }
            Move::Broadcast => {
                let mut from = Layout { offset: 0, strides: [0; MAX_RANK] };
                let own = Layout::row_major(input);
                let missing = output.len() - input.len();
                for (axis, size) in input.iter().enumerate() {
                    from.strides[missing + axis] = if *size == 1 { 0 } else { own.strides[axis] };
                }
                Copy::new(output, from, Layout::row_major(output))
            }
        }
    }

    /// The output's axis along which the work is cut: its longest.
    fn cut(shapes: &Shapes) -> usize {
        (0..shapes.output.len()).max_by_key(|axis| (shapes.output[*axis], usize::MAX - axis)).unwrap_or(0)
    }
}

/// Elements of the longest axis that are a unit.
const INDICES_PER_UNIT: usize = 16;

impl Operator for Move {
    fn name(&self) -> &'static str {
        match self {
            Move::Transpose { .. } => "Transpose",
            Move::Slice { .. } => "Slice",
            Move::Broadcast => "Expand",
        }
    }

    fn units(&self, shapes: &Shapes) -> usize {
        shapes.output.get(Self::cut(shapes)).map_or(1, |size| size.div_ceil(INDICES_PER_UNIT).max(1))
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        // Elements of four bytes are the most common, and larger ones are small tensors of sizes.
        let all = self.copy(shapes).estimate_instructions(4);
        let part = u128::from(all) * units.len() as u128 / self.units(shapes) as u128;
        CALL_INSTRUCTIONS + part as u64
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        let elements = call.shapes.output_elements();
        if elements == 0 {
            return Ok(());
        }
        let units = self.units(call.shapes);
        let mut copy = self.copy(call.shapes);
        if call.units != (0..units) {
            let axis = Self::cut(call.shapes);
            let size = call.shapes.output[axis];
            let range = call.units.start * INDICES_PER_UNIT..(call.units.end * INDICES_PER_UNIT).min(size);
            copy = copy.part(axis, range);
        }
        let (input, output) = (call.inputs[0], call.output);
        match output.len() / elements {
            1 => copy.run::<u8>(input, output),
            2 => copy.run::<u16>(bytemuck::cast_slice(input), bytemuck::cast_slice_mut(output)),
            4 => copy.run::<u32>(bytemuck::cast_slice(input), bytemuck::cast_slice_mut(output)),
            _ => copy.run::<u64>(bytemuck::cast_slice(input), bytemuck::cast_slice_mut(output)),
        }
        Ok(())
    }
}

/// Whether the kernel can move the node's value.
fn is_movable(lowering: &Lowering<'_>) -> bool {
    let input = &lowering.graph.values[lowering.inputs[0]];
    is_number(input.datum_type)
        && input.dims.len() <= MAX_RANK
        && lowering.node.outputs.len() == 1
        && lowering.node.outputs[0].fact.rank() <= MAX_RANK
}

pub(crate) fn lower_broadcast(lowering: &mut Lowering<'_>, _op: &MultiBroadcastTo) -> Option<ValueId> {
    if !is_movable(lowering) {
        return None;
    }
    let (dims, x) = (lowering.output_dims(), lowering.inputs[0]);
    if lowering.graph.values[x].dims == dims {
        return Some(x);
    }
    Some(lowering.emit_move(Op::Move(Move::Broadcast), x, dims))
}

/// A slice of `x` whose output has the node's shape.
fn slice(lowering: &mut Lowering<'_>, starts: &[(usize, TDim, i64)], dims: Vec<Dim>) -> ValueId {
    let x = lowering.inputs[0];
    let rank = lowering.graph.values[x].dims.len();
    let (mut all, mut steps) = (vec![Dim::Known(0); rank], vec![1; rank]);
    for (axis, start, step) in starts {
        all[*axis] = lowering.graph.dims.dim(start);
        steps[*axis] = *step;
    }
    lowering.emit_move(Op::Move(Move::Slice { starts: all, steps }), x, dims)
}

pub(crate) fn lower_slice(lowering: &mut Lowering<'_>, op: &Slice) -> Option<ValueId> {
    if !is_movable(lowering) {
        return None;
    }
    let dims = lowering.output_dims();
    Some(slice(lowering, &[(op.axis, op.start.clone(), 1)], dims))
}

pub(crate) fn lower_strided_slice(lowering: &mut Lowering<'_>, op: &StridedSlice) -> Option<ValueId> {
    if !is_movable(lowering) {
        return None;
    }
    let constant = |index: usize| lowering.inputs.get(index).and_then(|input| lowering.graph.constant(*input)).cloned();
    let (begin, end) = (constant(1)?, constant(2)?);
    let numbers = |index: Option<usize>| match index {
        None => Some(None),
        Some(index) => {
            let cast = constant(index)?.cast_to::<i64>().ok()?.into_owned();
            Some(Some(cast.try_as_plain_ram().ok()?.as_slice::<i64>().ok()?.to_vec()))
        }
    };
    let x = lowering.inputs[0];
    let rank = lowering.graph.values[x].dims.len();
    let strides: Vec<i32> = match numbers(op.optional_steps_input)? {
        Some(strides) => strides.iter().map(|stride| *stride as i32).collect(),
        None => vec![1; rank],
    };
    let axes: Vec<usize> = match numbers(op.optional_axes_input)? {
        Some(axes) => axes.iter().map(|axis| if *axis < 0 { axis + rank as i64 } else { *axis } as usize).collect(),
        None => (0..begin.len()).collect(),
    };
    let mut starts = Vec::new();
    let mut dims = lowering.graph.values[x].dims.clone();
    let mut shrunk = Vec::new();
    for (index, axis) in axes.into_iter().enumerate() {
        let size = lowering.graph.dims.expression(*dims.get(axis)?);
        let found = op.prepare_one_dim(index, &size, &begin, &end, &strides).ok()?;
        dims[axis] = lowering.graph.dims.dim(&found.soft_len().ok()?);
        if found.shrink {
            shrunk.push(axis);
        }
        // An empty slice may start anywhere.
        let start = if dims[axis] == Dim::Known(0) { 0.into() } else { found.begin };
        starts.push((axis, start, i64::from(found.stride)));
    }
    let output = lowering.output_dims();
    let kept: Vec<Dim> = (0..rank).filter(|axis| !shrunk.contains(axis)).map(|axis| dims[axis]).collect();
    if kept != output {
        return None;
    }
    let sliced = slice(lowering, &starts, dims);
    if shrunk.is_empty() {
        return Some(sliced);
    }
    Some(lowering.emit_move(Op::Reshape, sliced, output))
}
