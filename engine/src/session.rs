//! One request on a [`Plan`], node by node.

use crate::{EngineError, Meter, Plan, Step, Tensor};
use std::sync::Arc;

/// One inference under way.
pub struct Session {}

impl Session {
    /// Checks names, types and shapes. `outputs` are those to compute, in the order wanted; `None` is all.
    pub fn new(
        plan: Arc<Plan>,
        inputs: Vec<(String, Tensor)>,
        outputs: Option<Vec<String>>,
    ) -> Result<Session, EngineError> {
        let _ = (plan, inputs, outputs);
        todo!()
    }

    /// Refuses, with [`EngineError::NodeTooExpensive`], to start a node whose estimate exceeds `instructions`, even as
    /// the first of a call. Without it the first node of a call always runs.
    pub fn with_node_limit(self, instructions: u64) -> Session {
        let _ = instructions;
        todo!()
    }

    /// Runs nodes while `meter.spent()` plus the next node's estimate stays within `limit`; at least one in each call.
    pub fn step(&mut self, meter: &dyn Meter, limit: u64) -> Result<Step, EngineError> {
        let _ = (meter, limit);
        todo!()
    }

    /// Instructions the next node may take, an upper bound; 0 when done.
    pub fn next_node_estimate_instructions(&self) -> u64 {
        todo!()
    }

    pub fn nodes_done(&self) -> usize {
        todo!()
    }

    /// The outputs by name in the order asked for, once [`Step::Done`].
    pub fn into_outputs(self) -> Result<Vec<(String, Tensor)>, EngineError> {
        todo!()
    }
}
