//! Lanes as WebAssembly vectors.

use super::{LANES, Lanes};
use std::arch::wasm32::*;

/// A vector.
#[derive(Clone, Copy, Debug)]
pub struct Four(v128);

impl Lanes for Four {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self(f32x4_splat(value))
    }
    #[inline(always)]
    fn splat_bits(bits: u32) -> Self {
        Self(u32x4_splat(bits))
    }
    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        // SAFETY: the caller's; v128.load needs no alignment.
        Self(unsafe { v128_load(at.cast()) })
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        // SAFETY: the caller's; v128.store needs no alignment.
        unsafe { v128_store(at.cast(), self.0) }
    }
    #[inline(always)]
    unsafe fn load_u16(at: *const u16) -> Self {
        // SAFETY: the caller's; the load needs no alignment.
        Self(unsafe { u32x4_load_extend_u16x4(at) })
    }
    #[inline(always)]
    unsafe fn store_u16(self, at: *mut u16) {
        // SAFETY: the caller's; the store needs no alignment.
        unsafe { v128_store64_lane::<0>(u16x8_narrow_i32x4(self.0, self.0), at.cast()) }
    }
    #[inline(always)]
    unsafe fn gather(from: [*const f32; LANES]) -> Self {
        let [a, b, c, d] = from.map(|at| at.cast::<u32>());
        // SAFETY: the caller's.
        unsafe {
            let vector = v128_load32_zero(a);
            let vector = v128_load32_lane::<1>(vector, b);
            let vector = v128_load32_lane::<2>(vector, c);
            Self(v128_load32_lane::<3>(vector, d))
        }
    }
    #[inline(always)]
    fn to_array(self) -> [f32; LANES] {
        [
            f32x4_extract_lane::<0>(self.0),
            f32x4_extract_lane::<1>(self.0),
            f32x4_extract_lane::<2>(self.0),
            f32x4_extract_lane::<3>(self.0),
        ]
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(f32x4_add(self.0, other.0))
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(f32x4_sub(self.0, other.0))
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(f32x4_mul(self.0, other.0))
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        Self(f32x4_div(self.0, other.0))
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        Self(f32x4_sqrt(self.0))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Self(f32x4_abs(self.0))
    }
    #[inline(always)]
    fn neg(self) -> Self {
        Self(f32x4_neg(self.0))
    }
    #[inline(always)]
    fn floor(self) -> Self {
        Self(f32x4_floor(self.0))
    }
    #[inline(always)]
    fn ceil(self) -> Self {
        Self(f32x4_ceil(self.0))
    }
    #[inline(always)]
    fn trunc(self) -> Self {
        Self(f32x4_trunc(self.0))
    }
    #[inline(always)]
    fn nearest(self) -> Self {
        Self(f32x4_nearest(self.0))
    }
    #[inline(always)]
    fn at_most(self, other: Self) -> Self {
        Self(f32x4_pmin(self.0, other.0))
    }
    #[inline(always)]
    fn at_least(self, other: Self) -> Self {
        Self(f32x4_pmax(self.0, other.0))
    }
    #[inline(always)]
    fn minimum(self, other: Self) -> Self {
        Self(f32x4_min(self.0, other.0))
    }
    #[inline(always)]
    fn maximum(self, other: Self) -> Self {
        Self(f32x4_max(self.0, other.0))
    }
    #[inline(always)]
    fn lt(self, other: Self) -> Self {
        Self(f32x4_lt(self.0, other.0))
    }
    #[inline(always)]
    fn le(self, other: Self) -> Self {
        Self(f32x4_le(self.0, other.0))
    }
    #[inline(always)]
    fn eq(self, other: Self) -> Self {
        Self(f32x4_eq(self.0, other.0))
    }
    #[inline(always)]
    fn ne(self, other: Self) -> Self {
        Self(f32x4_ne(self.0, other.0))
    }
    #[inline(always)]
    fn and(self, other: Self) -> Self {
        Self(v128_and(self.0, other.0))
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        Self(v128_or(self.0, other.0))
    }
    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        Self(v128_xor(self.0, other.0))
    }
    #[inline(always)]
    fn any(self) -> bool {
        v128_any_true(self.0)
    }
    #[inline(always)]
    fn select(self, yes: Self, no: Self) -> Self {
        Self(v128_bitselect(yes.0, no.0, self.0))
    }
    #[inline(always)]
    fn add_bits(self, other: Self) -> Self {
        Self(i32x4_add(self.0, other.0))
    }
    #[inline(always)]
    fn sub_bits(self, other: Self) -> Self {
        Self(i32x4_sub(self.0, other.0))
    }
    #[inline(always)]
    fn shl_bits(self, by: u32) -> Self {
        Self(i32x4_shl(self.0, by))
    }
    #[inline(always)]
    fn shr_bits(self, by: u32) -> Self {
        Self(i32x4_shr(self.0, by))
    }
    #[inline(always)]
    fn to_float(self) -> Self {
        Self(f32x4_convert_i32x4(self.0))
    }
    #[inline(always)]
    fn to_int(self) -> Self {
        Self(i32x4_trunc_sat_f32x4(self.0))
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        self.fold(|a, b| a.add(b))
    }
    #[inline(always)]
    fn fold(self, combine: impl Fn(Self, Self) -> Self) -> f32 {
        let pair = combine(self, Self(i32x4_shuffle::<2, 3, 2, 3>(self.0, self.0)));
        f32x4_extract_lane::<0>(combine(pair, Self(i32x4_shuffle::<1, 1, 1, 1>(pair.0, pair.0))).0)
    }
    #[inline(always)]
    fn transpose(rows: [Self; 4]) -> [Self; 4] {
        let [a, b, c, d] = rows.map(|row| row.0);
        let ab_low = i32x4_shuffle::<0, 4, 1, 5>(a, b);
        let ab_high = i32x4_shuffle::<2, 6, 3, 7>(a, b);
        let cd_low = i32x4_shuffle::<0, 4, 1, 5>(c, d);
        let cd_high = i32x4_shuffle::<2, 6, 3, 7>(c, d);
        [
            Self(i64x2_shuffle::<0, 2>(ab_low, cd_low)),
            Self(i64x2_shuffle::<1, 3>(ab_low, cd_low)),
            Self(i64x2_shuffle::<0, 2>(ab_high, cd_high)),
            Self(i64x2_shuffle::<1, 3>(ab_high, cd_high)),
        ]
    }
}
