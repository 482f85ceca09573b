//! Four f32 lanes: what the vector bodies are written in.
//!
//! A body written over [`Lanes`] is compiled twice: with [`portable::Four`], whose operations are plain scalar code, and
//! with `simd128::Four`, whose operations are single WebAssembly instructions. Every operation here is exact or rounded
//! once and acts on each lane by itself, so both give the same bits as the scalar code of the naive bodies; a NaN may
//! differ in its payload only.

pub mod portable;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub mod simd128;

/// The lanes that this target runs.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub use portable::Four as Native;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub use simd128::Four as Native;

/// Lanes of a vector.
pub const LANES: usize = 4;

/// Four f32 (or, after a comparison, four masks of all ones or all zeros; or four i32).
pub trait Lanes: Copy {
    fn splat(value: f32) -> Self;
    fn splat_bits(bits: u32) -> Self;
    /// # Safety
    /// Four f32 from `at` on are readable.
    unsafe fn load(at: *const f32) -> Self;
    /// # Safety
    /// Four f32 from `at` on are writable.
    unsafe fn store(self, at: *mut f32);
    /// Four u16, each widened to 32 bits.
    ///
    /// # Safety
    /// Four u16 from `at` on are readable.
    unsafe fn load_u16(at: *const u16) -> Self;
    /// The bits, which are below 2^16, as u16.
    ///
    /// # Safety
    /// Four u16 from `at` on are writable.
    unsafe fn store_u16(self, at: *mut u16);
    /// A lane from each place.
    ///
    /// # Safety
    /// Each is readable.
    unsafe fn gather(from: [*const f32; LANES]) -> Self;
    fn to_array(self) -> [f32; LANES];

    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    fn sqrt(self) -> Self;
    fn abs(self) -> Self;
    fn neg(self) -> Self;
    fn floor(self) -> Self;
    fn ceil(self) -> Self;
    fn trunc(self) -> Self;
    /// To the nearest integer, ties to even.
    fn nearest(self) -> Self;
    /// `if other < self { other } else { self }`: a NaN in `self` stays, one in `other` does not count.
    fn at_most(self, other: Self) -> Self;
    /// `if self < other { other } else { self }`: a NaN in `self` stays, one in `other` does not count.
    fn at_least(self, other: Self) -> Self;
    /// IEEE 754-2019 `minimum`: NaN if either is, and -0 is below +0.
    fn minimum(self, other: Self) -> Self;
    /// IEEE 754-2019 `maximum`.
    fn maximum(self, other: Self) -> Self;

    fn lt(self, other: Self) -> Self;
    fn le(self, other: Self) -> Self;
    fn eq(self, other: Self) -> Self;
    fn ne(self, other: Self) -> Self;
    fn and(self, other: Self) -> Self;
    fn or(self, other: Self) -> Self;
    fn xor(self, other: Self) -> Self;
    /// Whether any bit is one.
    fn any(self) -> bool;
    /// Bits of `yes` where the mask `self` has ones, of `no` elsewhere.
    fn select(self, yes: Self, no: Self) -> Self;

    /// Bits as 32-bit integers, wrapping.
    fn add_bits(self, other: Self) -> Self;
    fn sub_bits(self, other: Self) -> Self;
    fn shl_bits(self, by: u32) -> Self;
    /// Arithmetic.
    fn shr_bits(self, by: u32) -> Self;
    /// The i32 of the bits, as f32, rounded to nearest.
    fn to_float(self) -> Self;
    /// The f32 as i32 bits, towards zero, saturating; NaN becomes 0.
    fn to_int(self) -> Self;

    /// `(lane0 + lane2) + (lane1 + lane3)`.
    fn sum(self) -> f32;
    /// Lanes `[2, 3, _, _]` combined with `[0, 1, _, _]`, then lane 1 with lane 0.
    fn fold(self, combine: impl Fn(Self, Self) -> Self) -> f32;
    /// Rows become columns.
    fn transpose(rows: [Self; 4]) -> [Self; 4];
}

/// IEEE 754-2019 `minimum` of two numbers.
pub fn minimum(a: f32, b: f32) -> f32 {
    if a.is_nan() || b.is_nan() {
        a + b
    } else if a == b {
        f32::from_bits(a.to_bits() | b.to_bits())
    } else if a < b {
        a
    } else {
        b
    }
}

/// IEEE 754-2019 `maximum` of two numbers.
pub fn maximum(a: f32, b: f32) -> f32 {
    if a.is_nan() || b.is_nan() {
        a + b
    } else if a == b {
        f32::from_bits(a.to_bits() & b.to_bits())
    } else if a < b {
        b
    } else {
        a
    }
}
