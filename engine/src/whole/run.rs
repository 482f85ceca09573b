//! A session on a whole-tract variant, node by node.

use super::variant::{InputShapes, Variant};
use crate::error::tract;
use crate::{EngineError, Meter, Step, Tensor, cost};
use std::collections::BTreeSet;
use std::sync::Arc;
use tract_onnx::prelude::{IntoTValue, TValue, TVec};
use tract_onnx::tract_core::internal::{OutletId, TDim, ToDim, TractResult, TurnState, TypedSimpleState, solve_for};

/// A measured cost is trusted up to this part of it more: work that depends on values varies a little.
const MEASURED_MARGIN_DIVISOR: u64 = 8;

/// The nodes under way.
pub(crate) struct Run {
    variant: Arc<Variant>,
    state: TypedSimpleState,
    /// Node ids in the order they run, and each one's place in the plan's order.
    pub order: Vec<(usize, usize)>,
    /// For each place in `order`, the nodes whose values are used there for the last time.
    last_uses: Vec<Vec<usize>>,
    pub done: usize,
    known: Arc<Vec<u64>>,
    measured: Vec<u64>,
}

impl Run {
    pub fn new(
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

    pub fn step(
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

    pub fn next_estimate(&self) -> u64 {
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

    /// Name and operator of the next node; empty when done.
    pub fn next_name(&self) -> String {
        self.order.get(self.done).map_or_else(String::new, |&(node, _)| self.node_name(node))
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
    pub fn into_values(self, outputs: &[usize]) -> Vec<Option<TValue>> {
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
