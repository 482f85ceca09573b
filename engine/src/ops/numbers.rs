//! Numbers that a request's sizes settle: what `Shape` and arithmetic on it come to, and `Range`.

use super::{CALL_INSTRUCTIONS, Call, Op, Operator, Shapes};
use crate::graph::ValueId;
use crate::graph::dims::Dim;
use crate::graph::import::Lowering;
use std::ops::Range as Span;
use std::sync::Arc;
use tract_onnx::prelude::{DatumType, Tensor};
use tract_onnx::tract_core::internal::TDim;

/// No inputs. Output: int64 numbers, some known, the others the operator's parameters in order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Numbers {
    pub numbers: Vec<Number>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    Known(i64),
    /// An expression of the inputs' sizes, see [`crate::graph::dims::DimTable::number`].
    Free(Dim),
}

/// A constant of tract's symbolic numbers as a value of int64.
pub(crate) fn lower(lowering: &mut Lowering<'_>, tensor: &Tensor) -> Option<ValueId> {
    let name = lowering.node.name.clone();
    let plain = tensor.try_as_plain_ram().ok()?;
    let mut numbers = Vec::new();
    for expression in plain.as_slice::<TDim>().ok()? {
        numbers.push(match expression.as_i64() {
            Some(number) => Number::Known(number),
            None => Number::Free(lowering.graph.dims.number(expression)),
        });
    }
    let known: Option<Vec<i64>> = numbers
        .iter()
        .map(|number| match number {
            Number::Known(number) => Some(*number),
            Number::Free(_) => None,
        })
        .collect();
    if let Some(known) = known {
        let constant = Tensor::from_shape(tensor.shape(), &known).ok()?;
        return Some(lowering.graph.add_constant(&name, Arc::new(constant)));
    }
    let dims = tensor.shape().iter().map(|size| Dim::Known(*size)).collect();
    Some(lowering.graph.add_node(&name, Op::Numbers(Numbers { numbers }), vec![], DatumType::I64, dims))
}

impl Numbers {
    /// Numbers that a request settles.
    pub fn parameters(&self) -> Vec<Dim> {
        let free = |number: &Number| match number {
            Number::Known(_) => None,
            Number::Free(dim) => Some(*dim),
        };
        self.numbers.iter().filter_map(free).collect()
    }
}

impl Operator for Numbers {
    fn name(&self) -> &'static str {
        "Shape"
    }

    fn instructions(&self, _shapes: &Shapes, _units: Span<usize>) -> u64 {
        CALL_INSTRUCTIONS + 40 * self.numbers.len() as u64
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        let output: &mut [i64] = bytemuck::cast_slice_mut(call.output);
        let mut free = call.shapes.parameters.iter();
        for (place, number) in output.iter_mut().zip(&self.numbers) {
            *place = match number {
                Number::Known(number) => *number,
                Number::Free(_) => *free.next().ok_or("a size is not settled")?,
            };
        }
        Ok(())
    }
}

/// `Range`. Inputs: start and step, one element each, of the output's type. Output: `start + i step`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Range {
    pub datum_type: DatumType,
}

pub(crate) fn lower_range(lowering: &mut Lowering<'_>) -> Option<ValueId> {
    let &[start, _, step] = lowering.inputs.as_slice() else { return None };
    let (start, step) = (lowering.number(start)?, lowering.number(step)?);
    let datum_type = lowering.graph.values[start].datum_type;
    let is_done = matches!(datum_type, DatumType::I64 | DatumType::I32 | DatumType::F32);
    if !is_done || lowering.graph.values[step].datum_type != datum_type {
        return None;
    }
    let (name, dims) = (lowering.node.name.clone(), lowering.output_dims());
    Some(lowering.graph.add_node(&name, Op::Range(Range { datum_type }), vec![start, step], datum_type, dims))
}

impl Operator for Range {
    fn name(&self) -> &'static str {
        "Range"
    }

    fn instructions(&self, shapes: &Shapes, _units: Span<usize>) -> u64 {
        CALL_INSTRUCTIONS + 20 * shapes.output_elements() as u64
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        fn fill<T: bytemuck::Pod>(call: Call<'_>, at: impl Fn(T, T, usize) -> T) -> Result<(), String> {
            let first = |input: usize| bytemuck::cast_slice::<u8, T>(call.inputs[input]).first().copied();
            let (start, step) = (first(0).ok_or("it has no start")?, first(1).ok_or("it has no step")?);
            let output: &mut [T] = bytemuck::cast_slice_mut(call.output);
            output.iter_mut().enumerate().for_each(|(index, place)| *place = at(start, step, index));
            Ok(())
        }
        match self.datum_type {
            DatumType::I64 => {
                fill::<i64>(call, |start, step, index| start.wrapping_add(step.wrapping_mul(index as i64)))
            }
            DatumType::I32 => {
                fill::<i32>(call, |start, step, index| start.wrapping_add(step.wrapping_mul(index as i32)))
            }
            _ => fill::<f32>(call, |start, step, index| start + step * index as f32),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(op: &dyn Operator, inputs: &[&[u8]], parameters: Vec<i64>, elements: usize, bytes: usize) -> Vec<u8> {
        let shapes = Shapes { inputs: vec![Vec::new(); inputs.len()], output: vec![elements], parameters };
        let mut output = vec![0u64; bytes.div_ceil(8)];
        let output: &mut [u8] = &mut bytemuck::cast_slice_mut(&mut output)[..bytes];
        op.run(Call { shapes: &shapes, inputs, output, scratch: &mut [], units: 0..1 }).unwrap();
        output.to_vec()
    }

    #[test]
    fn numbers_that_a_request_settles_are_put_between_those_that_are_known() {
        let free = Number::Free(Dim::Free(0));
        let op = Numbers { numbers: vec![Number::Known(-1), free, Number::Known(1 << 40), free] };
        assert_eq!(op.parameters().len(), 2);
        let result = run(&op, &[], vec![7, -3], 4, 32);
        assert_eq!(result, [-1i64, 7, 1 << 40, -3].map(i64::to_le_bytes).as_flattened());
    }

    #[test]
    fn a_range_goes_by_its_step() {
        let of = |datum_type| Range { datum_type };
        let (start, step) = ([5i64], [-2i64]);
        let inputs = [bytemuck::cast_slice(&start), bytemuck::cast_slice(&step)];
        let result = run(&of(DatumType::I64), &inputs, Vec::new(), 3, 24);
        assert_eq!(result, [5i64, 3, 1].map(i64::to_le_bytes).as_flattened());
        let (start, step) = ([0.5f32], [0.25f32]);
        let inputs = [bytemuck::cast_slice(&start), bytemuck::cast_slice(&step)];
        let result = run(&of(DatumType::F32), &inputs, Vec::new(), 3, 12);
        assert_eq!(result, [0.5f32, 0.75, 1.0].map(f32::to_le_bytes).as_flattened());
    }
}
