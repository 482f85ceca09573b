//! Compares every body of every kernel with its reference, on the target this runs on.
//!
//! The native tests call [`check`] for the portable bodies; the module of `kernels/bench`, built with simd128 and
//! without, calls it inside Wasm. A family of kernels has a file here and a line in [`FAMILIES`].

mod blockwise;
mod cast;
mod conv;
mod copy;
mod crc32;
mod depthwise;
mod gemm;
mod gemm_nt;
mod image;
mod int8;
mod norm;
mod pointwise;
mod pool;
mod qconv;
mod quantise;
mod reduce;
mod rotary;
mod softmax;
mod typed;
mod winograd;

/// Compares a family's bodies on inputs made from a seed. Tells how many comparisons were made, or the first value that
/// differs.
pub type Check = fn(seed: u64) -> Result<u32, String>;

/// Every family of kernels.
pub const FAMILIES: &[(&str, Check)] = &[
    ("cast", cast::check),
    ("blockwise", blockwise::check),
    ("conv", conv::check),
    ("copy", copy::check),
    ("crc32", crc32::check),
    ("depthwise", depthwise::check),
    ("gemm", gemm::check),
    ("gemm_nt", gemm_nt::check),
    ("image", image::check),
    ("norm", norm::check),
    ("pointwise", pointwise::check),
    ("pool", pool::check),
    ("reduce", reduce::check),
    ("rotary", rotary::check),
    ("softmax", softmax::check),
    ("typed", typed::check),
    ("int8", int8::check),
    ("qconv", qconv::check),
    ("quantise", quantise::check),
    ("winograd", winograd::check),
];

/// Checks every family and tells the comparisons made in each.
pub fn check(seed: u64) -> Result<Vec<(&'static str, u32)>, String> {
    FAMILIES.iter().map(|(name, check)| Ok((*name, check(seed)?))).collect()
}

/// A fixed sequence of numbers (splitmix64: Steele, Lea and Flood 2014).
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Numbers {
        Numbers(seed)
    }

    #[expect(clippy::should_implement_trait, reason = "a sequence without an end")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number less than `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Bytes in which the extremes, where clipping and overflow would show, are frequent.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let byte = |number: u64| match number % 4 {
            0 => 0,
            1 => 255,
            _ => (number >> 8) as u8,
        };
        (0..count).map(|_| byte(self.next())).collect()
    }

    /// Numbers evenly spread over -1 to 1: sums of them round at almost every step, so that an order differs from another.
    pub fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    /// The same with zeros of both signs, denormals, large numbers, infinities and NaN among them.
    pub fn wild_floats(&mut self, count: usize) -> Vec<f32> {
        let mut values = self.floats(count);
        for value in &mut values {
            *value = match self.next() % 64 {
                0 => 0.0,
                1 => -0.0,
                2 => f32::from_bits(1),
                3 => -f32::MIN_POSITIVE / 2.0,
                4 => 3e38,
                5 => f32::INFINITY,
                6 => f32::NEG_INFINITY,
                7 => f32::NAN,
                _ => *value,
            };
        }
        values
    }
}

/// The bits of floats, every NaN having the same ones.
pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() }).collect()
}

/// Fails on the first value of `output` that is not that of `reference`, and says which.
pub fn equal<T: PartialEq + std::fmt::Debug>(
    kernel: &str,
    body: &str,
    case: &str,
    reference: &[T],
    output: &[T],
) -> Result<(), String> {
    if reference.len() != output.len() {
        let (expected, got) = (reference.len(), output.len());
        return Err(format!("{kernel}, {body}, {case}: {got} values, the reference {expected}"));
    }
    match (0..reference.len()).find(|&index| reference[index] != output[index]) {
        None => Ok(()),
        Some(index) => {
            let (expected, got) = (&reference[index], &output[index]);
            Err(format!("{kernel}, {body}, {case}: value {index} is {got:?}, the reference {expected:?}"))
        }
    }
}

/// [`equal`] for floats, bit for bit but for NaN.
pub fn equal_bits(kernel: &str, body: &str, case: &str, reference: &[f32], output: &[f32]) -> Result<(), String> {
    equal(kernel, body, case, &bits(reference), &bits(output))
        .map_err(|difference| format!("{difference} (bits of f32)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_give_the_same_bits() {
        for seed in [1, 2] {
            for (name, comparisons) in check(seed).unwrap() {
                assert!(comparisons >= 20, "{name}: {comparisons}");
            }
        }
    }

    #[test]
    fn a_difference_is_found() {
        assert_eq!(equal("k", "selected", "c", &[1, 2], &[1, 2]), Ok(()));
        let expected = "k, selected, c: value 1 is 3, the reference 2";
        assert_eq!(equal("k", "selected", "c", &[1, 2], &[1, 3]), Err(expected.to_string()));
        assert!(equal("k", "selected", "c", &[1, 2], &[1]).is_err());
        assert!(equal_bits("k", "selected", "c", &[0.0], &[-0.0]).is_err());
        assert_eq!(equal_bits("k", "selected", "c", &[f32::NAN], &[-f32::NAN]), Ok(()));
    }
}
