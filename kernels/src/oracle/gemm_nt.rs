//! Products with a transpose.

use super::gemm::SENTINEL;
use super::{Numbers, equal_bits};
use crate::gemm_nt;
use crate::matrix::{MatrixMut, MatrixRef};
use std::ops::Range;

/// Rows, k and columns.
const SHAPES: &[(usize, usize, usize)] = &[
    (0, 4, 4),
    (2, 0, 3),
    (3, 4, 0),
    (1, 1, 1),
    (1, 3, 5),
    (1, 64, 1),
    (1, 64, 200),
    (2, 64, 65),
    (7, 64, 63),
    (64, 64, 64),
    (9, 65, 66),
    (16, 31, 7),
    (17, 80, 10),
    (8, 130, 129),
    (33, 12, 4),
    (3, 32, 13),
    (1, 32, 4),
    (5, 32, 3),
];

type GemmNt = fn(MatrixRef<'_>, MatrixRef<'_>, f32, Range<usize>, &mut MatrixMut<'_>);

pub fn check(seed: u64) -> Result<u32, String> {
    let mut numbers = Numbers::new(seed);
    let mut checked = 0;
    for &(m, k, n) in SHAPES {
        for (round, gap) in [0, 5, 1003].into_iter().enumerate() {
            let make = |numbers: &mut Numbers, count| {
                if round == 2 { numbers.wild_floats(count) } else { numbers.floats(count) }
            };
            let (a, b) = (make(&mut numbers, m * (k + gap)), make(&mut numbers, n * (k + 2 * gap)));
            let a = MatrixRef::with_stride(&a, m, k, k + gap);
            let b = MatrixRef::with_stride(&b, n, k, k + 2 * gap);
            let scale = [1.0, 0.125, -0.3][round];
            let c_stride = n + gap;
            let mut reference = vec![SENTINEL; m * c_stride];
            gemm_nt::naive::gemm_nt(a, b, scale, &mut MatrixMut::with_stride(&mut reference, m, n, c_stride));
            let case = format!("{m} x {k} x {n}, gap {gap}");
            let bodies: [(&str, GemmNt); 2] =
                [("portable", gemm_nt::portable::gemm_nt), ("selected", gemm_nt::gemm_nt)];
            for (name, body) in bodies {
                let cut = numbers.below(m + 1);
                let mut output = vec![SENTINEL; m * c_stride];
                for rows in [cut..m, 0..cut] {
                    body(a, b, scale, rows, &mut MatrixMut::with_stride(&mut output, m, n, c_stride));
                }
                equal_bits("gemm_nt", name, &case, &reference, &output)?;
                checked += 1;
            }
        }
    }
    Ok(checked)
}
