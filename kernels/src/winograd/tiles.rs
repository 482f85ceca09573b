//! The steps that all bodies have in common: tiles are transformed, multiplied and transformed back, some at a time.

use super::{ELEMENTS, TILE, WinogradFilter, applies_to};
use crate::gemm::PackedRef;
use crate::matrix::{Clamp, Epilogue, MatrixMut, MatrixRef};
use crate::window::Window;
use std::ops::Range;

/// Tiles that are computed together at most. More would save a little of loading the filter, and take more memory.
pub(super) const CHUNK_TILES: usize = 48;

/// What differs between bodies.
pub struct Body {
    /// Transforms the channels of a tile's 16 pixels; channel c of place p goes to `transformed[p * stride + c]`.
    pub(super) transform_input: fn(pixels: &[&[f32]; ELEMENTS], transformed: &mut [f32], stride: usize),
    /// As [`crate::gemm::gemm`].
    pub(super) gemm: fn(MatrixRef<'_>, PackedRef<'_>, &Epilogue<'_>, Range<usize>, &mut MatrixMut<'_>),
    /// Transforms sums, laid out as the transformed input, to the channels of a tile's four pixels, clamped.
    pub(super) transform_output: fn(sums: &[f32], stride: usize, clamp: Clamp, pixels: [&mut [f32]; 4]),
}

/// Values of scratch memory that [`super::conv2d`] needs. Does not depend on how many pixels are computed.
pub fn scratch_len(window: &Window, filter: &WinogradFilter) -> usize {
    let tiles = CHUNK_TILES.min(window.output[0].div_ceil(2) * window.output[1].div_ceil(2));
    let (inputs, outputs) = (filter.input_channels(), filter.output_channels());
    inputs + tiles * ELEMENTS * (inputs + outputs) + 4 * outputs
}

/// See [`super::conv2d`].
#[expect(clippy::too_many_arguments, reason = "those of the kernel, and its body")]
pub(super) fn conv2d(
    body: &Body,
    input: MatrixRef<'_>,
    window: &Window,
    filter: &WinogradFilter,
    epilogue: &Epilogue<'_>,
    pixels: Range<usize>,
    output: &mut MatrixMut<'_>,
    scratch: &mut [f32],
) {
    let (inputs, outputs) = (filter.input_channels(), filter.output_channels());
    assert!(applies_to(window), "{window:?} is not 3x3 of stride 1");
    assert_eq!((input.rows, input.columns), (window.input_pixels(), inputs), "input");
    assert_eq!((output.rows, output.columns), (window.output_pixels(), outputs), "output");
    assert!(pixels.start <= pixels.end && pixels.end <= output.rows, "pixels {pixels:?} of {}", output.rows);
    assert!(scratch.len() >= scratch_len(window, filter), "scratch of {} values", scratch.len());
    epilogue.assert_fits(output.rows, output.columns);
    if pixels.is_empty() || outputs == 0 {
        return;
    }
    let (zeros, scratch) = scratch.split_at_mut(inputs);
    zeros.fill(0.0);
    let (pixel_values, scratch) = scratch.split_at_mut(4 * outputs);
    let tiles = tiles_of(window, &pixels);
    for tiles in chunks(tiles) {
        let count = tiles.len();
        let (transformed, scratch) = scratch.split_at_mut(count * ELEMENTS * inputs);
        let sums = &mut scratch[..count * ELEMENTS * outputs];
        for (index, tile) in tiles.clone().enumerate() {
            let sources = sources(input, window, tile, zeros);
            let transformed = transformed.get_mut(index * inputs..).unwrap_or_default();
            (body.transform_input)(&sources, transformed, count * inputs);
        }
        for element in 0..ELEMENTS {
            // Place (1, 1) is in all four pixels once.
            let bias = epilogue.bias.filter(|_| element == TILE + 1);
            let epilogue = Epilogue { bias, ..Epilogue::NONE };
            let a = MatrixRef::new(&transformed[element * count * inputs..], count, inputs);
            let mut c = MatrixMut::new(&mut sums[element * count * outputs..], count, outputs);
            (body.gemm)(a, filter.matrix(element), &epilogue, 0..count, &mut c);
        }
        for (index, tile) in tiles.enumerate() {
            let sums = &sums[index * outputs..];
            let places = places(window, tile, &pixels);
            let rows =
                places.map(|place| place.map_or(0..0, |pixel| pixel * output.stride..pixel * output.stride + outputs));
            if epilogue.residual.is_none()
                && places.iter().all(Option::is_some)
                && let Ok(pixels) = output.data.get_disjoint_mut(rows)
            {
                (body.transform_output)(sums, count * outputs, epilogue.clamp, pixels);
                continue;
            }
            // To scratch memory first: some pixels may be nobody's, or a residual is to be added before clamping.
            let clamp = if epilogue.residual.is_some() { Clamp::NONE } else { epilogue.clamp };
            let mut values = pixel_values.chunks_exact_mut(outputs);
            let values: [&mut [f32]; 4] = std::array::from_fn(|_| values.next().unwrap_or_default());
            (body.transform_output)(sums, count * outputs, clamp, values);
            for (place, values) in places.into_iter().zip(pixel_values.chunks_exact(outputs)) {
                if let Some(pixel) = place {
                    store(values, epilogue, pixel, output.row_mut(pixel));
                }
            }
        }
    }
}

/// A tile's four output pixels, as far as they are in the output and among `pixels`.
fn places(window: &Window, tile: usize, pixels: &Range<usize>) -> [Option<usize>; 4] {
    let (row, column) = position(window, tile);
    std::array::from_fn(|place| {
        let (row, column) = (row + place / 2, column + place % 2);
        let pixel = row * window.output[1] + column;
        (row < window.output[0] && column < window.output[1] && pixels.contains(&pixel)).then_some(pixel)
    })
}

/// The tiles that hold the pixels: whole rows of tiles.
pub(super) fn tiles_of(window: &Window, pixels: &Range<usize>) -> Range<usize> {
    let across = window.output[1].div_ceil(2);
    let first_row = pixels.start / window.output[1] / 2;
    let end_row = (pixels.end.max(1) - 1) / window.output[1] / 2 + 1;
    first_row * across..end_row * across
}

/// At most [`CHUNK_TILES`] tiles at a time, as evenly as possible.
fn chunks(tiles: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let len = chunk_len(tiles.len());
    tiles.clone().step_by(len).map(move |first| first..tiles.end.min(first + len))
}

/// Tiles of a chunk but the last.
pub(super) fn chunk_len(tiles: usize) -> usize {
    tiles.div_ceil(tiles.div_ceil(CHUNK_TILES).max(1)).max(1)
}

/// Output row and column of a tile's first pixel.
fn position(window: &Window, tile: usize) -> (usize, usize) {
    let across = window.output[1].div_ceil(2);
    (tile / across * 2, tile % across * 2)
}

/// The channels of a tile's 16 input pixels.
fn sources<'a>(input: MatrixRef<'a>, window: &Window, tile: usize, zeros: &'a [f32]) -> [&'a [f32]; ELEMENTS] {
    let (row, column) = position(window, tile);
    let at = |axis: usize, at: usize| at.checked_sub(window.pad_before[axis]).filter(|&at| at < window.input[axis]);
    let mut sources = [zeros; ELEMENTS];
    for (offset, sources) in sources.as_chunks_mut::<TILE>().0.iter_mut().enumerate() {
        let Some(row) = at(0, row + offset) else { continue };
        for (offset, source) in sources.iter_mut().enumerate() {
            if let Some(column) = at(1, column + offset) {
                *source = input.row(row * window.input[1] + column);
            }
        }
    }
    sources
}

/// The last step for a pixel that went through scratch memory.
fn store(values: &[f32], epilogue: &Epilogue<'_>, pixel: usize, output: &mut [f32]) {
    match &epilogue.residual {
        None => output.copy_from_slice(values),
        Some(residual) => {
            for ((place, value), residual) in output.iter_mut().zip(values).zip(residual.row(pixel)) {
                *place = epilogue.clamp.apply(value + residual);
            }
        }
    }
}
