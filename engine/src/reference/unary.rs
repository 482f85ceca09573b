//! Operators on each element alone.

use super::array::{Array, Numbers, Result};
use super::call::Call;
use crate::ElementType;

/// Square root of 2 over pi, of the approximation of Gelu by tanh.
const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;

pub(super) fn erf(x: f64) -> f64 {
    libm::erf(x)
}

pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}

pub(super) fn softplus(x: f64) -> f64 {
    // What is above 0 is added at the end, so that nothing overflows.
    x.max(0.0) + libm::log1p(libm::exp(-x.abs()))
}

fn hard_sigmoid(x: f64, alpha: f64, beta: f64) -> f64 {
    (alpha * x + beta).clamp(0.0, 1.0)
}

/// The value of a unary operator of floats; `a` and `b` are its attributes. `None` for another operator.
pub(super) fn float(name: &str, x: f64, a: f64, b: f64) -> Option<f64> {
    Some(match name {
        "Abs" => x.abs(),
        "Acos" => libm::acos(x),
        "Acosh" => libm::acosh(x),
        "Asin" => libm::asin(x),
        "Asinh" => libm::asinh(x),
        "Atan" => libm::atan(x),
        "Atanh" => libm::atanh(x),
        "Ceil" => x.ceil(),
        "Celu" => x.max(0.0) + (a * libm::expm1(x / a)).min(0.0),
        "Cos" => libm::cos(x),
        "Cosh" => libm::cosh(x),
        "Elu" if x < 0.0 => a * libm::expm1(x),
        "Elu" | "Identity" => x,
        "Erf" => erf(x),
        "Exp" => libm::exp(x),
        "Floor" => x.floor(),
        "Gelu" if a == 1.0 => 0.5 * x * (1.0 + libm::tanh(SQRT_2_OVER_PI * (x + 0.044715 * x * x * x))),
        "Gelu" => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        "HardSigmoid" => hard_sigmoid(x, a, b),
        "HardSwish" => x * hard_sigmoid(x, 1.0 / 6.0, 0.5),
        "LeakyRelu" if x < 0.0 => a * x,
        "LeakyRelu" => x,
        "Log" => libm::log(x),
        "Mish" => x * libm::tanh(softplus(x)),
        "Neg" => -x,
        "Reciprocal" => 1.0 / x,
        "Relu" if x < 0.0 => 0.0,
        "Relu" => x,
        "Affine" => a * x + b,
        "ScaledTanh" => a * libm::tanh(b * x),
        "Round" => x.round_ties_even(),
        "Selu" if x < 0.0 => b * a * libm::expm1(x),
        "Selu" => b * x,
        "Shrink" if x < -a => x + b,
        "Shrink" if x > a => x - b,
        "Shrink" => 0.0,
        "Sigmoid" => sigmoid(x),
        "Sign" if x.is_nan() || x == 0.0 => x,
        "Sign" => 1f64.copysign(x),
        "Sin" => libm::sin(x),
        "Sinh" => libm::sinh(x),
        "Softplus" => softplus(x),
        "Softsign" => x / (1.0 + x.abs()),
        "Sqrt" => x.sqrt(),
        "Swish" => x * sigmoid(a * x),
        "Tan" => libm::tan(x),
        "Tanh" => libm::tanh(x),
        "ThresholdedRelu" if x > a => x,
        "ThresholdedRelu" => 0.0,
        _ => return None,
    })
}

/// The same of integers, with the operators that have any of them.
fn integer(name: &str, x: i64, is_uint64: bool, a: f64, b: f64) -> Option<i64> {
    Some(match name {
        "Abs" if is_uint64 => x,
        "Abs" => x.wrapping_abs(),
        "Neg" => x.wrapping_neg(),
        "Relu" if is_uint64 => x,
        "Relu" => x.max(0),
        "Sign" if is_uint64 => i64::from(x != 0),
        "Sign" => x.signum(),
        "BitwiseNot" => !x,
        "Not" => i64::from(x == 0),
        _ => float(name, x as f64, a, b)? as i64,
    })
}

/// Attributes that a unary operator has, with their defaults.
fn parameters(call: &Call<'_>) -> (f64, f64) {
    let alpha = |otherwise: f32| call.float("alpha", otherwise);
    match &*call.node.op_type {
        "Celu" | "Elu" | "Swish" | "ThresholdedRelu" => (alpha(1.0), 0.0),
        "Gelu" => (f64::from(u8::from(call.text("approximate", "none") == "tanh")), 0.0),
        "HardSigmoid" => (alpha(0.2), call.float("beta", 0.5)),
        "LeakyRelu" => (alpha(0.01), 0.0),
        "Selu" => (alpha(1.673_263_2), call.float("gamma", 1.050_701)),
        "Shrink" => (call.float("lambd", 0.5), call.float("bias", 0.0)),
        _ => (0.0, 0.0),
    }
}

/// Any of the operators above.
pub(super) fn unary(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let name = &*call.node.op_type;
    let (a, b) = parameters(call);
    let unknown = || format!("{name} of {}", x.element_type);
    let numbers = match x.numbers() {
        Numbers::Floats(values) => {
            let values = values.into_iter().map(|x| float(name, x, a, b)).collect::<Option<_>>();
            Numbers::Floats(values.ok_or_else(unknown)?)
        }
        Numbers::Integers(values) => {
            let values =
                values.into_iter().map(|value| integer(name, value, x.is_uint64(), a, b)).collect::<Option<_>>();
            Numbers::Integers(values.ok_or_else(unknown)?)
        }
    };
    Ok(vec![Array::from_numbers(x.element_type, x.shape.clone(), &numbers)?])
}

/// `IsNaN` and `IsInf`.
pub(super) fn is(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let (negative, positive) = (call.int("detect_negative", 1) != 0, call.int("detect_positive", 1) != 0);
    let is_nan = call.node.op_type == "IsNaN";
    let holds = |x: f64| match is_nan {
        true => x.is_nan(),
        false => x.is_infinite() && if x < 0.0 { negative } else { positive },
    };
    Ok(vec![Array::bools(x.shape.clone(), x.f64s().into_iter().map(holds))?])
}

/// `Cast`, and `CastLike`, whose second input tells the type.
pub(super) fn cast(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let to = match call.optional(1) {
        Some(like) => like.element_type,
        None => call.element_type("to", x.element_type)?,
    };
    Ok(vec![cast_to(x, to)?])
}

pub(super) fn cast_to(x: &Array, to: ElementType) -> Result<Array> {
    if x.element_type == to {
        return Ok(x.clone());
    }
    if x.is_uint64() && super::array::is_float(to) {
        return Array::floats(to, x.shape.clone(), &x.f64s());
    }
    Array::from_numbers(to, x.shape.clone(), &x.numbers())
}

/// `BitCast`: the same bytes as another type of that size.
pub(super) fn bit_cast(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let to = call.element_type("to", x.element_type)?;
    Ok(vec![Array::new(to, x.shape.clone(), x.bytes().to_vec())?])
}

/// `Clip`, its limits attributes or inputs.
pub(super) fn clip(call: &Call<'_>) -> Result<Vec<Array>> {
    let x = call.input(0)?;
    let numbers = match x.numbers() {
        Numbers::Floats(values) => {
            let limit = |name: &str, index: usize, otherwise: f64| match call.optional(index) {
                Some(limit) => limit.scalar_f64(),
                None => Ok(call.attribute(name).map_or(otherwise, |attribute| attribute.f.into())),
            };
            let (low, high) = (limit("min", 1, f64::NEG_INFINITY)?, limit("max", 2, f64::INFINITY)?);
            let clip = |x: f64| if x.is_nan() { x } else { x.max(low).min(high) };
            Numbers::Floats(values.into_iter().map(clip).collect())
        }
        Numbers::Integers(values) => {
            // The order of uint64 is that of int64 with the sign turned around.
            let flip = if x.is_uint64() { i64::MIN } else { 0 };
            let limit = |index: usize, otherwise: i64| match call.optional(index) {
                Some(limit) => limit.scalar_i64().map(|limit| limit ^ flip),
                None => Ok(otherwise),
            };
            let (low, high) = (limit(1, i64::MIN)?, limit(2, i64::MAX)?);
            Numbers::Integers(values.into_iter().map(|x| (x ^ flip).max(low).min(high) ^ flip).collect())
        }
    };
    Ok(vec![Array::from_numbers(x.element_type, x.shape.clone(), &numbers)?])
}
