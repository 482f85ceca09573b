//! Operators that take or put elements by index.

use super::array::{Array, ELEMENTS_MAX, Numbers, Result, axis, elements, strides};
use super::call::Call;
use crate::ElementType;

/// An index that may be counted from the end of `size` elements.
fn index(at: i64, size: usize) -> Result<usize> {
    axis(at, size).map_err(|_| format!("index {at} of {size}"))
}

pub(super) fn gather(call: &Call<'_>) -> Result<Vec<Array>> {
    let (data, indices) = (call.input(0)?, call.input(1)?);
    let along = axis(call.int("axis", 0), data.rank())?;
    gather_along(data, indices, along).map(|array| vec![array])
}

fn gather_along(data: &Array, indices: &Array, along: usize) -> Result<Array> {
    let (outer, inner) = (elements(&data.shape[..along])?, elements(&data.shape[along + 1..])?);
    let shape = [&data.shape[..along], &indices.shape, &data.shape[along + 1..]].concat();
    let mut picked = Vec::with_capacity(elements(&shape)?);
    let size = data.shape[along];
    let rows = indices.i64s().into_iter().map(|at| index(at, size)).collect::<Result<Vec<_>>>()?;
    for outer in 0..outer {
        for row in &rows {
            let start = (outer * size + row) * inner;
            picked.extend(start..start + inner);
        }
    }
    data.pick(shape, &picked)
}

/// `ArrayFeatureExtractor`: elements of the last axis.
pub(super) fn array_feature_extractor(call: &Call<'_>) -> Result<Vec<Array>> {
    let (data, indices) = (call.input(0)?, call.input(1)?);
    let indices = indices.reshaped(vec![indices.len()])?;
    let data = if data.rank() == 1 { data.reshaped(vec![1, data.len()])? } else { data.clone() };
    gather_along(&data, &indices, axis(-1, data.rank())?).map(|array| vec![array])
}

/// For each element of `indices`, the element of an array of `shape` that it stands for along an axis.
fn element_places(shape: &[usize], indices: &Array, along: usize) -> Result<Vec<usize>> {
    if indices.rank() != shape.len() {
        return Err(format!("{} axes of indices for {}", indices.rank(), shape.len()));
    }
    let (own, theirs) = (strides(shape), strides(&indices.shape));
    let mut places = Vec::with_capacity(indices.len());
    for (number, at) in indices.i64s().into_iter().enumerate() {
        let mut place = 0;
        for axis in 0..shape.len() {
            let coordinate = match axis == along {
                true => index(at, shape[axis])?,
                false => number / theirs[axis] % indices.shape[axis],
            };
            if coordinate >= shape[axis] {
                return Err(format!("indices of shape {:?} for {shape:?}", indices.shape));
            }
            place += coordinate * own[axis];
        }
        places.push(place);
    }
    Ok(places)
}

pub(super) fn gather_elements(call: &Call<'_>) -> Result<Vec<Array>> {
    let (data, indices) = (call.input(0)?, call.input(1)?);
    let along = axis(call.int("axis", 0), data.rank())?;
    let places = element_places(&data.shape, indices, along)?;
    Ok(vec![data.pick(indices.shape.clone(), &places)?])
}

/// For each row of `indices` the first element that it stands for, and how many there are from there on.
fn slice_places(shape: &[usize], indices: &Array, batch: usize) -> Result<(Vec<usize>, usize)> {
    let depth = *indices.shape.last().ok_or("its indices are a scalar")?;
    if batch + depth > shape.len() || batch >= indices.rank() || shape[..batch] != indices.shape[..batch] {
        return Err(format!("indices of shape {:?} for {shape:?}", indices.shape));
    }
    let own = strides(shape);
    let rows = elements(&indices.shape[..indices.rank() - 1])?;
    let per_batch = elements(&indices.shape[batch..indices.rank() - 1])?.max(1);
    let batch_elements = elements(&shape[batch..])?;
    let numbers = indices.i64s();
    let mut places = Vec::with_capacity(rows);
    for row in 0..rows {
        let mut place = row / per_batch * batch_elements;
        for (offset, at) in numbers[row * depth..(row + 1) * depth].iter().enumerate() {
            place += index(*at, shape[batch + offset])? * own[batch + offset];
        }
        places.push(place);
    }
    Ok((places, elements(&shape[batch + depth..])?))
}

pub(super) fn gather_nd(call: &Call<'_>) -> Result<Vec<Array>> {
    let (data, indices) = (call.input(0)?, call.input(1)?);
    let batch = usize::try_from(call.int("batch_dims", 0)).map_err(|_| "batch_dims is negative")?;
    let (places, length) = slice_places(&data.shape, indices, batch)?;
    let depth = indices.shape.last().copied().unwrap_or(0);
    let shape = [&indices.shape[..indices.rank() - 1], &data.shape[batch + depth..]].concat();
    elements(&shape)?;
    let picked: Vec<usize> = places.into_iter().flat_map(|start| start..start + length).collect();
    Ok(vec![data.pick(shape, &picked)?])
}

/// The array with the updates put at these places, one after the other, each joined with what is there as `reduction` says.
fn scatter(data: &Array, places: &[usize], updates: &Array, reduction: &str) -> Result<Array> {
    if places.len() != updates.len() || data.element_type != updates.element_type {
        return Err(format!("{} updates of {} for {}", updates.len(), updates.element_type, places.len()));
    }
    if reduction == "none" {
        let size = data.element_bytes();
        let mut bytes = data.bytes().to_vec();
        for (place, update) in places.iter().zip(updates.bytes().chunks(size)) {
            let to = bytes.get_mut(place * size..(place + 1) * size).ok_or("an index is out of range")?;
            to.copy_from_slice(update);
        }
        return Array::new(data.element_type, data.shape.clone(), bytes);
    }
    let flip = if data.is_uint64() { i64::MIN } else { 0 };
    let numbers = match (data.numbers(), updates.numbers()) {
        (Numbers::Floats(mut values), Numbers::Floats(updates)) => {
            for (place, update) in places.iter().zip(updates) {
                let value = values.get_mut(*place).ok_or("an index is out of range")?;
                *value = match reduction {
                    "add" => *value + update,
                    "mul" => *value * update,
                    "max" => value.max(update),
                    "min" => value.min(update),
                    _ => return Err(format!("reduction {reduction:?}")),
                };
            }
            Numbers::Floats(values)
        }
        (Numbers::Integers(mut values), Numbers::Integers(updates)) => {
            for (place, update) in places.iter().zip(updates) {
                let value = values.get_mut(*place).ok_or("an index is out of range")?;
                *value = match reduction {
                    "add" => value.wrapping_add(update),
                    "mul" => value.wrapping_mul(update),
                    "max" => (*value ^ flip).max(update ^ flip) ^ flip,
                    "min" => (*value ^ flip).min(update ^ flip) ^ flip,
                    _ => return Err(format!("reduction {reduction:?}")),
                };
            }
            Numbers::Integers(values)
        }
        _ => return Err("its updates are of another kind".into()),
    };
    Array::from_numbers(data.element_type, data.shape.clone(), &numbers)
}

/// `ScatterElements`, and `Scatter`, its older name.
pub(super) fn scatter_elements(call: &Call<'_>) -> Result<Vec<Array>> {
    let (data, indices, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let along = axis(call.int("axis", 0), data.rank())?;
    let places = element_places(&data.shape, indices, along)?;
    Ok(vec![scatter(data, &places, updates, call.text("reduction", "none"))?])
}

pub(super) fn scatter_nd(call: &Call<'_>) -> Result<Vec<Array>> {
    let (data, indices, updates) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let (places, length) = slice_places(&data.shape, indices, 0)?;
    if places.len().saturating_mul(length) != updates.len() {
        return Err(format!("{} updates for {} rows of {length}", updates.len(), places.len()));
    }
    let places: Vec<usize> = places.into_iter().flat_map(|start| start..start + length).collect();
    Ok(vec![scatter(data, &places, updates, call.text("reduction", "none"))?])
}

/// `TensorScatter`: a run of rows written into a cache, for each of a batch from its own index on.
pub(super) fn tensor_scatter(call: &Call<'_>) -> Result<Vec<Array>> {
    let (cache, update) = (call.input(0)?, call.input(1)?);
    let along = axis(call.int("axis", -2), cache.rank())?;
    let starts = call.optional(2).map(Array::i64s);
    let is_circular = call.text("mode", "linear") == "circular";
    if update.rank() != cache.rank() || along == 0 {
        return Err(format!("an update of shape {:?} for {:?}", update.shape, cache.shape));
    }
    let theirs = strides(&update.shape);
    let mut rows = Vec::with_capacity(update.len());
    for number in 0..update.len() {
        let batch = number / theirs[0];
        let start =
            starts.as_ref().map_or(Some(0), |starts| starts.get(batch).copied()).ok_or("an index is missing")?;
        let at = start.saturating_add((number / theirs[along] % update.shape[along]) as i64);
        rows.push(if is_circular { at.rem_euclid(cache.shape[along].max(1) as i64) } else { at });
    }
    let indices = Array::integers(ElementType::Int64, update.shape.clone(), &rows)?;
    let places = element_places(&cache.shape, &indices, along)?;
    Ok(vec![scatter(cache, &places, update, "none")?])
}

pub(super) fn one_hot(call: &Call<'_>) -> Result<Vec<Array>> {
    let (indices, depth, values) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let depth = depth.scalar_i64()?;
    if !(1..=ELEMENTS_MAX as i64).contains(&depth) {
        return Err(format!("depth {depth}"));
    }
    let along = axis(call.int("axis", -1), indices.rank() + 1)?;
    let mut shape = indices.shape.clone();
    shape.insert(along, depth as usize);
    let (total, inner) = (elements(&shape)?, elements(&indices.shape[along..])?);
    let numbers = indices.i64s();
    let hot = |place: usize| {
        let (outer, rest) = (place / (inner * depth as usize), place % (inner * depth as usize));
        let at = numbers[outer * inner + rest % inner];
        let at = if at < 0 { at.saturating_add(depth) } else { at };
        usize::from(at == (rest / inner) as i64)
    };
    let picked: Vec<usize> = (0..total).map(hot).collect();
    Ok(vec![values.pick(shape, &picked)?])
}

pub(super) fn compress(call: &Call<'_>) -> Result<Vec<Array>> {
    let (x, condition) = (call.input(0)?, call.input(1)?);
    let (x, along) = match call.attribute("axis") {
        Some(attribute) => (x.clone(), axis(attribute.i, x.rank())?),
        None => (x.reshaped(vec![x.len()])?, 0),
    };
    let kept = condition.bytes().iter().take(x.shape[along]).enumerate().filter(|(_, keeps)| **keeps != 0);
    let kept: Vec<i64> = kept.map(|(index, _)| index as i64).collect();
    gather_along(&x, &Array::vector(&kept)?, along).map(|array| vec![array])
}

pub(super) fn non_zero(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    // A scalar has one element, at the place of no coordinates.
    let found: Vec<usize> = x.f64s().iter().enumerate().filter(|(_, value)| **value != 0.0).map(|(at, _)| at).collect();
    let own = strides(&x.shape);
    let coordinate = |axis: usize, place: &usize| (place / own[axis] % x.shape[axis]) as i64;
    let values: Vec<i64> = (0..x.rank())
        .flat_map(|axis| found.iter().map(move |place| (axis, place)))
        .map(|(a, p)| coordinate(a, p))
        .collect();
    Ok(vec![Array::integers(ElementType::Int64, vec![x.rank(), found.len()], &values)?])
}
