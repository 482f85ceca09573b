//! Functions computed in f64 and rounded to f32 at the end: one scalar body for every target.
//!
//! They serve tables (rotary positions) and rare operators, so that accuracy and exact argument reduction matter more than
//! lanes.

use std::f64::consts::FRAC_2_PI;

/// pi/2 to 33 bits: exact when multiplied by an integer below 2^20.
const HALF_PI_HIGH: f64 = 1.570_796_326_734_125_6;
/// pi/2 - HALF_PI_HIGH.
const HALF_PI_LOW: f64 = 6.077_100_506_506_192e-11;
/// Arguments from here on are reduced with integers.
const LARGE: f32 = 1_048_576.0;
/// 1.5 x 2^52: added to a small f64 it leaves the nearest integer in the low bits.
const ROUNDER: f64 = 6_755_399_441_055_744.0;
/// 2/pi x 2^224, most significant word first.
const TWO_OVER_PI: [u32; 7] =
    [0xa2f9_836e, 0x4e44_1529, 0xfc27_57d1, 0xf534_ddc0, 0xdb62_9599, 0x3c43_9041, 0xfe51_63ab];

/// sin(r) = r + r^3 P(r^2) on |r| <= pi/4.
const SIN: [f64; 4] =
    [-0.166_666_666_416_069_75, 0.008_333_329_383_579_845, -0.000_198_393_340_824_058_89, 2.718_304_224_497_495_4e-6];
/// cos(r) = 1 + r^2 P(r^2) on |r| <= pi/4.
const COS: [f64; 4] =
    [-0.499_999_997_248_880_56, 0.041_666_623_298_360_86, -0.001_388_676_294_676_163, 2.439_036_895_942_426e-5];

/// x = quadrant pi/2 + r, |r| <= pi/4: the quadrant modulo 4, and r.
fn reduce(x: f32) -> (u32, f64) {
    if x.abs() >= LARGE {
        return reduce_large(x);
    }
    let wide = f64::from(x);
    let rounded = wide * FRAC_2_PI + ROUNDER;
    let n = rounded - ROUNDER;
    (rounded.to_bits() as u32 & 3, (wide - n * HALF_PI_HIGH) - n * HALF_PI_LOW)
}

/// The reduction of Payne and Hanek (1983) for |x| >= 2^20: x = m 2^e with integers, and of 2/pi only the bits count
/// whose products with x are not multiples of 4.
fn reduce_large(x: f32) -> (u32, f64) {
    let bits = x.to_bits();
    let exponent = ((bits >> 23) & 0xff) as i32 - 150;
    let mantissa = u128::from(bits & 0x7f_ffff | 0x80_0000);
    // 96 bits of 2/pi from the one of weight 2^(1 - exponent) on.
    let first = exponent - 2;
    let mut window = 0u128;
    for bit in first..first + 96 {
        let value = if bit < 0 { 0 } else { TWO_OVER_PI[bit as usize / 32] >> (31 - bit as usize % 32) & 1 };
        window = window << 1 | u128::from(value);
    }
    // In units of 2^-94.
    let product = (mantissa * window) & ((1 << 96) - 1);
    let quadrant = (product + (1 << 93)) >> 94;
    let rest = product as i128 - ((quadrant as i128) << 94);
    let r = (rest >> 34) as i64 as f64 * (1.0 / (1u64 << 60) as f64) * std::f64::consts::FRAC_PI_2;
    if bits >> 31 == 0 { (quadrant as u32 & 3, r) } else { (0u32.wrapping_sub(quadrant as u32) & 3, -r) }
}

/// sin of `quadrant` quarter turns and `r`.
fn turned(quadrant: u32, r: f64) -> f32 {
    let z = r * r;
    let value = if quadrant & 1 == 0 {
        r + r * z * (SIN[0] + z * (SIN[1] + z * (SIN[2] + z * SIN[3])))
    } else {
        1.0 + z * (COS[0] + z * (COS[1] + z * (COS[2] + z * COS[3])))
    };
    (if quadrant & 2 == 0 { value } else { -value }) as f32
}

/// The sine, within 1 ulp for every finite argument; NaN for infinities.
pub fn sin(x: f32) -> f32 {
    if !x.is_finite() {
        return f32::NAN;
    }
    if x == 0.0 {
        return x;
    }
    let (quadrant, r) = reduce(x);
    turned(quadrant, r)
}

/// The cosine, within 1 ulp for every finite argument; NaN for infinities.
pub fn cos(x: f32) -> f32 {
    if !x.is_finite() {
        return f32::NAN;
    }
    let (quadrant, r) = reduce(x);
    turned(quadrant + 1, r)
}

/// log2(m) = s P(s^2) with s = (m - 1) / (m + 1), sqrt(1/2) <= m <= sqrt(2).
const LOG2: [f64; 7] = [
    2.885_390_081_777_926_8,
    0.961_796_693_924_674_7,
    0.577_078_017_108_159_4,
    0.412_198_421_296_53,
    0.320_615_227_273_189_2,
    0.261_475_584_695_101_07,
    0.242_605_437_633_711_1,
];
/// 2^t = 1 + t P(t), |t| <= 1/2.
const EXP2: [f64; 8] = [
    0.693_147_180_548_212,
    0.240_226_506_981_105_9,
    0.055_504_109_352_667_92,
    0.009_618_128_616_131_252,
    0.001_333_345_486_011_056_2,
    0.000_154_038_254_566_011_67,
    1.530_915_628_681_494_3e-5,
    1.317_893_480_584_398_5e-6,
];

/// x^y with the special cases of IEEE 754-2019 `pow`, within 1 ulp.
pub fn pow(x: f32, y: f32) -> f32 {
    if y == 0.0 || x == 1.0 {
        return 1.0;
    }
    if x.is_nan() || y.is_nan() {
        return f32::NAN;
    }
    let whole = y.trunc() == y;
    // From 2^24 on every f32 is even.
    let odd = whole && y.abs() < 16_777_216.0 && (y as i32) & 1 == 1;
    let negative = x.is_sign_negative() && odd;
    let magnitude = x.abs();
    let result = if magnitude == 1.0 {
        1.0
    } else if y.is_infinite() {
        if (magnitude > 1.0) == (y > 0.0) { f32::INFINITY } else { 0.0 }
    } else if magnitude == 0.0 || magnitude.is_infinite() {
        if (magnitude == 0.0) == (y > 0.0) { 0.0 } else { f32::INFINITY }
    } else if x < 0.0 && !whole {
        return f32::NAN;
    } else {
        power(f64::from(magnitude), f64::from(y))
    };
    if negative { -result } else { result }
}

/// `x`^`y` for positive finite `x`, a normal f64 since it was an f32.
fn power(x: f64, y: f64) -> f32 {
    const SQRT_HALF_BITS: u64 = 0x3fe6_a09e_667f_3bcd;
    let exponent = (x.to_bits().wrapping_sub(SQRT_HALF_BITS) as i64) >> 52;
    let m = f64::from_bits(x.to_bits().wrapping_sub((exponent << 52) as u64));
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let log2 = exponent as f64 + s * LOG2.iter().rev().fold(0.0, |sum, coefficient| sum * z + coefficient);
    let product = y * log2;
    // Beyond these f32 has neither finite nor nonzero values.
    let scaled = product.clamp(-160.0, 160.0);
    let rounded = scaled + ROUNDER;
    let n = rounded - ROUNDER;
    let t = scaled - n;
    let sum = 1.0 + t * EXP2.iter().rev().fold(0.0, |sum, coefficient| sum * t + coefficient);
    let scale = f64::from_bits(rounded.to_bits().wrapping_add(1023) << 52);
    (sum * scale) as f32
}
