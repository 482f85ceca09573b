//! Normalisations.

use super::array::{Array, Result, axis, broadcast_offsets, elements, strides};
use super::call::Call;
use super::reduce::groups;
use crate::ElementType;

/// Mean and population variance of numbers.
fn moments(values: impl Iterator<Item = f64> + Clone, count: usize) -> (f64, f64) {
    let mean = values.clone().sum::<f64>() / count as f64;
    (mean, values.map(|x| (x - mean) * (x - mean)).sum::<f64>() / count as f64)
}

/// Sizes before the channels, of them and after them.
fn channel_sizes(x: &Array) -> Result<(usize, usize, usize)> {
    let &[batch, channels, ref rest @ ..] = x.shape.as_slice() else { return Err(format!("shape {:?}", x.shape)) };
    Ok((batch, channels, elements(rest)?))
}

/// The numbers of an input, of which there must be `count`.
fn numbers(call: &Call<'_>, index: usize, count: usize) -> Result<Vec<f64>> {
    let values = call.input(index)?.f64s();
    if values.len() != count {
        return Err(format!("input {index} has {} elements, needed are {count}", values.len()));
    }
    Ok(values)
}

pub(super) fn batch(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    // A vector has one channel an element.
    let (batch, channels, inner) = if x.rank() == 1 { (x.len(), 1, 1) } else { channel_sizes(x)? };
    let [scale, bias, mut mean, mut variance] = [1, 2, 3, 4].map(|index| numbers(call, index, channels));
    let (scale, bias) = (scale?, bias?);
    let (epsilon, momentum) = (call.float("epsilon", 1e-5), call.float("momentum", 0.9));
    let mut values = x.f64s();
    let mut extra = Vec::new();
    if call.flag("training_mode") {
        let of_channel = |channel: usize| {
            let values = &values;
            let rows = (0..batch).flat_map(move |row| {
                let start = (row * channels + channel) * inner;
                values[start..start + inner].iter().copied()
            });
            moments(rows, batch * inner)
        };
        let found: Vec<(f64, f64)> = (0..channels).map(of_channel).collect();
        let running = |old: &[f64], new: Vec<f64>, index: usize| {
            let joined: Vec<f64> = old.iter().zip(new).map(|(a, b)| a * momentum + b * (1.0 - momentum)).collect();
            Array::floats(call.input(index)?.element_type, vec![channels], &joined)
        };
        extra.push(running(&mean?, found.iter().map(|found| found.0).collect(), 3)?);
        extra.push(running(&variance?, found.iter().map(|found| found.1).collect(), 4)?);
        mean = Ok(found.iter().map(|found| found.0).collect());
        variance = Ok(found.iter().map(|found| found.1).collect());
    }
    let (mean, variance) = (mean?, variance?);
    for (row, values) in values.chunks_mut(inner.max(1)).enumerate() {
        let channel = row % channels;
        let factor = scale[channel] / (variance[channel] + epsilon).sqrt();
        values.iter_mut().for_each(|x| *x = (*x - mean[channel]) * factor + bias[channel]);
    }
    let mut outputs = vec![Array::floats(x.element_type, x.shape.clone(), &values)?];
    outputs.extend(extra);
    Ok(outputs)
}

/// `InstanceNormalization`, and `GroupNormalization`, whose groups are of several channels.
pub(super) fn group(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let (_, channels, inner) = channel_sizes(x)?;
    let groups = usize::try_from(call.int("num_groups", channels as i64)).unwrap_or(0);
    if groups == 0 || channels == 0 || channels % groups != 0 {
        return Err(format!("{groups} groups of {channels} channels"));
    }
    let per_group = channels / groups;
    // Until operator set 21 a group had one scale, not each of its channels.
    let scales = call.input(1)?.len();
    let shared = if scales == groups { per_group } else { 1 };
    let (scale, bias) = (numbers(call, 1, channels / shared)?, numbers(call, 2, channels / shared)?);
    let epsilon = call.float("epsilon", 1e-5);
    let mut values = x.f64s();
    for (row, values) in values.chunks_mut((per_group * inner).max(1)).enumerate() {
        let (mean, variance) = moments(values.iter().copied(), values.len());
        let factor = 1.0 / (variance + epsilon).sqrt();
        for (index, value) in values.iter_mut().enumerate() {
            let channel = (row % groups * per_group + index / inner) / shared;
            *value = (*value - mean) * factor * scale[channel] + bias[channel];
        }
    }
    Ok(vec![Array::floats(x.element_type, x.shape.clone(), &values)?])
}

/// `LayerNormalization` and `RMSNormalization`.
pub(super) fn layer(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let along = axis(call.int("axis", -1), x.rank())?;
    let (outer, inner) = x.shape.split_at(along);
    let count = elements(inner)?;
    let is_rms = call.node.op_type == "RMSNormalization";
    let epsilon = call.float("epsilon", 1e-5);
    let spread = |index: usize| -> Result<Option<Vec<f64>>> {
        let Some(input) = call.optional(index) else { return Ok(None) };
        let places = broadcast_offsets(&input.shape, &x.shape)?;
        let values = input.f64s();
        Ok(Some(places.into_iter().map(|place| values[place]).collect()))
    };
    let scale = spread(1)?.ok_or("there is no scale")?;
    let bias = if is_rms { None } else { spread(2)? };
    let mut values = x.f64s();
    let (mut means, mut inverses) = (Vec::new(), Vec::new());
    for (row, values) in values.chunks_mut(count.max(1)).enumerate() {
        let (mean, variance) = match is_rms {
            true => (0.0, values.iter().map(|x| x * x).sum::<f64>() / count as f64),
            false => moments(values.iter().copied(), count),
        };
        let inverse = 1.0 / (variance + epsilon).sqrt();
        for (index, value) in values.iter_mut().enumerate() {
            let at = row * count + index;
            *value = (*value - mean) * inverse * scale[at] + bias.as_ref().map_or(0.0, |bias| bias[at]);
        }
        means.push(mean);
        inverses.push(inverse);
    }
    let shape = [outer, &vec![1; inner.len()]].concat();
    let mut outputs = vec![Array::floats(x.element_type, x.shape.clone(), &values)?];
    if !is_rms && means.len() == elements(&shape)? {
        let element_type = call.element_type("stash_type", ElementType::Float32)?;
        outputs.push(Array::floats(element_type, shape.clone(), &means)?);
        outputs.push(Array::floats(element_type, shape, &inverses)?);
    }
    Ok(outputs)
}

/// `MeanVarianceNormalization`.
pub(super) fn mean_variance(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let axes = call.ints("axes").unwrap_or(&[0, 2, 3]);
    let axes = axes.iter().map(|at| axis(*at, x.rank())).collect::<Result<Vec<_>>>()?;
    let (starts, steps) = groups(&x.shape, &axes)?;
    let mut values = x.f64s();
    for start in starts {
        let (mean, variance) = moments(steps.iter().map(|step| values[start + step]), steps.len());
        steps.iter().for_each(|step| values[start + step] = (values[start + step] - mean) / (variance.sqrt() + 1e-9));
    }
    Ok(vec![Array::floats(x.element_type, x.shape.clone(), &values)?])
}

/// `LRN`: over neighbouring channels.
pub(super) fn local_response(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let (_, channels, _) = channel_sizes(x)?;
    let size = call.int("size", 1).clamp(1, 1 << 20) as usize;
    let (alpha, beta, bias) = (call.float("alpha", 1e-4), call.float("beta", 0.75), call.float("bias", 1.0));
    let (values, stride) = (x.f64s(), strides(&x.shape)[1]);
    let scaled = |index: usize| {
        let channel = index / stride % channels;
        let (first, last) = (channel.saturating_sub((size - 1) / 2), (channel + size / 2).min(channels - 1));
        let base = index - channel * stride;
        let squares: f64 = (first..=last).map(|channel| values[base + channel * stride].powi(2)).sum();
        values[index] / libm::pow(bias + alpha / size as f64 * squares, beta)
    };
    let scaled: Vec<f64> = (0..values.len()).map(scaled).collect();
    Ok(vec![Array::floats(x.element_type, x.shape.clone(), &scaled)?])
}
