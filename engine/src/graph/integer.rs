//! Joins operators between `DequantizeLinear` and `QuantizeLinear` to ones on the quantised values themselves.

use super::{Graph, Node, ValueId};
use crate::ops::pointwise::Pointwise;
use crate::ops::qconv::QConv;
use crate::ops::qpointwise::{QAdd, QMean};
use crate::ops::quantize::Grid;
use crate::ops::{Op, quantize};
use onnx_kernels::matrix::Clamp;
use onnx_kernels::reduce::Reduce;

/// Rewrites what is quantised before and after; to be done when everything else is joined.
pub(crate) fn to_integers(graph: &mut Graph) {
    let counts = graph.use_counts();
    for index in 0..graph.nodes.len() {
        let Some(node) = &graph.nodes[index] else { continue };
        let Op::Quantize(quantize::Quantize(grid)) = node.op else { continue };
        let Some((_, first)) = graph.producer(node.inputs[0]) else { continue };
        if counts[node.inputs[0]] != 1 {
            continue;
        }
        let joined = match &first.op {
            Op::Conv(_) | Op::MatMul(_) => product(graph, first, grid),
            Op::Pointwise(op) => sum(graph, first, op, grid),
            Op::Reduce(reduce) if reduce.kind == Reduce::Mean => mean(graph, first, &reduce.axes, grid),
            Op::Reshape => dequantized(graph, first.inputs[0])
                .filter(|(_, given)| *given == grid)
                .map(|(x, _)| (Op::Reshape, vec![x])),
            _ => None,
        };
        if let Some((op, inputs)) = joined {
            let (name, outputs) = (first.name.clone(), node.outputs.clone());
            graph.replace(index, Node { name, op, inputs, outputs });
        }
    }
    graph.remove_dead();
}

/// The quantised value that `value` is made of, and its grid.
fn dequantized(graph: &Graph, value: ValueId) -> Option<(ValueId, Grid)> {
    let (_, node) = graph.producer(value)?;
    match &node.op {
        Op::Dequantize(quantize::Dequantize(grid)) => Some((node.inputs[0], *grid)),
        _ => None,
    }
}

/// The grid with its ends where a clamp has them.
fn clamped(grid: Grid, clamp: Clamp) -> Grid {
    let step = |bound: f32| (bound / grid.scale).round_ties_even().clamp(grid.low.into(), grid.high.into()) as i16;
    let low = step(clamp.low);
    Grid { low, high: step(clamp.high).max(low), ..grid }
}

fn product(graph: &Graph, node: &Node, grid: Grid) -> Option<(Op, Vec<ValueId>)> {
    let (x, given) = dequantized(graph, node.inputs[0])?;
    let weights = graph.dequantized.get(&node.inputs[1])?.clone();
    let mut inputs = vec![x, node.inputs[1]];
    let (clamp, conv) = match &node.op {
        Op::Conv(conv) => {
            let is_dense = conv.group == 1;
            let is_depthwise = conv.group == conv.channels && conv.group == conv.output_channels;
            if conv.has_residual || !(is_dense || is_depthwise) || weights.axis != 0 && weights.is_per_axis {
                return None;
            }
            let conv_of = QConv {
                window: Some(conv.window.clone()),
                transposed: false,
                group: conv.group,
                channels: conv.channels,
                output_channels: conv.output_channels,
                has_bias: conv.has_bias,
                input_scale: given.scale,
                output: grid,
                weights,
            };
            (conv.clamp, conv_of)
        }
        Op::MatMul(matmul) => {
            let shape = graph.known_shape(node.inputs[1])?;
            let columns = if matmul.b_transposed { 0 } else { 1 };
            let is_plain = matmul.batch == 0 && matmul.n == 1 && matmul.k == 1 && !matmul.has_residual;
            if !is_plain || weights.is_per_axis && weights.axis != columns {
                return None;
            }
            let conv_of = QConv {
                window: None,
                transposed: matmul.b_transposed,
                group: 1,
                channels: shape[1 - columns],
                output_channels: shape[columns],
                has_bias: matmul.has_bias,
                input_scale: given.scale,
                output: grid,
                weights,
            };
            (matmul.clamp, conv_of)
        }
        _ => return None,
    };
    inputs.extend(conv.has_bias.then(|| node.inputs[2]));
    let output = clamped(grid, clamp);
    Some((Op::QConv(QConv { output, ..conv }), inputs))
}

fn sum(graph: &Graph, node: &Node, op: &Pointwise, grid: Grid) -> Option<(Op, Vec<ValueId>)> {
    let clamp = op.as_clamped_sum()?;
    let &[a, b] = node.inputs.as_slice() else { return None };
    let ((a, first), (b, second)) = (dequantized(graph, a)?, dequantized(graph, b)?);
    if graph.values[a].dims != graph.values[b].dims {
        return None;
    }
    let output = clamped(grid, clamp);
    Some((Op::QAdd(QAdd { scales: (first.scale, second.scale), output }), vec![a, b]))
}

/// A mean over all pixels of an image.
fn mean(graph: &Graph, node: &Node, axes: &[usize], grid: Grid) -> Option<(Op, Vec<ValueId>)> {
    let (x, given) = dequantized(graph, node.inputs[0])?;
    let rank = graph.values[x].dims.len();
    let is_global = rank == 4 && axes == [2, 3];
    is_global.then_some((Op::QMean(QMean { scale: given.scale, output: grid }), vec![x]))
}
