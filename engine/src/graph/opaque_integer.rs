//! `MatMulNBits` of the domain com.microsoft as an opaque operator: tract refuses it when its weights are not constants.

use crate::graph::opaque::{kept_in_graph, named_as_expansion};
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::{as_op, not_out_of_plan, op_as_typed_op};
use tract_onnx::tract_hir::infer::{InferenceOp, InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::ops::expandable::{Expansion, expand};

/// `MatMulNBits`: float activations `[.., k]` times weights of a few bits. Inputs: A, B, scales, and of zero points and bias
/// those there are, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MatMulNBits {
    pub k: usize,
    pub n: usize,
    /// 2, 4 or 8.
    pub bits: usize,
    /// Inner values that share a scale: a power of two, at least 16.
    pub block_size: usize,
    pub has_zero_points: bool,
    pub has_bias: bool,
}

pub(super) fn mat_mul_n_bits(_: &ParsingContext, node: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let number = |name: &str| node.attribute.iter().find(|attribute| attribute.name == name).map(|found| found.i);
    let size = |name: &str| {
        let size = number(name).and_then(|size| usize::try_from(size).ok()).filter(|size| (1..1 << 31).contains(size));
        size.ok_or_else(|| format_err!("attribute {name} is {:?}", number(name)))
    };
    let bits = if number("bits").is_none() { 4 } else { size("bits")? };
    let (k, n, block_size) = (size("K")?, size("N")?, size("block_size")?);
    ensure!(matches!(bits, 2 | 4 | 8), "weights of {bits} bits");
    ensure!(block_size.is_power_of_two() && block_size >= 16, "blocks of {block_size} weights");
    let given = |input: usize| node.input.get(input).is_some_and(|name| !name.is_empty());
    ensure!((0..3).all(given), "an input is missing");
    ensure!(!given(4), "weights in groups by index (g_idx) are not supported");
    let (has_zero_points, has_bias) = (given(3), given(5));
    Ok((expand(MatMulNBits { k, n, bits, block_size, has_zero_points, has_bias }), vec![]))
}

impl Expansion for MatMulNBits {
    fn name(&self) -> StaticName {
        "MatMulNBits".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        s.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        s.equals(&inputs[0].rank, &outputs[0].rank)?;
        s.given(&inputs[0].shape, move |s, mut shape| {
            let Some(last) = shape.last_mut() else { bail!("A has no axes") };
            *last = self.n.to_dim();
            s.equals(&outputs[0].shape, shape)
        })
    }

    kept_in_graph!();
}

named_as_expansion!(MatMulNBits);

impl TypedOp for MatMulNBits {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let mut shape = inputs[0].shape.to_tvec();
        let Some(last) = shape.last_mut() else { bail!("A has no axes") };
        ensure!(*last == self.k.to_dim(), "A has rows of {last}, not of {}", self.k);
        *last = self.n.to_dim();
        Ok(tvec!(inputs[0].datum_type.fact(&*shape)))
    }

    as_op!();
}

impl EvalOp for MatMulNBits {
    not_out_of_plan!();

    fn eval(&self, _: &EvalContext, _: TVec<TValue>) -> TractResult<TVec<TValue>> {
        bail!("MatMulNBits is not an operator of tract's here")
    }
}
