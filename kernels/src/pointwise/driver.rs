//! Runs a [`Function`] over consecutive elements, and finds the functions for a list of steps.

use super::fused::{self, Function, PARAMETERS, STREAMS};
use super::{Binary, Unary, naive};
use crate::lanes::{LANES, Lanes};

/// Where a pass reads and writes.
#[derive(Clone, Copy)]
pub struct Segment {
    pub value: *const f32,
    pub streams: [*const f32; STREAMS],
    pub output: *mut f32,
    pub elements: usize,
}

/// Runs over a segment.
///
/// # Safety
/// `value`, `output` and as many `streams` as the function has are valid for `elements` f32; `output` may be `value` or a
/// stream, and overlaps none of them otherwise.
pub type Body = unsafe fn(segment: &Segment, parameters: &[f32; PARAMETERS]);

/// `N` vectors in straight-line code. Not inlined, so that constant offsets stay in the load and store instructions.
#[inline(never)]
unsafe fn block<V: Lanes, F: Function, const N: usize>(
    value: *const f32,
    stream: *const f32,
    second: *const f32,
    output: *mut f32,
    parameters: &[f32; PARAMETERS],
) {
    let zero = V::splat(0.0);
    let mut p = [zero; PARAMETERS];
    for (index, splat) in p.iter_mut().enumerate() {
        if index < F::PARAMETERS {
            *splat = V::splat(parameters[index]);
        }
    }
    // SAFETY: the caller's, for N vectors.
    let one = |vector: usize| unsafe {
        let at = vector * LANES;
        let s = [
            if F::STREAMS > 0 { V::load(stream.add(at)) } else { zero },
            if F::STREAMS > 1 { V::load(second.add(at)) } else { zero },
        ];
        F::eval(V::load(value.add(at)), p, s).store(output.add(at));
    };
    one(0);
    if N >= 4 {
        one(1);
        one(2);
        one(3);
    }
    if N >= 8 {
        one(4);
        one(5);
        one(6);
        one(7);
    }
    if N >= 16 {
        one(8);
        one(9);
        one(10);
        one(11);
        one(12);
        one(13);
        one(14);
        one(15);
    }
    if N >= 32 {
        one(16);
        one(17);
        one(18);
        one(19);
        one(20);
        one(21);
        one(22);
        one(23);
        one(24);
        one(25);
        one(26);
        one(27);
        one(28);
        one(29);
        one(30);
        one(31);
    }
}

/// Functions up to this cost are unrolled sixteen times and four times, dearer ones eight times.
pub const CHEAP: u64 = 24;
/// Functions up to this cost are unrolled thirty-two times and eight times.
pub const CHEAPEST: u64 = 12;

/// See [`Body`].
///
/// # Safety
/// As there.
pub unsafe fn body<V: Lanes, F: Function>(segment: &Segment, parameters: &[f32; PARAMETERS]) {
    let Segment { value, streams: [stream, second], output, elements } = *segment;
    let rest = elements % LANES;
    let mut last = [0.0; LANES];
    if elements < LANES {
        let mut padded = [[0.0; LANES]; 1 + STREAMS];
        let used = [true, F::STREAMS > 0, F::STREAMS > 1];
        for ((padded, from), used) in padded.iter_mut().zip([value, stream, second]).zip(used) {
            if used {
                for (index, place) in padded.iter_mut().take(elements).enumerate() {
                    // SAFETY: the caller's: `index` is below `elements`.
                    *place = unsafe { *from.add(index) };
                }
            }
        }
        let [value, stream, second] = [padded[0].as_ptr(), padded[1].as_ptr(), padded[2].as_ptr()];
        // SAFETY: four elements each.
        unsafe { block::<V, F, 1>(value, stream, second, last.as_mut_ptr(), parameters) };
        for (index, number) in last.iter().take(elements).enumerate() {
            // SAFETY: the caller's: `index` is below `elements`.
            unsafe { *output.add(index) = *number };
        }
        return;
    }
    // The last vector overlaps the one before it, so it is computed before anything is written in place.
    if rest > 0 {
        let at = elements - LANES;
        // SAFETY: the last four elements. A pointer of a stream that is not used is not read.
        unsafe {
            let (stream, second) = (stream.wrapping_add(at), second.wrapping_add(at));
            block::<V, F, 1>(value.add(at), stream, second, last.as_mut_ptr(), parameters);
        }
    }
    let mut at = 0;
    let end = elements - rest;
    // SAFETY: `at + N * LANES <= end <= elements` wherever N vectors are computed.
    unsafe {
        macro_rules! blocks {
            ($($vectors:literal)*) => {
                $(
                    while at + $vectors * LANES <= end {
                        let (stream, second) = (stream.wrapping_add(at), second.wrapping_add(at));
                        block::<V, F, $vectors>(value.add(at), stream, second, output.add(at), parameters);
                        at += $vectors * LANES;
                    }
                )*
            };
        }
        if F::COST <= CHEAPEST {
            blocks!(32 8);
        } else if F::COST <= CHEAP {
            blocks!(16 4);
        } else {
            blocks!(8);
        }
        blocks!(1);
        if rest > 0 {
            for (index, number) in last.iter().enumerate() {
                *output.add(elements - LANES + index) = *number;
            }
        }
    }
}

/// A function without lanes.
trait Scalar {
    const STREAMS: usize;
    fn eval(x: f32, p: f32, s: f32) -> f32;
}

macro_rules! scalars {
    ($($name:ident ($streams:literal) |$x:ident, $p:ident, $s:ident| $body:expr;)*) => {
        $(
            struct $name;
            impl Scalar for $name {
                const STREAMS: usize = $streams;
                fn eval($x: f32, $p: f32, $s: f32) -> f32 {
                    $body
                }
            }
        )*
    };
}

scalars! {
    Sin(0) |x, _p, _s| naive::apply(Unary::Sin, x);
    Cos(0) |x, _p, _s| naive::apply(Unary::Cos, x);
    PowP(0) |x, p, _s| naive::combine(Binary::Pow, x, p);
    PowOfP(0) |x, p, _s| naive::combine(Binary::Pow, p, x);
    PowS(1) |x, _p, s| naive::combine(Binary::Pow, x, s);
    PowOfS(1) |x, _p, s| naive::combine(Binary::Pow, s, x);
    PReluOfP(0) |x, p, _s| naive::combine(Binary::PRelu, p, x);
    PReluOfS(1) |x, _p, s| naive::combine(Binary::PRelu, s, x);
}

/// See [`Body`].
unsafe fn scalar<F: Scalar>(segment: &Segment, parameters: &[f32; PARAMETERS]) {
    let Segment { value, streams: [stream, _], output, elements } = *segment;
    for index in 0..elements {
        // SAFETY: the caller's: `index` is below `elements`.
        unsafe {
            let other = if F::STREAMS > 0 { *stream.add(index) } else { 0.0 };
            *output.add(index) = F::eval(*value.add(index), parameters[0], other);
        }
    }
}

/// The body of no pass.
///
/// # Safety
/// Does nothing.
pub unsafe fn nothing(_segment: &Segment, _parameters: &[f32; PARAMETERS]) {}

/// Cost of a scalar function per four elements.
const SCALAR_COST: u64 = 650;

/// One pass over memory.
#[derive(Clone, Copy)]
pub struct Pass {
    pub body: Body,
    /// Instructions for four elements.
    pub cost: u64,
    /// Steps that it computes.
    pub steps: usize,
}

fn pass<V: Lanes, F: Function>(steps: usize) -> Pass {
    Pass { body: body::<V, F>, cost: F::COST, steps }
}

fn scalar_pass<F: Scalar>() -> Pass {
    Pass { body: scalar::<F>, cost: SCALAR_COST, steps: 1 }
}

/// A step as far as it decides which function runs it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Unary(Unary),
    /// With a number that holds for a whole row.
    Parameter(Binary, Order),
    /// With numbers that go along.
    Stream(Binary, Order),
}

/// Which argument of a binary function the value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    ValueFirst,
    ValueSecond,
}

/// The pass that computes the most of the first steps.
pub fn select<V: Lanes>(steps: &[Kind]) -> Pass {
    use Binary::{Add, Mul, Sub};
    use Kind::{Parameter as P, Stream as S, Unary as U};
    use Order::ValueFirst;
    // An addition and a multiplication are the same whichever argument the value is; a NaN may differ in its payload.
    let plain = |kind: &Kind| match *kind {
        P(function @ (Add | Mul), _) => P(function, ValueFirst),
        S(function @ (Add | Mul), _) => S(function, ValueFirst),
        other => other,
    };
    let mut kinds = [U(Unary::Neg); 4];
    let considered = steps.len().min(kinds.len());
    for (kind, step) in kinds.iter_mut().zip(steps) {
        *kind = plain(step);
    }
    let clamps = |kind| matches!(kind, U(Unary::Clamp { .. } | Unary::Relu));
    let (add, mul) = ((Add, ValueFirst), (Mul, ValueFirst));
    let is_p = |kind: Kind, (function, order)| kind == P(function, order);
    let is_s = |kind: Kind, (function, order)| kind == S(function, order);
    let [a, b, c, d] = kinds;
    if considered >= 4 && is_p(a, (Sub, ValueFirst)) && is_p(b, mul) && is_s(c, mul) && is_s(d, add) {
        return pass::<V, fused::SubPMulPMulSAddS>(4);
    }
    if considered >= 3 && clamps(c) {
        if is_p(a, mul) && is_p(b, add) {
            return pass::<V, fused::MulPAddPClamp>(3);
        }
        if is_s(a, mul) && is_s(b, add) {
            return pass::<V, fused::MulSAddSClamp>(3);
        }
    }
    if considered >= 2 {
        match (a, b) {
            (P(Add, _), b) if clamps(b) => return pass::<V, fused::AddPClamp>(2),
            (S(Add, _), b) if clamps(b) => return pass::<V, fused::AddSClamp>(2),
            (P(Mul, _), P(Add, _)) => return pass::<V, fused::MulPAddP>(2),
            (P(Mul, _), S(Add, _)) => return pass::<V, fused::MulPAddS>(2),
            (S(Mul, _), S(Add, _)) => return pass::<V, fused::MulSAddS>(2),
            (S(Add, _), S(Add, _)) => return pass::<V, fused::AddSAddS>(2),
            (P(Add, _), P(Mul, _)) => return pass::<V, fused::AddPMulP>(2),
            (P(Mul, _), S(Mul, _)) => return pass::<V, fused::MulPMulS>(2),
            (S(Mul, _), P(Mul, _)) => return pass::<V, fused::MulSMulP>(2),
            (P(Sub, ValueFirst), P(Mul, _)) => return pass::<V, fused::SubPMulP>(2),
            (S(Add, _), U(Unary::Gelu)) => return pass::<V, fused::AddSGelu>(2),
            (S(Add, _), U(Unary::GeluTanh)) => return pass::<V, fused::AddSGeluTanh>(2),
            (S(Add, _), U(Unary::Silu)) => return pass::<V, fused::AddSSilu>(2),
            (U(Unary::Silu), S(Mul, _)) => return pass::<V, fused::SiluMulS>(2),
            (U(Unary::Sigmoid), S(Mul, _)) => return pass::<V, fused::SigmoidMulS>(2),
            (U(Unary::Gelu), S(Mul, _)) => return pass::<V, fused::GeluMulS>(2),
            (U(Unary::GeluTanh), S(Mul, _)) => return pass::<V, fused::GeluTanhMulS>(2),
            _ => {}
        }
    }
    match a {
        U(function) => select_unary::<V>(function),
        P(function, order) => select_parameter::<V>(function, order),
        S(function, order) => select_stream::<V>(function, order),
    }
}

fn select_unary<V: Lanes>(function: Unary) -> Pass {
    match function {
        Unary::Neg => pass::<V, fused::Neg>(1),
        Unary::Abs => pass::<V, fused::Abs>(1),
        Unary::Sign => pass::<V, fused::Sign>(1),
        Unary::Square => pass::<V, fused::Square>(1),
        Unary::Sqrt => pass::<V, fused::Sqrt>(1),
        Unary::Rsqrt => pass::<V, fused::Rsqrt>(1),
        Unary::Reciprocal => pass::<V, fused::Reciprocal>(1),
        Unary::Floor => pass::<V, fused::Floor>(1),
        Unary::Ceil => pass::<V, fused::Ceil>(1),
        Unary::Round => pass::<V, fused::Round>(1),
        Unary::Trunc => pass::<V, fused::Trunc>(1),
        Unary::Exp => pass::<V, fused::Exp>(1),
        Unary::Log => pass::<V, fused::Log>(1),
        Unary::Sin => scalar_pass::<Sin>(),
        Unary::Cos => scalar_pass::<Cos>(),
        Unary::Erf => pass::<V, fused::Erf>(1),
        Unary::Tanh => pass::<V, fused::Tanh>(1),
        Unary::Sigmoid => pass::<V, fused::Sigmoid>(1),
        Unary::Gelu => pass::<V, fused::Gelu>(1),
        Unary::GeluTanh => pass::<V, fused::GeluTanh>(1),
        Unary::Silu => pass::<V, fused::Silu>(1),
        Unary::Softplus => pass::<V, fused::Softplus>(1),
        Unary::Softsign => pass::<V, fused::Softsign>(1),
        Unary::Mish => pass::<V, fused::Mish>(1),
        Unary::HardSwish => pass::<V, fused::HardSwish>(1),
        Unary::Relu => pass::<V, fused::Relu>(1),
        Unary::Clamp { .. } => pass::<V, fused::Clamp>(1),
        Unary::LeakyRelu { .. } => pass::<V, fused::LeakyRelu>(1),
        Unary::Elu { .. } => pass::<V, fused::Elu>(1),
        Unary::Selu { .. } => pass::<V, fused::Selu>(1),
        Unary::Celu { .. } => pass::<V, fused::Celu>(1),
        Unary::ThresholdedRelu { .. } => pass::<V, fused::ThresholdedRelu>(1),
        Unary::HardSigmoid { .. } => pass::<V, fused::HardSigmoid>(1),
    }
}

fn select_parameter<V: Lanes>(function: Binary, order: Order) -> Pass {
    use Order::{ValueFirst, ValueSecond};
    match (function, order) {
        (Binary::Add, _) => pass::<V, fused::AddP>(1),
        (Binary::Sub, ValueFirst) => pass::<V, fused::SubP>(1),
        (Binary::Sub, ValueSecond) => pass::<V, fused::SubFromP>(1),
        (Binary::Mul, _) => pass::<V, fused::MulP>(1),
        (Binary::Div, ValueFirst) => pass::<V, fused::DivP>(1),
        (Binary::Div, ValueSecond) => pass::<V, fused::DivideP>(1),
        (Binary::Min, _) => pass::<V, fused::MinP>(1),
        (Binary::Max, _) => pass::<V, fused::MaxP>(1),
        (Binary::Pow, ValueFirst) => scalar_pass::<PowP>(),
        (Binary::Pow, ValueSecond) => scalar_pass::<PowOfP>(),
        (Binary::PRelu, ValueFirst) => pass::<V, fused::PReluP>(1),
        (Binary::PRelu, ValueSecond) => scalar_pass::<PReluOfP>(),
    }
}

fn select_stream<V: Lanes>(function: Binary, order: Order) -> Pass {
    use Order::{ValueFirst, ValueSecond};
    match (function, order) {
        (Binary::Add, _) => pass::<V, fused::AddS>(1),
        (Binary::Sub, ValueFirst) => pass::<V, fused::SubS>(1),
        (Binary::Sub, ValueSecond) => pass::<V, fused::SubFromS>(1),
        (Binary::Mul, _) => pass::<V, fused::MulS>(1),
        (Binary::Div, ValueFirst) => pass::<V, fused::DivS>(1),
        (Binary::Div, ValueSecond) => pass::<V, fused::DivideS>(1),
        (Binary::Min, _) => pass::<V, fused::MinS>(1),
        (Binary::Max, _) => pass::<V, fused::MaxS>(1),
        (Binary::Pow, ValueFirst) => scalar_pass::<PowS>(),
        (Binary::Pow, ValueSecond) => scalar_pass::<PowOfS>(),
        (Binary::PRelu, ValueFirst) => pass::<V, fused::PReluS>(1),
        (Binary::PRelu, ValueSecond) => scalar_pass::<PReluOfS>(),
    }
}

/// The parameters of a function of one number, in the order its body takes them.
pub fn parameters(function: Unary) -> ([f32; 2], usize) {
    match function {
        Unary::Relu => ([0.0, f32::INFINITY], 1),
        Unary::Clamp { low, high } => ([low, high], 2),
        Unary::LeakyRelu { alpha }
        | Unary::Elu { alpha }
        | Unary::Celu { alpha }
        | Unary::ThresholdedRelu { alpha } => ([alpha, 0.0], 1),
        Unary::Selu { alpha, gamma } => ([alpha, gamma], 2),
        Unary::HardSigmoid { alpha, beta } => ([alpha, beta], 2),
        _ => ([0.0, 0.0], 0),
    }
}

/// The pass of one function.
pub fn unary_pass(function: Unary) -> Pass {
    select_unary::<crate::lanes::Native>(function)
}

/// One function of two numbers over slices of equal length, without the preparation of a chain.
pub fn binary<V: Lanes>(function: Binary, a: &[f32], b: &[f32], output: &mut [f32]) {
    let elements = output.len();
    assert!(a.len() == elements && b.len() == elements, "{} and {} to {elements}", a.len(), b.len());
    let pass = select::<V>(&[Kind::Stream(function, Order::ValueFirst)]);
    let segment = Segment { value: a.as_ptr(), streams: [b.as_ptr(); STREAMS], output: output.as_mut_ptr(), elements };
    // SAFETY: all are valid for `elements` and of different slices; no function has more streams.
    unsafe { (pass.body)(&segment, &[0.0; PARAMETERS]) }
}

/// Applies one function to `input`, or in place.
pub fn unary<V: Lanes>(function: Unary, input: Option<&[f32]>, output: &mut [f32]) {
    let mut all = [0.0; PARAMETERS];
    let (numbers, count) = parameters(function);
    all[..count].copy_from_slice(&numbers[..count]);
    let elements = output.len();
    let output = output.as_mut_ptr();
    let value = input.map_or(output.cast_const(), |input| {
        assert_eq!(input.len(), elements);
        input.as_ptr()
    });
    let segment = Segment { value, streams: [value; STREAMS], output, elements };
    // SAFETY: value and output are valid for `elements` and either the same or of different slices; no function of one
    // number has streams.
    unsafe { (select_unary::<V>(function).body)(&segment, &all) }
}
