//! Operators that move, repeat or drop elements by shape, of any element type.

use super::array::{Array, Result, axis, broadcast, elements, offsets, sizes, strides};
use super::call::Call;
use crate::ElementType;

pub(super) fn identity(call: &Call<'_>) -> Result<Vec<Array>> {
    Ok(vec![call.input(0)?.clone()])
}

/// `Dropout` as it is when nothing is trained: the elements as they are, and a mask of trues.
pub(super) fn dropout(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let trains = call.optional(2).map_or(Ok(0), Array::scalar_i64)? != 0;
    let ratio = call.optional(1).map_or(Ok(0.5), Array::scalar_f64)?;
    if trains && ratio != 0.0 {
        return Err("it drops elements at random".into());
    }
    let element_type = if call.opset < 10 { x.element_type } else { ElementType::Bool };
    let mask = Array::integers(element_type, x.shape.clone(), &vec![1; x.len()])?;
    Ok(vec![x.clone(), mask])
}

/// `OptionalHasElement` of tensors: whether the input is given.
pub(super) fn has_element(call: &Call<'_>) -> Result<Vec<Array>> {
    Ok(vec![Array::bools(Vec::new(), [call.optional(0).is_some()])?])
}

pub(super) fn shape(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let rank = x.rank() as i64;
    let bound = |name: &str, otherwise: i64| {
        let at = call.int(name, otherwise);
        (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank) as usize
    };
    let (start, end) = (bound("start", 0), bound("end", rank));
    let sizes: Vec<i64> = x.shape[start..end.max(start)].iter().map(|size| *size as i64).collect();
    Ok(vec![Array::vector(&sizes)?])
}

pub(super) fn size(call: &Call<'_>) -> Result<Vec<Array>> {
    Ok(vec![Array::integers(ElementType::Int64, Vec::new(), &[call.input(0)?.len() as i64])?])
}

pub(super) fn reshape(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let wanted = call.ints_or_input("shape", 1).ok_or("there is no shape")?;
    let keeps_zeros = call.flag("allowzero");
    let mut known = Vec::new();
    for (index, size) in wanted.iter().enumerate() {
        known.push(match size {
            0 if !keeps_zeros => *x.shape.get(index).ok_or_else(|| format!("axis {index} of {:?}", x.shape))?,
            -1 => 1,
            size => usize::try_from(*size).map_err(|_| format!("size {size}"))?,
        });
    }
    if let Some(free) = wanted.iter().position(|size| *size == -1) {
        let others = elements(&known)?;
        known[free] = x.len().checked_div(others).unwrap_or(0);
    }
    Ok(vec![x.reshaped(known)?])
}

pub(super) fn flatten(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let at = match call.int("axis", 1) {
        at if at == x.rank() as i64 => x.rank(),
        at => axis(at, x.rank())?,
    };
    let (outer, inner) = x.shape.split_at(at);
    Ok(vec![x.reshaped(vec![elements(outer)?, elements(inner)?])?])
}

pub(super) fn squeeze(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let axes = match call.ints_or_input("axes", 1) {
        Some(axes) => axes.into_iter().map(|at| axis(at, x.rank())).collect::<Result<Vec<_>>>()?,
        None => (0..x.rank()).filter(|axis| x.shape[*axis] == 1).collect(),
    };
    let kept = x.shape.iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, size)| *size);
    Ok(vec![x.reshaped(kept.collect())?])
}

pub(super) fn unsqueeze(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let axes = call.ints_or_input("axes", 1).ok_or("there are no axes")?;
    let rank = x.rank() + axes.len();
    let axes = axes.into_iter().map(|at| axis(at, rank)).collect::<Result<Vec<_>>>()?;
    let mut rest = x.shape.iter();
    let size = |axis: usize| if axes.contains(&axis) { Some(1) } else { rest.next().copied() };
    let shape = (0..rank).map(size).collect::<Option<Vec<_>>>().ok_or_else(|| format!("axes {axes:?}"))?;
    Ok(vec![x.reshaped(shape)?])
}

pub(super) fn transpose(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let permutation = match call.ints("perm") {
        Some(permutation) => permutation.iter().map(|at| axis(*at, x.rank())).collect::<Result<Vec<_>>>()?,
        None => (0..x.rank()).rev().collect(),
    };
    Ok(vec![x.transposed(&permutation)?])
}

pub(super) fn expand(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let shape = sizes(&call.input(1)?.i64s())?;
    Ok(vec![x.broadcast_to(&broadcast(&[&x.shape, &shape])?)?])
}

pub(super) fn tile(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let repeats = sizes(&call.input(1)?.i64s())?;
    if repeats.len() != x.rank() {
        return Err(format!("{} repeats for {} axes", repeats.len(), x.rank()));
    }
    let shape: Vec<usize> = x.shape.iter().zip(&repeats).map(|(size, times)| size.saturating_mul(*times)).collect();
    elements(&shape)?;
    // Each axis is two: the repeats and the elements.
    let own = strides(&x.shape);
    let split: Vec<usize> = repeats.iter().zip(&x.shape).flat_map(|(times, size)| [*times, *size]).collect();
    let steps: Vec<isize> = own.iter().flat_map(|stride| [0, *stride as isize]).collect();
    Ok(vec![x.pick(shape, &offsets(&split, &steps, 0)?)?])
}

/// The first index and the number of indices that a slice takes of an axis of `size`.
fn slice_range(start: i64, end: i64, step: i64, size: i64) -> (i64, i64) {
    let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
    let bound = |at: i64, low: i64| (if at < 0 { at.saturating_add(size) } else { at }).clamp(low, high);
    // A start before the first element is the first one.
    let (start, end) = (bound(start, 0.min(high)), bound(end, low));
    let span = if step > 0 { end - start } else { start - end };
    let count = if span > 0 { (span - 1) / step.saturating_abs() + 1 } else { 0 };
    (start, count)
}

pub(super) fn slice(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let starts = call.ints_or_input("starts", 1).ok_or("there are no starts")?;
    let ends = call.ints_or_input("ends", 2).ok_or("there are no ends")?;
    let axes = call.ints_or_input("axes", 3).unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = call.optional(4).map_or_else(|| vec![1; starts.len()], Array::i64s);
    let mut shape = x.shape.clone();
    let mut steps_of_axes: Vec<isize> = strides(&x.shape).into_iter().map(|stride| stride as isize).collect();
    let mut offset = 0;
    for index in 0..starts.len() {
        let (Some(end), Some(at), Some(&step)) = (ends.get(index), axes.get(index), steps.get(index)) else {
            return Err(format!("{} starts, {} ends", starts.len(), ends.len()));
        };
        if step == 0 {
            return Err("a step of 0".into());
        }
        let at = axis(*at, x.rank())?;
        let size = x.shape[at] as i64;
        let (start, count) = slice_range(starts[index], *end, step, size);
        if count > 0 {
            offset += start as isize * steps_of_axes[at];
        }
        shape[at] = count as usize;
        // Where one element is taken the step is of no meaning, and may be any number.
        steps_of_axes[at] *= if count > 1 { step as isize } else { 1 };
    }
    Ok(vec![x.pick(shape.clone(), &offsets(&shape, &steps_of_axes, offset)?)?])
}

pub(super) fn concat(call: &Call<'_>) -> Result<Vec<Array>> {
    let parts: Vec<Array> = call.all().into_iter().cloned().collect();
    let rank = parts.first().map_or(0, Array::rank);
    Ok(vec![Array::concat(&parts, axis(call.int("axis", 1), rank)?)?])
}

pub(super) fn split(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let along = axis(call.int("axis", 0), x.rank())?;
    let size = x.shape[along];
    let lengths = match call.ints_or_input("split", 1) {
        Some(lengths) => sizes(&lengths)?,
        None => {
            let outputs = call.node.output.len().max(1);
            let length = size.div_ceil(outputs);
            (0..outputs).map(|index| length.min(size - (index * length).min(size))).collect()
        }
    };
    let mut start = 0usize;
    let mut parts = Vec::new();
    for length in lengths {
        parts.push(x.part(along, start, length)?);
        start += length;
    }
    Ok(parts)
}

/// Where an index outside an axis of `size` points, as `mode` says; `None` for the constant.
fn padded(index: i64, size: i64, mode: &str) -> Result<Option<i64>> {
    if (0..size).contains(&index) {
        return Ok(Some(index));
    }
    if mode == "constant" {
        return Ok(None);
    }
    if size == 0 {
        return Err("an empty axis is padded with its own elements".into());
    }
    Ok(Some(match mode {
        "edge" => index.clamp(0, size - 1),
        "wrap" => index.rem_euclid(size),
        "reflect" if size == 1 => 0,
        "reflect" => {
            let at = index.rem_euclid(2 * (size - 1));
            if at < size { at } else { 2 * (size - 1) - at }
        }
        _ => return Err(format!("mode {mode:?}")),
    }))
}

/// The array with its axes made longer, or shorter where a number is negative.
pub(super) fn padded_array(x: &Array, before: &[i64], after: &[i64], mode: &str, fill: &[u8]) -> Result<Array> {
    let mut shape = Vec::new();
    let mut indices: Vec<Vec<Option<i64>>> = Vec::new();
    for (axis, size) in x.shape.iter().enumerate() {
        let size = *size as i64;
        let limit = super::array::ELEMENTS_MAX as i64;
        let padded_size = before[axis].saturating_add(size).saturating_add(after[axis]).clamp(0, limit + 1);
        shape.push(padded_size as usize);
        elements(&shape)?;
        let own = |index: i64| padded(index.saturating_sub(before[axis]), size, mode);
        indices.push((0..padded_size).map(own).collect::<Result<_>>()?);
    }
    let own = strides(&x.shape);
    let mut picked: Vec<Option<usize>> = vec![Some(0)];
    for (indices, stride) in indices.iter().zip(&own) {
        let next = |base: &Option<usize>| {
            let base = *base;
            indices.iter().map(move |index| Some(base? + (*index)? as usize * stride))
        };
        picked = picked.iter().flat_map(next).collect();
    }
    x.pick_or(shape, &picked, fill)
}

pub(super) fn pad(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let pads = call.ints_or_input("pads", 1).or_else(|| call.ints("paddings").map(<[i64]>::to_vec));
    let pads = pads.ok_or("there are no pads")?;
    let axes = match call.optional(3) {
        Some(axes) => axes.i64s().into_iter().map(|at| axis(at, x.rank())).collect::<Result<Vec<_>>>()?,
        None => (0..x.rank()).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(format!("{} pads for {} axes", pads.len(), axes.len()));
    }
    let (mut before, mut after) = (vec![0; x.rank()], vec![0; x.rank()]);
    for (index, axis) in axes.iter().enumerate() {
        before[*axis] = pads[index];
        after[*axis] = pads[index + axes.len()];
    }
    let fill = match call.optional(2) {
        Some(value) => super::unary::cast_to(value, x.element_type)?,
        None => Array::floats(x.element_type, Vec::new(), &[call.float("value", 0.0)])?,
    };
    Ok(vec![padded_array(x, &before, &after, call.text("mode", "constant"), fill.bytes())?])
}

pub(super) fn center_crop_pad(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let wanted = call.input(1)?.i64s();
    let axes = match call.ints("axes") {
        Some(axes) => axes.iter().map(|at| axis(*at, x.rank())).collect::<Result<Vec<_>>>()?,
        None => (0..x.rank()).collect(),
    };
    let (mut before, mut after) = (vec![0; x.rank()], vec![0; x.rank()]);
    for (axis, wanted) in axes.iter().zip(&wanted) {
        let more = wanted.saturating_sub(x.shape[*axis] as i64);
        // Half of what is added or taken off comes first, rounded towards 0.
        before[*axis] = more / 2;
        after[*axis] = more - before[*axis];
    }
    Ok(vec![padded_array(x, &before, &after, "constant", &[0; 8][..x.element_bytes()])?])
}

/// `DepthToSpace` and `SpaceToDepth`.
pub(super) fn depth_to_space(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let block = usize::try_from(call.int("blocksize", 1)).ok().filter(|block| (1..1 << 12).contains(block));
    let block = block.ok_or("its block size is out of range")?;
    let &[n, c, h, w] = x.shape.as_slice() else { return Err(format!("shape {:?}", x.shape)) };
    let (split, permutation, shape) = if call.node.op_type == "SpaceToDepth" {
        let (h, w) = (h / block, w / block);
        (vec![n, c, h, block, w, block], [0, 3, 5, 1, 2, 4], vec![n, c.saturating_mul(block * block), h, w])
    } else {
        let c = c / (block * block);
        let shape = vec![n, c, h.saturating_mul(block), w.saturating_mul(block)];
        match call.text("mode", "DCR") {
            "CRD" => (vec![n, c, block, block, h, w], [0, 1, 4, 2, 5, 3], shape),
            _ => (vec![n, block, block, c, h, w], [0, 3, 4, 1, 5, 2], shape),
        }
    };
    Ok(vec![x.reshaped(split)?.transposed(&permutation)?.reshaped(shape)?])
}

pub(super) fn reverse_sequence(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let lengths = call.input(1)?.i64s();
    let time = axis(call.int("time_axis", 0), x.rank())?;
    let batch = axis(call.int("batch_axis", 1), x.rank())?;
    let own = strides(&x.shape);
    let place = |index: usize| -> Result<usize> {
        let (at, row) = (index / own[time] % x.shape[time], index / own[batch] % x.shape[batch]);
        let length = lengths.get(row).and_then(|length| usize::try_from(*length).ok()).unwrap_or(usize::MAX);
        if length > x.shape[time] {
            return Err(format!("{} lengths for {} rows, one of them {length}", lengths.len(), x.shape[batch]));
        }
        Ok(if at < length { index - at * own[time] + (length - 1 - at) * own[time] } else { index })
    };
    let places = (0..x.len()).map(place).collect::<Result<Vec<_>>>()?;
    Ok(vec![x.pick(x.shape.clone(), &places)?])
}

pub(super) fn trilu(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let &[.., rows, columns] = x.shape.as_slice() else { return Err(format!("shape {:?}", x.shape)) };
    let k = call.optional(1).map_or(Ok(0), Array::scalar_i64)?;
    let upper = call.int("upper", 1) != 0;
    let kept = |index: usize| {
        let (row, column) = ((index / columns % rows) as i64, (index % columns) as i64);
        let keeps = if upper { column - row >= k } else { column - row <= k };
        keeps.then_some(index)
    };
    let picked: Vec<_> = (0..x.len()).map(kept).collect();
    Ok(vec![x.pick_or(x.shape.clone(), &picked, &[0; 8][..x.element_bytes()])?])
}

pub(super) fn eye_like(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let &[rows, columns] = x.shape.as_slice() else { return Err(format!("shape {:?}", x.shape)) };
    let k = call.int("k", 0);
    let one = |index: usize| i64::from((index % columns) as i64 - (index / columns) as i64 == k);
    let values: Vec<i64> = (0..rows * columns).map(one).collect();
    Ok(vec![Array::integers(call.element_type("dtype", x.element_type)?, x.shape.clone(), &values)?])
}

pub(super) fn constant(call: &Call<'_>) -> Result<Vec<Array>> {
    let float = ElementType::Float32;
    let value =
        match call.node.attribute.iter().map(|attribute| &*attribute.name).find(|name| name.starts_with("value")) {
            Some("value") => call.tensor("value").ok_or("its value is no tensor")??,
            Some("value_float") => Array::floats(float, Vec::new(), &[call.float("value_float", 0.0)])?,
            Some("value_floats") => {
                let values = call.floats("value_floats").unwrap_or_default();
                Array::floats(float, vec![values.len()], &values)?
            }
            Some("value_int") => Array::integers(ElementType::Int64, Vec::new(), &[call.int("value_int", 0)])?,
            Some("value_ints") => Array::vector(call.ints("value_ints").unwrap_or_default())?,
            other => return Err(format!("a constant of kind {other:?}")),
        };
    Ok(vec![value])
}

pub(super) fn constant_of_shape(call: &Call<'_>) -> Result<Vec<Array>> {
    let shape = sizes(&call.input(0)?.i64s())?;
    let value = match call.tensor("value") {
        Some(value) => value?,
        None => Array::floats(ElementType::Float32, Vec::new(), &[0.0])?,
    };
    let count = elements(&shape)?;
    Ok(vec![value.pick(shape, &vec![0; count])?])
}

pub(super) fn range(call: &Call<'_>) -> Result<Vec<Array>> {
    let (start, limit, step) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let element_type = start.element_type;
    let count = (limit.scalar_f64()? - start.scalar_f64()?) / step.scalar_f64()?;
    let count = count.ceil().max(0.0);
    if count.is_nan() || count > super::array::ELEMENTS_MAX as f64 {
        return Err(format!("a range of {count} elements"));
    }
    let count = count as usize;
    if start.is_float() {
        let (start, step) = (start.scalar_f64()?, step.scalar_f64()?);
        let values: Vec<f64> = (0..count).map(|index| start + index as f64 * step).collect();
        return Ok(vec![Array::floats(element_type, vec![count], &values)?]);
    }
    let (start, step) = (start.scalar_i64()?, step.scalar_i64()?);
    let values: Vec<i64> = (0..count as i64).map(|index| start.wrapping_add(index.wrapping_mul(step))).collect();
    Ok(vec![Array::integers(element_type, vec![count], &values)?])
}
