//! One request on a [`Plan`], node by node.

use crate::onnx::Sizes;
use crate::variant::{Build, InputShapes, Variant, tract};
use crate::{EngineError, Meter, Plan, Step, Tensor, TensorSpec, cost};
use std::collections::BTreeSet;
use std::sync::Arc;
use tract_onnx::prelude::{IntoTValue, TValue, TVec};
use tract_onnx::tract_core::internal::{OutletId, TDim, ToDim, TractResult, TurnState, TypedSimpleState, solve_for};

/// A measured cost is trusted up to this part of it more: work that depends on values varies a little.
const MEASURED_MARGIN_DIVISOR: u64 = 8;

/// What the making of a variant is called in errors and as a node.
const PREPARING: &str = "preparing the model for these shapes";

/// One inference under way.
///
/// Values live from the node that computes them to the last node that uses them. Where the model has no variant for the
/// inputs' shapes, the session begins by making it (see [`crate::FreeDimensions`]).
pub struct Session {
    plan: Arc<Plan>,
    shapes: InputShapes,
    /// Indices into the plan's outputs, in the order asked for.
    outputs: Vec<usize>,
    node_limit: u64,
    stage: Stage,
}

enum Stage {
    /// Making a variant for the inputs.
    Prepare(Box<Build>, Vec<Tensor>),
    Run(Box<Run>),
    Failed(EngineError),
}

/// The nodes under way.
struct Run {
    variant: Arc<Variant>,
    state: TypedSimpleState,
    /// Node ids in the order they run, and each one's place in the plan's order.
    order: Vec<(usize, usize)>,
    /// For each place in `order`, the nodes whose values are used there for the last time.
    last_uses: Vec<Vec<usize>>,
    done: usize,
    known: Arc<Vec<u64>>,
    measured: Vec<u64>,
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
        let stage = match plan.variant_for(&shapes) {
            Some(variant) => Stage::Run(Box::new(Run::new(variant, inputs, &outputs, &shapes)?)),
            None => Stage::Prepare(Box::new(Build::new(Sizes::Of(shapes.clone()))), inputs),
        };
        Ok(Session { plan, shapes, outputs, node_limit: u64::MAX, stage })
    }

    /// Refuses, with [`EngineError::NodeTooExpensive`], to start a node whose estimate exceeds `instructions`, even as
    /// the first of a call. Without it the first node of a call always runs.
    pub fn with_node_limit(mut self, instructions: u64) -> Session {
        self.node_limit = instructions;
        self
    }

    /// Runs nodes while `meter.spent()` plus the next node's estimate stays within `limit`; at least one in each call.
    ///
    /// A node's estimate is the bound of its shapes, or once a session with inputs of the same shapes has run it, what
    /// that took and a margin. A phase of preparing the model for the inputs' shapes comes alone in its call. After an
    /// error every further call gives the same error.
    pub fn step(&mut self, meter: &dyn Meter, limit: u64) -> Result<Step, EngineError> {
        let result = match &mut self.stage {
            Stage::Prepare(..) => self.prepare(),
            Stage::Run(run) => run.step(meter, limit, self.node_limit, &self.shapes),
            Stage::Failed(error) => Err(error.clone()),
        };
        if let Err(error) = &result {
            self.stage = Stage::Failed(error.clone());
        }
        result
    }

    /// One phase of making the variant for the inputs' shapes.
    fn prepare(&mut self) -> Result<Step, EngineError> {
        let estimate = self.next_node_estimate_instructions();
        if estimate > self.node_limit {
            return Err(EngineError::NodeTooExpensive { node: PREPARING.into(), estimate, limit: self.node_limit });
        }
        let Stage::Prepare(build, inputs) = &mut self.stage else {
            return Err(EngineError::invalid(PREPARING, "it is not under way"));
        };
        let nodes = self.plan.node_count() as u64;
        let total = Build::PHASES as u64 + nodes;
        let Some(variant) = self.plan.build_step(build, &self.shapes)? else {
            return Ok(Step::Paused { done: build.phases_done() as u64, total });
        };
        let run = Run::new(variant, std::mem::take(inputs), &self.outputs, &self.shapes)?;
        self.stage = Stage::Run(Box::new(run));
        // From here on nodes are counted alone.
        Ok(Step::Paused { done: 0, total: self.nodes_total() as u64 })
    }

    /// Instructions the next node, or phase of preparing, may take, an upper bound; 0 when done.
    pub fn next_node_estimate_instructions(&self) -> u64 {
        match &self.stage {
            Stage::Prepare(build, _) => self.plan.phase_estimate(build.phases_done()),
            Stage::Run(run) => run.next_estimate(),
            Stage::Failed(_) => 0,
        }
    }

    /// Name and operator of the next node; empty when done.
    pub fn next_node_name(&self) -> String {
        match &self.stage {
            Stage::Prepare(..) => PREPARING.into(),
            Stage::Run(run) => run.order.get(run.done).map_or_else(String::new, |&(node, _)| run.node_name(node)),
            Stage::Failed(_) => String::new(),
        }
    }

    /// Nodes run so far.
    pub fn nodes_done(&self) -> usize {
        match &self.stage {
            Stage::Run(run) => run.done,
            _ => 0,
        }
    }

    /// Nodes that this session runs in all.
    pub fn nodes_total(&self) -> usize {
        match &self.stage {
            Stage::Run(run) => run.order.len(),
            _ => self.plan.node_count(),
        }
    }

    /// The outputs by name in the order asked for, once [`Step::Done`].
    pub fn into_outputs(self) -> Result<Vec<(String, Tensor)>, EngineError> {
        let run = match self.stage {
            Stage::Run(run) if run.done == run.order.len() => run,
            Stage::Failed(error) => return Err(error),
            _ => {
                let (done, total) = (self.nodes_done() as u64, self.nodes_total() as u64);
                return Err(EngineError::NotDone { place: "inference".into(), done, total });
            }
        };
        let values = run.into_values(&self.outputs);
        let names = self.outputs.iter().map(|index| self.plan.outputs()[*index].name.clone());
        names
            .zip(values)
            .map(|(name, value)| match value.and_then(Tensor::from_tract) {
                Some(tensor) => Ok((name, tensor)),
                None => {
                    let (node, reason) = (format!("output {name:?}"), "it is not a plain tensor".to_string());
                    Err(EngineError::Run { node, reason })
                }
            })
            .collect()
    }
}

impl Run {
    fn new(
        variant: Arc<Variant>,
        inputs: Vec<Tensor>,
        outputs: &[usize],
        shapes: &InputShapes,
    ) -> Result<Run, EngineError> {
        let (order, last_uses) = needed_nodes(&variant, outputs);
        let model = variant.tract.model();
        let mut values = TVec::new();
        for ((tensor, outlet), spec) in inputs.into_iter().zip(&model.inputs).zip(&variant.inputs) {
            let place = format!("input {:?}", spec.name);
            let fact = tract(&place, model.outlet_fact(*outlet))?;
            let tensor = tensor.into_tract();
            let value = if fact.datum_type == tensor.datum_type() {
                tensor
            } else {
                // Shapes given as int64 are symbolic numbers in tract.
                tract(&place, tensor.cast_to_dt(fact.datum_type).map(|cast| cast.into_owned()))?
            };
            values.push(value.into_tvalue());
        }
        let state = tract("inputs", TypedSimpleState::new_from_inputs(&variant.tract, values))?;
        let known = variant.measured(shapes);
        let measured = vec![0; variant.node_count()];
        Ok(Run { variant, state, order, last_uses, done: 0, known, measured })
    }

    fn step(
        &mut self,
        meter: &dyn Meter,
        limit: u64,
        node_limit: u64,
        shapes: &InputShapes,
    ) -> Result<Step, EngineError> {
        let first = self.done;
        while self.done < self.order.len() {
            let before = meter.spent();
            let estimate = self.next_estimate();
            if self.done > first && before.saturating_add(estimate) > limit {
                return Ok(Step::Paused { done: self.done as u64, total: self.order.len() as u64 });
            }
            let (node, place) = self.order[self.done];
            if estimate > node_limit {
                let node = self.node_name(node);
                return Err(EngineError::NodeTooExpensive { node, estimate, limit: node_limit });
            }
            self.run_node(node)
                .map_err(|error| EngineError::Run { node: self.node_name(node), reason: format!("{error:#}") })?;
            self.measured[place] = meter.spent().saturating_sub(before);
            self.done += 1;
        }
        if self.done > first {
            self.variant.remember(shapes.clone(), &self.measured);
        }
        Ok(Step::Done)
    }

    fn next_estimate(&self) -> u64 {
        let Some(&(node, place)) = self.order.get(self.done) else { return 0 };
        let model = self.variant.tract.model();
        let symbols = &self.state.turn_state.resolved_symbols;
        let bound = cost::node_instructions(model, model.node(node), symbols);
        match self.known.get(place) {
            None | Some(0) => bound,
            Some(&measured) => {
                // The measured run may have found pages touched that are untouched this time, and sizes worked out.
                let again = cost::again_instructions(model, model.node(node), symbols);
                measured.saturating_add(measured / MEASURED_MARGIN_DIVISOR).saturating_add(again).min(bound)
            }
        }
    }

    fn node_name(&self, node: usize) -> String {
        let node = self.variant.tract.model().node(node);
        format!("{} ({})", node.name, node.op.name())
    }

    fn run_node(&mut self, node: usize) -> TractResult<()> {
        let inputs = self.state.prepare_inputs(node)?;
        // Freed before the node runs: a value it alone uses can then be changed in place.
        for dead in &self.last_uses[self.done] {
            self.state.turn_state.values[*dead] = None;
        }
        self.state.compute_one_with_inputs(node, inputs)?;
        self.bind_symbols(node)
    }

    /// The values of these of the plan's outputs.
    fn into_values(self, outputs: &[usize]) -> Vec<Option<TValue>> {
        let values = &self.state.turn_state.values;
        let value = |outlet: OutletId| values.get(outlet.node)?.as_ref()?.get(outlet.slot).cloned();
        // All other owners are dropped with the state: outputs can be handed out without a copy.
        outputs.iter().map(|index| value(self.variant.output_outlets[*index])).collect()
    }

    /// Learns sizes that only running the node has told (the length of a `NonZero`), as tract's own loop does.
    fn bind_symbols(&mut self, node: usize) -> TractResult<()> {
        let outputs = &self.variant.tract.model().node(node).outputs;
        let Some(values) = &self.state.turn_state.values[node] else { return Ok(()) };
        let mut found: Vec<(TDim, i64)> = Vec::new();
        for (output, value) in outputs.iter().zip(values) {
            let dims = output.fact.shape.iter().zip(value.shape());
            found.extend(dims.filter(|(dim, _)| dim.as_i64().is_none()).map(|(dim, size)| (dim.clone(), *size as i64)));
        }
        for (dim, size) in found {
            bind_symbol(&mut self.state.turn_state, &dim, size)?;
        }
        Ok(())
    }
}

/// Gives the symbol in `dim` its value, when it has none yet and the size settles it.
fn bind_symbol(turn: &mut TurnState, dim: &TDim, size: i64) -> TractResult<()> {
    let unknown = dim.eval(&turn.resolved_symbols);
    let symbols = unknown.symbols();
    let mut symbols = symbols.into_iter();
    let (Some(symbol), None) = (symbols.next(), symbols.next()) else { return Ok(()) };
    let value = match &unknown {
        TDim::Sym(_) => Some(size),
        _ => solve_for(&symbol, &unknown, &size.to_dim()).and_then(|value| value.as_i64()),
    };
    if let Some(value) = value {
        turn.resolved_symbols.set(&symbol, value);
        if turn.scenario.is_none()
            && let Some(scope) = symbol.scope()
        {
            turn.scenario = scope.guess_scenario(&turn.resolved_symbols)?;
        }
    }
    Ok(())
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

/// The nodes that the outputs need, in order, and where each value is used for the last time.
fn needed_nodes(plan: &Variant, outputs: &[usize]) -> (Vec<(usize, usize)>, Vec<Vec<usize>>) {
    let model = plan.tract.model();
    let full_order = plan.tract.order_without_consts();
    let mut needed: BTreeSet<usize> = outputs.iter().map(|output| plan.output_outlets[*output].node).collect();
    let all = outputs.len() == plan.output_outlets.len();
    // A node whose size is learnt by running it may be needed by others without an edge between them; with all outputs
    // tract has put it first, with some of them it must not be dropped.
    let mints_symbols = |node: usize| {
        let unknown = |dim: &TDim| dim.as_i64().is_none();
        model.node(node).op.mints_runtime_symbols()
            && model.node(node).outputs.iter().any(|output| output.fact.shape.iter().any(unknown))
    };
    for &node in full_order.iter().rev() {
        if all || needed.contains(&node) || mints_symbols(node) {
            needed.insert(node);
            needed.extend(model.node(node).inputs.iter().map(|outlet: &OutletId| outlet.node));
        }
    }
    let order: Vec<(usize, usize)> = full_order
        .iter()
        .enumerate()
        .filter(|(_, node)| needed.contains(node))
        .map(|(place, &node)| (node, place))
        .collect();
    let mut kept: BTreeSet<usize> = outputs.iter().map(|output| plan.output_outlets[*output].node).collect();
    let mut last_uses = vec![Vec::new(); order.len()];
    for (step, (node, _)) in order.iter().enumerate().rev() {
        for outlet in &model.node(*node).inputs {
            // `kept` already holds what is used later. Constants stay too: the plan owns them.
            let constant = model.node(outlet.node).op_is::<tract_onnx::tract_core::ops::konst::Const>();
            if !constant && kept.insert(outlet.node) {
                last_uses[step].push(outlet.node);
            }
        }
    }
    (order, last_uses)
}
