//! Casts between element types.
//!
//! Half precision: exact to f32; from f32 to the nearest, ties to even, with subnormals, and infinity from 65520 on (IEEE
//! 754-2019 `convertFormat`). The others are Rust's `as`: a float becomes the integer towards zero, saturated, NaN 0;
//! integers wrap; integers and f64 become the nearest float. To bool is `!= 0`, and a bool is 0 or 1.

mod bytes;
mod half;
pub mod naive;
mod number;

pub use bytes::{Type, cast_bytes};
pub use number::{Bool, Cast, Number, cast, estimate_instructions};

use crate::lanes::Native;

/// IEEE 754 binary16, as bits, to f32.
///
/// # Panics
/// When lengths differ.
pub fn f16_to_f32(input: &[u16], output: &mut [f32]) {
    half::f16_to_f32::<Native>(input, output);
}

/// f32 to IEEE 754 binary16, as bits.
///
/// # Panics
/// When lengths differ.
pub fn f32_to_f16(input: &[f32], output: &mut [u16]) {
    half::f32_to_f16::<Native>(input, output);
}

/// bfloat16, as bits, to f32.
///
/// # Panics
/// When lengths differ.
pub fn bf16_to_f32(input: &[u16], output: &mut [f32]) {
    half::bf16_to_f32::<Native>(input, output);
}

/// f32 to bfloat16, as bits: the nearest, ties to even.
///
/// # Panics
/// When lengths differ.
pub fn f32_to_bf16(input: &[f32], output: &mut [u16]) {
    half::f32_to_bf16::<Native>(input, output);
}

/// A cast of half precision, for its cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    FromF16,
    ToF16,
    FromBf16,
    ToBf16,
}

impl Half {
    /// Metered instructions for `elements`, in WebAssembly with SIMD and without page charges.
    pub fn estimate_instructions(self, elements: usize) -> u64 {
        let vector = match self {
            Self::FromF16 => 29,
            Self::ToF16 => 58,
            Self::FromBf16 => 10,
            Self::ToBf16 => 31,
        };
        200 + elements as u64 * vector / 4
    }
}

/// Bodies for any target.
pub mod portable {
    use super::half;
    use crate::lanes::portable::Four;

    /// See [`super::f16_to_f32`].
    pub fn f16_to_f32(input: &[u16], output: &mut [f32]) {
        half::f16_to_f32::<Four>(input, output);
    }

    /// See [`super::f32_to_f16`].
    pub fn f32_to_f16(input: &[f32], output: &mut [u16]) {
        half::f32_to_f16::<Four>(input, output);
    }

    /// See [`super::bf16_to_f32`].
    pub fn bf16_to_f32(input: &[u16], output: &mut [f32]) {
        half::bf16_to_f32::<Four>(input, output);
    }

    /// See [`super::f32_to_bf16`].
    pub fn f32_to_bf16(input: &[f32], output: &mut [u16]) {
        half::f32_to_bf16::<Four>(input, output);
    }
}
