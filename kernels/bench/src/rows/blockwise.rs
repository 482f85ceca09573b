//! Products with weights that have a scale every 32, named m x k x n.

use super::Row;
use crate::meter::instructions;
use onnx_kernels::blockwise::{
    Activations, Int4Source, Int4Weights, Int8Weights, Output, Rescale, Tile, estimate_int4_instructions,
    estimate_int8_instructions, gemm_int4, gemm_int8, pack_int4, padded_inner, prepare_int4, prepared_inner,
    scales_len,
};

/// The shapes of the table of what is asked, and how far an odd one may be above a plain one.
const SHAPES: [(usize, usize, usize, f64); 7] = [
    (1, 4096, 4096, 1.0),
    (512, 512, 512, 1.0),
    (97, 1000, 513, 1.15),
    (49, 960, 160, 1.15),
    (1, 11008, 4096, 1.15),
    (1, 576, 1536, f64::INFINITY),
    (3, 576, 1536, f64::INFINITY),
];

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (m, k, n, factor) in SHAPES {
        let padded = m * k.next_multiple_of(32) * n.next_multiple_of(4);
        let factor = factor * padded as f64 / (m * k * n) as f64;
        let asked = |gemv: f64, gemm: f64| {
            let asked = if m == 1 { gemv } else { gemm };
            factor.is_finite().then_some(asked * factor)
        };
        rows.push(int8(m, k, n, asked(0.72, 0.66)));
        rows.push(int4(m, k, n, false, asked(0.87, 0.75)));
        rows.push(int4(m, k, n, true, None));
    }
    rows.push(prepare(4096));
    rows.push(packing(512, 512));
    rows
}

fn int8(m: usize, k: usize, n: usize, asked: Option<f64>) -> Row {
    let run = move || {
        let stride = padded_inner(k);
        let (values, row_scales) = (vec![3; m * stride], vec![0.5; m]);
        let packed = vec![2; Int8Weights::packed_len(k, n).expect("small")];
        let scales = vec![0.5; scales_len(k, n).expect("small")];
        let mut output = vec![0.0; m * n];
        instructions(|| {
            let (weights, tile) = (Int8Weights::new(&packed, &scales, k, n), Tile { rows: 0..m, columns: 0..n });
            let rescale = Rescale { row_scales: &row_scales, bias: None };
            let output = Output { values: &mut output, stride: n };
            gemm_int8(Activations { values: &values, stride }, weights, rescale, tile, output);
        })
    };
    Row {
        name: format!("blockwise int8 {m}x{k}x{n}"),
        work: (m * k * n) as u64,
        unit: "MAC",
        asked,
        estimate: Some(estimate_int8_instructions(m, k, n)),
        run: Box::new(run),
    }
}

fn int4(m: usize, k: usize, n: usize, zero: bool, asked: Option<f64>) -> Row {
    let run = move || {
        let stride = prepared_inner(k);
        let (values, row_scales) = (vec![3; m * stride], vec![0.5; m]);
        let packed = vec![2; Int4Weights::packed_len(k, n).expect("small")];
        let scales = vec![0.5; scales_len(k, n).expect("small")];
        let zero_points = vec![16; Int4Weights::zero_points_len(k, n).expect("small")];
        let mut output = vec![0.0; m * n];
        instructions(|| {
            let weights = Int4Weights::new(&packed, &scales, zero.then_some(&zero_points[..]), k, n);
            let tile = Tile { rows: 0..m, columns: 0..n };
            let rescale = Rescale { row_scales: &row_scales, bias: None };
            let output = Output { values: &mut output, stride: n };
            gemm_int4(Activations { values: &values, stride }, weights, rescale, tile, output);
        })
    };
    Row {
        name: format!("blockwise int4 {}{m}x{k}x{n}", if zero { "zero points " } else { "" }),
        work: (m * k * n) as u64,
        unit: "MAC",
        asked,
        estimate: Some(estimate_int4_instructions(m, k, n, zero)),
        run: Box::new(run),
    }
}

fn prepare(k: usize) -> Row {
    let run = move || {
        let (row, mut output) = (vec![3; k], vec![0; prepared_inner(k)]);
        instructions(|| prepare_int4(&row, &mut output))
    };
    Row {
        name: format!("blockwise prepare int4 {k}"),
        work: k as u64,
        unit: "value",
        asked: None,
        estimate: None,
        run: Box::new(run),
    }
}

fn packing(k: usize, n: usize) -> Row {
    let run = move || {
        let bytes = vec![0x57; k * n / 2];
        let source_scales = vec![0.5; k / 32 * n];
        let mut packed = vec![0; Int4Weights::packed_len(k, n).expect("small")];
        let mut scales = vec![0.0; scales_len(k, n).expect("small")];
        instructions(|| {
            let source = Int4Source { bytes: &bytes, scales: &source_scales, zero_points: None, block_size: 32 };
            pack_int4(source, k, n, 0..n, &mut packed, &mut scales, &mut []);
        })
    };
    Row {
        name: format!("blockwise pack int4 {k}x{n}"),
        work: (k * n) as u64,
        unit: "weight",
        asked: None,
        estimate: None,
        run: Box::new(run),
    }
}
