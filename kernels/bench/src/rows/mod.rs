//! What is measured.

mod blockwise;
mod conv;
mod depthwise;
mod gemm;
mod int8;
mod norm;
mod pointwise;
mod pool;
mod qconv;
mod quantise;
mod reduce;
mod softmax;

/// One measurement.
pub struct Row {
    /// The kernel and its shape, such as `gemm 97x1000x513`.
    pub name: String,
    /// How much there is to do, in `unit`s.
    pub work: u64,
    /// What the cost is divided by: `MAC` or `element`.
    pub unit: &'static str,
    /// Instructions per unit that it may cost at most.
    pub asked: Option<f64>,
    /// What the kernel's cost model says.
    pub estimate: Option<u64>,
    /// Prepares the operands and tells the metered instructions of the kernel: see [`crate::meter::instructions`].
    pub run: Box<dyn Fn() -> u64>,
}

/// Every row, family by family.
pub fn all() -> Vec<Row> {
    [
        gemm::rows(),
        conv::rows(),
        depthwise::rows(),
        norm::rows(),
        pointwise::rows(),
        pool::rows(),
        reduce::rows(),
        softmax::rows(),
        int8::rows(),
        blockwise::rows(),
        qconv::rows(),
        quantise::rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
