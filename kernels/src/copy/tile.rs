//! Transposes of two dimensions of 32-bit elements.

use crate::lanes::Lanes;

/// A tile of `ROWS` by `COLUMNS`: input rows are `from_stride` elements apart, output rows, which are the input's columns,
/// `to_stride`. An output vector is loaded lane by lane, each from its own row.
#[inline(never)]
unsafe fn tile<V: Lanes, const ROWS: usize, const COLUMNS: usize>(
    from: *const f32,
    from_stride: isize,
    to: *mut f32,
    to_stride: isize,
) {
    // Pointers to rows that the tile does not have are not read.
    let row = |index: isize| from.wrapping_offset(index * from_stride);
    let first = [row(0), row(1), row(2), row(3)];
    let second = [row(4), row(5), row(6), row(7)];
    let mut place = to;
    // SAFETY: the caller's.
    unsafe {
        macro_rules! columns {
            ($($column:literal)*) => {
                $(
                    if ROWS == 1 {
                        *place = *from.add($column);
                    } else {
                        V::gather(first.map(|row| row.add($column))).store(place);
                    }
                    if ROWS >= 8 {
                        V::gather(second.map(|row| row.add($column))).store(place.add(4));
                    }
                    place = place.wrapping_offset(to_stride);
                )*
            };
        }
        columns!(0);
        if COLUMNS >= 4 {
            columns!(1 2 3);
        }
        if COLUMNS >= 16 {
            columns!(4 5 6 7 8 9 10 11 12 13 14 15);
        }
        let _ = place;
    }
}

/// The largest tile that fits.
fn size(rows: usize, columns: usize) -> (usize, usize) {
    let height = [8, 4].into_iter().find(|height| *height <= rows).unwrap_or(1);
    let width = [16, 4].into_iter().find(|width| *width <= columns).unwrap_or(1);
    (height, width)
}

/// Transposes `rows` by `columns` elements.
///
/// # Safety
/// Row `r` and column `c` of the input, at `from + r from_stride + c`, and of the output, at `to + c to_stride + r`, are
/// valid, and input and output do not overlap.
pub unsafe fn transpose<V: Lanes>(
    from: *const f32,
    from_stride: isize,
    to: *mut f32,
    to_stride: isize,
    rows: usize,
    columns: usize,
) {
    // SAFETY: the caller's. The last tile may overlap the one before it: it copies the same elements once more.
    unsafe {
        if rows == 0 || columns == 0 {
            return;
        }
        let (height, width) = size(rows, columns);
        let body = match (height, width) {
            (8, 16) => tile::<V, 8, 16>,
            (8, 4) => tile::<V, 8, 4>,
            (8, _) => tile::<V, 8, 1>,
            (4, 16) => tile::<V, 4, 16>,
            (4, 4) => tile::<V, 4, 4>,
            (4, _) => tile::<V, 4, 1>,
            (_, 16) => tile::<V, 1, 16>,
            (_, 4) => tile::<V, 1, 4>,
            (_, _) => tile::<V, 1, 1>,
        };
        let mut row = 0;
        while row < rows {
            let first = row.min(rows - height);
            let (from, to) = (from.offset(first as isize * from_stride), to.add(first));
            let mut column = 0;
            while column < columns {
                let first = column.min(columns - width);
                body(from.add(first), from_stride, to.offset(first as isize * to_stride), to_stride);
                column += width;
            }
            row += height;
        }
    }
}

/// Metered instructions of [`transpose`].
pub fn cost(rows: usize, columns: usize) -> u64 {
    let (height, width) = size(rows, columns);
    let tiles = rows.div_ceil(height) * columns.div_ceil(width);
    let each = match height {
        8 => 62 + 34 * width,
        4 => 52 + 18 * width,
        _ => 50 + 7 * width,
    };
    (80 + rows.div_ceil(height) * 24 + tiles * each) as u64
}
