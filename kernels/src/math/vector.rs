//! The functions of [`super`] on four lanes, operation for operation.

use super::*;
use crate::lanes::Lanes;

/// `value` within `low..=high`.
#[inline(always)]
pub fn clamp<V: Lanes>(value: V, low: V, high: V) -> V {
    value.at_least(low).at_most(high)
}

#[inline(always)]
fn polynomial<V: Lanes, const N: usize>(x: V, coefficients: &[u32; N]) -> V {
    let mut sum = V::splat_bits(coefficients[N - 1]);
    let mut index = N - 1;
    while index > 0 {
        index -= 1;
        sum = sum.mul(x).add(V::splat_bits(coefficients[index]));
    }
    sum
}

/// See [`super::exp`].
#[inline(always)]
pub fn exp<V: Lanes>(x: V) -> V {
    let x = clamp(x, V::splat(EXP_LOW), V::splat(EXP_HIGH));
    let rounded = x.mul(V::splat(LOG2_E)).add(V::splat(EXP_ROUNDER));
    let n = rounded.sub(V::splat(EXP_ROUNDER));
    let r = x.sub(n.mul(V::splat(LN_2_HIGH))).sub(n.mul(V::splat(LN_2_LOW)));
    let twice = polynomial(r, &EXP_TWICE).mul(r).add(V::splat(2.0)).mul(r).add(V::splat(2.0));
    twice.mul(rounded.shl_bits(23))
}

/// [`exp`] of `-x`, to the bit: with -r in place of r, each step changes signs only.
#[inline(always)]
pub fn exp_of_negated<V: Lanes>(x: V) -> V {
    let x = clamp(x, V::splat(-EXP_HIGH), V::splat(-EXP_LOW));
    let rounded = x.mul(V::splat(-LOG2_E)).add(V::splat(EXP_ROUNDER));
    let n = rounded.sub(V::splat(EXP_ROUNDER));
    let minus_r = x.add(n.mul(V::splat(LN_2_HIGH))).add(n.mul(V::splat(LN_2_LOW)));
    let mut sum = V::splat_bits(EXP_TWICE[3]);
    for bits in [EXP_TWICE[2], EXP_TWICE[1], EXP_TWICE[0], 2.0f32.to_bits(), 2.0f32.to_bits()] {
        sum = V::splat_bits(bits).sub(sum.mul(minus_r));
    }
    sum.mul(rounded.shl_bits(23))
}

/// See [`super::expm1_of_negative`].
#[inline(always)]
pub fn expm1_of_negative<V: Lanes>(x: V) -> V {
    let x = clamp(x, V::splat(EXP_LOW), V::splat(0.0));
    let rounded = x.mul(V::splat(LOG2_E)).add(V::splat(EXPM1_ROUNDER));
    let n = rounded.sub(V::splat(EXPM1_ROUNDER));
    let r = x.sub(n.mul(V::splat(LN_2_HIGH))).sub(n.mul(V::splat(LN_2_LOW)));
    let sum = polynomial(r, &EXPM1).mul(r).mul(r).add(r);
    let scale = rounded.shl_bits(23);
    sum.mul(scale).add(scale.sub(V::splat(1.0)))
}

/// See [`super::exp_of_difference`].
#[inline(always)]
pub fn exp_of_difference<V: Lanes>(x: V) -> V {
    let power = x.mul(V::splat(LOG2_E)).at_least(V::splat(EXP2_LOW));
    let rounded = power.add(V::splat(EXPM1_ROUNDER));
    let f = power.sub(rounded.sub(V::splat(EXPM1_ROUNDER)));
    let sum = polynomial(f, &EXP2).mul(f).add(V::splat(1.0));
    sum.mul(rounded.shl_bits(23))
}

/// See [`super::log`].
#[inline(always)]
pub fn log<V: Lanes>(x: V) -> V {
    let zero = V::splat(0.0);
    let subnormal = x.lt(V::splat(f32::MIN_POSITIVE));
    let scaled = subnormal.select(x.mul(V::splat(8_388_608.0)), x);
    let exponent = scaled.sub_bits(V::splat_bits(SQRT_HALF_BITS)).shr_bits(23);
    let f = scaled.sub_bits(exponent.shl_bits(23)).sub(V::splat(1.0));
    let n = exponent.to_float().sub(subnormal.and(V::splat(23.0)));
    let square = f.mul(f);
    let tail = polynomial(f, &LOG).mul(f).mul(square).sub(square.mul(V::splat(0.5)));
    let finite = n.mul(V::splat(LN_2_HIGH)).add(f.add(n.mul(V::splat(LN_2_LOW)).add(tail)));
    let negative = x.lt(zero).select(V::splat(f32::NAN), finite);
    let positive = x.eq(zero).select(V::splat(f32::NEG_INFINITY), negative);
    // Infinity and NaN are what is not below infinity.
    x.lt(V::splat(f32::INFINITY)).select(positive, x)
}

/// See [`super::odd_rational`].
#[inline(always)]
fn odd_rational<V: Lanes, const P: usize, const Q: usize>(
    x: V,
    fit: &([u32; P], [u32; Q]),
    last: f32,
    limit: f32,
) -> V {
    let z = x.mul(x).at_most(V::splat(last));
    let above = x.mul(polynomial(z, &fit.0));
    let mut below = z.add(V::splat_bits(fit.1[Q - 1]));
    let mut index = Q - 1;
    while index > 0 {
        index -= 1;
        below = below.mul(z).add(V::splat_bits(fit.1[index]));
    }
    clamp(above.div(below), V::splat(-limit), V::splat(limit))
}

/// See [`super::tanh`].
#[inline(always)]
pub fn tanh<V: Lanes>(x: V) -> V {
    odd_rational(x, &TANH, TANH_LAST, 1.0)
}

/// See [`super::erf`].
#[inline(always)]
pub fn erf<V: Lanes>(x: V) -> V {
    odd_rational(x, &ERF, ERF_LAST, 1.0)
}

/// See [`super::gelu`].
#[inline(always)]
pub fn gelu<V: Lanes>(x: V) -> V {
    x.mul(odd_rational(x, &GELU, GELU_LAST, 0.5).add(V::splat(0.5)))
}

/// See [`super::gelu_tanh`].
#[inline(always)]
pub fn gelu_tanh<V: Lanes>(x: V) -> V {
    let u = x.mul(x.mul(x).mul(V::splat(GELU_TANH_3)).add(V::splat(GELU_TANH_1)));
    x.div(exp(u).add(V::splat(1.0)))
}

/// See [`super::sigmoid`].
#[inline(always)]
pub fn sigmoid<V: Lanes>(x: V) -> V {
    V::splat(1.0).div(exp_of_negated(x).add(V::splat(1.0)))
}

/// See [`super::silu`].
#[inline(always)]
pub fn silu<V: Lanes>(x: V) -> V {
    x.div(exp_of_negated(x).add(V::splat(1.0)))
}

/// See [`super::softplus`].
#[inline(always)]
pub fn softplus<V: Lanes>(x: V) -> V {
    let one = V::splat(1.0);
    let t = exp_of_negated(x.abs());
    let u = t.add(one);
    x.at_least(V::splat(0.0)).add(log(u).add(t.sub(u.sub(one)).div(u)))
}

/// See [`super::mish`].
#[inline(always)]
pub fn mish<V: Lanes>(x: V) -> V {
    let two = V::splat(2.0);
    let t = exp(x.at_most(V::splat(20.0)));
    let n = t.mul(t.add(two));
    x.mul(n.div(n.add(two)))
}

/// See [`super::sign`].
#[inline(always)]
pub fn sign<V: Lanes>(x: V) -> V {
    let zero = V::splat(0.0);
    zero.lt(x).select(V::splat(1.0), x.lt(zero).select(V::splat(-1.0), x))
}

/// See [`super::hard_swish`].
#[inline(always)]
pub fn hard_swish<V: Lanes>(x: V) -> V {
    let gate = x.mul(V::splat(SIXTH)).add(V::splat(0.5));
    x.mul(clamp(gate, V::splat(0.0), V::splat(1.0)))
}
