//! Products of matrices in f32.
//!
//! One accumulation order whatever the shape: a sum starts with its bias, or +0, and adds its products with `k`
//! ascending. So a row of a product has the same bits whether it is computed alone or in a matrix of any height, by
//! [`gemm`], [`gemv`] or [`gemm_unpacked`], in one call or in pieces.

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod copy;
pub(crate) mod cost;
pub mod naive;
mod pack;
pub mod portable;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub mod simd128;

pub use cost::{estimate_instructions, estimate_instructions_unpacked};
pub use pack::{PANEL_COLUMNS, PackedMatrix, PackedRef, pack_columns, pack_rows, packed_len};

use crate::matrix::{Epilogue, MatrixMut, MatrixRef};
use std::ops::Range;

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
use portable as body;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use simd128 as body;

/// Rows `rows` of C = epilogue(A x B), with B packed: see [`naive::gemm`] for what that is.
///
/// A is m x k, B k x n, C m x n; a residual is m x n. Rows outside the range are neither read nor written. The cost of a
/// call is told by [`estimate_instructions`].
///
/// # Panics
/// When shapes do not fit each other.
pub fn gemm(a: MatrixRef<'_>, b: PackedRef<'_>, epilogue: &Epilogue<'_>, rows: Range<usize>, c: &mut MatrixMut<'_>) {
    assert_eq!((a.rows, a.columns), (c.rows, b.k), "A does not fit C or B");
    assert_eq!(c.columns, b.n, "C does not fit B");
    assert!(rows.start <= rows.end && rows.end <= c.rows, "rows {rows:?} of {}", c.rows);
    epilogue.assert_fits(c.rows, c.columns);
    body::gemm(a, b, epilogue, rows, c);
}

/// Columns `columns` of the row y = epilogue(x x B): one row of [`gemm`], to the same bits.
///
/// `y` is the whole row of n values, of which the others are not written. The range starts and ends at multiples of
/// [`PANEL_COLUMNS`], or ends at n.
///
/// # Panics
/// When shapes do not fit each other or the range is cut elsewhere.
pub fn gemv(x: &[f32], b: PackedRef<'_>, epilogue: &Epilogue<'_>, columns: Range<usize>, y: &mut [f32]) {
    assert_eq!((x.len(), y.len()), (b.k, b.n), "x or y does not fit B");
    assert!(columns.start <= columns.end && columns.end <= b.n, "columns {columns:?} of {}", b.n);
    let cut = |column: usize| column.is_multiple_of(PANEL_COLUMNS) || column == b.n;
    assert!(cut(columns.start) && cut(columns.end), "columns {columns:?} cut a panel");
    epilogue.assert_fits(1, b.n);
    body::gemv(x, b, epilogue, columns, y);
}

/// [`gemm`] with a B that was not packed: an activation, such as the values of an attention.
///
/// Cheaper than packing B first unless B is used several times. An activation that is given column by column, such as the
/// keys of an attention, is for [`crate::gemm_nt`].
///
/// # Panics
/// When shapes do not fit each other.
pub fn gemm_unpacked(
    a: MatrixRef<'_>,
    b: MatrixRef<'_>,
    epilogue: &Epilogue<'_>,
    rows: Range<usize>,
    c: &mut MatrixMut<'_>,
) {
    assert_eq!((a.rows, a.columns), (c.rows, b.rows), "A does not fit C or B");
    assert_eq!(c.columns, b.columns, "C does not fit B");
    assert!(rows.start <= rows.end && rows.end <= c.rows, "rows {rows:?} of {}", c.rows);
    epilogue.assert_fits(c.rows, c.columns);
    body::gemm_unpacked(a, b, epilogue, rows, c);
}
