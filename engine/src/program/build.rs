//! Makes a [`Program`] from a graph, step by step, with the weights of one step at a time.

use super::stream::{Buffer, Stream};
use super::{Home, Program, Slot, SlotId, Step, Work};
use crate::graph::weights::{Packed, Weights, stored_tensors};
use crate::graph::{Graph, Node, Source, ValueId};
use crate::onnx::StoredTensor;
use crate::ops::Op;
use crate::{EngineError, ModelFiles};
use onnx_kernels::conv::Filter;
use onnx_kernels::gemm::PackedMatrix;
use std::collections::BTreeMap;
use std::sync::Arc;
use tract_onnx::prelude::Tensor;
use tract_onnx::tract_core::internal::TypedModel;

/// A program under way.
pub(crate) struct Build {
    graph: Graph,
    model: Arc<TypedModel>,
    /// Index of the next node.
    next: usize,
    values: Vec<Slot>,
    /// The slot of each of the graph's values that has one.
    slots: BTreeMap<ValueId, SlotId>,
    steps: Vec<Step>,
    matrices: BTreeMap<(ValueId, bool), Arc<PackedMatrix>>,
    /// The next step's weight, while it is read.
    stream: Option<(usize, ValueId, Stream)>,
    buffer: Buffer,
    filter: Option<Filter>,
    /// Whether the next step's weight has been looked at.
    streamed: bool,
}

impl Build {
    pub fn new(graph: Graph, model: Arc<TypedModel>) -> Build {
        let mut build = Build {
            graph,
            model,
            next: 0,
            values: Vec::new(),
            slots: BTreeMap::new(),
            steps: Vec::new(),
            matrices: BTreeMap::new(),
            stream: None,
            buffer: Buffer::default(),
            filter: None,
            streamed: false,
        };
        build.skip_weights();
        build
    }

    /// Steps made and to make, the outputs counted as one.
    pub fn progress(&self) -> (usize, usize) {
        (self.next, self.graph.nodes.len() + 1)
    }

    /// Bytes that weights will take beyond those of the stored tensors.
    pub fn extra_weight_bytes(&self) -> u64 {
        let extra = |node: &Node| match &node.op {
            Op::Conv(conv) => conv.extra_weight_bytes(&self.graph, node),
            _ => 0,
        };
        self.graph.nodes.iter().flatten().map(extra).fold(0, u64::saturating_add)
    }

    /// Reads and packs a piece of the next step's weight, where that can be packed while it is read. True when there is
    /// nothing left to do so.
    pub fn stream(&mut self, tensors: &[StoredTensor], files: &dyn ModelFiles) -> Result<bool, EngineError> {
        if !self.streamed {
            self.streamed = true;
            self.stream = self.find_stream(tensors);
        }
        let Some((stored, _, stream)) = &mut self.stream else { return Ok(true) };
        if !stream.step(&tensors[*stored], files, &mut self.buffer)? {
            return Ok(false);
        }
        if let Some((_, value, stream)) = self.stream.take() {
            match stream.finish() {
                Packed::Rows(matrix) => {
                    self.matrices.insert((value, false), Arc::new(matrix));
                }
                Packed::Columns(matrix) => {
                    self.matrices.insert((value, true), Arc::new(matrix));
                }
                Packed::Filter(filter) => self.filter = Some(filter),
            }
        }
        Ok(true)
    }

    fn find_stream(&self, tensors: &[StoredTensor]) -> Option<(usize, ValueId, Stream)> {
        let node = self.graph.nodes.get(self.next)?.as_ref()?;
        let weight = match node.op {
            Op::Gather(_) => *node.inputs.first()?,
            _ => *node.inputs.get(1)?,
        };
        let Source::Stored(stored) = self.graph.values[weight].source else { return None };
        if self.is_packed(weight) || !Stream::takes(&tensors[stored]) {
            return None;
        }
        let (value, packed, row_elements, rows) = node.op.streamed(&self.graph, node)?;
        Some((stored, value, Stream::new(packed, row_elements, rows)))
    }

    /// Whether the next step's operator finds this value packed.
    fn is_packed(&self, value: ValueId) -> bool {
        let Some(Some(node)) = self.graph.nodes.get(self.next) else { return false };
        if let Op::Gather(gather) = &node.op {
            let is_data = node.inputs.first() == Some(&value);
            let shared = gather.shared(&self.graph, node);
            return is_data && shared.is_some_and(|transposed| self.matrices.contains_key(&(value, transposed)));
        }
        let is_weight = node.inputs.get(1) == Some(&value);
        is_weight
            && match &node.op {
                Op::Conv(_) => self.filter.is_some(),
                Op::MatMul(matmul) => matmul.batch == 0 && self.matrices.contains_key(&(value, matmul.b_transposed)),
                _ => false,
            }
    }

    /// The stored tensors that the next [`Build::advance`] needs.
    pub fn needs(&self) -> Vec<usize> {
        let mut needed = Vec::new();
        let (all, packed) = match self.graph.nodes.get(self.next) {
            Some(Some(node)) => (node.inputs.clone(), node.op.packed_inputs(&self.graph, node)),
            Some(None) => (Vec::new(), Vec::new()),
            None => (self.graph.outputs.clone(), Vec::new()),
        };
        for (index, value) in all.into_iter().enumerate() {
            // What is packed already is not read again, and of what other steps take as it is only that which this one packs
            // and which is computed from stored tensors.
            let is_stored = matches!(self.graph.values[value].source, Source::Stored(_));
            let has_slot = self.slots.contains_key(&value) && (is_stored || !packed.contains(&index));
            let is_known = has_slot || self.is_packed(value);
            if self.graph.values[value].is_weight && !is_known {
                stored_tensors(&self.graph, value, &mut needed);
            }
        }
        needed
    }

    /// Makes the next step, with the stored tensors that it needs; the program after the last.
    pub fn advance(&mut self, mut stored: BTreeMap<usize, Arc<Tensor>>) -> Result<Option<Program>, EngineError> {
        let filter = self.filter.take();
        // A tensor that another step takes as it is may be one that this step packs, as an embedding in blocks that is the
        // output layer too.
        for value in self.graph.nodes.get(self.next).iter().copied().flatten().flat_map(|node| &node.inputs) {
            let home = self.slots.get(value).map(|slot| &self.values[*slot].home);
            if let (Source::Stored(index), Some(Home::Constant(tensor))) = (&self.graph.values[*value].source, home) {
                stored.entry(*index).or_insert_with(|| tensor.clone());
            }
        }
        let mut weights = Weights { model: &self.model, stored, matrices: &mut self.matrices, filter };
        let Some(node) = self.graph.nodes.get(self.next) else {
            let outputs = self.graph.outputs.clone();
            let outputs = outputs
                .into_iter()
                .map(|value| slot(&self.graph, &mut self.values, &mut self.slots, &weights, value))
                .collect::<Result<_, _>>()?;
            let (values, steps) = (std::mem::take(&mut self.values), std::mem::take(&mut self.steps));
            let (dims, model) = (std::mem::take(&mut self.graph.dims), self.model.clone());
            return Ok(Some(Program { dims, values, steps, outputs, model }));
        };
        if let Some(node) = node {
            let packed = node.op.packed_inputs(&self.graph, node);
            let mut inputs = Vec::new();
            for (index, input) in node.inputs.iter().enumerate() {
                if !packed.contains(&index) {
                    inputs.push(slot(&self.graph, &mut self.values, &mut self.slots, &weights, *input)?);
                }
            }
            let home = match node.op {
                Op::Reshape => Home::Same(inputs[0]),
                Op::Tract(_) => Home::Tract,
                _ => Home::Memory,
            };
            let mut outputs = Vec::new();
            for output in &node.outputs {
                outputs.push(self.values.len());
                self.slots.insert(*output, self.values.len());
                let value = &self.graph.values[*output];
                let (datum_type, dims) = (value.datum_type, value.dims.clone());
                self.values.push(Slot { datum_type, dims, home: home.clone() });
            }
            let work = match node.op {
                Op::Reshape => None,
                Op::Tract(id) => Some(Work::Tract(id)),
                _ => Some(Work::Native(node.op.pack(&self.graph, node, &mut weights)?)),
            };
            let parameters = node.op.parameters();
            if let Some(work) = work {
                self.steps.push(Step { name: node.name.clone(), work, inputs, outputs, parameters });
            }
        }
        self.next += 1;
        self.streamed = false;
        self.skip_weights();
        Ok(None)
    }

    /// Nodes of weights are no steps: they are worked out where they are packed.
    fn skip_weights(&mut self) {
        let is_step = |graph: &Graph, index: usize| {
            graph.nodes[index]
                .as_ref()
                .is_some_and(|node| node.outputs.iter().any(|output| !graph.values[*output].is_weight))
        };
        while self.next < self.graph.nodes.len() && !is_step(&self.graph, self.next) {
            self.next += 1;
        }
    }
}

/// The slot of a value that a step takes, made now if it is not the result of a step.
fn slot(
    graph: &Graph,
    values: &mut Vec<Slot>,
    slots: &mut BTreeMap<ValueId, SlotId>,
    weights: &Weights<'_>,
    value: ValueId,
) -> Result<SlotId, EngineError> {
    if let Some(slot) = slots.get(&value) {
        return Ok(*slot);
    }
    let home = match graph.values[value].source {
        Source::Input(index) => Home::Input(index),
        Source::Constant(ref tensor) => Home::Constant(tensor.clone()),
        _ => Home::Constant(weights.tensor(graph, value)?),
    };
    let (datum_type, dims) = (graph.values[value].datum_type, graph.values[value].dims.clone());
    slots.insert(value, values.len());
    values.push(Slot { datum_type, dims, home });
    Ok(values.len() - 1)
}
