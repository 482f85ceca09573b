//! `Gather`: rows of a value picked by number, such as the vectors of an embedding.

use super::{CALL_INSTRUCTIONS, Call, Op, Operator, Shapes};
use crate::EngineError;
use crate::graph::ValueId;
use crate::graph::import::{Lowering, is_number};
use crate::graph::weights::{Packed, Weights};
use crate::graph::{Graph, Node};
use onnx_kernels::copy;
use onnx_kernels::gemm::PackedMatrix;
use std::ops::Range;
use std::sync::Arc;
use tract_onnx::prelude::DatumType;
use tract_onnx::tract_core::ops::array;

/// Inputs: data, of any element type, and int64 indices.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Gather {
    pub axis: usize,
}

/// Rows of a unit.
const ROWS_PER_UNIT: usize = 64;

impl Gather {
    fn kernel(&self, shapes: &Shapes) -> copy::Gather {
        let data = &shapes.inputs[0];
        copy::Gather {
            outer: data[..self.axis].iter().product(),
            length: data[self.axis],
            inner: data[self.axis + 1..].iter().product(),
        }
    }

    fn rows(&self, shapes: &Shapes) -> usize {
        self.kernel(shapes).outer * shapes.inputs[1].iter().product::<usize>()
    }
}

impl Gather {
    /// Whether the data is a matrix that a product multiplies with too, so that it is kept once, in that one's form; and
    /// whether that has it transposed.
    pub fn shared(&self, graph: &Graph, node: &Node) -> Option<bool> {
        let data = *node.inputs.first()?;
        let value = &graph.values[data];
        if self.axis != 0 || !value.is_weight || value.datum_type != DatumType::F32 || value.dims.len() != 2 {
            return None;
        }
        let product = |node: &Node| match &node.op {
            Op::MatMul(matmul) if matmul.batch == 0 && matmul.n == 1 && matmul.k == 1 => {
                (node.inputs[1] == data).then_some(matmul.b_transposed)
            }
            _ => None,
        };
        let mut products = graph.nodes.iter().flatten().filter_map(product);
        let first = products.next()?;
        Some(first || products.any(|transposed| transposed))
    }

    /// See [`Op::streamed`].
    pub fn streamed(&self, graph: &Graph, node: &Node) -> Option<(ValueId, Packed, usize, usize)> {
        let transposed = self.shared(graph, node)?;
        let &[rows, columns] = graph.known_shape(node.inputs[0])?.as_slice() else { return None };
        Some((node.inputs[0], Packed::matrix(rows, columns, transposed), columns, rows))
    }

    pub fn pack(
        &self,
        graph: &Graph,
        node: &Node,
        weights: &mut Weights<'_>,
    ) -> Result<Box<dyn Operator>, EngineError> {
        let Some(transposed) = self.shared(graph, node) else { return Ok(Box::new(self.clone())) };
        let shape = graph.known_shape(node.inputs[0]);
        let Some(&[rows, columns]) = shape.as_deref() else {
            return Err(EngineError::invalid(&*node.name, "its data has no known shape"));
        };
        let matrix = weights.packed_matrix(graph, node.inputs[0], rows, columns, transposed)?;
        Ok(Box::new(PackedGather { matrix, transposed }))
    }
}

/// Rows of a matrix that is kept for a product. Input: the indices.
struct PackedGather {
    matrix: Arc<PackedMatrix>,
    /// Whether the rows are columns of the packed matrix.
    transposed: bool,
}

impl PackedGather {
    /// Rows to pick from, and elements of each.
    fn sizes(&self) -> (usize, usize) {
        let (k, n) = (self.matrix.k(), self.matrix.n());
        if self.transposed { (n, k) } else { (k, n) }
    }
}

impl Operator for PackedGather {
    fn name(&self) -> &'static str {
        "Gather"
    }

    fn units(&self, shapes: &Shapes) -> usize {
        shapes.inputs[0].iter().product::<usize>().div_ceil(ROWS_PER_UNIT).max(1)
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let rows = (units.len() * ROWS_PER_UNIT).min(shapes.inputs[0].iter().product());
        CALL_INSTRUCTIONS + (rows * (1_500 + 18 * self.sizes().1)) as u64
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        let (length, columns) = self.sizes();
        let indices: &[i64] = bytemuck::cast_slice(call.inputs[0]);
        let range =
            (call.units.start * ROWS_PER_UNIT).min(indices.len())..(call.units.end * ROWS_PER_UNIT).min(indices.len());
        let output: &mut [f32] = bytemuck::cast_slice_mut(call.output);
        let resolve = copy::Gather { outer: 1, length, inner: columns };
        for at in range {
            let row = resolve.resolve(at, indices[at]).map_err(|error| error.to_string())?;
            let output = &mut output[at * columns..(at + 1) * columns];
            match self.transposed {
                true => self.matrix.view().read_column(row, output),
                false => self.matrix.view().read_row(row, output),
            }
        }
        Ok(())
    }
}

pub(crate) fn lower(lowering: &mut Lowering<'_>, op: &array::Gather) -> Option<ValueId> {
    let &[data, indices] = lowering.inputs.as_slice() else { return None };
    let (data, indices) = (lowering.number(data)?, lowering.int64(indices)?);
    let datum_type = lowering.graph.values[data].datum_type;
    if !is_number(datum_type) || op.output_type.is_some_and(|to| to != datum_type) {
        return None;
    }
    let (dims, name) = (lowering.output_dims(), lowering.node.name.clone());
    let gather = Op::Gather(Gather { axis: op.axis });
    Some(lowering.graph.add_node(&name, gather, vec![data, indices], datum_type, dims))
}

impl Operator for Gather {
    fn name(&self) -> &'static str {
        "Gather"
    }

    fn units(&self, shapes: &Shapes) -> usize {
        self.rows(shapes).div_ceil(ROWS_PER_UNIT).max(1)
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let rows = (units.len() * ROWS_PER_UNIT).min(self.rows(shapes));
        CALL_INSTRUCTIONS + self.kernel(shapes).estimate_instructions(rows, 4)
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        let kernel = self.kernel(call.shapes);
        let rows = self.rows(call.shapes);
        let range = (call.units.start * ROWS_PER_UNIT).min(rows)..(call.units.end * ROWS_PER_UNIT).min(rows);
        let elements = kernel.outer * kernel.length * kernel.inner;
        if rows == 0 || kernel.inner == 0 {
            return Ok(());
        }
        if elements == 0 {
            return Err("it picks from an empty axis".into());
        }
        let size = call.inputs[0].len() / elements;
        let indices: &[i64] = bytemuck::cast_slice(call.inputs[1]);
        let row_bytes = kernel.inner * size;
        let output = &mut call.output[range.start * row_bytes..range.end * row_bytes];
        let (input, cast) = (call.inputs[0], bytemuck::cast_slice::<u8, u32>);
        let result = match size {
            1 => kernel.run::<u8>(input, indices, range, output),
            2 => kernel.run::<u16>(bytemuck::cast_slice(input), indices, range, bytemuck::cast_slice_mut(output)),
            4 => kernel.run::<u32>(cast(input), indices, range, bytemuck::cast_slice_mut(output)),
            _ => kernel.run::<u64>(bytemuck::cast_slice(input), indices, range, bytemuck::cast_slice_mut(output)),
        };
        result.map_err(|error| error.to_string())
    }
}
