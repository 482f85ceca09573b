//! `Conv` over one or two spatial axes, with a bias, a sum with another value and a clamp in the same pass.

use super::window::Windowed;
use super::{CALL_INSTRUCTIONS, Call, Op, Operator, Shapes};
use crate::EngineError;
use crate::graph::import::Lowering;
use crate::graph::weights::{Packed, Weights};
use crate::graph::{Graph, Node, ValueId};
use onnx_kernels::conv::{self, Filter};
use onnx_kernels::depthwise::{self, DepthwiseFilter};
use onnx_kernels::matrix::{Clamp, Epilogue, MatrixMut, MatrixRef};
use onnx_kernels::winograd::{self, WinogradFilter};
use std::ops::Range;
use tract_onnx::tract_core::ops::cnn;

/// Inputs: x `[n, h, w, c]`, once [`crate::graph::layout`] is done with it (`[n, c, h, w]`, or `[n, c, w]`, before);
/// weights `[output channels, channels / group, kernel..]`; then the bias if any, then the value to add if any.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Conv {
    pub window: Windowed,
    pub group: usize,
    pub channels: usize,
    pub output_channels: usize,
    pub has_bias: bool,
    pub has_residual: bool,
    pub clamp: Clamp,
}

pub(crate) fn lower(lowering: &mut Lowering<'_>, op: &cnn::Conv) -> Option<ValueId> {
    let &[x, weights, bias] = lowering.inputs.as_slice() else { return None };
    let known = op.q_params.is_none() && op.kernel_fmt == cnn::KernelFormat::OIHW;
    if !known || !lowering.graph.values[weights].is_weight || !lowering.graph.values[bias].is_weight {
        return None;
    }
    let has_bias = lowering.graph.known_shape(bias)? == [op.pool_spec.output_channels];
    if !has_bias && lowering.graph.scalar(bias) != Some(0.0) {
        return None;
    }
    let window = Windowed::of(&op.pool_spec)?;
    let conv = Conv {
        window,
        group: op.group,
        channels: op.pool_spec.input_channels,
        output_channels: op.pool_spec.output_channels,
        has_bias,
        has_residual: false,
        clamp: Clamp::NONE,
    };
    let dims = lowering.output_dims();
    let inputs = if has_bias { vec![x, weights, bias] } else { vec![x, weights] };
    Some(lowering.emit(Op::Conv(conv), inputs, dims))
}

impl Conv {
    fn is_depthwise(&self) -> bool {
        self.group > 1 && self.group == self.channels && self.group == self.output_channels
    }

    /// Whether Winograd's algorithm is used: for 3x3 filters of stride 1, of enough channels that the transforms pay, on
    /// images so large that few tiles reach beyond them. It depends on the graph alone, so that bits do too.
    fn is_winograd(&self, graph: &Graph, node: &Node) -> bool {
        const CHANNELS_MIN: usize = 16;
        const SIDE_MIN: usize = 6;
        let window = &self.window;
        let fits = window.kernel == [3; 2] && window.strides == [1; 2] && window.dilations == [1; 2] && self.group == 1;
        let sides = graph.values[node.outputs[0]].dims.get(1..3).unwrap_or_default();
        let are_large = sides.len() == 2 && sides.iter().all(|side| side.known().is_some_and(|side| side >= SIDE_MIN));
        fits && are_large && self.channels.min(self.output_channels) >= CHANNELS_MIN
    }

    /// Bytes that a filter takes beyond those of its weights.
    pub fn extra_weight_bytes(&self, graph: &Graph, node: &Node) -> u64 {
        match self.is_winograd(graph, node) {
            true => 4 * (16 - 9) * self.channels as u64 * self.output_channels.next_multiple_of(4) as u64,
            false => 0,
        }
    }

    /// One number for each output channel, if there is a bias.
    pub fn bias(&self, graph: &Graph, node: &Node, weights: &Weights<'_>) -> Result<Option<Vec<f32>>, EngineError> {
        match self.has_bias {
            true => Ok(Some(weights.f32(graph, node.inputs[2])?.to_vec())),
            false => Ok(None),
        }
    }

    /// See [`Op::streamed`].
    pub fn streamed(&self, graph: &Graph, node: &Node) -> Option<(ValueId, Packed, usize, usize)> {
        if self.is_depthwise() || self.is_winograd(graph, node) {
            return None;
        }
        let (kernel, outputs) = (self.window.kernel, self.output_channels);
        let filter = Filter::zeros(kernel, self.channels, outputs, self.group);
        let row = self.channels / self.group * kernel[0] * kernel[1];
        Some((node.inputs[1], Packed::Filter(filter), row, outputs))
    }

    pub fn pack(
        &self,
        graph: &Graph,
        node: &Node,
        weights: &mut Weights<'_>,
    ) -> Result<Box<dyn Operator>, EngineError> {
        let (kernel, group) = (self.window.kernel, self.group);
        let (channels, output_channels) = (self.channels, self.output_channels);
        let bias = self.bias(graph, node, weights)?;
        if let Some(filter) = weights.filter.take() {
            return Ok(Box::new(PackedConv { conv: self.clone(), body: Body::Dense(filter), bias }));
        }
        let values = weights.f32(graph, node.inputs[1])?;
        let expected = output_channels * (channels / group) * kernel[0] * kernel[1];
        if values.len() != expected {
            return Err(EngineError::wrong_length(&*node.name, 4 * expected as u64, 4 * values.len() as u64));
        }
        let body = if self.is_depthwise() {
            Body::Depthwise(DepthwiseFilter::from_oihw(&values, kernel, channels))
        } else if self.is_winograd(graph, node) {
            Body::Winograd(WinogradFilter::from_oihw(&values, channels, output_channels))
        } else {
            Body::Dense(Filter::from_oihw(&values, kernel, channels, output_channels, group))
        };
        Ok(Box::new(PackedConv { conv: self.clone(), body, bias }))
    }
}

/// A convolution with its weights.
struct PackedConv {
    conv: Conv,
    body: Body,
    bias: Option<Vec<f32>>,
}

enum Body {
    Dense(Filter),
    /// As many groups as channels in and out.
    Depthwise(DepthwiseFilter),
    Winograd(WinogradFilter),
}

impl PackedConv {
    /// Rows of output pixels of one image that are a unit: for Winograd's algorithm as many as a tile has, so that none is
    /// computed twice.
    fn rows_per_unit(&self) -> usize {
        if matches!(self.body, Body::Winograd(_)) { 2 } else { 1 }
    }
}

impl Operator for PackedConv {
    fn name(&self) -> &'static str {
        "Conv"
    }

    fn units(&self, shapes: &Shapes) -> usize {
        shapes.output[0] * self.conv.window.of_shapes(shapes).output[0].div_ceil(self.rows_per_unit())
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let window = self.conv.window.of_shapes(shapes);
        let pixels = units.len() * self.rows_per_unit() * window.output[1];
        CALL_INSTRUCTIONS
            + match &self.body {
                Body::Dense(filter) => conv::estimate_instructions(&window, filter, pixels),
                Body::Depthwise(filter) => depthwise::estimate_instructions(&window, filter, pixels),
                Body::Winograd(filter) => {
                    let added = if self.conv.has_residual { 12 * pixels * self.conv.output_channels } else { 0 };
                    winograd::estimate_instructions(&window, filter, pixels) + added as u64
                }
            }
    }

    fn multiply_accumulates(&self, shapes: &Shapes) -> u64 {
        let kernel = self.conv.window.kernel;
        let per_output = self.conv.channels / self.conv.group * kernel[0] * kernel[1];
        shapes.output_elements() as u64 * per_output as u64
    }

    fn scratch_bytes(&self, shapes: &Shapes) -> usize {
        let window = self.conv.window.of_shapes(shapes);
        4 * match &self.body {
            Body::Dense(filter) => conv::scratch_len(&window, filter),
            Body::Depthwise(filter) => depthwise::scratch_len(&window, filter),
            Body::Winograd(filter) => winograd::scratch_len(&window, filter),
        }
    }

    fn weight_bytes(&self) -> usize {
        let weights = match &self.body {
            Body::Dense(filter) => filter.bytes(),
            Body::Depthwise(filter) => filter.bytes(),
            Body::Winograd(filter) => filter.bytes(),
        };
        weights + self.bias.as_ref().map_or(0, |bias| bias.len() * 4)
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        let window = self.conv.window.of_shapes(call.shapes);
        let (channels, output_channels) = (self.conv.channels, self.conv.output_channels);
        let (in_pixels, out_pixels) = (window.input_pixels(), window.output_pixels());
        let (input, residual) = (call.f32(0), self.conv.has_residual.then(|| call.f32(1)));
        let output: &mut [f32] = bytemuck::cast_slice_mut(call.output);
        let scratch: &mut [f32] = bytemuck::cast_slice_mut(call.scratch);
        let per_unit = self.rows_per_unit();
        let per_image = window.output[0].div_ceil(per_unit);
        let mut unit = call.units.start;
        while unit < call.units.end {
            // Rows of one image at a time.
            let (image, first) = (unit / per_image, unit % per_image);
            let units = (per_image - first).min(call.units.end - unit);
            let rows = first * per_unit..((first + units) * per_unit).min(window.output[0]);
            let pixels = rows.start * window.output[1]..rows.end * window.output[1];
            let out = image * out_pixels * output_channels..(image + 1) * out_pixels * output_channels;
            let residual = residual.map(|values| MatrixRef::new(&values[out.clone()], out_pixels, output_channels));
            let epilogue = Epilogue { bias: self.bias.as_deref(), residual, clamp: self.conv.clamp };
            let input = MatrixRef::new(&input[image * in_pixels * channels..], in_pixels, channels);
            let mut output = MatrixMut::new(&mut output[out], out_pixels, output_channels);
            match &self.body {
                Body::Dense(filter) => conv::conv2d(input, &window, filter, &epilogue, pixels, &mut output, scratch),
                Body::Depthwise(filter) => {
                    depthwise::depthwise(input, &window, filter, &epilogue, pixels, &mut output, scratch);
                }
                Body::Winograd(filter) => {
                    winograd::conv2d(input, &window, filter, &epilogue, pixels, &mut output, scratch);
                }
            }
            unit += units;
        }
        Ok(())
    }
}
