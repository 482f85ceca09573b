//! `MatMul` of float activations and int8 weights: C = A B, with a bias, a sum with another value and a clamp.
//!
//! Weights stay int8, with a scale for each column or one for all. Each row of A is brought to 12 to 16 bits with a scale
//! of its own, as many bits as an i32 sum of its products has room for, so a row's result does not depend on the others.

use super::matmul::MatMul;
use super::{CALL_INSTRUCTIONS, Call, Operator, Shapes};
use crate::EngineError;
use crate::graph::integer_weights::Int8Matrix;
use crate::graph::weights::Weights;
use crate::graph::{Graph, Node};
use onnx_kernels::int8::{self, Activations, Output, Rescale, Source, Tile};
use onnx_kernels::matrix::Clamp;
use onnx_kernels::pointwise::{Binary, Chain, Operand, Step, Unary};
use onnx_kernels::quantise::{self, Conversion};
use std::ops::Range;
use tract_onnx::prelude::DatumType;

/// Inputs: those of a [`MatMul`] without batches, of which B is a weight.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct QMatMul {
    pub matmul: MatMul,
    pub weights: Int8Weights,
    /// Of activations that are centred int16 already, their scale; `None` of float32 ones.
    pub input_scale: Option<f32>,
}

/// What the int8 weights are made of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Int8Weights {
    /// The file has them.
    Stored(Int8Matrix),
    /// The float weights are quantised column by column while they are packed.
    Quantized,
}

impl QMatMul {
    pub fn pack(
        &self,
        graph: &Graph,
        node: &Node,
        weights: &mut Weights<'_>,
    ) -> Result<Box<dyn Operator>, EngineError> {
        let invalid = |reason: &str| EngineError::invalid(&*node.name, reason);
        let shape = graph.known_shape(node.inputs[1]).filter(|shape| shape.len() == 2);
        let shape = shape.ok_or_else(|| invalid("its weights have no known shape"))?;
        let transposed = self.matmul.b_transposed;
        let (k, n) = if transposed { (shape[1], shape[0]) } else { (shape[0], shape[1]) };
        let matrix = match &self.weights {
            Int8Weights::Stored(stored) => {
                let tensor = weights.tensor(graph, stored.quantized)?;
                let scales = weights.f32(graph, stored.scale)?;
                let zero_points = &stored.zero_points;
                let per_column = |count: usize| count == 1 || count == n;
                let is_empty = zero_points.is_empty();
                if tensor.len() != k * n || !per_column(scales.len()) || !is_empty && !per_column(zero_points.len()) {
                    return Err(invalid("its int8 weights do not have the shape of their operator"));
                }
                let unsigned = tensor.datum_type() == DatumType::U8;
                // Rows of the stored matrix are columns of B, or the other way round.
                let (row_stride, column_stride) = if stored.columns_first { (1, k) } else { (n, 1) };
                let source = Source { bytes: tensor.as_bytes(), row_stride, column_stride, unsigned };
                let of_column = |values: &[i32], column: usize| match values {
                    [] => 0,
                    [value] => *value,
                    values => values[column],
                };
                let scales = (0..n).map(|column| if scales.len() == 1 { scales[0] } else { scales[column] }).collect();
                let zero_points = (0..n).map(|column| of_column(zero_points, column)).collect();
                Int8Columns::new(source, k, n, scales, zero_points)
            }
            Int8Weights::Quantized => {
                let values = weights.f32(graph, node.inputs[1])?;
                if values.len() != k * n {
                    return Err(invalid("its weights do not have the shape of their operator"));
                }
                Int8Columns::quantized(&values, k, n, transposed)
            }
        };
        let matrix = matrix.ok_or_else(|| invalid("its weights are too large"))?;
        let bias = match self.matmul.has_bias {
            true => Some(weights.f32(graph, node.inputs[2])?.to_vec()),
            false => None,
        };
        if bias.as_ref().is_some_and(|bias| bias.len() != n) {
            return Err(invalid("its bias does not have a value for each column"));
        }
        let QMatMul { matmul, input_scale, .. } = self.clone();
        Ok(Box::new(PackedQMatMul { matmul, input_scale, matrix, bias }))
    }
}

/// A packed k x n matrix of int8, with a scale and a zero point for each column.
pub(super) struct Int8Columns {
    packed: Vec<i8>,
    pub scales: Vec<f32>,
    zero_points: Option<Vec<i32>>,
    pub k: usize,
    pub n: usize,
}

impl Int8Columns {
    /// Packs a matrix; zero points are those of the bytes as they are stored. `None` if it is too large.
    pub fn new(
        source: Source<'_>,
        k: usize,
        n: usize,
        scales: Vec<f32>,
        mut zero_points: Vec<i32>,
    ) -> Option<Int8Columns> {
        let mut packed = vec![0i8; int8::Weights::packed_len(k, n)?];
        int8::pack(source, k, n, 0..n, &mut packed);
        if source.unsigned {
            zero_points.iter_mut().for_each(|zero_point| *zero_point -= 128);
        }
        let zero_points = zero_points.iter().any(|zero_point| *zero_point != 0).then_some(zero_points);
        Some(Int8Columns { packed, scales, zero_points, k, n })
    }

    /// Quantises a matrix column by column, its largest magnitude to 127. The values are `[k][n]`, or `[n][k]` if
    /// `transposed`. A column with a value that is not finite gets the scale NaN.
    pub fn quantized(values: &[f32], k: usize, n: usize, transposed: bool) -> Option<Int8Columns> {
        let mut magnitudes = vec![0f32; n];
        if transposed && k > 0 {
            for (magnitude, column) in magnitudes.iter_mut().zip(values.chunks_exact(k)) {
                quantise::column_magnitudes(column, std::slice::from_mut(magnitude));
            }
        } else if !transposed && n > 0 {
            quantise::column_magnitudes(values, &mut magnitudes);
        }
        let scale = |magnitude: &f32| match *magnitude {
            magnitude if !magnitude.is_finite() => f32::NAN,
            magnitude if magnitude < quantise::SMALLEST_MAGNITUDE => 0.0,
            magnitude => magnitude / 127.0,
        };
        let scales: Vec<f32> = magnitudes.iter().map(scale).collect();
        let divisors: Vec<f32> = scales.iter().map(|scale| if *scale > 0.0 { *scale } else { 1.0 }).collect();
        let mut bytes = vec![0i8; values.len()];
        let inner = if transposed { k } else { 1 };
        if !values.is_empty() {
            let grid = quantise::Grid { scales: &divisors, zero_points: &[], inner };
            quantise::quantize_linear(values, grid, &mut bytes);
        }
        let (row_stride, column_stride) = if transposed { (1, k) } else { (n, 1) };
        let source = Source { bytes: bytemuck::cast_slice(&bytes), row_stride, column_stride, unsigned: false };
        Int8Columns::new(source, k, n, scales, Vec::new())
    }

    pub fn view(&self) -> int8::Weights<'_> {
        let weights = int8::Weights::new(&self.packed, self.k, self.n);
        match &self.zero_points {
            Some(zero_points) => weights.with_zero_points(zero_points),
            None => weights,
        }
    }

    /// The largest magnitude that activations may have so that no sum overflows.
    pub fn activation_limit(&self) -> i16 {
        let limit = int8::activation_limit(self.k);
        // Less its zero point, a weight may have one bit more.
        if self.zero_points.is_some() { limit / 2 } else { limit }
    }

    pub fn bytes(&self) -> usize {
        self.packed.len() + 4 * self.scales.len() + 4 * self.zero_points.as_ref().map_or(0, Vec::len)
    }
}

/// Rows of A that are one unit.
const ROWS_PER_UNIT: usize = 64;

struct PackedQMatMul {
    matmul: MatMul,
    input_scale: Option<f32>,
    matrix: Int8Columns,
    bias: Option<Vec<f32>>,
}

/// Bytes of a unit's scratch: the rows in int16, a scale for each, and the product if more is to be done with it.
struct Scratch {
    rows: usize,
    scales: usize,
    product: usize,
}

impl PackedQMatMul {
    fn rows(&self, shapes: &Shapes) -> usize {
        shapes.inputs[0].iter().product::<usize>().checked_div(self.matrix.k).unwrap_or(0)
    }

    /// Whether the rows are taken as they come.
    fn takes_input(&self) -> bool {
        self.input_scale.is_some() && self.matrix.k.is_multiple_of(int8::INNER_GROUP)
    }

    fn has_ending(&self) -> bool {
        self.matmul.has_residual || self.matmul.clamp != Clamp::NONE
    }

    fn scratch(&self, m: usize) -> Scratch {
        let rows = m.min(ROWS_PER_UNIT);
        Scratch {
            rows: if self.takes_input() { 0 } else { 2 * rows * int8::padded_inner(self.matrix.k) },
            scales: 4 * rows,
            product: if self.has_ending() { 4 * rows * self.matrix.n } else { 0 },
        }
    }

    /// Instructions of a row beside its product.
    fn row_instructions(&self) -> u64 {
        let k = self.matrix.k;
        let quantise = match (self.takes_input(), self.input_scale) {
            (true, _) => 0,
            (false, Some(_)) => k as u64,
            (false, None) => quantise::estimate_instructions(Conversion::Row, k) + 40,
        };
        quantise + if self.has_ending() { 3 * self.matrix.n as u64 } else { 0 }
    }
}

impl Operator for PackedQMatMul {
    fn name(&self) -> &'static str {
        "MatMul (int8 weights)"
    }

    fn units(&self, shapes: &Shapes) -> usize {
        self.rows(shapes).div_ceil(ROWS_PER_UNIT).max(1)
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let rows = (units.len() * ROWS_PER_UNIT).min(self.rows(shapes));
        CALL_INSTRUCTIONS
            + int8::estimate_instructions(rows, self.matrix.k, self.matrix.n)
            + rows as u64 * self.row_instructions()
    }

    fn multiply_accumulates(&self, shapes: &Shapes) -> u64 {
        self.rows(shapes) as u64 * (self.matrix.n * self.matrix.k) as u64
    }

    fn scratch_bytes(&self, shapes: &Shapes) -> usize {
        let Scratch { rows, scales, product } = self.scratch(self.rows(shapes));
        rows + scales + product
    }

    fn weight_bytes(&self) -> usize {
        self.matrix.bytes() + self.bias.as_ref().map_or(0, |bias| bias.len() * 4)
    }

    fn run(&self, mut call: Call<'_>) -> Result<(), String> {
        let (m, k, n) = (self.rows(call.shapes), self.matrix.k, self.matrix.n);
        let residual = self.matmul.has_residual.then(|| call.f32(1));
        let inputs = call.inputs;
        let scratch = std::mem::take(&mut call.scratch);
        let sizes = self.scratch(m);
        let (rows_scratch, scratch) = scratch.split_at_mut(sizes.rows);
        let (scales, product) = scratch.split_at_mut(sizes.scales);
        let rows_scratch: &mut [i16] = bytemuck::cast_slice_mut(rows_scratch);
        let scales: &mut [f32] = bytemuck::cast_slice_mut(scales);
        let product: &mut [f32] = bytemuck::cast_slice_mut(product);
        let units = call.units.clone();
        let output = call.output_f32();
        let limit = self.matrix.activation_limit();
        let stride = if self.takes_input() { k } else { int8::padded_inner(k) };
        let end = (units.end * ROWS_PER_UNIT).min(m);
        let mut first = units.start * ROWS_PER_UNIT;
        while first < end {
            let count = ROWS_PER_UNIT.min(end - first);
            let values = self.rows_of(inputs[0], first..first + count, limit, stride, rows_scratch, scales);
            let output = &mut output[first * n..(first + count) * n];
            let bias = self.bias.as_deref();
            let rescale = Rescale { row_scales: &scales[..count], column_scales: &self.matrix.scales, bias };
            let tile = Tile { rows: 0..count, columns: 0..n };
            let activations = Activations { values, stride };
            if self.has_ending() {
                let product = &mut product[..count * n];
                let sums = Output { values: &mut *product, stride: n };
                int8::gemm_f32(activations, self.matrix.view(), rescale, tile, sums);
                let residual = residual.map(|residual| &residual[first * n..(first + count) * n]);
                end_product(product, residual, self.matmul.clamp, output)?;
            } else {
                int8::gemm_f32(activations, self.matrix.view(), rescale, tile, Output { values: output, stride: n });
            }
            first += count;
        }
        Ok(())
    }
}

impl PackedQMatMul {
    /// Rows `rows` of the activations as the kernel takes them, and their scales.
    fn rows_of<'a>(
        &self,
        input: &'a [u8],
        rows: Range<usize>,
        limit: i16,
        stride: usize,
        scratch: &'a mut [i16],
        scales: &mut [f32],
    ) -> &'a [i16] {
        let k = self.matrix.k;
        let Some(scale) = self.input_scale else {
            let x = &bytemuck::cast_slice::<u8, f32>(input)[rows.start * k..rows.end * k];
            for (index, x) in x.chunks_exact(k).enumerate() {
                scales[index] = quantise::row(x, limit, &mut scratch[index * stride..(index + 1) * stride]);
            }
            return scratch;
        };
        let x = &bytemuck::cast_slice::<u8, i16>(input)[rows.start * k..rows.end * k];
        scales[..rows.len()].fill(scale);
        if self.takes_input() {
            return x;
        }
        for (x, row) in x.chunks_exact(k).zip(scratch.chunks_exact_mut(stride)) {
            row[..k].copy_from_slice(x);
            row[k..].fill(0);
        }
        scratch
    }
}

/// `output = clamp(product + residual)`.
pub(super) fn end_product(
    product: &[f32],
    residual: Option<&[f32]>,
    clamp: Clamp,
    output: &mut [f32],
) -> Result<(), String> {
    let shape = [output.len()];
    let full = |values| Operand::full(values, &shape).map_err(|error| error.to_string());
    let mut steps = Vec::new();
    if let Some(residual) = residual {
        steps.push(Step::Binary(Binary::Add, full(residual)?));
    }
    if clamp != Clamp::NONE {
        steps.push(Step::Unary(Unary::Clamp { low: clamp.low, high: clamp.high }));
    }
    let chain = Chain::new(&shape, full(product)?, &steps).map_err(|error| error.to_string())?;
    chain.run(0..output.len(), output);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{bytes, numbers, run, run_rows};
    use super::*;

    fn matmul(has_residual: bool, clamp: Clamp) -> MatMul {
        let (has_bias, b_transposed) = (true, false);
        MatMul { batch: 0, m: 1, n: 1, k: 1, b_transposed, has_bias, has_residual, clamp }
    }

    /// The product with the weights as they are, in double precision, and the largest error that rounding activations to
    /// `limit` steps can cause in it.
    fn reference(x: &[f32], weight: impl Fn(usize) -> f64, bias: f32, limit: i16) -> (f64, f64) {
        let magnitude = x.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        let half_step = f64::from(magnitude) / f64::from(limit) / 2.0;
        let sum: f64 = x.iter().enumerate().map(|(index, x)| f64::from(*x) * weight(index)).sum();
        let error: f64 = (0..x.len()).map(|index| half_step * weight(index).abs()).sum();
        (sum + f64::from(bias), error)
    }

    #[test]
    fn the_only_error_is_that_of_the_activations_steps() {
        for (k, n, unsigned, zero_points) in
            [(384, 36, false, vec![]), (101, 7, true, vec![3; 7]), (9000, 5, false, vec![-4, 0, 1, 2, 3])]
        {
            let (x, stored, bias) = (numbers(1, 64 * k), bytes(2, k * n), numbers(3, n));
            let scales: Vec<f32> = numbers(4, n).iter().map(|number| number * 0.01).collect();
            let source = Source { bytes: &stored, row_stride: n, column_stride: 1, unsigned };
            let of_columns = if zero_points.is_empty() { vec![0; n] } else { zero_points.clone() };
            let matrix = Int8Columns::new(source, k, n, scales.clone(), of_columns.clone()).unwrap();
            let limit = matrix.activation_limit();
            let bias_of_columns = Some(bias.clone());
            let operator =
                PackedQMatMul { matmul: matmul(false, Clamp::NONE), input_scale: None, matrix, bias: bias_of_columns };
            let got = run_rows(&operator, bytemuck::cast_slice(&x), 4 * k, k, n, &[]);
            for (at, got) in bytemuck::cast_slice::<u8, f32>(&got).iter().enumerate() {
                let (row, column) = (at / n, at % n);
                let weight = |index: usize| {
                    let byte = stored[index * n + column];
                    let value = if unsigned { i32::from(byte) } else { i32::from(byte as i8) };
                    f64::from(value - of_columns[column]) * f64::from(scales[column])
                };
                let (expected, error) = reference(&x[row * k..(row + 1) * k], weight, bias[column], limit);
                let difference = (f64::from(*got) - expected).abs();
                assert!(difference <= error + 1e-6 * expected.abs() + 1e-6, "{k}: {got} for {expected}, error {error}");
            }
        }
    }

    #[test]
    fn a_sum_and_a_clamp_come_after_the_product() {
        let (m, k, n) = (70, 40, 12);
        let (x, residual, stored) = (numbers(1, m * k), numbers(2, m * n), bytes(3, k * n));
        let source = Source { bytes: &stored, row_stride: 1, column_stride: k, unsigned: false };
        let operator = |has_residual, clamp| {
            let matrix = Int8Columns::new(source, k, n, vec![0.01; n], vec![0; n]).unwrap();
            PackedQMatMul { matmul: matmul(has_residual, clamp), input_scale: None, matrix, bias: Some(vec![0.5; n]) }
        };
        let x: (&[usize], &[u8]) = (&[m, k], bytemuck::cast_slice(&x));
        let plain = run(&operator(false, Clamp::NONE), &[x], &[m, n], 4);
        let ended = run(&operator(true, Clamp::RELU6), &[x, (&[m, n], bytemuck::cast_slice(&residual))], &[m, n], 4);
        let plain: &[f32] = bytemuck::cast_slice(&plain);
        let expected: Vec<f32> = plain.iter().zip(&residual).map(|(sum, add)| (sum + add).clamp(0.0, 6.0)).collect();
        assert_eq!(bytemuck::cast_slice::<u8, f32>(&ended), expected);
        assert!(expected.contains(&0.0) && expected.iter().any(|value| *value > 0.0));
    }

    #[test]
    fn centred_activations_are_taken_as_they_are() {
        for k in [40, 43] {
            let (m, n) = (5, 6);
            let x: Vec<i16> = bytes(1, m * k).into_iter().map(|byte| i16::from(byte) - 100).collect();
            let stored = bytes(2, k * n);
            let source = Source { bytes: &stored, row_stride: n, column_stride: 1, unsigned: false };
            let matrix = Int8Columns::new(source, k, n, vec![0.5; n], vec![0; n]).unwrap();
            let matmul = MatMul { has_bias: false, ..matmul(false, Clamp::NONE) };
            let operator = PackedQMatMul { matmul, input_scale: Some(0.25), matrix, bias: None };
            let got = run(&operator, &[(&[m, k], bytemuck::cast_slice(&x))], &[m, n], 4);
            for (at, got) in bytemuck::cast_slice::<u8, f32>(&got).iter().enumerate() {
                let product =
                    |index: usize| i32::from(x[at / n * k + index]) * i32::from(stored[index * n + at % n] as i8);
                assert_eq!(*got, (0..k).map(product).sum::<i32>() as f32 * 0.5 * 0.25);
            }
        }
    }

    #[test]
    fn float_weights_are_quantised_by_their_columns_largest() {
        let (k, n) = (50, 9);
        let values = numbers(1, k * n);
        let transposed: Vec<f32> = (0..n * k).map(|at| values[at % k * n + at / k]).collect();
        let matrix = Int8Columns::quantized(&values, k, n, false).unwrap();
        let same = Int8Columns::quantized(&transposed, k, n, true).unwrap();
        assert_eq!((&matrix.packed, &matrix.scales), (&same.packed, &same.scales));
        for column in 0..n {
            let scale = matrix.scales[column];
            let largest = (0..k).map(|row| values[row * n + column].abs()).fold(0f32, f32::max);
            assert_eq!(scale, largest / 127.0);
            for row in 0..k {
                let value = f32::from(matrix.view().at(row, column)) * scale;
                assert!((value - values[row * n + column]).abs() <= scale * 0.50001);
            }
        }
        let with_nan = Int8Columns::quantized(&[0.0, f32::NAN, 0.0, 1.0], 2, 2, false).unwrap();
        assert!(with_nan.scales[0] == 0.0 && with_nan.scales[1].is_nan());
    }
}
