//! Products with int8 weights, named m x k x n: `f32` rescaled to floats, `u8` brought back to an 8-bit grid.

use super::Row;
use crate::meter::instructions;
use onnx_kernels::int8::{
    Activations, Output, Requantise, Rescale, Source, Tile, Weights, estimate_instructions,
    estimate_instructions_requantised, gemm_f32, gemm_requantised, pack, padded_inner,
};

pub fn rows() -> Vec<Row> {
    // What is asked of odd shapes is 15 % above the plain ones, per MAC of the shape padded to the groups of the packing.
    let padded = |m: usize, k: usize, n: usize, asked: f64| {
        let padded = m * k.next_multiple_of(8) * n.next_multiple_of(4);
        Some(asked * 1.15 * padded as f64 / (m * k * n) as f64)
    };
    let mut rows = vec![
        rescaled(512, 512, 512, Some(0.60)),
        rescaled(1, 4096, 4096, Some(0.67)),
        rescaled(97, 1000, 513, padded(97, 1000, 513, 0.60)),
        rescaled(49, 960, 160, padded(49, 960, 160, 0.60)),
        rescaled(1, 11008, 4096, padded(1, 11008, 4096, 0.67)),
        // MiniLM, 32 tokens.
        rescaled(32, 384, 384, None),
        rescaled(32, 384, 1536, None),
        rescaled(32, 1536, 384, None),
        // SmolLM2-135M, a token.
        rescaled(1, 576, 576, None),
        rescaled(1, 576, 1536, None),
        rescaled(1, 1536, 576, None),
        rescaled(1, 576, 49152, None),
        // Few rows.
        rescaled(2, 576, 576, None),
        rescaled(3, 576, 576, None),
        rescaled(4, 576, 576, None),
        rescaled(7, 576, 576, None),
        rescaled(1, 100, 10, None),
    ];
    // The pointwise convolutions of EfficientNet-Lite0, its stem after gathering, and its classifier.
    for (m, k, n) in [
        (12544, 27, 32),
        (12544, 32, 16),
        (12544, 16, 96),
        (3136, 96, 24),
        (3136, 24, 144),
        (3136, 144, 24),
        (784, 144, 40),
        (784, 40, 240),
        (784, 240, 40),
        (196, 240, 80),
        (196, 80, 480),
        (196, 480, 80),
        (196, 480, 112),
        (196, 112, 672),
        (196, 672, 112),
        (49, 672, 192),
        (49, 192, 1152),
        (49, 1152, 192),
        (49, 1152, 320),
        (49, 320, 1280),
        (1, 1280, 1000),
    ] {
        rows.push(requantised(m, k, n));
    }
    for (k, n) in [(512, 512), (576, 1536)] {
        rows.push(packing(k, n, false));
        rows.push(packing(k, n, true));
    }
    rows
}

fn rescaled(m: usize, k: usize, n: usize, asked: Option<f64>) -> Row {
    let run = move || {
        let stride = padded_inner(k);
        let (values, packed) = (vec![3; m * stride], vec![2; Weights::packed_len(k, n).expect("small")]);
        let (row_scales, column_scales, bias) = (vec![0.5; m], vec![0.5; n], vec![0.25; n]);
        let rescale = Rescale { row_scales: &row_scales, column_scales: &column_scales, bias: Some(&bias) };
        let mut output = vec![0.0; m * n];
        instructions(|| {
            let (weights, tile) = (Weights::new(&packed, k, n), Tile { rows: 0..m, columns: 0..n });
            let output = Output { values: &mut output, stride: n };
            gemm_f32(Activations { values: &values, stride }, weights, rescale, tile, output);
        })
    };
    Row {
        name: format!("int8 f32 {m}x{k}x{n}"),
        work: (m * k * n) as u64,
        unit: "MAC",
        asked,
        estimate: Some(estimate_instructions(m, k, n)),
        run: Box::new(run),
    }
}

fn requantised(m: usize, k: usize, n: usize) -> Row {
    let run = move || {
        let stride = padded_inner(k);
        let (values, packed) = (vec![3; m * stride], vec![2; Weights::packed_len(k, n).expect("small")]);
        let (multipliers, bias) = (vec![0.01; n], vec![17; n]);
        let requantise = Requantise { multipliers: &multipliers, bias: Some(&bias), low: 0, high: 255 };
        let mut output = vec![0; m * n];
        instructions(|| {
            let (weights, tile) = (Weights::new(&packed, k, n), Tile { rows: 0..m, columns: 0..n });
            let output = Output { values: &mut output, stride: n };
            gemm_requantised(Activations { values: &values, stride }, weights, requantise, tile, output);
        })
    };
    Row {
        name: format!("int8 u8 {m}x{k}x{n}"),
        work: (m * k * n) as u64,
        unit: "MAC",
        asked: None,
        estimate: Some(estimate_instructions_requantised(m, k, n)),
        run: Box::new(run),
    }
}

/// Packing k x n weights that are stored row by row, or column by column.
fn packing(k: usize, n: usize, transposed: bool) -> Row {
    let run = move || {
        let (bytes, mut packed) = (vec![1; k * n], vec![0; Weights::packed_len(k, n).expect("small")]);
        let (row_stride, column_stride) = if transposed { (1, k) } else { (n, 1) };
        instructions(|| {
            pack(Source { bytes: &bytes, row_stride, column_stride, unsigned: false }, k, n, 0..n, &mut packed);
        })
    };
    Row {
        name: format!("int8 pack {}{k}x{n}", if transposed { "transposed " } else { "" }),
        work: (k * n) as u64,
        unit: "weight",
        asked: None,
        estimate: None,
        run: Box::new(run),
    }
}
