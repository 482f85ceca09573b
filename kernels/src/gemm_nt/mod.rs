//! Products of a matrix with the transpose of another in f32, both as they lie: A x B^T, the queries and keys of an
//! attention.
//!
//! What is known at load is better packed, for [`crate::gemm`]. Here the values of a row of B follow one another in k, so
//! that four sums grow side by side: a product's order is not [`crate::gemm`]'s, but it is one, whatever the shape. A row
//! of C has the same bits whether it is computed alone or among others, in one call or in pieces.

mod cost;
pub mod naive;
pub mod portable;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub mod simd128;

pub use cost::estimate_instructions;

use crate::matrix::{MatrixMut, MatrixRef};
use std::ops::Range;

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
use portable as body;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use simd128 as body;

/// Rows `rows` of C = scale * (A x B^T): see [`naive::gemm_nt`] for what that is.
///
/// A is m x k, B n x k, C m x n. Rows outside the range are neither read nor written. The cost of a call is told by
/// [`estimate_instructions`].
///
/// # Panics
/// When shapes do not fit each other.
pub fn gemm_nt(a: MatrixRef<'_>, b: MatrixRef<'_>, scale: f32, rows: Range<usize>, c: &mut MatrixMut<'_>) {
    assert_eq!((a.rows, b.rows, a.columns), (c.rows, c.columns, b.columns), "A, B and C do not fit each other");
    assert!(rows.start <= rows.end && rows.end <= c.rows, "rows {rows:?} of {}", c.rows);
    body::gemm_nt(a, b, scale, rows, c);
}
