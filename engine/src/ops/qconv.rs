//! `Conv` and `MatMul` of a quantised value and int8 weights, back to a quantised value (their QDQ form).

use super::quantize::Grid;
use super::window::Windowed;
use super::{CALL_INSTRUCTIONS, Call, Op, Operator, Shapes};
use crate::EngineError;
use crate::graph::opaque::Quantization;
use crate::graph::weights::Weights;
use crate::graph::{Dequantized, Graph, Node, ValueId};
use onnx_kernels::int8::{self, Activations, Output, Requantise, Source, Tile};
use onnx_kernels::qconv::{self, DepthwiseWeights};
use onnx_kernels::window::Window;
use std::ops::Range;
use tract_onnx::prelude::DatumType;

/// Inputs: x, centred int16, `[n, h, w, c]`, or `[m, k]` of a product; weights; then the bias if any. Their first two are
/// the file's 8-bit weights and their scales.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct QConv {
    /// `None` of a product `[m, k] x [k, n]`.
    pub window: Option<Windowed>,
    /// Of a product: whether the weights are `[n, k]`.
    pub transposed: bool,
    pub group: usize,
    pub channels: usize,
    pub output_channels: usize,
    pub has_bias: bool,
    pub input_scale: f32,
    pub output: Grid,
    pub weights: Dequantized,
}

impl QConv {
    pub fn is_depthwise(&self) -> bool {
        self.group > 1 && self.group == self.channels && self.group == self.output_channels
    }

    pub fn pack(
        &self,
        graph: &Graph,
        node: &Node,
        weights: &mut Weights<'_>,
    ) -> Result<Box<dyn Operator>, EngineError> {
        let invalid = |reason: &str| EngineError::invalid(&*node.name, reason);
        let quantized = weights.tensor(graph, self.weights.quantized)?;
        let unsigned = quantized.datum_type() == DatumType::U8;
        let bytes = quantized.as_bytes();
        let scales = weights.f32(graph, self.weights.scale)?;
        // Taken once: looking into a tensor costs a hundred instructions.
        let scales: &[f32] = &scales;
        let n = self.output_channels;
        let kernel = self.window.as_ref().map_or([1, 1], |window| window.kernel);
        let k = self.channels / self.group * kernel[0] * kernel[1];
        if bytes.len() != n * k || !(scales.len() == n || scales.len() == 1) {
            return Err(invalid("its 8-bit weights do not have the shape of their operator"));
        }
        let scale_of = |channel: usize| if scales.len() == 1 { scales[0] } else { scales[channel] };
        let zero_of = |channel: usize| match self.weights.zero_points.as_slice() {
            [] => 0,
            [zero_point] => *zero_point,
            zero_points => zero_points[channel],
        };
        let multipliers: Vec<f32> =
            (0..n).map(|channel| self.input_scale * scale_of(channel) / self.output.scale).collect();
        let bias = match self.has_bias {
            true => {
                let unit = |channel: usize| self.input_scale * scale_of(channel);
                Some(match stored_steps(graph, weights, node.inputs[2], unit)? {
                    Some(steps) => steps,
                    None => {
                        let bias = weights.f32(graph, node.inputs[2])?;
                        let steps = bias.iter().enumerate().map(|(channel, bias)| bias / unit(channel));
                        steps.map(|step| step.round_ties_even() as i32).collect()
                    }
                })
            }
            false => None,
        };
        let taps = kernel[0] * kernel[1];
        let body = if self.is_depthwise() {
            let length = DepthwiseWeights::packed_len(n, kernel).ok_or_else(|| invalid("its weights are too large"))?;
            let mut packed = vec![0i16; length];
            let mut centred = Vec::with_capacity(bytes.len());
            for (channel, bytes) in bytes.chunks_exact(taps.max(1)).enumerate() {
                let zero = zero_of(channel) as i16;
                let value = |byte: &u8| if unsigned { i16::from(*byte) } else { i16::from(*byte as i8) };
                centred.extend(bytes.iter().map(|byte| value(byte) - zero));
            }
            qconv::pack_depthwise(&centred, n, kernel, &mut packed);
            Body::Depthwise(packed)
        } else {
            let length = int8::Weights::packed_len(k, n).ok_or_else(|| invalid("its weights are too large"))?;
            let mut packed = vec![0i8; length];
            // Rows of the product are (tap row, tap column, channel).
            let mut ordered = Vec::new();
            let (bytes, row_stride, column_stride) = if self.window.is_some() {
                if taps > 1 {
                    ordered.reserve(n * k);
                    for filter in bytes.chunks_exact(k) {
                        for tap in 0..taps {
                            ordered.extend(filter[tap..].iter().step_by(taps));
                        }
                    }
                    (&*ordered, 1, k)
                } else {
                    (bytes, 1, k)
                }
            } else if self.transposed {
                (bytes, 1, k)
            } else {
                (bytes, n, 1)
            };
            int8::pack(Source { bytes, row_stride, column_stride, unsigned }, k, n, 0..n, &mut packed);
            let shift = if unsigned { 128 } else { 0 };
            let zero_points: Vec<i32> = (0..n).map(|channel| zero_of(channel) - shift).collect();
            let zero_points = zero_points.iter().any(|zero_point| *zero_point != 0).then_some(zero_points);
            Body::Dense { packed, zero_points }
        };
        Ok(Box::new(PackedQConv { conv: self.clone(), k, body, multipliers, bias }))
    }
}

/// The integers of a bias that the file has as integers in these units.
fn stored_steps(
    graph: &Graph,
    weights: &Weights<'_>,
    bias: ValueId,
    unit: impl Fn(usize) -> f32,
) -> Result<Option<Vec<i32>>, EngineError> {
    let Some((_, node)) = graph.producer(bias) else { return Ok(None) };
    let Op::Tract(id) = node.op else { return Ok(None) };
    let is_dequantized = weights.model.node(id).op_as::<Quantization>().is_some_and(|op| !op.quantizes);
    let &[steps, scale] = node.inputs.as_slice() else { return Ok(None) };
    if !is_dequantized || graph.values[steps].datum_type != DatumType::I32 {
        return Ok(None);
    }
    let (steps, scales) = (weights.tensor(graph, steps)?, weights.f32(graph, scale)?);
    let (steps, scales): (&[i32], &[f32]) = (bytemuck::cast_slice(steps.as_bytes()), &scales);
    let scale_of = |channel: usize| if scales.len() == 1 { Some(&scales[0]) } else { scales.get(channel) };
    let agrees = (0..steps.len()).all(|channel| scale_of(channel) == Some(&unit(channel)));
    Ok(agrees.then(|| steps.to_vec()))
}

struct PackedQConv {
    conv: QConv,
    /// Products of one sum.
    k: usize,
    body: Body,
    multipliers: Vec<f32>,
    bias: Option<Vec<i32>>,
}

enum Body {
    Dense { packed: Vec<i8>, zero_points: Option<Vec<i32>> },
    Depthwise(Vec<i16>),
}

/// What a unit is: a row of output pixels of one image; of a product, this many rows.
const ROWS_PER_UNIT: usize = 16;

impl PackedQConv {
    fn window(&self, shapes: &Shapes) -> Window {
        match &self.conv.window {
            Some(window) => window.of_shapes(shapes),
            // The rows of a product are an image one pixel wide, in strips.
            None => {
                let rows = shapes.output_elements() / self.conv.output_channels.max(1);
                let size = [rows, 1];
                let (kernel, stride, dilation) = ([1; 2], [1; 2], [1; 2]);
                Window { input: size, kernel, stride, dilation, pad_before: [0; 2], pad_after: [0; 2], output: size }
            }
        }
    }

    fn images(&self, shapes: &Shapes) -> usize {
        if self.conv.window.is_some() { shapes.output[0] } else { 1 }
    }

    /// Whether the rows of the product are the input's as they are.
    fn is_product(&self, window: &Window) -> bool {
        window.is_pointwise() && self.k.is_multiple_of(int8::INNER_GROUP)
    }

    fn rows_per_unit(&self) -> usize {
        if self.conv.window.is_some() { 1 } else { ROWS_PER_UNIT }
    }
}

impl Operator for PackedQConv {
    fn name(&self) -> &'static str {
        if self.conv.window.is_some() { "QLinearConv" } else { "QLinearMatMul" }
    }

    fn units(&self, shapes: &Shapes) -> usize {
        let rows = self.window(shapes).output[0].div_ceil(self.rows_per_unit());
        self.images(shapes) * rows
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let window = self.window(shapes);
        // The last unit of a product has the rows that are left.
        let rows = (units.len() * self.rows_per_unit()).min(self.images(shapes) * window.output[0]);
        let (pixels, n) = (rows * window.output[1], self.conv.output_channels);
        CALL_INSTRUCTIONS
            + match &self.body {
                Body::Depthwise(_) => qconv::estimate_depthwise_instructions(&window, n, rows),
                Body::Dense { .. } => {
                    let gather = match self.is_product(&window) {
                        true => 0,
                        false => qconv::estimate_gather_instructions(&window, self.conv.channels, pixels),
                    };
                    gather + int8::estimate_instructions_requantised(pixels, self.k, n)
                }
            }
    }

    fn multiply_accumulates(&self, shapes: &Shapes) -> u64 {
        shapes.output_elements() as u64 * self.k as u64
    }

    fn scratch_bytes(&self, shapes: &Shapes) -> usize {
        let window = self.window(shapes);
        match &self.body {
            Body::Dense { .. } if !self.is_product(&window) => {
                2 * self.rows_per_unit() * window.output[1] * int8::padded_inner(self.k)
            }
            _ => 0,
        }
    }

    fn weight_bytes(&self) -> usize {
        let weights = match &self.body {
            Body::Dense { packed, zero_points } => packed.len() + 4 * zero_points.as_ref().map_or(0, Vec::len),
            Body::Depthwise(packed) => 2 * packed.len(),
        };
        weights + 4 * (self.multipliers.len() + self.bias.as_ref().map_or(0, Vec::len))
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        let window = self.window(call.shapes);
        let (channels, n) = (self.conv.channels, self.conv.output_channels);
        let (in_values, out_values) = (window.input_pixels() * channels, window.output_pixels() * n);
        let input: &[i16] = bytemuck::cast_slice(call.inputs[0]);
        let output: &mut [i16] = bytemuck::cast_slice_mut(call.output);
        let scratch: &mut [i16] = bytemuck::cast_slice_mut(call.scratch);
        let Grid { low, high, .. } = self.conv.output;
        let requantise = Requantise { multipliers: &self.multipliers, bias: self.bias.as_deref(), low, high };
        let per_unit = self.rows_per_unit();
        let per_image = window.output[0].div_ceil(per_unit);
        let mut unit = call.units.start;
        while unit < call.units.end && per_image > 0 {
            let (image, first) = (unit / per_image, unit % per_image);
            let count = (per_image - first).min(call.units.end - unit);
            let input = &input[image * in_values..(image + 1) * in_values];
            let output = &mut output[image * out_values..(image + 1) * out_values];
            let rows = first * per_unit..((first + count) * per_unit).min(window.output[0]);
            match &self.body {
                Body::Depthwise(packed) => {
                    let weights = DepthwiseWeights::new(packed, n, window.kernel);
                    qconv::depthwise(input, &window, weights, requantise, rows, output);
                }
                Body::Dense { packed, zero_points } => {
                    let mut weights = int8::Weights::new(packed, self.k, n);
                    if let Some(zero_points) = zero_points {
                        weights = weights.with_zero_points(zero_points);
                    }
                    let width = window.output[1];
                    if self.is_product(&window) {
                        let tile = Tile { rows: rows.start * width..rows.end * width, columns: 0..n };
                        let activations = Activations { values: input, stride: channels };
                        let output = Output { values: output, stride: n };
                        int8::gemm_requantised(activations, weights, requantise, tile, output);
                    } else {
                        // What a row of output pixels sees goes into the rows of a product.
                        let stride = int8::padded_inner(self.k);
                        let mut row = rows.start;
                        while row < rows.end {
                            let taken = per_unit.min(rows.end - row);
                            let pixels = row * width..(row + taken) * width;
                            let count = pixels.len();
                            qconv::gather(input, channels, 0..channels, &window, pixels.clone(), scratch, stride);
                            let activations = Activations { values: &scratch[..count * stride], stride };
                            let tile = Tile { rows: 0..count, columns: 0..n };
                            let values = &mut output[pixels.start * n..pixels.end * n];
                            int8::gemm_requantised(
                                activations,
                                weights,
                                requantise,
                                tile,
                                Output { values, stride: n },
                            );
                            row += taken;
                        }
                    }
                }
            }
            unit += count;
        }
        Ok(())
    }
}
