//! A small discrete Fourier transform with the part of the `rustfft` interface that tract uses.
//!
//! Mixed-radix decimation in time over the prime factors of the length (Cooley and Tukey, 1965): `n` times the sum of
//! the factors in complex multiplications, whatever the length. Twiddle factors come from `libm` in f64, so that they are
//! the same bits on every platform.

pub use num_complex;
pub use num_traits;

use num_complex::Complex;
use num_traits::{FromPrimitive, Signed};
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

/// Elements that can be transformed: f32 and f64.
pub trait FftNum: Copy + FromPrimitive + Signed + Sync + Send + Debug + 'static {}

impl<T> FftNum for T where T: Copy + FromPrimitive + Signed + Sync + Send + Debug + 'static {}

/// Sign of the exponent: minus for the forward transform. Neither direction scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FftDirection {
    Forward,
    Inverse,
}

/// A planned transform of one length and direction.
pub trait Fft<T: FftNum>: Sync + Send {
    /// Transforms `buffer` in place, one transform after another when it holds several.
    ///
    /// # Panics
    ///
    /// When the buffer's length is not a multiple of the planned length.
    fn process(&self, buffer: &mut [Complex<T>]);
}

/// Makes plans.
pub struct FftPlanner<T>(PhantomData<T>);

impl<T: FftNum> Default for FftPlanner<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: FftNum> FftPlanner<T> {
    pub fn new() -> Self {
        Self(PhantomData)
    }

    pub fn plan_fft(&mut self, len: usize, direction: FftDirection) -> Arc<dyn Fft<T>> {
        let sign = if direction == FftDirection::Forward { -1.0 } else { 1.0 };
        let twiddles = (0..len)
            .map(|index| {
                let angle = sign * 2.0 * std::f64::consts::PI * index as f64 / len as f64;
                Complex::new(element(libm::cos(angle)), element(libm::sin(angle)))
            })
            .collect();
        Arc::new(Plan { twiddles })
    }

    pub fn plan_fft_forward(&mut self, len: usize) -> Arc<dyn Fft<T>> {
        self.plan_fft(len, FftDirection::Forward)
    }
}

/// `twiddles[k]` is `exp(sign * 2 pi i k / n)`; their count is the transform's length.
struct Plan<T> {
    twiddles: Vec<Complex<T>>,
}

impl<T: FftNum> Fft<T> for Plan<T> {
    fn process(&self, buffer: &mut [Complex<T>]) {
        let len = self.twiddles.len();
        if len < 2 {
            return;
        }
        assert!(buffer.len().is_multiple_of(len), "a buffer of {} elements for transforms of {len}", buffer.len());
        for block in buffer.chunks_exact_mut(len) {
            let input = block.to_vec();
            self.transform(&input, 1, block);
        }
    }
}

impl<T: FftNum> Plan<T> {
    /// Transforms every `stride`-th element of `input` into `output`; `output.len() * stride` is the planned length.
    fn transform(&self, input: &[Complex<T>], stride: usize, output: &mut [Complex<T>]) {
        let len = output.len();
        if len == 1 {
            output[0] = input[0];
            return;
        }
        let radix = smallest_factor(len);
        let part = len / radix;
        for (offset, block) in output.chunks_exact_mut(part).enumerate() {
            self.transform(&input[offset * stride..], stride * radix, block);
        }
        let mut column = vec![Complex::new(T::zero(), T::zero()); radix];
        for k in 0..part {
            for (row, value) in column.iter_mut().enumerate() {
                *value = output[row * part + k] * self.twiddles[row * k * stride];
            }
            for q in 0..radix {
                let mut sum = column[0];
                for (row, value) in column.iter().enumerate().skip(1) {
                    sum = sum + *value * self.twiddles[row * q * part * stride % self.twiddles.len()];
                }
                output[q * part + k] = sum;
            }
        }
    }
}

/// The smallest prime factor of a number of at least 2.
fn smallest_factor(number: usize) -> usize {
    (2..).take_while(|factor| factor * factor <= number).find(|factor| number.is_multiple_of(*factor)).unwrap_or(number)
}

/// A cosine or sine as an element; every f32 and f64 can hold one.
fn element<T: FftNum>(value: f64) -> T {
    T::from_f64(value).unwrap_or_else(T::zero)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(len: usize) -> Vec<Complex<f64>> {
        (0..len).map(|i| Complex::new(((i * 37 + 11) % 101) as f64 / 50.0 - 1.0, ((i * 53 + 7) % 97) as f64 / 48.0)).collect()
    }

    /// The definition.
    fn naive(input: &[Complex<f64>]) -> Vec<Complex<f64>> {
        let n = input.len() as f64;
        (0..input.len())
            .map(|k| {
                input.iter().enumerate().fold(Complex::new(0.0, 0.0), |sum, (j, x)| {
                    let angle = -2.0 * std::f64::consts::PI * (j * k) as f64 / n;
                    sum + x * Complex::new(angle.cos(), angle.sin())
                })
            })
            .collect()
    }

    #[test]
    fn every_length_agrees_with_the_definition() {
        for len in (1..=40).chain([64, 97, 120, 121, 256, 400]) {
            let input = signal(len);
            let mut output = input.clone();
            FftPlanner::new().plan_fft_forward(len).process(&mut output);
            for (got, expected) in output.iter().zip(naive(&input)) {
                assert!((got - expected).norm() < 1e-9 * len as f64, "length {len}: {got} instead of {expected}");
            }
        }
    }

    #[test]
    fn the_inverse_undoes_the_transform_but_for_the_length() {
        let input = signal(60);
        let mut output = input.clone();
        FftPlanner::new().plan_fft(60, FftDirection::Forward).process(&mut output);
        FftPlanner::new().plan_fft(60, FftDirection::Inverse).process(&mut output);
        for (got, expected) in output.iter().zip(input) {
            assert!((got / 60.0 - expected).norm() < 1e-12);
        }
    }

    #[test]
    fn several_transforms_in_one_buffer_are_independent() {
        let input = signal(12);
        let plan = FftPlanner::new().plan_fft_forward(4);
        let mut together = input.clone();
        plan.process(&mut together);
        let apart: Vec<Complex<f64>> = input
            .chunks(4)
            .flat_map(|block| {
                let mut block = block.to_vec();
                plan.process(&mut block);
                block
            })
            .collect();
        assert_eq!(together, apart);
    }
}
