//! Pooling.

use super::array::{Array, Result, elements, sizes, strides};
use super::call::Call;
use super::conv::image;
use super::window::{Window, kernel_shape};
use crate::ElementType;

/// `AveragePool`, `LpPool` and `MaxPool`, and those over all of an image.
pub(super) fn pool(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let (batch, channels, spatial) = image(&x.shape)?;
    let window = Window::new(call, spatial, &kernel_shape(call, spatial)?)?;
    let shape = [&[batch, channels], &*window.positions].concat();
    let (size, count, xs) = (elements(spatial)?, window.count(), x.f64s());
    let mut values = vec![0.0; elements(&shape)?];
    let mut indices = vec![0i64; values.len()];
    let name = call.node.op_type.trim_start_matches("Global");
    let (p, counts_padding) = (call.int("p", 2) as f64, call.flag("count_include_pad"));
    let by_columns = call.flag("storage_order");
    let own = strides(spatial);
    for position in 0..count {
        let taps = window.taps(position);
        let divisor = if counts_padding { taps.with_padding } else { taps.places.len() } as f64;
        for plane in 0..batch * channels {
            let at = |offset: usize| xs[plane * size + offset];
            let offsets = taps.places.iter().map(|(_, offset)| *offset);
            values[plane * count + position] = match name {
                "AveragePool" => offsets.map(at).sum::<f64>() / divisor,
                "LpPool" => libm::pow(offsets.map(|offset| libm::pow(at(offset).abs(), p)).sum(), 1.0 / p),
                _ => {
                    let larger =
                        |best: usize, next: usize| if at(next) > at(best) || at(next).is_nan() { next } else { best };
                    let best = offsets.reduce(larger);
                    let Some(best) = best else { return Err("a window lies outside of the input".into()) };
                    let index = match by_columns {
                        // Indices as if the axes of the image were in the other order.
                        true => {
                            let mut step = 1;
                            let mut index = 0;
                            for axis in 0..spatial.len() {
                                index += best / own[axis] % spatial[axis] * step;
                                step *= spatial[axis];
                            }
                            index
                        }
                        false => best,
                    };
                    indices[plane * count + position] = (plane * size + index) as i64;
                    at(best)
                }
            };
        }
    }
    let mut outputs = vec![Array::floats(x.element_type, shape.clone(), &values)?];
    if call.node.op_type == "MaxPool" {
        outputs.push(Array::integers(ElementType::Int64, shape, &indices)?);
    }
    Ok(outputs)
}

pub(super) fn max_unpool(call: &Call<'_>) -> Result<Vec<Array>> {
    let (x, indices) = (call.input(0)?, call.input(1)?);
    let (batch, channels, spatial) = image(&x.shape)?;
    let window = Window::transposed(call, spatial, &kernel_shape(call, &[])?)?;
    let inferred = [&[batch, channels], window.input()].concat();
    let mut values = vec![0.0; elements(&inferred)?];
    for (index, value) in indices.i64s().into_iter().zip(x.f64s()) {
        let to = usize::try_from(index).ok().and_then(|index| values.get_mut(index));
        *to.ok_or_else(|| format!("index {index} of shape {inferred:?}"))? = value;
    }
    let result = Array::floats(x.element_type, inferred, &values)?;
    let Some(shape) = call.optional(2) else { return Ok(vec![result]) };
    let wanted = sizes(&shape.i64s())?;
    if wanted.len() != result.rank() {
        return Err(format!("an output of shape {wanted:?}"));
    }
    let more: Vec<i64> = wanted.iter().zip(&result.shape).map(|(to, from)| *to as i64 - *from as i64).collect();
    let zero = vec![0; more.len()];
    Ok(vec![super::movement::padded_array(&result, &zero, &more, "constant", &[0; 8][..x.element_bytes()])?])
}

/// `RoiAlign`.
pub(super) fn roi_align(call: &Call<'_>) -> Result<Vec<Array>> {
    let (x, rois, batches) = (call.input(0)?, call.input(1)?, call.input(2)?.i64s());
    let (&[batch, channels, h, w], &[count, 4]) = (x.shape.as_slice(), rois.shape.as_slice()) else {
        return Err(format!("shapes {:?} and {:?}", x.shape, rois.shape));
    };
    let positive = |name: &str| usize::try_from(call.int(name, 1)).ok().filter(|size| (1..1 << 16).contains(size));
    let (Some(rows), Some(columns)) = (positive("output_height"), positive("output_width")) else {
        return Err("an output size is out of range".into());
    };
    let shape = vec![count, channels, rows, columns];
    let (xs, rois, scale) = (x.f64s(), rois.f64s(), call.float("spatial_scale", 1.0));
    let samples = call.int("sampling_ratio", 0).clamp(0, 1 << 10);
    let mode = call.text("coordinate_transformation_mode", "half_pixel");
    let (is_half, is_max) = (mode == "half_pixel" && call.opset >= 16, call.text("mode", "avg") == "max");
    if h == 0 || w == 0 || batches.len() != count {
        return Err(format!("shape {:?} and {} batch indices", x.shape, batches.len()));
    }
    let mut values = Vec::with_capacity(elements(&shape)?);
    for (roi, image) in rois.chunks(4).zip(&batches) {
        let image =
            usize::try_from(*image).ok().filter(|image| *image < batch).ok_or("a batch index is out of range")?;
        let shift = if is_half { 0.5 } else { 0.0 };
        let [left, top, right, bottom] = [0, 1, 2, 3].map(|index| roi[index] * scale - shift);
        // Regions are at least one pixel large where coordinates are not moved.
        let least = if is_half { f64::NEG_INFINITY } else { 1.0 };
        let (cell_h, cell_w) = ((bottom - top).max(least) / rows as f64, (right - left).max(least) / columns as f64);
        let number = |cell: f64| if samples > 0 { samples } else { cell.ceil().clamp(1.0, 1024.0) as i64 };
        let (down, across) = (number(cell_h), number(cell_w));
        for channel in 0..channels {
            let plane = &xs[(image * channels + channel) * h * w..][..h * w];
            for cell in 0..rows * columns {
                let (row, column) = ((cell / columns) as f64, (cell % columns) as f64);
                let (mut sum, mut largest) = (0.0, f64::NEG_INFINITY);
                for sample in 0..down * across {
                    let (i, j) = ((sample / across) as f64, (sample % across) as f64);
                    let y = top + row * cell_h + (i + 0.5) * cell_h / down as f64;
                    let x = left + column * cell_w + (j + 0.5) * cell_w / across as f64;
                    let (value, most) = sampled(plane, h, w, y, x);
                    sum += value;
                    largest = f64::max(largest, most);
                }
                values.push(if is_max { largest } else { sum / (down * across) as f64 });
            }
        }
    }
    Ok(vec![Array::floats(x.element_type, shape, &values)?])
}

/// The value between four neighbours, and the largest of their weighted values; 0 beyond one element outside.
fn sampled(plane: &[f64], h: usize, w: usize, y: f64, x: f64) -> (f64, f64) {
    if y < -1.0 || x < -1.0 || y > h as f64 || x > w as f64 {
        return (0.0, 0.0);
    }
    let (y, x) = (y.clamp(0.0, (h - 1) as f64), x.clamp(0.0, (w - 1) as f64));
    let (top, left) = (y.floor() as usize, x.floor() as usize);
    let (bottom, right) = ((top + 1).min(h - 1), (left + 1).min(w - 1));
    let (down, across) = (y - top as f64, x - left as f64);
    let parts = [
        (1.0 - down) * (1.0 - across) * plane[top * w + left],
        (1.0 - down) * across * plane[top * w + right],
        down * (1.0 - across) * plane[bottom * w + left],
        down * across * plane[bottom * w + right],
    ];
    (parts.iter().sum(), parts.into_iter().fold(f64::NEG_INFINITY, f64::max))
}
