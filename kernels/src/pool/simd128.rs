//! A WebAssembly body with 128-bit SIMD: the results of up to sixteen vectors of channels stay in locals while the pixels
//! under a window stream by.

use super::{Pool, divisor};
use crate::matrix::{MatrixMut, MatrixRef};
use crate::window::Window;
use std::arch::wasm32::*;
use std::ops::Range;

/// Values of a vector.
const LANES: usize = 4;

/// See [`super::pool`].
pub fn pool(kind: Pool, input: MatrixRef<'_>, window: &Window, pixels: Range<usize>, output: &mut MatrixMut<'_>) {
    let channels = input.columns;
    if channels < LANES {
        return super::portable::pool(kind, input, window, pixels, output);
    }
    let width = window.output[1];
    let mut first = pixels.start;
    while first < pixels.end {
        let (row, column) = (first / width, first % width);
        let columns = column..width.min(column + pixels.end - first);
        pool_row(kind, input, window, row, columns.clone(), output);
        first += columns.len();
    }
}

/// The output pixels `columns` of output row `row`.
fn pool_row(
    kind: Pool,
    input: MatrixRef<'_>,
    window: &Window,
    row: usize,
    columns: Range<usize>,
    output: &mut MatrixMut<'_>,
) {
    let channels = input.columns;
    let rows = window.taps_inside(0, row);
    let column_step = window.dilation[1] * input.stride;
    let row_step = window.dilation[0] * window.input[1] * input.stride;
    for column in columns {
        let columns = window.taps_inside(1, column);
        let divisor = if kind == Pool::Max { 0.0 } else { divisor(kind, window, row, column) };
        let first = window.source(0, row, rows.start).zip(window.source(1, column, columns.start));
        let result = output.row_mut(row * window.output[1] + column);
        let Some((source_row, source_column)) = first.filter(|_| !rows.is_empty() && !columns.is_empty()) else {
            result.fill(if kind == Pool::Max { f32::NEG_INFINITY } else { 0.0 / divisor });
            continue;
        };
        let mut area = Area {
            from: input.data[(source_row * window.input[1] + source_column) * input.stride..].as_ptr(),
            rows: rows.len(),
            columns: columns.len(),
            column_step: column_step * size_of::<f32>(),
            // From behind the last column of a row to the first of the next.
            row_step: row_step.wrapping_sub(columns.len() * column_step).wrapping_mul(size_of::<f32>()),
            to: result.as_mut_ptr(),
            divisor,
        };
        let mut left = channels;
        while left > 0 {
            if left < LANES {
                // The last vector's first channels are computed again, to the same bits.
                let again = LANES - left;
                (area.from, area.to) = (area.from.wrapping_sub(again), area.to.wrapping_sub(again));
                left = LANES;
            }
            let (function, vectors): (AreaFn, usize) = match (kind, left / LANES) {
                (Pool::Max, 16..) => (reduce_16::<true>, 16),
                (Pool::Max, 8..) => (reduce_8::<true>, 8),
                (Pool::Max, 4..) => (reduce_4::<true>, 4),
                (Pool::Max, 2..) => (reduce_2::<true>, 2),
                (Pool::Max, _) => (reduce_1::<true>, 1),
                (_, 16..) => (reduce_16::<false>, 16),
                (_, 8..) => (reduce_8::<false>, 8),
                (_, 4..) => (reduce_4::<false>, 4),
                (_, 2..) => (reduce_2::<false>, 2),
                (_, _) => (reduce_1::<false>, 1),
            };
            // SAFETY: the area is the pixels of the window that are inside the input, at least one; these and the
            // output's row have the channels of all vectors.
            unsafe { function(&area) };
            let done = vectors * LANES;
            (area.from, area.to) = (area.from.wrapping_add(done), area.to.wrapping_add(done));
            left -= done;
        }
    }
}

/// The pixels under a window, and where their result goes. Steps are in bytes and wrap.
#[derive(Clone, Copy)]
struct Area {
    from: *const f32,
    /// At least one, as `columns`.
    rows: usize,
    columns: usize,
    column_step: usize,
    row_step: usize,
    to: *mut f32,
    divisor: f32,
}

/// # Safety
/// What [`Area`] says must hold for the vectors of the function.
type AreaFn = unsafe fn(&Area);

macro_rules! reduce {
    ($name:ident, $count:literal [$($v:literal)*]) => {
        #[inline(never)]
        unsafe fn $name<const MAX: bool>(area: &Area) {
            // SAFETY: as `Area` says; see `AreaFn`.
            unsafe {
                let start = f32x4_splat(if MAX { f32::NEG_INFINITY } else { 0.0 });
                let mut results = [start; $count];
                let (mut from, mut rows) = (area.from, area.rows);
                loop {
                    let mut columns = area.columns;
                    loop {
                        $(
                            let values = v128_load(from.add($v * LANES).cast());
                            results[$v] =
                                if MAX { f32x4_pmax(results[$v], values) } else { f32x4_add(results[$v], values) };
                        )*
                        // Read again for every pixel, so that each load keeps its offset from one pointer.
                        from = from.wrapping_byte_add((&raw const area.column_step).read_volatile());
                        columns -= 1;
                        if columns == 0 {
                            break;
                        }
                    }
                    from = from.wrapping_byte_add((&raw const area.row_step).read_volatile());
                    rows -= 1;
                    if rows == 0 {
                        break;
                    }
                }
                let divisor = f32x4_splat(area.divisor);
                $(
                    let result = if MAX { results[$v] } else { f32x4_div(results[$v], divisor) };
                    v128_store(area.to.add($v * LANES).cast(), result);
                )*
            }
        }
    };
}

reduce!(reduce_1, 1[0]);
reduce!(reduce_2, 2 [0 1]);
reduce!(reduce_4, 4 [0 1 2 3]);
reduce!(reduce_8, 8 [0 1 2 3 4 5 6 7]);
reduce!(reduce_16, 16 [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15]);
