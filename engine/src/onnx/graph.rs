//! The decoded graph: checked, its names made unique, its weights named.

use super::entry::StoredTensor;
use super::tensor::normalise;
use super::walk::{ONNX_FILE, Walk};
use super::{GRAPH_BYTES_MAX, RANK_MAX, external, sizes};
use crate::{ByteSource, ElementType, EngineError, ModelFiles, READ_BYTES_MAX, TENSOR_BYTES_MAX, TensorSpec};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    GraphProto, ModelProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, tensor_proto,
    type_proto,
};

/// A dimension of an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Dim {
    Fixed(u64),
    /// Free: a symbol, or an expression of symbols.
    Free(String),
}

/// An input that a request has to give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GraphInput {
    pub name: String,
    pub element_type: ElementType,
    pub dims: Vec<Dim>,
}

/// Sizes of the inputs' free dimensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sizes {
    /// They stay free.
    Any,
    /// All are 1.
    One,
    /// Those of inputs of these shapes.
    Of(Vec<Vec<u64>>),
}

impl Sizes {
    /// Size of a dimension; `None` when it stays free.
    fn of(&self, input: usize, axis: usize, dim: &Dim) -> Option<u64> {
        match (dim, self) {
            (Dim::Fixed(size), _) => Some(*size),
            (Dim::Free(_), Sizes::Any) => None,
            (Dim::Free(_), Sizes::One) => Some(1),
            (Dim::Free(_), Sizes::Of(shapes)) => shapes.get(input).and_then(|shape| shape.get(axis)).copied(),
        }
    }
}

/// A checked graph. Its weights are not in it; in their place are inputs of their names, after the real inputs.
pub(crate) struct Graph {
    pub proto: ModelProto,
    pub inputs: Vec<GraphInput>,
    pub outputs: Vec<String>,
    pub tensors: Vec<StoredTensor>,
}

/// Operator set domains whose operators may be known by their plain names.
const KNOWN_DOMAINS: [&str; 4] = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"];

impl Graph {
    /// Decodes what a finished walk kept.
    pub fn new(walk: Walk, files: &dyn ModelFiles) -> Result<Graph, EngineError> {
        let undecodable = |error: prost::DecodeError| EngineError::invalid(ONNX_FILE, error.to_string());
        let mut proto = ModelProto::decode(walk.model.as_slice()).map_err(undecodable)?;
        let mut graph = GraphProto::decode(walk.graph.as_slice()).map_err(undecodable)?;
        let tensors = walk.tensors;

        let mut inline = Inline { files, bytes: 0 };
        inline.graph(&mut graph)?;
        // The walk has turned large Constant nodes into weights whose node is gone, so names are checked after it.
        check_names(&graph, &tensors)?;
        check_opset(&proto)?;
        check_sizes(&graph)?;
        sizes::widen(&mut graph);
        sizes::open_slices(&mut graph);

        let initialized: BTreeSet<&str> =
            graph.initializer.iter().map(|tensor| &*tensor.name).chain(tensors.iter().map(|t| &*t.name)).collect();
        let mut input_protos = std::mem::take(&mut graph.input);
        input_protos.retain(|input| !initialized.contains(&*input.name));
        let inputs = read_inputs(&input_protos)?;

        graph.input = inputs.iter().enumerate().map(|(index, input)| input_proto(index, input, &Sizes::Any)).collect();
        graph.input.extend(tensors.iter().map(weight_proto));
        let outputs = graph.output.iter().map(|output| output.name.clone()).collect::<Vec<_>>();
        if outputs.is_empty() {
            return Err(EngineError::invalid(ONNX_FILE, "the graph has no outputs"));
        }
        let mut number = 0;
        name_nodes(&mut graph, &mut number);
        proto.graph = Some(graph);
        Ok(Graph { proto, inputs, outputs, tensors })
    }

    /// Whether any input has a free dimension.
    pub fn has_free_dims(&self) -> bool {
        self.inputs.iter().any(|input| input.dims.iter().any(|dim| matches!(dim, Dim::Free(_))))
    }

    /// The inputs as callers see them, their free dimensions as `sizes` says.
    pub fn specs(&self, sizes: &Sizes) -> Vec<TensorSpec> {
        let inputs = self.inputs.iter().enumerate();
        let spec = |(index, input): (usize, &GraphInput)| {
            let dims = input.dims.iter().enumerate();
            let shape = dims.map(|(axis, dim)| sizes.of(index, axis, dim)).collect();
            TensorSpec { name: input.name.clone(), element_type: input.element_type, shape }
        };
        inputs.map(spec).collect()
    }

    /// Declares the inputs with their free dimensions as `sizes` says.
    pub fn set_sizes(&mut self, sizes: &Sizes) {
        if let Some(graph) = &mut self.proto.graph {
            for ((index, input), proto) in self.inputs.iter().enumerate().zip(&mut graph.input) {
                *proto = input_proto(index, input, sizes);
            }
        }
    }

    /// The outputs as the file declares them.
    pub fn declared_outputs(&self) -> Vec<TensorSpec> {
        let outputs = self.proto.graph.iter().flat_map(|graph| &graph.output);
        let spec = |output: &ValueInfoProto| {
            let value = output.r#type.as_ref().and_then(|t| t.value.as_ref());
            let tensor = value.map(|type_proto::Value::TensorType(tensor)| tensor);
            let element_type = tensor.and_then(|tensor| ElementType::from_onnx(tensor.elem_type));
            let dims = tensor.and_then(|tensor| tensor.shape.as_ref()).map_or(&[][..], |shape| &shape.dim);
            let shape = dims.iter().map(|dim| match &dim.value {
                Some(dimension::Value::DimValue(size)) => u64::try_from(*size).ok(),
                _ => None,
            });
            let element_type = element_type.unwrap_or(ElementType::Float32);
            TensorSpec { name: output.name.clone(), element_type, shape: shape.collect() }
        };
        outputs.map(spec).collect()
    }

    /// Default operator set's version; 0 when not given.
    pub fn opset(&self) -> i64 {
        let default = |domain: &str| domain.is_empty() || domain == "ai.onnx";
        self.proto.opset_import.iter().find(|set| default(&set.domain)).map_or(0, |set| set.version)
    }

    /// Calls `visit` with every node, of nested graphs too, in the file's order.
    pub fn visit_nodes(&self, mut visit: impl FnMut(&NodeProto)) {
        if let Some(graph) = &self.proto.graph {
            visit_nodes(graph, &mut visit);
        }
    }
}

fn visit_nodes(graph: &GraphProto, visit: &mut impl FnMut(&NodeProto)) {
    for node in &graph.node {
        visit(node);
        for attribute in &node.attribute {
            attribute.g.iter().chain(&attribute.graphs).for_each(|graph| visit_nodes(graph, visit));
        }
    }
}

/// An operator's name with its domain where that is not ONNX's own.
pub(crate) fn operator_name(node: &NodeProto) -> String {
    if node.domain.is_empty() || node.domain == "ai.onnx" {
        node.op_type.clone()
    } else {
        format!("{}.{}", node.domain, node.op_type)
    }
}

/// Whether the operator's domain is one whose names the operator register knows.
pub(crate) fn domain_is_known(node: &NodeProto) -> bool {
    KNOWN_DOMAINS.contains(&node.domain.as_str())
}

/// Normalises the tensors that stay in the graph.
struct Inline<'a> {
    files: &'a dyn ModelFiles,
    /// External bytes brought into the graph so far.
    bytes: u64,
}

impl Inline<'_> {
    fn graph(&mut self, graph: &mut GraphProto) -> Result<(), EngineError> {
        if let Some(sparse) = graph.sparse_initializer.first() {
            return Err(EngineError::Unsupported {
                node: sparse.values.as_ref().map_or_else(String::new, |values| values.name.clone()),
                operator: "sparse_initializer".into(),
                reason: "sparse tensors are not supported".into(),
            });
        }
        for tensor in &mut graph.initializer {
            let place = format!("tensor {:?}", tensor.name);
            self.tensor(&place, tensor)?;
        }
        for node in &mut graph.node {
            let place = format!("node {:?} ({})", node_label(node), node.op_type);
            for attribute in &mut node.attribute {
                let place = format!("{place}, attribute {:?}", attribute.name);
                for tensor in attribute.t.iter_mut().chain(&mut attribute.tensors) {
                    self.tensor(&place, tensor)?;
                }
                for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                    self.graph(graph)?;
                }
            }
        }
        // Declared shapes between nodes are ignored (they contradict the inputs' in many files) and cost memory.
        graph.value_info = Vec::new();
        Ok(())
    }

    fn tensor(&mut self, place: &str, tensor: &mut TensorProto) -> Result<(), EngineError> {
        if tensor.data_location == Some(tensor_proto::DataLocation::External as i32) {
            // Only tensors of nested graphs and of attributes are still external here.
            let element_type = super::tensor::element_type(place, tensor.data_type)?
                .ok_or_else(|| EngineError::invalid(place, "text can't be external"))?;
            let (_, count) = super::tensor::shape(place, &tensor.dims)?;
            let bytes = super::tensor::byte_count(place, element_type, count)?;
            let entries: Vec<_> =
                tensor.external_data.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect();
            let found = external::locate(place, &entries, bytes, self.files)?;
            self.bytes = self.bytes.saturating_add(bytes);
            if self.bytes > GRAPH_BYTES_MAX {
                let place = format!("{place}: external bytes in nested graphs");
                return Err(EngineError::TooLarge { place, value: self.bytes, limit: GRAPH_BYTES_MAX });
            }
            let Some(source) = self.files.external(&found.location) else {
                return Err(EngineError::invalid(place, "the external-data file is missing"));
            };
            tensor.raw_data = read_pieces(&found.location, source, found.range.offset, bytes as usize)?;
            tensor.data_location = None;
            tensor.external_data = Vec::new();
        }
        normalise(place, tensor)
    }
}

fn read_pieces(file: &str, source: &dyn ByteSource, offset: u64, length: usize) -> Result<Vec<u8>, EngineError> {
    let mut bytes = vec![0; length];
    for (index, piece) in bytes.chunks_mut(READ_BYTES_MAX).enumerate() {
        let at = offset + (index * READ_BYTES_MAX) as u64;
        source.read_at(at, piece).map_err(|error| EngineError::Read { file: file.to_string(), error })?;
    }
    Ok(bytes)
}

/// A node's name, or where it has none its first output's.
fn node_label(node: &NodeProto) -> &str {
    if node.name.is_empty() { node.output.first().map_or("", |output| output) } else { &node.name }
}

/// Gives each node a name that no other node and no weight has, the file's name in it.
///
/// tract names what it derives from a node after it, and refuses the graph when a weight already has that name
/// ("conv" and "conv.bias" in one file).
fn name_nodes(graph: &mut GraphProto, number: &mut usize) {
    for node in &mut graph.node {
        node.name = format!("#{number} {}", node_label(node));
        *number += 1;
        for attribute in &mut node.attribute {
            for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                name_nodes(graph, number);
            }
        }
    }
}

/// Every value has one definition, every value used has one, and outputs are values.
fn check_names(graph: &GraphProto, tensors: &[StoredTensor]) -> Result<(), EngineError> {
    let mut defined = BTreeSet::new();
    let initializers = graph.initializer.iter().map(|tensor| &*tensor.name).chain(tensors.iter().map(|t| &*t.name));
    for name in initializers {
        if name.is_empty() {
            return Err(EngineError::invalid(ONNX_FILE, "an initializer has no name"));
        }
        if !defined.insert(name) {
            return Err(EngineError::invalid(format!("tensor {name:?}"), "there are two initializers of that name"));
        }
    }
    let mut inputs = BTreeSet::new();
    for input in &graph.input {
        if !inputs.insert(&*input.name) {
            return Err(EngineError::invalid(format!("input {:?}", input.name), "there are two inputs of that name"));
        }
    }
    defined.extend(inputs);
    for node in &graph.node {
        for output in node.output.iter().filter(|output| !output.is_empty()) {
            if !defined.insert(output) {
                let reason = format!("node {:?} gives a value that is already defined", node_label(node));
                return Err(EngineError::invalid(format!("value {output:?}"), reason));
            }
        }
    }
    for node in &graph.node {
        let mut used = BTreeSet::new();
        values_used(node, &mut used);
        if let Some(missing) = used.iter().find(|name| !defined.contains(*name)) {
            let place = format!("node {:?} ({})", node_label(node), node.op_type);
            return Err(EngineError::invalid(place, format!("its input {missing:?} is not defined anywhere")));
        }
    }
    for output in &graph.output {
        if !defined.contains(&*output.name) {
            return Err(EngineError::invalid(format!("output {:?}", output.name), "no node computes it"));
        }
    }
    Ok(())
}

/// The file says which version of the operators it means, without which its nodes mean nothing.
fn check_opset(proto: &ModelProto) -> Result<(), EngineError> {
    match proto.opset_import.is_empty() {
        true => Err(EngineError::invalid(ONNX_FILE, "it does not say which operator set it uses (opset_import)")),
        false => Ok(()),
    }
}

/// Operators that make a tensor as large as one of their inputs says, and which input.
const SIZED_BY_INPUT: [(&str, usize); 3] = [("ConstantOfShape", 0), ("Expand", 1), ("Tile", 1)];

/// Operators that an input gives some sizes of their output, or parts of sizes. A size of 2^32 and more would be another on
/// a 32-bit target.
const PARTLY_SIZED_BY_INPUT: [(&str, usize); 5] =
    [("OneHot", 1), ("Pad", 1), ("Reshape", 1), ("Resize", 3), ("Split", 1)];

/// No node makes a tensor of more than [`TENSOR_BYTES_MAX`] because a constant says so: a few bytes of file would take
/// all memory when constants are folded.
fn check_sizes(graph: &GraphProto) -> Result<(), EngineError> {
    let mut constants: BTreeMap<&str, &TensorProto> =
        graph.initializer.iter().map(|tensor| (&*tensor.name, tensor)).collect();
    for node in graph.node.iter().filter(|node| node.op_type == "Constant") {
        let tensor = node.attribute.iter().find_map(|attribute| attribute.t.as_ref());
        if let (Some(output), Some(tensor)) = (node.output.first(), tensor) {
            constants.insert(output, tensor);
        }
    }
    for node in &graph.node {
        let of = |inputs: &[(&str, usize)]| {
            inputs.iter().find(|(operator, _)| *operator == node.op_type).map(|(_, input)| *input)
        };
        let whole = of(&SIZED_BY_INPUT);
        let input = whole.or_else(|| of(&PARTLY_SIZED_BY_INPUT));
        let Some(tensor) = input.and_then(|input| constants.get(node.input.get(input)?.as_str())) else { continue };
        if ElementType::from_onnx(tensor.data_type) != Some(ElementType::Int64) {
            continue;
        }
        let (sizes, _) = tensor.raw_data.as_chunks::<8>();
        let sizes: Vec<i64> = sizes.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect();
        let factors = sizes.iter().map(|size| u64::try_from(*size).unwrap_or(1));
        let largest = factors.clone().max().unwrap_or(1);
        let elements = if whole.is_some() { factors.fold(1_u64, u64::saturating_mul) } else { largest }.max(largest);
        if elements > TENSOR_BYTES_MAX {
            let place = format!("node {:?} ({})", node_label(node), node.op_type);
            let reason = format!("sizes {sizes:?} make a tensor of more than {TENSOR_BYTES_MAX} bytes");
            return Err(EngineError::invalid(place, reason));
        }
    }
    Ok(())
}

/// Values that a node takes from the graph it is in, those of the graphs nested in it included.
pub(crate) fn values_used<'a>(node: &'a NodeProto, used: &mut BTreeSet<&'a str>) {
    used.extend(node.input.iter().filter(|input| !input.is_empty()).map(|input| &**input));
    for attribute in &node.attribute {
        for graph in attribute.g.iter().chain(&attribute.graphs) {
            let mut inner = BTreeSet::new();
            graph.node.iter().for_each(|node| values_used(node, &mut inner));
            inner.extend(graph.output.iter().map(|output| &*output.name));
            let mut own: BTreeSet<&str> = graph.input.iter().map(|input| &*input.name).collect();
            own.extend(graph.initializer.iter().map(|tensor| &*tensor.name));
            own.extend(graph.node.iter().flat_map(|node| node.output.iter().map(|output| &**output)));
            used.extend(inner.into_iter().filter(|name| !own.contains(name)));
        }
    }
}

fn read_inputs(protos: &[ValueInfoProto]) -> Result<Vec<GraphInput>, EngineError> {
    let mut symbols = Symbols::new(protos);
    protos
        .iter()
        .map(|proto| {
            let place = format!("input {:?}", proto.name);
            let Some(type_proto::Value::TensorType(tensor)) = proto.r#type.as_ref().and_then(|t| t.value.as_ref())
            else {
                return Err(EngineError::invalid(place, "it has no tensor type"));
            };
            let element_type = ElementType::from_onnx(tensor.elem_type).ok_or_else(|| EngineError::Unsupported {
                node: proto.name.clone(),
                operator: "input".into(),
                reason: format!("elements of ONNX data type {} are not supported", tensor.elem_type),
            })?;
            let Some(shape) = &tensor.shape else {
                return Err(EngineError::invalid(place, "its number of dimensions is not given"));
            };
            let dims: Vec<Dim> = shape.dim.iter().map(|dim| symbols.dim(dim)).collect();
            check_input_size(&place, element_type, &dims)?;
            Ok(GraphInput { name: proto.name.clone(), element_type, dims })
        })
        .collect()
}

/// An input that no request can give is refused; free dimensions count as 1.
fn check_input_size(place: &str, element_type: ElementType, dims: &[Dim]) -> Result<(), EngineError> {
    let sizes = dims.iter().map(|dim| match dim {
        Dim::Fixed(size) => *size,
        Dim::Free(_) => 1,
    });
    let value = sizes.fold(element_type.size_bytes(), u64::saturating_mul);
    let axes = dims.len() as u64;
    let checked = [("axes", axes, RANK_MAX as u64), ("bytes of its shape", value, TENSOR_BYTES_MAX)];
    match checked.into_iter().find(|(_, value, limit)| value > limit) {
        Some((what, value, limit)) => Err(EngineError::TooLarge { place: format!("{place}: {what}"), value, limit }),
        None => Ok(()),
    }
}

/// Names of free dimensions, as tract can read them.
struct Symbols {
    /// The names used on their own as a dimension of an input.
    plain: BTreeSet<String>,
    renamed: BTreeMap<String, String>,
    anonymous: usize,
}

impl Symbols {
    fn new(protos: &[ValueInfoProto]) -> Symbols {
        let mut plain = BTreeSet::new();
        for proto in protos {
            if let Some(type_proto::Value::TensorType(tensor)) = proto.r#type.as_ref().and_then(|t| t.value.as_ref()) {
                for dim in tensor.shape.iter().flat_map(|shape| &shape.dim) {
                    if let Some(dimension::Value::DimParam(name)) = &dim.value
                        && is_identifier(name)
                    {
                        plain.insert(name.clone());
                    }
                }
            }
        }
        Symbols { plain, renamed: BTreeMap::new(), anonymous: 0 }
    }

    fn dim(&mut self, dim: &Dimension) -> Dim {
        match &dim.value {
            Some(dimension::Value::DimValue(size)) if *size >= 0 => Dim::Fixed(*size as u64),
            // Plain names stay, and so do sums like `past + 1` of names that other dimensions give a value to. Anything
            // else ("batch-size") is a name and not an expression: equal names are equal sizes, and that is all.
            Some(dimension::Value::DimParam(name)) if !name.trim().is_empty() => {
                if self.plain.contains(name) || self.is_sum(name) {
                    return Dim::Free(name.clone());
                }
                let next = format!("named_dim_{}", self.renamed.len());
                Dim::Free(self.renamed.entry(name.clone()).or_insert(next).clone())
            }
            _ => {
                self.anonymous += 1;
                Dim::Free(format!("free_dim_{}", self.anonymous))
            }
        }
    }

    fn is_sum(&self, text: &str) -> bool {
        let mut terms = text.split('+').map(str::trim);
        terms.all(|term| self.plain.contains(term) || term.parse::<u32>().is_ok())
    }
}

/// A name that reads as one symbol. Names that tract gives a meaning of their own are not among them.
fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !["min", "max", "floor", "ceil", "broadcast", "div", "mod"].contains(&name.to_ascii_lowercase().as_str())
        && !name.starts_with("unk__")
}

fn tensor_type(element_type: ElementType, dims: Vec<dimension::Value>) -> TypeProto {
    let dim = dims.into_iter().map(|value| Dimension { value: Some(value), ..Dimension::default() }).collect();
    let shape = Some(TensorShapeProto { dim });
    let value = type_proto::Tensor { elem_type: element_type.to_onnx(), shape };
    TypeProto { value: Some(type_proto::Value::TensorType(value)), ..TypeProto::default() }
}

fn input_proto(index: usize, input: &GraphInput, sizes: &Sizes) -> ValueInfoProto {
    let dims = input.dims.iter().enumerate().map(|(axis, dim)| match (sizes.of(index, axis, dim), dim) {
        (Some(size), _) => dimension::Value::DimValue(size as i64),
        (None, Dim::Free(name)) => dimension::Value::DimParam(name.clone()),
        (None, Dim::Fixed(size)) => dimension::Value::DimValue(*size as i64),
    });
    let r#type = Some(tensor_type(input.element_type, dims.collect()));
    ValueInfoProto { name: input.name.clone(), r#type, ..ValueInfoProto::default() }
}

fn weight_proto(tensor: &StoredTensor) -> ValueInfoProto {
    let dims = tensor.shape.iter().map(|size| dimension::Value::DimValue(*size as i64));
    let r#type = Some(tensor_type(tensor.element_type, dims.collect()));
    ValueInfoProto { name: tensor.name.clone(), r#type, ..ValueInfoProto::default() }
}
