//! Element-wise operators on f32 with broadcasting, and chains of them in one pass.
//!
//! A [`Chain`] is an input and a list of [`Step`]s, each applied to every element of the output shape: activations,
//! arithmetic with another tensor, clamping. What it computes is exactly its steps one after the other, each rounded to
//! f32; steps that often follow each other (scale and shift, add and clamp, SiLU and gate) run fused, which saves memory
//! traffic and changes no bit.
//!
//! ```
//! use onnx_kernels::pointwise::{Binary, Chain, Operand, Step, Unary};
//! // A residual block's tail: relu(x * scale + shift + residual), scale and shift per channel of a 1x2x1x3 tensor.
//! let (x, residual) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.5; 6]);
//! let shape = [1, 2, 1, 3];
//! let steps = [
//!     Step::Binary(Binary::Mul, Operand::broadcast(&[2.0, -1.0], &[1, 2, 1, 1], &shape).unwrap()),
//!     Step::Binary(Binary::Add, Operand::broadcast(&[0.0, 1.0], &[2, 1, 1], &shape).unwrap()),
//!     Step::Binary(Binary::Add, Operand::full(&residual, &shape).unwrap()),
//!     Step::Unary(Unary::Relu),
//! ];
//! let chain = Chain::new(&shape, Operand::full(&x, &shape).unwrap(), &steps).unwrap();
//! let mut output = [0.0; 6];
//! chain.run(0..6, &mut output);
//! assert_eq!(output, [2.5, 4.5, 6.5, 0.0, 0.0, 0.0]);
//! ```

mod chain;
mod driver;
mod estimate;
mod fused;
pub mod naive;
pub(crate) mod row;
#[cfg(test)]
mod tests;

pub use chain::{Chain, Operand, ShapeError, broadcast_strides};

/// Most dimensions of a shape.
pub const MAX_RANK: usize = 8;
/// Most steps of a chain.
pub const MAX_STEPS: usize = 8;

/// A function of one f32. The sequences of operations are those of [`crate::math`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unary {
    Neg,
    Abs,
    Sign,
    /// x x.
    Square,
    Sqrt,
    /// 1 / sqrt(x), two roundings.
    Rsqrt,
    /// 1 / x.
    Reciprocal,
    Floor,
    Ceil,
    /// To the nearest integer, ties to even.
    Round,
    Trunc,
    Exp,
    Log,
    Sin,
    Cos,
    Erf,
    Tanh,
    Sigmoid,
    /// The exact form, x Phi(x).
    Gelu,
    /// The tanh form.
    GeluTanh,
    Silu,
    /// log(1 + e^x).
    Softplus,
    /// x / (1 + |x|).
    Softsign,
    Mish,
    HardSwish,
    /// 0 for values below 0; NaN and -0 stay.
    Relu,
    /// NaN stays NaN.
    Clamp {
        low: f32,
        high: f32,
    },
    /// x, or alpha x below 0.
    LeakyRelu {
        alpha: f32,
    },
    /// x, or alpha (e^x - 1) below 0.
    Elu {
        alpha: f32,
    },
    /// gamma times Elu.
    Selu {
        alpha: f32,
        gamma: f32,
    },
    /// x, or alpha (e^(x / alpha) - 1) below 0.
    Celu {
        alpha: f32,
    },
    /// x above alpha, else 0.
    ThresholdedRelu {
        alpha: f32,
    },
    /// clamp(alpha x + beta, 0, 1).
    HardSigmoid {
        alpha: f32,
        beta: f32,
    },
}

/// A function of two f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    /// IEEE 754-2019 `minimum`: NaN if either is.
    Min,
    /// IEEE 754-2019 `maximum`: NaN if either is.
    Max,
    Pow,
    /// The first, or the product of both where the first is below 0.
    PRelu,
}

/// What a chain does with the value so far.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// value = f(value)
    Unary(Unary),
    /// value = f(value, operand)
    Binary(Binary, Operand<'a>),
    /// value = f(operand, value)
    Reversed(Binary, Operand<'a>),
}

/// `output[i] = function(input[i])`; the slices are of equal length.
pub fn unary(function: Unary, input: &[f32], output: &mut [f32]) {
    assert_eq!(input.len(), output.len(), "input and output differ in length");
    driver::unary::<crate::lanes::Native>(function, Some(input), output);
}

/// `data[i] = function(data[i])`.
pub fn unary_in_place(function: Unary, data: &mut [f32]) {
    driver::unary::<crate::lanes::Native>(function, None, data);
}

/// `output[i] = function(a[i], b[i])`; the slices are of equal length.
pub fn binary(function: Binary, a: &[f32], b: &[f32], output: &mut [f32]) {
    driver::binary::<crate::lanes::Native>(function, a, b, output);
}

/// Instructions of [`unary`] on `elements`, in WebAssembly with SIMD.
pub fn estimate_unary(function: Unary, elements: usize) -> u64 {
    estimate::segments(driver::unary_pass(function), 1, elements)
}

/// Bodies for any target.
pub mod portable {
    use super::*;
    use crate::lanes::portable::Four;
    use std::ops::Range;

    /// See [`super::unary`].
    pub fn unary(function: Unary, input: &[f32], output: &mut [f32]) {
        assert_eq!(input.len(), output.len(), "input and output differ in length");
        driver::unary::<Four>(function, Some(input), output);
    }

    /// See [`super::binary`].
    pub fn binary(function: Binary, a: &[f32], b: &[f32], output: &mut [f32]) {
        driver::binary::<Four>(function, a, b, output);
    }

    /// See [`Chain::run`].
    pub fn run(chain: &Chain, range: Range<usize>, output: &mut [f32]) {
        chain.run_with::<Four>(range, output);
    }
}
