//! WebAssembly bodies with 128-bit SIMD.

pub use super::portable::*;
