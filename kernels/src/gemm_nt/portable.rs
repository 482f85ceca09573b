//! A body for any target, with four sums side by side.

use crate::matrix::{MatrixMut, MatrixRef};
use std::ops::Range;

/// See [`super::gemm_nt`].
pub fn gemm_nt(a: MatrixRef<'_>, b: MatrixRef<'_>, scale: f32, rows: Range<usize>, c: &mut MatrixMut<'_>) {
    for row in rows {
        let (vectors, rest) = a.row(row).as_chunks::<4>();
        for (column, place) in c.row_mut(row).iter_mut().enumerate() {
            let (b_vectors, b_rest) = b.row(column).as_chunks::<4>();
            let mut sums = [0.0f32; 4];
            for (a, b) in vectors.iter().zip(b_vectors) {
                for lane in 0..4 {
                    sums[lane] += a[lane] * b[lane];
                }
            }
            for ((sum, a), b) in sums.iter_mut().zip(rest).zip(b_rest) {
                *sum += a * b;
            }
            *place = ((sums[0] + sums[1]) + (sums[2] + sums[3])) * scale;
        }
    }
}
