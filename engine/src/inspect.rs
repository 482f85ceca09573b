//! What a model file holds, without loading it.

use crate::{EngineError, ModelFiles, TensorSpec};
use std::collections::BTreeMap;

/// What a model file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
    /// Version of the default operator set.
    pub opset: i64,
    /// Nodes of each operator, of nested graphs too. Operators of another domain than ONNX's are `domain.Operator`.
    pub operators: BTreeMap<String, u64>,
    /// Nodes whose operator the engine does not have.
    pub unsupported: Vec<UnsupportedOperator>,
    /// Bytes of all weights, in the file and in external-data files.
    pub weight_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsupportedOperator {
    pub node: String,
    pub operator: String,
}

/// Reads the file's structure, not its weights.
pub fn inspect(files: &dyn ModelFiles) -> Result<Inspection, EngineError> {
    let _ = files;
    todo!()
}
