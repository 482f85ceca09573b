//! Operators on quantised values (`QLinearConv`, `QLinearMatMul`, and of the domain com.microsoft `QLinearAdd`, `QGemm` and
//! their like) rewritten to what they mean: `DequantizeLinear`, the plain operator, `QuantizeLinear`. Joining these to
//! operators on integers is done later, for such files as for those that have them from the start.

use tract_onnx::pb::{AttributeProto, ModelProto, NodeProto, attribute_proto::AttributeType};

/// The operators that are rewritten here and that tract does not know.
pub(crate) const REWRITTEN: [&str; 9] = [
    "QGemm",
    "QLinearAdd",
    "QLinearAveragePool",
    "QLinearConcat",
    "QLinearGlobalAveragePool",
    "QLinearLeakyRelu",
    "QLinearMul",
    "QLinearSigmoid",
    "QLinearSoftmax",
];

/// Rewrites the nodes of the graph, but not of graphs nested in it.
pub(super) fn rewrite(model: &mut ModelProto) {
    let Some(graph) = &mut model.graph else { return };
    let is_rewritten = |node: &NodeProto| {
        matches!(&*node.op_type, "QLinearConv" | "QLinearMatMul") || REWRITTEN.contains(&&*node.op_type)
    };
    if !graph.node.iter().any(is_rewritten) {
        return;
    }
    let nodes = std::mem::take(&mut graph.node);
    for node in nodes {
        let parts = if is_rewritten(&node) { Parts::of(&node) } else { None };
        match parts {
            Some(parts) => graph.node.extend(parts.nodes),
            None => graph.node.push(node),
        }
    }
}

/// The nodes that take a node's place.
struct Parts<'a> {
    node: &'a NodeProto,
    nodes: Vec<NodeProto>,
}

fn integer(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::Int as i32, i, ..AttributeProto::default() }
}

impl<'a> Parts<'a> {
    fn of(node: &'a NodeProto) -> Option<Parts<'a>> {
        let mut parts = Parts { node, nodes: Vec::new() };
        let attribute = |name: &str| node.attribute.iter().find(|attribute| attribute.name == name);
        let number = |name: &str| attribute(name).map_or(0, |attribute| attribute.i);
        match &*node.op_type {
            "QLinearConv" => {
                let (x, weights) = (parts.dequantized(0, 1)?, parts.dequantized(3, 0)?);
                let bias = parts.bias(8, 1, 4);
                let inputs = [Some(x), Some(weights), bias].into_iter().flatten().collect();
                let output = parts.plain("Conv", inputs, node.attribute.clone());
                parts.quantize(output, 6)?;
            }
            "QLinearMatMul" => {
                let inputs = vec![parts.dequantized(0, -2)?, parts.dequantized(3, -1)?];
                let output = parts.plain("MatMul", inputs, vec![]);
                parts.quantize(output, 6)?;
            }
            "QGemm" => {
                let of_outputs = if number("transB") != 0 { 0 } else { 1 };
                let (a, b) = (parts.dequantized(0, 1)?, parts.dequantized(3, of_outputs)?);
                // The sums are multiplied before the bias is added; a bias has the scale of their product.
                let alpha = attribute("alpha").map_or(1.0, |alpha| alpha.f);
                let bias = if alpha == 1.0 { parts.bias(6, 1, 4) } else { None };
                if parts.input(6).is_some() && bias.is_none() {
                    return None;
                }
                let inputs = [Some(a), Some(b), bias].into_iter().flatten().collect();
                let output = parts.plain("Gemm", inputs, node.attribute.clone());
                if parts.input(7).is_some() {
                    parts.quantize(output, 7)?;
                } else if let Some(last) = parts.nodes.last_mut() {
                    last.output = node.output.clone();
                }
            }
            "QLinearAdd" | "QLinearMul" => {
                let inputs = vec![parts.dequantized(0, 1)?, parts.dequantized(3, 1)?];
                let output = parts.plain(&node.op_type["QLinear".len()..], inputs, vec![]);
                parts.quantize(output, 6)?;
            }
            "QLinearConcat" => {
                let count = node.input.len().checked_sub(2)? / 3;
                let inputs = (0..count).map(|index| parts.dequantized(2 + 3 * index, 1)).collect::<Option<_>>()?;
                let output = parts.plain("Concat", inputs, node.attribute.clone());
                parts.quantize(output, 0)?;
            }
            "QLinearGlobalAveragePool" | "QLinearAveragePool" if number("channels_last") != 0 => return None,
            // Before version 13 axes from the given one on were one.
            "QLinearSoftmax" if number("opset") < 13 => return None,
            "QLinearGlobalAveragePool"
            | "QLinearAveragePool"
            | "QLinearLeakyRelu"
            | "QLinearSigmoid"
            | "QLinearSoftmax" => {
                let of_quantised = |attribute: &AttributeProto| matches!(&*attribute.name, "channels_last" | "opset");
                let mut attributes = node.attribute.clone();
                attributes.retain(|attribute| !of_quantised(attribute));
                let inputs = vec![parts.dequantized(0, 1)?];
                let output = parts.plain(&node.op_type["QLinear".len()..], inputs, attributes);
                parts.quantize(output, 3)?;
            }
            _ => return None,
        }
        Some(parts)
    }

    fn input(&self, index: usize) -> Option<String> {
        self.node.input.get(index).filter(|name| !name.is_empty()).cloned()
    }

    fn push(&mut self, op_type: &str, inputs: Vec<String>, attribute: Vec<AttributeProto>) -> String {
        let name = format!("{} part {}", self.node.name, self.nodes.len());
        self.nodes.push(NodeProto {
            name: name.clone(),
            op_type: op_type.into(),
            input: inputs,
            output: vec![name.clone()],
            attribute,
            ..NodeProto::default()
        });
        name
    }

    /// Input `index` dequantised with the scale and zero point that follow it.
    fn dequantized(&mut self, index: usize, axis: i64) -> Option<String> {
        let inputs = vec![self.input(index)?, self.input(index + 1)?];
        let inputs = inputs.into_iter().chain(self.input(index + 2)).collect();
        Some(self.push("DequantizeLinear", inputs, vec![integer("axis", axis)]))
    }

    /// A bias in units of the product of two scales.
    fn bias(&mut self, index: usize, scale: usize, other_scale: usize) -> Option<String> {
        let (bias, scales) = (self.input(index)?, vec![self.input(scale)?, self.input(other_scale)?]);
        let scale = self.push("Mul", scales, vec![]);
        Some(self.push("DequantizeLinear", vec![bias, scale], vec![integer("axis", 0)]))
    }

    /// The operator itself, under the node's name.
    fn plain(&mut self, op_type: &str, inputs: Vec<String>, attributes: Vec<AttributeProto>) -> String {
        let output = self.push(op_type, inputs, attributes);
        if let Some(node) = self.nodes.last_mut() {
            node.name.clone_from(&self.node.name);
        }
        output
    }

    /// The node's output: `value` quantised with scale and zero point from input `index` on.
    fn quantize(&mut self, value: String, index: usize) -> Option<()> {
        let inputs = vec![value, self.input(index)?].into_iter().chain(self.input(index + 1)).collect();
        self.push("QuantizeLinear", inputs, vec![]);
        self.nodes.last_mut()?.output.clone_from(&self.node.output);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tract_onnx::pb::GraphProto;

    fn rewritten(op_type: &str, inputs: &[&str]) -> Vec<NodeProto> {
        let node = NodeProto {
            name: "#0 q".into(),
            op_type: op_type.into(),
            input: inputs.iter().map(|name| name.to_string()).collect(),
            output: vec!["y".into()],
            ..NodeProto::default()
        };
        let graph = GraphProto { node: vec![node], ..GraphProto::default() };
        let mut model = ModelProto { graph: Some(graph), ..ModelProto::default() };
        rewrite(&mut model);
        model.graph.unwrap().node
    }

    #[test]
    fn a_convolution_is_taken_apart_with_its_bias() {
        let nodes = rewritten("QLinearConv", &["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"]);
        let kinds: Vec<&str> = nodes.iter().map(|node| &*node.op_type).collect();
        let expected = ["DequantizeLinear", "DequantizeLinear", "Mul", "DequantizeLinear", "Conv", "QuantizeLinear"];
        assert_eq!(kinds, expected);
        assert_eq!(nodes[2].input, ["xs", "ws"]);
        assert_eq!(nodes[3].input, ["b", &nodes[2].output[0]]);
        assert_eq!(nodes[4].input, [&*nodes[0].output[0], &nodes[1].output[0], &nodes[3].output[0]]);
        assert_eq!(nodes[4].name, "#0 q");
        assert_eq!(nodes[5].input, [&*nodes[4].output[0], "ys", "yz"]);
        assert_eq!(nodes[5].output, ["y"]);
    }

    #[test]
    fn what_lacks_an_input_stays_as_it_is() {
        let nodes = rewritten("QLinearAdd", &["a", "as", "", "b"]);
        assert_eq!((nodes.len(), &*nodes[0].op_type), (1, "QLinearAdd"));
    }

    #[test]
    fn a_product_without_output_scale_gives_floats() {
        let nodes = rewritten("QGemm", &["a", "as", "az", "b", "bs", "bz"]);
        let kinds: Vec<&str> = nodes.iter().map(|node| &*node.op_type).collect();
        assert_eq!(kinds, ["DequantizeLinear", "DequantizeLinear", "Gemm"]);
        assert_eq!(nodes[2].output, ["y"]);
    }
}
