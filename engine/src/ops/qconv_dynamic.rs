//! `Conv` of float activations with int8 weights, with a bias, a sum with another value and a clamp.
//!
//! Weights are quantised while they are packed, with a scale for each output channel. Each image is brought to 12 to 16
//! bits with a scale of its own, so its result does not depend on the others.

use super::conv::Conv;
use super::qmatmul::{Int8Columns, end_product};
use super::{CALL_INSTRUCTIONS, Call, Operator, Shapes};
use crate::EngineError;
use crate::graph::weights::Weights;
use crate::graph::{Graph, Node};
use onnx_kernels::int8::{self, Activations, Output, Rescale, Tile};
use onnx_kernels::matrix::Clamp;
use onnx_kernels::qconv;
use onnx_kernels::quantise::{self, Conversion};
use onnx_kernels::window::Window;
use std::ops::Range;

/// Inputs: those of a [`Conv`] of one group.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DynamicQConv(pub Conv);

impl DynamicQConv {
    pub fn pack(
        &self,
        graph: &Graph,
        node: &Node,
        weights: &mut Weights<'_>,
    ) -> Result<Box<dyn Operator>, EngineError> {
        let DynamicQConv(conv) = self;
        let invalid = |reason: &str| EngineError::invalid(&*node.name, reason);
        let values = weights.f32(graph, node.inputs[1])?;
        let bias = conv.bias(graph, node, weights)?;
        let (n, taps) = (conv.output_channels, conv.window.kernel[0] * conv.window.kernel[1]);
        let k = conv.channels * taps;
        if values.len() != n * k || k == 0 || bias.as_ref().is_some_and(|bias| bias.len() != n) {
            return Err(invalid("its weights do not have the shape of their operator"));
        }
        // Rows of the product are (tap row, tap column, channel).
        let mut ordered = Vec::with_capacity(n * k);
        for filter in values.chunks_exact(k) {
            (0..taps).for_each(|tap| ordered.extend(filter[tap..].iter().step_by(taps)));
        }
        let matrix =
            Int8Columns::quantized(&ordered, k, n, true).ok_or_else(|| invalid("its weights are too large"))?;
        Ok(Box::new(PackedDynamicQConv { conv: conv.clone(), matrix, bias }))
    }
}

struct PackedDynamicQConv {
    conv: Conv,
    matrix: Int8Columns,
    bias: Option<Vec<f32>>,
}

/// Values of the scratch: the image in int16, the rows of a product in int16, and the product in f32 if more is to be done
/// with it. Before them, its scale.
struct Scratch {
    image: usize,
    rows: usize,
    product: usize,
}

/// Bytes of the scale, so that what follows is aligned.
const SCALE_BYTES: usize = 16;

/// Pixels whose products are worth computing together.
const PIXELS_TOGETHER: usize = 64;

/// Rows of output pixels that are computed together.
fn rows_together(window: &Window) -> usize {
    (PIXELS_TOGETHER / window.output[1].max(1)).clamp(1, window.output[0].max(1))
}

impl PackedDynamicQConv {
    fn window(&self, shapes: &Shapes) -> Window {
        self.conv.window.of_shapes(shapes)
    }

    /// Whether rows of the product are pixels as they are.
    fn is_product(&self, window: &Window) -> bool {
        window.is_pointwise() && self.matrix.k.is_multiple_of(int8::INNER_GROUP)
    }

    fn has_ending(&self) -> bool {
        self.conv.has_residual || self.conv.clamp != Clamp::NONE
    }

    fn scratch(&self, window: &Window) -> Scratch {
        let width = window.output[1] * rows_together(window);
        Scratch {
            image: (window.input_pixels() * self.conv.channels).next_multiple_of(8),
            rows: if self.is_product(window) { 0 } else { width * int8::padded_inner(self.matrix.k) },
            product: if self.has_ending() { width * self.matrix.n } else { 0 },
        }
    }
}

/// A row of output pixels, of one image, is a unit; the first of an image also quantises it.
impl Operator for PackedDynamicQConv {
    fn name(&self) -> &'static str {
        "Conv (int8 weights)"
    }

    fn units(&self, shapes: &Shapes) -> usize {
        shapes.output[0] * self.window(shapes).output[0]
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let window = self.window(shapes);
        let (height, width) = (window.output[0].max(1), window.output[1]);
        let images = units.end.div_ceil(height).saturating_sub(units.start.div_ceil(height));
        let quantise = quantise::estimate_instructions(Conversion::Row, window.input_pixels() * self.conv.channels);
        let gather = match self.is_product(&window) {
            true => 0,
            false => qconv::estimate_gather_instructions(&window, self.conv.channels, width),
        };
        let ending = if self.has_ending() { 3 * (width * self.matrix.n) as u64 + 1000 } else { 0 };
        let (k, n, together) = (self.matrix.k, self.matrix.n, rows_together(&window));
        let of_rows = |rows: usize| int8::estimate_instructions(rows * width, k, n);
        let (whole, rest) = (units.len() / together, units.len() % together);
        let products = whole as u64 * of_rows(together) + if rest > 0 { of_rows(rest) } else { 0 };
        CALL_INSTRUCTIONS + images as u64 * quantise + units.len() as u64 * (gather + ending) + products
    }

    fn multiply_accumulates(&self, shapes: &Shapes) -> u64 {
        shapes.output_elements() as u64 * self.matrix.k as u64
    }

    fn scratch_bytes(&self, shapes: &Shapes) -> usize {
        let Scratch { image, rows, product } = self.scratch(&self.window(shapes));
        SCALE_BYTES + 2 * (image + rows) + 4 * product
    }

    fn weight_bytes(&self) -> usize {
        self.matrix.bytes() + self.bias.as_ref().map_or(0, |bias| bias.len() * 4)
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        let window = self.window(call.shapes);
        let (channels, n, stride) = (self.conv.channels, self.matrix.n, int8::padded_inner(self.matrix.k));
        let (x, residual) = (call.f32(0), self.conv.has_residual.then(|| call.f32(1)));
        let (x_values, y_values) = (window.input_pixels() * channels, window.output_pixels() * n);
        let sizes = self.scratch(&window);
        let (scale, scratch) = call.scratch.split_at_mut(SCALE_BYTES);
        let (image_values, scratch) = scratch.split_at_mut(2 * sizes.image);
        let (rows, product) = scratch.split_at_mut(2 * sizes.rows);
        let scale: &mut f32 = &mut bytemuck::cast_slice_mut(scale)[0];
        let image_values: &mut [i16] = bytemuck::cast_slice_mut(image_values);
        let rows: &mut [i16] = bytemuck::cast_slice_mut(rows);
        let product: &mut [f32] = bytemuck::cast_slice_mut(product);
        let output: &mut [f32] = bytemuck::cast_slice_mut(call.output);
        let (height, width) = (window.output[0], window.output[1]);
        let together = rows_together(&window);
        let mut unit = call.units.start;
        while unit < call.units.end {
            let (image, row) = (unit / height, unit % height);
            let count = together.min(height - row).min(call.units.end - unit);
            unit += count;
            // The scratch is left alone from the first unit to the last.
            if row == 0 {
                let x = &x[image * x_values..(image + 1) * x_values];
                *scale = quantise::row(x, self.matrix.activation_limit(), image_values);
            }
            let pixels = row * width..(row + count) * width;
            let count = pixels.len();
            let activations = if self.is_product(&window) {
                Activations { values: &image_values[pixels.start * channels..pixels.end * channels], stride: channels }
            } else {
                let image_values = &image_values[..x_values];
                let rows = &mut rows[..count * stride];
                qconv::gather(image_values, channels, 0..channels, &window, pixels.clone(), rows, stride);
                Activations { values: rows, stride }
            };
            let place = image * y_values + pixels.start * n..image * y_values + pixels.end * n;
            let output = &mut output[place.clone()];
            let row_scales = std::slice::from_ref(&*scale);
            let rescale = Rescale { row_scales, column_scales: &self.matrix.scales, bias: self.bias.as_deref() };
            let tile = Tile { rows: 0..count, columns: 0..n };
            if self.has_ending() {
                let product = &mut product[..count * n];
                let sums = Output { values: &mut *product, stride: n };
                int8::gemm_f32(activations, self.matrix.view(), rescale, tile, sums);
                end_product(product, residual.map(|residual| &residual[place]), self.conv.clamp, output)?;
            } else {
                int8::gemm_f32(activations, self.matrix.view(), rescale, tile, Output { values: output, stride: n });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{numbers, run};
    use super::super::window::{Padding, Windowed};
    use super::*;

    #[test]
    fn a_convolution_follows_its_definition_and_images_stand_alone() {
        for (kernel, channels, n, stride, has_residual) in
            [([3, 3], 5, 6, [2, 1], true), ([1, 1], 16, 9, [1, 1], false), ([1, 1], 3, 4, [1, 1], true)]
        {
            let (height, width) = (7, 6);
            let pad = [kernel[0] / 2, kernel[1] / 2];
            let size = [(height + 2 * pad[0] - kernel[0]) / stride[0] + 1, width];
            let window = Windowed { kernel, strides: stride, dilations: [1, 1], padding: Padding::Explicit(pad, pad) };
            let clamp = if has_residual { Clamp::RELU } else { Clamp::NONE };
            let conv = Conv { window, group: 1, channels, output_channels: n, has_bias: true, has_residual, clamp };
            let taps = kernel[0] * kernel[1];
            let weights = numbers(1, n * taps * channels);
            let matrix = Int8Columns::quantized(&weights, taps * channels, n, true).unwrap();
            let (limit, scales) = (f64::from(matrix.activation_limit()), matrix.scales.clone());
            let quantised: Vec<f64> = (0..n * taps * channels)
                .map(|at| f64::from(matrix.view().at(at % (taps * channels), at / (taps * channels))))
                .collect();
            let bias = numbers(2, n);
            let operator = PackedDynamicQConv { conv, matrix, bias: Some(bias.clone()) };
            let mut x = numbers(3, 2 * height * width * channels);
            let x_values = height * width * channels;
            x[..x_values].iter_mut().for_each(|value| *value *= 100.0);
            let residual = numbers(4, 2 * size[0] * size[1] * n);
            let y_shape = [2, size[0], size[1], n];
            let both = |images: Range<usize>| {
                let (x_shape, y_shape) = ([images.len(), height, width, channels], [images.len(), size[0], size[1], n]);
                let y_values = size[0] * size[1] * n;
                let x = bytemuck::cast_slice(&x[images.start * x_values..images.end * x_values]);
                let residual = bytemuck::cast_slice(&residual[images.start * y_values..images.end * y_values]);
                let inputs: Vec<(&[usize], &[u8])> = vec![(&x_shape, x), (&y_shape, residual)];
                run(&operator, &inputs[..1 + usize::from(has_residual)], &y_shape, 4)
            };
            let got = both(0..2);
            assert_eq!([both(0..1), both(1..2)].concat(), got, "one image at a time");
            for (at, got) in bytemuck::cast_slice::<u8, f32>(&got).iter().enumerate() {
                let (channel, column, row) = (at % n, at / n % size[1], at / n / size[1] % size[0]);
                let image = at / (size[0] * size[1] * n);
                let of_image = &x[image * x_values..(image + 1) * x_values];
                let largest = of_image.iter().fold(0f32, |largest, x| largest.max(x.abs()));
                let (mut sum, mut error) = (0.0, 0.0);
                for (tap_row, tap) in (0..kernel[0]).flat_map(|r| (0..kernel[1]).map(move |c| (r, c))) {
                    let at = (row * stride[0] + tap_row).wrapping_sub(pad[0]);
                    let tap_at = (column * stride[1] + tap).wrapping_sub(pad[1]);
                    if at >= height || tap_at >= width {
                        continue;
                    }
                    for from in 0..channels {
                        let weight = quantised
                            [channel * taps * channels + (tap_row * kernel[1] + tap) * channels + from]
                            * f64::from(scales[channel]);
                        sum += weight * f64::from(of_image[(at * width + tap_at) * channels + from]);
                        error += weight.abs() * f64::from(largest) / limit / 2.0;
                    }
                }
                let mut expected = sum + f64::from(bias[channel]);
                if has_residual {
                    expected = (expected + f64::from(residual[at])).max(0.0);
                }
                assert!((f64::from(*got) - expected).abs() <= error + 1e-4, "{y_shape:?} {at}: {got} for {expected}");
            }
        }
    }
}
