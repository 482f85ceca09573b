//! How far the functions are from the truth, over all exponents and both signs.

use super::*;

/// Every `STEP`th bit pattern is tried.
const STEP: usize = 10_007;

/// f32 of all exponents, the special ones among them.
fn samples() -> impl Iterator<Item = f32> {
    let special = [0.0, -0.0, 1.0, -1.0, f32::MIN_POSITIVE, 1e-45, -1e-45, f32::MAX, f32::MIN, f32::INFINITY];
    let special = special.into_iter().chain([f32::NEG_INFINITY, f32::NAN]);
    (0..=u32::MAX).step_by(STEP).map(f32::from_bits).chain(special)
}

/// Numbers where most functions do something, densely.
fn dense() -> impl Iterator<Item = f32> {
    (-200_000..=200_000).map(|index| index as f32 * 5.1e-4)
}

/// The unit in the last place of the f32 nearest to `value`.
fn ulp(value: f64) -> f64 {
    let nearest = (value.abs() as f32).max(f32::MIN_POSITIVE);
    f64::from(f32::from_bits(nearest.to_bits() + 1)) - f64::from(nearest)
}

/// The largest error in units in the last place, where `counts`; other than finite results have to be equal, and results
/// that are subnormal or smaller may be anything smaller.
fn worst(name: &str, function: fn(f32) -> f32, truth: impl Fn(f64) -> f64, counts: impl Fn(f32) -> bool) -> f64 {
    let mut worst = (0.0, 0.0);
    for x in samples().chain(dense()).filter(|x| counts(*x)) {
        let (got, exact) = (f64::from(function(x)), truth(f64::from(x)));
        if exact.is_nan() {
            assert!(got.is_nan(), "{name}({x:e}) is {got}");
        } else if exact.abs() > f64::from(f32::MAX) * 1.000_000_5 {
            assert_eq!(got, exact.signum() * f64::INFINITY, "{name}({x:e})");
        } else if exact.abs() < 2f64.powi(-125) {
            assert!(got.abs() <= 2f64.powi(-125), "{name}({x:e}) is {got:e}");
        } else if got.is_infinite() {
            assert!(exact.abs() >= f64::from(f32::MAX) * 0.999_999, "{name}({x:e}) is {got:e}");
        } else {
            let error = (got - exact).abs() / ulp(exact);
            assert!(!error.is_nan(), "{name}({x:e}) is {got:e}, not {exact:e}");
            if error > worst.0 {
                worst = (error, x);
            }
        }
    }
    println!("{name}: {:.2} ulp at {:e}", worst.0, worst.1);
    worst.0
}

/// The error function: its power series, and far out the continued fraction of its complement.
fn exact_erf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x.abs() < 2.5 {
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-18 * sum.abs() && n < 200.0 {
            n += 1.0;
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        return sum * std::f64::consts::FRAC_2_SQRT_PI;
    }
    x.signum() * (1.0 - exact_erfc(x.abs()))
}

/// 1 - erf(x) for x >= 2.5.
fn exact_erfc(x: f64) -> f64 {
    let fraction = (1..200).rev().fold(0.0, |below, n| f64::from(n) / 2.0 / (x + below));
    (-x * x).exp() / (x + fraction) * std::f64::consts::FRAC_2_SQRT_PI / 2.0
}

/// x Phi(x).
fn exact_gelu(x: f64) -> f64 {
    let z = x / std::f64::consts::SQRT_2;
    if z < -2.5 { x * exact_erfc(-z) / 2.0 } else { x * (1.0 + exact_erf(z)) / 2.0 }
}

fn exact_gelu_tanh(x: f64) -> f64 {
    let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
    x / (1.0 + (-2.0 * u).exp())
}

#[test]
fn exponentials_and_logarithms_are_accurate() {
    let all = |_| true;
    assert!(worst("exp", exp, f64::exp, all) <= 2.5);
    assert!(worst("log", log, f64::ln, all) <= 2.0);
    assert!(worst("expm1", expm1_of_negative, f64::exp_m1, |x| x <= 0.0 || x.is_nan()) <= 3.0);
    assert!(worst("softplus", softplus, |x| if x > 50.0 { x } else { x.exp().ln_1p() }, all) <= 4.0);
    assert_eq!((exp(0.0), exp(f32::NEG_INFINITY), exp(f32::INFINITY)), (1.0, 0.0, f32::INFINITY));
    assert!(exp(88.722_83).is_finite() && exp(88.722_85).is_infinite() && exp(f32::NAN).is_nan());
    assert_eq!((log(1.0), log(0.0), log(f32::INFINITY)), (0.0, f32::NEG_INFINITY, f32::INFINITY));
    assert!(log(-1.0).is_nan() && log(f32::NAN).is_nan());
}

#[test]
fn sigmoids_are_accurate() {
    let all = |_| true;
    assert!(worst("tanh", tanh, f64::tanh, all) <= 7.0);
    assert!(worst("erf", erf, exact_erf, all) <= 7.0);
    assert!(worst("sigmoid", sigmoid, |x| 1.0 / (1.0 + (-x).exp()), |x| x >= -86.0 || x.is_nan()) <= 3.0);
    assert!(worst("silu", silu, |x| x / (1.0 + (-x).exp()), |x| x >= -86.0 || x.is_nan()) <= 4.0);
    let mish_of = |x: f64| x * if x > 30.0 { 1.0 } else { x.exp().ln_1p().tanh() };
    assert!(worst("mish", mish, mish_of, |x| x >= -80.0 || x.is_nan()) <= 5.0);
    for limit in [tanh, erf] {
        assert_eq!((limit(f32::INFINITY), limit(-f32::MAX), limit(0.0)), (1.0, -1.0, 0.0));
        assert!(limit(f32::NAN).is_nan());
    }
    // Further down the results are small: an absolute error.
    for x in dense().filter(|x| *x < -80.0) {
        assert!((f64::from(sigmoid(x)) - (f64::from(x)).exp()).abs() < 1e-35);
    }
}

#[test]
fn gelus_are_accurate() {
    let positive = |x: f32| x >= 0.0 || x.is_nan();
    assert!(worst("gelu", gelu, exact_gelu, positive) <= 4.0);
    assert!(worst("gelu (tanh)", gelu_tanh, exact_gelu_tanh, |x| positive(x) || (-1.0..0.0).contains(&x)) <= 4.0);
    for x in samples().chain(dense()).filter(|x| *x < 0.0 && x.is_finite()) {
        let error = (f64::from(gelu(x)) - exact_gelu(f64::from(x))).abs();
        assert!(error <= 1.2e-6, "gelu({x:e}) is {error:e} off");
        let error = (f64::from(gelu_tanh(x)) - exact_gelu_tanh(f64::from(x))).abs();
        assert!(error <= 1e-6, "gelu_tanh({x:e}) is {error:e} off");
    }
}

#[test]
fn the_exponential_of_softmax_is_accurate_relative_to_one() {
    for x in samples().chain(dense()).filter(|x| *x <= 0.0) {
        let (got, exact) = (f64::from(exp_of_difference(x)), f64::from(x).exp());
        assert!((got - exact).abs() <= 1.5 * 2f64.powi(-23), "{x:e}: {got:e}");
        if exact > 2f64.powi(-126) {
            let bound = (2.0 + f64::from(-x)) * 2f64.powi(-23);
            assert!((got - exact).abs() <= bound * exact, "{x:e}: {got:e}, not {exact:e}");
        } else {
            assert!(got <= 2f64.powi(-126), "{x:e}: {got:e}");
        }
    }
    assert_eq!((exp_of_difference(0.0), exp_of_difference(f32::NEG_INFINITY)), (1.0, 0.0));
    assert!(exp_of_difference(f32::NAN).is_nan());
}

#[test]
fn sines_and_cosines_are_accurate_for_every_argument() {
    // The platform's f64 functions reduce exactly.
    assert!(worst("sin", sin, f64::sin, |x| x.is_finite()) <= 1.0);
    assert!(worst("cos", cos, f64::cos, |x| x.is_finite()) <= 1.0);
    assert!(sin(f32::INFINITY).is_nan() && cos(f32::NAN).is_nan());
    assert_eq!((sin(-0.0).to_bits(), cos(0.0)), ((-0.0f32).to_bits(), 1.0));
}

#[test]
fn powers_are_accurate() {
    let bases: Vec<f32> = samples().step_by(997).chain([0.5, 2.0, 10.0, 0.999, -3.0, -0.5]).collect();
    let exponents = [2.0, 3.0, -1.0, 0.5, -0.5, 1.5, 0.0, 7.0, -40.0, 100.5, 1e10, f32::INFINITY, f32::NAN, -0.0];
    for x in bases {
        for y in exponents.into_iter().chain([x]) {
            let (got, exact) = (pow(x, y), f64::from(x).powf(f64::from(y)));
            let rounded = exact as f32;
            let same = got == rounded || got.is_nan() && rounded.is_nan();
            let error = (f64::from(got) - exact).abs() / ulp(exact);
            assert!(same || error <= 1.0 || exact.abs() < 1e-44, "{x:e}^{y:e} is {got:e}, not {exact:e}");
            if exact == 0.0 || exact.is_infinite() {
                assert_eq!(got.to_bits(), rounded.to_bits(), "{x:e}^{y:e}");
            }
        }
    }
}
