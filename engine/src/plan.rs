//! A model ready to run.

use crate::onnx::Dim;
use crate::variant::{Build, InputShapes, Parts, Variant};
use crate::{ElementType, EngineError};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Variants for single shapes that are kept beside those made at load.
const EXTRA_VARIANTS_MAX: usize = 2;

/// A phase for other shapes may take this many times what it took at load.
const PHASE_MARGIN: u64 = 2;

/// Name, type and shape of a model's input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    pub name: String,
    pub element_type: ElementType,
    /// `None` for a dimension that is free.
    pub shape: Vec<Option<u64>>,
}

impl TensorSpec {
    /// Whether a tensor of that shape can be given.
    pub(crate) fn fits(&self, shape: &[u64]) -> bool {
        let fits = |(spec, size): (&Option<u64>, &u64)| spec.is_none_or(|spec| spec == *size);
        self.shape.len() == shape.len() && self.shape.iter().zip(shape).all(fits)
    }
}

/// A model ready to run, shared by its sessions.
///
/// It has one or two variants made at load: one optimised for every free dimension of the inputs being 1, and one for
/// any size. Where tract can't make the latter, a session with other sizes first makes a variant for its own; the last
/// few are kept.
pub struct Plan {
    variants: Vec<Arc<Variant>>,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    weight_bytes: u64,
    /// For each input, its dimensions with the names of the free ones.
    dims: Vec<Vec<Dim>>,
    phase_instructions: [u64; Build::PHASES],
    /// Present when variants may have to be made for single shapes.
    parts: Option<Mutex<Parts>>,
    extra: Mutex<Vec<(InputShapes, Arc<Variant>)>>,
}

impl Plan {
    /// `variants` is not empty; `parts` is given when more may have to be made.
    pub(crate) fn new(
        variants: Vec<Variant>,
        dims: Vec<Vec<Dim>>,
        weight_bytes: u64,
        phase_instructions: [u64; Build::PHASES],
        parts: Option<Parts>,
    ) -> Result<Plan, EngineError> {
        let Some(widest) = variants.last() else { return Err(EngineError::invalid("planning", "there is no variant")) };
        let (mut inputs, mut outputs) = (widest.inputs.clone(), widest.outputs.clone());
        if let Some(parts) = &parts {
            inputs = parts.graph.specs(&crate::onnx::Sizes::Any);
            // Sizes of the outputs may depend on those of the inputs in any way.
            for (output, declared) in outputs.iter_mut().zip(parts.graph.declared_outputs()) {
                if declared.shape.len() == output.shape.len() {
                    output.shape = declared.shape;
                } else {
                    output.shape.fill(None);
                }
            }
        }
        let variants = variants.into_iter().map(Arc::new).collect();
        let (parts, extra) = (parts.map(Mutex::new), Mutex::default());
        Ok(Plan { variants, inputs, outputs, weight_bytes, dims, phase_instructions, parts, extra })
    }

    /// The inputs a request has to give.
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    pub fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    /// Nodes that a session which computes every output runs, with every free dimension 1 where there is a variant for
    /// that.
    pub fn node_count(&self) -> usize {
        self.variants.first().map_or(0, |variant| variant.node_count())
    }

    /// Bytes of the weights as they were read; those of a few KiB each are not counted.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// Upper bound of the most expensive node's instructions with free dimensions taken as 1.
    pub fn largest_node_estimate_instructions(&self) -> u64 {
        self.variants.iter().map(|variant| variant.largest_node_estimate).max().unwrap_or(0)
    }

    /// The variant for inputs of these shapes, if it is made.
    pub(crate) fn variant_for(&self, shapes: &InputShapes) -> Option<Arc<Variant>> {
        let made = self.variants.iter().find(|variant| variant.takes(shapes)).cloned();
        made.or_else(|| self.extra().iter().find(|(made_for, _)| made_for == shapes).map(|(_, made)| made.clone()))
    }

    /// Does the next phase of making a variant for single shapes; keeps the variant when it is made.
    pub(crate) fn build_step(
        &self,
        build: &mut Build,
        shapes: &InputShapes,
    ) -> Result<Option<Arc<Variant>>, EngineError> {
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
    pub(crate) fn phase_estimate(&self, phases_done: usize) -> u64 {
        self.phase_instructions.get(phases_done).map_or(0, |measured| measured.saturating_mul(PHASE_MARGIN))
    }

    /// Whether equal names of free dimensions have equal sizes. Fails with the first input that contradicts another.
    pub(crate) fn check_free_dims(&self, shapes: &InputShapes) -> Result<(), EngineError> {
        let mut sizes: BTreeMap<&str, u64> = BTreeMap::new();
        for ((spec, dims), shape) in self.inputs.iter().zip(&self.dims).zip(shapes) {
            let mut expected = spec.shape.clone();
            let mut agrees = true;
            for ((dim, size), expected) in dims.iter().zip(shape).zip(&mut expected) {
                let Dim::Free(name) = dim else { continue };
                if *sizes.entry(name).or_insert(*size) != *size {
                    *expected = sizes.get(name.as_str()).copied();
                    agrees = false;
                }
            }
            if !agrees {
                return Err(EngineError::TensorShape { name: spec.name.clone(), expected, got: shape.clone() });
            }
        }
        Ok(())
    }

    fn extra(&self) -> MutexGuard<'_, Vec<(InputShapes, Arc<Variant>)>> {
        self.extra.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan")
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .field("node_count", &self.node_count())
            .field("weight_bytes", &self.weight_bytes)
            .finish_non_exhaustive()
    }
}
