//! Joins nodes that one kernel does in one pass.
//!
//! What follows a convolution or a product with weights element by element goes into it where it can; other operators
//! element by element become chains.

use super::{Graph, Node, ValueId};
use crate::ops::pointwise::{self, Pointwise, Step};
use crate::ops::{Op, reduce};
use onnx_kernels::matrix::Clamp;
use onnx_kernels::pointwise::Binary;
use onnx_kernels::reduce::Reduce;

/// Joins what can be joined.
pub(crate) fn fuse(graph: &mut Graph) {
    graph.remove_dead();
    let mut counts = graph.use_counts();
    for index in 0..graph.nodes.len() {
        // A node may join with the one before it, and then with the one before that.
        while let Some(node) = &graph.nodes[index] {
            let joined = match &node.op {
                Op::Pointwise(op) => join_mean(graph, node, op, &counts)
                    .or_else(|| join_clamp(graph, node, op, &counts))
                    .or_else(|| join_sum(graph, node, op, &counts))
                    .or_else(|| join_chain(graph, node, op, &counts)),
                Op::Reshape => join_reshape(graph, node, &counts),
                _ => None,
            };
            let Some((first, node)) = joined else { break };
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
    let (index, node) = graph.producer(value)?;
    (counts[value] == 1 && node.outputs.len() == 1 && !graph.values[value].is_weight).then_some((index, node))
}

/// The joined node, named after the first.
fn join(first: &Node, second: &Node, op: Op, inputs: Vec<ValueId>) -> Node {
    Node { name: first.name.clone(), op, inputs, outputs: second.outputs.clone() }
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
        Op::Conv(conv) => {
            Some(Ending { has_bias: &mut conv.has_bias, has_residual: &mut conv.has_residual, clamp: &mut conv.clamp })
        }
        Op::MatMul(matmul) if matmul.batch == 0 && graph.values[inputs[1]].is_weight => Some(Ending {
            has_bias: &mut matmul.has_bias,
            has_residual: &mut matmul.has_residual,
            clamp: &mut matmul.clamp,
        }),
        _ => None,
    }
}

/// A clip goes into what computes its input.
fn join_clamp(graph: &Graph, node: &Node, op: &Pointwise, counts: &[usize]) -> Joined {
    let second = op.as_clamp()?;
    let (index, first) = only_user(graph, node.inputs[0], counts)?;
    let mut op = first.op.clone();
    if let Op::Pointwise(chain) = &mut op {
        let first = chain.as_clamp()?;
        let Clamp { low, high } = pointwise::joined(first, second);
        *chain = Pointwise::unary(onnx_kernels::pointwise::Unary::Clamp { low, high });
    } else {
        let ending = ending(graph, &mut op, &first.inputs)?;
        *ending.clamp = pointwise::joined(*ending.clamp, second);
    }
    Some((index, join(first, node, op, first.inputs.clone())))
}

/// A sum goes into what computes one of its inputs: as its bias, or as a value that it adds.
fn join_sum(graph: &Graph, node: &Node, op: &Pointwise, counts: &[usize]) -> Joined {
    if !op.is_sum() {
        return None;
    }
    let output = node.outputs[0];
    let dims = &graph.values[output].dims;
    for (one, other) in [(0, 1), (1, 0)] {
        let (value, added) = (node.inputs[one], node.inputs[other]);
        let Some((index, first)) = only_user(graph, value, counts) else { continue };
        let (mut op, mut inputs) = (first.op.clone(), first.inputs.clone());
        let Some(ending) = ending(graph, &mut op, &first.inputs) else { continue };
        // The sum comes before the clamp.
        if &graph.values[value].dims != dims || *ending.clamp != Clamp::NONE || *ending.has_residual {
            continue;
        }
        let is_weight = graph.values[added].is_weight;
        if is_weight && !*ending.has_bias && is_row(graph, &first.op, added, output) {
            *ending.has_bias = true;
            inputs.insert(2, added);
        } else if &graph.values[added].dims == dims && !is_weight {
            *ending.has_residual = true;
            inputs.push(added);
        } else {
            continue;
        }
        return Some((index, join(first, node, op, inputs)));
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
fn join_mean(graph: &Graph, node: &Node, op: &Pointwise, counts: &[usize]) -> Joined {
    let [Step::Number { function, number, reversed: false }] = op.steps.as_slice() else { return None };
    let divisor = match function {
        Binary::Div => *number,
        Binary::Mul => 1.0 / number,
        _ => return None,
    };
    let (index, first) = only_user(graph, node.inputs[0], counts)?;
    let Op::Reduce(reduced) = &first.op else { return None };
    let input = &graph.values[first.inputs[0]].dims;
    let terms = reduced.axes.iter().try_fold(1, |terms, axis| Some(terms * input[*axis].known()?))?;
    if reduced.kind != Reduce::Sum || divisor != terms as f32 {
        return None;
    }
    let op = Op::Reduce(reduce::Reduce { kind: Reduce::Mean, axes: reduced.axes.clone() });
    Some((index, join(first, node, op, first.inputs.clone())))
}

/// Operators element by element become a chain, where what the first computes has the shape of the whole.
fn join_chain(graph: &Graph, node: &Node, op: &Pointwise, counts: &[usize]) -> Joined {
    let dims = &graph.values[node.outputs[0]].dims;
    for (one, swap) in [(0, false), (1, true)] {
        let Some(&value) = node.inputs.get(one) else { continue };
        let Some((index, first)) = only_user(graph, value, counts) else { continue };
        let Op::Pointwise(before) = &first.op else { continue };
        if &graph.values[value].dims != dims {
            continue;
        }
        let mut rest = node.inputs.clone();
        rest.remove(one);
        let Some(op) = (if swap { op.swapped() } else { Some(op.clone()) }) else { continue };
        let Some(chain) = before.then(&op) else { continue };
        let inputs = [&*first.inputs, &*rest].concat();
        return Some((index, join(first, node, Op::Pointwise(chain), inputs)));
    }
    None
}

/// A reshape of a reshape is one.
fn join_reshape(graph: &Graph, node: &Node, counts: &[usize]) -> Joined {
    let (index, first) = only_user(graph, node.inputs[0], counts)?;
    let joins = first.op == Op::Reshape;
    joins.then(|| (index, join(first, node, Op::Reshape, first.inputs.clone())))
}
