//! WebAssembly bodies with 128-bit SIMD.
//!
//! One dot product takes a pair of activations of a row, splatted, and the pairs of weights of four columns: two operands,
//! the product and an addition are 4 instructions for 8 products. Activations of up to 8 rows and 64 inner values are kept
//! in locals while the weights of all columns stream by, each widened once for all rows; the sum of a row and four columns
//! stays on the operand stack until its 64 products are in. Sums go through memory from one 64 to the next. A single row
//! keeps 128 activations and takes its weights straight from memory.

use super::rescale::{self, Place, Scaling};
use super::{
    Activations, COLUMN_GROUP, INNER_BLOCK, Output, Requantise, Rescale, SEGMENT, Source, Tile, Weights, check,
    padded_inner,
};
use crate::unroll::{Cursor, unroll};
use std::arch::wasm32::*;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Rows computed together.
const ROWS: usize = 8;
/// Columns computed before the next rows are taken up: what bounds the memory of the sums.
const COLUMNS: usize = 1024;
/// Inner values whose activations several rows keep in locals.
const INNER: usize = 64;

/// Sums of up to [`ROWS`] rows and [`COLUMNS`] columns, in the order `[group of columns][row][column]`.
struct Sums([MaybeUninit<i32>; ROWS * COLUMNS]);

impl Sums {
    fn new() -> Self {
        Self([MaybeUninit::uninit(); ROWS * COLUMNS])
    }
}

/// Adds (or, the first time, stores) the sums of MR rows over `2 * KU` inner values, for `groups` > 0 groups of columns.
///
/// # Safety
/// MR rows of `2 * KU` values, `stride` apart, are readable at `a`; `8 * KU` bytes every `step` bytes at `b`, `groups`
/// times; `4 * MR` values times `groups` readable, unless FIRST, and writable at `c`.
#[inline(never)]
unsafe fn rows<const MR: usize, const KU: usize, const FIRST: bool>(
    a: *const i16,
    stride: usize,
    b: *const i8,
    step: usize,
    c: *mut i32,
    groups: usize,
) {
    // SAFETY: all offsets are within what the caller promises.
    unsafe {
        let mut values = [[i32x4_splat(0); KU]; MR];
        unroll!(R in 8 {
            if R < MR {
                let row = a.add(R * stride);
                unroll!(U in 32 {
                    if U < KU {
                        values[R][U] = v128_load32_splat(row.add(2 * U).cast());
                    }
                });
            }
        });
        let (mut b, mut c) = (b, c);
        let (mut b_cursor, mut c_cursor) = (Cursor::new(b), Cursor::new(c.cast_const()));
        let end = c.add(groups * COLUMN_GROUP * MR);
        loop {
            let mut weights = [i32x4_splat(0); KU];
            unroll!(R in 8 {
                if R < MR {
                    let mut sum = i32x4_splat(0);
                    unroll!(U in 32 {
                        if U < KU {
                            if R == 0 {
                                weights[U] = i16x8_load_extend_i8x8(b.add(8 * U));
                            }
                            let dot = i32x4_dot_i16x8(values[R][U], weights[U]);
                            sum = match (U, FIRST) {
                                (0, true) => dot,
                                (0, false) => i32x4_add(v128_load(c.add(4 * R).cast()), dot),
                                _ => i32x4_add(sum, dot),
                            };
                        }
                    });
                    v128_store(c.add(4 * R).cast(), sum);
                }
            });
            b = b_cursor.advance(b, step);
            c = c_cursor.advance(c, COLUMN_GROUP * MR).cast_mut();
            if c == end {
                break;
            }
        }
    }
}

/// The same for one row and up to 128 inner values, whose weights are `8 * KU` consecutive bytes a group.
///
/// # Safety
/// As for [`rows`] with MR = 1 and `step = 8 * KU`.
#[inline(never)]
unsafe fn row<const KU: usize, const FIRST: bool>(a: *const i16, b: *const i8, c: *mut i32, groups: usize) {
    // SAFETY: all offsets are within what the caller promises.
    unsafe {
        let mut values = [i32x4_splat(0); KU];
        unroll!(U in 64 {
            if U < KU {
                values[U] = v128_load32_splat(a.add(2 * U).cast());
            }
        });
        let (mut b, mut c) = (b, c);
        let (mut b_cursor, mut c_cursor) = (Cursor::new(b), Cursor::new(c.cast_const()));
        let end = c.add(groups * COLUMN_GROUP);
        macro_rules! group {
            ($number:literal) => {{
                let mut sum = i32x4_splat(0);
                unroll!(U in 64 {
                    if U < KU {
                        let dot = i32x4_dot_i16x8(values[U], i16x8_load_extend_i8x8(b.add(8 * (KU * $number + U))));
                        sum = match (U, FIRST) {
                            (0, true) => dot,
                            (0, false) => i32x4_add(v128_load(c.add(4 * $number).cast()), dot),
                            _ => i32x4_add(sum, dot),
                        };
                    }
                });
                v128_store(c.add(4 * $number).cast(), sum);
            }};
        }
        for _ in 0..groups % 4 {
            group!(0);
            b = b_cursor.advance(b, 8 * KU);
            c = c_cursor.advance(c, COLUMN_GROUP).cast_mut();
        }
        while c != end {
            group!(0);
            group!(1);
            group!(2);
            group!(3);
            b = b_cursor.advance(b, 32 * KU);
            c = c_cursor.advance(c, 4 * COLUMN_GROUP).cast_mut();
        }
    }
}

/// Where the requantised values of [`ROWS`] rows go, and how they are made.
#[derive(Clone, Copy)]
struct Requantised {
    multipliers: *const f32,
    bias: *const i32,
    low: i16,
    high: i16,
    output: *mut i16,
    stride: usize,
}

/// Completes the sums of 8 rows with their last `2 * KU` inner values and requantises them, two groups of columns at a time.
///
/// # Safety
/// As for [`rows`] with MR = [`ROWS`], `groups` being a multiple of 2; multipliers and biases are readable, and 8 rows of the
/// output writable, for the groups.
#[inline(never)]
unsafe fn rows_requantised<const KU: usize, const FIRST: bool>(
    a: *const i16,
    stride: usize,
    b: *const i8,
    step: usize,
    c: *const i32,
    groups: usize,
    to: &Requantised,
) {
    // SAFETY: all offsets are within what the caller promises.
    unsafe {
        let mut values = [[i32x4_splat(0); KU]; ROWS];
        let mut places = [to.output; ROWS];
        unroll!(R in 8 {
            let row = a.add(R * stride);
            places[R] = to.output.add(R * to.stride);
            unroll!(U in 32 {
                if U < KU {
                    values[R][U] = v128_load32_splat(row.add(2 * U).cast());
                }
            });
        });
        let (low, high) = (i16x8_splat(to.low), i16x8_splat(to.high));
        let (mut b, mut c, mut multipliers, mut bias) = (b, c, to.multipliers, to.bias);
        let (mut b_cursor, mut c_cursor) = (Cursor::new(b), Cursor::new(c));
        // Bytes from a row's first value to the current one.
        let mut offset = 0;
        while offset < groups * COLUMN_GROUP * size_of::<i16>() {
            let second_b = b.add(step);
            let mut weights = [[i32x4_splat(0); KU]; 2];
            let grid = [
                (v128_load(multipliers.cast()), v128_load(bias.cast())),
                (v128_load(multipliers.add(4).cast()), v128_load(bias.add(4).cast())),
            ];
            unroll!(R in 8 {
                let mut halves = [i32x4_splat(0); 2];
                unroll!(G in 2 {
                    let mut sum = i32x4_splat(0);
                    unroll!(U in 32 {
                        if U < KU {
                            if R == 0 {
                                let b = if G == 0 { b } else { second_b };
                                weights[G][U] = i16x8_load_extend_i8x8(b.add(8 * U));
                            }
                            let dot = i32x4_dot_i16x8(values[R][U], weights[G][U]);
                            sum = match (U, FIRST) {
                                (0, true) => dot,
                                (0, false) => {
                                    i32x4_add(v128_load(c.add(4 * R + COLUMN_GROUP * ROWS * G).cast()), dot)
                                }
                                _ => i32x4_add(sum, dot),
                            };
                        }
                    });
                    halves[G] = requantise_lanes(sum, grid[G].1, grid[G].0);
                });
                let both = i16x8_narrow_i32x4(halves[0], halves[1]);
                v128_store(places[R].wrapping_byte_add(offset).cast(), i16x8_min(i16x8_max(both, low), high));
            });
            b = b_cursor.advance(b, 2 * step);
            if !FIRST {
                c = c_cursor.advance(c, 2 * COLUMN_GROUP * ROWS);
            }
            multipliers = multipliers.add(2 * COLUMN_GROUP);
            bias = bias.add(2 * COLUMN_GROUP);
            offset += 2 * COLUMN_GROUP * size_of::<i16>();
        }
    }
}

type Kernel = unsafe fn(*const i16, usize, *const i8, usize, *mut i32, usize);

/// Calls [`rows`] for `inner` values, a multiple of 8 and at most [`INNER`].
///
/// # Safety
/// As for [`rows`].
#[inline(always)]
unsafe fn call_rows<const MR: usize>(
    inner: usize,
    first: bool,
    (a, stride): (*const i16, usize),
    (b, step): (*const i8, usize),
    c: *mut i32,
    groups: usize,
) {
    macro_rules! dispatch {
        ($first:literal: $($ku:literal)*) => {
            match inner / 2 {
                $($ku => rows::<MR, $ku, $first> as Kernel,)*
                _ => unreachable!("{inner} inner values"),
            }
        };
    }
    // Few rows, as at the end of a product, begin with kernels of their own only where sums are long.
    let begins = first && (MR == ROWS || inner == INNER);
    let kernel = match begins {
        true if MR == ROWS => dispatch!(true: 4 8 12 16 20 24 28 32),
        true => dispatch!(true: 32),
        false => dispatch!(false: 4 8 12 16 20 24 28 32),
    };
    // SAFETY: as promised by the caller, who has room for the sums.
    unsafe {
        if first && !begins {
            c.write_bytes(0, MR * COLUMN_GROUP * groups);
        }
        kernel(a, stride, b, step, c, groups)
    }
}

/// Calls [`rows_requantised`] for `inner` values, a multiple of 8 and at most [`INNER`].
///
/// # Safety
/// As for [`rows_requantised`].
unsafe fn call_rows_requantised(
    inner: usize,
    first: bool,
    (a, stride): (*const i16, usize),
    (b, step): (*const i8, usize),
    c: *const i32,
    groups: usize,
    to: &Requantised,
) {
    type Kernel = unsafe fn(*const i16, usize, *const i8, usize, *const i32, usize, &Requantised);
    macro_rules! dispatch {
        ($($ku:literal)*) => {
            match (inner / 2, first) {
                $(($ku, true) => rows_requantised::<$ku, true> as Kernel,
                ($ku, false) => rows_requantised::<$ku, false> as Kernel,)*
                _ => unreachable!("{inner} inner values"),
            }
        };
    }
    let kernel = dispatch!(4 8 12 16 20 24 28 32);
    // SAFETY: as promised by the caller.
    unsafe { kernel(a, stride, b, step, c, groups, to) }
}

/// Calls [`row`] for `inner` values, a multiple of 8 and at most [`INNER_BLOCK`].
///
/// # Safety
/// As for [`row`].
unsafe fn call_row(inner: usize, first: bool, a: *const i16, b: *const i8, c: *mut i32, groups: usize) {
    type Kernel = unsafe fn(*const i16, *const i8, *mut i32, usize);
    macro_rules! dispatch {
        ($($ku:literal)*) => {
            match (inner / 2, first) {
                (64, true) => row::<64, true> as Kernel,
                $(($ku, _) => row::<$ku, false> as Kernel,)*
                _ => unreachable!("{inner} inner values"),
            }
        };
    }
    let kernel = dispatch!(4 8 12 16 20 24 28 32 36 40 44 48 52 56 60 64);
    // SAFETY: as promised by the caller, who has room for the sums.
    unsafe {
        // Short sums have no kernel that begins.
        if first && inner < INNER_BLOCK {
            c.write_bytes(0, COLUMN_GROUP * groups);
        }
        kernel(a, b, c, groups)
    }
}

/// Sums of MR rows over the blocks `blocks`, for the groups `groups`; or, where `to` is given and MR is [`ROWS`], what they
/// are requantised to.
///
/// # Safety
/// `a` points to MR rows `stride` apart of all inner values; the blocks and groups are those of the weights, at least one
/// of each, at most [`COLUMNS`] columns. For `to` see [`rows_requantised`].
unsafe fn sum_rows<const MR: usize>(
    a: *const i16,
    stride: usize,
    weights: &Weights<'_>,
    blocks: Range<usize>,
    groups: &Range<usize>,
    sums: &mut Sums,
    to: Option<&Requantised>,
) {
    let c = sums.0.as_mut_ptr().cast::<i32>();
    let (first_block, end) = (blocks.start, blocks.end);
    for block in blocks {
        let (start, inner) = Weights::block(weights.k(), weights.n(), block, groups.start);
        let first = block == first_block;
        // SAFETY: a block of `inner` values of a row and of `inner * 4` bytes of each group is within the rows and the
        // packed weights; the sums have room for MR <= ROWS rows of the groups, and were stored by the first block.
        unsafe {
            let (a, b) = (a.add(block * INNER_BLOCK), weights.packed().as_ptr().add(start));
            if MR == 1 {
                call_row(inner, first, a, b, c, groups.len());
            } else {
                let step = inner * COLUMN_GROUP;
                let half = inner.min(INNER);
                let last = block + 1 == end;
                if let (Some(to), true, true) = (to, last, inner == half) {
                    return call_rows_requantised(half, first, (a, stride), (b, step), c, groups.len(), to);
                }
                call_rows::<MR>(half, first, (a, stride), (b, step), c, groups.len());
                if inner > half {
                    let (a, b) = (a.add(half), b.add(half * COLUMN_GROUP));
                    if let (Some(to), true) = (to, last) {
                        return call_rows_requantised(inner - half, false, (a, stride), (b, step), c, groups.len(), to);
                    }
                    call_rows::<MR>(inner - half, false, (a, stride), (b, step), c, groups.len());
                }
            }
        }
    }
}

/// Sum of the values of a row, wrapping.
fn total(values: &[i16]) -> i32 {
    let (vectors, rest) = values.as_chunks::<8>();
    let mut sums = i32x4_splat(0);
    for vector in vectors {
        // SAFETY: `vector` is 16 bytes.
        let vector = unsafe { v128_load(vector.as_ptr().cast()) };
        sums = i32x4_add(sums, i32x4_dot_i16x8(vector, i16x8_splat(1)));
    }
    let sum = i32x4_extract_lane::<0>(sums)
        .wrapping_add(i32x4_extract_lane::<1>(sums))
        .wrapping_add(i32x4_extract_lane::<2>(sums))
        .wrapping_add(i32x4_extract_lane::<3>(sums));
    rest.iter().fold(sum, |sum, value| sum.wrapping_add((*value).into()))
}

/// The part of a product whose sums are in memory: some rows, some groups of columns.
#[derive(Clone, Debug)]
struct Part {
    first_row: usize,
    rows: usize,
    groups: Range<usize>,
}

impl Part {
    /// Index of the four sums of a row of the part and a group of the weights.
    fn at(&self, row: usize, group: usize) -> usize {
        ((group - self.groups.start) * self.rows + row) * COLUMN_GROUP
    }

    fn place(&self, end: usize) -> Place {
        Place { rows: self.first_row..self.first_row + self.rows, groups: self.groups.clone(), end }
    }

    fn subtract_zero_points(
        &self,
        activations: &Activations<'_>,
        inner: Range<usize>,
        zero_points: &[i32],
        sums: &mut Sums,
    ) {
        let mut totals = [0i32; ROWS];
        for (row, sum) in totals.iter_mut().enumerate().take(self.rows) {
            let start = (self.first_row + row) * activations.stride;
            *sum = total(&activations.values[start + inner.start..start + inner.end]);
        }
        for group in self.groups.clone() {
            let mut lanes = [0i32; COLUMN_GROUP];
            let first = group * COLUMN_GROUP;
            let width = (zero_points.len() - first).min(COLUMN_GROUP);
            lanes[..width].copy_from_slice(&zero_points[first..first + width]);
            let lanes = i32x4(lanes[0], lanes[1], lanes[2], lanes[3]);
            for (row, total) in totals.iter().enumerate().take(self.rows) {
                let place = &mut sums.0[self.at(row, group)..][..COLUMN_GROUP];
                // SAFETY: `place` is four sums, 16 bytes, all stored before.
                unsafe {
                    let sum = v128_load(place.as_ptr().cast());
                    v128_store(place.as_mut_ptr().cast(), i32x4_sub(sum, i32x4_mul(lanes, i32x4_splat(*total))));
                }
            }
        }
    }
}

/// Computes a product part by part: `take` gets each with its sums, once for each segment of `segment` inner values.
#[inline(always)]
fn for_each_part(
    activations: &Activations<'_>,
    weights: &Weights<'_>,
    tile: &Tile,
    segment: usize,
    mut take: impl FnMut(&Part, usize, &mut Sums),
) {
    let (k, mut sums) = (weights.k(), Sums::new());
    for first_column in tile.columns.clone().step_by(COLUMNS) {
        let end = tile.columns.end.min(first_column + COLUMNS);
        let groups = first_column / COLUMN_GROUP..end.div_ceil(COLUMN_GROUP);
        let mut first_row = tile.rows.start;
        while first_row < tile.rows.end {
            let left = tile.rows.end - first_row;
            let rows = [8, 4, 2, 1].into_iter().find(|rows| *rows <= left).unwrap_or(1);
            let part = Part { first_row, rows, groups: groups.clone() };
            for (number, start) in (0..k.max(1)).step_by(segment).enumerate() {
                let end = k.min(start.saturating_add(segment));
                let blocks = start / INNER_BLOCK..end.div_ceil(INNER_BLOCK);
                if blocks.is_empty() {
                    sums.0.fill(MaybeUninit::new(0));
                } else {
                    let (stride, groups) = (activations.stride, &part.groups);
                    // SAFETY: `check` made sure that the rows are there; groups and blocks are within the weights.
                    unsafe {
                        let a = activations.values.as_ptr().add(first_row * stride);
                        match rows {
                            8 => sum_rows::<8>(a, stride, weights, blocks, groups, &mut sums, None),
                            4 => sum_rows::<4>(a, stride, weights, blocks, groups, &mut sums, None),
                            2 => sum_rows::<2>(a, stride, weights, blocks, groups, &mut sums, None),
                            _ => sum_rows::<1>(a, stride, weights, blocks, groups, &mut sums, None),
                        }
                    }
                }
                if let Some(zero_points) = weights.zero_points() {
                    part.subtract_zero_points(activations, start..end, zero_points, &mut sums);
                }
                take(&part, number, &mut sums);
            }
            first_row += rows;
        }
    }
}

/// See [`super::naive::gemm_f32`].
///
/// # Panics
/// If a slice is too short for the tile.
pub fn gemm_f32(
    activations: Activations<'_>,
    weights: Weights<'_>,
    rescale: Rescale<'_>,
    tile: Tile,
    mut output: Output<'_, f32>,
) {
    check(&activations, &weights, &tile, &output);
    rescale.check(&weights, &tile);
    let Rescale { row_scales, column_scales, bias } = rescale;
    let scaling = Scaling { row_scales, column_scales: Some(column_scales), bias };
    if weights.k() <= SEGMENT {
        return for_each_part(&activations, &weights, &tile, SEGMENT, |part, _, sums| {
            // SAFETY: the part's sums have been stored; `check` and `rescale.check` made sure of the rest.
            unsafe {
                rescale::write::<true>(sums.0.as_ptr().cast(), scaling, &part.place(tile.columns.end), &mut output)
            }
        });
    }
    let segments = weights.k().div_ceil(SEGMENT);
    let mut totals = Sums::new();
    for_each_part(&activations, &weights, &tile, SEGMENT, |part, segment, sums| {
        let used = part.rows * part.groups.len() * COLUMN_GROUP;
        let (totals, sums) = (&mut totals.0[..used], &sums.0[..used]);
        for (total, sum) in totals.as_chunks_mut::<4>().0.iter_mut().zip(sums.as_chunks::<4>().0) {
            // SAFETY: both are four values, 16 bytes; the sums have been stored, the totals too by the first segment.
            unsafe {
                let value = f32x4_convert_i32x4(v128_load(sum.as_ptr().cast()));
                let value = if segment == 0 { value } else { f32x4_add(v128_load(total.as_ptr().cast()), value) };
                v128_store(total.as_mut_ptr().cast(), value);
            }
        }
        if segment + 1 == segments {
            // SAFETY: the part's totals have been stored, as f32; `check` and `rescale.check` made sure of the rest.
            unsafe {
                rescale::write::<false>(totals.as_ptr().cast(), scaling, &part.place(tile.columns.end), &mut output)
            }
        }
    });
}

/// See [`super::naive::gemm_i32`].
///
/// # Panics
/// If a slice is too short for the tile.
pub fn gemm_i32(activations: Activations<'_>, weights: Weights<'_>, tile: Tile, output: Output<'_, i32>) {
    check(&activations, &weights, &tile, &output);
    for_each_part(&activations, &weights, &tile, usize::MAX, |part, _, sums| {
        for row in 0..part.rows {
            let start = (part.first_row + row) * output.stride;
            for group in part.groups.clone() {
                let column = group * COLUMN_GROUP;
                let width = (tile.columns.end - column).min(COLUMN_GROUP);
                let sums = &sums.0[part.at(row, group)..][..width];
                for (place, sum) in output.values[start + column..][..width].iter_mut().zip(sums) {
                    // SAFETY: the sums have been stored.
                    *place = unsafe { sum.assume_init() };
                }
            }
        }
    });
}

/// See [`super::naive::gemm_requantised`].
///
/// # Panics
/// If a slice is too short for the tile.
pub fn gemm_requantised(
    activations: Activations<'_>,
    weights: Weights<'_>,
    requantise: Requantise<'_>,
    tile: Tile,
    mut output: Output<'_, i16>,
) {
    check(&activations, &weights, &tile, &output);
    requantise.check_columns(weights.n());
    let whole = tile.rows.len() / ROWS * ROWS;
    let paired = tile.columns.len() / (2 * COLUMN_GROUP) * (2 * COLUMN_GROUP);
    if weights.k() == 0 || weights.zero_points().is_some() || whole == 0 || paired == 0 {
        return requantise_parts(&activations, &weights, &requantise, &tile, &mut output);
    }
    let (rows, columns) = (tile.rows.start + whole, tile.columns.start + paired);
    let fused = Tile { rows: tile.rows.start..rows, columns: tile.columns.start..columns };
    requantise_fused(&activations, &weights, &requantise, &fused, &mut output);
    let beside = Tile { rows: fused.rows, columns: columns..tile.columns.end };
    requantise_parts(&activations, &weights, &requantise, &beside, &mut output);
    let below = Tile { rows: rows..tile.rows.end, columns: tile.columns };
    requantise_parts(&activations, &weights, &requantise, &below, &mut output);
}

/// A tile of whole blocks of [`ROWS`] rows and pairs of groups of columns, without zero points, of at least one inner value.
fn requantise_fused(
    activations: &Activations<'_>,
    weights: &Weights<'_>,
    requantise: &Requantise<'_>,
    tile: &Tile,
    output: &mut Output<'_, i16>,
) {
    let (stride, mut sums) = (activations.stride, Sums::new());
    let no_bias = [0; COLUMNS];
    for first_column in tile.columns.clone().step_by(COLUMNS) {
        let end = tile.columns.end.min(first_column + COLUMNS);
        let groups = first_column / COLUMN_GROUP..end / COLUMN_GROUP;
        let bias = requantise.bias.map_or(&no_bias[..], |bias| &bias[first_column..end]);
        for row in tile.rows.clone().step_by(ROWS) {
            let to = Requantised {
                multipliers: requantise.multipliers[first_column..end].as_ptr(),
                bias: bias.as_ptr(),
                low: requantise.low,
                high: requantise.high,
                output: output.values[row * output.stride + first_column..].as_mut_ptr(),
                stride: output.stride,
            };
            let blocks = 0..padded_inner(weights.k()).div_ceil(INNER_BLOCK);
            // SAFETY: `check` made sure that the rows of activations and output are there; groups and blocks are within
            // the weights, and there are multipliers and biases for all columns.
            unsafe {
                let a = activations.values.as_ptr().add(row * stride);
                sum_rows::<ROWS>(a, stride, weights, blocks, &groups, &mut sums, Some(&to));
            }
        }
    }
}

/// Any tile, through sums in memory.
fn requantise_parts(
    activations: &Activations<'_>,
    weights: &Weights<'_>,
    requantise: &Requantise<'_>,
    tile: &Tile,
    output: &mut Output<'_, i16>,
) {
    if tile.rows.is_empty() || tile.columns.is_empty() {
        return;
    }
    for_each_part(activations, weights, tile, usize::MAX, |part, _, sums| {
        requantise_part(part, sums, requantise, tile.columns.end, output);
    });
}

/// Four sums brought to the grid, still as i32.
#[inline(always)]
pub(crate) fn requantise_lanes(sums: v128, bias: v128, multipliers: v128) -> v128 {
    i32x4_trunc_sat_f32x4(f32x4_nearest(f32x4_mul(f32x4_convert_i32x4(i32x4_add(sums, bias)), multipliers)))
}

/// Writes requantised values, two groups of columns and up to 8 rows at a time.
#[inline(never)]
fn requantise_part(part: &Part, sums: &Sums, requantise: &Requantise<'_>, end: usize, output: &mut Output<'_, i16>) {
    const PAIR: usize = 2;
    let (low, high) = (i16x8_splat(requantise.low), i16x8_splat(requantise.high));
    let whole = (end / COLUMN_GROUP).clamp(part.groups.start, part.groups.end);
    let paired = part.groups.start + (whole - part.groups.start) / PAIR * PAIR;
    let values = output.values.as_mut_ptr();
    for group in (part.groups.start..paired).step_by(PAIR) {
        let column = group * COLUMN_GROUP;
        // SAFETY: the groups' eight columns are less than n, of which there are multipliers and biases; `check` made sure
        // that the output has the part's rows up to the tile's last column; the sums have been stored.
        unsafe {
            let multipliers = requantise.multipliers.as_ptr().add(column);
            let multipliers = [v128_load(multipliers.cast()), v128_load(multipliers.add(4).cast())];
            let bias = match requantise.bias {
                Some(bias) => {
                    let bias = bias.as_ptr().add(column);
                    [v128_load(bias.cast()), v128_load(bias.add(4).cast())]
                }
                None => [i32x4_splat(0); 2],
            };
            let mut place = values.add(part.first_row * output.stride + column);
            let mut at = sums.0.as_ptr().add(part.at(0, group));
            let apart = part.rows * COLUMN_GROUP;
            for _ in 0..part.rows {
                let first = requantise_lanes(v128_load(at.cast()), bias[0], multipliers[0]);
                let second = requantise_lanes(v128_load(at.add(apart).cast()), bias[1], multipliers[1]);
                let both = i16x8_narrow_i32x4(first, second);
                v128_store(place.cast(), i16x8_min(i16x8_max(both, low), high));
                at = at.add(COLUMN_GROUP);
                place = place.add(output.stride);
            }
        }
    }
    for row in 0..part.rows {
        let start = (part.first_row + row) * output.stride;
        for column in paired * COLUMN_GROUP..end.min(part.groups.end * COLUMN_GROUP) {
            // SAFETY: the sum has been stored.
            let sum = unsafe { sums.0[part.at(row, column / COLUMN_GROUP) + column % COLUMN_GROUP].assume_init() };
            output.values[start + column] = requantise.apply(sum, column);
        }
    }
}

/// Packs as many of the rows of four whole columns as there is a quick way for, and tells how many that were. The first of
/// them is at `first`. Bytes are changed by an exclusive or with `flip`.
pub(crate) fn pack_whole(source: &Source<'_>, first: usize, rows: usize, flip: u8, target: &mut [i8]) -> usize {
    let Source { bytes, row_stride, column_stride, .. } = *source;
    if rows == 0 {
        return 0;
    }
    let last = first + (rows - 1) * row_stride + (COLUMN_GROUP - 1) * column_stride;
    assert!(last < bytes.len() && target.len() >= rows * COLUMN_GROUP, "{rows} rows from {first} on");
    let flip = u8x16_splat(flip);
    // SAFETY: the columns' bytes, from `first` to `last`, are in the source; each step writes what it packs of the target.
    unsafe {
        let (from, to) = (bytes.as_ptr().add(first), target.as_mut_ptr());
        if row_stride == 1 {
            pack_columns(from, column_stride, rows, flip, to)
        } else if column_stride == 1 {
            pack_rows(from, row_stride, rows, flip, to)
        } else {
            0
        }
    }
}

/// Sixteen rows at a time of columns whose bytes follow one another: a transposition of pairs of bytes.
///
/// # Safety
/// Four columns of `rows` bytes, `stride` apart, are readable, and `4 * rows` bytes writable.
#[inline(never)]
unsafe fn pack_columns(from: *const u8, stride: usize, rows: usize, flip: v128, to: *mut i8) -> usize {
    const STEP: usize = 16;
    // SAFETY: all offsets are within what the caller promises.
    unsafe {
        let columns = [from, from.add(stride), from.add(2 * stride), from.add(3 * stride)];
        let mut to = to;
        let mut cursor = Cursor::new(to.cast_const());
        for step in 0..rows / STEP {
            let load = |column: usize| v128_xor(v128_load(columns[column].add(step * STEP).cast()), flip);
            let (a, b, c, d) = (load(0), load(1), load(2), load(3));
            let (low, high) = (
                [i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(a, b), i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(c, d)],
                [i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(a, b), i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(c, d)],
            );
            v128_store(to.cast(), i32x4_shuffle::<0, 4, 1, 5>(low[0], low[1]));
            v128_store(to.add(16).cast(), i32x4_shuffle::<2, 6, 3, 7>(low[0], low[1]));
            v128_store(to.add(32).cast(), i32x4_shuffle::<0, 4, 1, 5>(high[0], high[1]));
            v128_store(to.add(48).cast(), i32x4_shuffle::<2, 6, 3, 7>(high[0], high[1]));
            to = cursor.advance(to.cast_const(), STEP * COLUMN_GROUP).cast_mut();
        }
    }
    rows / STEP * STEP
}

/// Four rows at a time of rows whose bytes follow one another.
///
/// # Safety
/// `rows` rows of four bytes, `stride` apart, are readable, and `4 * rows` bytes writable.
#[inline(never)]
unsafe fn pack_rows(from: *const u8, stride: usize, rows: usize, flip: v128, to: *mut i8) -> usize {
    const STEP: usize = 4;
    // SAFETY: all offsets are within what the caller promises.
    unsafe {
        let (mut from, mut to) = (from, to);
        let mut cursor = Cursor::new(to.cast_const());
        for _ in 0..rows / STEP {
            let load = |row: *const u8| v128_load32_zero(row.cast());
            let second = from.wrapping_add(stride);
            let third = second.wrapping_add(stride);
            let fourth = third.wrapping_add(stride);
            let low = i8x16_shuffle::<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(load(from), load(second));
            let high =
                i8x16_shuffle::<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(load(third), load(fourth));
            v128_store(to.cast(), v128_xor(i64x2_shuffle::<0, 2>(low, high), flip));
            from = fourth.wrapping_add(stride);
            to = cursor.advance(to.cast_const(), STEP * COLUMN_GROUP).cast_mut();
        }
    }
    rows / STEP * STEP
}
