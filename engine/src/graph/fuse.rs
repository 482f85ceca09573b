//! Joins nodes that one kernel does in one pass: what follows a convolution or a product with weights element by element
//! goes into it.

use super::{Graph, Node, ValueId};
use crate::kernel::{BinaryKind, ReduceKind};
use crate::ops::{Op, clamp, reduce};
use onnx_kernels::matrix::Clamp;

/// Rewrites the graph until nothing can be joined any more.
pub(crate) fn fuse(graph: &mut Graph) {
    graph.remove_dead();
    let mut counts = graph.use_counts();
    for index in 0..graph.nodes.len() {
        let Some(node) = &graph.nodes[index] else { continue };
        let joined = match &node.op {
            Op::Clamp(clamp) => join_clamp(graph, node, clamp.0, &counts),
            Op::Binary(binary) if binary.kind == BinaryKind::Add => join_add(graph, node, &counts),
            Op::Binary(_) => join_mean(graph, node, &counts),
            Op::Reshape => join_reshape(graph, node, &counts),
            _ => None,
        };
        if let Some((first, node)) = joined {
            // The joined node stands where the second stood, so all it takes is computed before it.
            if let Some(first) = graph.nodes[first].take() {
                first.outputs.iter().for_each(|output| counts[*output] = 0);
            }
            graph.replace(index, node);
        }
    }
    graph.remove_dead();
}

/// A node that takes the place of two, and the index of the first of them.
type Joined = Option<(usize, Node)>;

/// The node that computes `value`, when nothing else uses it.
fn only_user<'a>(graph: &'a Graph, value: ValueId, counts: &[usize]) -> Option<(usize, &'a Node)> {
    if counts[value] == 1 { graph.producer(value) } else { None }
}

/// What a convolution or product does at its end.
struct Ending<'a> {
    has_bias: &'a mut bool,
    has_residual: &'a mut bool,
    clamp: &'a mut Clamp,
}

/// The end of an operator that has one: of a product only when it is one with weights.
fn ending<'a>(graph: &Graph, op: &'a mut Op, inputs: &[ValueId]) -> Option<Ending<'a>> {
    match op {
        Op::Conv(conv) => Some(Ending {
            has_bias: &mut conv.has_bias,
            has_residual: &mut conv.has_residual,
            clamp: &mut conv.clamp,
        }),
        Op::MatMul(matmul) if matmul.batch == 0 && graph.values[inputs[1]].is_weight => Some(Ending {
            has_bias: &mut matmul.has_bias,
            has_residual: &mut matmul.has_residual,
            clamp: &mut matmul.clamp,
        }),
        _ => None,
    }
}

fn join_clamp(graph: &Graph, node: &Node, second: Clamp, counts: &[usize]) -> Joined {
    let (index, first) = only_user(graph, node.inputs[0], counts)?;
    let mut op = first.op.clone();
    if let Op::Clamp(first) = &mut op {
        first.0 = clamp::joined(first.0, second);
    } else {
        let ending = ending(graph, &mut op, &first.inputs)?;
        *ending.clamp = clamp::joined(*ending.clamp, second);
    }
    Some((index, Node { name: first.name.clone(), op, inputs: first.inputs.clone(), outputs: node.outputs.clone() }))
}

fn join_add(graph: &Graph, node: &Node, counts: &[usize]) -> Joined {
    let output = node.outputs[0];
    let dims = &graph.values[output].dims;
    for (one, other) in [(0, 1), (1, 0)] {
        let (value, added) = (node.inputs[one], node.inputs[other]);
        let Some((index, first)) = only_user(graph, value, counts) else { continue };
        if &graph.values[value].dims != dims {
            continue;
        }
        let (mut op, mut inputs) = (first.op.clone(), first.inputs.clone());
        let Some(ending) = ending(graph, &mut op, &first.inputs) else { continue };
        // The sum comes before the clamp.
        if *ending.clamp != Clamp::NONE || *ending.has_residual {
            continue;
        }
        let is_row = graph.values[added].is_weight && is_row(graph, &first.op, added, output);
        if is_row && !*ending.has_bias {
            *ending.has_bias = true;
            inputs.insert(2, added);
        } else if &graph.values[added].dims == dims && !graph.values[added].is_weight {
            *ending.has_residual = true;
            inputs.push(added);
        } else {
            continue;
        }
        let name = first.name.clone();
        return Some((index, Node { name, op, inputs, outputs: node.outputs.clone() }));
    }
    None
}

/// Whether a value has one element for each of the last axis of a product, or for each channel of a convolution.
fn is_row(graph: &Graph, op: &Op, value: ValueId, output: ValueId) -> bool {
    let (dims, output) = (&graph.values[value].dims, &graph.values[output].dims);
    let axis = match op {
        Op::MatMul(matmul) if matmul.n == 1 => output.len() - 1,
        Op::Conv(_) => 1,
        _ => return false,
    };
    let Some(from_end) = output.len().checked_sub(axis).filter(|count| *count <= dims.len()) else { return false };
    let at = dims.len() - from_end;
    dims.iter().enumerate().all(|(index, dim)| if index == at { *dim == output[axis] } else { dim.is_one() })
}

/// A sum divided by the number of its terms is a mean.
fn join_mean(graph: &Graph, node: &Node, counts: &[usize]) -> Joined {
    let Op::Binary(binary) = &node.op else { return None };
    let (sum, factor) = match binary.kind {
        BinaryKind::Div => (node.inputs[0], graph.scalar(node.inputs[1])?),
        BinaryKind::Mul => match graph.scalar(node.inputs[1]) {
            Some(factor) => (node.inputs[0], 1.0 / factor),
            None => (node.inputs[1], 1.0 / graph.scalar(node.inputs[0])?),
        },
        _ => return None,
    };
    let (index, first) = only_user(graph, sum, counts)?;
    let Op::Reduce(reduced) = &first.op else { return None };
    let input = &graph.values[first.inputs[0]].dims;
    let terms = reduced.axes.iter().try_fold(1, |terms, axis| Some(terms * input[*axis].known()?))?;
    if reduced.kind != ReduceKind::Sum || factor != terms as f32 || graph.values[sum].dims != graph.values[node.outputs[0]].dims {
        return None;
    }
    let op = Op::Reduce(reduce::Reduce { kind: ReduceKind::Mean, axes: reduced.axes.clone() });
    Some((index, Node { name: first.name.clone(), op, inputs: first.inputs.clone(), outputs: node.outputs.clone() }))
}

/// A reshape of a reshape is one.
fn join_reshape(graph: &Graph, node: &Node, counts: &[usize]) -> Joined {
    let (index, first) = only_user(graph, node.inputs[0], counts)?;
    if first.op != Op::Reshape {
        return None;
    }
    let node = Node { name: node.name.clone(), op: Op::Reshape, inputs: first.inputs.clone(), outputs: node.outputs.clone() };
    Some((index, node))
}
