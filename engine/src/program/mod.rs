//! What a plan runs: a list of steps over tensors, with one operator each.
//!
//! [`build`] makes it from a graph, reading and packing the weights of one step after the other. [`memory`] settles, for
//! inputs of given shapes, the sizes of all values and where in one block of memory each lives. [`run`] does the steps.

pub(crate) mod build;
pub(crate) mod decode;
pub(crate) mod memory;
pub(crate) mod run;
mod stream;

use crate::graph::dims::{Dim, DimTable};
use crate::ops::Operator;
use std::sync::Arc;
use tract_onnx::prelude::{DatumType, Tensor};
use tract_onnx::tract_core::internal::TypedModel;

/// Index of a value in [`Program::values`].
pub(crate) type SlotId = usize;

/// Where a value's bytes are while a session runs.
#[derive(Clone, Debug)]
pub(crate) enum Home {
    /// In the request's tensor.
    Input(usize),
    /// In the plan.
    Constant(Arc<Tensor>),
    /// Where that value's are: the elements are the same.
    Same(SlotId),
    /// In the session's block of memory.
    Memory,
    /// In a tensor that an operator of tract's made.
    Tract,
}

/// A value of the program.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub datum_type: DatumType,
    pub dims: Vec<Dim>,
    pub home: Home,
}

/// What a step does.
pub(crate) enum Work {
    Native(Box<dyn Operator>),
    /// tract's operator of that node of the typed model.
    Tract(usize),
}

pub(crate) struct Step {
    pub name: String,
    pub work: Work,
    pub inputs: Vec<SlotId>,
    pub outputs: Vec<SlotId>,
    /// Sizes that the operator needs beside those of its values.
    pub parameters: Vec<Dim>,
}

/// A graph made ready to run.
pub(crate) struct Program {
    pub dims: DimTable,
    pub values: Vec<Slot>,
    pub steps: Vec<Step>,
    pub outputs: Vec<SlotId>,
    /// The typed model: for the symbols of the inputs' shapes and for tract's operators.
    pub model: Arc<TypedModel>,
}

impl Program {
    /// The value whose bytes `slot` has.
    pub fn root(&self, mut slot: SlotId) -> SlotId {
        // Each refers to one before it.
        while let Home::Same(other) = self.values[slot].home {
            slot = other;
        }
        slot
    }

    /// Whether every step is one of ours, so that it gives the same bits on every target.
    pub fn is_native(&self) -> bool {
        self.steps.iter().all(|step| matches!(step.work, Work::Native(_)))
    }

    /// Instructions of the most expensive part of any step that is done without a pause.
    pub fn largest_part_instructions(&self, layout: &memory::Layout) -> u64 {
        let steps = self.steps.iter().zip(&layout.steps);
        let largest = steps.map(|(step, sizes)| match &step.work {
            Work::Native(_) if sizes.instructions < run::DIVISIBLE_INSTRUCTIONS => sizes.instructions,
            Work::Native(operator) => operator.instructions(&sizes.shapes, 0..1),
            Work::Tract(node) => crate::cost::node_instructions(&self.model, self.model.node(*node), &layout.symbols),
        });
        largest.max().unwrap_or(0)
    }

    /// Bytes that the packed weights take.
    pub fn weight_bytes(&self) -> u64 {
        let packed = |step: &Step| match &step.work {
            Work::Native(operator) => operator.weight_bytes() as u64,
            Work::Tract(_) => 0,
        };
        let constant = |slot: &Slot| match &slot.home {
            Home::Constant(tensor) => tensor.as_bytes().len() as u64,
            _ => 0,
        };
        self.steps.iter().map(packed).sum::<u64>() + self.values.iter().map(constant).sum::<u64>()
    }
}

impl Step {
    /// The operator, in ONNX's terms where it is ours.
    pub fn operator(&self, model: &TypedModel) -> String {
        match &self.work {
            Work::Native(operator) => operator.name().to_string(),
            Work::Tract(node) => format!("tract {}", model.node(*node).op.name()),
        }
    }
}
