//! The reference.

use crate::matrix::{MatrixMut, MatrixRef};

/// C = scale * (A x B^T): `c[i][j] = ((s0 + s1) + (s2 + s3)) * scale`, where `sr` starts with +0 and adds
/// `a[i][p] * b[j][p]` for those `p` that are r modulo 4, ascending; each operation rounded to f32.
pub fn gemm_nt(a: MatrixRef<'_>, b: MatrixRef<'_>, scale: f32, c: &mut MatrixMut<'_>) {
    for row in 0..c.rows {
        for column in 0..c.columns {
            let mut sums = [0.0f32; 4];
            for p in 0..a.columns {
                sums[p % 4] += a.row(row)[p] * b.row(column)[p];
            }
            c.row_mut(row)[column] = ((sums[0] + sums[1]) + (sums[2] + sums[3])) * scale;
        }
    }
}
