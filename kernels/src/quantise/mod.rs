//! From f32 to integers and back.

mod estimate;
pub mod naive;
pub mod portable;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub mod simd128;

#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
use portable as body;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use simd128 as body;

pub use body::{block_sums, column_magnitudes, dequantize_centred, dynamic_parameters, quantize_centred, row};
pub use estimate::{Conversion, estimate_instructions};

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
    /// If the grid does not fit a tensor of `length` values of T.
    pub(crate) fn check<T: Integer>(&self, length: usize) {
        let outside = self.zero_points.iter().find(|zero_point| !(T::MIN..=T::MAX).contains(zero_point));
        assert!(outside.is_none(), "zero point {outside:?}");
        let zero_points = self.zero_points.len();
        assert!(zero_points == 0 || zero_points == self.scales.len(), "zero points and scales");
        let step = self.scales.len().checked_mul(self.inner);
        assert!(
            step.is_some_and(|step| step > 0 && length.is_multiple_of(step)),
            "{length} values in a grid of {step:?}"
        );
    }
}

/// An 8-bit integer type of ONNX: what a quantised tensor is made of.
pub trait Integer: Copy + sealed::Bodies {
    const MIN: i32;
    const MAX: i32;
    fn wide(self) -> i32;
    /// The value is in range.
    fn narrow(value: i32) -> Self;
}

mod sealed {
    use super::Grid;

    /// The bodies for a type. They are not generic, so that they are compiled here, with this crate's optimisation.
    pub trait Bodies: Sized {
        fn quantize_linear(input: &[f32], grid: Grid<'_>, output: &mut [Self]);
        fn dequantize_linear(input: &[Self], grid: Grid<'_>, output: &mut [f32]);
        fn centre(input: &[Self], zero_point: Self, output: &mut [i16]);
        fn uncentre(input: &[i16], zero_point: Self, output: &mut [Self]);
    }
}

macro_rules! integer {
    ($type:ty) => {
        impl Integer for $type {
            const MIN: i32 = <$type>::MIN as i32;
            const MAX: i32 = <$type>::MAX as i32;
            fn wide(self) -> i32 {
                self.into()
            }
            fn narrow(value: i32) -> Self {
                value as $type
            }
        }

        impl sealed::Bodies for $type {
            fn quantize_linear(input: &[f32], grid: Grid<'_>, output: &mut [Self]) {
                body::quantize_linear(input, grid, output);
            }
            fn dequantize_linear(input: &[Self], grid: Grid<'_>, output: &mut [f32]) {
                body::dequantize_linear(input, grid, output);
            }
            fn centre(input: &[Self], zero_point: Self, output: &mut [i16]) {
                body::centre(input, zero_point, output);
            }
            fn uncentre(input: &[i16], zero_point: Self, output: &mut [Self]) {
                body::uncentre(input, zero_point, output);
            }
        }
    };
}
integer!(u8);
integer!(i8);

/// See [`naive::quantize_linear`].
///
/// # Panics
/// If lengths do not agree or a zero point is not of the type.
pub fn quantize_linear<T: Integer>(input: &[f32], grid: Grid<'_>, output: &mut [T]) {
    T::quantize_linear(input, grid, output);
}

/// See [`naive::dequantize_linear`].
///
/// # Panics
/// If lengths do not agree or a zero point is not of the type.
pub fn dequantize_linear<T: Integer>(input: &[T], grid: Grid<'_>, output: &mut [f32]) {
    T::dequantize_linear(input, grid, output);
}

/// See [`naive::centre`].
///
/// # Panics
/// If lengths do not agree.
pub fn centre<T: Integer>(input: &[T], zero_point: T, output: &mut [i16]) {
    T::centre(input, zero_point, output);
}

/// See [`naive::uncentre`].
///
/// # Panics
/// If lengths do not agree.
pub fn uncentre<T: Integer>(input: &[i16], zero_point: T, output: &mut [T]) {
    T::uncentre(input, zero_point, output);
}
