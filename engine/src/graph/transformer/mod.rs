//! Operators that transformers are exported with, in one piece each: attention with its cache, rotary embedding and
//! normalisation, of ONNX's own domain and of com.microsoft. They come through tract's typing whole, and are then lowered
//! to steps of ours that know their shapes.

mod attention;
mod facts;
mod forms;
mod lower;

use super::import::Lowering;
use super::{EngineError, ValueId};
use crate::graph::opaque::{kept_in_graph, named_as_expansion};
use forms::{Form, Operator};
pub(crate) use forms::{knows, unsupported};
use tract_onnx::Onnx;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::{as_op, not_out_of_plan, op_as_typed_op};
use tract_onnx::tract_hir::infer::{InferenceOp, InferenceResult, Solver, TensorProxy};
use tract_onnx::tract_hir::ops::expandable::{Expansion, expand};

/// A node of one of these operators: its attributes, and which of its inputs and outputs there are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Transformer {
    operator: Operator,
    /// For each of the operator's inputs its place among those that are given.
    inputs: Vec<Option<usize>>,
    /// Indices of the operator's outputs that are wanted.
    outputs: Vec<usize>,
    /// Attributes by name: an integer, or the bits of a float.
    attributes: Vec<(String, i64, u32)>,
}

/// Puts these operators in the place of tract's own.
pub(super) fn register(onnx: &mut Onnx) {
    for form in forms::FORMS {
        onnx.op_register.insert(form.name, read);
    }
}

fn read(_: &ParsingContext, node: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let form =
        Form::of(node).ok_or_else(|| format_err!("{} is not known in domain {:?}", node.op_type, node.domain))?;
    if let Some(reason) = form.unsupported(node) {
        bail!("{reason}");
    }
    let mut count = 0;
    let place = |name: &String| {
        count += usize::from(!name.is_empty());
        (!name.is_empty()).then(|| count - 1)
    };
    let inputs = node.input.iter().map(place).collect();
    let outputs = (0..node.output.len()).filter(|index| !node.output[*index].is_empty()).collect();
    let attributes = node.attribute.iter().map(|found| (found.name.clone(), found.i, found.f.to_bits())).collect();
    Ok((expand(Transformer { operator: form.operator, inputs, outputs, attributes }), vec![]))
}

impl Transformer {
    fn int(&self, name: &str, otherwise: i64) -> i64 {
        self.attributes.iter().find(|(known, ..)| known == name).map_or(otherwise, |(_, number, _)| *number)
    }

    fn float(&self, name: &str, otherwise: f32) -> f32 {
        self.attributes.iter().find(|(known, ..)| known == name).map_or(otherwise, |(.., bits)| f32::from_bits(*bits))
    }

    /// An attribute that is a number of something; 0 where it is not given.
    fn count(&self, name: &str) -> TractResult<usize> {
        let number = self.int(name, 0);
        usize::try_from(number).ok().filter(|count| *count < 1 << 31).with_context(|| format!("{name} is {number}"))
    }

    fn has(&self, input: usize) -> bool {
        self.inputs.get(input).is_some_and(Option::is_some)
    }

    /// The steps that do what this operator does: a value for each output. Fails with what its inputs lack.
    pub fn lower(&self, lowering: &mut Lowering<'_>) -> Result<Vec<ValueId>, EngineError> {
        let name = lowering.node.name.clone();
        let place = format!("node {name} ({:?})", self.operator);
        let lowered = lower::lower(self, lowering);
        lowered.map_err(|error| EngineError::invalid(place, format!("{error:#}")))
    }
}

impl Expansion for Transformer {
    fn name(&self) -> StaticName {
        format!("{:?}", self.operator).into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.outputs.len())
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        ensure!(inputs.len() == self.inputs.iter().flatten().count(), "{} inputs", inputs.len());
        ensure!(outputs.len() == self.outputs.len(), "{} outputs", outputs.len());
        s.given_all(inputs.iter().map(|input| &input.shape), move |s, shapes| {
            s.given_all(inputs.iter().map(|input| &input.datum_type), move |s, datum_types| {
                let facts: Vec<_> = datum_types.into_iter().zip(shapes.clone()).collect();
                for ((datum_type, shape), output) in self.facts(&facts)?.into_iter().zip(outputs) {
                    s.equals(&output.datum_type, datum_type)?;
                    s.equals(&output.shape, shape)?;
                }
                Ok(())
            })
        })
    }

    kept_in_graph!();
}

named_as_expansion!(Transformer);

impl TypedOp for Transformer {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let facts: Vec<_> = inputs.iter().map(|fact| (fact.datum_type, fact.shape.to_tvec())).collect();
        Ok(self.facts(&facts)?.into_iter().map(|(datum_type, shape)| datum_type.fact(&*shape)).collect())
    }

    as_op!();
}

impl EvalOp for Transformer {
    not_out_of_plan!();

    fn eval(&self, _: &EvalContext, _: TVec<TValue>) -> TractResult<TVec<TValue>> {
        bail!("it is not an operator of tract's here")
    }
}
