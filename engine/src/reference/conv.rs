//! Convolutions.

use super::array::{Array, ELEMENTS_MAX, Result, elements};
use super::call::Call;
use super::matmul::centred;
use super::quantize::{dequantized, quantized};
use super::unary::sigmoid;
use super::window::Window;
use crate::ElementType;

/// Most products that one convolution adds up.
const PRODUCTS_MAX: u64 = 1 << 40;

/// Batch, channels and the spatial sizes.
pub(super) fn image(shape: &[usize]) -> Result<(usize, usize, &[usize])> {
    match shape {
        [batch, channels, spatial @ ..] => Ok((*batch, *channels, spatial)),
        _ => Err(format!("shape {shape:?} has no channels")),
    }
}

/// The number of groups, which both numbers of channels are multiples of.
fn groups(call: &Call<'_>, inputs: usize, outputs: usize) -> Result<usize> {
    let groups = usize::try_from(call.int("group", 1)).unwrap_or(0);
    match groups > 0 && inputs.is_multiple_of(groups) && outputs.is_multiple_of(groups) {
        true => Ok(groups),
        false => Err(format!("{groups} groups of {inputs} and {outputs} channels")),
    }
}

/// A convolution of numbers in place of the tensors' own.
fn convolved(
    call: &Call<'_>,
    x: &[f64],
    shape: &[usize],
    w: &[f64],
    weights: &[usize],
) -> Result<(Vec<usize>, Vec<f64>)> {
    let (batch, channels, spatial) = image(shape)?;
    let (outputs, per_group, kernel) = image(weights)?;
    let groups = groups(call, channels, outputs)?;
    if channels / groups != per_group {
        return Err(format!("weights of shape {weights:?} for {channels} channels in {groups} groups"));
    }
    let window = Window::new(call, spatial, kernel)?;
    let result = [&[batch, outputs], &*window.positions].concat();
    let mut values = vec![0.0; elements(&result)?];
    let (size, count, taps_all) = (elements(spatial)?, window.count(), window.kernel_elements());
    if values.len() as u64 * (per_group as u64).saturating_mul(taps_all as u64) > PRODUCTS_MAX {
        return Err(format!("a convolution of {} by {per_group} by {taps_all} products", values.len()));
    }
    for position in 0..count {
        let taps = window.taps(position).places;
        for row in 0..batch * outputs {
            let (image, output) = (row / outputs, row % outputs);
            let first = output / (outputs / groups) * per_group;
            let mut sum = 0.0;
            for channel in 0..per_group {
                let from = (image * channels + first + channel) * size;
                let weight = (output * per_group + channel) * taps_all;
                for (kernel, offset) in &taps {
                    sum += x[from + offset] * w[weight + kernel];
                }
            }
            values[row * count + position] = sum;
        }
    }
    Ok((result, values))
}

/// Adds a number to each channel.
fn add_bias(values: &mut [f64], shape: &[usize], bias: Option<&Array>) -> Result<()> {
    let Some(bias) = bias else { return Ok(()) };
    let (_, channels, spatial) = image(shape)?;
    if bias.shape != [channels] {
        return Err(format!("biases of shape {:?} for {channels} channels", bias.shape));
    }
    let bias = bias.f64s();
    for (row, values) in values.chunks_mut(elements(spatial)?.max(1)).enumerate() {
        values.iter_mut().for_each(|value| *value += bias[row % channels]);
    }
    Ok(())
}

pub(super) fn conv(call: &Call<'_>) -> Result<Vec<Array>> {
    let (x, w) = (call.input(0)?, call.input(1)?);
    let (shape, mut values) = convolved(call, &x.f64s(), &x.shape, &w.f64s(), &w.shape)?;
    add_bias(&mut values, &shape, call.optional(2))?;
    Ok(vec![Array::floats(x.element_type, shape, &values)?])
}

pub(super) fn conv_integer(call: &Call<'_>) -> Result<Vec<Array>> {
    let (x, w) = (call.input(0)?, call.input(1)?);
    // Sums of products of bytes are exact in float64.
    let wide = |values: Vec<i64>| values.into_iter().map(|value| value as f64).collect::<Vec<_>>();
    let (xs, ws) = (wide(centred(x, call.optional(2), 1)?), wide(centred(w, call.optional(3), 0)?));
    let (shape, values) = convolved(call, &xs, &x.shape, &ws, &w.shape)?;
    Ok(vec![Array::floats(ElementType::Int32, shape, &values)?])
}

pub(super) fn qlinear_conv(call: &Call<'_>) -> Result<Vec<Array>> {
    let (x, x_scale, w, w_scale, y_zero) =
        (call.input(0)?, call.input(1)?, call.input(3)?, call.input(4)?, call.input(7)?);
    let xs = dequantized(x, x_scale, call.optional(2), 1, 0)?;
    let ws = dequantized(w, w_scale, call.optional(5), 0, 0)?;
    let (shape, mut values) = convolved(call, &xs, &x.shape, &ws, &w.shape)?;
    if let Some(bias) = call.optional(8) {
        // The bias has the scale of the products.
        let (x_scale, scales, numbers) = (x_scale.scalar_f64()?, w_scale.f64s(), bias.f64s());
        let scale = |index: usize| scales.get(if scales.len() == 1 { 0 } else { index }).copied().unwrap_or(0.0);
        let real: Vec<f64> =
            numbers.iter().enumerate().map(|(index, number)| number * x_scale * scale(index)).collect();
        add_bias(&mut values, &shape, Some(&Array::floats(ElementType::Float64, bias.shape.clone(), &real)?))?;
    }
    Ok(vec![quantized(&values, &shape, call.input(6)?, Some(y_zero), 1, 0, y_zero.element_type)?])
}

pub(super) fn conv_transpose(call: &Call<'_>) -> Result<Vec<Array>> {
    let (x, w) = (call.input(0)?, call.input(1)?);
    let (batch, channels, spatial) = image(&x.shape)?;
    let (inputs, per_group, kernel) = image(&w.shape)?;
    let groups = groups(call, channels, channels)?;
    if inputs != channels {
        return Err(format!("weights of shape {:?} for {channels} channels", w.shape));
    }
    let outputs = per_group * groups;
    let window = Window::transposed(call, spatial, kernel)?;
    let shape = [&[batch, outputs], window.input()].concat();
    let mut values = vec![0.0; elements(&shape)?];
    let (xs, ws) = (x.f64s(), w.f64s());
    let (size, result_size, taps_all) = (elements(spatial)?, elements(window.input())?, window.kernel_elements());
    for position in 0..window.count() {
        let taps = window.taps(position).places;
        for row in 0..batch * channels {
            let (image, channel) = (row / channels, row % channels);
            let value = xs[row * size + position];
            let first = channel / (channels / groups) * per_group;
            for output in 0..per_group {
                let to = (image * outputs + first + output) * result_size;
                let weight = (channel * per_group + output) * taps_all;
                for (kernel, offset) in &taps {
                    values[to + offset] += value * ws[weight + kernel];
                }
            }
        }
    }
    add_bias(&mut values, &shape, call.optional(2))?;
    Ok(vec![Array::floats(x.element_type, shape, &values)?])
}

/// `Col2Im`: blocks put where they were taken from, and summed.
pub(super) fn col2im(call: &Call<'_>) -> Result<Vec<Array>> {
    let (x, image_shape, block) = (call.input(0)?, call.input(1)?.i64s(), call.input(2)?.i64s());
    let (image_shape, block) = (super::array::sizes(&image_shape)?, super::array::sizes(&block)?);
    let window = Window::new(call, &image_shape, &block)?;
    let &[batch, rows, columns] = x.shape.as_slice() else { return Err(format!("shape {:?}", x.shape)) };
    let taps_all = window.kernel_elements();
    if columns != window.count() || rows % taps_all != 0 {
        return Err(format!("shape {:?} for blocks {block:?} of {image_shape:?}", x.shape));
    }
    let shape = [&[batch, rows / taps_all], &*image_shape].concat();
    let mut values = vec![0.0; elements(&shape)?];
    let (xs, size) = (x.f64s(), elements(&image_shape)?);
    for position in 0..columns {
        let taps = window.taps(position).places;
        for plane in 0..batch * (rows / taps_all) {
            for (kernel, offset) in &taps {
                values[plane * size + offset] += xs[(plane * taps_all + kernel) * columns + position];
            }
        }
    }
    Ok(vec![Array::floats(x.element_type, shape, &values)?])
}

/// The value of a plane of `h` by `w` between its elements, 0 outside.
pub(super) fn bilinear(plane: &[f64], h: usize, w: usize, y: f64, x: f64) -> f64 {
    let (top, left) = (y.floor(), x.floor());
    let (down, right) = (y - top, x - left);
    let at = |dy: f64, dx: f64| {
        let (y, x) = (top + dy, left + dx);
        let inside = y >= 0.0 && x >= 0.0 && y < h as f64 && x < w as f64;
        if inside { plane[y as usize * w + x as usize] } else { 0.0 }
    };
    let upper = at(0.0, 0.0) * (1.0 - right) + at(0.0, 1.0) * right;
    let lower = at(1.0, 0.0) * (1.0 - right) + at(1.0, 1.0) * right;
    upper * (1.0 - down) + lower * down
}

/// `DeformConv` over two axes.
pub(super) fn deform_conv(call: &Call<'_>) -> Result<Vec<Array>> {
    let (x, w, offsets) = (call.input(0)?, call.input(1)?, call.input(2)?);
    let (batch, channels, spatial) = image(&x.shape)?;
    let (outputs, per_group, kernel) = image(&w.shape)?;
    let (groups, window) = (groups(call, channels, outputs)?, Window::new(call, spatial, kernel)?);
    let (&[h, width], &[kh, kw]) = (spatial, kernel) else { return Err(format!("{} axes", spatial.len())) };
    let offset_groups = usize::try_from(call.int("offset_group", 1)).unwrap_or(0);
    let (count, taps, size) = (window.count(), kh * kw, h * width);
    let has_mask = call.optional(4);
    let fits = offset_groups > 0
        && channels % offset_groups == 0
        && channels / groups == per_group
        && offsets.len() == batch.saturating_mul(offset_groups * 2 * taps).saturating_mul(count)
        && has_mask.is_none_or(|mask| mask.len() * 2 == offsets.len());
    let shape = [&[batch, outputs], &*window.positions].concat();
    if !fits || elements(&shape)?.saturating_mul(per_group * taps) > 8 * ELEMENTS_MAX {
        return Err(format!(
            "shapes {:?}, {:?}, {:?} and {offset_groups} offset groups",
            x.shape, w.shape, offsets.shape
        ));
    }
    let (xs, ws, offsets) = (x.f64s(), w.f64s(), offsets.f64s());
    let mask = has_mask.map(Array::f64s);
    let mut values = vec![0.0; batch * outputs * count];
    for (index, value) in values.iter_mut().enumerate() {
        let (image, output, position) = (index / (outputs * count), index / count % outputs, index % count);
        let (row, column) = (position / window.positions[1], position % window.positions[1]);
        for channel in 0..per_group {
            let input = output / (outputs / groups) * per_group + channel;
            let offset_group = image * offset_groups + input / (channels / offset_groups);
            let plane = &xs[(image * channels + input) * size..][..size];
            for tap in 0..taps {
                let offset = |part: usize| offsets[((offset_group * taps + tap) * 2 + part) * count + position];
                let y = (window.corner(0, row) + (tap / kw) as i64 * window.dilation(0)) as f64 + offset(0);
                let x = (window.corner(1, column) + (tap % kw) as i64 * window.dilation(1)) as f64 + offset(1);
                let factor = mask.as_ref().map_or(1.0, |mask| mask[(offset_group * taps + tap) * count + position]);
                *value += bilinear(plane, h, width, y, x) * ws[(output * per_group + channel) * taps + tap] * factor;
            }
        }
    }
    add_bias(&mut values, &shape, call.optional(3))?;
    Ok(vec![Array::floats(x.element_type, shape, &values)?])
}

/// `CausalConvWithState`: each channel over its own past, of which the last part is kept for the next call.
pub(super) fn causal_conv(call: &Call<'_>) -> Result<Vec<Array>> {
    let (x, w) = (call.input(0)?, call.input(1)?);
    let (&[batch, channels, length], &[rows, 1, k]) = (x.shape.as_slice(), w.shape.as_slice()) else {
        return Err(format!("shapes {:?} and {:?}", x.shape, w.shape));
    };
    if rows != channels || k == 0 {
        return Err(format!("shapes {:?} and {:?}", x.shape, w.shape));
    }
    let past = match call.optional(3) {
        Some(past) => past.clone(),
        None => Array::integers(
            x.element_type,
            vec![batch, channels, k - 1],
            &vec![0; elements(&[batch, channels, k - 1])?],
        )?,
    };
    if past.shape != [batch, channels, k - 1] {
        return Err(format!("a state of shape {:?}", past.shape));
    }
    let padded = Array::concat(&[past, x.clone()], 2)?;
    let (xs, ws) = (padded.f64s(), w.f64s());
    let sum = |index: usize| -> f64 {
        let (row, at) = (index / length, index % length);
        let start = row * (length + k - 1) + at;
        xs[start..start + k].iter().zip(&ws[row % channels * k..]).map(|(x, w)| x * w).sum()
    };
    let mut values: Vec<f64> = (0..x.len()).map(sum).collect();
    add_bias(&mut values, &x.shape, call.optional(2))?;
    if call.text("activation", "none") != "none" {
        values.iter_mut().for_each(|value| *value *= sigmoid(*value));
    }
    let present = padded.part(2, length, k - 1)?;
    Ok(vec![Array::floats(x.element_type, x.shape.clone(), &values)?, present])
}
