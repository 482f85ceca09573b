//! Products whose weights a file has as int8: they stay int8.
//!
//! Files write such weights as `DequantizeLinear(q, scale)`, or as `Cast(q)` times `scale`, possibly transposed.

use super::{Graph, Node, ValueId};
use crate::ops::qconv_dynamic::DynamicQConv;
use crate::ops::qgather::QGather;
use crate::ops::qmatmul::{Int8Weights, QMatMul};
use crate::ops::{Op, quantize};
use tract_onnx::prelude::DatumType;
use tract_onnx::tract_core::internal::TypedModel;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::cast::Cast;
use tract_onnx::tract_core::ops::change_axes::AxisOp;
use tract_onnx::tract_core::ops::math::Mul;

/// A matrix of weights that are 8-bit numbers and scales. The matrix is B of a product, `[k][n]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Int8Matrix {
    /// The value of 8-bit numbers.
    pub quantized: ValueId,
    /// The value of one scale, or of one for each column.
    pub scale: ValueId,
    /// None for zeros, one, or one for each column.
    pub zero_points: Vec<i32>,
    /// Whether the numbers are stored `[n][k]`.
    pub columns_first: bool,
}

/// Lets products and gathers take int8 weights as they are; with `quantize` products and convolutions of one group quantise
/// other weights too. To be
/// done when everything else is joined.
pub(crate) fn keep_int8(graph: &mut Graph, model: &TypedModel, quantize: bool) {
    for index in 0..graph.nodes.len() {
        let Some(node) = &graph.nodes[index] else { continue };
        let replaced = match &node.op {
            Op::MatMul(_) => product(graph, model, node, quantize),
            Op::Conv(conv) if quantize && conv.group == 1 && !is_empty(graph, node.inputs[1]) => {
                Some((Op::DynamicQConv(DynamicQConv(conv.clone())), node.inputs.clone()))
            }
            Op::Gather(gather) if gather.axis == 0 => rows(graph, model, node),
            _ => None,
        };
        if let Some((op, inputs)) = replaced {
            let (name, outputs) = (node.name.clone(), node.outputs.clone());
            graph.replace(index, Node { name, op, inputs, outputs });
        }
    }
    graph.remove_dead();
}

/// Whether a weight has no elements, or none known.
fn is_empty(graph: &Graph, value: ValueId) -> bool {
    graph.known_shape(value).is_none_or(|shape| shape.contains(&0))
}

fn product(graph: &Graph, model: &TypedModel, node: &Node, quantize: bool) -> Option<(Op, Vec<ValueId>)> {
    let Op::MatMul(matmul) = &node.op else { return None };
    let shape = graph.known_shape(node.inputs[1])?;
    if !(matmul.batch == 0 && matmul.n == 1 && matmul.k == 1 && graph.values[node.inputs[1]].is_weight)
        || shape.contains(&0)
    {
        return None;
    }
    // B as it is stored: rows are columns of the product if it is transposed.
    let columns = if matmul.b_transposed { 0 } else { 1 };
    let weights = match int8_form(graph, model, node.inputs[1]) {
        Some(form) if form.axis.is_none_or(|axis| axis == columns) => Int8Weights::Stored(Int8Matrix {
            quantized: form.quantized,
            scale: form.scale,
            zero_points: form.zero_points,
            columns_first: matmul.b_transposed != form.transposed,
        }),
        _ if quantize && graph.values[node.inputs[1]].datum_type == DatumType::F32 => Int8Weights::Quantized,
        _ => return None,
    };
    let mut inputs = node.inputs.clone();
    // Activations on an 8-bit grid are integers already.
    let mut input_scale = None;
    if let Some((_, producer)) = graph.producer(inputs[0])
        && let Op::Dequantize(quantize::Dequantize(grid)) = &producer.op
    {
        input_scale = Some(grid.scale);
        inputs[0] = producer.inputs[0];
    }
    Some((Op::QMatMul(QMatMul { matmul: matmul.clone(), weights, input_scale }), inputs))
}

/// Rows of an int8 table with a scale for each row, or one for all.
fn rows(graph: &Graph, model: &TypedModel, node: &Node) -> Option<(Op, Vec<ValueId>)> {
    let Form { quantized, scale, axis, zero_points, transposed } = int8_form(graph, model, node.inputs[0])?;
    if transposed || axis.is_some_and(|axis| axis != 0) {
        return None;
    }
    Some((Op::QGather(QGather { quantized, scale, zero_points }), node.inputs.clone()))
}

/// A matrix of 8-bit numbers and scales.
struct Form {
    quantized: ValueId,
    scale: ValueId,
    /// The axis of the matrix that has a scale for each index; `None` for one scale.
    axis: Option<usize>,
    zero_points: Vec<i32>,
    /// Whether the numbers are the matrix's transpose.
    transposed: bool,
}

fn int8_form(graph: &Graph, model: &TypedModel, value: ValueId) -> Option<Form> {
    let shape = graph.known_shape(value).filter(|shape| shape.len() == 2)?;
    if let Some(made_of) = graph.dequantized.get(&value) {
        let axis = made_of.is_per_axis.then_some(made_of.axis);
        let fits = |count: usize| count <= 1 || axis.is_some_and(|axis| shape[axis] == count);
        return fits(made_of.zero_points.len()).then(|| Form {
            quantized: made_of.quantized,
            scale: made_of.scale,
            axis,
            zero_points: made_of.zero_points.clone(),
            transposed: false,
        });
    }
    let (_, node) = graph.producer(value)?;
    let Op::Tract(id) = node.op else { return None };
    let typed = model.node(id);
    if let Some(axis) = typed.op_as::<AxisOp>() {
        let is_transpose = matches!(axis, AxisOp::Move(0, 1) | AxisOp::Move(1, 0));
        let form = int8_form(graph, model, *node.inputs.first()?).filter(|_| is_transpose)?;
        return Some(Form { axis: form.axis.map(|axis| 1 - axis), transposed: !form.transposed, ..form });
    }
    typed.op_as::<TypedBinOp>().filter(|op| op.0.is::<Mul>())?;
    let &[first, second] = node.inputs.as_slice() else { return None };
    let cast = |value: ValueId| {
        let (_, node) = graph.producer(value)?;
        let Op::Tract(id) = node.op else { return None };
        let quantized = *node.inputs.first()?;
        let is_byte = matches!(graph.values[quantized].datum_type, DatumType::I8 | DatumType::U8);
        (is_byte && model.node(id).op_is::<Cast>()).then_some(quantized)
    };
    let (quantized, scale) = match (cast(first), cast(second)) {
        (Some(quantized), None) => (quantized, second),
        (None, Some(quantized)) => (quantized, first),
        _ => return None,
    };
    let scales = graph.known_shape(scale)?;
    if graph.known_shape(quantized)? != shape || graph.values[scale].datum_type != DatumType::F32 {
        return None;
    }
    let axis = match scales.as_slice() {
        scales if scales.iter().all(|size| *size == 1) => None,
        [1, columns] | [columns] if *columns == shape[1] => Some(1),
        [rows, 1] if *rows == shape[0] => Some(0),
        _ => return None,
    };
    Some(Form { quantized, scale, axis, zero_points: Vec::new(), transposed: false })
}
