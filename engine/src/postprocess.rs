//! Class scores to answers.

use std::cmp::Ordering;

/// Softmax of `logits`: `exp(x - max) / sum`, computed in f64 in index order with an exponential of its own, so that the
/// bits are the same on every platform. Empty for no logits.
///
/// NaN among the logits makes every result NaN. Where the largest logit is infinite, those equal to it share one.
pub fn softmax(logits: &[f32]) -> Vec<f32> {
    if logits.iter().any(|logit| logit.is_nan()) {
        return vec![f32::NAN; logits.len()];
    }
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponential = |logit: &f32| {
        if *logit == largest { 1.0 } else { exp(f64::from(*logit) - f64::from(largest)) }
    };
    let sum: f64 = logits.iter().map(exponential).sum();
    logits.iter().map(|logit| (exponential(logit) / sum) as f32).collect()
}

/// Index and score of the `k` highest scores, highest first, the lower index first among equals. NaN comes last.
pub fn top_k(scores: &[f32], k: usize) -> Vec<(usize, f32)> {
    let mut ranked: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
    ranked.sort_by(|(a_index, a), (b_index, b)| {
        let by_score = match (a.is_nan(), b.is_nan()) {
            (false, false) => b.partial_cmp(a).unwrap_or(Ordering::Equal),
            (a_is_nan, b_is_nan) => a_is_nan.cmp(&b_is_nan),
        };
        by_score.then(a_index.cmp(b_index))
    });
    ranked.truncate(k);
    ranked
}

/// e to the power of `x`, for x of at most 0; within 1e-15 of the exact value, relatively.
///
/// `x = n ln 2 + r` with r at most ln 2 / 2 from 0, the Taylor series of r to the 13th power (its remainder is below
/// 5e-18), and n in the exponent: additions and multiplications only, each rounded once.
fn exp(x: f64) -> f64 {
    // Below this the result is less than 2^-1022 and adds nothing to a sum that is at least 1.
    const SMALLEST: f64 = -708.0;
    // ln 2 in two parts, the upper with 32 bits to spare, so that n * LN_2_HIGH is exact (fdlibm's e_exp.c).
    const LN_2_HIGH: f64 = 0.693_147_180_369_123_8;
    const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    if x < SMALLEST {
        return 0.0;
    }
    // Truncation after subtracting a half is rounding to nearest for negative numbers.
    let n = (x * std::f64::consts::LOG2_E - 0.5) as i32;
    let r = (x - f64::from(n) * LN_2_HIGH) - f64::from(n) * LN_2_LOW;
    let mut series = 1.0;
    for power in (1..=13).rev() {
        series = 1.0 + series * r / f64::from(power);
    }
    // n is between -1022 and 0: a normal number's exponent.
    series * f64::from_bits(((1023 + i64::from(n)) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate() {
        let mut x = 0.0;
        while x > -708.0 {
            let (ours, exact) = (exp(x), f64::exp(x));
            assert!((ours - exact).abs() <= exact * 1e-15, "exp({x}) is {ours}, not {exact}");
            x -= 0.377;
        }
        assert_eq!((exp(0.0), exp(-709.0)), (1.0, 0.0));
    }

    #[test]
    fn softmax_is_a_distribution() {
        // exp(0), exp(-ln 2), exp(-ln 4) are 1, 1/2, 1/4 of a sum of 7/4.
        let ln_2 = std::f32::consts::LN_2;
        let probabilities = softmax(&[5.0 - ln_2, 5.0, 5.0 - 2.0 * ln_2]);
        for (got, expected) in probabilities.iter().zip([2.0 / 7.0, 4.0 / 7.0, 1.0 / 7.0]) {
            assert!((got - expected).abs() < 1e-6, "{probabilities:?}");
        }
        assert_eq!(softmax(&[]), Vec::<f32>::new());
        assert_eq!(softmax(&[-3e38, 3e38]), [0.0, 1.0]);
        assert_eq!(softmax(&[f32::INFINITY, 1.0, f32::INFINITY]), [0.5, 0.0, 0.5]);
        assert_eq!(softmax(&[f32::NEG_INFINITY; 2]), [0.5, 0.5]);
        assert!(softmax(&[0.0, f32::NAN]).iter().all(|p| p.is_nan()));
    }

    #[test]
    fn top_k_breaks_ties_by_the_lower_index() {
        assert_eq!(top_k(&[0.1, 0.7, 0.1, 0.7, 0.3], 4), [(1, 0.7), (3, 0.7), (4, 0.3), (0, 0.1)]);
        assert_eq!(top_k(&[1.0], 5), [(0, 1.0)]);
        assert_eq!(top_k(&[], 5), []);
        let with_nan = top_k(&[f32::NAN, 0.0, -0.0, f32::NEG_INFINITY], 4);
        assert_eq!(with_nan.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 2, 3, 0]);
    }
}
