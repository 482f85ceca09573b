//! Class scores to answers.

/// Softmax of `logits`, the same bits on every platform.
pub fn softmax(logits: &[f32]) -> Vec<f32> {
    let _ = logits;
    todo!()
}

/// Index and score of the `k` highest scores, highest first, the lower index first among equals.
pub fn top_k(scores: &[f32], k: usize) -> Vec<(usize, f32)> {
    let _ = (scores, k);
    todo!()
}
