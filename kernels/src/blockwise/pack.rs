//! From block-quantised matrices as files store them to the packed form.

use super::{BLOCK, COLUMN_GROUP, Int4Weights, Int8Weights, Source, block_number, scale_index, scales_len};
use std::ops::Range;

fn check_columns(columns: &Range<usize>, n: usize) {
    let ends = columns.end % COLUMN_GROUP == 0 || columns.end == n;
    assert!(columns.start % COLUMN_GROUP == 0 && ends && columns.end <= n, "columns {columns:?} of {n}");
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
    assert!(block_size > 0 && block_size % BLOCK == 0, "blocks of {block_size}, not a multiple of {BLOCK}");
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
///
/// # Panics
/// If `columns` does not start at a multiple of [`COLUMN_GROUP`] or end at one or at n, if the source is of unsigned bytes
/// or if a slice is too short.
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
    assert!(!source.unsigned, "unsigned int8 blocks");
    check_columns(&columns, n);
    if k == 0 || columns.is_empty() {
        return;
    }
    pack_scales(source_scales, 1.0, block_size, k, n, &columns, scales);
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
            for column in 0..width {
                let at =
                    (first_column - columns.start + column) * source.column_stride + block * BLOCK * source.row_stride;
                for row in 0..rows {
                    let byte = source.bytes[at + row * source.row_stride];
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
    for column in columns.start..columns.end.next_multiple_of(COLUMN_GROUP) {
        let inside = column < columns.end;
        let bytes = if inside { &source.bytes[(column - columns.start) * column_bytes..][..column_bytes] } else { &[] };
        for start in (0..k).step_by(BLOCK) {
            if let Some(source_zero_points) = source.zero_points {
                let block = start / source.block_size;
                let at = (column - columns.start) * source_blocks.div_ceil(2) + block / 2;
                let zero_point = if inside { source_zero_points[at] >> (block % 2 * 4) & 15 } else { 8 };
                let packed = &mut zero_points[2 * scale_index(k, n, start, column)..][..2];
                packed.fill((zero_point as i8 - 8) * 16);
            }
            for four in (start..start + BLOCK).step_by(4) {
                // Two bytes have the four rows' weights, rows 0 and 1 in the first.
                let two = if inside { [bytes[four / 2], bytes[four / 2 + 1]] } else { [0x88; 2] };
                let (at, _) = Int4Weights::index(k, n, four, column);
                packed[at] = (two[0] & 15 | ((two[1] & 15) ^ 8) << 4) as i8;
                packed[at + 1] = (two[0] >> 4 | ((two[1] >> 4) ^ 8) << 4) as i8;
            }
        }
    }
}
