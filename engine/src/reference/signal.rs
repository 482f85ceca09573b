//! Transforms of signals. Transforms are summed as they are defined: a length is no power of two here more often than not.

use super::array::{Array, ELEMENTS_MAX, Result, axis, elements, strides};
use super::call::Call;
use crate::ElementType;
use std::f64::consts::PI;

/// A complex number.
type Complex = (f64, f64);

/// Most products that a transform adds up.
const PRODUCTS_MAX: usize = 64 * ELEMENTS_MAX;

/// The first `bins` of a discrete Fourier transform of so many numbers, or of its inverse.
fn transformed(signal: &[Complex], bins: usize, is_inverse: bool) -> Vec<Complex> {
    let length = signal.len();
    let sign = if is_inverse { 1.0 } else { -1.0 };
    let angle = |index: usize| sign * 2.0 * PI * index as f64 / length as f64;
    let turns: Vec<Complex> = (0..length).map(|index| (libm::cos(angle(index)), libm::sin(angle(index)))).collect();
    let scale = if is_inverse { 1.0 / length as f64 } else { 1.0 };
    let bin = |bin: usize| {
        let mut at = 0;
        let mut sum = (0.0, 0.0);
        for (real, imaginary) in signal {
            let (cos, sin) = turns[at];
            sum = (sum.0 + real * cos - imaginary * sin, sum.1 + real * sin + imaginary * cos);
            at = (at + bin) % length;
        }
        (sum.0 * scale, sum.1 * scale)
    };
    (0..bins).map(bin).collect()
}

/// The length that an input says, which must be positive.
fn length_of(call: &Call<'_>, index: usize) -> Result<Option<usize>> {
    let Some(input) = call.optional(index) else { return Ok(None) };
    let length = input.scalar_i64()?;
    let found = usize::try_from(length).ok().filter(|length| (1..=ELEMENTS_MAX).contains(length));
    found.map(Some).ok_or_else(|| format!("a length of {length}"))
}

pub(super) fn dft(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let at = match call.optional(2) {
        Some(input) => input.scalar_i64()?,
        None => call.int("axis", if call.opset < 20 { 1 } else { -2 }),
    };
    let along = axis(at, x.rank())?;
    let (&[.., parts], size) = (x.shape.as_slice(), x.shape[along]) else { return Err("a scalar".into()) };
    if !(1..=2).contains(&parts) || along + 1 == x.rank() {
        return Err(format!("shape {:?}, axis {along}", x.shape));
    }
    let (is_inverse, is_onesided) = (call.flag("inverse"), call.flag("onesided"));
    let is_real = is_inverse && is_onesided;
    let otherwise = if is_real { 2 * size.saturating_sub(1) } else { size };
    let length = length_of(call, 1)?.unwrap_or(otherwise);
    let bins = if is_onesided && !is_inverse { length / 2 + 1 } else { length };
    let mut shape = x.shape.clone();
    let last = shape.len() - 1;
    shape[along] = bins;
    shape[last] = if is_real { 1 } else { 2 };
    let outer = elements(&x.shape[..along])?;
    let inner = elements(&x.shape[along + 1..last])?;
    let mut values = vec![0.0; elements(&shape)?];
    if values.len().saturating_mul(length) > PRODUCTS_MAX {
        return Err(format!("{} sums of {length} products", values.len()));
    }
    let xs = x.f64s();
    for row in 0..outer * inner {
        let (outer, inner_at) = (row / inner, row % inner);
        let number = |index: usize| -> Complex {
            let place = ((outer * size + index) * inner + inner_at) * parts;
            (xs[place], if parts == 2 { xs[place + 1] } else { 0.0 })
        };
        let whole = |index: usize| match index {
            // The other half is the first one mirrored.
            index if is_real && index > length / 2 => {
                let mirrored = length - index;
                let (real, imaginary) = if mirrored < size { number(mirrored) } else { (0.0, 0.0) };
                (real, -imaginary)
            }
            index if index < size => number(index),
            _ => (0.0, 0.0),
        };
        let signal: Vec<Complex> = (0..length).map(whole).collect();
        for (bin, (real, imaginary)) in transformed(&signal, bins, is_inverse).into_iter().enumerate() {
            let place = ((outer * bins + bin) * inner + inner_at) * shape[last];
            values[place] = real;
            if !is_real {
                values[place + 1] = imaginary;
            }
        }
    }
    Ok(vec![Array::floats(x.element_type, shape, &values)?])
}

pub(super) fn stft(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let (batch, length, parts) = match x.shape.as_slice() {
        &[batch, length] => (batch, length, 1),
        &[batch, length, parts @ 1..=2] => (batch, length, parts),
        shape => return Err(format!("shape {shape:?}")),
    };
    let step = length_of(call, 1)?.ok_or("there is no step")?;
    let window = call.optional(2).map(Array::f64s);
    let frame = length_of(call, 3)?.or(window.as_ref().map(Vec::len)).unwrap_or(length);
    let window = window.unwrap_or_else(|| vec![1.0; frame]);
    if frame == 0 || frame > length || window.len() != frame {
        return Err(format!("frames of {frame} of a signal of {length}, and a window of {}", window.len()));
    }
    let frames = 1 + (length - frame) / step;
    let bins = if call.int("onesided", 1) != 0 { frame / 2 + 1 } else { frame };
    let shape = vec![batch, frames, bins, 2];
    if elements(&shape)?.saturating_mul(frame) > PRODUCTS_MAX {
        return Err(format!("shape {shape:?} of frames of {frame}"));
    }
    let (xs, own) = (x.f64s(), strides(&x.shape));
    let mut values = Vec::new();
    for row in 0..batch * frames {
        let start = row / frames * own[0] + row % frames * step * parts;
        let number = |(index, weight): (usize, &f64)| {
            let place = start + index * parts;
            (xs[place] * weight, if parts == 2 { xs[place + 1] * weight } else { 0.0 })
        };
        let signal: Vec<Complex> = window.iter().enumerate().map(number).collect();
        values.extend(transformed(&signal, bins, false).into_iter().flat_map(|(real, imaginary)| [real, imaginary]));
    }
    Ok(vec![Array::floats(x.element_type, shape, &values)?])
}

/// `BlackmanWindow`, `HammingWindow`, `HannWindow`.
pub(super) fn window(call: &Call<'_>) -> Result<Vec<Array>> {
    let size = call.input(0)?.scalar_i64()?;
    let size = usize::try_from(size).ok().filter(|size| *size <= ELEMENTS_MAX).ok_or_else(|| format!("size {size}"))?;
    let period = if call.int("periodic", 1) != 0 { size as f64 } else { size as f64 - 1.0 };
    let weights = match &*call.node.op_type {
        "BlackmanWindow" => [0.42, 0.5, 0.08],
        "HammingWindow" => [25.0 / 46.0, 21.0 / 46.0, 0.0],
        _ => [0.5, 0.5, 0.0],
    };
    let value = |index: usize| {
        let angle = 2.0 * PI * index as f64 / period;
        weights[0] - weights[1] * libm::cos(angle) + weights[2] * libm::cos(2.0 * angle)
    };
    let values: Vec<f64> = (0..size).map(value).collect();
    let element_type = call.element_type("output_datatype", ElementType::Float32)?;
    Ok(vec![Array::floats(element_type, vec![size], &values)?])
}

pub(super) fn mel_weight_matrix(call: &Call<'_>) -> Result<Vec<Array>> {
    let number = |index: usize| call.input(index).and_then(Array::scalar_f64);
    let (bands, length, rate, low, high) = (number(0)?, number(1)?, number(2)?, number(3)?, number(4)?);
    if !(1.0..1e6).contains(&bands) || !(1.0..1e6).contains(&length) || !(1.0..1e12).contains(&rate) {
        return Err(format!("{bands} bands of a transform of {length} at a rate of {rate}"));
    }
    let (bands, bins) = (bands as usize, length as usize / 2 + 1);
    let mel = |hertz: f64| 2595.0 * libm::log10(1.0 + hertz / 700.0);
    let (low, high) = (mel(low), mel(high));
    let step = (high - low) / (bands + 2) as f64;
    let edge = |index: usize| {
        let hertz = 700.0 * (libm::pow(10.0, (index as f64 * step + low) / 2595.0) - 1.0);
        ((length + 1.0) * hertz / rate).floor() as i64
    };
    let mut values = vec![0.0; elements(&[bins, bands])?];
    let mut set = |bin: i64, band: usize, value: f64| match usize::try_from(bin).ok().filter(|bin| *bin < bins) {
        Some(bin) => {
            values[bin * bands + band] = value;
            Ok(())
        }
        None => Err(format!("bin {bin} of {bins}")),
    };
    for band in 0..bands {
        let (left, center, right) = (edge(band), edge(band + 1), edge(band + 2));
        if left == center {
            set(center, band, 1.0)?;
        }
        for bin in if left == center { 0..0 } else { left..center + 1 } {
            set(bin, band, (bin - left) as f64 / (center - left) as f64)?;
        }
        for bin in center..right {
            set(bin, band, (right - bin) as f64 / (right - center) as f64)?;
        }
    }
    let element_type = call.element_type("output_datatype", ElementType::Float32)?;
    Ok(vec![Array::floats(element_type, vec![bins, bands], &values)?])
}
