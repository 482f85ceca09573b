//! tract's typing of a graph, once.
//!
//! `InferenceModel::into_typed` finds types and shapes, lets operators rewrite the graph (none of this release does) and
//! finds them again; without the rest the cost is half. And tract looks for each node of a graph among its inputs, of which
//! here every weight is one: it is not told of them.

use std::collections::HashMap;
use tract_onnx::prelude::{InferenceModelExt, SpecialOps, TVec, TractError, TractResult};
use tract_onnx::tract_core::internal::translator::Translate;
use tract_onnx::tract_core::internal::{EvalContext, OutletId, TypedFact, TypedModel, TypedOp};
use tract_onnx::tract_core::model::Outlet;
use tract_onnx::tract_hir::infer::{Factoid, InferenceFact, InferenceModel, InferenceNode, InferenceOp};
use tract_onnx::tract_hir::ops::source::Source;

/// Types a parsed model.
pub(super) fn into_typed(mut model: InferenceModel) -> TractResult<TypedModel> {
    let inputs = std::mem::take(&mut model.inputs);
    model.analyse(false)?;
    let (mut typed, mut mapping) = ToTyped.translate_model_with_mappings(&model)?;
    for input in &inputs {
        // One that no output needs was not met.
        if !mapping.contains_key(input) {
            let outlets = ToTyped.translate_node(&model, model.node(input.node), &mut typed, &mapping)?;
            mapping.extend(outlets.first().map(|outlet| (*input, *outlet)));
        }
    }
    let lost = || TractError::msg("an input was not translated");
    typed.inputs =
        inputs.iter().map(|input| mapping.get(input).copied().ok_or_else(lost)).collect::<TractResult<_>>()?;
    Ok(typed)
}

#[derive(Debug)]
struct ToTyped;

impl Translate<InferenceFact, Box<dyn InferenceOp>, TypedFact, Box<dyn TypedOp>> for ToTyped {
    fn translate_node(
        &self,
        source: &InferenceModel,
        node: &InferenceNode,
        target: &mut TypedModel,
        mapping: &HashMap<OutletId, OutletId>,
    ) -> TractResult<TVec<OutletId>> {
        // What is known already is a constant, but for inputs and for operators with a state.
        let is_known = source.node_output_facts(node.id)?.iter().all(|fact| fact.value.is_concrete());
        if is_known && node.op_as::<Source>().is_none() && node.op.state(&EvalContext::out_of_plan())?.is_none() {
            let constant = |(slot, output): (usize, &Outlet<InferenceFact>)| {
                let value = output.fact.value.concretize();
                let value = value.ok_or_else(|| TractError::msg("a known value is not known"))?;
                target.add_const(format!("{}.{slot}", node.name), value)
            };
            return node.outputs.iter().enumerate().map(constant).collect();
        }
        let outputs = node.op.to_typed(source, node, target, mapping)?;
        for output in &outputs {
            target.outlet_fact(*output)?.consistent()?;
        }
        Ok(outputs)
    }
}
