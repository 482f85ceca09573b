//! The graph between tract's typed model and the plan.
//!
//! [`import`] brings a typed model into it, in ONNX's order of axes; [`fuse`] joins nodes that one kernel can do in one
//! pass; [`layout`] turns what convolutions touch to channels last. What is left is a list of nodes over row-major
//! tensors, which [`crate::program`] turns into steps.

mod activation;
mod attention;
pub(crate) mod dims;
pub(crate) mod fuse;
pub(crate) mod import;
mod integer;
pub(crate) mod integer_weights;
pub(crate) mod layout;
mod norm;
pub(crate) mod opaque;
pub(crate) mod opaque_integer;
mod pattern;
pub(crate) mod qlinear;
pub(crate) mod transformer;
mod typing;
pub(crate) mod weights;

use crate::error::tract;
use crate::ops::{Op, nbits};
use crate::{EngineError, LoadOptions, onnx};
use dims::{Dim, DimTable};
use std::collections::BTreeMap;
use std::sync::Arc;
use tract_onnx::prelude::{DatumType, Framework, Tensor};
use tract_onnx::tract_core::internal::{TDim, TypedModel};

/// Types a decoded graph, with free sizes as symbols and its weights as inputs, and lowers it. Fails when tract can't type
/// it so, or when a size depends on values.
pub(crate) fn lower(decoded: &mut onnx::Graph, options: LoadOptions) -> Result<(Graph, Arc<TypedModel>), EngineError> {
    const PLACE: &str = "reading the graph";
    // tract passes everything on, even where elements are asked to be dropped.
    let mut drops = false;
    decoded.visit_nodes(|node| {
        drops |= node.op_type == "Dropout" && node.input.get(2).is_some_and(|name| !name.is_empty())
    });
    if drops {
        return Err(EngineError::invalid(PLACE, "a Dropout may be training"));
    }
    decoded.set_sizes(&onnx::Sizes::Any);
    qlinear::rewrite(&mut decoded.proto);
    let onnx = opaque::onnx();
    let model = tract(PLACE, onnx.model_for_proto_model(&decoded.proto))?;
    let model = tract("finding types and shapes", typing::into_typed(model))?;
    let mut graph = import::import(&model, decoded.inputs.len())?;
    graph.dims.check(&model, decoded.inputs.len())?;
    if !options.without_fusion {
        norm::fuse(&mut graph);
        activation::fuse(&mut graph);
        attention::fuse(&mut graph);
        graph.remove_dead();
        fuse::fuse(&mut graph);
    }
    integer::to_integers(&mut graph);
    integer_weights::keep_int8(&mut graph, &model, options.quantize_int8);
    nbits::settle_widening(&mut graph, options.widen_int4_bytes_max);
    layout::channels_last(&mut graph);
    Ok((graph, Arc::new(model)))
}

/// Index of a value in [`Graph::values`].
pub(crate) type ValueId = usize;

/// Where a value comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// The request's input of that index.
    Input(usize),
    /// Known now.
    Constant(Arc<Tensor>),
    /// The file's stored tensor of that index; it is read when what uses it is packed.
    Stored(usize),
    /// The node of that index, its output of that slot.
    Node(usize, usize),
}

#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub name: String,
    /// Never `F16`: what a file has in half precision is computed in single precision.
    pub datum_type: DatumType,
    pub dims: Vec<Dim>,
    pub source: Source,
    /// Whether it depends on nothing but constants and stored tensors.
    pub is_weight: bool,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub name: String,
    pub op: Op,
    pub inputs: Vec<ValueId>,
    pub outputs: Vec<ValueId>,
}

/// Values and the nodes that compute them; a node's inputs come from nodes before it.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    pub dims: DimTable,
    pub values: Vec<Value>,
    /// `None` where a rewriting has taken a node out.
    pub nodes: Vec<Option<Node>>,
    pub inputs: Vec<ValueId>,
    pub outputs: Vec<ValueId>,
    /// Weights that are 8-bit numbers and scales.
    pub dequantized: BTreeMap<ValueId, Dequantized>,
}

/// What a `DequantizeLinear` of weights is made of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Dequantized {
    /// The value of 8-bit numbers.
    pub quantized: ValueId,
    /// The value of one scale, or one for each index along the axis.
    pub scale: ValueId,
    pub is_per_axis: bool,
    /// None for zeros, one, or one for each index along the axis.
    pub zero_points: Vec<i32>,
    pub axis: usize,
}

impl Graph {
    pub fn add_value(&mut self, value: Value) -> ValueId {
        self.values.push(value);
        self.values.len() - 1
    }

    pub fn add_constant(&mut self, name: &str, tensor: Arc<Tensor>) -> ValueId {
        let tensor = single_precision(tensor);
        let dims = tensor.shape().iter().map(|size| Dim::Known(*size)).collect();
        let (name, datum_type) = (name.to_string(), tensor.datum_type());
        // What holds symbols is settled by a request's shapes only.
        let is_weight = !has_symbols(&tensor);
        self.add_value(Value { name, datum_type, dims, source: Source::Constant(tensor), is_weight })
    }

    /// Appends a node of one output with these dimensions.
    pub fn add_node(
        &mut self,
        name: &str,
        op: Op,
        inputs: Vec<ValueId>,
        datum_type: DatumType,
        dims: Vec<Dim>,
    ) -> ValueId {
        // Expressions of weights alone stay operators of tract's, see [`import`].
        let source = Source::Node(self.nodes.len(), 0);
        let output = self.add_value(Value { name: name.to_string(), datum_type, dims, source, is_weight: false });
        self.nodes.push(Some(Node { name: name.to_string(), op, inputs, outputs: vec![output] }));
        output
    }

    /// The node that computes a value, and its index.
    pub fn producer(&self, value: ValueId) -> Option<(usize, &Node)> {
        let Source::Node(index, _) = self.values[value].source else { return None };
        self.nodes[index].as_ref().map(|node| (index, node))
    }

    pub fn constant(&self, value: ValueId) -> Option<&Arc<Tensor>> {
        match &self.values[value].source {
            Source::Constant(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// The one value of a float32 constant whose elements are all equal.
    pub fn scalar(&self, value: ValueId) -> Option<f32> {
        let values = self.constant_f32(value)?;
        let first = *values.first()?;
        values.iter().all(|value| value.to_bits() == first.to_bits()).then_some(first)
    }

    /// The elements of a float32 constant.
    pub fn constant_f32(&self, value: ValueId) -> Option<&[f32]> {
        let tensor = self.constant(value)?;
        (tensor.datum_type() == DatumType::F32).then(|| bytemuck::cast_slice(tensor.as_bytes()))
    }

    /// How often each value is used, as an output of the graph too.
    pub fn use_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.values.len()];
        for input in self.nodes.iter().flatten().flat_map(|node| &node.inputs) {
            counts[*input] += 1;
        }
        self.outputs.iter().for_each(|output| counts[*output] += 1);
        counts
    }

    /// Steps of a request that operators of ours do, and those that tract's do.
    pub fn count_steps(&self) -> (usize, usize) {
        let is_step = |node: &&Node| node.outputs.iter().any(|output| !self.values[*output].is_weight);
        let steps = self.nodes.iter().flatten().filter(is_step);
        let (tracts, ours): (Vec<&Op>, Vec<&Op>) =
            steps.map(|node| &node.op).filter(|op| **op != Op::Reshape).partition(|op| matches!(op, Op::Tract(_)));
        (ours.len(), tracts.len())
    }

    /// Takes out nodes that nothing uses.
    pub fn remove_dead(&mut self) {
        let mut counts = self.use_counts();
        for index in (0..self.nodes.len()).rev() {
            let Some(node) = &self.nodes[index] else { continue };
            if node.outputs.iter().all(|output| counts[*output] == 0) {
                node.inputs.iter().for_each(|input| counts[*input] -= 1);
                self.nodes[index] = None;
            }
        }
    }

    /// Puts `node` in the place of the node that computes its first output.
    pub fn replace(&mut self, index: usize, node: Node) {
        for (slot, output) in node.outputs.iter().enumerate() {
            self.values[*output].source = Source::Node(index, slot);
        }
        self.nodes[index] = Some(node);
    }

    /// Known sizes of all dimensions of a value.
    pub fn known_shape(&self, value: ValueId) -> Option<Vec<usize>> {
        self.values[value].dims.iter().map(|dim| dim.known()).collect()
    }
}

/// Whether a tensor's elements are sizes that depend on symbols.
fn has_symbols(tensor: &Tensor) -> bool {
    let sizes = tensor.try_as_plain_ram().ok().and_then(|plain| plain.as_slice::<TDim>().ok());
    sizes.is_some_and(|sizes| sizes.iter().any(|size| size.as_i64().is_none()))
}

/// The tensor, its half-precision numbers as single precision.
pub(crate) fn single_precision(tensor: Arc<Tensor>) -> Arc<Tensor> {
    if tensor.datum_type() != DatumType::F16 {
        return tensor;
    }
    match tensor.cast_to_dt(DatumType::F32) {
        Ok(cast) => Arc::new(cast.into_owned()),
        Err(_) => tensor,
    }
}
