//! Sums and totals of some rows and groups of columns, in memory, on their way to the f32 output.

use super::{COLUMN_GROUP, Output};
use crate::unroll::unroll;
use std::arch::wasm32::*;
use std::ops::Range;

/// Most rows that are written together.
const ROWS: usize = 8;

/// `((value * column_scales[j]) * row_scales[i]) + bias[j]`, without the factor or the term that is not there.
#[derive(Clone, Copy)]
pub(crate) struct Scaling<'a> {
    pub row_scales: &'a [f32],
    pub column_scales: Option<&'a [f32]>,
    pub bias: Option<&'a [f32]>,
}

/// Rows `rows` of the output, and the columns of `groups` that are less than `end`.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub rows: Range<usize>,
    pub groups: Range<usize>,
    pub end: usize,
}

/// Writes what values in the order `[group][row][column of the group]` are rescaled to. INTEGERS: they are i32, not f32.
///
/// # Safety
/// There are 8, 4, 2 or 1 rows, as many values at `from` as rows and groups take, scales of all rows and, like biases, of all
/// columns less than `end`, and the output has the rows up to the last column.
pub(crate) unsafe fn write<const INTEGERS: bool>(
    from: *const i32,
    scaling: Scaling<'_>,
    place: &Place,
    output: &mut Output<'_, f32>,
) {
    let rows = place.rows.len();
    let mut row_scales = [0.0; ROWS];
    for (row, scale) in place.rows.clone().zip(&mut row_scales) {
        *scale = if let [scale] = scaling.row_scales { *scale } else { scaling.row_scales[row] };
    }
    let whole = (place.end / COLUMN_GROUP).clamp(place.groups.start, place.groups.end);
    let column = place.groups.start * COLUMN_GROUP;
    if whole > place.groups.start {
        let vectors = Vectors {
            from,
            row_scales: &row_scales,
            column_scales: scaling.column_scales.map(|scales| scales[column..].as_ptr()),
            bias: scaling.bias.map(|bias| bias[column..].as_ptr()),
            output: output.values[place.rows.start * output.stride + column..].as_mut_ptr(),
            stride: output.stride,
            count: whole - place.groups.start,
        };
        // SAFETY: as promised by the caller.
        unsafe {
            match rows {
                8 => vectors.write_rows::<8, INTEGERS>(),
                4 => vectors.write_rows::<4, INTEGERS>(),
                2 => vectors.write_rows::<2, INTEGERS>(),
                _ => vectors.write_rows::<1, INTEGERS>(),
            }
        }
    }
    for (number, row) in place.rows.clone().enumerate() {
        let at = ((whole - place.groups.start) * rows + number) * COLUMN_GROUP;
        for column in whole * COLUMN_GROUP..place.end.min(place.groups.end * COLUMN_GROUP) {
            // SAFETY: as promised by the caller.
            let value = unsafe {
                let value = from.add(at + column % COLUMN_GROUP);
                if INTEGERS { *value as f32 } else { *value.cast::<f32>() }
            };
            let value = scaling.column_scales.map_or(value, |scales| value * scales[column]) * row_scales[number];
            let value = scaling.bias.map_or(value, |bias| value + bias[column]);
            output.values[row * output.stride + column] = value;
        }
    }
}

/// Whole groups.
struct Vectors<'a> {
    from: *const i32,
    row_scales: &'a [f32; ROWS],
    column_scales: Option<*const f32>,
    bias: Option<*const f32>,
    output: *mut f32,
    stride: usize,
    count: usize,
}

impl Vectors<'_> {
    unsafe fn write_rows<const MR: usize, const INTEGERS: bool>(&self) {
        // SAFETY: as promised by the caller; where there is no pointer, none is read.
        unsafe {
            match (self.column_scales.is_some(), self.bias.is_some()) {
                (false, false) => self.write::<MR, INTEGERS, false, false>(),
                (false, true) => self.write::<MR, INTEGERS, false, true>(),
                (true, false) => self.write::<MR, INTEGERS, true, false>(),
                (true, true) => self.write::<MR, INTEGERS, true, true>(),
            }
        }
    }

    #[inline(never)]
    unsafe fn write<const MR: usize, const INTEGERS: bool, const SCALES: bool, const BIAS: bool>(&self) {
        // SAFETY: all offsets are within what the caller promises.
        unsafe {
            let mut row_scales = [f32x4_splat(0.0); MR];
            let mut places = [self.output; MR];
            unroll!(R in 8 {
                if R < MR {
                    row_scales[R] = f32x4_splat(self.row_scales[R]);
                    places[R] = self.output.wrapping_add(R * self.stride);
                }
            });
            let mut from = self.from;
            let mut scales_at = self.column_scales.unwrap_or(std::ptr::null());
            let mut bias_at = self.bias.unwrap_or(std::ptr::null());
            let mut offset = 0;
            for _ in 0..self.count {
                let scales = if SCALES { v128_load(scales_at.cast()) } else { f32x4_splat(0.0) };
                let bias = if BIAS { v128_load(bias_at.cast()) } else { f32x4_splat(0.0) };
                unroll!(R in 8 {
                    if R < MR {
                        let value = v128_load(from.add(COLUMN_GROUP * R).cast());
                        let value = if INTEGERS { f32x4_convert_i32x4(value) } else { value };
                        let value = if SCALES { f32x4_mul(value, scales) } else { value };
                        let value = f32x4_mul(value, row_scales[R]);
                        let value = if BIAS { f32x4_add(value, bias) } else { value };
                        v128_store(places[R].wrapping_byte_add(offset).cast(), value);
                    }
                });
                from = from.wrapping_add(COLUMN_GROUP * MR);
                scales_at = scales_at.wrapping_add(COLUMN_GROUP);
                bias_at = bias_at.wrapping_add(COLUMN_GROUP);
                offset += COLUMN_GROUP * size_of::<f32>();
            }
        }
    }
}
