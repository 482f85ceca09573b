//! The functions that one pass over memory computes, on four lanes.
//!
//! A function has the value, up to four parameters (numbers that hold for a whole row) and up to two streams (numbers
//! that go along with the value).

use crate::lanes::Lanes;
use crate::math::vector as math;

/// Most parameters of a pass.
pub const PARAMETERS: usize = 4;
/// Most streams of a pass.
pub const STREAMS: usize = 2;

/// What a pass computes.
pub trait Function {
    const PARAMETERS: usize;
    const STREAMS: usize;
    /// Instructions for four elements, loads and stores included.
    const COST: u64;
    fn eval<V: Lanes>(x: V, p: [V; PARAMETERS], s: [V; STREAMS]) -> V;
}

macro_rules! functions {
    ($($name:ident ($parameters:literal, $streams:literal, $cost:literal) |$x:ident, $p:ident, $s:ident| $body:expr;)*) => {
        $(
            pub struct $name;
            impl Function for $name {
                const PARAMETERS: usize = $parameters;
                const STREAMS: usize = $streams;
                const COST: u64 = $cost;
                #[inline(always)]
                fn eval<V: Lanes>($x: V, $p: [V; PARAMETERS], $s: [V; STREAMS]) -> V {
                    $body
                }
            }
        )*
    };
}

#[inline(always)]
fn below_zero<V: Lanes>(x: V) -> V {
    x.lt(V::splat(0.0))
}

#[inline(always)]
fn elu<V: Lanes>(x: V, alpha: V) -> V {
    below_zero(x).select(math::expm1_of_negative(x).mul(alpha), x)
}

functions! {
    // One value.
    Neg(0, 0, 6) |x, _p, _s| x.neg();
    Abs(0, 0, 6) |x, _p, _s| x.abs();
    Sign(0, 0, 16) |x, _p, _s| math::sign(x);
    Square(0, 0, 8) |x, _p, _s| x.mul(x);
    Sqrt(0, 0, 9) |x, _p, _s| x.sqrt();
    Rsqrt(0, 0, 20) |x, _p, _s| V::splat(1.0).div(x.sqrt());
    Reciprocal(0, 0, 15) |x, _p, _s| V::splat(1.0).div(x);
    Floor(0, 0, 6) |x, _p, _s| x.floor();
    Ceil(0, 0, 6) |x, _p, _s| x.ceil();
    Round(0, 0, 6) |x, _p, _s| x.nearest();
    Trunc(0, 0, 6) |x, _p, _s| x.trunc();
    Exp(0, 0, 71) |x, _p, _s| math::exp(x);
    Log(0, 0, 132) |x, _p, _s| math::log(x);
    Erf(0, 0, 88) |x, _p, _s| math::erf(x);
    Tanh(0, 0, 75) |x, _p, _s| math::tanh(x);
    Sigmoid(0, 0, 85) |x, _p, _s| math::sigmoid(x);
    Gelu(0, 0, 94) |x, _p, _s| math::gelu(x);
    GeluTanh(0, 0, 98) |x, _p, _s| math::gelu_tanh(x);
    Silu(0, 0, 86) |x, _p, _s| math::silu(x);
    Softplus(0, 0, 231) |x, _p, _s| math::softplus(x);
    Softsign(0, 0, 20) |x, _p, _s| x.div(x.abs().add(V::splat(1.0)));
    Mish(0, 0, 99) |x, _p, _s| math::mish(x);
    HardSwish(0, 0, 21) |x, _p, _s| math::hard_swish(x);
    // The zero is a parameter, lest it be compiled into a comparison and a selection.
    Relu(1, 0, 6) |x, p, _s| x.at_least(p[0]);
    Clamp(2, 0, 8) |x, p, _s| math::clamp(x, p[0], p[1]);
    LeakyRelu(1, 0, 13) |x, p, _s| below_zero(x).select(x.mul(p[0]), x);
    Elu(1, 0, 94) |x, p, _s| elu(x, p[0]);
    Selu(2, 0, 97) |x, p, _s| elu(x, p[0]).mul(p[1]);
    Celu(1, 0, 106) |x, p, _s| below_zero(x).select(math::expm1_of_negative(x.div(p[0])).mul(p[0]), x);
    ThresholdedRelu(1, 0, 12) |x, p, _s| x.le(p[0]).select(V::splat(0.0), x);
    HardSigmoid(2, 0, 16) |x, p, _s| math::clamp(x.mul(p[0]).add(p[1]), V::splat(0.0), V::splat(1.0));

    // A value and a parameter.
    AddP(1, 0, 7) |x, p, _s| x.add(p[0]);
    SubP(1, 0, 7) |x, p, _s| x.sub(p[0]);
    SubFromP(1, 0, 7) |x, p, _s| p[0].sub(x);
    MulP(1, 0, 7) |x, p, _s| x.mul(p[0]);
    DivP(1, 0, 15) |x, p, _s| x.div(p[0]);
    DivideP(1, 0, 15) |x, p, _s| p[0].div(x);
    MinP(1, 0, 9) |x, p, _s| x.minimum(p[0]);
    MaxP(1, 0, 9) |x, p, _s| x.maximum(p[0]);
    PReluP(1, 0, 13) |x, p, _s| below_zero(x).select(x.mul(p[0]), x);

    // A value and a stream.
    AddS(0, 1, 8) |x, _p, s| x.add(s[0]);
    SubS(0, 1, 8) |x, _p, s| x.sub(s[0]);
    SubFromS(0, 1, 8) |x, _p, s| s[0].sub(x);
    MulS(0, 1, 8) |x, _p, s| x.mul(s[0]);
    DivS(0, 1, 16) |x, _p, s| x.div(s[0]);
    DivideS(0, 1, 16) |x, _p, s| s[0].div(x);
    MinS(0, 1, 10) |x, _p, s| x.minimum(s[0]);
    MaxS(0, 1, 10) |x, _p, s| x.maximum(s[0]);
    PReluS(0, 1, 14) |x, _p, s| below_zero(x).select(x.mul(s[0]), x);

    // Scale and shift: batch normalisation, dequantised activations, scale and mask.
    MulPAddP(2, 0, 10) |x, p, _s| x.mul(p[0]).add(p[1]);
    MulPAddS(1, 1, 11) |x, p, s| x.mul(p[0]).add(s[0]);
    MulSAddS(0, 2, 12) |x, _p, s| x.mul(s[0]).add(s[1]);
    AddSAddS(0, 2, 12) |x, _p, s| x.add(s[0]).add(s[1]);
    AddPMulP(2, 0, 10) |x, p, _s| x.add(p[0]).mul(p[1]);
    MulPMulS(1, 1, 11) |x, p, s| x.mul(p[0]).mul(s[0]);
    MulSMulP(1, 1, 11) |x, p, s| x.mul(s[0]).mul(p[0]);
    SubPMulP(2, 0, 10) |x, p, _s| x.sub(p[0]).mul(p[1]);
    SubPMulPMulSAddS(2, 2, 18) |x, p, s| x.sub(p[0]).mul(p[1]).mul(s[0]).add(s[1]);

    SubPMulPMulS(2, 1, 14) |x, p, s| x.sub(p[0]).mul(p[1]).mul(s[0]);
    SubPMulPAddS(2, 1, 14) |x, p, s| x.sub(p[0]).mul(p[1]).add(s[0]);
    SubPMulPMulPAddP(4, 0, 16) |x, p, _s| x.sub(p[0]).mul(p[1]).mul(p[2]).add(p[3]);
    SubPSubP(2, 0, 10) |x, p, _s| x.sub(p[0]).sub(p[1]);

    // The same, clamped.
    AddPClamp(3, 0, 11) |x, p, _s| math::clamp(x.add(p[0]), p[1], p[2]);
    AddSClamp(2, 1, 12) |x, p, s| math::clamp(x.add(s[0]), p[0], p[1]);
    MulPAddPClamp(4, 0, 14) |x, p, _s| math::clamp(x.mul(p[0]).add(p[1]), p[2], p[3]);
    MulSAddSClamp(2, 2, 16) |x, p, s| math::clamp(x.mul(s[0]).add(s[1]), p[0], p[1]);

    // Biased activations.
    AddSGelu(0, 1, 99) |x, _p, s| math::gelu(x.add(s[0]));
    AddSGeluTanh(0, 1, 103) |x, _p, s| math::gelu_tanh(x.add(s[0]));
    AddSSilu(0, 1, 91) |x, _p, s| math::silu(x.add(s[0]));

    // Gated linear units.
    SiluMulS(0, 1, 91) |x, _p, s| math::silu(x).mul(s[0]);
    SigmoidMulS(0, 1, 90) |x, _p, s| math::sigmoid(x).mul(s[0]);
    GeluMulS(0, 1, 99) |x, _p, s| math::gelu(x).mul(s[0]);
    GeluTanhMulS(0, 1, 103) |x, _p, s| math::gelu_tanh(x).mul(s[0]);
}
