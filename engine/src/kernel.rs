//! Element by element, row and layout kernels.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReduceKind { Sum, Mean, Max, Min }

impl ReduceKind {
    pub fn name(self) -> &'static str {
        match self { Self::Sum => "ReduceSum", Self::Mean => "ReduceMean", Self::Max => "ReduceMax", Self::Min => "ReduceMin" }
    }
}

/// `input` is `reduced` rows of `output.len()` values.
pub(crate) fn reduce(kind: ReduceKind, input: &[f32], reduced: usize, output: &mut [f32]) {
    let after = output.len();
    output.fill(match kind { ReduceKind::Sum | ReduceKind::Mean => 0.0, ReduceKind::Max => f32::NEG_INFINITY, ReduceKind::Min => f32::INFINITY });
    for row in 0..reduced {
        for (output, x) in output.iter_mut().zip(&input[row * after..]) {
            *output = match kind { ReduceKind::Sum | ReduceKind::Mean => *output + x, ReduceKind::Max => if *x > *output || x.is_nan() { *x } else { *output }, ReduceKind::Min => if *x < *output || x.is_nan() { *x } else { *output } };
        }
    }
    if kind == ReduceKind::Mean { output.iter_mut().for_each(|x| *x /= reduced as f32); }
}

/// A stand-in exponential until the row kernels are here.
fn exp(x: f32) -> f32 {
    // exp(x) = 2^n exp(r), |r| <= ln 2 / 2
    if x < -87.0 { return 0.0; }
    if x > 88.0 { return f32::INFINITY; }
    let n = (x * std::f32::consts::LOG2_E + 0.5).floor();
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 5.0e-1;
    let y = p * r * r + r + 1.0;
    y * f32::from_bits((((n as i32) + 127) as u32) << 23)
}

pub(crate) fn softmax(input: &[f32], output: &mut [f32]) {
    let max = input.iter().fold(f32::NEG_INFINITY, |max, x| if *x > max { *x } else { max });
    let mut sum = 0.0;
    for (output, x) in output.iter_mut().zip(input) { *output = exp(x - max); sum += *output; }
    let scale = 1.0 / sum;
    output.iter_mut().for_each(|x| *x *= scale);
}

pub(crate) fn transpose(input: &[u8], shape: &[usize], permutation: &[usize], element_bytes: usize, output: &mut [u8]) {
    let mut strides = vec![element_bytes; shape.len()];
    for axis in (0..shape.len().saturating_sub(1)).rev() { strides[axis] = strides[axis + 1] * shape[axis + 1]; }
    let sizes: Vec<usize> = permutation.iter().map(|axis| shape[*axis]).collect();
    let steps: Vec<usize> = permutation.iter().map(|axis| strides[*axis]).collect();
    let mut index = vec![0; sizes.len()];
    let mut at = 0;
    for output in output.chunks_exact_mut(element_bytes) {
        output.copy_from_slice(&input[at..at + element_bytes]);
        for axis in (0..sizes.len()).rev() {
            index[axis] += 1;
            at += steps[axis];
            if index[axis] < sizes[axis] { break; }
            at -= steps[axis] * sizes[axis];
            index[axis] = 0;
        }
    }
}
