//! From files to a [`Plan`], in steps.
//!
//! 1. Walk: the ONNX file is passed field by field and sorted into graph and weights.
//! 2. The graph is decoded and checked.
//! 3. Weights: each is read straight from its range into its own buffer, the only copy of it on the heap.
//! 4. The graph goes to tract, with the weights in it as constants: parse, type, declutter, optimise, plan. Each of
//!    these is one call into tract that can't pause. While it optimises, tract packs the weights for its kernels and
//!    for that time holds both forms.

use crate::onnx::{Graph, Walk};
use crate::plan::Variant;
use crate::weights::WeightReader;
use crate::{EngineError, Meter, ModelFiles, Plan, Step};
use std::collections::BTreeMap;
use std::sync::Arc;
use tract_onnx::prelude::{Framework, InferenceModelExt, TractResult, TypedModel};
use tract_onnx::tract_hir::infer::{InferenceFact, InferenceModel, InferenceOp};
use tract_onnx::tract_hir::ops::konst::Const;

/// Work between two looks at the meter while walking: fields of the graph.
const FIELDS_PER_LOOK: u32 = 16;

/// Phases that can't pause, for each variant: parse, type, declutter, optimise, plan. Decoding comes once before.
const VARIANT_PHASES: u64 = 5;

/// Size that free dimensions are fixed at.
const FIXED_SIZE: u64 = 1;

/// How to load.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    pub free_dimensions: FreeDimensions,
}

/// What to make of dimensions of the inputs that the file leaves free (a batch, mostly).
///
/// tract optimises better for sizes it knows: EfficientNet-Lite0 takes a third of the instructions. A variant takes
/// time to load and has its own form of the weights in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FreeDimensions {
    /// A variant for all of them being 1, and where possible one for any sizes.
    #[default]
    OneAndAny,
    /// Only the variant for 1.
    One,
    /// Only the variant for any sizes.
    Any,
}

/// Reads a model and makes a [`Plan`] of it.
pub struct Loader {
    files: Box<dyn ModelFiles>,
    options: LoadOptions,
    phase: Phase,
    graph: Option<Graph>,
    /// Kept until the last variant is parsed.
    weights: Vec<(String, Arc<tract_onnx::prelude::Tensor>)>,
    weight_bytes: u64,
    /// Variants to make: whether free dimensions are fixed. The first is being made.
    to_do: Vec<bool>,
    variants: Vec<Variant>,
    /// Why a variant could not be made.
    variant_error: Option<EngineError>,
    phases_done: u64,
    phases_total: u64,
    progress: (u64, u64),
}

enum Phase {
    Walk(Walk),
    Decode(Walk),
    Weights(WeightReader),
    Parse,
    Type(Box<InferenceModel>),
    Declutter(Box<TypedModel>),
    Optimise(Box<TypedModel>),
    Plan(Box<TypedModel>),
    Done(Arc<Plan>),
    /// A step failed; so does every later one.
    Failed(EngineError),
}

impl Loader {
    /// Begins to load; reads nothing yet.
    pub fn new(files: Box<dyn ModelFiles>, options: LoadOptions) -> Result<Loader, EngineError> {
        if files.onnx().is_empty() {
            return Err(EngineError::invalid("ONNX file", "it is empty"));
        }
        // Until the walk has told: as if all of the file were weights.
        let weight_bytes = files.onnx().len();
        Ok(Loader {
            files,
            options,
            phase: Phase::Walk(Walk::default()),
            graph: None,
            weights: Vec::new(),
            weight_bytes,
            to_do: Vec::new(),
            variants: Vec::new(),
            variant_error: None,
            phases_done: 0,
            phases_total: 1 + VARIANT_PHASES,
            progress: (0, 0),
        })
    }

    /// Works until `meter.spent() >= limit` or done; always does some work.
    ///
    /// A phase that can't pause is done alone: the call before it ends where it would begin, and the call that does it
    /// does nothing else. After an error every further call gives the same error.
    pub fn step(&mut self, meter: &dyn Meter, limit: u64) -> Result<Step, EngineError> {
        if !self.next_phase_is_indivisible() {
            loop {
                self.advance()?;
                if matches!(self.phase, Phase::Done(_)) || self.next_phase_is_indivisible() || meter.spent() >= limit {
                    break;
                }
            }
        } else {
            self.advance()?;
        }
        if matches!(self.phase, Phase::Done(_)) {
            return Ok(Step::Done);
        }
        let (done, total) = self.progress();
        // The total is only known after the walk: never show a step back.
        let ahead = |(done, total): (u64, u64), (old_done, old_total): (u64, u64)| {
            u128::from(done) * u128::from(old_total) >= u128::from(old_done) * u128::from(total)
        };
        if ahead((done, total), self.progress) {
            self.progress = (done, total);
        }
        Ok(Step::Paused { done: self.progress.0, total: self.progress.1 })
    }

    /// Whether the next [`Loader::step`] is a phase that can't pause: give it a message of its own.
    pub fn next_phase_is_indivisible(&self) -> bool {
        !matches!(self.phase, Phase::Walk(_) | Phase::Weights(_) | Phase::Done(_) | Phase::Failed(_))
    }

    /// The plan, once [`Step::Done`].
    pub fn finish(self) -> Result<Arc<Plan>, EngineError> {
        match self.phase {
            Phase::Done(plan) => Ok(plan),
            Phase::Failed(error) => Err(error),
            _ => {
                let (done, total) = self.progress;
                Err(EngineError::NotDone { place: "loading".into(), done, total })
            }
        }
    }

    /// Bytes read, then phases, each phase counted as an eighth of the bytes.
    fn progress(&self) -> (u64, u64) {
        let file_bytes = self.files.onnx().len();
        let bytes = file_bytes + self.weight_bytes;
        let phase = bytes / 8 + 1;
        let done = match &self.phase {
            Phase::Walk(walk) => walk.position().min(file_bytes),
            Phase::Decode(_) => file_bytes,
            Phase::Weights(reader) => file_bytes + reader.bytes_done().min(self.weight_bytes) + phase,
            _ => bytes + self.phases_done * phase,
        };
        (done, bytes + self.phases_total * phase)
    }

    /// One piece of work.
    fn advance(&mut self) -> Result<(), EngineError> {
        let interrupted = EngineError::invalid("loading", "an earlier step did not return");
        let phase = std::mem::replace(&mut self.phase, Phase::Failed(interrupted));
        match self.advance_from(phase) {
            Ok(phase) => {
                self.phase = phase;
                Ok(())
            }
            Err(error) => {
                self.phase = Phase::Failed(error.clone());
                Err(error)
            }
        }
    }

    fn advance_from(&mut self, phase: Phase) -> Result<Phase, EngineError> {
        let next = match phase {
            Phase::Walk(walk) => return self.walk(walk),
            Phase::Decode(walk) => return self.decode(walk),
            Phase::Weights(mut reader) => {
                if !reader.step(&*self.files)? {
                    return Ok(Phase::Weights(reader));
                }
                self.weights = reader.into_tensors();
                return Ok(Phase::Parse);
            }
            Phase::Parse => self.parse().map(|model| Phase::Type(Box::new(model))),
            Phase::Type(model) => typed(*model).map(|model| Phase::Declutter(Box::new(model))),
            Phase::Declutter(mut model) => {
                tract("simplifying the graph", model.declutter()).map(|()| Phase::Optimise(model))
            }
            Phase::Optimise(mut model) => tract("optimising the graph", model.optimize()).map(|()| Phase::Plan(model)),
            Phase::Plan(model) => return self.plan(*model),
            done @ Phase::Done(_) => return Ok(done),
            Phase::Failed(error) => return Err(error),
        };
        match next {
            Ok(next) => {
                self.phases_done += 1;
                Ok(next)
            }
            Err(error) => {
                self.variant_error = Some(error);
                self.next_variant()
            }
        }
    }

    fn walk(&mut self, mut walk: Walk) -> Result<Phase, EngineError> {
        for _ in 0..FIELDS_PER_LOOK {
            if walk.step(&*self.files)? {
                self.weight_bytes = walk.stored_bytes();
                return Ok(Phase::Decode(walk));
            }
        }
        Ok(Phase::Walk(walk))
    }

    fn decode(&mut self, walk: Walk) -> Result<Phase, EngineError> {
        let mut graph = Graph::new(walk, &*self.files)?;
        if let Some(first) = crate::inspect::unsupported_operators(&graph).into_iter().next() {
            let (node, operator, reason) = (first.node, first.operator, first.reason);
            return Err(EngineError::Unsupported { node, operator, reason });
        }
        self.to_do = match self.options.free_dimensions {
            _ if !graph.has_free_dims() => vec![true],
            FreeDimensions::OneAndAny => vec![true, false],
            FreeDimensions::One => vec![true],
            FreeDimensions::Any => vec![false],
        };
        self.phases_total = 1 + VARIANT_PHASES * self.to_do.len() as u64;
        self.phases_done = 1;
        let reader = WeightReader::new(std::mem::take(&mut graph.tensors));
        self.graph = Some(graph);
        Ok(Phase::Weights(reader))
    }

    /// tract's reading of the graph, with the weights as constants in it.
    fn parse(&mut self) -> Result<InferenceModel, EngineError> {
        let fixed = self.to_do.first().is_some_and(|fixed| *fixed);
        let Some(graph) = &mut self.graph else { return Err(EngineError::invalid("loading", "there is no graph")) };
        graph.set_free_dims(fixed.then_some(FIXED_SIZE));
        let onnx = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
        let mut model = tract("reading the graph", onnx.model_for_proto_model(&graph.proto))?;
        let inputs = graph.inputs.len();
        if model.inputs.len() != inputs + self.weights.len() {
            return Err(EngineError::invalid("reading the graph", "its inputs and weights do not add up"));
        }
        let mut constants = BTreeMap::new();
        for ((name, tensor), outlet) in self.weights.iter().zip(model.inputs.split_off(inputs)) {
            if model.nodes[outlet.node].name != *name {
                return Err(EngineError::invalid(
                    format!("tensor {name:?}"),
                    "it is not where it was put in the graph",
                ));
            }
            constants.insert(outlet.node, tensor.clone());
        }
        for (node, tensor) in constants {
            model.nodes[node].outputs[0].fact = tract("reading the graph", InferenceFact::try_from(tensor.clone()))?;
            let constant = tract("reading the graph", Const::new(tensor))?;
            model.nodes[node].op = Box::new(constant) as Box<dyn InferenceOp>;
        }
        if self.to_do.len() == 1 {
            // Leave tract the only owner of the weights, so that their plain form goes as soon as they are packed.
            self.weights = Vec::new();
        }
        Ok(model)
    }

    fn plan(&mut self, model: TypedModel) -> Result<Phase, EngineError> {
        let fixed = self.to_do.first().is_some_and(|fixed| *fixed);
        let Some(graph) = &self.graph else { return Err(EngineError::invalid("loading", "there is no graph")) };
        let inputs = graph.inputs.iter().map(|input| input.spec(fixed.then_some(FIXED_SIZE))).collect();
        match Variant::new(model, inputs, &graph.outputs) {
            Ok(variant) => self.variants.push(variant),
            Err(error) => self.variant_error = Some(error),
        }
        self.phases_done += 1;
        self.next_variant()
    }

    /// Goes on with the next variant, or to the end. A model that one variant can't be made of has the other.
    fn next_variant(&mut self) -> Result<Phase, EngineError> {
        self.to_do.remove(0);
        if !self.to_do.is_empty() {
            self.phases_done = self.phases_total - VARIANT_PHASES * self.to_do.len() as u64;
            return Ok(Phase::Parse);
        }
        self.graph = None;
        self.weights = Vec::new();
        match self.variant_error.take() {
            Some(error) if self.variants.is_empty() => Err(error),
            _ => {
                Plan::new(std::mem::take(&mut self.variants), self.weight_bytes).map(|plan| Phase::Done(Arc::new(plan)))
            }
        }
    }
}

fn typed(model: InferenceModel) -> Result<TypedModel, EngineError> {
    tract("finding types and shapes", model.into_typed())
}

/// tract's error, whose text names node and values, as ours.
pub(crate) fn tract<T>(place: &str, result: TractResult<T>) -> Result<T, EngineError> {
    result.map_err(|error| EngineError::invalid(place, format!("{error:#}")))
}
