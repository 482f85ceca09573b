//! `MatMulInteger` and `ConvInteger`: 8-bit activations and weights, each less its zero point, products summed exactly.
//!
//! Where nothing but casts to float32 takes the sums, they are given as float32, each rounded once.

use super::qmatmul::Int8Columns;
use super::window::Windowed;
use super::{CALL_INSTRUCTIONS, Call, Op, Operator, Shapes};
use crate::EngineError;
use crate::graph::import::Lowering;
use crate::graph::weights::Weights;
use crate::graph::{Graph, Node, ValueId};
use onnx_kernels::int8::{self, Activations, Output, Rescale, SEGMENT, Source, Tile};
use onnx_kernels::qconv;
use onnx_kernels::quantise::{self, Conversion};
use onnx_kernels::window::Window;
use std::ops::Range;
use tract_onnx::prelude::DatumType;
use tract_onnx::tract_core::internal::OutletId;
use tract_onnx::tract_core::ops::cast::Cast;
use tract_onnx::tract_core::ops::cnn;
use tract_onnx::tract_core::ops::einsum::EinSum;

/// Inputs: x, `[.., k]`, or `[n, h, w, c]` of a convolution once [`crate::graph::layout`] is done with it; weights
/// `[1.., k, n]`, or `[n, c, kernel..]`; the zero point of x, one number; the weights' zero point, one or n numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct IntegerProduct {
    /// `None` of a product.
    pub window: Option<Windowed>,
    /// Whether x is uint8, not int8.
    pub unsigned: bool,
    /// Whether the sums are given as float32.
    pub to_float: bool,
    /// Type of x's zero point.
    pub zero_point: DatumType,
}

/// What tract's quantised operators have after their two first inputs.
struct QuantizedInputs {
    zero_point: ValueId,
    weights_zero_point: ValueId,
}

/// The zero points of an operator of tract's that sums integers as they are: without bias, scales and grid of its own.
fn plain_sums(lowering: &Lowering<'_>, output: Option<DatumType>) -> Option<QuantizedInputs> {
    let &[x, weights, bias, zero_point, scale, weights_zero_point, weights_scale, output_zero_point, output_scale] =
        lowering.inputs.as_slice()
    else {
        return None;
    };
    let graph = &lowering.graph;
    let is_all = |value: ValueId, number: f32| {
        let tensor = graph.constant(value).and_then(|tensor| tensor.cast_to::<f32>().ok());
        tensor.is_some_and(|tensor| bytemuck::cast_slice::<u8, f32>(tensor.as_bytes()).iter().all(|v| *v == number))
    };
    let is_byte = |value: ValueId| matches!(graph.values[value].datum_type, DatumType::U8 | DatumType::I8);
    let is_plain = output == Some(DatumType::I32)
        && is_byte(x)
        && is_byte(weights)
        && [scale, weights_scale, output_scale].iter().all(|scale| is_all(*scale, 1.0))
        && [bias, output_zero_point].iter().all(|zero| is_all(*zero, 0.0))
        && graph.values[weights].is_weight
        && graph.values[weights_zero_point].is_weight
        && graph.values[zero_point].dims.iter().all(|dim| dim.is_one());
    is_plain.then_some(QuantizedInputs { zero_point, weights_zero_point })
}

/// Whether nothing but casts to float32 takes the node's output.
fn is_cast_to_float(lowering: &Lowering<'_>) -> bool {
    let (model, node) = (lowering.model, lowering.node);
    let is_cast = |user: usize| model.node(user).op_as::<Cast>().is_some_and(|cast| cast.to == DatumType::F32);
    let users = &node.outputs[0].successors;
    !users.is_empty()
        && !model.outputs.contains(&OutletId::new(node.id, 0))
        && users.iter().all(|user| is_cast(user.node))
}

fn emit(lowering: &mut Lowering<'_>, window: Option<Windowed>, k: usize, inputs: QuantizedInputs) -> Option<ValueId> {
    let QuantizedInputs { zero_point, weights_zero_point } = inputs;
    let (x, weights) = (lowering.inputs[0], lowering.inputs[1]);
    // Longer sums are not rounded once.
    let to_float = is_cast_to_float(lowering) && k <= SEGMENT;
    let values = &lowering.graph.values;
    let unsigned = values[x].datum_type == DatumType::U8;
    let zero_point_type = values[zero_point].datum_type;
    if !matches!(zero_point_type, DatumType::U8 | DatumType::I8 | DatumType::I32) {
        return None;
    }
    let op = Op::IntegerProduct(IntegerProduct { window, unsigned, to_float, zero_point: zero_point_type });
    let dims = lowering.output_dims();
    let datum_type = if to_float { DatumType::F32 } else { DatumType::I32 };
    let (name, inputs) = (&lowering.node.name, vec![x, weights, zero_point, weights_zero_point]);
    Some(lowering.graph.add_node(name, op, inputs, datum_type, dims))
}

/// `MatMulInteger`, which tract types as a quantised product.
pub(crate) fn lower_product(lowering: &mut Lowering<'_>, op: &EinSum) -> Option<ValueId> {
    let inputs = plain_sums(lowering, op.q_params)?;
    let shape = lowering.graph.known_shape(lowering.inputs[1])?;
    let rank = lowering.graph.values[lowering.inputs[0]].dims.len();
    let (k, n) = (shape.len().checked_sub(2)?, shape.len() - 1);
    let is_product = shape[..k].iter().all(|size| *size == 1)
        && shape.len() == rank
        && op.axes.iter_all_axes().all(|axis| {
            let (in_b, in_a) = (axis.inputs[1].as_slice(), axis.inputs[0].as_slice());
            match (in_a, axis.outputs[0].as_slice()) {
                _ if in_b == [k] => in_a == [rank - 1] && axis.outputs[0].is_empty(),
                _ if in_b == [n] => in_a.is_empty() && axis.outputs[0].as_slice() == [rank - 1],
                ([a], [output]) => a == output,
                (a, output) => a.is_empty() && output.is_empty(),
            }
        });
    if !is_product {
        return None;
    }
    emit(lowering, None, shape[k], inputs)
}

/// `ConvInteger`, which tract types as a quantised convolution.
pub(crate) fn lower_conv(lowering: &mut Lowering<'_>, op: &cnn::Conv) -> Option<ValueId> {
    let inputs = plain_sums(lowering, op.q_params)?;
    let shape = lowering.graph.known_shape(lowering.inputs[1])?;
    if op.kernel_fmt != cnn::KernelFormat::OIHW || op.group != 1 {
        return None;
    }
    let window = Windowed::of(&op.pool_spec)?;
    emit(lowering, Some(window), shape[1..].iter().product(), inputs)
}

impl IntegerProduct {
    pub fn pack(
        &self,
        graph: &Graph,
        node: &Node,
        weights: &mut Weights<'_>,
    ) -> Result<Box<dyn Operator>, EngineError> {
        let invalid = |reason: &str| EngineError::invalid(&*node.name, reason);
        let tensor = weights.tensor(graph, node.inputs[1])?;
        let zero_points = weights.tensor(graph, node.inputs[3])?;
        let zero_points = zero_points.cast_to::<i32>().map_err(|error| invalid(&format!("{error:#}")))?;
        let zero_points: &[i32] = bytemuck::cast_slice(zero_points.as_bytes());
        let shape = tensor.shape();
        let taps = self.window.as_ref().map_or(1, |window| window.kernel[0] * window.kernel[1]);
        let (k, n) = match (&self.window, shape) {
            (Some(_), [n, rest @ ..]) => (rest.iter().product(), *n),
            (None, [.., k, n]) => (*k, *n),
            _ => return Err(invalid("its weights do not have the shape of their operator")),
        };
        let unsigned = tensor.datum_type() == DatumType::U8;
        if tensor.len() != k * n || taps == 0 || !(zero_points.len() == 1 || zero_points.len() == n) {
            return Err(invalid("its weights do not have the shape of their operator"));
        }
        let mut zero_points = zero_points.to_vec();
        if zero_points.len() == 1 {
            zero_points = vec![zero_points[0]; n];
        }
        // Rows of a convolution's product are (tap row, tap column, channel).
        let mut ordered = Vec::new();
        let (bytes, row_stride, column_stride) = match self.window {
            None => (tensor.as_bytes(), n, 1),
            Some(_) if taps == 1 || k == 0 => (tensor.as_bytes(), 1, k),
            Some(_) => {
                ordered.reserve(n * k);
                for filter in tensor.as_bytes().chunks_exact(k) {
                    (0..taps).for_each(|tap| ordered.extend(filter[tap..].iter().step_by(taps)));
                }
                (&*ordered, 1, k)
            }
        };
        let source = Source { bytes, row_stride, column_stride, unsigned };
        let matrix = Int8Columns::new(source, k, n, vec![1.0; n], zero_points);
        let matrix = matrix.ok_or_else(|| invalid("its weights are too large"))?;
        Ok(Box::new(PackedIntegerProduct { op: self.clone(), matrix, channels: k / taps }))
    }
}

struct PackedIntegerProduct {
    op: IntegerProduct,
    matrix: Int8Columns,
    /// Of x.
    channels: usize,
}

/// Rows of x, or of output pixels, that are one unit.
const ROWS_PER_UNIT: usize = 64;

impl PackedIntegerProduct {
    /// Rows of the product: of x, or output pixels of one image.
    fn rows(&self, shapes: &Shapes) -> usize {
        match &self.op.window {
            Some(window) => window.of_shapes(shapes).output_pixels(),
            None => shapes.inputs[0].iter().product::<usize>().checked_div(self.matrix.k).unwrap_or(0),
        }
    }

    fn images(&self, shapes: &Shapes) -> usize {
        if self.op.window.is_some() { shapes.output[0] } else { 1 }
    }

    fn units_of_image(&self, shapes: &Shapes) -> usize {
        self.rows(shapes).div_ceil(ROWS_PER_UNIT).max(1)
    }

    /// Values of x in int16 that are kept: a whole image of a convolution.
    fn centred_len(&self, shapes: &Shapes) -> usize {
        self.op.window.as_ref().map_or(0, |window| window.of_shapes(shapes).input_pixels() * self.channels)
    }

    fn zero_point(&self, bytes: &[u8]) -> i32 {
        match (self.op.zero_point, bytes) {
            (DatumType::U8, [byte, ..]) => i32::from(*byte),
            (DatumType::I8, [byte, ..]) => i32::from(*byte as i8),
            (_, &[a, b, c, d, ..]) => i32::from_le_bytes([a, b, c, d]),
            _ => 0,
        }
    }

    /// Values of x less their zero point.
    fn centre(&self, x: &[u8], zero_point: i32, output: &mut [i16]) {
        match self.op.unsigned {
            true => quantise::centre(x, zero_point as u8, output),
            false => quantise::centre(bytemuck::cast_slice::<u8, i8>(x), zero_point as i8, output),
        }
    }

    fn product(&self, activations: Activations<'_>, rows: Range<usize>, output: &mut [u8]) {
        let n = self.matrix.n;
        let tile = Tile { rows: 0..rows.len(), columns: 0..n };
        let output = &mut output[4 * rows.start * n..4 * rows.end * n];
        if self.op.to_float {
            let rescale = Rescale { row_scales: &[1.0], column_scales: &self.matrix.scales, bias: None };
            let output = Output { values: bytemuck::cast_slice_mut(output), stride: n };
            int8::gemm_f32(activations, self.matrix.view(), rescale, tile, output);
        } else {
            let output = Output { values: bytemuck::cast_slice_mut(output), stride: n };
            int8::gemm_i32(activations, self.matrix.view(), tile, output);
        }
    }
}

impl Operator for PackedIntegerProduct {
    fn name(&self) -> &'static str {
        if self.op.window.is_some() { "ConvInteger" } else { "MatMulInteger" }
    }

    fn units(&self, shapes: &Shapes) -> usize {
        self.images(shapes) * self.units_of_image(shapes)
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let per_image = self.units_of_image(shapes);
        let rows = (units.len() * ROWS_PER_UNIT).min(self.rows(shapes) * self.images(shapes));
        let Int8Columns { k, n, .. } = self.matrix;
        let around = match &self.op.window {
            None => rows as u64 * (quantise::estimate_instructions(Conversion::Centre, k) + 40),
            Some(window) => {
                // The first unit of an image centres all of it.
                let images = units.end.div_ceil(per_image).saturating_sub(units.start.div_ceil(per_image)) as u64;
                let centre = quantise::estimate_instructions(Conversion::Centre, self.centred_len(shapes));
                let window = window.of_shapes(shapes);
                images * centre + qconv::estimate_gather_instructions(&window, self.channels, rows)
            }
        };
        CALL_INSTRUCTIONS + around + int8::estimate_instructions(rows, k, n)
    }

    fn multiply_accumulates(&self, shapes: &Shapes) -> u64 {
        shapes.output_elements() as u64 * self.matrix.k as u64
    }

    fn scratch_bytes(&self, shapes: &Shapes) -> usize {
        let rows = self.rows(shapes).min(ROWS_PER_UNIT);
        2 * (rows * int8::padded_inner(self.matrix.k) + self.centred_len(shapes))
    }

    fn weight_bytes(&self) -> usize {
        self.matrix.bytes()
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        let (k, n, m) = (self.matrix.k, self.matrix.n, self.rows(call.shapes));
        let zero_point = self.zero_point(call.inputs[1]);
        let stride = int8::padded_inner(k);
        let scratch: &mut [i16] = bytemuck::cast_slice_mut(call.scratch);
        let (rows_scratch, centred) = scratch.split_at_mut(m.min(ROWS_PER_UNIT) * stride);
        let window: Option<Window> = self.op.window.as_ref().map(|window| window.of_shapes(call.shapes));
        let per_image = self.units_of_image(call.shapes);
        for unit in call.units {
            let (image, unit) = (unit / per_image, unit % per_image);
            let rows = (unit * ROWS_PER_UNIT).min(m)..((unit + 1) * ROWS_PER_UNIT).min(m);
            let x = call.inputs[0];
            match &window {
                None => {
                    for (row, to) in rows.clone().zip(rows_scratch.chunks_exact_mut(stride.max(1))) {
                        self.centre(&x[row * k..(row + 1) * k], zero_point, &mut to[..k]);
                        to[k..].fill(0);
                    }
                }
                Some(window) => {
                    // The scratch is left alone from the first unit to the last.
                    if unit == 0 {
                        let length = centred.len();
                        self.centre(&x[image * length..(image + 1) * length], zero_point, centred);
                    }
                    if !rows.is_empty() && stride > 0 {
                        let to = &mut rows_scratch[..rows.len() * stride];
                        qconv::gather(centred, self.channels, 0..self.channels, window, rows.clone(), to, stride);
                    }
                }
            }
            let output = &mut call.output[4 * image * m * n..4 * (image + 1) * m * n];
            self.product(Activations { values: rows_scratch, stride }, rows, output);
        }
        Ok(())
    }
}
