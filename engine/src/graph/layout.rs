//! Turns convolutions, and what is around them, from ONNX's channels first to channels last, which their kernels take.
//!
//! Each value may exist in both orders: as it was, and as a twin whose channels are its last axis. A twin is made where
//! it is needed, and so is the first form of a value that was computed as a twin; the way between them is a transpose,
//! or nothing when the elements lie the same.

use super::dims::Dim;
use super::{Graph, Node, Source, Value, ValueId};
use crate::ops::copy::Move;
use crate::ops::qconv_dynamic::DynamicQConv;
use crate::ops::{Op, concat, reduce};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Brings every convolution and pooling, and what can go with them, to channels last.
pub(crate) fn channels_last(graph: &mut Graph) {
    let has_window = |node: &Node| match &node.op {
        Op::IntegerProduct(product) => product.window.is_some(),
        op => matches!(op, Op::Conv(_) | Op::DynamicQConv(_) | Op::Pool(_) | Op::QConv(_)),
    };
    if !graph.nodes.iter().flatten().any(has_window) {
        return;
    }
    let nodes = std::mem::take(&mut graph.nodes);
    let mut layout = Layout { graph, twins: BTreeMap::new(), unmade: BTreeSet::new() };
    nodes.into_iter().flatten().for_each(|node| layout.node(node));
    for output in layout.graph.outputs.clone() {
        layout.first_form(output);
    }
    graph.remove_dead();
}

struct Layout<'a> {
    graph: &'a mut Graph,
    /// Twins, by the value they are of.
    twins: BTreeMap<ValueId, ValueId>,
    /// Values that exist as their twin only.
    unmade: BTreeSet<ValueId>,
}

/// The order of a twin's axes.
fn to_last(rank: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rank).collect();
    order.remove(1);
    order.push(1);
    order
}

/// The order of axes that leads back from a twin.
fn to_first(rank: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rank - 1).collect();
    order.insert(1, rank - 1);
    order
}

/// Where an axis is in a twin.
fn axis_in_twin(axis: usize, rank: usize) -> usize {
    match axis {
        0 => 0,
        1 => rank - 1,
        _ => axis - 1,
    }
}

fn permuted(dims: &[Dim], order: &[usize]) -> Vec<Dim> {
    order.iter().map(|axis| dims[*axis]).collect()
}

impl Layout<'_> {
    fn push(&mut self, mut node: Node) {
        let index = self.graph.nodes.len();
        for (slot, output) in node.outputs.iter().enumerate() {
            self.graph.values[*output].source = Source::Node(index, slot);
        }
        node.inputs.shrink_to_fit();
        self.graph.nodes.push(Some(node));
    }

    fn rank(&self, value: ValueId) -> usize {
        self.graph.values[value].dims.len()
    }

    fn new_twin(&mut self, value: ValueId) -> ValueId {
        let Value { name, datum_type, dims, source, is_weight } = self.graph.values[value].clone();
        let dims = permuted(&dims, &to_last(dims.len()));
        let twin = self.graph.add_value(Value { name, datum_type, dims, source, is_weight });
        self.twins.insert(value, twin);
        twin
    }

    /// A node that brings `from` into another order of axes.
    fn convert(&mut self, from: ValueId, to: ValueId, permutation: Vec<usize>) {
        let transpose = Move::Transpose { permutation };
        let dims = &self.graph.values[from].dims;
        let op = match transpose.keeps_order(|axis| dims[axis].is_one()) {
            true => Op::Reshape,
            false => Op::Move(transpose),
        };
        let name = self.graph.values[from].name.clone();
        self.push(Node { name, op, inputs: vec![from], outputs: vec![to] });
    }

    /// The twin of a value.
    fn twin(&mut self, value: ValueId) -> ValueId {
        if let Some(twin) = self.twins.get(&value) {
            return *twin;
        }
        let order = to_last(self.rank(value));
        if let Some(constant) = self.graph.constant(value).cloned()
            && let Ok(permuted) = (*constant).clone().permute_axes(&order)
        {
            let name = self.graph.values[value].name.clone();
            let twin = self.graph.add_constant(&name, Arc::new(permuted));
            self.twins.insert(value, twin);
            return twin;
        }
        let twin = self.new_twin(value);
        self.convert(value, twin, order);
        twin
    }

    /// Sees to it that a value exists in its first form.
    fn first_form(&mut self, value: ValueId) {
        if self.unmade.remove(&value) {
            let twin = self.twins[&value];
            let order = to_first(self.rank(value));
            self.convert(twin, value, order);
        }
    }

    /// Whether a value exists as its twin only, so that it is better taken as that.
    fn is_last(&self, value: ValueId) -> bool {
        self.unmade.contains(&value)
    }

    /// Pushes `node` with its inputs and output as twins.
    fn push_as_twin(&mut self, mut node: Node, inputs: &[usize]) {
        for input in inputs {
            node.inputs[*input] = self.twin(node.inputs[*input]);
        }
        let output = node.outputs[0];
        node.outputs[0] = self.new_twin(output);
        self.unmade.insert(output);
        self.push(node);
    }

    fn node(&mut self, mut node: Node) {
        let rank = node.outputs.first().map_or(0, |output| self.rank(*output));
        let any_last = node.inputs.iter().any(|input| self.is_last(*input));
        // A weight is only turned when it is known here.
        let can_turn = |layout: &Self, input: &ValueId| {
            let value = &layout.graph.values[*input];
            value.dims.len() == rank && (!value.is_weight || matches!(value.source, Source::Constant(_)))
        };
        let all_can = node.inputs.iter().all(|input| can_turn(self, input));
        let is_last = any_last && all_can && rank >= 3;
        match &mut node.op {
            Op::Conv(conv) | Op::DynamicQConv(DynamicQConv(conv)) => {
                let residual = conv.has_residual.then(|| node.inputs.len() - 1);
                let turned: Vec<usize> = std::iter::once(0).chain(residual).collect();
                return self.push_as_twin(node, &turned);
            }
            Op::Pool(_) | Op::QMean(_) => return self.push_as_twin(node, &[0]),
            Op::QConv(conv) if conv.window.is_some() => return self.push_as_twin(node, &[0]),
            Op::IntegerProduct(op) if op.window.is_some() => return self.push_as_twin(node, &[0]),
            Op::QAdd(_) if is_last => return self.push_as_twin(node, &[0, 1]),
            Op::Quantize(_) | Op::Dequantize(_) | Op::Centre(_) | Op::Uncentre(_) if is_last => {
                return self.push_as_twin(node, &[0]);
            }
            Op::Pointwise(_) if is_last => {
                let inputs: Vec<usize> = (0..node.inputs.len()).collect();
                return self.push_as_twin(node, &inputs);
            }
            Op::Concat(concat::Concat { axis }) if is_last => {
                *axis = axis_in_twin(*axis, rank);
                let inputs: Vec<usize> = (0..node.inputs.len()).collect();
                return self.push_as_twin(node, &inputs);
            }
            Op::Reduce(reduce::Reduce { axes, .. }) if is_last => {
                let mut turned: Vec<usize> = axes.iter().map(|axis| axis_in_twin(*axis, rank)).collect();
                turned.sort_unstable();
                // The kernel takes adjacent axes.
                if turned.windows(2).all(|pair| pair[1] == pair[0] + 1) {
                    *axes = turned;
                    return self.push_as_twin(node, &[0]);
                }
            }
            Op::Move(Move::Slice { starts, steps }) if is_last => {
                let order = to_last(rank);
                *starts = permuted(starts, &order);
                *steps = order.iter().map(|axis| steps[*axis]).collect();
                return self.push_as_twin(node, &[0]);
            }
            Op::Move(Move::Transpose { permutation }) if rank >= 3 => {
                let (input, output) = (node.inputs[0], node.outputs[0]);
                if *permutation == to_last(rank) && self.is_last(input) {
                    // What is asked for is the twin.
                    node.inputs[0] = self.twins[&input];
                    node.op = Op::Reshape;
                    return self.push(node);
                }
                if *permutation == to_first(rank) && !self.is_last(input) {
                    // What is given is the twin.
                    self.twins.insert(output, input);
                    self.unmade.insert(output);
                    return;
                }
            }
            _ => {}
        }
        for input in &node.inputs {
            self.first_form(*input);
        }
        self.push(node);
    }
}
