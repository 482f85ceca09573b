//! What is measured.

mod blockwise;
mod cast;
mod conv;
mod copy;
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
mod winograd;

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
        blockwise::rows(),
        cast::rows(),
        conv::rows(),
        copy::rows(),
        depthwise::rows(),
        gemm::rows(),
        int8::rows(),
        norm::rows(),
        pointwise::rows(),
        pool::rows(),
        qconv::rows(),
        quantise::rows(),
        reduce::rows(),
        softmax::rows(),
        winograd::rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
