//! From files to a [`Plan`], in steps.

use crate::{EngineError, Meter, ModelFiles, Plan, Step};
use std::sync::Arc;

/// How to load.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {}

/// Reads a model and makes a [`Plan`] of it.
pub struct Loader {}

impl Loader {
    /// Begins to load; reads nothing yet.
    pub fn new(files: Box<dyn ModelFiles>, options: LoadOptions) -> Result<Loader, EngineError> {
        let _ = (files, options);
        todo!()
    }

    /// Works until `meter.spent() >= limit` or done. A phase that can't pause is done alone, in a call of its own.
    pub fn step(&mut self, meter: &dyn Meter, limit: u64) -> Result<Step, EngineError> {
        let _ = (meter, limit);
        todo!()
    }

    /// Whether the next [`Loader::step`] is a phase that can't pause: give it a message of its own.
    pub fn next_phase_is_indivisible(&self) -> bool {
        todo!()
    }

    /// The plan, once [`Step::Done`].
    pub fn finish(self) -> Result<Arc<Plan>, EngineError> {
        todo!()
    }
}
