//! One request on a [`Plan`], node by node.

use crate::interpreter;
use crate::onnx::Sizes;
use crate::plan::Body;
use crate::program::run::{Progress, Run};
use crate::whole::Whole;
use crate::whole::run::Run as WholeRun;
use crate::whole::variant::{Build, InputShapes};
use crate::{ElementType, EngineError, Meter, NodeProfile, Plan, Step, Tensor, TensorSpec};
use std::sync::Arc;

/// What the making of a variant is called in errors and as a node.
const PREPARING: &str = "preparing the model for these shapes";

/// One inference under way.
///
/// Values live from the node that computes them to the last node that uses them. Where tract runs the graph whole and
/// has not optimised it for the inputs' shapes, the session begins with that (see [`crate::FreeDimensions`]).
pub struct Session {
    plan: Arc<Plan>,
    shapes: InputShapes,
    /// Indices into the plan's outputs, in the order asked for.
    outputs: Vec<usize>,
    node_limit: u64,
    stage: Stage,
}

enum Stage {
    Program(Box<Run>),
    Interpreter(Box<interpreter::Run>),
    /// Making a variant for the inputs.
    Prepare(Box<Build>, Vec<Tensor>),
    Whole(Box<WholeRun>),
    Failed(EngineError),
}

impl Session {
    /// Checks names, types and shapes. `outputs` are those to compute, in the order wanted; `None` is all.
    ///
    /// A float32 input may be given as uint8 or float16; both are exact.
    pub fn new(
        plan: Arc<Plan>,
        inputs: Vec<(String, Tensor)>,
        outputs: Option<Vec<String>>,
    ) -> Result<Session, EngineError> {
        let inputs = arrange_inputs(plan.inputs(), inputs)?;
        let outputs = select_outputs(plan.outputs(), outputs)?;
        let shapes: InputShapes = inputs.iter().map(Tensor::shape).collect();
        plan.check_free_dims(&shapes)?;
        let stage = match &plan.body {
            Body::Program(body) => {
                let layout = body.layout(&shapes)?;
                // Half precision is computed in single precision.
                let single = |tensor: Tensor| match tensor.element_type() {
                    ElementType::Float16 => tensor.cast_to(ElementType::Float32),
                    _ => Ok(tensor),
                };
                let inputs = inputs.into_iter().map(single).collect::<Result<Vec<_>, _>>()?;
                let run = Run::new(body.program.clone(), layout, inputs, &outputs, body.take_memory())?;
                Stage::Program(Box::new(run))
            }
            Body::Interpreter(interpreter, _) => {
                Stage::Interpreter(Box::new(interpreter::Run::new(interpreter.clone(), &inputs)?))
            }
            Body::Whole(whole) => match whole.variant_for(&shapes) {
                Some(variant) => Stage::Whole(Box::new(WholeRun::new(variant, inputs, &outputs, &shapes)?)),
                None => Stage::Prepare(Box::new(Build::new(Sizes::Of(shapes.clone()))), inputs),
            },
        };
        Ok(Session { plan, shapes, outputs, node_limit: u64::MAX, stage })
    }

    /// Refuses, with [`EngineError::NodeTooExpensive`], to start a node, or the least part of one that can be paused,
    /// whose estimate exceeds `instructions`, even as the first of a call. Without it the first one of a call always runs.
    pub fn with_node_limit(mut self, instructions: u64) -> Session {
        self.node_limit = instructions;
        self
    }

    /// Runs nodes while `meter.spent()` plus the next one's estimate stays within `limit`, and at least one in each call.
    /// A large node pauses between parts of its output; of such a node at least one part is done in each call.
    ///
    /// A phase of preparing the model for the inputs' shapes comes alone in its call. After an error every further call
    /// gives the same error.
    pub fn step(&mut self, meter: &dyn Meter, limit: u64) -> Result<Step, EngineError> {
        let result = match &mut self.stage {
            Stage::Program(run) => run.step(meter, limit, self.node_limit).map(|progress| match progress {
                Progress::Done => Step::Done,
                Progress::Paused => Step::Paused { done: run.steps_done() as u64, total: run.steps_total() as u64 },
            }),
            Stage::Interpreter(run) => run.step(meter, limit, self.node_limit),
            Stage::Prepare(..) => self.prepare(),
            Stage::Whole(run) => run.step(meter, limit, self.node_limit, &self.shapes),
            Stage::Failed(error) => Err(error.clone()),
        };
        if let Err(error) = &result {
            self.stage = Stage::Failed(error.clone());
        }
        result
    }

    fn whole(&self) -> Result<&Whole, EngineError> {
        match &self.plan.body {
            Body::Whole(whole) => Ok(whole),
            Body::Program(_) | Body::Interpreter(..) => Err(EngineError::invalid(PREPARING, "it is not under way")),
        }
    }

    /// One phase of making the variant for the inputs' shapes.
    fn prepare(&mut self) -> Result<Step, EngineError> {
        let estimate = self.next_node_estimate_instructions();
        if estimate > self.node_limit {
            return Err(EngineError::NodeTooExpensive { node: PREPARING.into(), estimate, limit: self.node_limit });
        }
        let plan = self.plan.clone();
        let (Stage::Prepare(build, inputs), Body::Whole(whole)) = (&mut self.stage, &plan.body) else {
            return Err(EngineError::invalid(PREPARING, "it is not under way"));
        };
        let total = (Build::PHASES + whole.node_count()) as u64;
        let Some(variant) = whole.build_step(build, &self.shapes)? else {
            return Ok(Step::Paused { done: build.phases_done() as u64, total });
        };
        let run = WholeRun::new(variant, std::mem::take(inputs), &self.outputs, &self.shapes)?;
        self.stage = Stage::Whole(Box::new(run));
        // From here on nodes are counted alone.
        Ok(Step::Paused { done: 0, total: self.nodes_total() as u64 })
    }

    /// Instructions of the least that can be done next: a node, a part of a large one, or a phase of preparing. An upper
    /// bound; 0 when done.
    pub fn next_node_estimate_instructions(&self) -> u64 {
        match &self.stage {
            Stage::Program(run) => run.next_instructions(),
            Stage::Interpreter(run) => run.next_instructions(),
            Stage::Prepare(build, _) => self.whole().map_or(0, |whole| whole.phase_estimate(build.phases_done())),
            Stage::Whole(run) => run.next_estimate(),
            Stage::Failed(_) => 0,
        }
    }

    /// Name and operator of the next node; empty when done.
    pub fn next_node_name(&self) -> String {
        match &self.stage {
            Stage::Program(run) => run.step_name(),
            Stage::Interpreter(run) => run.next_name(),
            Stage::Prepare(..) => PREPARING.into(),
            Stage::Whole(run) => run.next_name(),
            Stage::Failed(_) => String::new(),
        }
    }

    /// Nodes run so far.
    pub fn nodes_done(&self) -> usize {
        match &self.stage {
            Stage::Program(run) => run.steps_done(),
            Stage::Interpreter(run) => run.nodes_done(),
            Stage::Whole(run) => run.done,
            _ => 0,
        }
    }

    /// Nodes that this session runs in all.
    pub fn nodes_total(&self) -> usize {
        match &self.stage {
            Stage::Program(run) => run.steps_total(),
            Stage::Interpreter(run) => run.nodes_total(),
            Stage::Whole(run) => run.order.len(),
            _ => self.plan.node_count(),
        }
    }

    /// What each node has taken so far, by the meter that [`Session::step`] was given, in the order they run. Empty where
    /// tract runs the graph whole.
    pub fn profile(&self) -> Vec<NodeProfile> {
        match &self.stage {
            Stage::Program(run) => run.profile(),
            Stage::Interpreter(run) => run.profile(),
            _ => Vec::new(),
        }
    }

    /// The outputs by name in the order asked for, once [`Step::Done`].
    pub fn into_outputs(self) -> Result<Vec<(String, Tensor)>, EngineError> {
        if let Stage::Failed(error) = self.stage {
            return Err(error);
        }
        let (done, total) = (self.nodes_done() as u64, self.nodes_total() as u64);
        if done < total || matches!(self.stage, Stage::Prepare(..)) {
            return Err(EngineError::NotDone { place: "inference".into(), done, total });
        }
        let specs = self.outputs.iter().map(|index| &self.plan.outputs()[*index]);
        match self.stage {
            Stage::Program(run) => {
                let read = |(spec, index): (&TensorSpec, &usize)| Ok((spec.name.clone(), run.output(*index, spec)?));
                let outputs = specs.zip(&self.outputs).map(read).collect();
                if let Body::Program(body) = &self.plan.body {
                    body.give_memory(run.into_memory());
                }
                outputs
            }
            Stage::Interpreter(run) => {
                specs.zip(&self.outputs).map(|(spec, index)| Ok((spec.name.clone(), run.output(*index)?))).collect()
            }
            Stage::Whole(run) => {
                let not_plain = |spec: &TensorSpec| EngineError::Run {
                    node: format!("output {:?}", spec.name),
                    reason: "it is not a plain tensor".into(),
                };
                let values = run.into_values(&self.outputs);
                let read = |(spec, value): (&TensorSpec, Option<_>)| {
                    let tensor = value.and_then(Tensor::from_tract).ok_or_else(|| not_plain(spec))?;
                    Ok((spec.name.clone(), tensor))
                };
                specs.zip(values).map(read).collect()
            }
            _ => Err(EngineError::NotDone { place: "inference".into(), done, total }),
        }
    }
}

/// The inputs in the model's order, checked against its specification.
fn arrange_inputs(specs: &[TensorSpec], inputs: Vec<(String, Tensor)>) -> Result<Vec<Tensor>, EngineError> {
    let mut arranged: Vec<Option<Tensor>> = specs.iter().map(|_| None).collect();
    for (name, tensor) in inputs {
        let Some(index) = specs.iter().position(|spec| spec.name == name) else {
            let available = specs.iter().map(|spec| spec.name.clone()).collect();
            return Err(EngineError::UnknownTensor { name, available });
        };
        if arranged[index].is_some() {
            return Err(EngineError::DuplicateTensor { name });
        }
        let (expected, got) = (specs[index].element_type, tensor.element_type());
        let tensor =
            tensor.cast_to(expected).map_err(|_| EngineError::TensorType { name: name.clone(), expected, got })?;
        let shape = tensor.shape();
        if !specs[index].fits(&shape) {
            return Err(EngineError::TensorShape { name, expected: specs[index].shape.clone(), got: shape });
        }
        arranged[index] = Some(tensor);
    }
    let missing = |spec: &TensorSpec| EngineError::MissingTensor { name: spec.name.clone() };
    arranged.into_iter().zip(specs).map(|(tensor, spec)| tensor.ok_or_else(|| missing(spec))).collect()
}

fn select_outputs(specs: &[TensorSpec], names: Option<Vec<String>>) -> Result<Vec<usize>, EngineError> {
    let Some(names) = names else { return Ok((0..specs.len()).collect()) };
    let mut selected = Vec::new();
    for name in names {
        let Some(index) = specs.iter().position(|spec| spec.name == name) else {
            let available = specs.iter().map(|spec| spec.name.clone()).collect();
            return Err(EngineError::UnknownTensor { name, available });
        };
        if selected.contains(&index) {
            return Err(EngineError::DuplicateTensor { name });
        }
        selected.push(index);
    }
    Ok(selected)
}
