//! What each node of an inference took.

/// A node of an inference: what it is and what it took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeProfile {
    /// The file's name of the node, or of the first of those joined in it.
    pub node: String,
    /// In ONNX's terms; an operator of tract's has the prefix `tract `.
    pub operator: String,
    /// Shapes of the inputs that are not weights.
    pub input_shapes: Vec<Vec<usize>>,
    pub output_shape: Vec<usize>,
    /// Products that are summed.
    pub multiply_accumulates: u64,
    /// What was expected before it ran.
    pub estimated_instructions: u64,
    /// By the meter of the calls that ran it; 0 before.
    pub instructions: u64,
}
