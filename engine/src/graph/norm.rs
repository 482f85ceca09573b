//! Finds layer and RMS normalisation in the operators that they are taken apart into.

use super::dims::Dim;
use super::pattern::is_about;
use super::{Graph, Node, ValueId};
use crate::ops::Op;
use crate::ops::norm::{Kind, Norm};
use onnx_kernels::pointwise::{Binary, Unary};
use onnx_kernels::reduce::Reduce;

/// Puts one node in the place of each normalisation.
pub(super) fn fuse(graph: &mut Graph) {
    for index in 0..graph.nodes.len() {
        let Some(output) = graph.nodes[index].as_ref().and_then(|node| node.outputs.first().copied()) else { continue };
        let Some((x, kind, epsilon)) = scaled(graph, output) else { continue };
        let mut found =
            Found { index, norm: Norm { kind, epsilon, has_weight: false, has_bias: false }, inputs: vec![x] };
        found.extend(graph, output);
        let Some(last) = &graph.nodes[found.index] else { continue };
        let node = Node {
            name: last.name.clone(),
            op: Op::Norm(found.norm),
            inputs: found.inputs,
            outputs: last.outputs.clone(),
        };
        graph.replace(found.index, node);
    }
}

struct Found {
    /// The last node of it so far.
    index: usize,
    norm: Norm,
    inputs: Vec<ValueId>,
}

impl Found {
    /// Takes in the weight and the bias that follow.
    fn extend(&mut self, graph: &Graph, output: ValueId) {
        let Some(columns) = graph.dims(output).last().and_then(|dim| dim.known()) else { return };
        let dims = graph.dims(output);
        let next = |value: ValueId, wanted: Binary| {
            let index = graph.only_user(value)?;
            let result = graph.nodes[index].as_ref()?.outputs[0];
            let (function, a, b) = graph.binary(result)?;
            let row = if a == value { b } else { a };
            let fits = function == wanted && graph.is_row(row, columns) && graph.dims(result) == dims;
            fits.then_some((index, row, result))
        };
        let Some((index, weight, output)) = next(output, Binary::Mul) else { return };
        (self.index, self.norm.has_weight) = (index, true);
        self.inputs.push(weight);
        if self.norm.kind == Kind::Rms {
            return;
        }
        if let Some((index, bias, _)) = next(output, Binary::Add) {
            (self.index, self.norm.has_bias) = (index, true);
            self.inputs.push(bias);
        }
    }
}

/// What `value` is the normalised form of, without weight and bias.
fn scaled(graph: &Graph, value: ValueId) -> Option<(ValueId, Kind, f32)> {
    let (function, a, b) = graph.binary(value)?;
    let sides = match function {
        Binary::Mul => vec![(a, b), (b, a)],
        Binary::Div => vec![(a, b)],
        _ => return None,
    };
    for (centred, scale) in sides {
        let shifted = match function {
            Binary::Mul => graph.of(scale, Unary::Rsqrt).or_else(|| {
                let root = graph.of(scale, Unary::Reciprocal)?;
                graph.of(root, Unary::Sqrt)
            }),
            _ => graph.of(scale, Unary::Sqrt),
        };
        let Some((Binary::Add, mean, epsilon)) = shifted.and_then(|shifted| graph.with_number(shifted)) else {
            continue;
        };
        let Some(squares) = mean_of(graph, mean) else { continue };
        let is_square = graph.of(squares, Unary::Square) == Some(centred)
            || graph.binary(squares) == Some((Binary::Mul, centred, centred));
        if !is_square || graph.dims(centred) != graph.dims(value) {
            continue;
        }
        return Some(match graph.binary(centred) {
            Some((Binary::Sub, x, mean)) if mean_of(graph, mean) == Some(x) => (x, Kind::Layer, epsilon),
            _ => (centred, Kind::Rms, epsilon),
        });
    }
    None
}

/// What `value` is the mean of along the last axis.
fn mean_of(graph: &Graph, value: ValueId) -> Option<ValueId> {
    let (factor, sum) = graph.unscaled(value);
    let (_, node) = graph.producer(sum)?;
    let Op::Reduce(reduce) = &node.op else { return None };
    let dims = graph.dims(node.inputs[0]);
    let Some(Dim::Known(columns)) = dims.last().copied() else { return None };
    let is_mean = reduce.kind == Reduce::Sum && is_about(factor, 1.0 / columns as f64)
        || reduce.kind == Reduce::Mean && sum == value;
    (is_mean && reduce.axes == [dims.len() - 1]).then(|| node.inputs[0])
}
