//! What an inference spends its instructions on.

use crate::{ClassifyRequest, Cost, InferRequest, ModelRef};
use candid::CandidType;
use serde::{Deserialize, Serialize};

/// The inference to profile. It runs as it would be answered, in as many messages as it takes.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum ProfileRequest {
    #[serde(rename = "classify")]
    Classify(ClassifyRequest),
    #[serde(rename = "infer")]
    Infer(InferRequest),
}

/// A node of a graph, or several that run as one.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct NodeProfile {
    /// The file's name of the node, or of the first of those joined in it; at most 200 bytes of it.
    pub node: String,
    /// In ONNX's terms; an operator of tract's has the prefix `tract `.
    pub operator: String,
    /// Shapes of the inputs that are not weights.
    pub input_shapes: Vec<Vec<u64>>,
    pub output_shape: Vec<u64>,
    /// Products that are summed.
    pub multiply_accumulates: u64,
    /// What was expected before it ran.
    pub estimated_instructions: u64,
    /// What it took, page charges included.
    pub instructions: u64,
}

/// All nodes of one operator.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct OperatorProfile {
    pub operator: String,
    pub nodes: u32,
    pub multiply_accumulates: u64,
    pub estimated_instructions: u64,
    pub instructions: u64,
}

#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Profile {
    pub model: ModelRef,
    /// The dearest operator first; nothing where the graph runs whole on tract.
    pub operators: Vec<OperatorProfile>,
    /// In the order they ran: all, or the dearest 4,096.
    pub nodes: Vec<NodeProfile>,
    pub cost: Cost,
}
