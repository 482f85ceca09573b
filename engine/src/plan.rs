//! A model ready to run.

use crate::ElementType;

/// Name, type and shape of a model's input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    pub name: String,
    pub element_type: ElementType,
    /// `None` for a dimension that is free.
    pub shape: Vec<Option<u64>>,
}

/// A model ready to run, shared by its sessions.
pub struct Plan {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
}

impl Plan {
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    pub fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    /// Nodes that a session which computes every output runs.
    pub fn node_count(&self) -> usize {
        todo!()
    }

    /// Bytes of the weights as stored in the files.
    pub fn weight_bytes(&self) -> u64 {
        todo!()
    }

    /// Upper bound of the most expensive node's instructions with free dimensions taken as 1.
    pub fn largest_node_estimate_instructions(&self) -> u64 {
        todo!()
    }
}
