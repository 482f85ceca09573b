//! Quantisation of all kinds: one scale, one for each index along an axis, or one for each block along it.

use super::array::{Array, Result, axis, elements, strides};
use super::binary::integer_range;
use super::call::Call;
use crate::ElementType;

/// For each element of an array of `shape` the scale that is its own.
fn scale_places(shape: &[usize], scale: &Array, along: usize, block: usize) -> Result<Vec<usize>> {
    let count = elements(shape)?;
    if scale.len() == 1 {
        return Ok(vec![0; count]);
    }
    let own = strides(shape);
    let size = *shape.get(along).ok_or_else(|| format!("axis {along} of {shape:?}"))?;
    if block > 0 {
        let mut expected = shape.to_vec();
        expected[along] = size.div_ceil(block);
        if scale.shape != expected {
            return Err(format!("scales of shape {:?}, needed is {expected:?}", scale.shape));
        }
        let theirs = strides(&scale.shape);
        let place = |index: usize| -> usize {
            let coordinate = |axis: usize| index / own[axis] % shape[axis] / if axis == along { block } else { 1 };
            (0..shape.len()).map(|axis| coordinate(axis) * theirs[axis]).sum()
        };
        return Ok((0..count).map(place).collect());
    }
    if scale.len() != size {
        return Err(format!("{} scales for {size} rows", scale.len()));
    }
    Ok((0..count).map(|index| index / own[along] % size).collect())
}

/// The numbers that quantised ones stand for.
pub(super) fn dequantized(
    x: &Array,
    scale: &Array,
    zero_point: Option<&Array>,
    along: usize,
    block: usize,
) -> Result<Vec<f64>> {
    let (places, scales) = (scale_places(&x.shape, scale, along, block)?, scale.f64s());
    let zero_points = zero_points(zero_point, scales.len())?;
    let number = |(value, place): (i64, usize)| value.wrapping_sub(zero_points[place]) as f64 * scales[place];
    Ok(x.i64s().into_iter().zip(places).map(number).collect())
}

fn zero_points(zero_point: Option<&Array>, count: usize) -> Result<Vec<i64>> {
    match zero_point.map(Array::i64s) {
        None => Ok(vec![0; count]),
        Some(points) if points.len() == count => Ok(points),
        Some(points) => Err(format!("{} zero points for {count} scales", points.len())),
    }
}

/// The numbers of a quantised type that are nearest, halves to even.
pub(super) fn quantized(
    values: &[f64],
    shape: &[usize],
    scale: &Array,
    zero_point: Option<&Array>,
    along: usize,
    block: usize,
    to: ElementType,
) -> Result<Array> {
    let (places, scales) = (scale_places(shape, scale, along, block)?, scale.f64s());
    let zero_points = zero_points(zero_point, scales.len())?;
    if super::array::is_float(to) || super::array::integer_bits(to).0 > 32 {
        return Err(format!("quantisation to {to} is not supported"));
    }
    let (low, high) = integer_range(to);
    // The quotient is float32, as the standard has it: what is a half there is rounded to even.
    let number = |(value, place): (&f64, usize)| {
        let rounded = f64::from((*value as f32) / (scales[place] as f32)).round_ties_even();
        (rounded as i64).saturating_add(zero_points[place]).clamp(low, high)
    };
    let numbers: Vec<i64> = values.iter().zip(places).map(number).collect();
    Array::integers(to, shape.to_vec(), &numbers)
}

/// The axis and the block size.
fn layout(call: &Call<'_>, x: &Array) -> Result<(usize, usize)> {
    let block = usize::try_from(call.int("block_size", 0)).map_err(|_| "its block size is negative")?;
    let at = call.int("axis", 1);
    // An axis is of no meaning where there is one scale.
    let along = if call.input(1)?.len() == 1 { axis(at, x.rank()).unwrap_or(0) } else { axis(at, x.rank())? };
    Ok((along, block))
}

pub(super) fn quantize_linear(call: &Call<'_>) -> Result<Vec<Array>> {
    let (x, scale) = (call.input(0)?, call.input(1)?);
    let (along, block) = layout(call, x)?;
    let otherwise = call.element_type("output_dtype", ElementType::Uint8)?;
    let to = call.optional(2).map_or(otherwise, |zero_point| zero_point.element_type);
    Ok(vec![quantized(&x.f64s(), &x.shape, scale, call.optional(2), along, block, to)?])
}

pub(super) fn dequantize_linear(call: &Call<'_>) -> Result<Vec<Array>> {
    let (x, scale) = (call.input(0)?, call.input(1)?);
    let (along, block) = layout(call, x)?;
    let to = call.element_type("output_dtype", scale.element_type)?;
    Ok(vec![Array::floats(to, x.shape.clone(), &dequantized(x, scale, call.optional(2), along, block)?)?])
}

pub(super) fn dynamic_quantize_linear(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let values = x.f64s();
    let low = values.iter().copied().fold(0.0, f64::min) as f32;
    let high = values.iter().copied().fold(0.0, f64::max) as f32;
    let scale = if high == low { 1.0 } else { (high - low) / 255.0 };
    let zero_point = (-low / scale).clamp(0.0, 255.0).round_ties_even();
    let scale = Array::floats(ElementType::Float32, Vec::new(), &[scale.into()])?;
    let zero_point = Array::floats(ElementType::Uint8, Vec::new(), &[zero_point.into()])?;
    let y = quantized(&values, &x.shape, &scale, Some(&zero_point), 0, 0, ElementType::Uint8)?;
    Ok(vec![y, scale, zero_point])
}
