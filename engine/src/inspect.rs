//! What a model file holds, without loading it.

use crate::graph::qlinear::REWRITTEN;
use crate::graph::transformer;
use crate::onnx::{Graph, Sizes, Walk, domain_is_known, operator_name};
use crate::{EngineError, ModelFiles, TensorSpec};
use std::collections::BTreeMap;

/// What a model file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    pub inputs: Vec<TensorSpec>,
    /// As the file declares them; an output without a declared shape has an empty one.
    pub outputs: Vec<TensorSpec>,
    /// Version of the default operator set; 0 when the file gives none.
    pub opset: i64,
    /// Nodes of each operator, of nested graphs too. Operators of another domain than ONNX's are `domain.Operator`.
    /// `Constant` nodes that hold a large tensor count as weights.
    pub operators: BTreeMap<String, u64>,
    /// Nodes that the engine can't run.
    pub unsupported: Vec<UnsupportedOperator>,
    /// Bytes in memory of all weights, in the file and in external-data files, but for those of a few KiB.
    pub weight_bytes: u64,
}

/// A node that the engine can't run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsupportedOperator {
    pub node: String,
    pub operator: String,
    pub reason: String,
}

/// Operators that draw random numbers.
const RANDOM_OPERATORS: [&str; 6] =
    ["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"];

/// Reads the file's structure, not its weights.
pub fn inspect(files: &dyn ModelFiles) -> Result<Inspection, EngineError> {
    let mut walk = Walk::default();
    while !walk.step(files)? {}
    let weight_bytes = walk.stored_bytes();
    let graph = Graph::new(walk, files)?;
    let mut operators = BTreeMap::new();
    graph.visit_nodes(|node| *operators.entry(operator_name(node)).or_insert(0) += 1);
    Ok(Inspection {
        inputs: graph.specs(&Sizes::Any),
        outputs: graph.declared_outputs(),
        opset: graph.opset(),
        operators,
        unsupported: unsupported_operators(&graph),
        weight_bytes,
    })
}

/// The nodes that can't be run, in the file's order.
pub(crate) fn unsupported_operators(graph: &Graph) -> Vec<UnsupportedOperator> {
    let known = tract_onnx::onnx().op_register.0;
    let is_known = |name: &str| known.contains_key(name) || REWRITTEN.contains(&name) || transformer::knows(name);
    let mut unsupported = Vec::new();
    graph.visit_nodes(|node| {
        let seeded = node.attribute.iter().any(|attribute| attribute.name == "seed");
        let is_run = domain_is_known(node) && is_known(&node.op_type);
        let reason = if !is_run && !crate::reference::knows(&node.domain, &node.op_type) {
            "the operator is not supported".into()
        } else if let Some(reason) = transformer::unsupported(node) {
            reason
        } else if RANDOM_OPERATORS.contains(&node.op_type.as_str()) && !seeded {
            "it draws random numbers without a seed".into()
        } else {
            return;
        };
        let (node, operator) = (node.name.clone(), operator_name(node));
        unsupported.push(UnsupportedOperator { node, operator, reason });
    });
    unsupported
}
