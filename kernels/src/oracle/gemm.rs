//! Products of matrices.

use super::{Numbers, equal_bits};
use crate::gemm::{self, PANEL_COLUMNS, PackedMatrix, PackedRef};
use crate::matrix::{Clamp, Epilogue, MatrixMut, MatrixRef};
use std::ops::Range;

/// Rows, k and columns. Sides of zero, one, and around every block size of the bodies.
const SHAPES: &[(usize, usize, usize)] = &[
    (0, 3, 5),
    (3, 0, 5),
    (3, 5, 0),
    (1, 1, 1),
    (2, 1, 2),
    (1, 2, 3),
    (5, 3, 4),
    (6, 4, 3),
    (1, 64, 32),
    (1, 63, 33),
    (1, 65, 64),
    (1, 129, 96),
    (1, 300, 45),
    (2, 97, 66),
    (7, 97, 66),
    (64, 97, 66),
    (4, 32, 32),
    (5, 32, 36),
    (9, 33, 28),
    (8, 31, 60),
    (13, 47, 24),
    (6, 27, 16),
    (6, 27, 61),
    (5, 27, 3),
    (3, 27, 12),
    (17, 48, 20),
    (11, 95, 12),
    (10, 16, 8),
    (12, 7, 40),
    (5, 159, 67),
    (300, 5, 9),
    (257, 34, 6),
    (513, 2, 3),
];

pub(super) const SENTINEL: f32 = 12345.5;

pub(super) const CLAMPS: [Clamp; 4] = [Clamp::NONE, Clamp::RELU, Clamp { low: -0.25, high: 0.5 }, Clamp::RELU6];

type Gemm = fn(MatrixRef<'_>, PackedRef<'_>, &Epilogue<'_>, Range<usize>, &mut MatrixMut<'_>);
type GemmUnpacked = fn(MatrixRef<'_>, MatrixRef<'_>, &Epilogue<'_>, Range<usize>, &mut MatrixMut<'_>);
type Gemv = fn(&[f32], PackedRef<'_>, &Epilogue<'_>, Range<usize>, &mut [f32]);

pub fn check(seed: u64) -> Result<u32, String> {
    let mut numbers = Numbers::new(seed);
    let mut checked = 0;
    for (index, &(m, k, n)) in SHAPES.iter().enumerate() {
        // Rows that touch, rows with a gap, rows far apart, and rows of A that overlap.
        let gaps = [(0, 0, 0, 0), (3, 1, 2, 5), (1000, 77, 501, 64)];
        for (round, (a_gap, b_gap, c_gap, residual_gap)) in gaps.into_iter().enumerate() {
            let a_stride = if round == 1 && index % 3 == 0 { k / 2 } else { k + a_gap };
            let (b_stride, c_stride, residual_stride) = (n + b_gap, n + c_gap, n + residual_gap);
            let make = |numbers: &mut Numbers, count| {
                if round == 2 { numbers.wild_floats(count) } else { numbers.floats(count) }
            };
            let a = make(&mut numbers, m * a_stride + k);
            let b = make(&mut numbers, k * b_stride);
            let bias = make(&mut numbers, n);
            let residual = make(&mut numbers, m * residual_stride);
            let a = MatrixRef::with_stride(&a, m, k, a_stride);
            let b = MatrixRef::with_stride(&b, k, n, b_stride);
            let packed = PackedMatrix::from_rows(b);
            check_packing(b, &packed, &mut numbers)?;
            for (fused, clamp) in CLAMPS.into_iter().enumerate() {
                let bias = (fused % 2 == 1).then_some(&bias[..]);
                let residual = (fused >= 2).then(|| MatrixRef::with_stride(&residual, m, n, residual_stride));
                let epilogue = Epilogue { bias, residual, clamp };
                let mut reference = vec![SENTINEL; m * c_stride];
                gemm::naive::gemm(a, b, &epilogue, &mut MatrixMut::with_stride(&mut reference, m, n, c_stride));
                let cut = numbers.below(m.max(1));
                let rows = [cut..m, 0..cut];
                let case = format!("{m} x {k} x {n}, strides {a_stride} {b_stride} {c_stride}, {epilogue:?}");
                let case = &case[..case.len().min(160)];

                let bodies: [(&str, Gemm); 2] = [("portable", gemm::portable::gemm), ("selected", gemm::gemm)];
                for (name, body) in bodies {
                    let mut output = vec![SENTINEL; m * c_stride];
                    for rows in &rows {
                        let mut c = MatrixMut::with_stride(&mut output, m, n, c_stride);
                        body(a, packed.view(), &epilogue, rows.clone(), &mut c);
                    }
                    equal_bits("gemm", name, case, &reference, &output)?;
                    checked += 1;
                }
                let bodies: [(&str, GemmUnpacked); 2] =
                    [("portable", gemm::portable::gemm_unpacked), ("selected", gemm::gemm_unpacked)];
                for (name, body) in bodies {
                    let mut output = vec![SENTINEL; m * c_stride];
                    for rows in &rows {
                        body(a, b, &epilogue, rows.clone(), &mut MatrixMut::with_stride(&mut output, m, n, c_stride));
                    }
                    equal_bits("gemm_unpacked", name, case, &reference, &output)?;
                    checked += 1;
                }
                let bodies: [(&str, Gemv); 2] = [("portable", gemm::portable::gemv), ("selected", gemm::gemv)];
                for (name, body) in bodies {
                    for row in (0..m).step_by(m / 3 + 1) {
                        let epilogue = Epilogue {
                            residual: epilogue.residual.map(|residual| MatrixRef::new(residual.row(row), 1, n)),
                            ..epilogue
                        };
                        let expected = &reference[row * c_stride..][..n];
                        let mut output = vec![SENTINEL; n];
                        let cut = numbers.below(n / PANEL_COLUMNS + 1) * PANEL_COLUMNS;
                        // In either order: a range leaves the other's columns alone.
                        let ranges = [cut..n, 0..cut];
                        let [first, second] =
                            if row % 2 == 0 { [0, 1] } else { [1, 0] }.map(|index| ranges[index].clone());
                        body(a.row(row), packed.view(), &epilogue, first.clone(), &mut output);
                        equal_bits("gemv", name, case, &expected[first.clone()], &output[first])?;
                        let untouched = vec![SENTINEL; second.len()];
                        equal_bits("gemv", name, case, &untouched, &output[second.clone()])?;
                        body(a.row(row), packed.view(), &epilogue, second, &mut output);
                        equal_bits("gemv", name, case, expected, &output)?;
                        checked += 1;
                    }
                }
            }
        }
    }
    checked += check_heights(&mut numbers)?;
    Ok(checked)
}

/// A row has the same bits in products of 1, 2, 7 and 64 rows, whatever they have in common.
fn check_heights(numbers: &mut Numbers) -> Result<u32, String> {
    let (k, n) = (331, 107);
    let (a, b, bias) = (numbers.floats(64 * k), numbers.floats(k * n), numbers.floats(n));
    let b = MatrixRef::new(&b, k, n);
    let packed = PackedMatrix::from_rows(b);
    let epilogue = Epilogue { bias: Some(&bias), ..Epilogue::NONE };
    let mut reference = vec![0.0; 64 * n];
    gemm::gemm(MatrixRef::new(&a, 64, k), packed.view(), &epilogue, 0..64, &mut MatrixMut::new(&mut reference, 64, n));
    let mut checked = 0;
    for m in [1, 2, 7, 64] {
        for first in [0, 64 - m] {
            let a = MatrixRef::new(&a[first * k..], m, k);
            let case = format!("rows {first}.. of 64, {m} at a time");
            let expected = &reference[first * n..][..m * n];
            let mut output = vec![SENTINEL; m * n];
            gemm::gemm(a, packed.view(), &epilogue, 0..m, &mut MatrixMut::new(&mut output, m, n));
            equal_bits("gemm", "selected", &case, expected, &output)?;
            gemm::gemm_unpacked(a, b, &epilogue, 0..m, &mut MatrixMut::new(&mut output, m, n));
            equal_bits("gemm_unpacked", "selected", &case, expected, &output)?;
            checked += 2;
        }
    }
    Ok(checked)
}

/// What was packed row by row is what is packed column by column, and what is read back.
fn check_packing(b: MatrixRef<'_>, packed: &PackedMatrix, numbers: &mut Numbers) -> Result<(), String> {
    let (k, n) = (b.rows(), b.columns());
    let transposed: Vec<f32> = (0..n).flat_map(|column| (0..k).map(move |row| b.row(row)[column])).collect();
    let case = format!("{k} x {n}");
    let mut by_columns = PackedMatrix::zeros(k, n);
    let cut = numbers.below(n + 1);
    by_columns.set_columns(cut, MatrixRef::new(&transposed[cut * k..], n - cut, k));
    by_columns.set_columns(0, MatrixRef::new(&transposed, cut, k));
    for packed in [packed, &by_columns] {
        let mut column = vec![SENTINEL; k];
        for (index, expected) in transposed.chunks_exact(k.max(1)).enumerate() {
            packed.view().read_column(index, &mut column);
            equal_bits("pack", "selected", &case, expected, &column)?;
        }
        let mut row = vec![SENTINEL; n];
        for index in 0..k {
            packed.view().read_row(index, &mut row);
            equal_bits("pack", "selected", &case, b.row(index), &row)?;
        }
    }
    Ok(())
}
