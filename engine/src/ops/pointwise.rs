//! Operators element by element, with broadcasting, and chains of them: `Add`, `Mul`, `Sqrt`, `Clip`, `Gelu` and the like.

use super::{CALL_INSTRUCTIONS, Call, Op, Operator, Shapes, element_units, unit_elements};
use crate::graph::ValueId;
use crate::graph::import::Lowering;
use onnx_kernels::matrix::Clamp;
use onnx_kernels::pointwise::{self, Binary, Chain, MAX_RANK, MAX_STEPS, Operand, ShapeError, Unary};
use std::ops::Range;
use tract_onnx::prelude::DatumType;
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::math::PowConst;
use tract_onnx::tract_core::ops::nn::LeakyRelu;

/// What is done to the value so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    Unary(Unary),
    /// With a number; `reversed` has the number first.
    Number {
        function: Binary,
        number: f32,
        reversed: bool,
    },
    /// With the next input; `reversed` has that first.
    Input {
        function: Binary,
        reversed: bool,
    },
}

/// Inputs: x of the output's shape or broadcast to it, then one for each [`Step::Input`], in order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pointwise {
    pub steps: Vec<Step>,
}

impl Pointwise {
    pub fn unary(function: Unary) -> Pointwise {
        Pointwise { steps: vec![Step::Unary(function)] }
    }

    /// The bounds, if all this does is to clip.
    pub fn as_clamp(&self) -> Option<Clamp> {
        match self.steps.as_slice() {
            [Step::Unary(Unary::Clamp { low, high })] => Some(Clamp { low: *low, high: *high }),
            [Step::Unary(Unary::Relu)] => Some(Clamp::RELU),
            _ => None,
        }
    }

    /// The bounds of a sum of two values that is clipped or not, if that is all this does.
    pub fn as_clamped_sum(&self) -> Option<Clamp> {
        let (sum, rest) = self.steps.split_at_checked(1)?;
        let sum = Pointwise { steps: sum.to_vec() };
        if !sum.is_sum() {
            return None;
        }
        if rest.is_empty() { Some(Clamp::NONE) } else { Pointwise { steps: rest.to_vec() }.as_clamp() }
    }

    /// Whether all this does is to add two values.
    pub fn is_sum(&self) -> bool {
        self.steps == [Step::Input { function: Binary::Add, reversed: false }]
    }

    /// This and then `next`, if a chain can be as long.
    pub fn then(&self, next: &Pointwise) -> Option<Pointwise> {
        let steps = [&*self.steps, &*next.steps].concat();
        (steps.len() <= MAX_STEPS).then_some(Pointwise { steps })
    }

    /// Makes the second input the first, where the first step takes it.
    pub fn swapped(&self) -> Option<Pointwise> {
        let mut steps = self.steps.clone();
        let Some(Step::Input { function, reversed }) = steps.first_mut() else { return None };
        if !matches!(function, Binary::Add | Binary::Mul | Binary::Min | Binary::Max) {
            *reversed = !*reversed;
        }
        Some(Pointwise { steps })
    }
}

/// One clamp that does what `first` and then `second` do.
pub(crate) fn joined(first: Clamp, second: Clamp) -> Clamp {
    Clamp { low: second.apply(first.low), high: second.apply(first.high) }
}

pub(crate) fn lower_binary(lowering: &mut Lowering<'_>, op: &TypedBinOp) -> Option<ValueId> {
    let &[a, b] = lowering.inputs.as_slice() else { return None };
    let dims = lowering.output_dims();
    if op.1.is_some_and(|to| !matches!(to, DatumType::F32 | DatumType::F16)) || dims.len() > MAX_RANK {
        return None;
    }
    let function = match op.0.name() {
        "Add" => Binary::Add,
        "Sub" => Binary::Sub,
        "Mul" => Binary::Mul,
        "Div" => Binary::Div,
        "Max" => Binary::Max,
        "Min" => Binary::Min,
        "Pow" => Binary::Pow,
        _ => return None,
    };
    let of_shape = |value: ValueId| lowering.graph.values[value].dims == dims;
    let (x, step) = match (lowering.graph.scalar(a), lowering.graph.scalar(b)) {
        (_, Some(number)) if of_shape(a) => (a, with_number(function, number, false)),
        (Some(number), _) if of_shape(b) => (b, with_number(function, number, true)),
        _ => {
            let step = Step::Input { function, reversed: false };
            return Some(lowering.emit(Op::Pointwise(Pointwise { steps: vec![step] }), vec![a, b], dims));
        }
    };
    Some(lowering.emit(Op::Pointwise(Pointwise { steps: vec![step] }), vec![x], dims))
}

fn with_number(function: Binary, number: f32, reversed: bool) -> Step {
    match function {
        // A bound that is NaN is no bound but the result.
        Binary::Max if !number.is_nan() => Step::Unary(Unary::Clamp { low: number, high: f32::INFINITY }),
        Binary::Min if !number.is_nan() => Step::Unary(Unary::Clamp { low: f32::NEG_INFINITY, high: number }),
        Binary::Pow if number == 2.0 && !reversed => Step::Unary(Unary::Square),
        Binary::Pow if number == 0.5 && !reversed => Step::Unary(Unary::Sqrt),
        Binary::Div if number == 1.0 && reversed => Step::Unary(Unary::Reciprocal),
        _ => Step::Number { function, number, reversed },
    }
}

pub(crate) fn lower_unary(lowering: &mut Lowering<'_>, op: &ElementWiseOp) -> Option<ValueId> {
    if op.1.is_some() {
        return None;
    }
    let step = if let Some(leaky) = op.0.downcast_ref::<LeakyRelu>() {
        Step::Unary(Unary::LeakyRelu { alpha: leaky.alpha })
    } else if let Some(pow) = op.0.downcast_ref::<PowConst>() {
        with_number(Binary::Pow, pow.exponent, false)
    } else {
        Step::Unary(match &*op.0.name() {
            "Abs" => Unary::Abs,
            "Ceil" => Unary::Ceil,
            "Cos" => Unary::Cos,
            "Erf" => Unary::Erf,
            "Exp" => Unary::Exp,
            "Floor" => Unary::Floor,
            "HardSwish" => Unary::HardSwish,
            "Ln" => Unary::Log,
            "Neg" => Unary::Neg,
            "Recip" => Unary::Reciprocal,
            "RoundHalfToEven" => Unary::Round,
            "Rsqrt" => Unary::Rsqrt,
            "Sigmoid" => Unary::Sigmoid,
            "Sign" => Unary::Sign,
            "Silu" => Unary::Silu,
            "Sin" => Unary::Sin,
            "Sqrt" => Unary::Sqrt,
            "Square" => Unary::Square,
            "Tanh" => Unary::Tanh,
            _ => return None,
        })
    };
    let (dims, x) = (lowering.output_dims(), lowering.inputs[0]);
    Some(lowering.emit(Op::Pointwise(Pointwise { steps: vec![step] }), vec![x], dims))
}

impl Pointwise {
    fn chain<'a>(&self, shapes: &Shapes, inputs: &[&'a [u8]]) -> Result<Chain<'a>, ShapeError> {
        let operand = |index: usize| {
            Operand::broadcast(bytemuck::cast_slice(inputs[index]), &shapes.inputs[index], &shapes.output)
        };
        let mut steps = [pointwise::Step::Unary(Unary::Relu); MAX_STEPS];
        let mut next = 1;
        for (place, step) in steps.iter_mut().zip(&self.steps) {
            let (function, operand, reversed) = match *step {
                Step::Unary(function) => {
                    *place = pointwise::Step::Unary(function);
                    continue;
                }
                Step::Number { function, number, reversed } => (function, Operand::number(number), reversed),
                Step::Input { function, reversed } => {
                    next += 1;
                    (function, operand(next - 1)?, reversed)
                }
            };
            *place = match reversed {
                true => pointwise::Step::Reversed(function, operand),
                false => pointwise::Step::Binary(function, operand),
            };
        }
        Chain::new(&shapes.output, operand(0)?, &steps[..self.steps.len()])
    }
}

/// Instructions of preparing a chain.
const CHAIN_INSTRUCTIONS: u64 = 9_000;

impl Pointwise {
    /// The function, if all this does is one of two inputs of the output's shape, which needs no chain.
    fn as_binary(&self, shapes: &Shapes) -> Option<Binary> {
        match self.steps.as_slice() {
            [Step::Input { function, reversed: false }]
                if shapes.inputs.iter().all(|input| *input == shapes.output) =>
            {
                Some(*function)
            }
            _ => None,
        }
    }
}

impl Operator for Pointwise {
    fn name(&self) -> &'static str {
        let [step] = self.steps.as_slice() else { return "Pointwise" };
        match step {
            Step::Unary(function) => match function {
                Unary::Clamp { .. } => "Clip",
                Unary::Relu => "Relu",
                Unary::Erf => "Erf",
                Unary::Gelu | Unary::GeluTanh => "Gelu",
                Unary::Sigmoid => "Sigmoid",
                Unary::Sqrt => "Sqrt",
                Unary::Tanh => "Tanh",
                _ => "Pointwise",
            },
            Step::Number { function, .. } | Step::Input { function, .. } => match function {
                Binary::Add => "Add",
                Binary::Sub => "Sub",
                Binary::Mul => "Mul",
                Binary::Div => "Div",
                Binary::Min => "Min",
                Binary::Max => "Max",
                Binary::Pow => "Pow",
                Binary::PRelu => "PRelu",
            },
        }
    }

    fn units(&self, shapes: &Shapes) -> usize {
        element_units(shapes.output_elements())
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let elements = unit_elements(shapes.output_elements(), &units).len();
        if self.as_binary(shapes).is_some() {
            return CALL_INSTRUCTIONS + 400 + 4 * elements as u64;
        }
        let step = |step: &Step| match step {
            Step::Unary(function) => pointwise::estimate_unary(*function, elements),
            Step::Number { .. } => 2 * elements as u64,
            Step::Input { .. } => 4 * elements as u64,
        };
        // Where inputs are broadcast, each row is a run of its own.
        let columns = shapes.output.last().copied().unwrap_or(1).max(1);
        let rows =
            if shapes.inputs.iter().all(|input| *input == shapes.output) { 1 } else { elements.div_ceil(columns) };
        let per_row = (40 * rows * self.steps.len()) as u64;
        CALL_INSTRUCTIONS + CHAIN_INSTRUCTIONS + per_row + self.steps.iter().map(step).sum::<u64>()
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        let range = unit_elements(call.shapes.output_elements(), &call.units);
        if let Some(function) = self.as_binary(call.shapes) {
            let [a, b] = [0, 1].map(|input| &bytemuck::cast_slice(call.inputs[input])[range.clone()]);
            pointwise::binary(function, a, b, &mut bytemuck::cast_slice_mut(call.output)[range]);
            return Ok(());
        }
        let chain = self.chain(call.shapes, call.inputs).map_err(|error| error.to_string())?;
        chain.run(range.clone(), &mut bytemuck::cast_slice_mut(call.output)[range]);
        Ok(())
    }
}
