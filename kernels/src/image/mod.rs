//! Image kernels: resampling and normalisation of interleaved RGB, 8 bits a channel.

pub mod coefficients;
pub mod naive;
pub mod portable;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub mod simd128;

pub use coefficients::{Coefficients, PRECISION_BITS, Taps};

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub use portable::{normalise, resample_columns, resample_rows};
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub use simd128::{normalise, resample_columns, resample_rows};

/// Bytes of a pixel.
pub const CHANNELS: usize = 3;

/// Where a normalised channel goes in the output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Channel {
    /// Index of the channel in a pixel: 0 red, 1 green, 2 blue.
    pub source: usize,
    /// Index of the first pixel's value in the output.
    pub offset: usize,
    /// Values from one pixel's to the next's: 1 in planes, [`CHANNELS`] when interleaved.
    pub stride: usize,
    pub mean: f32,
    /// The reciprocal of the standard deviation.
    pub scale: f32,
}

/// A fixed-point sum brought back to 8 bits, clipped.
///
/// The sum starts at half a unit, so this rounds to nearest.
pub(crate) fn clip(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// What a sum starts with.
pub(crate) const HALF: i32 = 1 << (PRECISION_BITS - 1);
