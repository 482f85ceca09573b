//! Operators of two values beside float32 arithmetic, with broadcasting: arithmetic of integers, comparisons, logic.

use super::part::{self, PART_INSTRUCTIONS, Part};
use super::{CALL_INSTRUCTIONS, Call, Op, Operator, Shapes};
use crate::graph::ValueId;
use crate::graph::import::Lowering;
use onnx_kernels::typed::{self, Arithmetic, Comparison, Logic, MAX_RANK, View};
use std::ops::Range;
use std::sync::Arc;
use tract_onnx::prelude::{DatumType, Tensor};
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;

/// What is done with two values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Function {
    Arithmetic(Arithmetic),
    /// `swapped` has the second value first: "greater" is "less" with the operands exchanged.
    Comparison(Comparison, bool),
    Logic(Logic),
}

/// Inputs: a and b of `operands`, broadcast to the output's shape. Output: of `operands` for arithmetic, else bool.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Typed {
    pub function: Function,
    pub operands: DatumType,
}

pub(crate) fn lower_binary(lowering: &mut Lowering<'_>, op: &TypedBinOp) -> Option<ValueId> {
    let &[a, b] = lowering.inputs.as_slice() else { return None };
    let (a, b) = (lowering.number(a)?, lowering.number(b)?);
    let operands = lowering.graph.values[a].datum_type;
    let dims = lowering.output_dims();
    if lowering.graph.values[b].datum_type != operands || dims.len() > MAX_RANK {
        return None;
    }
    let arithmetic = |function| (Function::Arithmetic(function), operands);
    let comparison = |function, swapped| (Function::Comparison(function, swapped), DatumType::Bool);
    let logic = |function| (Function::Logic(function), DatumType::Bool);
    let (function, output) = match op.0.name() {
        "Add" => arithmetic(Arithmetic::Add),
        "Sub" => arithmetic(Arithmetic::Sub),
        "Mul" => arithmetic(Arithmetic::Mul),
        "Div" => arithmetic(Arithmetic::Div),
        // tract writes out ONNX's form with the sign of the divisor, but not of numbers that it takes for sizes.
        "Rem" if lowering.node.outputs[0].fact.datum_type == DatumType::TDim => arithmetic(Arithmetic::Mod),
        "Rem" => arithmetic(Arithmetic::Remainder),
        "Min" => arithmetic(Arithmetic::Min),
        "Max" => arithmetic(Arithmetic::Max),
        "Eq" => comparison(Comparison::Equal, false),
        "NE" => comparison(Comparison::NotEqual, false),
        "LT" => comparison(Comparison::Less, false),
        "LTE" => comparison(Comparison::LessOrEqual, false),
        "GT" => comparison(Comparison::Less, true),
        "GTE" => comparison(Comparison::LessOrEqual, true),
        "And" => logic(Logic::And),
        "Or" => logic(Logic::Or),
        "Xor" => logic(Logic::Xor),
        _ => return None,
    };
    let declared = match lowering.node.outputs[0].fact.datum_type {
        DatumType::TDim => DatumType::I64,
        DatumType::F16 => DatumType::F32,
        declared => declared,
    };
    let is_done = match function {
        Function::Arithmetic(_) => matches!(operands, DatumType::I64 | DatumType::I32 | DatumType::U8 | DatumType::F64),
        Function::Comparison(..) => matches!(
            operands,
            DatumType::F32 | DatumType::F64 | DatumType::I64 | DatumType::I32 | DatumType::U8 | DatumType::Bool
        ),
        // Only of bools: tract's logic of integers tells whether both are not 0.
        Function::Logic(_) => operands == DatumType::Bool,
    };
    if !is_done || declared != output {
        return None;
    }
    let op = Op::Typed(Typed { function, operands });
    let name = lowering.node.name.clone();
    Some(lowering.graph.add_node(&name, op, vec![a, b], output, dims))
}

/// Operators of one value that are an operator of two.
pub(crate) fn lower_unary(lowering: &mut Lowering<'_>, op: &ElementWiseOp) -> Option<ValueId> {
    let x = lowering.number(lowering.inputs[0])?;
    let operands = lowering.graph.values[x].datum_type;
    let dims = lowering.output_dims();
    if op.1.is_some() || dims.len() > MAX_RANK {
        return None;
    }
    let name = lowering.node.name.clone();
    let integer = matches!(operands, DatumType::I64 | DatumType::I32);
    let (function, other, output) = match (&*op.0.name(), operands) {
        ("IsNan", DatumType::F32) => (Function::Comparison(Comparison::NotEqual, false), None, DatumType::Bool),
        ("Not", DatumType::Bool) => (Function::Logic(Logic::Xor), Some(Tensor::from(true)), operands),
        ("Neg", _) if integer => (Function::Arithmetic(Arithmetic::Mul), Some(Tensor::from(-1i64)), operands),
        _ => return None,
    };
    let other = match other {
        Some(number) => lowering.graph.add_constant(&name, Arc::new(number.cast_to_dt(operands).ok()?.into_owned())),
        None => x,
    };
    Some(lowering.graph.add_node(&name, Op::Typed(Typed { function, operands }), vec![x, other], output, dims))
}

impl Typed {
    fn compute<T>(&self, part: &Part, call: &mut Call<'_>) -> Result<(), String>
    where
        T: typed::Computable + bytemuck::Pod,
    {
        let Function::Arithmetic(function) = self.function else { return Err("it is not arithmetic".into()) };
        let (a, b) = views::<T>(part, call)?;
        let output: &mut [T] = &mut bytemuck::cast_slice_mut(call.output)[part.output()];
        typed::arithmetic(function, &part.shape, a, b, output);
        Ok(())
    }

    fn compare<T>(&self, part: &Part, call: &mut Call<'_>) -> Result<(), String>
    where
        T: typed::Comparable + bytemuck::Pod,
    {
        let Function::Comparison(function, swapped) = self.function else { return Err("it is no comparison".into()) };
        let (a, b) = views::<T>(part, call)?;
        let (a, b) = if swapped { (b, a) } else { (a, b) };
        typed::compare(function, &part.shape, a, b, &mut call.output[part.output()]);
        Ok(())
    }
}

/// The operands as seen from a part of the output.
fn views<'a, T>(part: &Part, call: &Call<'a>) -> Result<(View<'a, T>, View<'a, T>), String>
where
    T: onnx_kernels::copy::Element + bytemuck::Pod,
{
    let view = |input: usize| {
        let (data, dims) = part.operand(bytemuck::cast_slice(call.inputs[input]), &call.shapes.inputs[input]);
        View::broadcast(data, &dims, &part.shape).map_err(|error| error.to_string())
    };
    Ok((view(0)?, view(1)?))
}

impl Operator for Typed {
    fn name(&self) -> &'static str {
        match self.function {
            Function::Arithmetic(function) => match function {
                Arithmetic::Add => "Add",
                Arithmetic::Sub => "Sub",
                Arithmetic::Mul => "Mul",
                Arithmetic::Div => "Div",
                Arithmetic::Mod | Arithmetic::Remainder => "Mod",
                Arithmetic::Min => "Min",
                Arithmetic::Max => "Max",
            },
            Function::Comparison(function, swapped) => match (function, swapped) {
                (Comparison::Equal, _) => "Equal",
                (Comparison::NotEqual, _) => "NotEqual",
                (Comparison::Less, false) => "Less",
                (Comparison::Less, true) => "Greater",
                (Comparison::LessOrEqual, false) => "LessOrEqual",
                (Comparison::LessOrEqual, true) => "GreaterOrEqual",
            },
            Function::Logic(Logic::And) => "And",
            Function::Logic(Logic::Or) => "Or",
            Function::Logic(Logic::Xor) => "Xor",
        }
    }

    fn units(&self, shapes: &Shapes) -> usize {
        part::units(&shapes.output)
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let elements: usize = Part::new(&shapes.output, &units).shape.iter().product();
        let columns = shapes.output.last().copied().unwrap_or(1);
        CALL_INSTRUCTIONS + PART_INSTRUCTIONS + typed::estimate_instructions(elements, columns)
    }

    fn run(&self, mut call: Call<'_>) -> Result<(), String> {
        let part = Part::new(&call.shapes.output, &call.units);
        match (self.function, self.operands) {
            (Function::Arithmetic(_), DatumType::I64) => self.compute::<i64>(&part, &mut call),
            (Function::Arithmetic(_), DatumType::I32) => self.compute::<i32>(&part, &mut call),
            (Function::Arithmetic(_), DatumType::U8) => self.compute::<u8>(&part, &mut call),
            (Function::Arithmetic(_), DatumType::F64) => self.compute::<f64>(&part, &mut call),
            (Function::Comparison(..), DatumType::F32) => self.compare::<f32>(&part, &mut call),
            (Function::Comparison(..), DatumType::F64) => self.compare::<f64>(&part, &mut call),
            (Function::Comparison(..), DatumType::I64) => self.compare::<i64>(&part, &mut call),
            (Function::Comparison(..), DatumType::I32) => self.compare::<i32>(&part, &mut call),
            (Function::Comparison(..), DatumType::U8 | DatumType::Bool) => self.compare::<u8>(&part, &mut call),
            (Function::Logic(function), DatumType::Bool) => {
                let (a, b) = views::<u8>(&part, &call)?;
                typed::logic(function, &part.shape, a, b, &mut call.output[part.output()]);
                Ok(())
            }
            _ => Err(format!("{:?} of {:?} is not done here", self.function, self.operands)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(op: &Typed, a: &[u8], b: &[u8], inputs: [&[usize]; 2], output: &[usize], bytes: usize) -> Vec<u8> {
        let inputs_are = inputs.iter().map(|dims| dims.to_vec()).collect();
        let shapes = Shapes { inputs: inputs_are, output: output.to_vec(), parameters: Vec::new() };
        let mut result = vec![0; bytes];
        for unit in 0..op.units(&shapes) {
            let call =
                Call { shapes: &shapes, inputs: &[a, b], output: &mut result, scratch: &mut [], units: unit..unit + 1 };
            op.run(call).unwrap();
        }
        result
    }

    #[test]
    fn integers_are_added_and_compared_with_broadcasting() {
        let a: Vec<i64> = (0..70_000).collect();
        let b = [1i64 << 40, -5];
        let bytes = bytemuck::cast_slice::<i64, u8>;
        let sum = Typed { function: Function::Arithmetic(Arithmetic::Add), operands: DatumType::I64 };
        let result = run(&sum, bytes(&a), bytes(&b), [&[70_000, 1], &[2]], &[70_000, 2], 16 * 70_000);
        let result: &[i64] = bytemuck::cast_slice(&result);
        assert!(result.chunks(2).zip(&a).all(|(row, a)| row == [a + (1 << 40), a - 5]));

        let greater = Typed { function: Function::Comparison(Comparison::Less, true), operands: DatumType::I64 };
        let result = run(&greater, bytes(&a[..3]), bytes(&[1]), [&[3], &[]], &[3], 3);
        assert_eq!(result, [0, 0, 1]);
    }

    #[test]
    fn a_division_by_zero_traps_nowhere() {
        let div = Typed { function: Function::Arithmetic(Arithmetic::Div), operands: DatumType::I32 };
        let (a, b) = ([7i32, i32::MIN, -7], [0i32, -1, 2]);
        let result = run(&div, bytemuck::bytes_of(&a), bytemuck::bytes_of(&b), [&[3], &[3]], &[3], 12);
        assert_eq!(bytemuck::cast_slice::<u8, i32>(&result), [0, i32::MIN, -3]);
    }
}
