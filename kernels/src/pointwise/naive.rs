//! The reference: each output element by itself, each step by itself.

use super::{Binary, Operand, Step, Unary};
use crate::lanes::{maximum, minimum};
use crate::math;

/// One function of one number.
pub fn apply(function: Unary, x: f32) -> f32 {
    match function {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Sign => math::sign(x),
        Unary::Square => x * x,
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => 1.0 / x.sqrt(),
        Unary::Reciprocal => 1.0 / x,
        Unary::Floor => x.floor(),
        Unary::Ceil => x.ceil(),
        Unary::Round => x.round_ties_even(),
        Unary::Trunc => x.trunc(),
        Unary::Exp => math::exp(x),
        Unary::Log => math::log(x),
        Unary::Sin => math::sin(x),
        Unary::Cos => math::cos(x),
        Unary::Erf => math::erf(x),
        Unary::Tanh => math::tanh(x),
        Unary::Sigmoid => math::sigmoid(x),
        Unary::Gelu => math::gelu(x),
        Unary::GeluTanh => math::gelu_tanh(x),
        Unary::Silu => math::silu(x),
        Unary::Softplus => math::softplus(x),
        Unary::Softsign => x / (x.abs() + 1.0),
        Unary::Mish => math::mish(x),
        Unary::HardSwish => math::hard_swish(x),
        Unary::Relu => math::at_least(x, 0.0),
        Unary::Clamp { low, high } => math::clamp(x, low, high),
        Unary::LeakyRelu { alpha } => {
            if x < 0.0 {
                x * alpha
            } else {
                x
            }
        }
        Unary::Elu { alpha } => elu(x, alpha),
        Unary::Selu { alpha, gamma } => elu(x, alpha) * gamma,
        Unary::Celu { alpha } => {
            if x < 0.0 {
                math::expm1_of_negative(x / alpha) * alpha
            } else {
                x
            }
        }
        Unary::ThresholdedRelu { alpha } => {
            if x <= alpha {
                0.0
            } else {
                x
            }
        }
        Unary::HardSigmoid { alpha, beta } => math::clamp(x * alpha + beta, 0.0, 1.0),
    }
}

fn elu(x: f32, alpha: f32) -> f32 {
    if x < 0.0 { math::expm1_of_negative(x) * alpha } else { x }
}

/// One function of two numbers.
pub fn combine(function: Binary, a: f32, b: f32) -> f32 {
    match function {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Min => minimum(a, b),
        Binary::Max => maximum(a, b),
        Binary::Pow => math::pow(a, b),
        Binary::PRelu => {
            if a < 0.0 {
                a * b
            } else {
                a
            }
        }
    }
}

/// All elements of a chain: `output` has as many as `shape`.
pub fn run(shape: &[usize], input: Operand, steps: &[Step], output: &mut [f32]) {
    for (index, place) in output.iter_mut().enumerate() {
        let mut value = input.at(shape, index);
        for step in steps {
            value = match step {
                Step::Unary(function) => apply(*function, value),
                Step::Binary(function, operand) => combine(*function, value, operand.at(shape, index)),
                Step::Reversed(function, operand) => combine(*function, operand.at(shape, index), value),
            };
        }
        *place = value;
    }
}
