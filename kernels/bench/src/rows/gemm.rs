//! Products of matrices, named m x k x n.

use super::Row;
use crate::meter::{floats, instructions};
use onnx_kernels::gemm::{self, PackedMatrix};
use onnx_kernels::gemm_nt;
use onnx_kernels::matrix::{Clamp, Epilogue, MatrixMut, MatrixRef};

pub fn rows() -> Vec<Row> {
    // What is asked of odd shapes is 15 % above the plain ones, per MAC of the shape padded to multiples of 4.
    let padded = |m: usize, k: usize, n: usize, asked: f64| {
        let padded = m * k.next_multiple_of(4) * n.next_multiple_of(4);
        Some(asked * 1.15 * padded as f64 / (m * k * n) as f64)
    };
    let mut rows = vec![
        product(512, 512, 512, Some(1.70)),
        product(97, 1000, 513, padded(97, 1000, 513, 1.70)),
        product(49, 960, 160, padded(49, 960, 160, 1.70)),
        vector(4096, 4096, Some(1.85)),
        vector(11008, 4096, padded(1, 11008, 4096, 1.85)),
        // MiniLM, 32 tokens.
        product(32, 384, 384, Some(1.85)),
        product(32, 384, 1536, Some(1.85)),
        product(32, 1536, 384, Some(1.85)),
        // The pointwise convolutions of EfficientNet-Lite0.
        product(12544, 27, 32, Some(1.85)),
        product(12544, 32, 16, Some(1.85)),
        product(12544, 16, 96, Some(1.85)),
        product(3136, 96, 24, Some(1.85)),
        product(3136, 24, 144, Some(1.85)),
        product(784, 144, 40, Some(1.85)),
        product(784, 40, 240, Some(1.85)),
        product(196, 240, 80, Some(1.85)),
        product(196, 80, 480, Some(1.85)),
        product(196, 480, 112, Some(1.85)),
        product(196, 672, 112, Some(1.85)),
        product(49, 672, 192, Some(1.85)),
        product(49, 192, 1152, Some(1.85)),
        product(49, 1152, 320, Some(1.85)),
        product(49, 320, 1280, Some(1.85)),
        vector(1280, 1000, Some(1.85)),
        // Few rows.
        product(2, 576, 576, Some(1.85)),
        product(3, 576, 576, Some(1.85)),
        product(4, 576, 576, Some(1.85)),
        product(5, 576, 576, Some(1.85)),
        product(7, 576, 576, Some(1.85)),
        product(16, 576, 576, Some(1.85)),
        vector(576, 1536, Some(1.85)),
        vector(288, 768, Some(1.85)),
        vector(100, 10, None),
    ];
    rows.push(unpacked(32, 32, 32));
    rows.push(unpacked(128, 64, 128));
    rows.push(unpacked(64, 300, 64));
    rows.push(unpacked(1, 64, 300));
    rows.push(unpacked(1, 300, 64));
    for (m, k, n) in [(1, 64, 300), (1, 64, 64), (7, 64, 64), (32, 32, 32), (128, 64, 128), (16, 80, 50), (1, 50, 30)] {
        rows.push(transposed(m, k, n));
    }
    for (k, n) in [(512, 512), (513, 97)] {
        rows.push(pack(k, n, false));
        rows.push(pack(k, n, true));
    }
    rows
}

fn product(m: usize, k: usize, n: usize, asked: Option<f64>) -> Row {
    Row {
        name: format!("gemm {m}x{k}x{n}"),
        work: (m * k * n) as u64,
        unit: "MAC",
        asked,
        estimate: Some(gemm::estimate_instructions(m, k, n)),
        run: Box::new(move || {
            let (a, b, bias, mut c) = (floats(m * k), floats(k * n), floats(n), vec![0.0; m * n]);
            let b = PackedMatrix::from_rows(MatrixRef::new(&b, k, n));
            let epilogue = Epilogue { bias: Some(&bias), residual: None, clamp: Clamp::RELU6 };
            instructions(|| {
                gemm::gemm(MatrixRef::new(&a, m, k), b.view(), &epilogue, 0..m, &mut MatrixMut::new(&mut c, m, n));
            })
        }),
    }
}

fn vector(k: usize, n: usize, asked: Option<f64>) -> Row {
    Row {
        name: format!("gemv 1x{k}x{n}"),
        work: (k * n) as u64,
        unit: "MAC",
        asked,
        estimate: Some(gemm::estimate_instructions(1, k, n)),
        run: Box::new(move || {
            let (x, b, mut y) = (floats(k), floats(k * n), vec![0.0; n]);
            let b = PackedMatrix::from_rows(MatrixRef::new(&b, k, n));
            instructions(|| gemm::gemv(&x, b.view(), &Epilogue::NONE, 0..n, &mut y))
        }),
    }
}

fn unpacked(m: usize, k: usize, n: usize) -> Row {
    Row {
        name: format!("gemm_unpacked {m}x{k}x{n}"),
        work: (m * k * n) as u64,
        unit: "MAC",
        asked: None,
        estimate: Some(gemm::estimate_instructions_unpacked(m, k, n)),
        run: Box::new(move || {
            let (a, b, mut c) = (floats(m * k), floats(k * n), vec![0.0; m * n]);
            let (a, b) = (MatrixRef::new(&a, m, k), MatrixRef::new(&b, k, n));
            instructions(|| {
                gemm::gemm_unpacked(a, b, &Epilogue::NONE, 0..m, &mut MatrixMut::new(&mut c, m, n));
            })
        }),
    }
}

fn transposed(m: usize, k: usize, n: usize) -> Row {
    Row {
        name: format!("gemm_nt {m}x{k}x{n}"),
        work: (m * k * n) as u64,
        unit: "MAC",
        asked: None,
        estimate: Some(gemm_nt::estimate_instructions(m, k, n)),
        run: Box::new(move || {
            let (a, b, mut c) = (floats(m * k), floats(k * n), vec![0.0; m * n]);
            let (a, b) = (MatrixRef::new(&a, m, k), MatrixRef::new(&b, n, k));
            instructions(|| gemm_nt::gemm_nt(a, b, 0.125, 0..m, &mut MatrixMut::new(&mut c, m, n)))
        }),
    }
}

fn pack(k: usize, n: usize, by_columns: bool) -> Row {
    Row {
        name: format!("pack_{} {k}x{n}", if by_columns { "columns" } else { "rows" }),
        work: (k * n) as u64,
        unit: "element",
        asked: None,
        estimate: None,
        run: Box::new(move || {
            let source = floats(k * n);
            let mut packed = vec![0.0; gemm::packed_len(k, n)];
            instructions(|| {
                if by_columns {
                    gemm::pack_columns(&mut packed, k, n, 0, MatrixRef::new(&source, n, k));
                } else {
                    gemm::pack_rows(&mut packed, k, n, 0, MatrixRef::new(&source, k, n));
                }
            })
        }),
    }
}
