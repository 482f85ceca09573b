//! Numeric kernels, each in up to three bodies that give the same bits.
//!
//! * `naive` says what is computed, as plainly as can be; it is the reference.
//! * `portable` is what other targets run.
//! * `simd128` is what WebAssembly runs.
//!
//! What makes the bodies equal is stated with each kernel: integer sums that can't overflow, whose order is of no
//! consequence, or floating-point operations in a stated order with a rounding after each. Fused multiply-add and relaxed
//! SIMD round differently and are not used. Any NaN equals any other: which bits a NaN has is never promised.
//! [`oracle`] compares the bodies of the target it runs on.
//!
//! Arguments that contradict each other (a slice too short for its shape, a range out of bounds) are the caller's error:
//! kernels panic on them. Shapes that come from outside are checked where they enter, not here.

pub mod blockwise;
pub mod cast;
pub mod conv;
pub mod copy;
pub mod crc32;
pub mod depthwise;
pub mod gemm;
pub mod gemm_nt;
pub mod image;
pub mod int8;
pub mod lanes;
pub mod math;
pub mod matrix;
pub mod norm;
pub mod oracle;
pub mod pointwise;
pub mod pool;
pub mod qconv;
pub mod quantise;
pub mod reduce;
pub mod rotary;
pub mod softmax;
pub mod typed;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod unroll;
pub mod window;
pub mod winograd;
