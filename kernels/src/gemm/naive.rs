//! The reference.

use crate::matrix::{Epilogue, MatrixMut, MatrixRef};

/// C = epilogue(A x B): every sum starts with its column's bias, or +0, and adds `a[i][p] * b[p][j]` for `p` ascending,
/// each product and each sum rounded to f32.
pub fn gemm(a: MatrixRef<'_>, b: MatrixRef<'_>, epilogue: &Epilogue<'_>, c: &mut MatrixMut<'_>) {
    assert_eq!((a.rows, b.columns, a.columns), (c.rows, c.columns, b.rows));
    for row in 0..c.rows {
        for column in 0..c.columns {
            let mut sum = epilogue.start(column);
            for p in 0..a.columns {
                sum += a.row(row)[p] * b.row(p)[column];
            }
            c.row_mut(row)[column] = epilogue.finish(row, column, sum);
        }
    }
}
