//! From block-quantised matrices as files store them to the packed form.

use super::{BLOCK, COLUMN_GROUP, Int4Weights, Int8Weights, Source, block_number, scale_index, scales_len};
use crate::int8::pack_whole;
use std::ops::Range;

fn check_columns(columns: &Range<usize>, n: usize) {
    let ends = columns.end.is_multiple_of(COLUMN_GROUP) || columns.end == n;
    assert!(columns.start.is_multiple_of(COLUMN_GROUP) && ends && columns.end <= n, "columns {columns:?} of {n}");
}

/// Packs the scales of the columns of `columns`: column j has `k / block_size` of them, rounded up, from
/// `(j - columns.start) * ceil(k / block_size)` on.
fn pack_scales(
    scales: &[f32],
    factor: f32,
    block_size: usize,
    k: usize,
    n: usize,
    columns: &Range<usize>,
    packed: &mut [f32],
) {
    assert!(block_size > 0 && block_size.is_multiple_of(BLOCK), "blocks of {block_size}, not a multiple of {BLOCK}");
    let blocks = k.div_ceil(block_size);
    assert!(scales.len() >= columns.len() * blocks, "{} scales of {} columns of {blocks}", scales.len(), columns.len());
    for column in columns.start..columns.end.next_multiple_of(COLUMN_GROUP) {
        for row in (0..k).step_by(BLOCK) {
            let at = (column - columns.start) * blocks + row / block_size;
            packed[scale_index(k, n, row, column)] = if column < columns.end { scales[at] * factor } else { 0.0 };
        }
    }
}

/// Packs int8 weights and their scales, one for each `block_size` (a multiple of 32) rows of a column, for the columns of
/// `columns`, of which the first is the source's column 0. Column j's scales are `scales[j * ceil(k / block_size)..]`.
/// Unsigned bytes are packed as `byte - 128`.
///
/// # Panics
/// If `columns` does not start at a multiple of [`COLUMN_GROUP`] or end at one or at n, or if a slice is too short.
#[allow(clippy::too_many_arguments)]
pub fn pack_int8(
    source: Source<'_>,
    source_scales: &[f32],
    block_size: usize,
    k: usize,
    n: usize,
    columns: Range<usize>,
    packed: &mut [i8],
    scales: &mut [f32],
) {
    assert_eq!(Some(packed.len()), Int8Weights::packed_len(k, n), "packed weights of {k} x {n}");
    assert_eq!(Some(scales.len()), scales_len(k, n), "scales of {k} x {n}");
    check_columns(&columns, n);
    if k == 0 || columns.is_empty() {
        return;
    }
    pack_scales(source_scales, 1.0, block_size, k, n, &columns, scales);
    let flip = if source.unsigned { 0x80 } else { 0 };
    for group in columns.start / COLUMN_GROUP..columns.end.div_ceil(COLUMN_GROUP) {
        let first_column = group * COLUMN_GROUP;
        let width = (columns.end - first_column).min(COLUMN_GROUP);
        for block in 0..k.div_ceil(BLOCK) {
            let start = block_number(k, n, block, group) * BLOCK * COLUMN_GROUP;
            let target = &mut packed[start..start + BLOCK * COLUMN_GROUP];
            let rows = (k - block * BLOCK).min(BLOCK);
            if width < COLUMN_GROUP || rows < BLOCK {
                target.fill(0);
            }
            let first = (first_column - columns.start) * source.column_stride + block * BLOCK * source.row_stride;
            let done = if width == COLUMN_GROUP { pack_whole(&source, first, rows, flip, target) } else { 0 };
            for column in 0..width {
                let at = first + column * source.column_stride;
                for row in done..rows {
                    let byte = source.bytes[at + row * source.row_stride] ^ flip;
                    target[row / 2 * (2 * COLUMN_GROUP) + column * 2 + row % 2] = byte as i8;
                }
            }
        }
    }
}

/// 4-bit weights as the operator MatMulNBits stores them: for each column `ceil(k / block_size)` blobs of `block_size / 2`
/// bytes, of two consecutive rows the first in the lower half of a byte; as many scales; and, if there are any, as many
/// zero points, two in a byte, each column starting a new byte.
#[derive(Clone, Copy, Debug)]
pub struct Int4Source<'a> {
    pub bytes: &'a [u8],
    pub scales: &'a [f32],
    pub zero_points: Option<&'a [u8]>,
    /// 32 or a multiple of it.
    pub block_size: usize,
}

/// Packs 4-bit weights for the columns of `columns`, of which the first is the source's column 0.
///
/// `zero_points` is [`Int4Weights::zero_points_len`] long if the source has zero points, empty otherwise.
///
/// # Panics
/// If `columns` does not start at a multiple of [`COLUMN_GROUP`] or end at one or at n, or if a slice is too short.
pub fn pack_int4(
    source: Int4Source<'_>,
    k: usize,
    n: usize,
    columns: Range<usize>,
    packed: &mut [i8],
    scales: &mut [f32],
    zero_points: &mut [i8],
) {
    assert_eq!(Some(packed.len()), Int4Weights::packed_len(k, n), "packed weights of {k} x {n}");
    assert_eq!(Some(scales.len()), scales_len(k, n), "scales of {k} x {n}");
    check_columns(&columns, n);
    pack_scales(source.scales, 1.0 / 16.0, source.block_size, k, n, &columns, scales);
    let source_blocks = k.div_ceil(source.block_size);
    let column_bytes = source_blocks * (source.block_size / 2);
    assert!(source.bytes.len() >= columns.len() * column_bytes, "{} bytes of 4-bit weights", source.bytes.len());
    if let Some(source_zero_points) = source.zero_points {
        assert_eq!(Some(zero_points.len()), Int4Weights::zero_points_len(k, n), "zero points of {k} x {n}");
        assert!(source_zero_points.len() >= columns.len() * source_blocks.div_ceil(2), "zero points");
    }
    for group in columns.start / COLUMN_GROUP..columns.end.div_ceil(COLUMN_GROUP) {
        for block in 0..k.div_ceil(BLOCK) {
            let source_block = block * BLOCK / source.block_size;
            let number = block_number(k, n, block, group);
            // Where there is no column, and behind k, the weights are 8 less the zero point 8.
            let mut bytes = [[0x88; BLOCK / 2]; COLUMN_GROUP];
            for (index, bytes) in bytes.iter_mut().enumerate() {
                let column = group * COLUMN_GROUP + index;
                let inside = column < columns.end;
                if inside {
                    let at = (column - columns.start) * column_bytes + block * (BLOCK / 2);
                    bytes.copy_from_slice(&source.bytes[at..at + BLOCK / 2]);
                }
                if let Some(source_zero_points) = source.zero_points {
                    let at = (column - columns.start) * source_blocks.div_ceil(2) + source_block / 2;
                    let zero_point = if inside { source_zero_points[at] >> (source_block % 2 * 4) & 15 } else { 8 };
                    let at = 2 * (number * COLUMN_GROUP + index);
                    zero_points[at..at + 2].fill((zero_point as i8 - 8) * 16);
                }
            }
            let target = &mut packed[number * INT4_BYTES..][..INT4_BYTES];
            if let Some(target) = target.as_mut_array() {
                pack_int4_block(&bytes, target);
            }
        }
    }
}

/// Bytes of a block and a group.
pub(super) const INT4_BYTES: usize = BLOCK / 2 * COLUMN_GROUP;

/// Packs a block of four columns.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
fn pack_int4_block(bytes: &[[u8; BLOCK / 2]; COLUMN_GROUP], target: &mut [i8; INT4_BYTES]) {
    for (four, target) in target.as_chunks_mut::<{ 2 * COLUMN_GROUP }>().0.iter_mut().enumerate() {
        for (bytes, target) in bytes.iter().zip(target.as_chunks_mut::<2>().0) {
            // Two bytes have the weights of four rows, those of rows 0 and 1 in the first.
            let (first, second) = (bytes[2 * four], bytes[2 * four + 1]);
            *target =
                [first & 15 | ((second & 15) ^ 8) << 4, first >> 4 | ((second >> 4) ^ 8) << 4].map(|byte| byte as i8);
        }
    }
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use super::simd128::pack_int4_block;
