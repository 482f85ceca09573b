//! Operators on images and boxes.

use super::array::{Array, ELEMENTS_MAX, Result, elements, sizes, strides};
use super::call::Call;
use super::resize::cubic;
use crate::ElementType;

/// `AffineGrid`: coordinates of a grid over two or three axes, transformed.
pub(super) fn affine_grid(call: &Call<'_>) -> Result<Vec<Array>> {
    let (theta, size) = (call.input(0)?, sizes(&call.input(1)?.i64s())?);
    let spatial = size.get(2..).unwrap_or(&[]);
    let (batch, rank) = (size.first().copied().unwrap_or(0), spatial.len());
    if !(2..=3).contains(&rank) || theta.shape != [batch, rank, rank + 1] {
        return Err(format!("transformations of shape {:?} for {size:?}", theta.shape));
    }
    let aligns = call.flag("align_corners");
    let shape = [&[batch], spatial, &[rank]].concat();
    let (values, own) = (theta.f64s(), strides(spatial));
    let coordinate = |axis: usize, place: usize| {
        let (size, at) = (spatial[axis] as f64, (place / own[axis] % spatial[axis]) as f64);
        if aligns { -1.0 + at * 2.0 / (size - 1.0) } else { -1.0 + (2.0 * at + 1.0) / size }
    };
    let mut grid = Vec::with_capacity(elements(&shape)?);
    for theta in values.chunks(rank * (rank + 1)) {
        for place in 0..elements(spatial)? {
            for row in theta.chunks(rank + 1) {
                // Coordinates are in the order of the axes turned around.
                let moved: f64 = (0..rank).map(|axis| row[axis] * coordinate(rank - 1 - axis, place)).sum();
                grid.push(moved + row[rank]);
            }
        }
    }
    Ok(vec![Array::floats(theta.element_type, shape, &grid)?])
}

/// A coordinate reflected at the borders until it lies between them.
fn reflected(x: f64, low: f64, high: f64) -> f64 {
    let range = high - low;
    if range <= 0.0 {
        return low;
    }
    let beyond = if x < low {
        low - x
    } else if x > high {
        x - high
    } else {
        return x;
    };
    let times = (beyond / range).floor();
    let rest = beyond - times * range;
    if (times % 2.0 == 0.0) == (x < low) { low + rest } else { high - rest }
}

pub(super) fn grid_sample(call: &Call<'_>) -> Result<Vec<Array>> {
    let (x, grid) = (call.input(0)?, call.input(1)?);
    let &[batch, channels, ref spatial @ ..] = x.shape.as_slice() else { return Err(format!("shape {:?}", x.shape)) };
    let rank = spatial.len();
    if grid.rank() != rank + 2 || grid.shape[0] != batch || grid.shape[rank + 1] != rank || spatial.contains(&0) {
        return Err(format!("a grid of shape {:?} for {:?}", grid.shape, x.shape));
    }
    let mode = match call.text("mode", "linear") {
        "nearest" => 0,
        "cubic" | "bicubic" => 2,
        _ => 1,
    };
    let (padding, aligns) = (call.text("padding_mode", "zeros"), call.flag("align_corners"));
    let (size, count) = (elements(spatial)?, elements(&grid.shape[1..rank + 1])?);
    let own = strides(spatial);
    let shape = [&[batch, channels], &grid.shape[1..rank + 1]].concat();
    let mut values = vec![0.0; elements(&shape)?];
    let (xs, coordinates) = (x.f64s(), grid.f64s());
    for place in 0..batch * count {
        // Offsets in the image and their weights, axis after axis.
        let mut taps = vec![(0usize, 1.0)];
        for axis in 0..rank {
            let length = spatial[axis] as f64;
            let (low, high) = if aligns { (0.0, length - 1.0) } else { (-0.5, length - 0.5) };
            let normal = coordinates[place * rank + rank - 1 - axis];
            let at = if aligns { (normal + 1.0) / 2.0 * (length - 1.0) } else { ((normal + 1.0) * length - 1.0) / 2.0 };
            let at = f64::from(at as f32);
            let at = if mode == 0 { at.round_ties_even() } else { at };
            let at = match padding {
                "border" if at < low || at > high => at.clamp(0.0, length - 1.0),
                "reflection" => reflected(at, low, high),
                _ => at,
            };
            let left = at.floor();
            let neighbours: Vec<(f64, f64)> = match mode {
                0 => vec![(at.trunc(), 1.0)],
                1 => vec![(left, 1.0 - (at - left)), (left + 1.0, at - left)],
                _ => {
                    (-1..=2).map(|step| left + f64::from(step)).map(|index| (index, cubic(at - index, -0.75))).collect()
                }
            };
            let inside = |(index, weight): (f64, f64)| {
                let index = match padding {
                    "border" => index.clamp(0.0, length - 1.0),
                    "reflection" => reflected(index, low, high).trunc().clamp(0.0, length - 1.0),
                    _ => index,
                };
                (index >= 0.0 && index < length).then(|| (index as usize * own[axis], weight))
            };
            let neighbours: Vec<(usize, f64)> = neighbours.into_iter().filter_map(inside).collect();
            let next = |(offset, factor): &(usize, f64)| {
                let (offset, factor) = (*offset, *factor);
                neighbours.iter().map(move |(step, weight)| (offset + step, factor * weight))
            };
            taps = taps.iter().flat_map(next).collect();
        }
        let (image, position) = (place / count, place % count);
        for channel in 0..channels {
            let plane = (image * channels + channel) * size;
            let sum = taps.iter().map(|(offset, weight)| xs[plane + offset] * weight).sum();
            values[(image * channels + channel) * count + position] = sum;
        }
    }
    Ok(vec![Array::floats(x.element_type, shape, &values)?])
}

/// Low and high edges of a box along both axes.
fn edges(numbers: &[f64], is_centred: bool) -> [(f64, f64); 2] {
    let sorted = |one: f64, other: f64| (one.min(other), one.max(other));
    let around = |center: f64, size: f64| (center - size / 2.0, center + size / 2.0);
    match is_centred {
        true => [around(numbers[0], numbers[2]), around(numbers[1], numbers[3])],
        false => [sorted(numbers[0], numbers[2]), sorted(numbers[1], numbers[3])],
    }
}

/// The area that two boxes share, of the area that they cover together.
fn overlap(one: [(f64, f64); 2], other: [(f64, f64); 2]) -> f64 {
    let area = |sides: [(f64, f64); 2]| sides.iter().map(|(low, high)| (high - low).max(0.0)).product::<f64>();
    let shared = area([0, 1].map(|axis| (one[axis].0.max(other[axis].0), one[axis].1.min(other[axis].1))));
    let (first, second) = (area(one), area(other));
    if shared <= 0.0 || first <= 0.0 || second <= 0.0 { 0.0 } else { shared / (first + second - shared) }
}

pub(super) fn non_max_suppression(call: &Call<'_>) -> Result<Vec<Array>> {
    let (boxes, scores) = (call.input(0)?, call.input(1)?);
    let (&[batch, count, 4], &[_, classes, _]) = (boxes.shape.as_slice(), scores.shape.as_slice()) else {
        return Err(format!("shapes {:?} and {:?}", boxes.shape, scores.shape));
    };
    if scores.shape != [batch, classes, count] {
        return Err(format!("scores of shape {:?} for {:?}", scores.shape, boxes.shape));
    }
    let number = |index: usize| call.optional(index).map(Array::scalar_f64).transpose();
    let (most, threshold) = (number(2)?.unwrap_or(0.0).max(0.0) as usize, number(3)?.unwrap_or(0.0));
    let least_score = number(4)?;
    let is_centred = call.flag("center_point_box");
    let (boxes, scores) = (boxes.f64s(), scores.f64s());
    let mut selected: Vec<i64> = Vec::new();
    for row in 0..batch * classes {
        let (image, class) = (row / classes, row % classes);
        let scores = &scores[row * count..(row + 1) * count];
        // Of equal scores the first comes first.
        let candidates = super::reduce::sorted(count, &|one, other| scores[other].total_cmp(&scores[one]));
        let is_candidate = |index: &usize| least_score.is_none_or(|least| scores[*index] > least);
        let mut kept: Vec<[(f64, f64); 2]> = Vec::new();
        for index in candidates.into_iter().filter(is_candidate) {
            if kept.len() == most {
                break;
            }
            let sides = edges(&boxes[(image * count + index) * 4..][..4], is_centred);
            if kept.iter().all(|other| overlap(sides, *other) <= threshold) {
                kept.push(sides);
                selected.extend([image as i64, class as i64, index as i64]);
            }
        }
    }
    Ok(vec![Array::integers(ElementType::Int64, vec![selected.len() / 3, 3], &selected)?])
}

/// `ImageDecoder` of PNG and JPEG.
pub(super) fn image_decoder(call: &Call<'_>) -> Result<Vec<Array>> {
    let image =
        crate::image::decode(call.input(0)?.bytes(), ELEMENTS_MAX as u64 / 3).map_err(|error| error.to_string())?;
    let (width, height) = (image.width as usize, image.height as usize);
    let pixels = image.rgb.as_chunks::<3>().0.iter();
    let (channels, bytes): (usize, Vec<u8>) = match call.text("pixel_format", "RGB") {
        "BGR" => (3, pixels.flat_map(|[r, g, b]| [*b, *g, *r]).collect()),
        "Grayscale" => {
            // Luma of ITU-R BT.601.
            let luma = |[r, g, b]: &[u8; 3]| {
                (19595 * u32::from(*r) + 38470 * u32::from(*g) + 7471 * u32::from(*b) + 0x8000) >> 16
            };
            (1, pixels.map(|pixel| luma(pixel) as u8).collect())
        }
        _ => (3, pixels.flatten().copied().collect()),
    };
    Ok(vec![Array::new(ElementType::Uint8, vec![height, width, channels], bytes)?])
}
