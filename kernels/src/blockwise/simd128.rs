//! WebAssembly bodies with 128-bit SIMD.
//!
//! As in [`crate::int8::simd128`], activations are kept in locals while weights stream by: two blocks of up to 8 rows, or
//! four blocks of a single one. The integer sum of a block and the f32 total of a row and four columns stay on the operand
//! stack; totals go through memory from one pass to the next.
//!
//! Of a byte b with two 4-bit weights, sign-extended, `b * a1 + (b & 15) * (16 a0 - a1)` is 16 times the sum of the two
//! products: the high weight need not be shifted, nor the low one taken out of it.

use super::{
    Activations, BLOCK, COLUMN_GROUP, INNER_BLOCK, INT4_ACTIVATION_LIMIT, INT4_PREPARED_BLOCK, Int4Weights,
    Int8Weights, Output, Rescale, Tile, block_number, check, padded_inner, prepared_inner,
};
use crate::int8::rescale::{Place, Scaling, write};
use crate::unroll::{Cursor, unroll};
use std::arch::wasm32::*;
use std::mem::MaybeUninit;

/// Rows computed together.
const ROWS: usize = 8;
/// Columns computed before the next rows are taken up: what bounds the memory of the totals.
const COLUMNS: usize = 1024;
/// Pairs of a block: as many dot products make the sum of a block, a row and four columns.
const PAIRS: usize = BLOCK / 2;
/// Bytes of a block and a group of int8 weights.
const INT8_BYTES: usize = BLOCK * COLUMN_GROUP;
/// Bytes of a block and a group of 4-bit weights.
const INT4_BYTES: usize = INT8_BYTES / 2;
/// Groups of eight bytes of a block and a group of 4-bit weights.
const EIGHTS: usize = INT4_BYTES / 8;
/// Bytes of the zero points of a block and a group.
const ZERO_POINT_BYTES: usize = 2 * COLUMN_GROUP;

/// Totals of up to [`ROWS`] rows and [`COLUMNS`] columns, in the order `[group of columns][row][column]`.
struct Totals([MaybeUninit<f32>; ROWS * COLUMNS]);

impl Totals {
    /// Sets the first vectors to 0. Not by `fill`, which the compiler makes a `memory.fill`, four times as dear.
    fn clear(&mut self, vectors: usize) {
        #[repr(align(16))]
        struct Aligned(#[expect(dead_code, reason = "read as a vector")] [f32; 4]);
        static ZEROS: Aligned = Aligned([0.0; 4]);
        // SAFETY: a vector is 16 bytes; it is read so that the compiler does not know what it is.
        let zeros = unsafe { (&raw const ZEROS).cast::<v128>().read_volatile() };
        for vector in self.0.as_chunks_mut::<4>().0.iter_mut().take(vectors) {
            // SAFETY: `vector` is 16 bytes, and any bytes are a value of it.
            unsafe { v128_store(vector.as_mut_ptr().cast(), zeros) }
        }
    }
}

/// What a kernel reads and writes besides the activations; the pointers are those of the first group.
#[derive(Clone, Copy)]
struct Operands {
    /// Weights, `weights_step` bytes from a group's to the next one's.
    weights: *const i8,
    weights_step: usize,
    /// Scales, `scales_step` values from a group's to the next one's.
    scales: *const f32,
    scales_step: usize,
    /// Zero points, where there are any, [`ZERO_POINT_BYTES`] for each four scales.
    zero_points: *const i8,
    totals: *mut f32,
    groups: usize,
}

#[inline(always)]
fn add_block(total: v128, sum: v128, scales: v128) -> v128 {
    f32x4_add(total, f32x4_mul(f32x4_convert_i32x4(sum), scales))
}

/// Adds BLOCKS blocks of int8 weights to the totals of MR rows.
///
/// # Safety
/// MR rows of `32 * BLOCKS` values, `stride` apart, are readable at `a`; BLOCKS blocks of weights and scales of each of the
/// `groups` > 0 groups are readable, `4 * MR` totals of each readable and writable.
#[inline(never)]
unsafe fn int8_rows<const MR: usize, const BLOCKS: usize>(a: *const i16, stride: usize, operands: &Operands) {
    let Operands { weights, weights_step, scales, scales_step, totals, groups, .. } = *operands;
    // SAFETY: all offsets are within what the caller promises.
    unsafe {
        let mut values = [[[i32x4_splat(0); PAIRS]; BLOCKS]; MR];
        unroll!(R in 8 {
            if R < MR {
                let row = a.add(R * stride);
                unroll!(B in 2 {
                    if B < BLOCKS {
                        unroll!(U in 16 {
                            values[R][B][U] = v128_load32_splat(row.add(B * BLOCK + 2 * U).cast());
                        });
                    }
                });
            }
        });
        let (mut b, mut s, mut c) = (weights, scales, totals);
        let (mut b_cursor, mut s_cursor) = (Cursor::new(b), Cursor::new(s));
        let mut c_cursor = Cursor::new(c.cast_const());
        let end = c.add(groups * COLUMN_GROUP * MR);
        loop {
            let mut weights = [[i32x4_splat(0); PAIRS]; BLOCKS];
            let mut scales = [f32x4_splat(0.0); BLOCKS];
            unroll!(R in 8 {
                if R < MR {
                    let mut total = v128_load(c.add(4 * R).cast());
                    unroll!(B in 2 {
                        if B < BLOCKS {
                            let mut sum = i32x4_splat(0);
                            unroll!(U in 16 {
                                if R == 0 {
                                    weights[B][U] = i16x8_load_extend_i8x8(b.add(B * INT8_BYTES + 8 * U));
                                }
                                let dot = i32x4_dot_i16x8(values[R][B][U], weights[B][U]);
                                sum = if U == 0 { dot } else { i32x4_add(sum, dot) };
                            });
                            if R == 0 {
                                scales[B] = v128_load(s.add(B * COLUMN_GROUP).cast());
                            }
                            total = add_block(total, sum, scales[B]);
                        }
                    });
                    v128_store(c.add(4 * R).cast(), total);
                }
            });
            b = b_cursor.advance(b, weights_step);
            s = s_cursor.advance(s, scales_step);
            c = c_cursor.advance(c, COLUMN_GROUP * MR).cast_mut();
            if c == end {
                break;
            }
        }
    }
}

/// All groups of a row, four at a time after the odd ones: `$group!(n)` is the group n further, `$advance!(n)` goes n on.
macro_rules! all_groups {
    ($groups:ident, $at:ident, $end:ident, $group:ident, $advance:ident) => {
        for _ in 0..$groups % 4 {
            $group!(0);
            $advance!(1);
        }
        while $at != $end {
            $group!(0);
            $group!(1);
            $group!(2);
            $group!(3);
            $advance!(4);
        }
    };
}

/// The same for one row.
///
/// # Safety
/// As for [`int8_rows`] with MR = 1; the blocks of a group follow those of the one before.
#[inline(never)]
unsafe fn int8_row<const BLOCKS: usize>(a: *const i16, operands: &Operands) {
    let Operands { weights, scales, totals, groups, .. } = *operands;
    // SAFETY: all offsets are within what the caller promises.
    unsafe {
        let mut values = [[i32x4_splat(0); PAIRS]; BLOCKS];
        unroll!(B in 4 {
            if B < BLOCKS {
                unroll!(U in 16 {
                    values[B][U] = v128_load32_splat(a.add(B * BLOCK + 2 * U).cast());
                });
            }
        });
        let (mut b, mut s, mut c) = (weights, scales, totals);
        let (mut b_cursor, mut s_cursor) = (Cursor::new(b), Cursor::new(s));
        let mut c_cursor = Cursor::new(c.cast_const());
        let end = c.add(groups * COLUMN_GROUP);
        macro_rules! group {
            ($number:literal) => {{
                let mut total = v128_load(c.add(4 * $number).cast());
                unroll!(B in 4 {
                    if B < BLOCKS {
                        let mut sum = i32x4_splat(0);
                        unroll!(U in 16 {
                            let weights = b.add(($number * BLOCKS + B) * INT8_BYTES + 8 * U);
                            let dot = i32x4_dot_i16x8(values[B][U], i16x8_load_extend_i8x8(weights));
                            sum = if U == 0 { dot } else { i32x4_add(sum, dot) };
                        });
                        let scales = v128_load(s.add(($number * BLOCKS + B) * COLUMN_GROUP).cast());
                        total = add_block(total, sum, scales);
                    }
                });
                v128_store(c.add(4 * $number).cast(), total);
            }};
        }
        macro_rules! advance {
            ($groups:literal) => {{
                b = b_cursor.advance(b, $groups * BLOCKS * INT8_BYTES);
                s = s_cursor.advance(s, $groups * BLOCKS * COLUMN_GROUP);
                c = c_cursor.advance(c, $groups * COLUMN_GROUP).cast_mut();
            }};
        }
        all_groups!(groups, c, end, group, advance);
    }
}

/// A block of prepared activations in locals.
#[derive(Clone, Copy)]
struct Prepared {
    values: [v128; PAIRS],
    start: v128,
    minus_sums: v128,
}

impl Prepared {
    const ZERO: Prepared =
        Prepared { values: [i32x4(0, 0, 0, 0); PAIRS], start: i32x4(0, 0, 0, 0), minus_sums: i32x4(0, 0, 0, 0) };

    /// # Safety
    /// [`INT4_PREPARED_BLOCK`] values are readable.
    #[inline(always)]
    unsafe fn load(block: *const i16) -> Self {
        let mut prepared = Self::ZERO;
        // SAFETY: the offsets are within a prepared block.
        unsafe {
            unroll!(U in 16 {
                prepared.values[U] = v128_load32_splat(block.add(2 * U).cast());
            });
            prepared.start = v128_load32_splat(block.add(BLOCK).cast());
            prepared.minus_sums = v128_load32_splat(block.add(BLOCK + 2).cast());
        }
        prepared
    }
}

/// Adds BLOCKS blocks of 4-bit weights to the totals of MR rows; ZERO: whether there are zero points.
///
/// # Safety
/// MR rows of BLOCKS prepared blocks, `stride` apart, are readable at `a`; BLOCKS blocks of weights and scales (and zero
/// points) of each of the `groups` > 0 groups are readable, `4 * MR` totals of each readable and writable.
#[inline(never)]
unsafe fn int4_rows<const MR: usize, const BLOCKS: usize, const ZERO: bool>(
    a: *const i16,
    stride: usize,
    operands: &Operands,
) {
    let Operands { weights, weights_step, scales, scales_step, zero_points, totals, groups, .. } = *operands;
    // SAFETY: all offsets are within what the caller promises.
    unsafe {
        let mut values = [[Prepared::ZERO; BLOCKS]; MR];
        unroll!(R in 8 {
            if R < MR {
                let row = a.add(R * stride);
                unroll!(B in 2 {
                    if B < BLOCKS {
                        values[R][B] = Prepared::load(row.add(B * INT4_PREPARED_BLOCK));
                    }
                });
            }
        });
        let mask = i16x8_splat(15);
        let (mut b, mut s, mut z, mut c) = (weights, scales, zero_points, totals);
        let (mut b_cursor, mut s_cursor, mut z_cursor) = (Cursor::new(b), Cursor::new(s), Cursor::new(z));
        let mut c_cursor = Cursor::new(c.cast_const());
        let end = c.add(groups * COLUMN_GROUP * MR);
        loop {
            let mut low = [[i32x4_splat(0); EIGHTS]; BLOCKS];
            let mut both = [[i32x4_splat(0); EIGHTS]; BLOCKS];
            let mut scales = [f32x4_splat(0.0); BLOCKS];
            let mut zeros = [i32x4_splat(0); BLOCKS];
            unroll!(R in 8 {
                if R < MR {
                    let mut total = v128_load(c.add(4 * R).cast());
                    unroll!(B in 2 {
                        if B < BLOCKS {
                            let mut sum = values[R][B].start;
                            unroll!(U in 8 {
                                if R == 0 {
                                    both[B][U] = i16x8_load_extend_i8x8(b.add(B * INT4_BYTES + 8 * U));
                                    low[B][U] = v128_and(both[B][U], mask);
                                }
                                sum = i32x4_add(sum, i32x4_dot_i16x8(low[B][U], values[R][B].values[2 * U]));
                                sum = i32x4_add(sum, i32x4_dot_i16x8(both[B][U], values[R][B].values[2 * U + 1]));
                            });
                            if ZERO {
                                if R == 0 {
                                    zeros[B] = i16x8_load_extend_i8x8(z.add(B * ZERO_POINT_BYTES));
                                }
                                sum = i32x4_add(sum, i32x4_dot_i16x8(zeros[B], values[R][B].minus_sums));
                            }
                            if R == 0 {
                                scales[B] = v128_load(s.add(B * COLUMN_GROUP).cast());
                            }
                            total = add_block(total, sum, scales[B]);
                        }
                    });
                    v128_store(c.add(4 * R).cast(), total);
                }
            });
            b = b_cursor.advance(b, weights_step);
            s = s_cursor.advance(s, scales_step);
            if ZERO {
                z = z_cursor.advance(z, scales_step / COLUMN_GROUP * ZERO_POINT_BYTES);
            }
            c = c_cursor.advance(c, COLUMN_GROUP * MR).cast_mut();
            if c == end {
                break;
            }
        }
    }
}

/// The same for one row.
///
/// # Safety
/// As for [`int4_rows`] with MR = 1; the blocks of a group follow those of the one before.
#[inline(never)]
unsafe fn int4_row<const BLOCKS: usize, const ZERO: bool>(a: *const i16, operands: &Operands) {
    let Operands { weights, scales, zero_points, totals, groups, .. } = *operands;
    // SAFETY: all offsets are within what the caller promises.
    unsafe {
        let mut values = [Prepared::ZERO; BLOCKS];
        unroll!(B in 4 {
            if B < BLOCKS {
                values[B] = Prepared::load(a.add(B * INT4_PREPARED_BLOCK));
            }
        });
        let mask = i16x8_splat(15);
        let (mut b, mut s, mut z, mut c) = (weights, scales, zero_points, totals);
        let (mut b_cursor, mut s_cursor, mut z_cursor) = (Cursor::new(b), Cursor::new(s), Cursor::new(z));
        let mut c_cursor = Cursor::new(c.cast_const());
        let end = c.add(groups * COLUMN_GROUP);
        macro_rules! group {
            ($number:literal) => {{
                let mut total = v128_load(c.add(4 * $number).cast());
                unroll!(B in 4 {
                    if B < BLOCKS {
                        let mut sum = values[B].start;
                        unroll!(U in 8 {
                            let both = i16x8_load_extend_i8x8(b.add(($number * BLOCKS + B) * INT4_BYTES + 8 * U));
                            sum = i32x4_add(sum, i32x4_dot_i16x8(v128_and(both, mask), values[B].values[2 * U]));
                            sum = i32x4_add(sum, i32x4_dot_i16x8(both, values[B].values[2 * U + 1]));
                        });
                        if ZERO {
                            let zeros = i16x8_load_extend_i8x8(z.add(($number * BLOCKS + B) * ZERO_POINT_BYTES));
                            sum = i32x4_add(sum, i32x4_dot_i16x8(zeros, values[B].minus_sums));
                        }
                        let scales = v128_load(s.add(($number * BLOCKS + B) * COLUMN_GROUP).cast());
                        total = add_block(total, sum, scales);
                    }
                });
                v128_store(c.add(4 * $number).cast(), total);
            }};
        }
        macro_rules! advance {
            ($groups:literal) => {{
                b = b_cursor.advance(b, $groups * BLOCKS * INT4_BYTES);
                s = s_cursor.advance(s, $groups * BLOCKS * COLUMN_GROUP);
                if ZERO {
                    z = z_cursor.advance(z, $groups * BLOCKS * ZERO_POINT_BYTES);
                }
                c = c_cursor.advance(c, $groups * COLUMN_GROUP).cast_mut();
            }};
        }
        all_groups!(groups, c, end, group, advance);
    }
}

/// Adds `blocks` blocks, at most four, of int8 weights to the totals of MR rows.
///
/// # Safety
/// As for [`int8_rows`].
unsafe fn int8_blocks<const MR: usize>(blocks: usize, a: *const i16, stride: usize, operands: Operands) {
    // SAFETY: as promised by the caller; blocks 2 and 3 are behind blocks 0 and 1 of the same group.
    unsafe {
        if MR == 1 {
            return match blocks {
                1 => int8_row::<1>(a, &operands),
                2 => int8_row::<2>(a, &operands),
                3 => int8_row::<3>(a, &operands),
                _ => int8_row::<4>(a, &operands),
            };
        }
        match blocks {
            1 => int8_rows::<MR, 1>(a, stride, &operands),
            _ => int8_rows::<MR, 2>(a, stride, &operands),
        }
        let operands = Operands {
            weights: operands.weights.wrapping_add(2 * INT8_BYTES),
            scales: operands.scales.wrapping_add(2 * COLUMN_GROUP),
            ..operands
        };
        let a = a.wrapping_add(2 * BLOCK);
        match blocks {
            0..=2 => {}
            3 => int8_rows::<MR, 1>(a, stride, &operands),
            _ => int8_rows::<MR, 2>(a, stride, &operands),
        }
    }
}

/// The same of 4-bit weights.
///
/// # Safety
/// As for [`int4_rows`].
unsafe fn int4_blocks<const MR: usize, const ZERO: bool>(
    blocks: usize,
    a: *const i16,
    stride: usize,
    operands: Operands,
) {
    // SAFETY: as promised by the caller; blocks 2 and 3 are behind blocks 0 and 1 of the same group.
    unsafe {
        if MR == 1 {
            return match blocks {
                1 => int4_row::<1, ZERO>(a, &operands),
                2 => int4_row::<2, ZERO>(a, &operands),
                3 => int4_row::<3, ZERO>(a, &operands),
                _ => int4_row::<4, ZERO>(a, &operands),
            };
        }
        match blocks {
            1 => int4_rows::<MR, 1, ZERO>(a, stride, &operands),
            _ => int4_rows::<MR, 2, ZERO>(a, stride, &operands),
        }
        let operands = Operands {
            weights: operands.weights.wrapping_add(2 * INT4_BYTES),
            scales: operands.scales.wrapping_add(2 * COLUMN_GROUP),
            zero_points: operands.zero_points.wrapping_add(2 * ZERO_POINT_BYTES),
            ..operands
        };
        let a = a.wrapping_add(2 * INT4_PREPARED_BLOCK);
        match blocks {
            0..=2 => {}
            3 => int4_rows::<MR, 1, ZERO>(a, stride, &operands),
            _ => int4_rows::<MR, 2, ZERO>(a, stride, &operands),
        }
    }
}

/// Computes a product part by part. `add` adds the blocks of up to 128 inner values, whose first one is `block_number`, to
/// the totals of 8, 4, 2 or 1 rows.
#[inline(always)]
fn product(
    (k, n): (usize, usize),
    activations: Activations<'_>,
    (block_values, scales): (usize, &[f32]),
    rescale: Rescale<'_>,
    tile: Tile,
    mut output: Output<'_, f32>,
    add: impl Fn(usize, usize, usize, *const i16, Operands),
) {
    const PER_OUTER: usize = INNER_BLOCK / BLOCK;
    let blocks = k.div_ceil(BLOCK);
    let scaling = Scaling { row_scales: rescale.row_scales, column_scales: None, bias: rescale.bias };
    let mut totals = Totals([MaybeUninit::uninit(); ROWS * COLUMNS]);
    for first_column in tile.columns.clone().step_by(COLUMNS) {
        let end = tile.columns.end.min(first_column + COLUMNS);
        let groups = first_column / COLUMN_GROUP..end.div_ceil(COLUMN_GROUP);
        let mut first_row = tile.rows.start;
        while first_row < tile.rows.end {
            let left = tile.rows.end - first_row;
            let rows = [8, 4, 2, 1].into_iter().find(|rows| *rows <= left).unwrap_or(1);
            // Kernels only add: half as many of them as with others that begin.
            totals.clear(rows * groups.len());
            for first_block in (0..blocks).step_by(PER_OUTER) {
                let number = block_number(k, n, first_block, groups.start);
                let count = (blocks - first_block).min(PER_OUTER);
                let operands = Operands {
                    weights: std::ptr::null(),
                    weights_step: 0,
                    scales: scales[number * COLUMN_GROUP..].as_ptr(),
                    scales_step: count * COLUMN_GROUP,
                    zero_points: std::ptr::null(),
                    totals: totals.0.as_mut_ptr().cast(),
                    groups: groups.len(),
                };
                let start = first_row * activations.stride + first_block * block_values;
                add(rows, count, number, activations.values[start..].as_ptr(), operands);
            }
            let place = Place { rows: first_row..first_row + rows, groups: groups.clone(), end: tile.columns.end };
            // SAFETY: the totals have been stored; `check` made sure of the rest.
            unsafe { write::<false>(totals.0.as_ptr().cast(), scaling, &place, &mut output) }
            first_row += rows;
        }
    }
}

/// See [`super::naive::gemm_int8`].
///
/// # Panics
/// If a slice is too short for the tile.
pub fn gemm_int8(
    activations: Activations<'_>,
    weights: Int8Weights<'_>,
    rescale: Rescale<'_>,
    tile: Tile,
    output: Output<'_, f32>,
) {
    let (shape, stride) = ((weights.k, weights.n), activations.stride);
    check(&activations, padded_inner(weights.k), weights.n, &rescale, &tile, &output);
    let blocks = (BLOCK, weights.scales);
    product(shape, activations, blocks, rescale, tile, output, |rows, count, number, a, operands| {
        let weights = weights.packed[number * INT8_BYTES..].as_ptr();
        let operands = Operands { weights, weights_step: count * INT8_BYTES, ..operands };
        // SAFETY: `check` made sure that the rows are there; blocks and groups are within the weights and scales.
        unsafe {
            match rows {
                8 => int8_blocks::<8>(count, a, stride, operands),
                4 => int8_blocks::<4>(count, a, stride, operands),
                2 => int8_blocks::<2>(count, a, stride, operands),
                _ => int8_blocks::<1>(count, a, stride, operands),
            }
        }
    });
}

/// See [`super::naive::gemm_int4`].
///
/// # Panics
/// If a slice is too short for the tile.
pub fn gemm_int4(
    activations: Activations<'_>,
    weights: Int4Weights<'_>,
    rescale: Rescale<'_>,
    tile: Tile,
    output: Output<'_, f32>,
) {
    let (shape, stride) = ((weights.k, weights.n), activations.stride);
    check(&activations, prepared_inner(weights.k), weights.n, &rescale, &tile, &output);
    let blocks = (INT4_PREPARED_BLOCK, weights.scales);
    product(shape, activations, blocks, rescale, tile, output, |rows, count, number, a, operands| {
        let packed = weights.packed[number * INT4_BYTES..].as_ptr();
        let operands = Operands { weights: packed, weights_step: count * INT4_BYTES, ..operands };
        let Some(zero_points) = weights.zero_points else {
            // SAFETY: `check` made sure that the rows are there; blocks and groups are within the weights and scales.
            return unsafe {
                match rows {
                    8 => int4_blocks::<8, false>(count, a, stride, operands),
                    4 => int4_blocks::<4, false>(count, a, stride, operands),
                    2 => int4_blocks::<2, false>(count, a, stride, operands),
                    _ => int4_blocks::<1, false>(count, a, stride, operands),
                }
            };
        };
        let zero_points = zero_points[number * ZERO_POINT_BYTES..].as_ptr();
        let operands = Operands { zero_points, ..operands };
        // SAFETY: as above, and there are zero points for all scales.
        unsafe {
            match rows {
                8 => int4_blocks::<8, true>(count, a, stride, operands),
                4 => int4_blocks::<4, true>(count, a, stride, operands),
                2 => int4_blocks::<2, true>(count, a, stride, operands),
                _ => int4_blocks::<1, true>(count, a, stride, operands),
            }
        }
    });
}

/// See [`super::naive::prepare_int4`].
///
/// # Panics
/// If `output` is not [`prepared_inner`] of the row's length, or a value is too large.
pub fn prepare_int4(row: &[i16], output: &mut [i16]) {
    assert_eq!(output.len(), prepared_inner(row.len()), "prepared row of {}", row.len());
    let (blocks, rest) = row.as_chunks::<BLOCK>();
    let (mut least, mut largest) = (i16x8_splat(0), i16x8_splat(0));
    let factors = i16x8(16, 16, 1, 1, 16, 16, 1, 1);
    let mut prepare = |block: &[i16; BLOCK], output: &mut [i16; INT4_PREPARED_BLOCK]| {
        let mut sums = i32x4_splat(0);
        for eight in 0..BLOCK / 8 {
            // SAFETY: eight of the block's values, and as many of the prepared block's.
            unsafe {
                let values = v128_load(block.as_ptr().add(8 * eight).cast());
                (least, largest) = (i16x8_min(least, values), i16x8_max(largest, values));
                sums = i32x4_add(sums, i32x4_dot_i16x8(values, i16x8_splat(1)));
                let prepared = i16x8_sub(i16x8_mul(values, factors), u64x2_shr(values, 32));
                v128_store(output.as_mut_ptr().add(8 * eight).cast(), prepared);
            }
        }
        let low = i32x4_extract_lane::<0>(sums) + i32x4_extract_lane::<2>(sums);
        let high = i32x4_extract_lane::<1>(sums) + i32x4_extract_lane::<3>(sums);
        let start = -128 * low;
        output[BLOCK..].copy_from_slice(&[start as i16, (start >> 16) as i16, -low as i16, -high as i16]);
    };
    let (prepared, _) = output.as_chunks_mut::<INT4_PREPARED_BLOCK>();
    for (block, prepared) in blocks.iter().zip(&mut *prepared) {
        prepare(block, prepared);
    }
    if let (false, Some(prepared)) = (rest.is_empty(), prepared.last_mut()) {
        let mut block = [0; BLOCK];
        block[..rest.len()].copy_from_slice(rest);
        prepare(&block, prepared);
    }
    let limit = INT4_ACTIVATION_LIMIT;
    let beyond = v128_or(i16x8_lt(least, i16x8_splat(-limit)), i16x8_gt(largest, i16x8_splat(limit)));
    assert!(!v128_any_true(beyond), "an activation beyond {limit}");
}

/// Packs a block of four columns: of two bytes, which have the weights of four rows, the inner halves change places; then
/// pairs of bytes are transposed.
pub(super) fn pack_int4_block(bytes: &[[u8; BLOCK / 2]; COLUMN_GROUP], target: &mut [i8; INT4_BYTES]) {
    let arrange = |bytes: &[u8; BLOCK / 2]| {
        // SAFETY: 16 bytes.
        let bytes = unsafe { v128_load(bytes.as_ptr().cast()) };
        let outer = v128_and(bytes, u16x8_splat(0xf00f));
        let up = u16x8_shl(v128_and(bytes, u16x8_splat(0x00f0)), 4);
        let down = u16x8_shr(v128_and(bytes, u16x8_splat(0x0f00)), 4);
        v128_xor(v128_or(outer, v128_or(up, down)), u16x8_splat(0x8080))
    };
    let [a, b, c, d] = [arrange(&bytes[0]), arrange(&bytes[1]), arrange(&bytes[2]), arrange(&bytes[3])];
    let low = [i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(a, b), i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(c, d)];
    let high = [i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(a, b), i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(c, d)];
    let to = target.as_mut_ptr();
    // SAFETY: 64 bytes.
    unsafe {
        v128_store(to.cast(), i32x4_shuffle::<0, 4, 1, 5>(low[0], low[1]));
        v128_store(to.add(16).cast(), i32x4_shuffle::<2, 6, 3, 7>(low[0], low[1]));
        v128_store(to.add(32).cast(), i32x4_shuffle::<0, 4, 1, 5>(high[0], high[1]));
        v128_store(to.add(48).cast(), i32x4_shuffle::<2, 6, 3, 7>(high[0], high[1]));
    }
}

/// See [`super::naive::widen_int4`].
pub fn widen_int4(bytes: &[u8], less: u8, output: &mut [u8]) {
    assert_eq!(Some(output.len()), bytes.len().checked_mul(2), "{} bytes of 4-bit weights", bytes.len());
    let (less_of, low) = (u8x16_splat(less), u8x16_splat(15));
    let whole = bytes.len() / 16 * 16;
    for at in (0..whole).step_by(16) {
        // SAFETY: 16 bytes are read and 32 written, twice as far on; both lengths were compared.
        unsafe {
            let bytes = v128_load(bytes.as_ptr().add(at).cast());
            let first = i8x16_sub(v128_and(bytes, low), less_of);
            let second = i8x16_sub(u8x16_shr(bytes, 4), less_of);
            let to = output.as_mut_ptr().add(2 * at);
            let lower = i8x16_shuffle::<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(first, second);
            let upper = i8x16_shuffle::<8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(first, second);
            v128_store(to.cast(), lower);
            v128_store(to.add(16).cast(), upper);
        }
    }
    super::naive::widen_int4(&bytes[whole..], less, &mut output[2 * whole..]);
}

/// See [`super::naive::recentre_int4`].
///
/// # Panics
/// If `output` is not twice as long as `bytes`.
pub fn recentre_int4(bytes: &[u8], scale: f32, zero_point: f32, output: &mut [u8]) -> f32 {
    assert_eq!(Some(output.len()), bytes.len().checked_mul(2), "{} bytes of 4-bit weights", bytes.len());
    let range = super::naive::recentred_range(scale, zero_point);
    let (Ok((largest, factor)), (pieces, [])) = (range, bytes.as_chunks::<16>()) else {
        return super::naive::recentre_int4(bytes, scale, zero_point, output);
    };
    let (scales, zero_points, factors) = (f32x4_splat(scale), f32x4_splat(zero_point), f32x4_splat(factor));
    let four = |weights: v128| {
        let levels = f32x4_mul(f32x4_mul(f32x4_sub(weights, zero_points), scales), factors);
        i32x4_trunc_sat_f32x4(f32x4_nearest(levels))
    };
    let levels = i8x16_narrow_i16x8(
        i16x8_narrow_i32x4(four(f32x4(0.0, 1.0, 2.0, 3.0)), four(f32x4(4.0, 5.0, 6.0, 7.0))),
        i16x8_narrow_i32x4(four(f32x4(8.0, 9.0, 10.0, 11.0)), four(f32x4(12.0, 13.0, 14.0, 15.0))),
    );
    for (piece, output) in pieces.iter().zip(output.as_chunks_mut::<32>().0) {
        // SAFETY: 16 bytes are read and 32 written.
        unsafe {
            let weights = v128_load(piece.as_ptr().cast());
            let first = i8x16_swizzle(levels, v128_and(weights, u8x16_splat(15)));
            let second = i8x16_swizzle(levels, u8x16_shr(weights, 4));
            let lower = i8x16_shuffle::<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(first, second);
            let upper = i8x16_shuffle::<8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(first, second);
            let to: *mut v128 = output.as_mut_ptr().cast();
            v128_store(to, lower);
            v128_store(to.add(1), upper);
        }
    }
    largest / 127.0
}
