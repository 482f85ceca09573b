//! The reference for half precision: by the definition of the formats, in f64, where everything is exact.

/// 2^`exponent`, by repeated multiplication.
fn power(exponent: i32) -> f64 {
    (0..exponent.abs()).fold(1.0, |product, _| if exponent < 0 { product / 2.0 } else { product * 2.0 })
}

/// The value of binary16 bits.
pub fn f16_to_f32(bits: u16) -> f32 {
    let sign = if bits >> 15 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    let magnitude = match exponent {
        0 => fraction * power(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * power(exponent - 25),
    };
    (sign * magnitude) as f32
}

/// The binary16 bits nearest to a value.
pub fn f32_to_f16(value: f32) -> u16 {
    let sign = u16::from(value.is_sign_negative()) << 15;
    let magnitude = f64::from(value.abs());
    if value.is_nan() {
        return sign | 0x7e00;
    }
    if magnitude >= 65_520.0 {
        return sign | 0x7c00;
    }
    // The exponent of the unit in the last place: that of subnormals, or higher.
    let mut unit = -24;
    while magnitude >= power(unit + 11) {
        unit += 1;
    }
    let units = (magnitude / power(unit)).round_ties_even();
    // 1024 units are the first normal number: bits count on from there.
    sign | ((unit + 24) as u16 * 1024 + units as u16)
}

/// The value of bfloat16 bits.
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The bfloat16 bits nearest to a value.
pub fn f32_to_bf16(value: f32) -> u16 {
    if value.is_nan() {
        return (value.to_bits() >> 16) as u16 | 0x40;
    }
    let (low, high) = (value.to_bits() & 0xffff, (value.to_bits() >> 16) as u16);
    let up = low > 0x8000 || low == 0x8000 && high & 1 == 1;
    if up { high + 1 } else { high }
}
