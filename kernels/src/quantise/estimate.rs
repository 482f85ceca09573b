//! What the conversions cost, counted as the simd128 bodies run: without page charges.

/// Kinds of conversions, by what they cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversion {
    /// [`super::row`].
    Row,
    /// [`super::quantize_linear`] by runs of one scale, [`super::quantize_centred`]. Channels last cost twice as much.
    Quantize,
    /// [`super::dequantize_linear`] by runs of one scale, [`super::dequantize_centred`]. Channels last cost twice as much.
    Dequantize,
    /// [`super::centre`].
    Centre,
    /// [`super::uncentre`].
    Uncentre,
    /// [`super::dynamic_parameters`].
    DynamicParameters,
}

/// Metered instructions of a conversion of `length` values.
pub fn estimate_instructions(conversion: Conversion, length: usize) -> u64 {
    // For 16 values, and for setting a call up.
    let (values, call) = match conversion {
        Conversion::Row => (101, 190),
        Conversion::Quantize => (102, 220),
        Conversion::Dequantize => (60, 210),
        Conversion::Centre => (34, 80),
        Conversion::Uncentre => (45, 80),
        Conversion::DynamicParameters => (42, 210),
    };
    length as u64 * values / 16 + call
}
