//! Attention with a cache of keys and values, as the three operators have it.

use super::forms::Operator;
use super::lower::{Parts, Tables};
use crate::graph::ValueId;
use crate::graph::dims::Dim;
use crate::ops::Op;
use crate::ops::append::Append;
use crate::ops::attention::{Attention, Axes};
use crate::ops::cast;
use crate::ops::causal::CausalMask;
use crate::ops::copy::Move;
use crate::ops::pointwise::{Pointwise, Step};
use onnx_kernels::pointwise::{Binary, Unary};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;

/// Queries, keys and values of four axes, which lie as `axes` says.
struct Heads {
    values: [ValueId; 3],
    axes: [Axes; 3],
}

/// The output, and keys and values with those of the past before them.
pub(super) fn lower_attention(parts: &mut Parts<'_, '_>) -> TractResult<Vec<ValueId>> {
    let operator = parts.op.operator;
    let (mut heads, past) = match operator {
        Operator::GroupQueryAttention => (group_query(parts)?, 3),
        Operator::MultiHeadAttention => (multi_head(parts)?, 6),
        _ => (standard(parts)?, 4),
    };
    let positions =
        |parts: &Parts<'_, '_>, value: ValueId, axes: Axes| parts.dims(value)[if axes == Axes::ByHead { 2 } else { 1 }];
    let has_past = parts.op.has(past);
    let offset = if has_past { parts.dims(parts.float(past)?)[2] } else { Dim::Known(0) };
    if operator == Operator::GroupQueryAttention && parts.op.int("do_rotary", 0) != 0 {
        let length = positions(parts, heads.values[0], heads.axes[0]);
        let tables = match parts.input(9) {
            Some(positions) => parts.picked(7, positions, length)?,
            None => Tables { cosines: parts.float(7)?, sines: parts.float(8)?, offset: Some(offset) },
        };
        let interleaved = parts.op.int("rotary_interleaved", 0) != 0;
        for value in &mut heads.values[..2] {
            *value = parts.rotate(*value, &tables, true, interleaved);
        }
    }
    let [queries, ..] = heads.values;
    let query_dims = parts.dims(queries);
    for index in 1..3 {
        let output = parts.op.outputs.iter().position(|wanted| *wanted == index);
        let (value, axes) = (heads.values[index], heads.axes[index]);
        let (batch, length) = (parts.dims(value)[0], positions(parts, value, axes));
        let of_heads = parts.dims(value)[if axes == Axes::ByHead { 1 } else { 2 }];
        let columns = parts.dims(value)[3];
        if has_past {
            let past = parts.float(past + index - 1)?;
            let before = parts.lowering.graph.dims.expression(parts.dims(past)[2]);
            let all = before + parts.lowering.graph.dims.expression(length);
            let all = match output {
                Some(slot) => parts.lowering.node.outputs[slot].fact.shape[2].clone(),
                None => all,
            };
            let dims = vec![batch, of_heads, parts.lowering.graph.dims.dim(&all), columns];
            heads.values[index] = parts.emit(Op::Append(Append { new: axes }), vec![past, value], dims);
            heads.axes[index] = Axes::ByHead;
        } else if output.is_some() && axes == Axes::ByPosition {
            let turn = Move::Transpose { permutation: vec![0, 2, 1, 3] };
            let dims = vec![batch, of_heads, length, columns];
            heads.values[index] = parts.emit(Op::Move(turn), vec![value], dims);
            heads.axes[index] = Axes::ByHead;
        }
    }
    let [_, keys, values] = heads.values;
    let total = positions(parts, keys, heads.axes[1]);
    let length = positions(parts, queries, heads.axes[0]);
    let mask = mask(parts, offset, length, total)?;
    let columns = parts.known(queries, 3)?;
    let scale = match parts.op.float("scale", 0.0) {
        0.0 => (1.0 / (columns as f64).sqrt()) as f32,
        scale => scale,
    };
    let rank = parts.lowering.node.outputs[0].fact.rank();
    let output = if rank == 4 { Axes::ByHead } else { Axes::ByPosition };
    let attention = Attention {
        scale,
        softcap: parts.op.float("softcap", 0.0).max(0.0),
        has_mask: mask.is_some(),
        nan_to_zero: false,
        queries: heads.axes[0],
        keys: heads.axes[1],
        values: heads.axes[2],
        output,
    };
    let of_heads = query_dims[if heads.axes[0] == Axes::ByHead { 1 } else { 2 }];
    let value_columns = parts.dims(values)[3];
    let dims = match output {
        Axes::ByHead => vec![query_dims[0], of_heads, length, value_columns],
        Axes::ByPosition => vec![query_dims[0], length, of_heads, value_columns],
    };
    let inputs = [queries, keys, values].into_iter().chain(mask).collect();
    let y = parts.emit(Op::Attention(attention), inputs, dims);
    let dims = parts.lowering.output_dims();
    Ok(vec![parts.reshape(y, dims), keys, values])
}

/// Rows of heads one behind the other.
fn split(parts: &mut Parts<'_, '_>, value: ValueId, heads: usize) -> TractResult<ValueId> {
    let dims = parts.dims(value);
    let columns = parts.known(value, 2)?.checked_div(heads).context("there are no heads")?;
    Ok(parts.reshape(value, vec![dims[0], dims[1], Dim::Known(heads), Dim::Known(columns)]))
}

fn group_query(parts: &mut Parts<'_, '_>) -> TractResult<Heads> {
    let (heads, kv_heads) = (parts.op.count("num_heads")?, parts.op.count("kv_num_heads")?);
    let query = parts.float(0)?;
    let values = if parts.op.has(1) {
        let (key, value) = (parts.float(1)?, parts.float(2)?);
        [split(parts, query, heads)?, split(parts, key, kv_heads)?, split(parts, value, kv_heads)?]
    } else {
        let packed = split(parts, query, heads + 2 * kv_heads)?;
        let part = |parts: &mut Parts<'_, '_>, start, count| parts.slice(packed, 2, start, count);
        [part(parts, 0, heads), part(parts, heads, kv_heads), part(parts, heads + kv_heads, kv_heads)]
    };
    Ok(Heads { values, axes: [Axes::ByPosition; 3] })
}

fn multi_head(parts: &mut Parts<'_, '_>) -> TractResult<Heads> {
    let heads = parts.op.count("num_heads")?;
    // Of `[batch, positions, heads, several, columns]` one of the several.
    let unpack = |parts: &mut Parts<'_, '_>, packed: ValueId, index: usize| {
        let mut dims = parts.dims(packed);
        let one = parts.slice(packed, 3, index, 1);
        dims.remove(3);
        parts.reshape(one, dims)
    };
    let query = parts.float(0)?;
    let mut axes = [Axes::ByPosition; 3];
    if !parts.op.has(1) {
        let values = [0, 1, 2].map(|index| unpack(parts, query, index));
        return Ok(Heads { values, axes });
    }
    let mut values = vec![query];
    for input in 1..3 {
        if parts.op.has(input) {
            values.push(parts.float(input)?);
        }
    }
    if parts.op.has(3) {
        let bias = parts.float(3)?;
        let axis = parts.dims(bias).len() - 1;
        let mut start = 0;
        for value in &mut values {
            ensure!(parts.dims(*value).len() == 3, "a bias of heads by themselves is not supported");
            let columns = parts.known(*value, 2)?;
            let of_value = parts.slice(bias, axis, start, columns);
            let dims = parts.dims(*value);
            *value = parts.add(*value, of_value, dims);
            start += columns;
        }
    }
    let query = split(parts, values[0], heads)?;
    let values = match parts.dims(values[1]).len() {
        3 => [query, split(parts, values[1], heads)?, split(parts, values[2], heads)?],
        4 => {
            axes[1..].fill(Axes::ByHead);
            [query, values[1], values[2]]
        }
        _ => [query, unpack(parts, values[1], 0), unpack(parts, values[1], 1)],
    };
    Ok(Heads { values, axes })
}

fn standard(parts: &mut Parts<'_, '_>) -> TractResult<Heads> {
    let (mut values, mut axes) = ([0; 3], [Axes::ByHead; 3]);
    for (index, heads) in ["q_num_heads", "kv_num_heads", "kv_num_heads"].into_iter().enumerate() {
        let value = parts.float(index)?;
        values[index] = value;
        if parts.dims(value).len() == 3 {
            let heads = parts.op.count(heads)?;
            (values[index], axes[index]) = (split(parts, value, heads)?, Axes::ByPosition);
        }
    }
    Ok(Heads { values, axes })
}

/// What is added to the scores `[batch, heads, length, total]`, of which `offset` keys are of the past.
fn mask(parts: &mut Parts<'_, '_>, offset: Dim, length: Dim, total: Dim) -> TractResult<Option<ValueId>> {
    let one = Dim::Known(1);
    let operator = parts.op.operator;
    let (is_causal, given) = match operator {
        Operator::GroupQueryAttention => (true, 10),
        Operator::MultiHeadAttention => (parts.op.int("unidirectional", 0) != 0, 5),
        _ => (parts.op.int("is_causal", 0) != 0, 3),
    };
    let mut mask = None;
    if is_causal {
        let mut causal = CausalMask { offset, window: None, lengths: None };
        let mut inputs = Vec::new();
        if operator == Operator::GroupQueryAttention {
            let window = parts.op.int("local_window_size", -1);
            causal.window = usize::try_from(window).ok().filter(|window| *window > 0);
            if let Some(lengths) = parts.input(5) {
                let lengths = parts.lowering.number(lengths).context("seqlens_k is not of integers")?;
                causal.lengths = Some(parts.lowering.graph.values[lengths].datum_type);
                inputs.push(lengths);
            }
        }
        let datum_type = causal.lengths.unwrap_or(DatumType::I32);
        ensure!(matches!(datum_type, DatumType::I32 | DatumType::I64), "seqlens_k is of {datum_type:?}");
        mask = Some(parts.emit_once(Op::CausalMask(causal), inputs, DatumType::F32, vec![one, one, length, total]));
    }
    if let Some(given) = parts.input(given) {
        let mut dims = parts.dims(given);
        ensure!(dims.len() <= 4, "a mask has {} axes", dims.len());
        while dims.len() < 4 {
            dims.insert(0, one);
        }
        let last = dims[3];
        ensure!(
            last == total || last.known().is_none() && total.known().is_none() || last.is_one(),
            "a mask is too short"
        );
        let mut given = parts.reshape(given, dims);
        match parts.lowering.graph.values[given].datum_type {
            DatumType::Bool => given = parts.zero_or(given, f32::NEG_INFINITY),
            DatumType::F32 => {}
            datum_type => bail!("a mask is of {datum_type:?}"),
        }
        mask = Some(added(parts, mask, given));
    }
    if operator == Operator::MultiHeadAttention
        && let Some(padding) = parts.input(4)
    {
        let padding = padding_mask(parts, padding)?;
        mask = Some(added(parts, mask, padding));
    }
    Ok(mask)
}

/// Both masks.
fn added(parts: &mut Parts<'_, '_>, mask: Option<ValueId>, other: ValueId) -> ValueId {
    let Some(mask) = mask else { return other };
    let (mut dims, others) = (parts.dims(mask), parts.dims(other));
    for (dim, other) in dims.iter_mut().zip(others) {
        if dim.is_one() {
            *dim = other;
        }
    }
    parts.add(mask, other, dims)
}

/// 0 for keys that are there, a large negative number for padding: of `[batch, keys]` or `[batch, queries, keys]` int32.
fn padding_mask(parts: &mut Parts<'_, '_>, padding: ValueId) -> TractResult<ValueId> {
    let one = Dim::Known(1);
    let dims = match *parts.dims(padding) {
        [batch, keys] => vec![batch, one, one, keys],
        [batch, queries, keys] => vec![batch, one, queries, keys],
        ref dims => bail!("key_padding_mask has {} axes, not 2 or 3", dims.len()),
    };
    let padding = parts.reshape(padding, dims.clone());
    let inputs = std::mem::replace(&mut parts.lowering.inputs, vec![padding]);
    let numbers = cast::lower(parts.lowering, DatumType::F32);
    parts.lowering.inputs = inputs;
    let numbers = numbers.context("key_padding_mask is not of integers")?;
    let filter = parts.op.float("mask_filter_value", -10_000.0);
    let number = |function, number| Step::Number { function, number, reversed: false };
    let steps = vec![
        Step::Unary(Unary::Clamp { low: 0.0, high: 1.0 }),
        number(Binary::Mul, -filter),
        number(Binary::Add, filter),
    ];
    Ok(parts.emit_once(Op::Pointwise(Pointwise { steps }), vec![numbers], DatumType::F32, dims))
}
