//! Numeric kernels, each in up to three bodies that give the same bits.
//!
//! * `naive` says what is computed, as plainly as can be; it is the reference.
//! * `portable` is what other targets run.
//! * `simd128` is what WebAssembly runs.
//!
//! What makes the bodies equal is stated with each kernel: integer sums that can't overflow, whose order is of no
//! consequence, or floating-point operations in a stated order with a rounding after each. Fused multiply-add and relaxed
//! SIMD round differently and are not used. [`oracle`] compares the bodies of the target it runs on.

pub mod blockwise;
pub mod image;
pub mod int8;
pub mod oracle;
pub mod qconv;
pub mod quantise;
