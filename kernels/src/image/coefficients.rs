//! Weights of a triangle filter with antialiasing.
//!
//! The computation of Pillow's `Resample.c` (`precompute_coeffs`, `normalize_coeffs_8bpc`) for its `BILINEAR` filter:
//! the filter is stretched by the reduction, its weights are taken at pixel centres and normalised in f64, then rounded
//! to fixed point. Only additions, multiplications, divisions and truncations are involved, so the weights are the same
//! on every platform.

use std::ops::Range;

/// Binary places of a weight. A sum of weights is one, so 8-bit values times weights stay below 2^31.
pub const PRECISION_BITS: u32 = 32 - 8 - 2;

/// The source pixels that one output pixel is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taps<'a> {
    /// First source pixel.
    pub start: usize,
    /// Weight of each, in units of 2^-[`PRECISION_BITS`].
    pub weights: &'a [i32],
}

/// Weights of all output pixels along one axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coefficients {
    /// Start and number of each output pixel's taps.
    bounds: Vec<(usize, usize)>,
    weights: Vec<i32>,
    /// Weights reserved for each output pixel.
    taps_max: usize,
}

impl Coefficients {
    /// Weights for the output pixels `range` of a resampling from `input` to `output` pixels, both at least 1.
    pub fn triangle(input: u32, output: u32, range: Range<u32>) -> Coefficients {
        assert!(input > 0 && output > 0 && range.end <= output, "{range:?} of {input} to {output} pixels");
        let scale = f64::from(input) / f64::from(output);
        let filter_scale = scale.max(1.0);
        // The triangle reaches one (stretched) pixel to both sides.
        let support = filter_scale;
        let taps_max = support.ceil() as usize * 2 + 1;
        let mut coefficients = Coefficients { bounds: Vec::new(), weights: Vec::new(), taps_max };
        let inverse_scale = 1.0 / filter_scale;
        let mut exact = vec![0f64; taps_max];
        for pixel in range {
            let centre = (f64::from(pixel) + 0.5) * scale;
            // Truncation towards zero, as a C cast; negative values become 0 either way.
            let start = (centre - support + 0.5).max(0.0) as u32;
            let end = ((centre + support + 0.5) as u32).min(input);
            let count = (end - start) as usize;
            let mut sum = 0.0;
            for (tap, weight) in exact[..count].iter_mut().enumerate() {
                let distance = ((tap as f64 + f64::from(start) - centre + 0.5) * inverse_scale).abs();
                *weight = if distance < 1.0 { 1.0 - distance } else { 0.0 };
                sum += *weight;
            }
            for weight in &mut exact[..count] {
                if sum != 0.0 {
                    *weight /= sum;
                }
            }
            exact[count..].fill(0.0);
            // Triangle weights are never negative: half is added before the truncation.
            let fixed = exact.iter().map(|weight| (0.5 + weight * f64::from(1 << PRECISION_BITS)) as i32);
            coefficients.weights.extend(fixed);
            coefficients.bounds.push((start as usize, count));
        }
        coefficients
    }

    /// Output pixels.
    pub fn len(&self) -> usize {
        self.bounds.len()
    }

    pub fn is_empty(&self) -> bool {
        self.bounds.is_empty()
    }

    /// What the output pixel `index` of the range is made of.
    pub fn taps(&self, index: usize) -> Taps<'_> {
        let (start, count) = self.bounds[index];
        Taps { start, weights: &self.weights[index * self.taps_max..][..count] }
    }

    /// The source pixels that any output pixel needs.
    pub fn source_range(&self) -> Range<usize> {
        let start = self.bounds.iter().map(|bounds| bounds.0).min().unwrap_or(0);
        let end = self.bounds.iter().map(|bounds| bounds.0 + bounds.1).max().unwrap_or(start);
        start..end
    }

    /// Counts source pixels from `start` on instead of from 0.
    pub fn relative_to(mut self, start: usize) -> Coefficients {
        for bounds in &mut self.bounds {
            assert!(bounds.0 >= start, "taps begin at {}, before {start}", bounds.0);
            bounds.0 -= start;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_size_is_the_identity() {
        let coefficients = Coefficients::triangle(5, 5, 0..5);
        for index in 0..5 {
            let taps = coefficients.taps(index);
            let ones: Vec<usize> =
                (0..taps.weights.len()).filter(|&tap| taps.weights[tap] != 0).map(|tap| taps.start + tap).collect();
            assert_eq!(ones, [index]);
            assert!(taps.weights.contains(&(1 << PRECISION_BITS)));
        }
    }

    #[test]
    fn halving_weighs_four_pixels_by_one_three_three_one() {
        // Derived by hand: scale 2, centre of output 1 is 3.0; pixel centres 1.5, 2.5, 3.5, 4.5 are 3/4, 1/4, 1/4 and
        // 3/4 of the support away, so weigh 1/4, 3/4, 3/4, 1/4 of a sum of 2.
        let coefficients = Coefficients::triangle(8, 4, 1..2);
        let taps = coefficients.taps(0);
        let one = 1 << PRECISION_BITS;
        assert_eq!((taps.start, taps.weights), (1, &[one / 8, one * 3 / 8, one * 3 / 8, one / 8][..]));
        assert_eq!(coefficients.source_range(), 1..5);
    }

    #[test]
    fn weights_add_up_to_one() {
        for (input, output) in [(7, 3), (300, 224), (3, 224), (1, 9), (9, 1), (6000, 256), (65535, 1)] {
            let coefficients = Coefficients::triangle(input, output, 0..output);
            for index in 0..coefficients.len() {
                let taps = coefficients.taps(index);
                assert!(taps.start + taps.weights.len() <= input as usize);
                let sum: i64 = taps.weights.iter().map(|weight| i64::from(*weight)).sum();
                let error = (sum - (1 << PRECISION_BITS)).unsigned_abs();
                assert!(error <= taps.weights.len() as u64, "{input} to {output}: pixel {index} is off by {error}");
            }
        }
    }
}
