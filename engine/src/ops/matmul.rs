//! `MatMul`, `Gemm` and `Einsum` of two values: C = A B, with a bias, a sum with another value and a clamp in the same
//! pass when B is a weight.

use super::{CALL_INSTRUCTIONS, Call, Op, Operator, Shapes};
use crate::EngineError;
use crate::graph::import::Lowering;
use crate::graph::weights::{Packed, Weights};
use crate::graph::{Graph, Node, ValueId};
use onnx_kernels::gemm::{self, PackedMatrix, PackedRef};
use onnx_kernels::matrix::{Clamp, Epilogue, MatrixMut, MatrixRef};
use std::ops::Range;
use std::sync::Arc;
use tract_onnx::tract_core::ops::change_axes::AxisOp;
use tract_onnx::tract_core::ops::einsum::EinSum;

/// Inputs: A `[batch.., m.., k..]`, B `[batch.., k.., n..]` or with `b_transposed` `[batch.., n.., k..]`; then the bias
/// of n values if any, then the value to add of the output's shape if any. Output: `[batch.., m.., n..]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MatMul {
    /// Axes of each kind.
    pub batch: usize,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub b_transposed: bool,
    pub has_bias: bool,
    pub has_residual: bool,
    pub clamp: Clamp,
}

/// Sizes of one product and the number of them.
struct Sizes {
    m: usize,
    n: usize,
    k: usize,
}

impl MatMul {
    fn sizes(&self, shapes: &Shapes) -> Sizes {
        let a = &shapes.inputs[0];
        let rest = &shapes.output[self.batch..];
        Sizes {
            m: rest[..self.m].iter().product(),
            n: rest[self.m..].iter().product(),
            k: a[self.batch + self.m..].iter().product(),
        }
    }

    /// Rows and columns of B as it is stored.
    fn b_shape(&self, graph: &Graph, node: &Node) -> Option<(usize, usize)> {
        let shape = graph.known_shape(node.inputs[1])?;
        let split = if self.b_transposed { self.n } else { self.k };
        Some((shape[..split].iter().product(), shape[split..].iter().product()))
    }

    /// See [`Op::streamed`].
    pub fn streamed(&self, graph: &Graph, node: &Node) -> Option<(ValueId, Packed, usize, usize)> {
        if self.batch > 0 {
            return None;
        }
        let (rows, columns) = self.b_shape(graph, node)?;
        Some((node.inputs[1], Packed::matrix(rows, columns, self.b_transposed), columns, rows))
    }

    pub fn pack(
        &self,
        graph: &Graph,
        node: &Node,
        weights: &mut Weights<'_>,
    ) -> Result<Box<dyn Operator>, EngineError> {
        let packed = Op::MatMul(self.clone()).packed_inputs(graph, node);
        if self.batch > 0 || !packed.contains(&1) {
            if self.has_bias || self.has_residual || self.clamp != Clamp::NONE {
                return Err(EngineError::invalid(&*node.name, "only a product with weights is joined with others"));
            }
            return Ok(Box::new(self.clone()));
        }
        let (rows, columns) = self
            .b_shape(graph, node)
            .ok_or_else(|| EngineError::invalid(&*node.name, "its weights have no known shape"))?;
        let matrix = weights.packed_matrix(graph, node.inputs[1], rows, columns, self.b_transposed)?;
        let bias = match self.has_bias {
            true => Some(weights.f32(graph, node.inputs[2])?.to_vec()),
            false => None,
        };
        Ok(Box::new(PackedMatMul { matmul: self.clone(), matrix, bias }))
    }
}

/// Rows of A that are one unit.
const ROWS_PER_UNIT: usize = 64;

/// A product with weights.
struct PackedMatMul {
    matmul: MatMul,
    matrix: Arc<PackedMatrix>,
    bias: Option<Vec<f32>>,
}

impl Operator for PackedMatMul {
    fn name(&self) -> &'static str {
        "MatMul"
    }

    fn units(&self, shapes: &Shapes) -> usize {
        self.matmul.sizes(shapes).m.div_ceil(ROWS_PER_UNIT).max(1)
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let rows = (units.len() * ROWS_PER_UNIT).min(self.matmul.sizes(shapes).m);
        CALL_INSTRUCTIONS + gemm::estimate_instructions(rows, self.matrix.k(), self.matrix.n())
    }

    fn multiply_accumulates(&self, shapes: &Shapes) -> u64 {
        let Sizes { m, n, k } = self.matmul.sizes(shapes);
        (m * n) as u64 * k as u64
    }

    fn weight_bytes(&self) -> usize {
        self.matrix.bytes() + self.bias.as_ref().map_or(0, |bias| bias.len() * 4)
    }

    fn is_row_wise(&self) -> bool {
        !self.matmul.has_residual && self.matmul.n == 1 && self.matmul.k == 1
    }

    fn run(&self, mut call: Call<'_>) -> Result<(), String> {
        let Sizes { m, n, k } = self.matmul.sizes(call.shapes);
        let rows = (call.units.start * ROWS_PER_UNIT).min(m)..(call.units.end * ROWS_PER_UNIT).min(m);
        let a = MatrixRef::new(call.f32(0), m, k);
        let residual = self.matmul.has_residual.then(|| MatrixRef::new(call.f32(1), m, n));
        let epilogue = Epilogue { bias: self.bias.as_deref(), residual, clamp: self.matmul.clamp };
        let matrix = self.matrix.view();
        if m == 1 {
            gemm::gemv(a.row(0), matrix, &epilogue, 0..n, call.output_f32());
            return Ok(());
        }
        gemm::gemm(a, matrix, &epilogue, rows, &mut MatrixMut::new(call.output_f32(), m, n));
        Ok(())
    }
}

/// A product of two computed values. Each batch is a unit; its B is packed in scratch first.
impl Operator for MatMul {
    fn name(&self) -> &'static str {
        "MatMul"
    }

    fn units(&self, shapes: &Shapes) -> usize {
        shapes.output[..self.batch].iter().product::<usize>().max(1)
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let Sizes { m, n, k } = self.sizes(shapes);
        let product = if self.b_transposed {
            4 * gemm::packed_len(k, n) as u64 + gemm::estimate_instructions(m, k, n)
        } else {
            gemm::estimate_instructions_unpacked(m, k, n)
        };
        CALL_INSTRUCTIONS + units.len() as u64 * (product + 1000)
    }

    fn multiply_accumulates(&self, shapes: &Shapes) -> u64 {
        let Sizes { m, n, k } = self.sizes(shapes);
        let batches = shapes.output[..self.batch].iter().product::<usize>() as u64;
        batches * (m * n) as u64 * k as u64
    }

    fn scratch_bytes(&self, shapes: &Shapes) -> usize {
        let Sizes { n, k, .. } = self.sizes(shapes);
        if self.b_transposed { 4 * gemm::packed_len(k, n) } else { 0 }
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        let Sizes { m, n, k } = self.sizes(call.shapes);
        let shapes = call.shapes;
        let batches = shapes.output[..self.batch].iter().product::<usize>();
        let (a, b) = (call.f32(0), call.f32(1));
        let units = call.units.start.min(batches)..call.units.end.min(batches);
        for unit in units {
            // An input's batch axis of size 1 stands for all of the output's.
            let (mut left, mut a_index, mut b_index, mut a_stride, mut b_stride) = (unit, 0, 0, 1, 1);
            for axis in (0..self.batch).rev() {
                let index = left % shapes.output[axis];
                left /= shapes.output[axis];
                let (a_size, b_size) = (shapes.inputs[0][axis], shapes.inputs[1][axis]);
                a_index += if a_size == 1 { 0 } else { index * a_stride };
                b_index += if b_size == 1 { 0 } else { index * b_stride };
                a_stride *= a_size;
                b_stride *= b_size;
            }
            let a = MatrixRef::new(&a[a_index * m * k..], m, k);
            let b = &b[b_index * k * n..(b_index + 1) * k * n];
            let output: &mut [f32] = &mut bytemuck::cast_slice_mut(call.output)[unit * m * n..(unit + 1) * m * n];
            let mut output = MatrixMut::new(output, m, n);
            if self.b_transposed {
                let packed: &mut [f32] = &mut bytemuck::cast_slice_mut(call.scratch)[..gemm::packed_len(k, n)];
                if n < 4 {
                    packed.fill(0.0);
                }
                gemm::pack_columns(packed, k, n, 0, MatrixRef::new(b, n, k));
                gemm::gemm(a, PackedRef::new(packed, k, n), &Epilogue::NONE, 0..m, &mut output);
            } else {
                gemm::gemm_unpacked(a, MatrixRef::new(b, k, n), &Epilogue::NONE, 0..m, &mut output);
            }
        }
        Ok(())
    }
}

/// The matrix that a weight is the transpose of: it is packed straight from the file, and is one with that of an embedding.
fn before_turning(lowering: &Lowering<'_>, weight: ValueId) -> Option<ValueId> {
    let graph = &lowering.graph;
    let (_, node) = graph.producer(weight)?;
    let Op::Tract(id) = node.op else { return None };
    let turns = matches!(lowering.model.node(id).op_as::<AxisOp>()?, AxisOp::Move(0, 1) | AxisOp::Move(1, 0));
    let source = *node.inputs.first()?;
    let is_matrix = graph.values[weight].is_weight && graph.values[source].dims.len() == 2;
    (turns && is_matrix).then_some(source)
}

/// `Einsum` of two values, brought to a product: axes that both inputs and the output have are batches, those of one
/// input and the output its rows or columns, those of both inputs alone are summed over.
pub(crate) fn lower(lowering: &mut Lowering<'_>, op: &EinSum) -> Option<ValueId> {
    if op.q_params.is_some() || lowering.inputs.len() != 2 {
        return None;
    }
    // Per kind of axis, its places in A, B and the output.
    let (mut batch, mut m, mut n, mut k) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for axis in op.axes.iter_all_axes() {
        let place = |places: &[usize]| if places.len() > 1 { Err(()) } else { Ok(places.first().copied()) };
        let a = place(&axis.inputs[0]).ok()?;
        let b = place(&axis.inputs[1]).ok()?;
        let output = place(&axis.outputs[0]).ok()?;
        match (a, b, output) {
            (Some(a), Some(b), Some(output)) => batch.push((output, a, b)),
            (Some(a), None, Some(output)) => m.push((output, a)),
            (None, Some(b), Some(output)) => n.push((output, b)),
            (Some(a), Some(b), None) => k.push((a, b)),
            _ => return None,
        }
    }
    [&mut m, &mut n, &mut k].into_iter().for_each(|axes| axes.sort());
    batch.sort();
    let (a, mut b) = (lowering.inputs[0], lowering.inputs[1]);
    if let Some(source) = before_turning(lowering, b).filter(|_| batch.is_empty()) {
        b = source;
        n.iter_mut().for_each(|(_, place)| *place = 1 - *place);
        k.iter_mut().for_each(|(_, place)| *place = 1 - *place);
    }
    if k.iter().any(|(in_a, in_b)| {
        let values = &lowering.graph.values;
        values[a].dims[*in_a].is_one() != values[b].dims[*in_b].is_one()
    }) {
        return None;
    }
    let order = |parts: [Vec<usize>; 3]| parts.concat();
    let a_order = order([
        batch.iter().map(|axis| axis.1).collect(),
        m.iter().map(|axis| axis.1).collect(),
        k.iter().map(|axis| axis.0).collect(),
    ]);
    let b_batch: Vec<usize> = batch.iter().map(|axis| axis.2).collect();
    let (b_n, b_k): (Vec<usize>, Vec<usize>) =
        (n.iter().map(|axis| axis.1).collect(), k.iter().map(|axis| axis.1).collect());
    let straight = order([b_batch.clone(), b_k.clone(), b_n.clone()]);
    let transposed = order([b_batch, b_n, b_k]);
    // The matrix is taken as it lies where it can be.
    let b_transposed = !straight.is_sorted() && (transposed.is_sorted() || lowering.graph.values[b].is_weight);
    let b_order = if b_transposed { transposed } else { straight };
    if lowering.graph.values[b].is_weight && !b_order.is_sorted() {
        return None;
    }
    let a = lowering.transposed(a, a_order);
    let b = lowering.transposed(b, b_order);
    // The product's axes are in this order; each then goes to its place in the output.
    let places: Vec<usize> =
        batch.iter().map(|axis| axis.0).chain(m.iter().map(|axis| axis.0)).chain(n.iter().map(|axis| axis.0)).collect();
    let output_dims = lowering.output_dims();
    let dims = places.iter().map(|place| output_dims[*place]).collect();
    let matmul = MatMul {
        batch: batch.len(),
        m: m.len(),
        n: n.len(),
        k: k.len(),
        b_transposed,
        has_bias: false,
        has_residual: false,
        clamp: Clamp::NONE,
    };
    let product = lowering.emit(Op::MatMul(matmul), vec![a, b], dims);
    let mut back = vec![0; places.len()];
    places.iter().enumerate().for_each(|(from, to)| back[*to] = from);
    Some(lowering.transposed(product, back))
}
