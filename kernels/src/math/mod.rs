//! Elementary functions of one f32: the contract of every body that computes them.
//!
//! Each is a stated sequence of IEEE 754 operations, rounded once each: no libm, no fused multiply-add. The vector form
//! of the same sequences is in [`vector`]. Errors are in units in the last place (ulp) of the exact result, the largest
//! found over a dense sample of all exponents; `tests` hold them to the figures given here. Polynomials and rational
//! functions are minimax fits of our own with coefficients rounded to f32.

#[cfg(test)]
mod tests;
pub mod vector;
pub mod wide;

pub use wide::{cos, pow, sin};

/// log2(e).
pub(crate) const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// ln(2) to 10 bits, so that its product with an exponent is exact.
pub(crate) const LN_2_HIGH: f32 = 0.693_359_4;
/// ln(2) - LN_2_HIGH.
pub(crate) const LN_2_LOW: f32 = -2.121_944_4e-4;
/// e^r = 1 + r + r^2 (C0 + C1 r + ... + C4 r^4) on |r| <= ln(2)/2, relative error 0.06 x 2^-24.
pub(crate) const EXPM1: [u32; 5] = [0x3eff_fffe, 0x3e2a_aa49, 0x3d2a_ac56, 0x3c09_1cbb, 0x3ab5_2829];
/// 2 e^r = 2 + 2 r + r^2 (C0 + C1 r + C2 r^2 + C3 r^3) on |r| <= ln(2)/2, relative error 1.8 x 2^-24.
pub(crate) const EXP_TWICE: [u32; 4] = [0x3f7f_fefe, 0x3eaa_abd8, 0x3dab_9516, 0x3c88_30ef];
/// 1.5 x 2^23: added to a small f32 it leaves the nearest integer in the low bits.
pub(crate) const ROUNDER: f32 = 12_582_912.0;
/// Rounder whose low bits are the integer plus 126: shifted by 23 they are the exponent field of 2^(n - 1).
pub(crate) const EXP_ROUNDER: f32 = ROUNDER + 126.0;
/// Rounder whose low bits are the integer plus 127: shifted by 23 they are the exponent field of 2^n.
pub(crate) const EXPM1_ROUNDER: f32 = ROUNDER + 127.0;
/// Where the scale of [`exp`] becomes 0.
pub(crate) const EXP_LOW: f32 = -87.3;
/// Where [`exp`] is infinite.
pub(crate) const EXP_HIGH: f32 = 89.0;

/// `if other < value { other } else { value }`.
pub(crate) fn at_most(value: f32, other: f32) -> f32 {
    if other < value { other } else { value }
}

/// `if value < other { other } else { value }`.
pub(crate) fn at_least(value: f32, other: f32) -> f32 {
    if value < other { other } else { value }
}

/// `value` within `low..=high`; NaN stays NaN.
pub fn clamp(value: f32, low: f32, high: f32) -> f32 {
    at_most(at_least(value, low), high)
}

/// `(((coefficients[n] x + coefficients[n - 1]) x + ...) x + coefficients[0]`, all given as bits.
fn polynomial(x: f32, coefficients: &[u32]) -> f32 {
    let mut sum = 0.0;
    for (index, bits) in coefficients.iter().rev().enumerate() {
        let coefficient = f32::from_bits(*bits);
        sum = if index == 0 { coefficient } else { sum * x + coefficient };
    }
    sum
}

/// e^x, within 2.5 ulp. Results below 2^-125 are 0.
pub fn exp(x: f32) -> f32 {
    let x = clamp(x, EXP_LOW, EXP_HIGH);
    let rounded = x * LOG2_E + EXP_ROUNDER;
    let n = rounded - EXP_ROUNDER;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    // Twice e^r, so that the exponent of the scale stays in range up to the largest finite result.
    let twice = (polynomial(r, &EXP_TWICE) * r + 2.0) * r + 2.0;
    twice * f32::from_bits(rounded.to_bits() << 23)
}

/// e^x - 1 for x <= 0 (x above counts as 0), within 3 ulp.
pub fn expm1_of_negative(x: f32) -> f32 {
    let x = clamp(x, EXP_LOW, 0.0);
    let rounded = x * LOG2_E + EXPM1_ROUNDER;
    let n = rounded - EXPM1_ROUNDER;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    let sum = (polynomial(r, &EXPM1) * r) * r + r;
    let scale = f32::from_bits(rounded.to_bits() << 23);
    sum * scale + (scale - 1.0)
}

/// 2^f = 1 + f (C0 + C1 f + C2 f^2 + C3 f^3 + C4 f^4) on |f| <= 1/2, relative error 1.6 x 2^-24.
pub(crate) const EXP2: [u32; 5] = [0x3f31_7215, 0x3e75_fce1, 0x3d63_5b6c, 0x3c1e_7457, 0x3aad_ed2c];
/// Where the scale of [`exp_of_difference`] becomes 0, as a power of two.
pub(crate) const EXP2_LOW: f32 = -127.0;

/// e^x for x <= 0, cheaper than [`exp`]: its error relative to 1, the largest result, is within 1.5 x 2^-23, relative to the
/// result within (2 + |x|) 2^-23. Results below 2^-126.5 are 0.
pub fn exp_of_difference(x: f32) -> f32 {
    let power = at_least(x * LOG2_E, EXP2_LOW);
    let rounded = power + EXPM1_ROUNDER;
    let f = power - (rounded - EXPM1_ROUNDER);
    let sum = polynomial(f, &EXP2) * f + 1.0;
    sum * f32::from_bits(rounded.to_bits() << 23)
}

/// log(1 + f) = f - f^2 / 2 + f^3 P(f) on sqrt(1/2) - 1 <= f <= sqrt(2) - 1, relative error 0.1 x 2^-24.
pub(crate) const LOG: [u32; 8] =
    [0x3eaa_aaaa, 0xbe80_0113, 0x3e4c_d00e, 0xbe2a_3945, 0x3e11_6c97, 0xbe06_c121, 0x3e02_af62, 0xbd9c_64ea];
/// Bits of sqrt(1/2).
pub(crate) const SQRT_HALF_BITS: u32 = 0x3f35_04f3;

/// The natural logarithm, within 2 ulp: NaN below 0, minus infinity at 0.
pub fn log(x: f32) -> f32 {
    let subnormal = x < f32::MIN_POSITIVE;
    let scaled = if subnormal { x * 8_388_608.0 } else { x };
    let exponent = (scaled.to_bits().wrapping_sub(SQRT_HALF_BITS) as i32) >> 23;
    let f = f32::from_bits(scaled.to_bits().wrapping_sub((exponent << 23) as u32)) - 1.0;
    let n = exponent as f32 - if subnormal { 23.0 } else { 0.0 };
    let square = f * f;
    let tail = polynomial(f, &LOG) * f * square - square * 0.5;
    let finite = n * LN_2_HIGH + (f + (n * LN_2_LOW + tail));
    if x == f32::INFINITY || x.is_nan() {
        x
    } else if x == 0.0 {
        f32::NEG_INFINITY
    } else if x < 0.0 {
        f32::NAN
    } else {
        finite
    }
}

/// x P(x^2) / Q(x^2) with leading coefficient 1 in Q: tanh(x) on |x| <= 9.
pub(crate) const TANH: ([u32; 5], [u32; 4]) = (
    [0x499c_f8e8, 0x4828_0938, 0x458c_7848, 0x41d4_032e, 0x3c8c_ae52],
    [0x499c_f8e8, 0x4912_a83a, 0x4701_fba6, 0x43d3_40aa],
);
/// The square of the last argument of the fit.
pub(crate) const TANH_LAST: f32 = 81.0;

/// x P(x^2) / Q(x^2) with leading coefficient 1 in Q: erf(x) on |x| <= 3.9.
pub(crate) const ERF: ([u32; 7], [u32; 4]) = (
    [0x4495_f5f5, 0x4352_b42a, 0x4256_1abe, 0x4077_2699, 0x3e19_11f8, 0xbb08_caaf, 0x37b3_b2e0],
    [0x4484_e637, 0x4407_482d, 0x42f3_00e9, 0x4171_b036],
);
/// The square of the last argument of the fit.
pub(crate) const ERF_LAST: f32 = 15.21;

/// x P(x^2) / Q(x^2) with leading coefficient 1 in Q: erf(x / sqrt(2)) / 2 on |x| <= 5.6.
pub(crate) const GELU: ([u32; 7], [u32; 4]) = (
    [0x45c0_7c42, 0x440d_cfde, 0x428c_e575, 0x4030_3af9, 0x3d51_0ebd, 0xb9b0_c8b9, 0x35df_944b],
    [0x4671_3ea6, 0x4579_b206, 0x43e4_417b, 0x41e8_0ace],
);
/// The square of the last argument of the fit.
pub(crate) const GELU_LAST: f32 = 31.36;

/// x P(z) / Q(z) with z = min(x^2, last), within -limit..=limit.
fn odd_rational(x: f32, fit: (&[u32], &[u32]), last: f32, limit: f32) -> f32 {
    let z = at_most(x * x, last);
    let above = polynomial(z, fit.0);
    let mut below = z + f32::from_bits(fit.1[fit.1.len() - 1]);
    for bits in fit.1[..fit.1.len() - 1].iter().rev() {
        below = below * z + f32::from_bits(*bits);
    }
    clamp(x * above / below, -limit, limit)
}

/// The hyperbolic tangent, within 7 ulp (a relative error of 4e-7).
pub fn tanh(x: f32) -> f32 {
    odd_rational(x, (&TANH.0, &TANH.1), TANH_LAST, 1.0)
}

/// The error function, within 7 ulp (a relative error of 5e-7).
pub fn erf(x: f32) -> f32 {
    odd_rational(x, (&ERF.0, &ERF.1), ERF_LAST, 1.0)
}

/// x Phi(x), Phi the normal distribution: the exact GELU. Within 4 ulp above 0, within 1.2e-6 below. NaN at minus
/// infinity.
pub fn gelu(x: f32) -> f32 {
    x * (odd_rational(x, (&GELU.0, &GELU.1), GELU_LAST, 0.5) + 0.5)
}

/// -2 sqrt(2 / pi).
pub(crate) const GELU_TANH_1: f32 = -1.595_769_2;
/// -2 sqrt(2 / pi) x 0.044715.
pub(crate) const GELU_TANH_3: f32 = -0.071_354_82;

/// The tanh form of GELU, x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2, as x / (1 + e^-2u): within 4 ulp above -1,
/// less below. NaN at minus infinity.
pub fn gelu_tanh(x: f32) -> f32 {
    x / (exp(x * ((x * x) * GELU_TANH_3 + GELU_TANH_1)) + 1.0)
}

/// 1 / (1 + e^-x), within 3 ulp.
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (exp(-x) + 1.0)
}

/// x / (1 + e^-x), within 4 ulp. NaN at minus infinity.
pub fn silu(x: f32) -> f32 {
    x / (exp(-x) + 1.0)
}

/// log(1 + e^x), within 4 ulp.
pub fn softplus(x: f32) -> f32 {
    let t = exp(-x.abs());
    let u = t + 1.0;
    // What rounding `u` lost is added to first order.
    at_least(x, 0.0) + (log(u) + (t - (u - 1.0)) / u)
}

/// x tanh(log(1 + e^x)), within 5 ulp. NaN at minus infinity.
pub fn mish(x: f32) -> f32 {
    let t = exp(at_most(x, 20.0));
    let n = t * (t + 2.0);
    x * (n / (n + 2.0))
}

/// 1 above 0, -1 below, the value itself elsewhere.
pub fn sign(x: f32) -> f32 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        x
    }
}

/// 1/6.
pub(crate) const SIXTH: f32 = 1.0 / 6.0;

/// x clamp(x / 6 + 1/2, 0, 1).
pub fn hard_swish(x: f32) -> f32 {
    x * clamp(x * SIXTH + 0.5, 0.0, 1.0)
}
