//! Attention: `softmax(scale Q K^T + mask) V`, head by head, over some queries at a time. Scores may be capped before the
//! mask is added: `cap tanh(scale Q K^T / cap)`.

use super::{CALL_INSTRUCTIONS, Call, Operator, Shapes};
use onnx_kernels::matrix::{Epilogue, MatrixMut, MatrixRef};
use onnx_kernels::pointwise::{self, Binary, Chain, Operand, ShapeError, Unary};
use onnx_kernels::softmax::{Mask, Softmax};
use onnx_kernels::{gemm, gemm_nt};
use std::ops::Range;

/// How the axes of a value of an attention lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Axes {
    /// `[batch, heads, positions, columns]`
    ByHead,
    /// `[batch, positions, heads, columns]`
    ByPosition,
}

/// Inputs: queries; keys and values, of which several heads of the queries share one; then, if any, a mask of four axes
/// that is broadcast to `[batch, heads, queries, keys]` and added. Output: like the queries, its axes as `output` says.
///
/// A row has the same bits whatever other rows it is computed with, and keys behind those that its mask leaves change
/// none: their weight is 0.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Attention {
    pub scale: f32,
    /// What scores stay below in magnitude; 0 for none.
    pub softcap: f32,
    pub has_mask: bool,
    /// A query that sees nothing has the result 0 and not NaN.
    pub nan_to_zero: bool,
    pub queries: Axes,
    pub keys: Axes,
    pub values: Axes,
    pub output: Axes,
}

/// Queries of a unit.
const QUERIES_PER_UNIT: usize = 64;

/// Sizes of the axes of a value.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    heads: usize,
    positions: usize,
    columns: usize,
}

/// A value whose rows can be found.
struct Rows<'a> {
    data: &'a [f32],
    batch_stride: usize,
    head_stride: usize,
    position_stride: usize,
    columns: usize,
}

impl Axes {
    fn sizes(self, shape: &[usize]) -> Sizes {
        let (heads, positions) = match self {
            Axes::ByHead => (shape[1], shape[2]),
            Axes::ByPosition => (shape[2], shape[1]),
        };
        Sizes { batch: shape[0], heads, positions, columns: shape[3] }
    }

    /// Strides of batch, head and position. Heads may have room for more positions than there are: `capacity`.
    fn strides(self, sizes: Sizes, capacity: usize) -> [usize; 3] {
        let Sizes { heads, columns, .. } = sizes;
        match self {
            Axes::ByHead => [heads * capacity * columns, capacity * columns, columns],
            Axes::ByPosition => [capacity * heads * columns, columns, heads * columns],
        }
    }

    fn rows<'a>(self, data: &'a [f32], sizes: Sizes) -> Rows<'a> {
        let of_position = sizes.batch * sizes.heads * sizes.columns;
        // A value that grows in place has room behind it.
        let capacity = data.len().checked_div(of_position).unwrap_or(0).max(sizes.positions);
        let [batch_stride, head_stride, position_stride] = self.strides(sizes, capacity);
        Rows { data, batch_stride, head_stride, position_stride, columns: sizes.columns }
    }
}

impl<'a> Rows<'a> {
    fn matrix(&self, batch: usize, head: usize, positions: Range<usize>) -> MatrixRef<'a> {
        let start = batch * self.batch_stride + head * self.head_stride + positions.start * self.position_stride;
        let data = self.data.get(start..).unwrap_or_default();
        MatrixRef::with_stride(data, positions.len(), self.columns, self.position_stride)
    }
}

/// One unit's place: a batch, a head of the keys, and the queries.
struct Unit {
    batch: usize,
    kv_head: usize,
    queries: Range<usize>,
}

/// What a call gives to be read.
struct Given<'a> {
    shapes: &'a Shapes,
    inputs: &'a [&'a [u8]],
}

impl<'a> Given<'a> {
    fn f32(&self, input: usize) -> &'a [f32] {
        bytemuck::cast_slice(self.inputs[input])
    }
}

/// All sizes of one call.
struct Whole {
    queries: Sizes,
    keys: Sizes,
    value_columns: usize,
    /// Heads of the queries that share one of the keys.
    group: usize,
}

impl Attention {
    fn whole(&self, shapes: &Shapes) -> Whole {
        let (queries, keys) = (self.queries.sizes(&shapes.inputs[0]), self.keys.sizes(&shapes.inputs[1]));
        let value_columns = shapes.inputs[2][3];
        Whole { queries, keys, value_columns, group: queries.heads.checked_div(keys.heads).unwrap_or(0) }
    }

    fn unit(whole: &Whole, unit: usize) -> Unit {
        let blocks = whole.queries.positions.div_ceil(QUERIES_PER_UNIT).max(1);
        let (head, block) = (unit / blocks, unit % blocks);
        let start = block * QUERIES_PER_UNIT;
        let end = (start + QUERIES_PER_UNIT).min(whole.queries.positions);
        let heads = whole.keys.heads.max(1);
        Unit { batch: head / heads, kv_head: head % heads, queries: start..end }
    }

    /// Whether the queries of all heads of a group are one matrix.
    fn is_joined(&self, whole: &Whole) -> bool {
        whole.queries.positions == 1
    }

    /// Whether the mask has one number for all keys.
    fn is_narrow(&self, shapes: &Shapes, keys: usize) -> bool {
        self.has_mask && keys != 1 && shapes.inputs[3][3] == 1
    }

    /// The rows of the mask of one head's queries.
    fn mask<'a>(&self, given: &Given<'a>, batch: usize, head: usize, queries: Range<usize>) -> Option<Mask<'a>> {
        if !self.has_mask {
            return None;
        }
        let shape = &given.shapes.inputs[3];
        let along = |axis: usize, index: usize| if shape[axis] == 1 { 0 } else { index };
        let start = (along(0, batch) * shape[1] + along(1, head)) * shape[2] + along(2, queries.start);
        let rows = if shape[2] == 1 { 1 } else { queries.len() };
        Some(Mask { values: &given.f32(3)[start * shape[3]..][..rows * shape[3]], rows, repeat: 1 })
    }

    /// The output's rows of one head.
    fn output<'a>(&self, output: &'a mut [f32], sizes: Sizes, unit: &Unit, head: usize) -> MatrixMut<'a> {
        let [batch_stride, head_stride, position_stride] = self.output.strides(sizes, sizes.positions);
        let start = unit.batch * batch_stride + head * head_stride + unit.queries.start * position_stride;
        let rows = unit.queries.len();
        MatrixMut::with_stride(&mut output[start..], rows, sizes.columns, position_stride.max(sizes.columns))
    }
}

impl Operator for Attention {
    fn name(&self) -> &'static str {
        "Attention"
    }

    fn units(&self, shapes: &Shapes) -> usize {
        let Whole { queries, keys, .. } = self.whole(shapes);
        (queries.batch * keys.heads * queries.positions.div_ceil(QUERIES_PER_UNIT)).max(1)
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let whole = self.whole(shapes);
        let (keys, columns) = (whole.keys.positions, whole.queries.columns);
        let rows = whole.queries.positions.min(QUERIES_PER_UNIT);
        let (times, rows) = if self.is_joined(&whole) { (1, whole.group) } else { (whole.group, rows) };
        let cap = match self.softcap {
            0.0 => 0,
            _ => pointwise::estimate_unary(Unary::Tanh, rows * keys) + (4 * rows * keys) as u64 + 9_000,
        };
        let softmax = self.softmax(keys, None).estimate_instructions(rows) + (4 * rows * keys) as u64 + cap;
        let products = gemm_nt::estimate_instructions(rows, columns, keys)
            + gemm::estimate_instructions_unpacked(rows, keys, whole.value_columns);
        CALL_INSTRUCTIONS + units.len() as u64 * (1_500 + times as u64 * (2_500 + products + softmax))
    }

    fn multiply_accumulates(&self, shapes: &Shapes) -> u64 {
        let whole = self.whole(shapes);
        let rows = (whole.queries.batch * whole.queries.heads * whole.queries.positions) as u64;
        rows * whole.keys.positions as u64 * (whole.queries.columns + whole.value_columns) as u64
    }

    fn scratch_bytes(&self, shapes: &Shapes) -> usize {
        let whole = self.whole(shapes);
        let rows = whole.queries.positions.min(QUERIES_PER_UNIT);
        let rows = if self.is_joined(&whole) { whole.group } else { rows };
        let keys = whole.keys.positions;
        let mask_rows = if self.is_narrow(shapes, keys) { rows } else { 0 };
        (rows + mask_rows).saturating_mul(keys).saturating_mul(size_of::<f32>())
    }

    fn takes_room(&self, input: usize) -> bool {
        input == 1 && self.keys == Axes::ByHead || input == 2 && self.values == Axes::ByHead
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        let Call { shapes, inputs, output, scratch, units } = call;
        let given = Given { shapes, inputs };
        let whole = self.whole(shapes);
        let (keys, group) = (whole.keys.positions, whole.group);
        if group * whole.keys.heads != whole.queries.heads {
            let (heads, of_keys) = (whole.queries.heads, whole.keys.heads);
            return Err(format!("{heads} heads of queries do not share {of_keys} heads of keys"));
        }
        if shapes.output.contains(&0) {
            return Ok(());
        }
        if let (true, Some(mask)) = (self.has_mask, shapes.inputs.get(3)) {
            let wanted = [whole.queries.batch, whole.queries.heads, whole.queries.positions, keys];
            if !mask.iter().zip(&wanted).all(|(size, wanted)| size == wanted || *size == 1) {
                return Err(format!("its mask {mask:?} can't be broadcast to {wanted:?}"));
            }
        }
        let value_sizes = self.values.sizes(&shapes.inputs[2]);
        let q = self.queries.rows(given.f32(0), whole.queries);
        let (k, v) = (self.keys.rows(given.f32(1), whole.keys), self.values.rows(given.f32(2), value_sizes));
        let output_sizes = Sizes { columns: whole.value_columns, ..whole.queries };
        let scores: &mut [f32] = bytemuck::cast_slice_mut(scratch);
        for unit in units {
            let unit = Self::unit(&whole, unit);
            let (keys_matrix, values) =
                (k.matrix(unit.batch, unit.kv_head, 0..keys), v.matrix(unit.batch, unit.kv_head, 0..keys));
            let first_head = unit.kv_head * group;
            // One query: the heads that share these keys follow each other, as rows do.
            let is_joined = self.is_joined(&whole);
            for head in first_head..first_head + if is_joined { 1 } else { group } {
                let queries = match is_joined {
                    true => {
                        let start = (unit.batch * whole.queries.heads + head) * whole.queries.columns;
                        MatrixRef::new(&q.data[start..], group, whole.queries.columns)
                    }
                    false => q.matrix(unit.batch, head, unit.queries.clone()),
                };
                let rows = queries.rows();
                let mut products = MatrixMut::new(&mut scores[..rows * keys], rows, keys);
                gemm_nt::gemm_nt(queries, keys_matrix, 1.0, 0..rows, &mut products);
                self.cap(&mut scores[..rows * keys]).map_err(|error| error.to_string())?;
                self.weigh(&given, &unit, head, is_joined.then_some(group), scores, [rows, keys]);
                let output = bytemuck::cast_slice_mut(&mut *output);
                let mut output = match is_joined {
                    true => {
                        let start = (unit.batch * whole.queries.heads + head) * whole.value_columns;
                        MatrixMut::new(&mut output[start..], group, whole.value_columns)
                    }
                    false => self.output(output, output_sizes, &unit, head),
                };
                let scores = MatrixRef::new(&scores[..rows * keys], rows, keys);
                gemm::gemm_unpacked(scores, values, &Epilogue::NONE, 0..rows, &mut output);
            }
        }
        Ok(())
    }
}

impl Attention {
    fn softmax<'a>(&self, keys: usize, mask: Option<Mask<'a>>) -> Softmax<'a> {
        let scale = if self.softcap == 0.0 { self.scale } else { 1.0 };
        Softmax { scale, mask, ..Softmax::new(keys) }
    }

    /// Caps scores, which are products not scaled yet, if that is asked for.
    fn cap(&self, scores: &mut [f32]) -> Result<(), ShapeError> {
        if self.softcap == 0.0 {
            return Ok(());
        }
        let steps = [
            pointwise::Step::Binary(Binary::Mul, Operand::number(self.scale / self.softcap)),
            pointwise::Step::Unary(Unary::Tanh),
            pointwise::Step::Binary(Binary::Mul, Operand::number(self.softcap)),
        ];
        let shape = [scores.len()];
        Chain::new(&shape, Operand::in_place(&shape)?, &steps)?.run(0..scores.len(), scores);
        Ok(())
    }

    /// Turns the products of queries and keys into weights: of one head's queries, or of one query of `group` heads.
    fn weigh(
        &self,
        given: &Given<'_>,
        unit: &Unit,
        head: usize,
        group: Option<usize>,
        scratch: &mut [f32],
        [rows, keys]: [usize; 2],
    ) {
        if keys == 0 {
            return;
        }
        // Behind the products is room for a mask that has to be widened.
        let (scores, wide) = scratch.split_at_mut(rows * keys);
        let has_mask_per_head = self.has_mask && given.shapes.inputs[3][1] != 1;
        match group {
            Some(group) if has_mask_per_head => {
                for (index, row) in scores.chunks_exact_mut(keys).enumerate().take(group) {
                    let mask = self.mask(given, unit.batch, head + index, unit.queries.clone());
                    let mask = mask.map(|mask| widened(mask, wide, keys));
                    self.softmax(keys, mask).run_in_place(0..1, row);
                }
            }
            _ => {
                let mask = self.mask(given, unit.batch, head, unit.queries.clone());
                let mask = mask.map(|mask| widened(mask, wide, keys));
                self.softmax(keys, mask).run_in_place(0..scores.len() / keys, scores);
            }
        }
        if self.nan_to_zero {
            // A row with a NaN is NaN throughout.
            scores.chunks_exact_mut(keys).filter(|row| row[0].is_nan()).for_each(|row| row.fill(0.0));
        }
    }
}

/// A mask whose rows are as long as there are keys: itself, or each of its numbers for all of them, in `wide`.
fn widened<'a>(mask: Mask<'a>, wide: &'a mut [f32], keys: usize) -> Mask<'a> {
    if mask.values.len() == mask.rows * keys {
        return mask;
    }
    let wide = &mut wide[..mask.rows * keys];
    wide.chunks_exact_mut(keys).zip(mask.values).for_each(|(row, number)| row.fill(*number));
    Mask { values: wide, ..mask }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: usize = 2;
    const HEADS: usize = 6;
    const KV_HEADS: usize = 2;
    const COLUMNS: usize = 5;

    fn number(seed: usize) -> f32 {
        ((seed * 2_654_435_761) % 2003) as f32 / 1001.0 - 1.0
    }

    fn shape(axes: Axes, heads: usize, positions: usize) -> Vec<usize> {
        match axes {
            Axes::ByHead => vec![BATCH, heads, positions, COLUMNS],
            Axes::ByPosition => vec![BATCH, positions, heads, COLUMNS],
        }
    }

    /// A value whose elements depend on their place alone, however its axes lie, with room for `capacity` positions.
    fn value(axes: Axes, heads: usize, positions: usize, capacity: usize, seed: usize) -> Vec<f32> {
        let sizes = Sizes { batch: BATCH, heads, positions, columns: COLUMNS };
        let [of_batch, of_head, of_position] = axes.strides(sizes, capacity);
        let mut data = vec![f32::NAN; BATCH * heads * capacity * COLUMNS];
        for (b, h) in (0..BATCH * heads).map(|at| (at / heads, at % heads)) {
            for (p, c) in (0..positions * COLUMNS).map(|at| (at / COLUMNS, at % COLUMNS)) {
                data[b * of_batch + h * of_head + p * of_position + c] =
                    number(seed + ((b * heads + h) * 1000 + p) * 10 + c);
            }
        }
        data
    }

    /// The result by head; `room` is for positions of the keys and values that are not there yet.
    fn run(op: &Attention, queries: usize, keys: usize, room: usize, mask: &[f32], mask_shape: [usize; 4]) -> Vec<f32> {
        let inputs = [
            value(op.queries, HEADS, queries, queries, 1),
            value(op.keys, KV_HEADS, keys, keys + room, 2),
            value(op.values, KV_HEADS, keys, keys + room, 3),
            mask.to_vec(),
        ];
        let shapes = Shapes {
            inputs: vec![
                shape(op.queries, HEADS, queries),
                shape(op.keys, KV_HEADS, keys),
                shape(op.values, KV_HEADS, keys),
                mask_shape.to_vec(),
            ],
            output: shape(op.output, HEADS, queries),
            parameters: Vec::new(),
        };
        let inputs: Vec<&[u8]> = inputs.iter().map(|input| bytemuck::cast_slice(input)).collect();
        let mut output = vec![0f32; BATCH * HEADS * queries * COLUMNS];
        let mut scratch = vec![0f32; op.scratch_bytes(&shapes) / 4];
        for unit in 0..op.units(&shapes) {
            let (output, scratch) = (bytemuck::cast_slice_mut(&mut output), bytemuck::cast_slice_mut(&mut scratch));
            op.run(Call { shapes: &shapes, inputs: &inputs, output, scratch, units: unit..unit + 1 }).unwrap();
        }
        let sizes = Sizes { batch: BATCH, heads: HEADS, positions: queries, columns: COLUMNS };
        let [of_batch, of_head, of_position] = op.output.strides(sizes, queries);
        let mut by_head = Vec::new();
        for (b, h, p) in
            (0..BATCH * HEADS * queries).map(|at| (at / HEADS / queries, at / queries % HEADS, at % queries))
        {
            by_head.extend_from_slice(&output[b * of_batch + h * of_head + p * of_position..][..COLUMNS]);
        }
        by_head
    }

    fn attention(queries: Axes, keys: Axes, output: Axes) -> Attention {
        Attention { scale: 0.4, softcap: 0.0, has_mask: true, nan_to_zero: false, queries, keys, values: keys, output }
    }

    fn causal(queries: usize, keys: usize) -> Vec<f32> {
        let sees = |at: usize| at % keys <= keys - queries + at / keys;
        (0..queries * keys).map(|at| if sees(at) { 0.0 } else { f32::MIN }).collect()
    }

    #[test]
    fn the_result_follows_the_definition_however_axes_lie() {
        use Axes::{ByHead, ByPosition};
        let (queries, keys) = (3, 7);
        let mask = causal(queries, keys);
        let plain = attention(ByHead, ByHead, ByHead);
        let result = run(&plain, queries, keys, 0, &mask, [1, 1, queries, keys]);
        for (at, row) in result.chunks(COLUMNS).enumerate() {
            let (b, h, q) = (at / HEADS / queries, at / queries % HEADS, at % queries);
            let kv = b * KV_HEADS + h / (HEADS / KV_HEADS);
            let of =
                |seed: usize, head: usize, p: usize, c: usize| f64::from(number(seed + (head * 1000 + p) * 10 + c));
            let weights: Vec<f64> = (0..keys)
                .map(|k| {
                    let product: f64 = (0..COLUMNS).map(|c| of(1, b * HEADS + h, q, c) * of(2, kv, k, c)).sum();
                    (product * 0.4 + f64::from(mask[q * keys + k])).exp()
                })
                .collect();
            let total: f64 = weights.iter().sum();
            for (c, got) in row.iter().enumerate() {
                let expected: f64 =
                    weights.iter().enumerate().map(|(k, weight)| weight * of(3, kv, k, c)).sum::<f64>() / total;
                assert!((f64::from(*got) - expected).abs() < 1e-5, "{got}, not {expected}");
            }
        }
        for op in [attention(ByPosition, ByHead, ByPosition), attention(ByHead, ByPosition, ByHead)] {
            assert_eq!(run(&op, queries, keys, 0, &mask, [1, 1, queries, keys]), result);
        }
        // Room behind the keys is not looked at.
        assert_eq!(run(&plain, queries, keys, 9, &mask, [1, 1, queries, keys]), result);
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_among_others() {
        let op = attention(Axes::ByPosition, Axes::ByHead, Axes::ByPosition);
        let keys = 140;
        let mask = causal(keys, keys);
        let all = run(&op, keys, keys, 0, &mask, [1, 1, keys, keys]);
        // The first query of all, which sees one key, is computed with one key.
        let first = run(&op, 1, 1, 3, &[0.0], [1, 1, 1, 1]);
        for head in 0..BATCH * HEADS {
            let (one, of_all) = (&first[head * COLUMNS..][..COLUMNS], &all[head * keys * COLUMNS..][..COLUMNS]);
            assert!(one.iter().zip(of_all).all(|(a, b)| a.to_bits() == b.to_bits()), "{one:?}, not {of_all:?}");
        }
    }

    #[test]
    fn a_query_that_sees_nothing_is_zero_where_that_is_asked_for() {
        let nan = attention(Axes::ByHead, Axes::ByHead, Axes::ByHead);
        let hidden = [f32::NEG_INFINITY; 4];
        assert!(run(&nan, 1, 4, 0, &hidden, [1, 1, 1, 4]).iter().all(|x| x.is_nan()));
        let zero = Attention { nan_to_zero: true, ..nan };
        assert!(run(&zero, 1, 4, 0, &hidden, [1, 1, 1, 4]).iter().all(|x| *x == 0.0));
        // One number of a mask for all keys.
        let (wide, narrow) = ([0.5; 8], [0.5; 2]);
        let op = attention(Axes::ByHead, Axes::ByHead, Axes::ByHead);
        assert_eq!(run(&op, 2, 4, 0, &wide, [1, 1, 2, 4]), run(&op, 2, 4, 0, &narrow, [1, 1, 2, 1]));
    }
}
