//! `MatMulNBits`: a product of float activations and weights of 2, 4 or 8 bits that have a scale for each block of a
//! column.
//!
//! Products are summed as integers block by block. Each row of A is brought to 16 bits (to not quite 12 where 4-bit
//! weights stay packed) with a scale of its own, so a row's result does not depend on the others. Weights are widened to
//! int8, which loses nothing, or 4-bit ones stay packed.
//!
//! Zero points that are not whole numbers, or too far from the middle of the weights' range for an int8, are a product of
//! their own: `sum over blocks of (sum of the block's activations) * ((middle - zero point) * scale)`, in f32. Where 4-bit
//! weights with such zero points are widened, each block becomes int8 with a scale of its own instead: no weight moves by more
//! than 1/254 of its block's largest, some thirtieth of a 4-bit step, and a token costs a tenth less.

use super::{CALL_INSTRUCTIONS, Call, Op, Operator, Shapes};
use crate::EngineError;
use crate::graph::import::Lowering;
use crate::graph::opaque_integer::MatMulNBits;
use crate::graph::weights::Weights;
use crate::graph::{Graph, Node, ValueId};
use onnx_kernels::blockwise::{
    self, Activations, BLOCK, INT4_ACTIVATION_LIMIT, INT8_ACTIVATION_LIMIT, Int4Source, Int4Weights, Int8Weights,
    Output, Rescale, Source, Tile,
};
use onnx_kernels::gemm::{self, PackedMatrix};
use onnx_kernels::matrix::{Clamp, Epilogue, MatrixMut, MatrixRef};
use onnx_kernels::quantise::{self, Conversion};
use std::ops::Range;
use tract_onnx::prelude::DatumType;

/// Inputs: A `[.., k]`, B, scales, and of zero points and bias those there are; all but A are weights.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NBits {
    pub op: MatMulNBits,
    /// Whether 4-bit weights stay packed.
    pub keeps_int4: bool,
}

/// `None` when what has to be a weight is computed.
pub(crate) fn lower(lowering: &mut Lowering<'_>, op: &MatMulNBits) -> Option<ValueId> {
    let values = &lowering.graph.values;
    let are_weights = lowering.inputs[1..].iter().all(|input| values[*input].is_weight);
    let known = 3 + usize::from(op.has_zero_points) + usize::from(op.has_bias) == lowering.inputs.len();
    if !are_weights || !known || values[lowering.inputs[0]].datum_type != DatumType::F32 {
        return None;
    }
    let (dims, inputs) = (lowering.output_dims(), lowering.inputs.clone());
    Some(lowering.emit(Op::NBits(NBits { op: op.clone(), keeps_int4: false }), inputs, dims))
}

/// Keeps 4-bit weights packed if widening all of them would take more than this many bytes.
pub(crate) fn settle_widening(graph: &mut Graph, widened_bytes_max: u64) {
    let nodes = graph.nodes.iter_mut().flatten();
    let mut four_bit: Vec<&mut NBits> = nodes
        .filter_map(|node| match &mut node.op {
            Op::NBits(nbits) if nbits.op.bits == 4 => Some(nbits),
            _ => None,
        })
        .collect();
    let bytes = |nbits: &NBits| (nbits.op.k as u64 + 4 * nbits.op.blocks() as u64).saturating_mul(nbits.op.n as u64);
    let total = four_bit.iter().map(|nbits| bytes(nbits)).fold(0, u64::saturating_add);
    for nbits in &mut four_bit {
        nbits.keeps_int4 = total > widened_bytes_max && nbits.op.block_size.is_multiple_of(BLOCK);
    }
}

impl MatMulNBits {
    /// Blocks of a column.
    fn blocks(&self) -> usize {
        self.k.div_ceil(self.block_size)
    }

    /// Bytes of a column of B.
    fn column_bytes(&self) -> usize {
        self.blocks() * (self.block_size * self.bits / 8)
    }

    /// Bytes of a column's zero points where they are packed.
    fn zero_point_bytes(&self) -> usize {
        (self.blocks() * self.bits).div_ceil(8)
    }

    /// The middle of the weights' range, and their zero point where none is given.
    fn middle(&self) -> i32 {
        1 << (self.bits - 1)
    }

    /// The number at a place of packed numbers, the first in the lowest bits.
    fn unpacked(&self, bytes: &[u8], index: usize) -> u8 {
        let per_byte = 8 / self.bits;
        let mask = (1u16 << self.bits) - 1;
        bytes[index / per_byte] >> (index % per_byte * self.bits) & mask as u8
    }
}

impl MatMulNBits {
    /// Widens a column to the bytes of int8 numbers, each less what `less` gives for its block. Blocks shorter than the
    /// kernels' are padded.
    fn widen(&self, bytes: &[u8], less: impl Fn(usize) -> i32, less_is_equal: bool, widened: &mut [u8]) {
        let block_size = self.block_size;
        if self.bits == 4 && less_is_equal && block_size >= BLOCK && 2 * bytes.len() == widened.len() {
            blockwise::widen_int4(bytes, less(0) as u8, widened);
            return;
        }
        for (block, widened) in widened.chunks_mut(block_size.max(BLOCK)).enumerate() {
            let (less, start) = (less(block), block * block_size);
            let count = block_size.min(self.k - start);
            if self.bits == 4 && count == block_size {
                let bytes = &bytes[start / 2..(start + count) / 2];
                blockwise::widen_int4(bytes, less as u8, &mut widened[..count]);
                continue;
            }
            for (index, widened) in widened[..count].iter_mut().enumerate() {
                *widened = (i32::from(self.unpacked(bytes, start + index)) - less) as u8;
            }
        }
    }
}

impl MatMulNBits {
    /// Brings a column of 4-bit weights with these scales and zero points, one for each block, to the bytes of int8 ones with
    /// `scales` of theirs.
    fn recentre(&self, bytes: &[u8], source: (&[f32], &[f32]), widened: &mut [u8], scales: &mut [f32]) {
        let block_bytes = self.block_size / 2;
        let blocks = bytes.chunks_exact(block_bytes).zip(widened.chunks_mut(self.block_size.max(BLOCK)));
        let numbers = source.0.iter().zip(source.1).zip(scales);
        for (block, ((bytes, widened), ((scale, zero_point), new_scale))) in blocks.zip(numbers).enumerate() {
            let count = self.block_size.min(self.k - block * self.block_size);
            if count == self.block_size {
                *new_scale = blockwise::recentre_int4(bytes, *scale, *zero_point, &mut widened[..count]);
            } else {
                // The file has all of a block; of the last one not all is used.
                let mut whole = vec![0; self.block_size];
                *new_scale = blockwise::recentre_int4(bytes, *scale, *zero_point, &mut whole);
                widened[..count].copy_from_slice(&whole[..count]);
            }
        }
    }
}

/// The zero points of a file.
enum ZeroPoints<'a> {
    None,
    Packed(&'a [u8]),
    Float(&'a [f32]),
}

impl NBits {
    pub fn pack(
        &self,
        graph: &Graph,
        node: &Node,
        weights: &mut Weights<'_>,
    ) -> Result<Box<dyn Operator>, EngineError> {
        let op = &self.op;
        let invalid = |reason: String| EngineError::invalid(&*node.name, reason);
        let b = weights.tensor(graph, node.inputs[1])?;
        let scales = weights.f32(graph, node.inputs[2])?;
        let zero_points = match op.has_zero_points {
            true => Some(weights.tensor(graph, node.inputs[3])?),
            false => None,
        };
        let bias = match op.has_bias {
            true => Some(weights.f32(graph, node.inputs[3 + usize::from(op.has_zero_points)])?.to_vec()),
            false => None,
        };
        let of_columns = |of_one: usize| of_one.checked_mul(op.n);
        let zero_points = match &zero_points {
            None => ZeroPoints::None,
            Some(tensor) if tensor.datum_type() == DatumType::U8 => ZeroPoints::Packed(tensor.as_bytes()),
            Some(tensor) if tensor.datum_type() == DatumType::F32 => {
                ZeroPoints::Float(bytemuck::cast_slice(tensor.as_bytes()))
            }
            Some(tensor) => return Err(invalid(format!("its zero points are {:?}", tensor.datum_type()))),
        };
        let zero_points_fit = match zero_points {
            ZeroPoints::None => true,
            ZeroPoints::Packed(bytes) => Some(bytes.len()) == of_columns(op.zero_point_bytes()),
            ZeroPoints::Float(values) => Some(values.len()) == of_columns(op.blocks()),
        };
        let b_fits = b.datum_type() == DatumType::U8 && Some(b.len()) == of_columns(op.column_bytes());
        let bias_fits = bias.as_ref().is_none_or(|bias| bias.len() == op.n);
        if !b_fits || !zero_points_fit || !bias_fits || Some(scales.len()) != of_columns(op.blocks()) {
            return Err(invalid("its weights do not have the size that its attributes say".into()));
        }
        let packed = PackedNBits::new(self, b.as_bytes(), &scales, zero_points, bias);
        Ok(Box::new(packed.ok_or_else(|| invalid("its weights are too large".into()))?))
    }
}

enum Body {
    Int8(Vec<i8>),
    Int4 { packed: Vec<i8>, zero_points: Option<Vec<i8>> },
}

struct PackedNBits {
    op: MatMulNBits,
    /// Inner values as they are packed: blocks of 16 are padded to 32.
    k: usize,
    body: Body,
    scales: Vec<f32>,
    /// `(middle - zero point) * scale`, a row for each block, where zero points are a product of their own.
    corrections: Option<PackedMatrix>,
    bias: Option<Vec<f32>>,
}

/// Columns of B that are widened at a time.
const COLUMNS_PER_PIECE: usize = 64;

/// Rows of A that are one unit.
const ROWS_PER_UNIT: usize = 16;

impl PackedNBits {
    /// `None` if there is no such number of bytes.
    fn new(
        nbits: &NBits,
        bytes: &[u8],
        source_scales: &[f32],
        source_zero_points: ZeroPoints<'_>,
        bias: Option<Vec<f32>>,
    ) -> Option<PackedNBits> {
        let op = nbits.op.clone();
        let (n, blocks, middle) = (op.n, op.blocks(), op.middle());
        let is_spread = op.block_size < BLOCK;
        let (k, packed_block_size) =
            if is_spread { (blocks.checked_mul(BLOCK)?, BLOCK) } else { (op.k, op.block_size) };
        let mut scales = vec![0f32; blockwise::scales_len(k, n)?];
        // Packed zero points of few bits go into the weights.
        let in_weights = match source_zero_points {
            ZeroPoints::Packed(zero_points) if op.bits <= 4 => Some(zero_points),
            _ => None,
        };
        let recentred = match source_zero_points {
            ZeroPoints::Float(zero_points) if op.bits == 4 && !nbits.keeps_int4 => Some(zero_points),
            _ => None,
        };
        let zero_point = |zero_points: &[u8], column: usize, block: usize| {
            let of_column = &zero_points[column * op.zero_point_bytes()..(column + 1) * op.zero_point_bytes()];
            i32::from(op.unpacked(of_column, block))
        };
        let body = if nbits.keeps_int4 {
            let mut packed = vec![0i8; Int4Weights::packed_len(k, n)?];
            let mut zero_points = match in_weights {
                Some(_) => vec![0i8; Int4Weights::zero_points_len(k, n)?],
                None => Vec::new(),
            };
            let source =
                Int4Source { bytes, scales: source_scales, zero_points: in_weights, block_size: op.block_size };
            blockwise::pack_int4(source, k, n, 0..n, &mut packed, &mut scales, &mut zero_points);
            Body::Int4 { packed, zero_points: in_weights.map(|_| zero_points) }
        } else {
            let mut packed = vec![0i8; Int8Weights::packed_len(k, n)?];
            // Bytes less the middle of their range are packed as they lie in the file.
            let is_as_stored = op.bits == 8 && !is_spread;
            let mut widened = vec![0u8; if is_as_stored { 0 } else { COLUMNS_PER_PIECE.min(n) * k }];
            let mut new_scales = vec![0f32; if recentred.is_some() { COLUMNS_PER_PIECE.min(n) * blocks } else { 0 }];
            for first in (0..n).step_by(COLUMNS_PER_PIECE) {
                let columns = first..(first + COLUMNS_PER_PIECE).min(n);
                if let Some(zero_points) = recentred {
                    let pieces = widened.chunks_exact_mut(k).zip(new_scales.chunks_exact_mut(blocks));
                    for (column, (widened, new_scales)) in columns.clone().zip(pieces) {
                        let bytes = &bytes[column * op.column_bytes()..(column + 1) * op.column_bytes()];
                        let of_column = column * blocks..(column + 1) * blocks;
                        op.recentre(
                            bytes,
                            (&source_scales[of_column.clone()], &zero_points[of_column]),
                            widened,
                            new_scales,
                        );
                    }
                } else if !is_as_stored {
                    for (column, widened) in columns.clone().zip(widened.chunks_exact_mut(k)) {
                        let bytes = &bytes[column * op.column_bytes()..(column + 1) * op.column_bytes()];
                        let less = |block: usize| match in_weights {
                            Some(zero_points) => zero_point(zero_points, column, block),
                            None => middle,
                        };
                        op.widen(bytes, less, in_weights.is_none(), widened);
                    }
                }
                let source = match is_as_stored {
                    true => {
                        let (bytes, column_stride) = (&bytes[first * op.column_bytes()..], op.column_bytes());
                        Source { bytes, row_stride: 1, column_stride, unsigned: true }
                    }
                    false => Source { bytes: &widened, row_stride: 1, column_stride: k, unsigned: false },
                };
                let scales_of = match recentred {
                    Some(_) => &new_scales[..columns.len() * blocks],
                    None => &source_scales[columns.start * blocks..columns.end * blocks],
                };
                blockwise::pack_int8(source, scales_of, packed_block_size, k, n, columns, &mut packed, &mut scales);
            }
            Body::Int8(packed)
        };
        let offset = |column: usize, block: usize| match &source_zero_points {
            ZeroPoints::Packed(zero_points) if op.bits > 4 => (middle - zero_point(zero_points, column, block)) as f32,
            ZeroPoints::Float(zero_points) => middle as f32 - zero_points[column * blocks + block],
            _ => 0.0,
        };
        let is_separate =
            in_weights.is_none() && recentred.is_none() && !matches!(source_zero_points, ZeroPoints::None);
        let mut is_corrected = false;
        let mut corrections = Vec::new();
        if is_separate {
            corrections.reserve_exact(n * blocks);
            for (column, scales) in source_scales.chunks_exact(blocks).enumerate() {
                for (block, scale) in scales.iter().enumerate() {
                    let offset = offset(column, block);
                    is_corrected |= offset != 0.0;
                    corrections.push(offset * scale);
                }
            }
        }
        let corrections = is_corrected.then(|| PackedMatrix::from_columns(MatrixRef::new(&corrections, n, blocks)));
        Some(PackedNBits { op, k, body, scales, corrections, bias })
    }

    fn rows(&self, shapes: &Shapes) -> usize {
        shapes.inputs[0].iter().product::<usize>().checked_div(self.op.k).unwrap_or(0)
    }

    /// Values of a quantised row, and of one as the kernel reads it where that is not the same.
    fn row_lengths(&self) -> (usize, usize) {
        match self.body {
            Body::Int8(_) => (blockwise::padded_inner(self.k), 0),
            Body::Int4 { .. } => (self.op.k, blockwise::prepared_inner(self.k)),
        }
    }

    /// Brings a row to integers in `quantised` and, if they are not the same, in `prepared`, and sums its blocks, times its
    /// scale, into `sums` if that is not empty. Tells the scale.
    fn prepare(&self, x: &[f32], quantised: &mut [i16], prepared: &mut [i16], sums: &mut [f32]) -> f32 {
        let (k, block_size) = (self.op.k, self.op.block_size);
        let limit = match self.body {
            Body::Int8(_) => INT8_ACTIVATION_LIMIT,
            Body::Int4 { .. } => INT4_ACTIVATION_LIMIT,
        };
        let scale = quantise::row(x, limit, quantised);
        if !sums.is_empty() {
            quantise::block_sums(&quantised[..k], block_size, scale, sums);
        }
        if matches!(self.body, Body::Int4 { .. }) {
            blockwise::prepare_int4(quantised, prepared);
        } else if block_size < BLOCK {
            for block in (0..self.op.blocks()).rev() {
                let (from, to) = (block * block_size, block * BLOCK);
                let count = block_size.min(k - from);
                quantised.copy_within(from..from + count, to);
                quantised[to + count..to + BLOCK].fill(0);
            }
        }
        scale
    }
}

/// Bytes of a unit's scratch: row scales, block sums, the product without corrections, the rows in int16, and those
/// prepared.
struct Scratch([usize; 5]);

impl PackedNBits {
    fn scratch(&self, m: usize) -> Scratch {
        let rows = m.min(ROWS_PER_UNIT);
        let (quantised, prepared) = self.row_lengths();
        let (sums, product) = match self.corrections {
            Some(_) => (4 * rows * self.op.blocks(), 4 * rows * self.op.n),
            None => (0, 0),
        };
        Scratch([4 * rows, sums, product, 2 * rows * quantised, 2 * rows * prepared])
    }
}

impl Operator for PackedNBits {
    fn name(&self) -> &'static str {
        "MatMulNBits"
    }

    fn units(&self, shapes: &Shapes) -> usize {
        self.rows(shapes).div_ceil(ROWS_PER_UNIT).max(1)
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let rows = (units.len() * ROWS_PER_UNIT).min(self.rows(shapes));
        let (k, n) = (self.k, self.op.n);
        let product = match &self.body {
            Body::Int8(_) => blockwise::estimate_int8_instructions(rows, k, n),
            Body::Int4 { zero_points, .. } => {
                // And preparing the rows.
                blockwise::estimate_int4_instructions(rows, k, n, zero_points.is_some()) + 3 * (rows * k) as u64
            }
        };
        let corrections = match self.corrections {
            Some(_) => {
                gemm::estimate_instructions(rows, self.op.blocks(), n) + (rows * (k + 30 * self.op.blocks())) as u64
            }
            None => 0,
        };
        let row = quantise::estimate_instructions(Conversion::Row, k) + 60;
        CALL_INSTRUCTIONS + product + corrections + rows as u64 * row
    }

    fn multiply_accumulates(&self, shapes: &Shapes) -> u64 {
        (self.rows(shapes) * self.op.n) as u64 * self.op.k as u64
    }

    fn scratch_bytes(&self, shapes: &Shapes) -> usize {
        self.scratch(self.rows(shapes)).0.iter().sum()
    }

    fn weight_bytes(&self) -> usize {
        let packed = match &self.body {
            Body::Int8(packed) => packed.len(),
            Body::Int4 { packed, zero_points } => packed.len() + zero_points.as_ref().map_or(0, Vec::len),
        };
        let floats = self.scales.len() + self.bias.as_ref().map_or(0, Vec::len);
        packed + 4 * floats + self.corrections.as_ref().map_or(0, PackedMatrix::bytes)
    }

    fn is_row_wise(&self) -> bool {
        true
    }

    fn run(&self, mut call: Call<'_>) -> Result<(), String> {
        let (m, k, n) = (self.rows(call.shapes), self.op.k, self.op.n);
        let Scratch([scales, sums, product, quantised, _]) = self.scratch(m);
        let scratch = std::mem::take(&mut call.scratch);
        let (scales, scratch) = scratch.split_at_mut(scales);
        let (sums, scratch) = scratch.split_at_mut(sums);
        let (product, scratch) = scratch.split_at_mut(product);
        let (quantised, prepared) = scratch.split_at_mut(quantised);
        let scales: &mut [f32] = bytemuck::cast_slice_mut(scales);
        let sums: &mut [f32] = bytemuck::cast_slice_mut(sums);
        let product: &mut [f32] = bytemuck::cast_slice_mut(product);
        let quantised: &mut [i16] = bytemuck::cast_slice_mut(quantised);
        let prepared: &mut [i16] = bytemuck::cast_slice_mut(prepared);
        let blocks = if self.corrections.is_some() { self.op.blocks() } else { 0 };
        let (stride, prepared_stride) = self.row_lengths();
        let x = call.f32(0);
        let units = call.units.clone();
        let output = call.output_f32();
        let end = (units.end * ROWS_PER_UNIT).min(m);
        let mut first = units.start * ROWS_PER_UNIT;
        while first < end {
            let count = ROWS_PER_UNIT.min(end - first);
            for row in 0..count {
                let x = &x[(first + row) * k..(first + row + 1) * k];
                let prepared = &mut prepared[row * prepared_stride..(row + 1) * prepared_stride];
                let sums = &mut sums[row * blocks..(row + 1) * blocks];
                scales[row] = self.prepare(x, &mut quantised[row * stride..(row + 1) * stride], prepared, sums);
            }
            let output = &mut output[first * n..(first + count) * n];
            let rescale = Rescale { row_scales: &scales[..count], bias: self.bias.as_deref() };
            let tile = Tile { rows: 0..count, columns: 0..n };
            let to = if self.corrections.is_some() { &mut product[..count * n] } else { &mut *output };
            let to = Output { values: to, stride: n };
            match &self.body {
                Body::Int8(packed) => {
                    let weights = Int8Weights::new(packed, &self.scales, self.k, n);
                    blockwise::gemm_int8(Activations { values: quantised, stride }, weights, rescale, tile, to);
                }
                Body::Int4 { packed, zero_points } => {
                    let weights = Int4Weights::new(packed, &self.scales, zero_points.as_deref(), self.k, n);
                    let activations = Activations { values: prepared, stride: prepared_stride };
                    blockwise::gemm_int4(activations, weights, rescale, tile, to);
                }
            }
            if let Some(corrections) = &self.corrections {
                let sums = MatrixRef::new(&sums[..count * blocks], count, blocks);
                let residual = Some(MatrixRef::new(&product[..count * n], count, n));
                let epilogue = Epilogue { bias: None, residual, clamp: Clamp::NONE };
                match count {
                    1 => gemm::gemv(sums.row(0), corrections.view(), &epilogue, 0..n, output),
                    _ => {
                        let mut output = MatrixMut::new(output, count, n);
                        gemm::gemm(sums, corrections.view(), &epilogue, 0..count, &mut output);
                    }
                }
            }
            first += count;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{bytes, numbers, run_rows};
    use super::*;

    /// The definition: every weight times its activation, in double precision, and how far rounding activations to
    /// `limit` steps, and weights of blocks that are recentred, may lead from it.
    fn reference(
        op: &MatMulNBits,
        b: &[u8],
        scales: &[f32],
        zero: impl Fn(usize, usize) -> f64,
        x: &[f32],
        column: usize,
        (limit, is_recentred): (i16, bool),
    ) -> (f64, f64) {
        let magnitude = x.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        let half_step = f64::from(magnitude) / f64::from(limit) / 2.0;
        let of_column = &b[column * op.column_bytes()..(column + 1) * op.column_bytes()];
        let (mut sum, mut error) = (0.0, 0.0);
        for (index, x) in x.iter().enumerate() {
            let block = index / op.block_size;
            let bit = index * op.bits;
            let q = of_column[bit / 8] >> (bit % 8) & ((1u16 << op.bits) - 1) as u8;
            let weight = (f64::from(q) - zero(column, block)) * f64::from(scales[column * op.blocks() + block]);
            sum += f64::from(*x) * weight;
            error += half_step * weight.abs();
            if is_recentred {
                let (zero, scale) = (zero(column, block), f64::from(scales[column * op.blocks() + block]));
                let half_step_of_weights = zero.abs().max((15.0 - zero).abs()) * scale.abs() / 254.0;
                error += half_step_of_weights * (f64::from(x.abs()) + half_step);
            }
        }
        (sum, error)
    }

    fn check(k: usize, n: usize, bits: usize, block_size: usize, zero_points: &str, keeps_int4: bool) {
        let op = MatMulNBits { k, n, bits, block_size, has_zero_points: zero_points != "none", has_bias: false };
        let (b, x) = (bytes(1, n * op.column_bytes()), numbers(2, 64 * k));
        let scales: Vec<f32> = numbers(3, n * op.blocks()).iter().map(|number| number * 0.02).collect();
        let packed = bytes(4, n * op.zero_point_bytes());
        let floats: Vec<f32> = numbers(5, n * op.blocks()).iter().map(|number| (number + 1.0) * 7.5).collect();
        let source = match zero_points {
            "packed" => ZeroPoints::Packed(&packed),
            "float" => ZeroPoints::Float(&floats),
            _ => ZeroPoints::None,
        };
        let zero = |column: usize, block: usize| match zero_points {
            "packed" => {
                let bit = block * bits;
                let byte = packed[column * op.zero_point_bytes() + bit / 8];
                f64::from(byte >> (bit % 8) & ((1u16 << bits) - 1) as u8)
            }
            "float" => f64::from(floats[column * op.blocks() + block]),
            _ => f64::from(1 << (bits - 1)),
        };
        let nbits = NBits { op: op.clone(), keeps_int4 };
        let operator = PackedNBits::new(&nbits, &b, &scales, source, None).unwrap();
        let limit = if keeps_int4 { INT4_ACTIVATION_LIMIT } else { INT8_ACTIVATION_LIMIT };
        let got = run_rows(&operator, bytemuck::cast_slice(&x), 4 * k, k, n, &[]);
        for (at, got) in bytemuck::cast_slice::<u8, f32>(&got).iter().enumerate() {
            let (row, column) = (at / n, at % n);
            let x = &x[row * k..(row + 1) * k];
            let is_recentred = zero_points == "float" && bits == 4 && !keeps_int4;
            let (expected, error) = reference(&op, &b, &scales, zero, x, column, (limit, is_recentred));
            // Block sums and corrections are added in single precision.
            let difference = (f64::from(*got) - expected).abs();
            assert!(
                difference <= error * 1.01 + 2e-5,
                "{op:?} row {row} column {column}: {got} for {expected}, {error}"
            );
        }
    }

    #[test]
    fn widened_weights_follow_the_definition() {
        for (k, n, bits, block_size, zero_points) in [
            (96, 10, 4, 32, "none"),
            (100, 70, 4, 32, "packed"),
            (96, 9, 4, 32, "float"),
            (300, 5, 4, 128, "packed"),
            (72, 6, 4, 16, "packed"),
            (72, 6, 4, 16, "float"),
            (128, 7, 8, 32, "none"),
            (130, 7, 8, 64, "packed"),
            (96, 7, 8, 32, "float"),
            (80, 7, 8, 16, "none"),
            (72, 6, 8, 16, "float"),
            (100, 7, 2, 32, "packed"),
            (64, 7, 2, 16, "none"),
        ] {
            check(k, n, bits, block_size, zero_points, false);
        }
    }

    #[test]
    fn packed_weights_follow_the_definition() {
        for (k, n, block_size, zero_points) in
            [(96, 10, 32, "none"), (100, 70, 32, "packed"), (300, 5, 128, "packed"), (96, 9, 32, "float")]
        {
            check(k, n, 4, block_size, zero_points, true);
        }
    }

    #[test]
    fn weights_stay_packed_when_widening_takes_too_much() {
        let mut graph = Graph::default();
        let op = MatMulNBits { k: 64, n: 100, bits: 4, block_size: 32, has_zero_points: false, has_bias: false };
        for block_size in [32, 16] {
            let op = Op::NBits(NBits { op: MatMulNBits { block_size, ..op.clone() }, keeps_int4: false });
            graph.nodes.push(Some(Node { name: String::new(), op, inputs: vec![], outputs: vec![] }));
        }
        let kept = |graph: &Graph| -> Vec<bool> {
            let of_node = |node: &Node| matches!(&node.op, Op::NBits(nbits) if nbits.keeps_int4);
            graph.nodes.iter().flatten().map(of_node).collect()
        };
        // Int8 weights and a scale of 4 bytes for each block.
        let bytes = 100 * (64 + 4 * 2) + 100 * (64 + 4 * 4);
        settle_widening(&mut graph, bytes);
        assert_eq!(kept(&graph), [false, false]);
        settle_widening(&mut graph, bytes - 1);
        // There is no packed form for blocks of 16.
        assert_eq!(kept(&graph), [true, false]);
    }
}
