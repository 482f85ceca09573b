//! Lanes for any target.

use super::{LANES, Lanes, maximum, minimum};

/// Four f32 in an array.
#[derive(Clone, Copy, Debug)]
pub struct Four([f32; LANES]);

impl Four {
    #[inline(always)]
    fn map(self, function: impl Fn(f32) -> f32) -> Self {
        Self(self.0.map(function))
    }

    #[inline(always)]
    fn zip(self, other: Self, function: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|lane| function(self.0[lane], other.0[lane])))
    }

    #[inline(always)]
    fn zip_bits(self, other: Self, function: impl Fn(u32, u32) -> u32) -> Self {
        self.zip(other, |a, b| f32::from_bits(function(a.to_bits(), b.to_bits())))
    }

    #[inline(always)]
    fn compare(self, other: Self, function: impl Fn(f32, f32) -> bool) -> Self {
        self.zip(other, |a, b| f32::from_bits(if function(a, b) { u32::MAX } else { 0 }))
    }
}

impl Lanes for Four {
    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; LANES])
    }
    #[inline(always)]
    fn splat_bits(bits: u32) -> Self {
        Self([f32::from_bits(bits); LANES])
    }
    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        // SAFETY: the caller's; an array of f32 has the alignment of f32.
        Self(unsafe { at.cast::<[f32; LANES]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        // SAFETY: the caller's.
        unsafe { at.cast::<[f32; LANES]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn load_u16(at: *const u16) -> Self {
        // SAFETY: the caller's.
        let four = unsafe { at.cast::<[u16; LANES]>().read_unaligned() };
        Self(four.map(|bits| f32::from_bits(u32::from(bits))))
    }
    #[inline(always)]
    unsafe fn store_u16(self, at: *mut u16) {
        let four = self.0.map(|lane| lane.to_bits() as u16);
        // SAFETY: the caller's.
        unsafe { at.cast::<[u16; LANES]>().write_unaligned(four) }
    }
    #[inline(always)]
    unsafe fn gather(from: [*const f32; LANES]) -> Self {
        // SAFETY: the caller's.
        Self(from.map(|at| unsafe { *at }))
    }
    #[inline(always)]
    fn to_array(self) -> [f32; LANES] {
        self.0
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.map(f32::sqrt)
    }
    #[inline(always)]
    fn abs(self) -> Self {
        self.map(f32::abs)
    }
    #[inline(always)]
    fn neg(self) -> Self {
        self.map(|a| -a)
    }
    #[inline(always)]
    fn floor(self) -> Self {
        self.map(f32::floor)
    }
    #[inline(always)]
    fn ceil(self) -> Self {
        self.map(f32::ceil)
    }
    #[inline(always)]
    fn trunc(self) -> Self {
        self.map(f32::trunc)
    }
    #[inline(always)]
    fn nearest(self) -> Self {
        self.map(f32::round_ties_even)
    }
    #[inline(always)]
    fn at_most(self, other: Self) -> Self {
        self.zip(other, |a, b| if b < a { b } else { a })
    }
    #[inline(always)]
    fn at_least(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { b } else { a })
    }
    #[inline(always)]
    fn minimum(self, other: Self) -> Self {
        self.zip(other, minimum)
    }
    #[inline(always)]
    fn maximum(self, other: Self) -> Self {
        self.zip(other, maximum)
    }
    #[inline(always)]
    fn lt(self, other: Self) -> Self {
        self.compare(other, |a, b| a < b)
    }
    #[inline(always)]
    fn le(self, other: Self) -> Self {
        self.compare(other, |a, b| a <= b)
    }
    #[inline(always)]
    fn eq(self, other: Self) -> Self {
        self.compare(other, |a, b| a == b)
    }
    #[inline(always)]
    fn ne(self, other: Self) -> Self {
        self.compare(other, |a, b| a != b)
    }
    #[inline(always)]
    fn and(self, other: Self) -> Self {
        self.zip_bits(other, |a, b| a & b)
    }
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        self.zip_bits(other, |a, b| a | b)
    }
    #[inline(always)]
    fn xor(self, other: Self) -> Self {
        self.zip_bits(other, |a, b| a ^ b)
    }
    #[inline(always)]
    fn any(self) -> bool {
        self.0.iter().any(|lane| lane.to_bits() != 0)
    }
    #[inline(always)]
    fn select(self, yes: Self, no: Self) -> Self {
        self.and(yes).or(self.zip_bits(no, |mask, no| !mask & no))
    }
    #[inline(always)]
    fn add_bits(self, other: Self) -> Self {
        self.zip_bits(other, u32::wrapping_add)
    }
    #[inline(always)]
    fn sub_bits(self, other: Self) -> Self {
        self.zip_bits(other, u32::wrapping_sub)
    }
    #[inline(always)]
    fn shl_bits(self, by: u32) -> Self {
        self.map(|a| f32::from_bits(a.to_bits() << by))
    }
    #[inline(always)]
    fn shr_bits(self, by: u32) -> Self {
        self.map(|a| f32::from_bits(((a.to_bits() as i32) >> by) as u32))
    }
    #[inline(always)]
    fn to_float(self) -> Self {
        self.map(|a| a.to_bits() as i32 as f32)
    }
    #[inline(always)]
    fn to_int(self) -> Self {
        self.map(|a| f32::from_bits(a as i32 as u32))
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        let [a, b, c, d] = self.0;
        (a + c) + (b + d)
    }
    #[inline(always)]
    fn fold(self, combine: impl Fn(Self, Self) -> Self) -> f32 {
        let [a, b, c, d] = self.0;
        let pair = combine(Self([a, b, a, b]), Self([c, d, c, d]));
        let [a, b, ..] = pair.0;
        combine(Self([a; LANES]), Self([b; LANES])).0[0]
    }
    #[inline(always)]
    fn transpose(rows: [Self; 4]) -> [Self; 4] {
        std::array::from_fn(|column| Self(std::array::from_fn(|row| rows[row].0[column])))
    }
}
