//! From f32 to integers and back.

pub mod naive;
pub mod portable;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub mod simd128;

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
pub use portable::*;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub use simd128::*;

/// A row whose largest magnitude is below this is quantised to zeros with scale 0: the reciprocal could overflow.
pub const SMALLEST_MAGNITUDE: f32 = 1.0e-30;

/// Scales and zero points of a tensor seen as `[outer][channels][inner]`.
///
/// One channel is a scale for the whole tensor; inner = 1 is channels last.
#[derive(Clone, Copy, Debug)]
pub struct Grid<'a> {
    /// One for each channel.
    pub scales: &'a [f32],
    /// One for each channel, or none at all where they are 0.
    pub zero_points: &'a [i32],
    pub inner: usize,
}

impl Grid<'_> {
    pub(crate) fn zero_point(&self, channel: usize) -> i32 {
        self.zero_points.get(channel).copied().unwrap_or(0)
    }

    /// # Panics
    /// If the grid does not fit a tensor of `length` values.
    pub(crate) fn check(&self, length: usize) {
        let zero_points = self.zero_points.len();
        assert!(zero_points == 0 || zero_points == self.scales.len(), "zero points and scales");
        let step = self.scales.len().checked_mul(self.inner);
        assert!(step.is_some_and(|step| step > 0 && length % step == 0), "{length} values in a grid of {step:?}");
    }
}

/// An 8-bit integer type of ONNX: what a quantised tensor is made of.
pub trait Integer: Copy + sealed::Sealed {
    const MIN: i32;
    const MAX: i32;
    fn wide(self) -> i32;
    /// The value is in range.
    fn narrow(value: i32) -> Self;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for u8 {}
    impl Sealed for i8 {}
}

impl Integer for u8 {
    const MIN: i32 = 0;
    const MAX: i32 = 255;
    fn wide(self) -> i32 {
        self.into()
    }
    fn narrow(value: i32) -> Self {
        value as u8
    }
}

impl Integer for i8 {
    const MIN: i32 = -128;
    const MAX: i32 = 127;
    fn wide(self) -> i32 {
        self.into()
    }
    fn narrow(value: i32) -> Self {
        value as i8
    }
}
