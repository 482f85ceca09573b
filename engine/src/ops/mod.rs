//! The operators, one file each: what it means on the graph, how it is packed, what it costs, how it runs.
//!
//! [`Op`] is an operator as the graph has it, with its attributes. When a plan is made, [`Op::pack`] turns it into an
//! [`Operator`], which holds its weights in the form its kernel reads. An operator's work is cut into units, parts of
//! its output in order, so that a session can pause between them; no unit's result depends on where it did.

pub(crate) mod append;
pub(crate) mod attention;
pub(crate) mod cast;
pub(crate) mod causal;
pub(crate) mod concat;
pub(crate) mod conv;
pub(crate) mod copy;
pub(crate) mod dynamic_quantize;
pub(crate) mod gather;
pub(crate) mod gather_blocks;
pub(crate) mod gather_nd;
pub(crate) mod integer;
pub(crate) mod matmul;
pub(crate) mod nbits;
pub(crate) mod norm;
pub(crate) mod numbers;
mod part;
pub(crate) mod pointwise;
pub(crate) mod pool;
pub(crate) mod qconv;
pub(crate) mod qconv_dynamic;
pub(crate) mod qgather;
pub(crate) mod qmatmul;
pub(crate) mod qpointwise;
pub(crate) mod quantize;
pub(crate) mod quantize8;
pub(crate) mod reduce;
pub(crate) mod rotary;
pub(crate) mod scan;
pub(crate) mod select;
pub(crate) mod softmax;
#[cfg(test)]
mod testing;
pub(crate) mod typed;
pub(crate) mod window;

use crate::EngineError;
use crate::graph::dims::Dim;
use crate::graph::weights::{Packed, Weights};
use crate::graph::{Graph, Node, ValueId};
use std::ops::Range;

/// An operator and its attributes. Which inputs each has is told in its file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Op {
    Append(append::Append),
    Attention(attention::Attention),
    Cast(cast::Cast),
    CausalMask(causal::CausalMask),
    Centre(quantize8::Centre),
    Concat(concat::Concat),
    Conv(conv::Conv),
    CumSum(scan::CumSum),
    Dequantize(quantize::Dequantize),
    DynamicParameter(dynamic_quantize::DynamicParameter),
    DynamicQConv(qconv_dynamic::DynamicQConv),
    DynamicQuantize(dynamic_quantize::DynamicQuantize),
    Fold(scan::Fold),
    Gather(gather::Gather),
    GatherBlocks(gather_blocks::GatherBlocks),
    GatherNd(gather_nd::GatherNd),
    IntegerProduct(integer::IntegerProduct),
    Linear(quantize8::Linear),
    MatMul(matmul::MatMul),
    Move(copy::Move),
    NBits(nbits::NBits),
    Norm(norm::Norm),
    Numbers(numbers::Numbers),
    Pointwise(pointwise::Pointwise),
    Pool(pool::Pool),
    QAdd(qpointwise::QAdd),
    QConv(qconv::QConv),
    QGather(qgather::QGather),
    QMatMul(qmatmul::QMatMul),
    QMean(qpointwise::QMean),
    Quantize(quantize::Quantize),
    Range(numbers::Range),
    Reduce(reduce::Reduce),
    /// The same elements under another shape: the output is the input's bytes.
    Reshape,
    Rotary(rotary::Rotary),
    Select(select::Select),
    Softmax(softmax::Softmax),
    /// tract's own operator: the typed model's node of that id.
    Tract(usize),
    Typed(typed::Typed),
    Uncentre(quantize8::Uncentre),
}

/// The shapes of a step's values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shapes {
    pub inputs: Vec<Vec<usize>>,
    pub output: Vec<usize>,
    /// Sizes of [`Op::parameters`].
    pub parameters: Vec<i64>,
}

impl Shapes {
    pub fn output_elements(&self) -> usize {
        self.output.iter().product()
    }
}

/// What an operator works on: rows of bytes of its inputs and its output, and the part of the work that is asked for.
pub(crate) struct Call<'a> {
    pub shapes: &'a Shapes,
    pub inputs: &'a [&'a [u8]],
    pub output: &'a mut [u8],
    pub scratch: &'a mut [u8],
    pub units: Range<usize>,
}

impl<'a> Call<'a> {
    /// An input's elements, as float32.
    pub fn f32(&self, input: usize) -> &'a [f32] {
        bytemuck::cast_slice(self.inputs[input])
    }

    pub fn output_f32(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(self.output)
    }
}

/// An operator ready to run.
pub(crate) trait Operator: Send + Sync {
    /// Its name in ONNX's terms.
    fn name(&self) -> &'static str;

    /// Parts of the work that can be done in separate calls, in order.
    fn units(&self, _shapes: &Shapes) -> usize {
        1
    }

    /// Instructions that these units take, an upper bound that is not far off.
    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64;

    /// Multiplications whose products are summed.
    fn multiply_accumulates(&self, _shapes: &Shapes) -> u64 {
        0
    }

    /// Bytes it needs beside its values, from its first unit to its last.
    fn scratch_bytes(&self, _shapes: &Shapes) -> usize {
        0
    }

    /// Bytes of weights it holds.
    fn weight_bytes(&self) -> usize {
        0
    }

    /// Whether each row of the output along its last axis depends on that row of the first input only, and the inputs are
    /// one.
    fn is_row_wise(&self) -> bool {
        false
    }

    /// Whether the first input may be given without bytes where the output holds them already, with room for more.
    fn appends(&self) -> bool {
        false
    }

    /// Whether this input may have room for more positions behind those of each head.
    fn takes_room(&self, _input: usize) -> bool {
        false
    }

    /// Computes these units. Fails when shapes do not go together, which typing has mostly ruled out.
    fn run(&self, call: Call<'_>) -> Result<(), String>;
}

impl Op {
    /// Sizes that it needs beside those of its shapes, which a request may settle.
    pub fn parameters(&self) -> Vec<Dim> {
        match self {
            Op::CausalMask(op) => vec![op.offset],
            Op::Move(op) => op.parameters(),
            Op::Numbers(op) => op.parameters(),
            Op::Rotary(op) => op.offset.into_iter().collect(),
            _ => Vec::new(),
        }
    }

    /// Indices of the inputs that are packed with the operator when they are weights, and then are no inputs of the step.
    pub fn packed_inputs(&self, graph: &Graph, node: &Node) -> Vec<usize> {
        let wanted: &[usize] = match self {
            Op::Conv(conv) if conv.has_bias => &[1, 2],
            Op::Conv(_) => &[1],
            // Matrices of a batch are packed as they are used.
            Op::MatMul(matmul) if matmul.batch > 0 => &[],
            Op::MatMul(matmul) if matmul.has_bias => &[1, 2],
            Op::MatMul(_) => &[1],
            Op::DynamicQConv(conv) if conv.0.has_bias => &[1, 2],
            Op::DynamicQConv(_) => &[1],
            Op::IntegerProduct(_) => &[1, 3],
            Op::NBits(_) => &[1, 2, 3, 4],
            Op::QConv(_) => &[1, 2],
            Op::Norm(_) => &[1, 2],
            Op::Gather(gather) if gather.shared(graph, node).is_some() => &[0],
            Op::QGather(_) => &[0],
            Op::QMatMul(op) if op.matmul.has_bias => &[1, 2],
            Op::QMatMul(_) => &[1],
            _ => &[],
        };
        let is_weight = |index: &usize| node.inputs.get(*index).is_some_and(|input| graph.values[*input].is_weight);
        wanted.iter().copied().filter(is_weight).collect()
    }

    /// The weight that can be packed while it is read: its value, an empty packed form, and how many consecutive elements
    /// of the tensor are a row of it. `None` when the operator has none, or none of a known shape.
    pub fn streamed(&self, graph: &Graph, node: &Node) -> Option<(ValueId, Packed, usize, usize)> {
        match self {
            Op::Conv(conv) => conv.streamed(graph, node),
            Op::MatMul(matmul) => matmul.streamed(graph, node),
            Op::Gather(gather) => gather.streamed(graph, node),
            _ => None,
        }
    }

    /// The operator with the weights it packs. Fails when a weight is not as it must be.
    pub fn pack(
        &self,
        graph: &Graph,
        node: &Node,
        weights: &mut Weights<'_>,
    ) -> Result<Box<dyn Operator>, EngineError> {
        Ok(match self {
            Op::Append(op) => Box::new(op.clone()),
            Op::Attention(op) => Box::new(op.clone()),
            Op::Cast(op) => Box::new(op.clone()),
            Op::CausalMask(op) => Box::new(op.clone()),
            Op::Centre(op) => Box::new(op.clone()),
            Op::Concat(concat) => Box::new(concat.clone()),
            Op::Conv(conv) => conv.pack(graph, node, weights)?,
            Op::CumSum(op) => Box::new(op.clone()),
            Op::Dequantize(op) => Box::new(op.clone()),
            Op::DynamicParameter(op) => Box::new(op.clone()),
            Op::DynamicQConv(op) => op.pack(graph, node, weights)?,
            Op::DynamicQuantize(op) => Box::new(op.clone()),
            Op::Fold(op) => Box::new(op.clone()),
            Op::Gather(gather) => gather.pack(graph, node, weights)?,
            Op::GatherBlocks(op) => Box::new(op.clone()),
            Op::GatherNd(op) => Box::new(op.clone()),
            Op::IntegerProduct(op) => op.pack(graph, node, weights)?,
            Op::Linear(op) => Box::new(op.clone()),
            Op::MatMul(matmul) => matmul.pack(graph, node, weights)?,
            Op::Move(op) => Box::new(op.clone()),
            Op::NBits(op) => op.pack(graph, node, weights)?,
            Op::Norm(op) => op.pack(graph, node, weights)?,
            Op::Numbers(op) => Box::new(op.clone()),
            Op::Pointwise(pointwise) => Box::new(pointwise.clone()),
            Op::Pool(pool) => Box::new(pool.clone()),
            Op::QAdd(op) => Box::new(op.clone()),
            Op::QConv(op) => op.pack(graph, node, weights)?,
            Op::QGather(op) => op.pack(graph, node, weights)?,
            Op::QMatMul(op) => op.pack(graph, node, weights)?,
            Op::QMean(op) => Box::new(op.clone()),
            Op::Quantize(op) => Box::new(op.clone()),
            Op::Range(op) => Box::new(op.clone()),
            Op::Reduce(reduce) => Box::new(reduce.clone()),
            Op::Rotary(op) => Box::new(op.clone()),
            Op::Select(op) => Box::new(op.clone()),
            Op::Softmax(softmax) => Box::new(softmax.clone()),
            Op::Typed(op) => Box::new(op.clone()),
            Op::Uncentre(op) => Box::new(op.clone()),
            Op::Reshape | Op::Tract(_) => {
                return Err(EngineError::invalid(&*node.name, "it is not an operator of a plan"));
            }
        })
    }
}

/// Elements a unit of an element by element operator has.
pub(crate) const ELEMENTS_PER_UNIT: usize = 1 << 16;

/// Units of an operator whose output's elements each stand alone.
pub(crate) fn element_units(elements: usize) -> usize {
    elements.div_ceil(ELEMENTS_PER_UNIT).max(1)
}

/// The elements of some units of such an operator.
pub(crate) fn unit_elements(elements: usize, units: &Range<usize>) -> Range<usize> {
    (units.start * ELEMENTS_PER_UNIT).min(elements)..(units.end * ELEMENTS_PER_UNIT).min(elements)
}

/// Instructions around an operator's kernel: checks, shapes, the call.
pub(crate) const CALL_INSTRUCTIONS: u64 = 2_000;
