//! The path of graphs that can't be typed with their free sizes as symbols: tract simplifies, optimises and runs the
//! whole graph, with the weights as constants in it. It is several times dearer to load and to run than a program.

pub(crate) mod run;
pub(crate) mod variant;

use crate::EngineError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use variant::{Build, InputShapes, Parts, Variant};

/// Variants for single shapes that are kept beside those made at load.
const EXTRA_VARIANTS_MAX: usize = 2;

/// A phase for other shapes may take this many times what it took at load.
const PHASE_MARGIN: u64 = 2;

/// A graph as tract runs it: one or two variants made at load, one optimised for every free dimension of the inputs
/// being 1, and one for any size. Where tract can't make the latter, a session with other sizes first makes a variant
/// for its own; the last few are kept.
pub(crate) struct Whole {
    variants: Vec<Arc<Variant>>,
    phase_instructions: [u64; Build::PHASES],
    /// Present when variants may have to be made for single shapes.
    parts: Option<Mutex<Parts>>,
    extra: Mutex<Vec<(InputShapes, Arc<Variant>)>>,
    /// Why the graph is not a program of ours.
    pub reason: EngineError,
}

impl Whole {
    /// `variants` is not empty; `parts` is given when more may have to be made.
    pub fn new(
        variants: Vec<Variant>,
        phase_instructions: [u64; Build::PHASES],
        parts: Option<Parts>,
        reason: EngineError,
    ) -> Whole {
        let variants = variants.into_iter().map(Arc::new).collect();
        Whole { variants, phase_instructions, parts: parts.map(Mutex::new), extra: Mutex::default(), reason }
    }

    /// Nodes of the variant for every free dimension being 1, where there is one.
    pub fn node_count(&self) -> usize {
        self.variants.first().map_or(0, |variant| variant.node_count())
    }

    /// Upper bound of the most expensive node's instructions with free dimensions taken as 1.
    pub fn largest_node_estimate(&self) -> u64 {
        self.variants.iter().map(|variant| variant.largest_node_estimate).max().unwrap_or(0)
    }

    /// The variant for inputs of these shapes, if it is made.
    pub fn variant_for(&self, shapes: &InputShapes) -> Option<Arc<Variant>> {
        let made = self.variants.iter().find(|variant| variant.takes(shapes)).cloned();
        made.or_else(|| self.extra().iter().find(|(made_for, _)| made_for == shapes).map(|(_, made)| made.clone()))
    }

    /// Does the next phase of making a variant for single shapes; keeps the variant when it is made.
    pub fn build_step(&self, build: &mut Build, shapes: &InputShapes) -> Result<Option<Arc<Variant>>, EngineError> {
        let Some(parts) = &self.parts else {
            return Err(EngineError::invalid("preparing the model", "there is no variant for these shapes"));
        };
        let mut parts = parts.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(variant) = build.step(&mut parts, false)? else { return Ok(None) };
        let variant = Arc::new(variant);
        let mut extra = self.extra();
        if extra.len() == EXTRA_VARIANTS_MAX {
            extra.remove(0);
        }
        extra.push((shapes.clone(), variant.clone()));
        Ok(Some(variant))
    }

    /// Instructions that the next phase of a build may take, going by what it took at load.
    pub fn phase_estimate(&self, phases_done: usize) -> u64 {
        self.phase_instructions.get(phases_done).map_or(0, |measured| measured.saturating_mul(PHASE_MARGIN))
    }

    fn extra(&self) -> MutexGuard<'_, Vec<(InputShapes, Arc<Variant>)>> {
        self.extra.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
