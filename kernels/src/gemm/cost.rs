//! What a product costs.

/// Metered instructions of [`super::gemm`] over `rows` rows with a packed `k` x `n` matrix, or of [`super::gemv`] with
/// `rows` = 1 and `n` columns. Without page charges.
pub fn estimate_instructions(rows: usize, k: usize, n: usize) -> u64 {
    2 * rows as u64 * k as u64 * n as u64
}

/// The same of [`super::gemm_unpacked`].
pub fn estimate_instructions_unpacked(rows: usize, k: usize, n: usize) -> u64 {
    estimate_instructions(rows, k, n)
}
