//! What the conversions cost, without page charges.

/// Kinds of conversions, by what they cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversion {
    /// [`super::row`].
    Row,
    /// [`super::quantize_linear`] by runs of one scale, [`super::quantize_centred`].
    Quantize,
    /// [`super::dequantize_linear`] by runs of one scale, [`super::dequantize_centred`].
    Dequantize,
    /// [`super::centre`], [`super::uncentre`].
    Centre,
    /// [`super::dynamic_parameters`].
    DynamicParameters,
}

/// Metered instructions of a conversion of `length` values.
pub fn estimate_instructions(conversion: Conversion, length: usize) -> u64 {
    let per_value = match conversion {
        Conversion::Row => 5,
        Conversion::Quantize => 6,
        Conversion::Dequantize => 3,
        Conversion::Centre => 2,
        Conversion::DynamicParameters => 2,
    };
    length as u64 * per_value
}
