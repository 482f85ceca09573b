//! From tract's typed model to a [`Graph`].

use super::dims::Dim;
use super::opaque::Quantization;
use super::opaque_integer::MatMulNBits;
use super::transformer::Transformer;
use super::{Dequantized, Graph, Node, Source, Value, ValueId};
use crate::EngineError;
use crate::error::tract;
use crate::ops::quantize::Grid;
use crate::ops::quantize8::{Centre, Uncentre};
use crate::ops::{self, Op};
use std::collections::BTreeMap;
use tract_onnx::prelude::{DatumType, IntoArcTensor, IntoTValue, TVec};
use tract_onnx::tract_core::internal::{InletId, OutletId, TypedFact, TypedModel, TypedNode};
use tract_onnx::tract_core::model::order::eval_order_for_nodes;
use tract_onnx::tract_core::ops::array::{
    CumSum, Gather, GatherNd, MultiBroadcastTo, Range, Slice, StridedSlice, TypedConcat,
};
use tract_onnx::tract_core::ops::binary::TypedBinOp;
use tract_onnx::tract_core::ops::cast::Cast;
use tract_onnx::tract_core::ops::change_axes::AxisOp;
use tract_onnx::tract_core::ops::cnn::{Conv, MaxPool, SumPool};
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::element_wise::ElementWiseOp;
use tract_onnx::tract_core::ops::identity::Identity;
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_core::ops::logic::Iff;
use tract_onnx::tract_core::ops::nn::{Reduce, Softmax};

/// Constants of at most this many elements are worked out here; larger ones like weights, when they are packed.
const FOLDED_ELEMENTS_MAX: usize = 1 << 14;

/// Brings `model` into a graph. Its inputs are the request's `inputs`, then one for each stored tensor.
pub(crate) fn import(model: &TypedModel, inputs: usize) -> Result<Graph, EngineError> {
    const PLACE: &str = "reading the typed graph";
    let mut graph = Graph::default();
    let mut values: Vec<Vec<ValueId>> = vec![Vec::new(); model.nodes.len()];
    let input_of: BTreeMap<usize, usize> = model.inputs.iter().map(|outlet| outlet.node).zip(0..).collect();
    // Those of the inputs that outputs need, as they come, and the others.
    let targets: Vec<usize> = model.outputs.iter().map(|outlet| outlet.node).chain(input_of.keys().copied()).collect();
    for id in tract(PLACE, eval_order_for_nodes(model.nodes(), &[], &targets, &[]))? {
        let node = model.node(id);
        if let Some(&input) = input_of.get(&id) {
            let source = if input < inputs { Source::Input(input) } else { Source::Stored(input - inputs) };
            values[id] = vec![add(&mut graph, &node.name, &node.outputs[0].fact, source)];
            continue;
        }
        if let Some(constant) = node.op_as::<Const>() {
            values[id] = vec![graph.add_constant(&node.name, constant.val().clone())];
            continue;
        }
        if node.outputs.iter().all(|output| output.fact.konst.is_some()) {
            let constants = node.outputs.iter().flat_map(|output| output.fact.konst.clone());
            values[id] = constants.map(|constant| graph.add_constant(&node.name, constant)).collect();
            continue;
        }
        let inputs: Vec<ValueId> = node.inputs.iter().map(|outlet| values[outlet.node][outlet.slot]).collect();
        if let Some(folded) = fold(&mut graph, node, &inputs) {
            values[id] = folded;
            continue;
        }
        // Nothing is dropped out when a model is run; the mask is of no use then.
        let is_unused =
            |slot: usize| node.outputs[slot].successors.is_empty() && !model.outputs.contains(&OutletId::new(id, slot));
        if node.op.name() == "Dropout" && (1..node.outputs.len()).all(is_unused) {
            values[id] = vec![inputs[0]; node.outputs.len()];
            continue;
        }
        let mut lowering = Lowering { graph: &mut graph, model, node, inputs };
        if let Some(outputs) = lowering.lower_several() {
            values[id] = outputs;
            continue;
        }
        if let Some(op) = node.op_as::<Transformer>() {
            values[id] = op.lower(&mut lowering)?;
            continue;
        }
        values[id] = match lowering.lower() {
            Some(value) => vec![value],
            None if node.op_is::<MatMulNBits>() => {
                return Err(EngineError::invalid(&*node.name, "its weights are computed"));
            }
            None => lowering.keep(),
        };
    }
    let value_of = |outlet: &OutletId| values[outlet.node].get(outlet.slot).copied();
    let of_all = |outlets: &[OutletId]| outlets.iter().map(value_of).collect::<Option<Vec<_>>>();
    let lost = || EngineError::invalid(PLACE, "an input or output is not computed");
    graph.inputs = of_all(&model.inputs[..inputs]).ok_or_else(lost)?;
    graph.outputs = of_all(&model.outputs).ok_or_else(lost)?;
    Ok(graph)
}

fn add(graph: &mut Graph, name: &str, fact: &TypedFact, source: Source) -> ValueId {
    let datum_type = match (fact.datum_type, &source) {
        (DatumType::F16, _) => DatumType::F32,
        // Numbers that are sizes are symbolic in tract; a request gives them as int64.
        (DatumType::TDim, Source::Input(_)) => DatumType::I64,
        (datum_type, _) => datum_type,
    };
    let dims = graph.dims.dims(&fact.shape);
    let is_weight = matches!(source, Source::Stored(_));
    graph.add_value(Value { name: name.to_string(), datum_type, dims, source, is_weight })
}

/// The outputs of a node of small constants, if its operator can be worked out here.
fn fold(graph: &mut Graph, node: &TypedNode, inputs: &[ValueId]) -> Option<Vec<ValueId>> {
    let small = |output: &TypedFact| {
        output.shape.as_concrete().is_some_and(|shape| shape.iter().product::<usize>() <= FOLDED_ELEMENTS_MAX)
    };
    if inputs.is_empty() || !node.outputs.iter().all(|output| small(&output.fact)) {
        return None;
    }
    let mut values = TVec::new();
    for input in inputs {
        values.push(graph.constant(*input)?.clone().into_tvalue());
    }
    let outputs = node.op.eval_out_of_plan(values).ok()??;
    Some(outputs.into_iter().map(|output| graph.add_constant(&node.name, output.into_arc_tensor())).collect())
}

/// A typed node on its way into the graph.
pub(crate) struct Lowering<'a> {
    pub graph: &'a mut Graph,
    pub model: &'a TypedModel,
    pub node: &'a TypedNode,
    pub inputs: Vec<ValueId>,
}

impl Lowering<'_> {
    /// A node of several outputs as nodes of ours, one for each.
    fn lower_several(&mut self) -> Option<Vec<ValueId>> {
        let is_dynamic = self.node.op.name() == "DynamicQuantizeLinearU8";
        let is_weight = self.inputs.iter().all(|input| self.graph.values[*input].is_weight);
        if is_dynamic && !is_weight { ops::dynamic_quantize::lower(self) } else { None }
    }

    /// The node as one of ours; `None` when tract's operator has to do it.
    fn lower(&mut self) -> Option<ValueId> {
        let node = self.node;
        let keeps_elements = node.op_is::<AxisOp>() || node.op_is::<Identity>();
        if let Some(op) = node.op_as::<Quantization>() {
            self.note_dequantized(op);
        }
        // What depends on weights alone is worked out by tract's operators while it is packed.
        if !self.inputs.is_empty() && self.inputs.iter().all(|input| self.graph.values[*input].is_weight) {
            return node.op_as::<Cast>().and_then(|cast| self.cast(cast));
        }
        if node.op_is::<Identity>() {
            return Some(self.inputs[0]);
        }
        if let Some(cast) = node.op_as::<Cast>() {
            return ops::cast::lower(self, cast.to);
        }
        if let Some(value) = self.lower_numbers() {
            return Some(value);
        }
        if let Some(op) = node.op_as::<Slice>() {
            return ops::copy::lower_slice(self, op);
        }
        if let Some(op) = node.op_as::<StridedSlice>() {
            return ops::copy::lower_strided_slice(self, op);
        }
        if let Some(op) = node.op_as::<MultiBroadcastTo>() {
            return ops::copy::lower_broadcast(self, op);
        }
        if let Some(op) = node.op_as::<Gather>() {
            return ops::gather::lower(self, op);
        }
        if let Some(op) = node.op_as::<Quantization>() {
            return self.quantization(op).or_else(|| ops::quantize8::lower(self, op));
        }
        if let Some(op) = node.op_as::<MatMulNBits>() {
            return ops::nbits::lower(self, op);
        }
        if let Some(op) = node.op_as::<EinSum>().filter(|op| op.q_params.is_some()) {
            return ops::integer::lower_product(self, op);
        }
        if let Some(op) = node.op_as::<Conv>().filter(|op| op.q_params.is_some()) {
            return ops::integer::lower_conv(self, op);
        }
        let plain = |value: &ValueId| {
            let datum_type = self.graph.values[*value].datum_type;
            datum_type == DatumType::F32 || keeps_elements && is_number(datum_type)
        };
        if node.outputs.len() != 1 || !self.inputs.iter().all(plain) && !node.op_is::<TypedConcat>() {
            return None;
        }
        if let Some(axis) = node.op_as::<AxisOp>() {
            return self.axis(axis);
        }
        if let Some(op) = node.op_as::<TypedBinOp>() {
            return ops::pointwise::lower_binary(self, op);
        }
        if let Some(op) = node.op_as::<ElementWiseOp>() {
            return ops::pointwise::lower_unary(self, op);
        }
        if let Some(op) = node.op_as::<EinSum>() {
            return ops::matmul::lower(self, op);
        }
        if let Some(op) = node.op_as::<Conv>() {
            return ops::conv::lower(self, op);
        }
        if let Some(op) = node.op_as::<MaxPool>() {
            return ops::pool::lower_max(self, op);
        }
        if let Some(op) = node.op_as::<SumPool>() {
            return ops::pool::lower_sum(self, op);
        }
        if let Some(op) = node.op_as::<Reduce>() {
            return ops::reduce::lower(self, op);
        }
        if let Some(op) = node.op_as::<Softmax>() {
            return ops::softmax::lower(self, op);
        }
        if let Some(op) = node.op_as::<TypedConcat>() {
            return ops::concat::lower(self, op);
        }
        None
    }

    /// Operators on integers, bools and sizes.
    fn lower_numbers(&mut self) -> Option<ValueId> {
        let node = self.node;
        let is_float = |value: &ValueId| self.graph.values[*value].datum_type == DatumType::F32;
        let floats = self.inputs.iter().all(is_float);
        if node.outputs.len() != 1 {
            return None;
        }
        if let Some(op) = node.op_as::<TypedBinOp>() {
            return ops::typed::lower_binary(self, op);
        }
        if let Some(op) = node.op_as::<ElementWiseOp>() {
            return ops::typed::lower_unary(self, op);
        }
        if let Some(op) = node.op_as::<GatherNd>() {
            return ops::gather_nd::lower(self, op);
        }
        if let Some(op) = node.op_as::<CumSum>() {
            return ops::scan::lower_cumsum(self, op);
        }
        if let (Some(op), true) = (node.op_as::<Reduce>(), !floats || node.outputs[0].fact.datum_type == DatumType::I64)
        {
            return ops::scan::lower_fold(self, op);
        }
        if node.op_is::<Iff>() {
            return ops::select::lower(self);
        }
        if node.op_is::<Range>() {
            return ops::numbers::lower_range(self);
        }
        None
    }

    /// The value, as int64 where it is numbers that are symbolic in tract; `None` when it can't be that here.
    pub fn number(&mut self, value: ValueId) -> Option<ValueId> {
        if self.graph.values[value].datum_type != DatumType::TDim {
            return is_number(self.graph.values[value].datum_type).then_some(value);
        }
        let tensor = self.graph.constant(value)?.clone();
        ops::numbers::lower(self, &tensor)
    }

    /// The value as int64.
    pub fn int64(&mut self, value: ValueId) -> Option<ValueId> {
        let value = self.number(value)?;
        match self.graph.values[value].datum_type {
            DatumType::I64 => Some(value),
            DatumType::I32 => {
                let inputs = std::mem::replace(&mut self.inputs, vec![value]);
                let cast = ops::cast::lower(self, DatumType::I64);
                self.inputs = inputs;
                cast
            }
            _ => None,
        }
    }

    /// Remembers what weights that are dequantised are made of; they get their value number next.
    fn note_dequantized(&mut self, op: &Quantization) {
        let (Some(&quantized), Some(&scale)) = (self.inputs.first(), self.inputs.get(1)) else { return };
        let values = &self.graph.values;
        if op.quantizes || !self.inputs.iter().all(|input| values[*input].is_weight) {
            return;
        }
        let zero_points = match self.inputs.get(2) {
            None => Some(Vec::new()),
            Some(zero_point) => self.graph.constant(*zero_point).and_then(|tensor| {
                let cast = tensor.cast_to::<i32>().ok()?;
                Some(bytemuck::cast_slice::<u8, i32>(cast.as_bytes()).to_vec())
            }),
        };
        let is_byte = matches!(values[quantized].datum_type, DatumType::I8 | DatumType::U8);
        let rank = values[quantized].dims.len() as i64;
        let axis = if op.axis < 0 { op.axis + rank } else { op.axis };
        let is_per_axis = values[scale].dims.iter().any(|dim| !dim.is_one());
        if let (Some(zero_points), true, Ok(axis)) = (zero_points, is_byte, usize::try_from(axis)) {
            let made_of = Dequantized { quantized, scale, is_per_axis, zero_points, axis };
            self.graph.dequantized.insert(self.graph.values.len(), made_of);
        }
    }

    /// Quantised values between operators are centred int16 when nothing but `DequantizeLinear` sees them.
    fn quantization(&mut self, op: &Quantization) -> Option<ValueId> {
        let x = self.inputs[0];
        let grid = self.grid(self.node, op)?;
        let dims = self.output_dims();
        if op.quantizes {
            if self.graph.values[x].datum_type != DatumType::F32 {
                return None;
            }
            let outlet = OutletId::new(self.node.id, 0);
            let users = &self.node.outputs[0].successors;
            let is_undone = |user: &InletId| {
                let user_node = self.model.node(user.node);
                user.slot == 0
                    && user_node
                        .op_as::<Quantization>()
                        .is_some_and(|op| !op.quantizes && self.grid(user_node, op) == Some(grid))
            };
            let is_seen = self.model.outputs.contains(&outlet) || !users.iter().all(is_undone);
            let quantize = Op::Quantize(ops::quantize::Quantize(grid));
            let centred = self.graph.add_node(&self.node.name, quantize, vec![x], DatumType::I16, dims.clone());
            if !is_seen {
                return Some(centred);
            }
            let datum_type = self.node.outputs[0].fact.datum_type;
            let uncentre = Op::Uncentre(Uncentre(Centre::of(grid, datum_type)));
            return Some(self.graph.add_node(&self.node.name, uncentre, vec![centred], datum_type, dims));
        }
        let dequantize = Op::Dequantize(ops::quantize::Dequantize(grid));
        let producer = self.graph.producer(x).map(|(_, node)| (&node.op, node.inputs[0]));
        let centred = match (producer, self.graph.values[x].datum_type) {
            (Some((Op::Quantize(_), _)), _) => x,
            (Some((Op::Uncentre(uncentre), centred)), datum_type) if uncentre.0 == Centre::of(grid, datum_type) => {
                centred
            }
            (_, datum_type @ (DatumType::U8 | DatumType::I8)) => {
                let centre = Op::Centre(Centre::of(grid, datum_type));
                self.graph.add_node(&self.node.name, centre, vec![x], DatumType::I16, dims.clone())
            }
            _ => return None,
        };
        Some(self.emit(dequantize, vec![centred], dims))
    }

    /// The 8-bit grid of a quantisation with one constant scale.
    fn grid(&self, node: &TypedNode, op: &Quantization) -> Option<Grid> {
        let constant = |input: usize| self.model.outlet_fact(*node.inputs.get(input)?).ok()?.konst.clone();
        let scale = *bytemuck::cast_slice::<u8, f32>(constant(1)?.cast_to::<f32>().ok()?.as_bytes()).first()?;
        if constant(1)?.len() != 1 || scale.is_nan() || scale <= 0.0 {
            return None;
        }
        let zero_point = match node.inputs.get(2) {
            None => 0,
            Some(_) => *bytemuck::cast_slice::<u8, i32>(constant(2)?.cast_to::<i32>().ok()?.as_bytes()).first()?,
        };
        let quantized = match op.quantizes {
            true => node.outputs[0].fact.datum_type,
            false => self.model.outlet_fact(node.inputs[0]).ok()?.datum_type,
        };
        let (low, high) = match quantized {
            DatumType::U8 => (0, 255),
            DatumType::I8 => (-128, 127),
            _ => return None,
        };
        Some(Grid { scale, low: (low - zero_point) as i16, high: (high - zero_point) as i16 })
    }

    /// The node as tract's operator.
    fn keep(&mut self) -> Vec<ValueId> {
        let is_weight = !self.inputs.is_empty() && self.inputs.iter().all(|input| self.graph.values[*input].is_weight);
        let index = self.graph.nodes.len();
        let mut outputs = Vec::new();
        for (slot, output) in self.node.outputs.iter().enumerate() {
            let value = add(self.graph, &self.node.name, &output.fact, Source::Node(index, slot));
            self.graph.values[value].is_weight = is_weight;
            outputs.push(value);
        }
        let (name, inputs) = (self.node.name.clone(), std::mem::take(&mut self.inputs));
        self.graph.nodes.push(Some(Node { name, op: Op::Tract(self.node.id), inputs, outputs: outputs.clone() }));
        outputs
    }

    /// The dimensions of the node's output.
    pub fn output_dims(&mut self) -> Vec<Dim> {
        self.graph.dims.dims(&self.node.outputs[0].fact.shape)
    }

    /// Adds a node of one float32 output with the typed node's name.
    pub fn emit(&mut self, op: Op, inputs: Vec<ValueId>, dims: Vec<Dim>) -> ValueId {
        self.graph.add_node(&self.node.name, op, inputs, DatumType::F32, dims)
    }

    /// Adds a node that only moves elements, of whatever type.
    pub fn emit_move(&mut self, op: Op, input: ValueId, dims: Vec<Dim>) -> ValueId {
        let datum_type = self.graph.values[input].datum_type;
        self.graph.add_node(&self.node.name, op, vec![input], datum_type, dims)
    }

    /// The value with its axes in another order.
    pub fn transposed(&mut self, value: ValueId, permutation: Vec<usize>) -> ValueId {
        if permutation.is_sorted() {
            return value;
        }
        let dims: Vec<Dim> = permutation.iter().map(|axis| self.graph.values[value].dims[*axis]).collect();
        let transpose = ops::copy::Move::Transpose { permutation };
        let input_dims = &self.graph.values[value].dims;
        let op = match transpose.keeps_order(|axis| input_dims[axis].is_one()) {
            true => Op::Reshape,
            false => Op::Move(transpose),
        };
        self.emit_move(op, value, dims)
    }

    /// Casts that change nothing here are no nodes.
    fn cast(&mut self, cast: &Cast) -> Option<ValueId> {
        let to = if cast.to == DatumType::F16 { DatumType::F32 } else { cast.to };
        (self.graph.values[self.inputs[0]].datum_type == to).then_some(self.inputs[0])
    }

    fn axis(&mut self, axis: &AxisOp) -> Option<ValueId> {
        let input = self.inputs[0];
        if let AxisOp::Move(from, to) = axis {
            let mut permutation: Vec<usize> = (0..self.graph.values[input].dims.len()).collect();
            let moved = permutation.remove(*from);
            permutation.insert(*to, moved);
            return Some(self.transposed(input, permutation));
        }
        let dims = self.output_dims();
        Some(self.emit_move(Op::Reshape, input, dims))
    }
}

/// Whether elements are plain bytes.
pub(crate) fn is_number(datum_type: DatumType) -> bool {
    !matches!(datum_type, DatumType::TDim | DatumType::String | DatumType::Blob)
        && datum_type.unquantized() == datum_type
        && crate::ElementType::from_tract(datum_type).is_some()
}
