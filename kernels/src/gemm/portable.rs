//! Bodies for any target, written so that the inner loops are over the columns of a panel.

use super::PackedRef;
use super::pack::{LANES, PANEL_COLUMNS, panels};
use crate::matrix::{Epilogue, MatrixMut, MatrixRef};
use std::ops::Range;

/// See [`super::gemm`].
pub fn gemm(a: MatrixRef<'_>, b: PackedRef<'_>, epilogue: &Epilogue<'_>, rows: Range<usize>, c: &mut MatrixMut<'_>) {
    for row in rows {
        row_times(a.row(row), b, epilogue, row, 0..b.n, c.row_mut(row));
    }
}

/// See [`super::gemv`].
pub fn gemv(x: &[f32], b: PackedRef<'_>, epilogue: &Epilogue<'_>, columns: Range<usize>, y: &mut [f32]) {
    row_times(x, b, epilogue, 0, columns, y);
}

/// See [`super::gemm_unpacked`].
pub fn gemm_unpacked(
    a: MatrixRef<'_>,
    b: MatrixRef<'_>,
    epilogue: &Epilogue<'_>,
    rows: Range<usize>,
    c: &mut MatrixMut<'_>,
) {
    for row in rows {
        for first in (0..b.columns).step_by(PANEL_COLUMNS) {
            let width = PANEL_COLUMNS.min(b.columns - first);
            let mut sums = [0.0; PANEL_COLUMNS];
            for (index, sum) in sums[..width].iter_mut().enumerate() {
                *sum = epilogue.start(first + index);
            }
            for (p, factor) in a.row(row).iter().enumerate() {
                for (sum, value) in sums.iter_mut().zip(&b.row(p)[first..][..width]) {
                    *sum += factor * value;
                }
            }
            let places = &mut c.row_mut(row)[first..];
            for (index, place) in places.iter_mut().take(width).enumerate() {
                *place = epilogue.finish(row, first + index, sums[index]);
            }
        }
    }
}

/// The columns of row `row` of the product that `columns`, which starts and ends between panels, holds.
pub(crate) fn row_times(
    x: &[f32],
    b: PackedRef<'_>,
    epilogue: &Epilogue<'_>,
    row: usize,
    columns: Range<usize>,
    output: &mut [f32],
) {
    for panel in panels(b.k, b.n).filter(|panel| columns.start < panel.end && panel.end <= columns.end) {
        let (width, count) = (panel.vectors * LANES, panel.end - panel.column);
        let mut sums = [0.0; PANEL_COLUMNS];
        for (index, sum) in sums[..count].iter_mut().enumerate() {
            *sum = epilogue.start(panel.column + index);
        }
        if width == PANEL_COLUMNS {
            accumulate::<PANEL_COLUMNS>(x, &b.data[panel.offset..], &mut sums);
        } else {
            for (factor, values) in x.iter().zip(b.data[panel.offset..].chunks_exact(width)) {
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum += factor * value;
                }
            }
        }
        for index in columns.start.saturating_sub(panel.column)..count {
            output[panel.column + index] = epilogue.finish(row, panel.column + index, sums[index]);
        }
    }
}

/// A loop whose width the compiler knows.
fn accumulate<const WIDTH: usize>(x: &[f32], values: &[f32], sums: &mut [f32; WIDTH]) {
    for (factor, values) in x.iter().zip(values.as_chunks::<WIDTH>().0) {
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += factor * value;
        }
    }
}
