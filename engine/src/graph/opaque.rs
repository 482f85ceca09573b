//! Operators that come through tract's typing whole, to be read by the lowering: tract itself would take them apart, or
//! refuse them because their parameters are not constants while the weights are kept away from it.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::{as_op, not_out_of_plan, op_as_typed_op};
use tract_onnx::tract_hir::infer::{InferenceOp, InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::ops::expandable::{Expansion, expand};

/// Inside an `Expansion`: the operator stays in the typed graph as it is. It is called with constants while types are found; its
/// value is wanted later, if at all.
macro_rules! kept_in_graph {
    () => {
        fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
            model.wire_node(prefix, self.clone(), inputs)
        }

        fn runs_out_of_plan(&self) -> bool {
            false
        }
    };
}
pub(crate) use kept_in_graph;

/// The typed operator has the name of the expansion that it was.
macro_rules! named_as_expansion {
    ($operator:ty) => {
        impl Op for $operator {
            fn name(&self) -> StaticName {
                Expansion::name(self)
            }

            op_as_typed_op!();
        }
    };
}
pub(crate) use named_as_expansion;

/// `QuantizeLinear` or `DequantizeLinear`. Inputs: x, scale, and the zero point if any.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Quantization {
    /// Whether it is `QuantizeLinear`.
    pub quantizes: bool,
    pub axis: i64,
    /// Number of inputs.
    inputs: usize,
}

/// tract's ONNX reader, with the operators of this file in place of its own.
pub(super) fn onnx() -> tract_onnx::Onnx {
    let mut onnx = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
    onnx.op_register.insert("QuantizeLinear", |context, node| quantization(context, node, true));
    onnx.op_register.insert("DequantizeLinear", |context, node| quantization(context, node, false));
    onnx.op_register.insert("MatMulNBits", super::opaque_integer::mat_mul_n_bits);
    super::transformer::register(&mut onnx);
    onnx
}

fn quantization(
    _: &ParsingContext,
    node: &NodeProto,
    quantizes: bool,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let number = |name: &str| node.attribute.iter().find(|attribute| attribute.name == name).map(|found| found.i);
    ensure!(number("block_size").unwrap_or(0) == 0, "quantisation in blocks is not supported");
    let inputs = node.input.iter().filter(|input| !input.is_empty()).count();
    Ok((expand(Quantization { quantizes, axis: number("axis").unwrap_or(1), inputs }), vec![]))
}

impl Expansion for Quantization {
    fn name(&self) -> StaticName {
        if self.quantizes { "QuantizeLinear".into() } else { "DequantizeLinear".into() }
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        s.equals(&inputs[0].shape, &outputs[0].shape)?;
        match (self.quantizes, self.inputs) {
            (true, 3) => s.equals(&outputs[0].datum_type, &inputs[2].datum_type),
            (true, _) => s.equals(&outputs[0].datum_type, DatumType::U8),
            (false, _) => s.equals(&outputs[0].datum_type, &inputs[1].datum_type),
        }
    }

    kept_in_graph!();
}

named_as_expansion!(Quantization);

impl TypedOp for Quantization {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let datum_type = match (self.quantizes, inputs.get(2)) {
            (true, Some(zero_point)) => zero_point.datum_type,
            (true, None) => DatumType::U8,
            (false, _) => inputs[1].datum_type,
        };
        Ok(tvec!(datum_type.fact(inputs[0].shape.clone())))
    }

    as_op!();
}

impl EvalOp for Quantization {
    not_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (x, scales) = (&inputs[0], inputs[1].cast_to::<f32>()?);
        let rank = x.rank() as i64;
        let axis = if self.axis < 0 { self.axis + rank } else { self.axis };
        let per_axis = scales.len() > 1;
        ensure!(!per_axis || (0..rank).contains(&axis), "axis {} of {rank}", self.axis);
        let (channels, inner) = match per_axis {
            true => (x.shape()[axis as usize], x.shape()[axis as usize + 1..].iter().product::<usize>()),
            false => (1, x.len().max(1)),
        };
        ensure!(scales.len() == channels, "{} scales for {channels} channels", scales.len());
        let datum_type = match (self.quantizes, inputs.get(2)) {
            (true, zero_point) => zero_point.map_or(DatumType::U8, |zero_point| zero_point.datum_type()),
            (false, _) => inputs[1].datum_type(),
        };
        let zero_points = match inputs.get(2) {
            Some(zero_point) => zero_point.cast_to::<i32>()?.into_owned(),
            None => Tensor::zero::<i32>(&[channels])?,
        };
        ensure!(zero_points.len() == channels, "{} zero points for {channels} channels", zero_points.len());
        let scales: &[f32] = bytemuck::cast_slice(scales.as_bytes());
        let zero_points: &[i32] = bytemuck::cast_slice(zero_points.as_bytes());
        let channel = |index: usize| index / inner.max(1) % channels;
        if !self.quantizes {
            let x = x.cast_to::<i32>()?;
            let x: &[i32] = bytemuck::cast_slice(x.as_bytes());
            let mut output = Tensor::zero::<f32>(inputs[0].shape())?;
            let values: &mut [f32] = bytemuck::cast_slice_mut(output.as_bytes_mut());
            for (index, (value, x)) in values.iter_mut().zip(x).enumerate() {
                *value = x.wrapping_sub(zero_points[channel(index)]) as f32 * scales[channel(index)];
            }
            return Ok(tvec!(output.cast_to_dt(datum_type)?.into_owned().into_tvalue()));
        }
        let (low, high) = match datum_type {
            DatumType::U8 => (0, 255),
            DatumType::I8 => (-128, 127),
            DatumType::U16 => (0, 65535),
            DatumType::I16 => (-32768, 32767),
            _ => bail!("quantisation to {datum_type:?} is not supported"),
        };
        let x = x.cast_to::<f32>()?;
        let x: &[f32] = bytemuck::cast_slice(x.as_bytes());
        let mut output = Tensor::zero::<i32>(inputs[0].shape())?;
        let values: &mut [i32] = bytemuck::cast_slice_mut(output.as_bytes_mut());
        for (index, (value, x)) in values.iter_mut().zip(x).enumerate() {
            let rounded = (x / scales[channel(index)]).round_ties_even() as i32;
            *value = rounded.saturating_add(zero_points[channel(index)]).clamp(low, high);
        }
        Ok(tvec!(output.cast_to_dt(datum_type)?.into_owned().into_tvalue()))
    }
}
