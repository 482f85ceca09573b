//! Sizes that a graph computes in int32, computed in int64 instead.
//!
//! tract keeps sizes as expressions of symbols only while they are int64; TensorFlow's exports compute them in int32.
//! Values are the same: a size beyond int32 is no tensor's.

use std::collections::{BTreeMap, BTreeSet};
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

/// `TensorProto.DataType` of int32 and int64.
const INT32: i32 = 6;
const INT64: i32 = 7;

/// Changes the graph so that what is computed from shapes alone is int64. Leaves it as it is when an int32 so computed is
/// used for anything but further sizes and shapes.
pub(super) fn widen(graph: &mut GraphProto) {
    let constants: BTreeMap<&str, i32> =
        graph.initializer.iter().map(|tensor| (&*tensor.name, tensor.data_type)).collect();
    let is_integer = |name: &str| matches!(constants.get(name), Some(&INT32 | &INT64));
    let mut sizes: BTreeSet<String> = BTreeSet::new();
    let mut nodes = BTreeSet::new();
    for (index, node) in graph.node.iter().enumerate() {
        let of_sizes = |input: &String| sizes.contains(input);
        let is_size = match &*node.op_type {
            "Shape" | "Size" => true,
            "Cast" => node.input.iter().all(of_sizes) && matches!(target(node), Some(INT32 | INT64)),
            "Slice" | "Gather" | "Squeeze" | "Unsqueeze" | "Identity" => node.input.first().is_some_and(of_sizes),
            "Concat" | "Add" | "Sub" | "Mul" | "Div" | "Min" | "Max" => {
                node.input.iter().any(of_sizes) && node.input.iter().all(|input| of_sizes(input) || is_integer(input))
            }
            _ => false,
        };
        if is_size {
            sizes.extend(node.output.iter().cloned());
            nodes.insert(index);
        }
    }
    let narrows = |index: &usize| graph.node[*index].op_type == "Cast" && target(&graph.node[*index]) == Some(INT32);
    if !nodes.iter().any(narrows) || graph.output.iter().any(|output| sizes.contains(&output.name)) {
        return;
    }
    let takes_sizes = |node: &NodeProto, input: usize| match &*node.op_type {
        "Cast" | "ConstantOfShape" => true,
        "Reshape" | "Expand" | "Tile" => input == 1,
        "Slice" => input > 0,
        _ => false,
    };
    for (index, node) in graph.node.iter().enumerate() {
        let misused = |(input, name): (usize, &String)| sizes.contains(name) && !takes_sizes(node, input);
        let is_nested = node.attribute.iter().any(|attribute| attribute.g.is_some() || !attribute.graphs.is_empty());
        if !nodes.contains(&index) && (node.input.iter().enumerate().any(misused) || is_nested) {
            return;
        }
    }
    let mut widened = BTreeMap::new();
    for index in nodes {
        let node = &mut graph.node[index];
        match &*node.op_type {
            "Cast" => {
                let to = node.attribute.iter_mut().filter(|attribute| attribute.name == "to");
                to.for_each(|attribute| attribute.i = INT64.into());
            }
            "Concat" | "Add" | "Sub" | "Mul" | "Div" | "Min" | "Max" => {
                for input in &mut node.input {
                    if let Some(tensor) = graph.initializer.iter().find(|tensor| tensor.name == *input)
                        && tensor.data_type == INT32
                    {
                        let name = format!("{input} as int64");
                        widened.entry(name.clone()).or_insert_with(|| as_int64(tensor, &name));
                        *input = name;
                    }
                }
            }
            _ => {}
        }
    }
    graph.initializer.extend(widened.into_values());
}

/// Ends of slices from here on mean the end of the axis: no tensor has an axis of such a length.
const END: i64 = 1_000_000_000;

/// Makes ends of slices that are beyond any axis the largest int64, which is what tract takes for the end of an axis whose
/// length is a symbol.
pub(super) fn open_slices(graph: &mut GraphProto) {
    let mut opened: BTreeMap<String, TensorProto> = BTreeMap::new();
    for node in graph.node.iter_mut().filter(|node| node.op_type == "Slice") {
        let constant = |name: &String| graph.initializer.iter().find(|tensor| tensor.name == *name);
        let Some(ends) = node.input.get(2).and_then(constant) else { continue };
        // Starts, ends, axes and steps are of one type.
        if !matches!(ends.data_type, INT32 | INT64) || !int64s(ends).iter().any(|end| *end >= END) {
            continue;
        }
        if ends.data_type == INT32 {
            let others: Vec<_> = node.input[1..].iter().filter(|name| !name.is_empty()).map(constant).collect();
            if others.iter().any(Option::is_none) {
                continue;
            }
        }
        for (index, input) in node.input.iter_mut().enumerate().skip(1) {
            let Some(tensor) = constant(input) else { continue };
            let open = |value: i64| if index == 2 && value >= END { i64::MAX } else { value };
            let name = format!("{input} as {} of a slice", ["", "start", "end", "axes", "steps"][index.min(4)]);
            let values = int64s(tensor).into_iter().map(open);
            let raw_data = values.flat_map(|value| value.to_le_bytes()).collect();
            let copy = TensorProto { name: name.clone(), data_type: INT64, raw_data, ..tensor.clone() };
            opened.insert(name.clone(), copy);
            *input = name;
        }
    }
    graph.initializer.extend(opened.into_values());
}

/// The values of an int32 or int64 tensor, which are in `raw_data`.
fn int64s(tensor: &TensorProto) -> Vec<i64> {
    let bytes = &tensor.raw_data;
    match tensor.data_type {
        INT32 => bytes.as_chunks().0.iter().map(|bytes| i64::from(i32::from_le_bytes(*bytes))).collect(),
        _ => bytes.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect(),
    }
}

/// What a `Cast` casts to.
fn target(node: &NodeProto) -> Option<i32> {
    node.attribute.iter().find(|attribute| attribute.name == "to").and_then(|to| i32::try_from(to.i).ok())
}

/// An int32 tensor, its values in `raw_data`, as int64.
fn as_int64(tensor: &TensorProto, name: &str) -> TensorProto {
    let raw_data = int64s(tensor).into_iter().flat_map(|value| value.to_le_bytes()).collect();
    let (name, dims) = (name.to_string(), tensor.dims.clone());
    TensorProto { name, dims, data_type: INT64, raw_data, ..TensorProto::default() }
}
