//! Finds attention, rotary position embedding and caches of keys and values in the operators they are written with.

use super::dims::Dim;
use super::{Graph, Node, Source, ValueId};
use crate::ops::append::Append;
use crate::ops::attention::{Attention, Axes};
use crate::ops::copy::Move;
use crate::ops::matmul::MatMul;
use crate::ops::rotary::Rotary;
use crate::ops::select::Select;
use crate::ops::typed::{Function, Typed};
use crate::ops::{Op, concat};
use onnx_kernels::pointwise::{Binary, Unary};
use onnx_kernels::typed::Comparison;
use std::sync::Arc;
use tract_onnx::prelude::{DatumType, Tensor};

/// The order of axes that turns the one of [`Axes`] into the other.
const HEADS_AND_POSITIONS: [usize; 4] = [0, 2, 1, 3];

/// Puts one node in the place of each.
pub(super) fn fuse(graph: &mut Graph) {
    for index in 0..graph.nodes.len() {
        fuse_rotary(graph, index);
    }
    for index in 0..graph.nodes.len() {
        fuse_append(graph, index);
    }
    for index in 0..graph.nodes.len() {
        fuse_attention(graph, index);
    }
}

fn output_of(graph: &Graph, index: usize) -> Option<ValueId> {
    graph.nodes[index].as_ref()?.outputs.first().copied()
}

/// `x cos + concat(-x2, x1) sin`. Where x was turned to have its heads first, it is turned afterwards instead, which
/// what follows may do without.
fn fuse_rotary(graph: &mut Graph, index: usize) -> Option<()> {
    let output = output_of(graph, index)?;
    let (Binary::Add, a, b) = graph.binary(output)? else { return None };
    for (straight, turned) in [(a, b), (b, a)] {
        let (Some((Binary::Mul, a, b)), Some((Binary::Mul, c, d))) = (graph.binary(straight), graph.binary(turned))
        else {
            continue;
        };
        for (x, cosines) in [(a, b), (b, a)] {
            for (rotated, sines) in [(c, d), (d, c)] {
                if is_rotated(graph, rotated, x) && are_tables(graph, x, cosines) && are_tables(graph, x, sines) {
                    return replace_rotary(graph, index, [x, cosines, sines], turned);
                }
            }
        }
    }
    None
}

/// Whether `value` is `concat(-x2, x1)` along the last of four axes.
fn is_rotated(graph: &Graph, value: ValueId, x: ValueId) -> bool {
    let Some((_, node)) = graph.producer(value) else { return false };
    let (Op::Concat(concat::Concat { axis: 3 }), &[first, second]) = (&node.op, node.inputs.as_slice()) else {
        return false;
    };
    let Some(columns) = graph.dims(x).get(3).and_then(|dim| dim.known()) else { return false };
    let half = |value: ValueId, start: usize| {
        let Some((_, node)) = graph.producer(value) else { return false };
        let Op::Move(Move::Slice { starts, steps }) = &node.op else { return false };
        let starts_at = |(axis, dim): (usize, &Dim)| *dim == Dim::Known(if axis == 3 { start } else { 0 });
        node.inputs[0] == x
            && starts.len() == 4
            && starts.iter().enumerate().all(starts_at)
            && steps.iter().all(|step| *step == 1)
            && graph.dims(value)[..3] == graph.dims(x)[..3]
            && graph.dims(value)[3] == Dim::Known(columns / 2)
    };
    let negated = graph.of(first, Unary::Neg);
    columns.is_multiple_of(2) && negated.is_some_and(|negated| half(negated, columns / 2)) && half(second, 0)
}

/// Whether a value has a row for each position of `x`.
fn are_tables(graph: &Graph, x: ValueId, tables: ValueId) -> bool {
    let (x, tables) = (graph.dims(x), graph.dims(tables));
    x.len() == 4
        && tables.len() == 4
        && (tables[0] == x[0] || tables[0].is_one())
        && tables[1].is_one()
        && tables[2..] == x[2..]
}

fn replace_rotary(graph: &mut Graph, index: usize, inputs: [ValueId; 3], before: ValueId) -> Option<()> {
    let [x, cosines, sines] = inputs;
    let (name, outputs) = {
        let node = graph.nodes[index].as_ref()?;
        (node.name.clone(), node.outputs.clone())
    };
    let (slot, _) = graph.producer(before)?;
    let is_free = graph.only_user(before) == Some(index);
    match graph.transposed_from(x, &HEADS_AND_POSITIONS).filter(|_| is_free) {
        None => {
            let op = Op::Rotary(Rotary::full(false));
            graph.replace(index, Node { name, op, inputs: vec![x, cosines, sines], outputs });
        }
        Some(source) => {
            // It takes the place of a node that is not needed any more, which stands behind all that it needs.
            let rotated = graph.add_value(graph.values[source].clone());
            let op = Op::Rotary(Rotary::full(true));
            let inputs = vec![source, cosines, sines];
            graph.replace(slot, Node { name: name.clone(), op, inputs, outputs: vec![rotated] });
            let op = Op::Move(Move::Transpose { permutation: HEADS_AND_POSITIONS.to_vec() });
            graph.replace(index, Node { name, op, inputs: vec![rotated], outputs });
        }
    }
    Some(())
}

/// A value and how its axes lie, taken from before a node that does nothing but turn it.
fn before_turning(graph: &Graph, value: ValueId) -> (ValueId, Axes) {
    match graph.transposed_from(value, &HEADS_AND_POSITIONS) {
        Some(source) => (source, Axes::ByPosition),
        None => (value, Axes::ByHead),
    }
}

/// `concat(past, new)` of an input of the graph, which is an output of it.
fn fuse_append(graph: &mut Graph, index: usize) -> Option<()> {
    let node = graph.nodes[index].as_ref()?;
    let (Op::Concat(concat::Concat { axis: 2 }), &[past, new]) = (&node.op, node.inputs.as_slice()) else {
        return None;
    };
    let output = node.outputs[0];
    let is_float = graph.values[output].datum_type == DatumType::F32;
    let is_input = matches!(graph.values[past].source, Source::Input(_));
    if !is_float || !is_input || graph.dims(output).len() != 4 || !graph.outputs.contains(&output) {
        return None;
    }
    let (name, outputs) = (node.name.clone(), node.outputs.clone());
    let (new, axes) = before_turning(graph, new);
    graph.replace(index, Node { name, op: Op::Append(Append { new: axes }), inputs: vec![past, new], outputs });
    Some(())
}

/// What a product of an attention multiplies with, heads shared.
struct Shared {
    value: ValueId,
    axes: Axes,
    factor: f32,
}

/// The keys or values that `value` is made of: `[batch, heads, positions, columns]`, or with `turned` with its last axes
/// exchanged.
fn shared(graph: &Graph, value: ValueId, heads: Dim, mut turned: bool) -> Option<Shared> {
    let (mut value, mut factor) = (value, 1.0);
    loop {
        let dims = graph.dims(value);
        if dims.len() != 4 {
            return None;
        }
        let (number, unscaled) = graph.unscaled(value);
        if unscaled != value {
            if graph.dims(unscaled) != dims {
                return None;
            }
            (value, factor) = (unscaled, factor * number);
        } else if let Some(source) = graph.transposed_from(value, &[0, 1, 3, 2]) {
            (value, turned) = (source, !turned);
        } else if let Some(source) = graph.transposed_from(value, &[0, 2, 3, 1]).filter(|_| turned) {
            return Some(Shared { value: source, axes: Axes::ByPosition, factor });
        } else if let Some(source) = turned_by_batch(graph, value) {
            (value, turned) = (source, !turned);
        } else if let Some(source) = repeated(graph, value, heads).filter(|_| !turned) {
            let (value, axes) = before_turning(graph, source);
            return Some(Shared { value, axes, factor });
        } else if turned {
            return None;
        } else {
            let (value, axes) = before_turning(graph, value);
            return Some(Shared { value, axes, factor });
        }
    }
}

/// The last two axes exchanged with the first two as one.
fn turned_by_batch(graph: &Graph, value: ValueId) -> Option<ValueId> {
    let source = graph.reshaped_from(graph.transposed_from(graph.reshaped_from(value)?, &[0, 2, 1])?)?;
    let (from, to) = (graph.dims(source), graph.dims(value));
    (from.len() == 4 && from[..2] == to[..2] && from[2] == to[3] && from[3] == to[2]).then_some(source)
}

/// Heads that several heads of the queries share, each repeated as often.
fn repeated(graph: &Graph, value: ValueId, heads: Dim) -> Option<ValueId> {
    let broadcast = graph.reshaped_from(value)?;
    let (_, node) = graph.producer(broadcast)?;
    let (Op::Move(Move::Broadcast), wide) = (&node.op, graph.dims(broadcast)) else { return None };
    let source = graph.reshaped_from(node.inputs[0])?;
    let (from, to) = (graph.dims(source), graph.dims(value));
    let &[batch, kv_heads, group, positions, columns] = wide else { return None };
    let is_repeated = to[1] == heads
        && kv_heads.known()? * group.known()? == heads.known()?
        && graph.dims(node.inputs[0]) == [batch, kv_heads, Dim::Known(1), positions, columns]
        && from == [batch, kv_heads, positions, columns]
        && to == [batch, heads, positions, columns];
    is_repeated.then_some(source)
}

/// A product of four axes, batch and heads first.
fn product(graph: &Graph, value: ValueId) -> Option<(&MatMul, ValueId, ValueId)> {
    let (_, node) = graph.producer(value)?;
    let Op::MatMul(matmul) = &node.op else { return None };
    let fits = (matmul.batch, matmul.m, matmul.n, matmul.k) == (2, 1, 1, 1) && graph.dims(value).len() == 4;
    fits.then_some((matmul, node.inputs[0], node.inputs[1]))
}

fn fuse_attention(graph: &mut Graph, index: usize) -> Option<()> {
    let output = output_of(graph, index)?;
    let (by_values, weights, values) = product(graph, output)?;
    let heads = graph.dims(output)[1];
    let values = shared(graph, values, heads, by_values.b_transposed)?;
    let (weights, nan_to_zero) = without_nan(graph, weights);
    let (_, softmax) = graph.producer(weights)?;
    let Op::Softmax(op) = &softmax.op else { return None };
    let mut scores = softmax.inputs[0];
    let shape = graph.dims(scores).to_vec();
    let mut factor = op.scale;
    let mut mask = None;
    if op.is_log || shape.len() != 4 {
        return None;
    }
    if let Some((Binary::Add, a, b)) = graph.binary(scores) {
        let is_product = |value: ValueId| product(graph, capped(graph, value).scores).is_some();
        let (product, added) = if is_product(a) { (a, b) } else { (b, a) };
        // A scale after the mask scales that too.
        if factor != 1.0 {
            return None;
        }
        (scores, mask) = (product, Some(added));
    }
    let hidden = hidden(graph, scores).filter(|_| mask.is_none() && factor == 1.0);
    if let Some(hidden) = &hidden {
        scores = hidden.scores;
    }
    let Capped { scores, factor: number, softcap } = capped(graph, scores);
    // A scale after the cap scales that too.
    if softcap != 0.0 && factor != 1.0 {
        return None;
    }
    factor *= number;
    let (by_keys, queries, keys) = product(graph, scores)?;
    let product_shape = graph.dims(scores);
    if product_shape[..3] != shape[..3]
        || !may_be_equal(product_shape[3], shape[3])
        || mask.is_some_and(|mask| !is_mask(graph, mask, product_shape))
        || hidden.as_ref().is_some_and(|hidden| !broadcasts(graph.dims(hidden.condition), product_shape))
    {
        return None;
    }
    let keys = shared(graph, keys, heads, !by_keys.b_transposed)?;
    let (number, queries) = graph.unscaled(queries);
    factor *= number * keys.factor;
    let (queries, query_axes) = before_turning(graph, queries);
    let plain = [queries, keys.value, values.value].into_iter().all(|value| {
        let value = &graph.values[value];
        value.datum_type == DatumType::F32 && value.dims.len() == 4
    });
    // A batch of one that stands for all is not done here.
    let batch = |value: ValueId| graph.dims(value)[0];
    if !plain || values.factor != 1.0 || [keys.value, values.value].iter().any(|value| batch(*value) != batch(queries))
    {
        return None;
    }
    // What follows may be no more than a turn of the axes.
    let turn = graph.only_user(output).filter(|user| {
        let result = output_of(graph, *user);
        result.is_some_and(|result| graph.transposed_from(result, &HEADS_AND_POSITIONS) == Some(output))
    });
    let mask = mask.or_else(|| hidden.and_then(|hidden| hidden.mask(graph)));
    let op = Attention {
        scale: factor,
        softcap,
        has_mask: mask.is_some(),
        nan_to_zero,
        queries: query_axes,
        keys: keys.axes,
        values: values.axes,
        output: if turn.is_some() { Axes::ByPosition } else { Axes::ByHead },
    };
    let inputs = [queries, keys.value, values.value].into_iter().chain(mask).collect();
    let index = turn.unwrap_or(index);
    let node = graph.nodes[index].as_ref()?;
    let (name, outputs) = (node.name.clone(), node.outputs.clone());
    graph.replace(index, Node { name, op: Op::Attention(op), inputs, outputs });
    Some(())
}

/// Scores before they are scaled and, if they are, capped: `softcap tanh(factor scores / softcap)`.
struct Capped {
    scores: ValueId,
    factor: f32,
    softcap: f32,
}

fn capped(graph: &Graph, value: ValueId) -> Capped {
    let unscaled = |mut value: ValueId| {
        let mut factor = 1.0;
        loop {
            let (number, next) = graph.unscaled(value);
            if next == value {
                return (factor, value);
            }
            (factor, value) = (factor * number, next);
        }
    };
    let (factor, scores) = unscaled(value);
    match graph.of(scores, Unary::Tanh) {
        Some(argument) if factor > 0.0 => {
            let (number, scores) = unscaled(argument);
            Capped { scores, factor: number * factor, softcap: factor }
        }
        _ => Capped { scores, factor, softcap: 0.0 },
    }
}

/// Whether a value can be added to scores of this shape by the kernel.
fn is_mask(graph: &Graph, value: ValueId, shape: &[Dim]) -> bool {
    let value = &graph.values[value];
    value.datum_type == DatumType::F32 && broadcasts(&value.dims, shape)
}

/// Whether a value of four axes can be broadcast to scores of this shape.
fn broadcasts(dims: &[Dim], shape: &[Dim]) -> bool {
    let broadcast = |(own, whole): (&Dim, &Dim)| own == whole || own.is_one();
    dims.len() == 4
        && (may_be_equal(dims[3], shape[3]) || dims[3].is_one())
        && dims.iter().zip(&shape[..3]).all(broadcast)
}

/// Scores of which those that a condition does not let through have a number far below all others.
struct Hidden {
    /// The node that puts the number there.
    index: usize,
    scores: ValueId,
    condition: ValueId,
    number: ValueId,
}

/// Numbers of at most this have the weight 0 beside any score that a model computes.
const FAR_BELOW: f32 = -1e4;

fn hidden(graph: &Graph, value: ValueId) -> Option<Hidden> {
    let (index, node) = graph.producer(value)?;
    let (Op::Select(_), &[condition, scores, number]) = (&node.op, node.inputs.as_slice()) else { return None };
    let is_far_below = graph.scalar(number).is_some_and(|number| number <= FAR_BELOW);
    (is_far_below && graph.only_user(value).is_some()).then_some(Hidden { index, scores, condition, number })
}

impl Hidden {
    /// A mask that is added instead: 0, or the number.
    fn mask(&self, graph: &mut Graph) -> Option<ValueId> {
        let number = graph.scalar(self.number)?;
        // Mostly all layers have the same.
        let is_same = |node: &&Node| {
            let &[condition, zero, other] = node.inputs.as_slice() else { return false };
            matches!(node.op, Op::Select(_))
                && condition == self.condition
                && graph.scalar(zero) == Some(0.0)
                && graph.scalar(other) == Some(number)
        };
        if let Some(node) = graph.nodes[..self.index].iter().flatten().find(is_same) {
            return node.outputs.first().copied();
        }
        let name = graph.nodes[self.index].as_ref()?.name.clone();
        let zero = graph.add_constant(&name, Arc::new(Tensor::from(0f32)));
        let number = graph.add_constant(&name, Arc::new(Tensor::from(number)));
        let mut value = graph.values[self.condition].clone();
        value.datum_type = DatumType::F32;
        // A step makes it, also where the condition is an expression of weights.
        value.is_weight = false;
        let mask = graph.add_value(value);
        let op = Op::Select(Select { element_bytes: size_of::<f32>() });
        let inputs = vec![self.condition, zero, number];
        graph.replace(self.index, Node { name, op, inputs, outputs: vec![mask] });
        Some(mask)
    }
}

/// Whether sizes that a request settles may come to the same. The length of a mask has a name of its own in most files.
fn may_be_equal(one: Dim, other: Dim) -> bool {
    one == other || one.known().is_none() || other.known().is_none()
}

/// The weights before what turns NaN, of a query that sees nothing, into 0; and whether there is such.
fn without_nan(graph: &Graph, value: ValueId) -> (ValueId, bool) {
    let guarded = || {
        let (_, node) = graph.producer(value)?;
        let (Op::Select(_), &[condition, zero, weights]) = (&node.op, node.inputs.as_slice()) else { return None };
        let (_, comparison) = graph.producer(condition)?;
        let is_nan = comparison.op
            == Op::Typed(Typed {
                function: Function::Comparison(Comparison::NotEqual, false),
                operands: DatumType::F32,
            });
        let fits = is_nan && comparison.inputs == [weights, weights] && graph.scalar(zero) == Some(0.0);
        fits.then_some(weights)
    };
    guarded().map_or((value, false), |weights| (weights, true))
}
