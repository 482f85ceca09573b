//! `profile`: what an inference spent its instructions on, by node and by operator.

use crate::limits::{PROFILE_NAME_BYTES_MAX, PROFILE_NODES_MAX, PROFILE_SHAPES_MAX};
use crate::store::ModelKey;
use onnx_canister_interface::{Cost, NodeProfile, OperatorProfile, Profile};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What a session's nodes took, in the order they ran.
pub fn profile(key: &ModelKey, nodes: Vec<onnx_engine::NodeProfile>) -> Profile {
    let operators = by_operator(&nodes);
    let nodes = dearest(nodes).into_iter().map(node).collect();
    Profile { model: key.to_ref(), operators, nodes, cost: Cost::default() }
}

/// Sums by operator, the dearest first.
fn by_operator(nodes: &[onnx_engine::NodeProfile]) -> Vec<OperatorProfile> {
    let mut sums: BTreeMap<&str, OperatorProfile> = BTreeMap::new();
    for node in nodes {
        let sum = sums.entry(&node.operator).or_insert_with(|| OperatorProfile {
            operator: node.operator.clone(),
            nodes: 0,
            multiply_accumulates: 0,
            estimated_instructions: 0,
            instructions: 0,
        });
        sum.nodes += 1;
        sum.multiply_accumulates = sum.multiply_accumulates.saturating_add(node.multiply_accumulates);
        sum.estimated_instructions = sum.estimated_instructions.saturating_add(node.estimated_instructions);
        sum.instructions = sum.instructions.saturating_add(node.instructions);
    }
    let mut operators: Vec<OperatorProfile> = sums.into_values().collect();
    operators.sort_by_key(|operator| Reverse(operator.instructions));
    operators
}

/// As many nodes as a reply has room for, in the order they ran.
fn dearest(nodes: Vec<onnx_engine::NodeProfile>) -> Vec<onnx_engine::NodeProfile> {
    let mut by_price: Vec<usize> = (0..nodes.len()).collect();
    by_price.sort_by_key(|index| Reverse(nodes[*index].instructions));
    let mut is_kept = vec![false; nodes.len()];
    by_price.into_iter().take(PROFILE_NODES_MAX).for_each(|index| is_kept[index] = true);
    nodes.into_iter().zip(is_kept).filter(|(_, is_kept)| *is_kept).map(|(node, _)| node).collect()
}

fn node(node: onnx_engine::NodeProfile) -> NodeProfile {
    let shape = |shape: Vec<usize>| shape.into_iter().map(|size| size as u64).collect();
    NodeProfile {
        node: shortened(node.node),
        operator: node.operator,
        input_shapes: node.input_shapes.into_iter().take(PROFILE_SHAPES_MAX).map(shape).collect(),
        output_shape: shape(node.output_shape),
        multiply_accumulates: node.multiply_accumulates,
        estimated_instructions: node.estimated_instructions,
        instructions: node.instructions,
    }
}

/// A file's names are of any length.
fn shortened(mut name: String) -> String {
    name.truncate(name.floor_char_boundary(PROFILE_NAME_BYTES_MAX));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(name: &str, operator: &str, instructions: u64) -> onnx_engine::NodeProfile {
        onnx_engine::NodeProfile {
            node: name.to_string(),
            operator: operator.to_string(),
            input_shapes: vec![vec![2, 3]; 20],
            output_shape: vec![6],
            multiply_accumulates: 10,
            estimated_instructions: instructions + 1,
            instructions,
        }
    }

    #[test]
    fn operators_are_summed_and_the_dearest_is_first() {
        let key = ModelKey { name: "m".to_string(), version: 3 };
        let profile = profile(&key, vec![took("a", "Relu", 1), took("b", "MatMul", 5), took("c", "Relu", 2)]);
        let sums = profile.operators.iter().map(|o| (&*o.operator, o.nodes, o.multiply_accumulates, o.instructions));
        assert_eq!(sums.collect::<Vec<_>>(), [("MatMul", 1, 10, 5), ("Relu", 2, 20, 3)]);
        assert_eq!(profile.operators[1].estimated_instructions, 5);
        let names: Vec<&str> = profile.nodes.iter().map(|node| &*node.node).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(profile.nodes[0].input_shapes, vec![vec![2, 3]; PROFILE_SHAPES_MAX]);
        assert_eq!((profile.model.version, &profile.nodes[0].output_shape), (Some(3), &vec![6]));
    }

    #[test]
    fn the_cheapest_nodes_are_left_out_first() {
        let count = PROFILE_NODES_MAX as u64 + 2;
        let nodes: Vec<_> = (0..count).map(|index| took(&index.to_string(), "Relu", count - index)).collect();
        let profile = profile(&ModelKey { name: "m".to_string(), version: 1 }, nodes);
        assert_eq!(profile.nodes.len(), PROFILE_NODES_MAX);
        assert_eq!(profile.nodes[PROFILE_NODES_MAX - 1].node, (PROFILE_NODES_MAX - 1).to_string());
        assert_eq!(u64::from(profile.operators[0].nodes), count);
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let name = format!("{}\u{e9}", "x".repeat(PROFILE_NAME_BYTES_MAX - 1));
        assert_eq!(shortened(name), "x".repeat(PROFILE_NAME_BYTES_MAX - 1));
        assert_eq!(shortened("short".to_string()), "short");
    }
}
