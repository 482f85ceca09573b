//! Half precision, four at a time.

use crate::lanes::{LANES, Lanes};

/// f32 bits of infinity.
const INFINITY: u32 = 0x7f80_0000;

#[inline(always)]
fn f16_lanes<V: Lanes>(bits: V) -> V {
    // As f32 the exponent and fraction are 2^112 times too small, subnormals too; the product is exact.
    let magnitude = bits.and(V::splat_bits(0x7fff)).shl_bits(13);
    let value = magnitude.mul(V::splat_bits((127 + 112) << 23));
    // Of infinity and NaN the exponent has to be all ones: 65536 and more.
    let special = V::splat(65_536.0).le(value).and(V::splat_bits(INFINITY));
    value.or(special).or(bits.and(V::splat_bits(0x8000)).shl_bits(16))
}

#[inline(always)]
fn to_f16_lanes<V: Lanes>(value: V) -> V {
    let bits_and = |a: V, bits: u32| a.and(V::splat_bits(bits));
    let magnitude = bits_and(value, 0x7fff_ffff);
    let sign = bits_and(value, 0x8000_0000).shr_bits(16);
    // The exponent is 112 less; what is cut off rounds to nearest, ties to even. Rounded up far enough it is infinity.
    let odd = bits_and(magnitude.shr_bits(13), 1);
    let normal = magnitude.add_bits(odd).sub_bits(V::splat_bits((112 << 23) - 0xfff)).shr_bits(13);
    // Added to 1/2, whose unit in the last place is that of half-precision subnormals, a number is rounded to it.
    let subnormal = magnitude.add(V::splat(0.5)).sub_bits(V::splat(0.5));
    let infinite = V::splat(65_520.0).le(magnitude);
    let nan = bits_and(magnitude.ne(magnitude), 0x200);
    let finite = magnitude.lt(V::splat_bits(113 << 23)).select(subnormal, normal);
    let special = V::splat_bits(0x7c00).or(nan);
    let result = infinite.or(magnitude.ne(magnitude)).select(special, finite);
    bits_and(result.or(sign), 0xffff)
}

#[inline(always)]
fn to_bf16_lanes<V: Lanes>(value: V) -> V {
    let odd = V::splat_bits(1).and(value.shr_bits(16));
    let rounded = value.add_bits(odd).add_bits(V::splat_bits(0x7fff));
    let quiet = value.or(V::splat_bits(0x40_0000));
    let result = value.ne(value).select(quiet, rounded);
    result.shr_bits(16).and(V::splat_bits(0xffff))
}

/// Elements of a block.
const BLOCK: usize = 8 * LANES;

macro_rules! walk {
    ($(#[$doc:meta])* $name:ident, $block:ident, $from:ty, $to:ty, |$at:ident| $load:expr, $function:expr, $store:ident) => {
        #[inline(never)]
        unsafe fn $block<V: Lanes>(from: *const $from, to: *mut $to) {
            let one = |vector: usize| {
                // SAFETY: the caller's, for eight vectors.
                unsafe {
                    let $at = from.add(vector * LANES);
                    $function($load).$store(to.add(vector * LANES));
                }
            };
            one(0);
            one(1);
            one(2);
            one(3);
            one(4);
            one(5);
            one(6);
            one(7);
        }

        $(#[$doc])*
        pub fn $name<V: Lanes>(input: &[$from], output: &mut [$to]) {
            assert_eq!(input.len(), output.len(), "input and output differ in length");
            let (blocks, rest) = (input.len() / BLOCK * BLOCK, input.len() % BLOCK);
            for at in (0..blocks).step_by(BLOCK) {
                // SAFETY: a block from `at` on is within both.
                unsafe { $block::<V>(input.as_ptr().add(at), output.as_mut_ptr().add(at)) };
            }
            if rest > 0 {
                let (mut from, mut to) = ([Default::default(); BLOCK], [Default::default(); BLOCK]);
                from[..rest].copy_from_slice(&input[blocks..]);
                // SAFETY: a block each.
                unsafe { $block::<V>(from.as_ptr(), to.as_mut_ptr()) };
                output[blocks..].copy_from_slice(&to[..rest]);
            }
        }
    };
}

walk!(
    /// See [`super::f16_to_f32`].
    f16_to_f32, f16_block, u16, f32, |at| V::load_u16(at), f16_lanes::<V>, store
);
walk!(
    /// See [`super::f32_to_f16`].
    f32_to_f16, to_f16_block, f32, u16, |at| V::load(at), to_f16_lanes::<V>, store_u16
);
walk!(
    /// See [`super::bf16_to_f32`].
    bf16_to_f32, bf16_block, u16, f32, |at| V::load_u16(at), |bits: V| bits.shl_bits(16), store
);
walk!(
    /// See [`super::f32_to_bf16`].
    f32_to_bf16, to_bf16_block, f32, u16, |at| V::load(at), to_bf16_lanes::<V>, store_u16
);
