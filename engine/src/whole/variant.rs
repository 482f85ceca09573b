//! A model optimised by tract for some sizes of its inputs, and how it is made, phase by phase.

use crate::error::tract;
use crate::onnx::{Graph, Sizes};
use crate::{ElementType, EngineError, TensorSpec, cost};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tract_onnx::prelude::{Framework, InferenceModelExt, Tensor};
use tract_onnx::tract_core::internal::{OutletId, SymbolValues, TypedModel, TypedSimplePlan};
use tract_onnx::tract_hir::infer::{InferenceFact, InferenceModel, InferenceOp};
use tract_onnx::tract_hir::ops::konst::Const;

/// Input shapes whose measured costs are kept.
const MEASURED_SHAPES_MAX: usize = 8;

/// The shapes of all inputs, in order.
pub(crate) type InputShapes = Vec<Vec<u64>>;

/// What variants are made of.
pub(crate) struct Parts {
    pub graph: Graph,
    pub weights: Vec<(String, Arc<Tensor>)>,
}

/// A variant being made. Each phase is one call into tract that can't pause.
pub(crate) struct Build {
    sizes: Sizes,
    phase: Phase,
    phases_done: usize,
}

enum Phase {
    Parse,
    Type(Box<InferenceModel>),
    Declutter(Box<TypedModel>),
    Optimise(Box<TypedModel>),
    Plan(Box<TypedModel>),
    /// Made, or failed.
    Over,
}

impl Build {
    /// Phases of every build.
    pub const PHASES: usize = 5;

    pub fn new(sizes: Sizes) -> Build {
        Build { sizes, phase: Phase::Parse, phases_done: 0 }
    }

    pub fn phases_done(&self) -> usize {
        self.phases_done
    }

    /// Does the next phase; the variant after the last. With `last` the weights are taken out of `parts`: tract is then
    /// their only owner, and their plain form goes as soon as they are packed.
    pub fn step(&mut self, parts: &mut Parts, last: bool) -> Result<Option<Variant>, EngineError> {
        let phase = std::mem::replace(&mut self.phase, Phase::Over);
        self.phase = match phase {
            Phase::Parse => Phase::Type(Box::new(self.parse(parts, last)?)),
            Phase::Type(model) => Phase::Declutter(Box::new(tract("finding types and shapes", model.into_typed())?)),
            Phase::Declutter(mut model) => {
                tract("simplifying the graph", model.declutter())?;
                Phase::Optimise(model)
            }
            Phase::Optimise(mut model) => {
                tract("optimising the graph", model.optimize())?;
                Phase::Plan(model)
            }
            Phase::Plan(model) => {
                let inputs = parts.graph.specs(&self.sizes);
                self.phases_done += 1;
                return Variant::new(*model, inputs, &parts.graph.outputs).map(Some);
            }
            Phase::Over => return Err(EngineError::invalid("preparing the model", "an earlier step failed")),
        };
        self.phases_done += 1;
        Ok(None)
    }

    /// tract's reading of the graph, with the weights as constants in it.
    fn parse(&self, parts: &mut Parts, last: bool) -> Result<InferenceModel, EngineError> {
        const PLACE: &str = "reading the graph";
        parts.graph.set_sizes(&self.sizes);
        let onnx = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
        let mut model = tract(PLACE, onnx.model_for_proto_model(&parts.graph.proto))?;
        let inputs = parts.graph.inputs.len();
        if model.inputs.len() != inputs + parts.weights.len() {
            return Err(EngineError::invalid(PLACE, "its inputs and weights do not add up"));
        }
        let weights = if last { std::mem::take(&mut parts.weights) } else { parts.weights.clone() };
        for ((name, tensor), outlet) in weights.into_iter().zip(model.inputs.split_off(inputs)) {
            let node = &mut model.nodes[outlet.node];
            if node.name != *name {
                return Err(EngineError::invalid(
                    format!("tensor {name:?}"),
                    "it is not where it was put in the graph",
                ));
            }
            node.outputs[0].fact = tract(PLACE, InferenceFact::try_from(tensor.clone()))?;
            node.op = Box::new(tract(PLACE, Const::new(tensor))?) as Box<dyn InferenceOp>;
        }
        Ok(model)
    }
}

/// The model optimised for some sizes of its inputs.
pub(crate) struct Variant {
    pub tract: Arc<TypedSimplePlan>,
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    /// Where each output comes from.
    pub output_outlets: Vec<OutletId>,
    pub largest_node_estimate: u64,
    /// Most instructions each node, by its place in the plan's order, was seen to take with inputs of these shapes.
    measured: Mutex<BTreeMap<InputShapes, Arc<Vec<u64>>>>,
}

impl Variant {
    fn new(model: TypedModel, inputs: Vec<TensorSpec>, output_names: &[String]) -> Result<Variant, EngineError> {
        const PLACE: &str = "planning";
        if model.inputs.len() != inputs.len() || model.outputs.len() != output_names.len() {
            return Err(EngineError::invalid(PLACE, "the graph lost an input or output"));
        }
        let output_outlets = model.outputs.clone();
        let outputs = output_outlets
            .iter()
            .zip(output_names)
            .map(|(outlet, name)| {
                let fact = tract(PLACE, model.outlet_fact(*outlet))?;
                let element_type = ElementType::from_tract(fact.datum_type).ok_or_else(|| {
                    let reason = format!("its elements are of type {:?}", fact.datum_type);
                    EngineError::invalid(format!("output {name:?}"), reason)
                })?;
                let shape = fact.shape.iter().map(|dim| dim.as_i64().and_then(|size| u64::try_from(size).ok()));
                Ok(TensorSpec { name: name.clone(), element_type, shape: shape.collect() })
            })
            .collect::<Result<Vec<_>, EngineError>>()?;
        let tract = tract(PLACE, TypedSimplePlan::new(model))?;
        let model = tract.model();
        let mut symbols = SymbolValues::default();
        for symbol in model.symbols.all_symbols() {
            symbols.set(&symbol, 1);
        }
        let estimates = tract.order_without_consts().iter();
        let largest = estimates.map(|node| cost::node_instructions(model, model.node(*node), &symbols)).max();
        let (largest_node_estimate, measured) = (largest.unwrap_or(0), Mutex::default());
        Ok(Variant { tract, inputs, outputs, output_outlets, largest_node_estimate, measured })
    }

    pub fn node_count(&self) -> usize {
        self.tract.order_without_consts().len()
    }

    /// Whether inputs of these shapes can be run.
    pub fn takes(&self, shapes: &InputShapes) -> bool {
        self.inputs.len() == shapes.len() && self.inputs.iter().zip(shapes).all(|(spec, shape)| spec.fits(shape))
    }

    /// What earlier sessions measured with inputs of these shapes; 0 where nothing is known.
    pub fn measured(&self, shapes: &InputShapes) -> Arc<Vec<u64>> {
        let measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        measured.get(shapes).cloned().unwrap_or_default()
    }

    /// Remembers what a session measured, by place in the order; where it measured nothing, 0.
    pub fn remember(&self, shapes: InputShapes, instructions: &[u64]) {
        let mut measured = self.measured.lock().unwrap_or_else(PoisonError::into_inner);
        if !measured.contains_key(&shapes) && measured.len() == MEASURED_SHAPES_MAX {
            measured.clear();
        }
        let most = Arc::make_mut(measured.entry(shapes).or_default());
        most.resize(self.node_count(), 0);
        most.iter_mut().zip(instructions).for_each(|(most, now)| *most = (*most).max(*now));
    }
}
