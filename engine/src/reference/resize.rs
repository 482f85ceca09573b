//! `Resize` and `Upsample`: one axis after the other.

use super::array::{Array, Result, axis, elements, sizes};
use super::binary::integer_range;
use super::call::Call;

/// How an axis is resized.
struct Resizing<'a> {
    mode: &'a str,
    nearest: &'a str,
    transformation: &'a str,
    is_antialiased: bool,
    excludes_outside: bool,
    cubic_a: f64,
    extrapolation: f64,
}

/// The cubic kernel at a distance.
pub(super) fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}

impl Resizing<'_> {
    /// Where the element of that index comes from in the input; `None` outside of what is cropped.
    fn source(&self, index: usize, scale: f64, input: usize, output: usize, roi: (f64, f64)) -> Option<f64> {
        let (x, input) = (index as f64, input as f64);
        let width = scale * input;
        Some(match self.transformation {
            "align_corners" if width == 1.0 => 0.0,
            "align_corners" => x * (input - 1.0) / (width - 1.0),
            "asymmetric" => x / scale,
            "tf_crop_and_resize" => {
                let span = (roi.1 - roi.0) * (input - 1.0);
                let at = roi.0 * (input - 1.0) + if width == 1.0 { span / 2.0 } else { x * span / (width - 1.0) };
                return (0.0..=input - 1.0).contains(&at).then_some(at);
            }
            "pytorch_half_pixel" if width == 1.0 => -0.5,
            "tf_half_pixel_for_nn" => (x + 0.5) / scale,
            "half_pixel_symmetric" => input / 2.0 * (1.0 - output as f64 / width) + (x + 0.5) / scale - 0.5,
            _ => (x + 0.5) / scale - 0.5,
        })
    }

    /// The neighbours of a place and their weights. They may lie outside of the input.
    fn weights(&self, at: f64, scale: f64) -> Vec<(i64, f64)> {
        let left = at.floor();
        if self.mode == "nearest" {
            let fraction = at - left;
            let up = match self.nearest {
                "floor" => false,
                "ceil" => fraction > 0.0,
                "round_prefer_ceil" => fraction >= 0.5,
                _ => fraction > 0.5,
            };
            return vec![(left as i64 + i64::from(up), 1.0)];
        }
        // A kernel is stretched where the result is smaller.
        let scale = if self.is_antialiased { scale.min(1.0) } else { 1.0 };
        let reach = if self.mode == "cubic" { 2.0 } else { 1.0 };
        let (first, last) = ((at - reach / scale).floor() as i64, (at + reach / scale).ceil() as i64);
        let weight = |index: i64| {
            let distance = (index as f64 - at) * scale;
            if self.mode == "cubic" { cubic(distance, self.cubic_a) } else { (1.0 - distance.abs()).max(0.0) }
        };
        let mut weights: Vec<(i64, f64)> = (first..=last).map(|index| (index, weight(index))).collect();
        let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
        weights.iter_mut().for_each(|(_, weight)| *weight /= total);
        weights
    }

    /// The numbers of an array resized along one axis.
    fn along(
        &self,
        values: &[f64],
        shape: &[usize],
        at: usize,
        output: usize,
        scale: f64,
        roi: (f64, f64),
    ) -> Result<Vec<f64>> {
        let (size, inner) = (shape[at], elements(&shape[at + 1..])?);
        let outer = elements(&shape[..at])?;
        elements(&[outer, output, inner])?;
        if size == 0 && output > 0 {
            return Err("an empty axis has nothing to resize".into());
        }
        let weights: Vec<Option<Vec<(usize, f64)>>> = (0..output)
            .map(|index| {
                let mut weights = self.weights(self.source(index, scale, size, output, roi)?, scale);
                if self.excludes_outside {
                    weights.retain(|(index, _)| (0..size as i64).contains(index));
                    let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
                    weights.iter_mut().for_each(|(_, weight)| *weight /= total);
                }
                let clamped = |(index, weight): (i64, f64)| (index.clamp(0, size as i64 - 1) as usize, weight);
                Some(weights.into_iter().map(clamped).collect())
            })
            .collect();
        let mut result = Vec::with_capacity(outer * output * inner);
        for row in 0..outer {
            for weights in &weights {
                for column in 0..inner {
                    result.push(match weights {
                        None => self.extrapolation,
                        Some(weights) => {
                            let term =
                                |(index, weight): &(usize, f64)| values[(row * size + index) * inner + column] * weight;
                            weights.iter().map(term).sum()
                        }
                    });
                }
            }
        }
        Ok(result)
    }
}

pub(super) fn resize(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    // `Upsample`, and `Resize` before operator set 11, have the scales at once and begin at the first element's edge.
    let is_old = call.node.op_type == "Upsample" || call.opset < 11;
    let given = |index: usize| call.optional(index).filter(|input| input.len() > 0);
    let (roi, scales) = match is_old {
        true => (None, given(1).map(Array::f64s).or_else(|| call.floats("scales"))),
        false => (given(1).map(Array::f64s), given(2).map(Array::f64s)),
    };
    let wanted = if is_old { None } else { given(3).map(|input| sizes(&input.i64s())).transpose()? };
    let axes = match call.ints("axes") {
        Some(axes) => axes.iter().map(|at| axis(*at, x.rank())).collect::<Result<Vec<_>>>()?,
        None => (0..x.rank()).collect(),
    };
    let resizing = Resizing {
        mode: match call.text("mode", "nearest") {
            "linear" | "bilinear" => "linear",
            "cubic" => "cubic",
            _ => "nearest",
        },
        nearest: call.text("nearest_mode", if is_old { "floor" } else { "round_prefer_floor" }),
        transformation: call.text("coordinate_transformation_mode", if is_old { "asymmetric" } else { "half_pixel" }),
        is_antialiased: call.flag("antialias"),
        excludes_outside: call.flag("exclude_outside"),
        cubic_a: call.float("cubic_coeff_a", -0.75),
        extrapolation: call.float("extrapolation_value", 0.0),
    };
    let size_of = |index: usize| x.shape[axes[index]] as f64;
    let mut plan: Vec<(usize, f64)> = match (wanted, scales) {
        (Some(wanted), _) if wanted.len() == axes.len() => {
            wanted.iter().enumerate().map(|(index, size)| (*size, *size as f64 / size_of(index))).collect()
        }
        (None, Some(scales)) if scales.len() == axes.len() => {
            let positive = |scale: &f64| scale.is_finite() && *scale > 0.0;
            if !scales.iter().all(positive) {
                return Err(format!("scales {scales:?}"));
            }
            scales
                .iter()
                .enumerate()
                .map(|(index, scale)| ((scale * size_of(index)).floor() as usize, *scale))
                .collect()
        }
        _ => return Err(format!("its scales or sizes are not for {} axes", axes.len())),
    };
    let policy = call.text("keep_aspect_ratio_policy", "stretch");
    if policy != "stretch" && call.optional(3).is_some() {
        let scales = plan.iter().map(|(_, scale)| *scale);
        let scale = if policy == "not_larger" { scales.reduce(f64::min) } else { scales.reduce(f64::max) };
        let scale = scale.ok_or("there are no axes")?;
        for (index, part) in plan.iter_mut().enumerate() {
            *part = ((scale * size_of(index) + 0.5) as usize, scale);
        }
    }
    let (mut values, mut shape) = (x.f64s(), x.shape.clone());
    for (index, (size, scale)) in plan.iter().enumerate() {
        let at = axes[index];
        let region = match &roi {
            Some(roi) if roi.len() == 2 * axes.len() => (roi[index], roi[axes.len() + index]),
            _ => (0.0, 1.0),
        };
        let is_whole = resizing.transformation != "tf_crop_and_resize" || region == (0.0, 1.0);
        if *size != shape[at] || *scale != 1.0 || !is_whole {
            values = resizing.along(&values, &shape, at, *size, *scale, region)?;
            shape[at] = *size;
        }
    }
    if !x.is_float() {
        let (low, high) = integer_range(x.element_type);
        let high = if x.is_uint64() { u64::MAX as f64 } else { high as f64 };
        values.iter_mut().for_each(|value| *value = value.clamp(low as f64, high));
    }
    Ok(vec![Array::floats(x.element_type, shape, &values)?])
}
