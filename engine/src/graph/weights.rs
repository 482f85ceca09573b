//! Values that depend on nothing but what the file holds. They are worked out once, while they are packed, each from the
//! stored tensors it needs and no others, so that never more than these are on the heap in plain form.

use super::opaque::Quantization;
use super::{Graph, Source, ValueId, single_precision};
use crate::EngineError;
use crate::error::tract;
use crate::ops::Op;
use onnx_kernels::conv::Filter;
use onnx_kernels::gemm::PackedMatrix;
use onnx_kernels::matrix::MatrixRef;
use std::collections::BTreeMap;
use std::sync::Arc;
use tract_onnx::prelude::{DatumType, IntoArcTensor, IntoTValue, TVec, Tensor};
use tract_onnx::tract_core::internal::{EvalContext, EvalOp, TypedModel};

/// A weight in the form its kernel reads, or on its way there.
#[derive(Debug)]
pub(crate) enum Packed {
    /// A matrix given row by row.
    Rows(PackedMatrix),
    /// A matrix given column by column.
    Columns(PackedMatrix),
    Filter(Filter),
}

impl Packed {
    /// An empty matrix for a weight of that many rows and columns, which its product may take transposed.
    pub fn matrix(rows: usize, columns: usize, is_transposed: bool) -> Packed {
        match is_transposed {
            true => Packed::Columns(PackedMatrix::to_fill(columns, rows)),
            false => Packed::Rows(PackedMatrix::to_fill(rows, columns)),
        }
    }
}

/// Evaluates weights from the stored tensors that are loaded.
pub(crate) struct Weights<'a> {
    pub model: &'a TypedModel,
    /// The stored tensors that are on the heap, by index.
    pub stored: BTreeMap<usize, Arc<Tensor>>,
    /// Matrices that are packed already, by the value they are packed from and whether it was transposed. A weight that
    /// several operators use is kept once.
    pub matrices: &'a mut BTreeMap<(ValueId, bool), Arc<PackedMatrix>>,
    /// The filter that was packed while it was read, if the operator's was.
    pub filter: Option<Filter>,
}

/// The stored tensors that a weight is made of, in order.
pub(crate) fn stored_tensors(graph: &Graph, value: ValueId, found: &mut Vec<usize>) {
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        match &graph.values[value].source {
            Source::Stored(index) if !found.contains(index) => found.push(*index),
            Source::Node(node, _) => open.extend(graph.nodes[*node].iter().flat_map(|node| &node.inputs)),
            _ => {}
        }
    }
}

impl Weights<'_> {
    /// The tensor of a weight.
    pub fn tensor(&self, graph: &Graph, value: ValueId) -> Result<Arc<Tensor>, EngineError> {
        let place = || graph.values[value].name.clone();
        match &graph.values[value].source {
            Source::Constant(tensor) => Ok(tensor.clone()),
            Source::Stored(index) => {
                let stored = self.stored.get(index).cloned();
                stored.ok_or_else(|| EngineError::invalid(place(), "its stored tensor is not loaded"))
            }
            Source::Node(index, slot) => {
                let Some(node) = &graph.nodes[*index] else {
                    return Err(EngineError::invalid(place(), "the node that computes it is gone"));
                };
                let mut inputs = TVec::new();
                for input in &node.inputs {
                    inputs.push(self.tensor(graph, *input)?.into_tvalue());
                }
                let Op::Tract(id) = node.op else {
                    return Err(EngineError::invalid(place(), "it is not an expression of weights"));
                };
                let op = &self.model.node(id).op;
                let outputs = match op.downcast_ref::<Quantization>() {
                    Some(op) => op.eval(&EvalContext::out_of_plan(), inputs).map(Some),
                    None => op.eval_out_of_plan(inputs),
                };
                let outputs = tract(&node.name, outputs)?;
                let output = outputs.and_then(|outputs| outputs.get(*slot).cloned());
                let output = output.ok_or_else(|| EngineError::invalid(place(), "it can't be worked out at load"))?;
                Ok(single_precision(output.into_arc_tensor()))
            }
            Source::Input(_) => Err(EngineError::invalid(place(), "it is an input, not a weight")),
        }
    }

    /// The elements of a float32 weight.
    pub fn f32(&self, graph: &Graph, value: ValueId) -> Result<F32s, EngineError> {
        let tensor = self.tensor(graph, value)?;
        if tensor.datum_type() != DatumType::F32 {
            let reason = format!("its elements are {:?}, needed is F32", tensor.datum_type());
            return Err(EngineError::invalid(&*graph.values[value].name, reason));
        }
        Ok(F32s(tensor))
    }

    /// A weight as a packed matrix: of `rows` and `columns` as it is stored, which the product takes as they are or
    /// `transposed`.
    pub fn packed_matrix(
        &mut self,
        graph: &Graph,
        value: ValueId,
        rows: usize,
        columns: usize,
        transposed: bool,
    ) -> Result<Arc<PackedMatrix>, EngineError> {
        if let Some(packed) = self.matrices.get(&(value, transposed)) {
            return Ok(packed.clone());
        }
        let values = self.f32(graph, value)?;
        if values.len() != rows * columns {
            let (expected, got) = (4 * (rows * columns) as u64, 4 * values.len() as u64);
            return Err(EngineError::wrong_length(&*graph.values[value].name, expected, got));
        }
        let source = MatrixRef::new(&values, rows, columns);
        let packed =
            Arc::new(if transposed { PackedMatrix::from_columns(source) } else { PackedMatrix::from_rows(source) });
        self.matrices.insert((value, transposed), packed.clone());
        Ok(packed)
    }
}

/// The elements of a float32 tensor.
pub(crate) struct F32s(Arc<Tensor>);

impl std::ops::Deref for F32s {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        bytemuck::cast_slice(self.0.as_bytes())
    }
}
