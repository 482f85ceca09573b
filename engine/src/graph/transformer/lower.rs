//! The steps that each operator is made of.

use super::Transformer;
use super::attention::lower_attention;
use super::forms::Operator;
use crate::graph::ValueId;
use crate::graph::dims::Dim;
use crate::graph::import::Lowering;
use crate::ops::copy::Move;
use crate::ops::gather::Gather;
use crate::ops::gather_blocks::GatherBlocks;
use crate::ops::norm::{Kind, Norm};
use crate::ops::numbers::Range;
use crate::ops::pointwise::{Pointwise, Step};
use crate::ops::rotary::Rotary;
use crate::ops::{Op, select};
use onnx_kernels::pointwise::Binary;
use onnx_kernels::rotary::Pairs;
use std::sync::Arc;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;

pub(super) fn lower(op: &Transformer, lowering: &mut Lowering<'_>) -> TractResult<Vec<ValueId>> {
    let mut parts = Parts { op, lowering };
    let all = match op.operator {
        Operator::RMSNormalization => {
            let x = parts.float(0)?;
            vec![parts.norm(Kind::Rms, x, Some(1), None)?]
        }
        Operator::SkipLayerNormalization | Operator::SkipSimplifiedLayerNormalization => parts.skip_norm()?,
        Operator::RotaryEmbedding | Operator::ContribRotaryEmbedding => vec![parts.rotary_embedding()?],
        Operator::Attention | Operator::GroupQueryAttention | Operator::MultiHeadAttention => {
            lower_attention(&mut parts)?
        }
        Operator::GatherBlockQuantized => vec![parts.gather_blocks()?],
    };
    op.outputs.iter().map(|index| all.get(*index).copied().with_context(|| format!("output {index}"))).collect()
}

/// A node on its way into the graph, part by part.
pub(super) struct Parts<'a, 'b> {
    pub op: &'a Transformer,
    pub lowering: &'a mut Lowering<'b>,
}

/// Cosines and sines to rotate with.
pub(super) struct Tables {
    pub cosines: ValueId,
    pub sines: ValueId,
    /// The first of their rows, where they are whole caches; else they have a row for each position.
    pub offset: Option<Dim>,
}

impl Parts<'_, '_> {
    pub fn input(&self, input: usize) -> Option<ValueId> {
        self.lowering.inputs.get((*self.op.inputs.get(input)?)?).copied()
    }

    /// An input of float32 numbers.
    pub fn float(&self, input: usize) -> TractResult<ValueId> {
        let value = self.input(input).with_context(|| format!("input {input} is missing"))?;
        let datum_type = self.lowering.graph.values[value].datum_type;
        ensure!(datum_type == DatumType::F32, "input {input} is of {datum_type:?}, not of floats");
        Ok(value)
    }

    pub fn dims(&self, value: ValueId) -> Vec<Dim> {
        self.lowering.graph.values[value].dims.clone()
    }

    /// A size that has to be known.
    pub fn known(&self, value: ValueId, axis: usize) -> TractResult<usize> {
        let dim = self.lowering.graph.values[value].dims.get(axis).and_then(|dim| dim.known());
        dim.with_context(|| format!("a value has no known size of axis {axis}"))
    }

    pub fn emit(&mut self, op: Op, inputs: Vec<ValueId>, dims: Vec<Dim>) -> ValueId {
        self.lowering.emit(op, inputs, dims)
    }

    /// As `emit`, for what other layers have too: the value of an equal node, if there is one.
    pub fn emit_once(&mut self, op: Op, inputs: Vec<ValueId>, datum_type: DatumType, dims: Vec<Dim>) -> ValueId {
        let graph = &*self.lowering.graph;
        let same = |node: &&crate::graph::Node| {
            node.op == op && node.inputs == inputs && graph.values[node.outputs[0]].dims == dims
        };
        if let Some(node) = graph.nodes.iter().flatten().find(same) {
            return node.outputs[0];
        }
        let name = self.lowering.node.name.clone();
        self.lowering.graph.add_node(&name, op, inputs, datum_type, dims)
    }

    pub fn reshape(&mut self, value: ValueId, dims: Vec<Dim>) -> ValueId {
        if self.lowering.graph.values[value].dims == dims {
            return value;
        }
        self.lowering.emit_move(Op::Reshape, value, dims)
    }

    /// `length` indices of an axis, from `start` on.
    pub fn slice(&mut self, value: ValueId, axis: usize, start: usize, length: usize) -> ValueId {
        let mut dims = self.dims(value);
        let mut starts = vec![Dim::Known(0); dims.len()];
        (starts[axis], dims[axis]) = (Dim::Known(start), Dim::Known(length));
        let steps = vec![1; dims.len()];
        self.lowering.emit_move(Op::Move(Move::Slice { starts, steps }), value, dims)
    }

    pub fn add(&mut self, a: ValueId, b: ValueId, dims: Vec<Dim>) -> ValueId {
        self.binary(Binary::Add, a, b, dims)
    }

    fn binary(&mut self, function: Binary, a: ValueId, b: ValueId, dims: Vec<Dim>) -> ValueId {
        let steps = vec![Step::Input { function, reversed: false }];
        self.emit_once(Op::Pointwise(Pointwise { steps }), vec![a, b], DatumType::F32, dims)
    }

    pub fn scalar(&mut self, number: f32) -> ValueId {
        let name = self.lowering.node.name.clone();
        self.lowering.graph.add_constant(&name, Arc::new(Tensor::from(number)))
    }

    /// `no` where a condition of bools holds not, else 0.
    pub fn zero_or(&mut self, condition: ValueId, no: f32) -> ValueId {
        let inputs = vec![condition, self.scalar(0.0), self.scalar(no)];
        let dims = self.dims(condition);
        self.emit(Op::Select(select::Select { element_bytes: size_of::<f32>() }), inputs, dims)
    }

    fn norm(&mut self, kind: Kind, x: ValueId, weight: Option<usize>, bias: Option<usize>) -> TractResult<ValueId> {
        let dims = self.dims(x);
        let mut rows = Vec::new();
        for input in [weight, bias].into_iter().flatten() {
            rows.push(self.float(input)?);
        }
        // What is computed can't be packed with the operator.
        let are_weights = rows.iter().all(|row| self.lowering.graph.values[*row].is_weight);
        let epsilon =
            self.op.float("epsilon", if self.op.operator == Operator::RMSNormalization { 1e-5 } else { 1e-12 });
        let norm = Norm {
            kind,
            epsilon,
            has_weight: are_weights && weight.is_some(),
            has_bias: are_weights && bias.is_some(),
        };
        if are_weights {
            let inputs = [x].into_iter().chain(rows).collect();
            return Ok(self.emit(Op::Norm(norm), inputs, dims));
        }
        let mut y = self.emit(Op::Norm(norm), vec![x], dims.clone());
        for (row, function) in rows.into_iter().zip([Binary::Mul, Binary::Add]) {
            y = self.binary(function, y, row, dims.clone());
        }
        Ok(y)
    }

    fn skip_norm(&mut self) -> TractResult<Vec<ValueId>> {
        let (kind, beta, bias) = match self.op.operator {
            Operator::SkipLayerNormalization => (Kind::Layer, Some(3), 4),
            _ => (Kind::Rms, None, 3),
        };
        let (x, skip) = (self.float(0)?, self.float(1)?);
        let dims = self.dims(x);
        let mut sum = self.add(x, skip, dims.clone());
        if self.op.has(bias) {
            let bias = self.float(bias)?;
            sum = self.add(sum, bias, dims);
        }
        let y = self.norm(kind, sum, Some(2), beta.filter(|beta| self.op.has(*beta)))?;
        Ok(vec![y, y, y, sum])
    }

    fn gather_blocks(&mut self) -> TractResult<ValueId> {
        let indices = self.input(1).and_then(|indices| self.lowering.int64(indices));
        let indices = indices.context("indices are not integers")?;
        let data = self.input(0).context("data is missing")?;
        let mut inputs = vec![indices, data, self.float(2)?];
        inputs.extend(self.input(3));
        let gather =
            GatherBlocks { bits: self.op.int("bits", 4) as usize, block_size: self.op.int("block_size", 128) as usize };
        let dims = self.lowering.output_dims();
        Ok(self.emit(Op::GatherBlocks(gather), inputs, dims))
    }

    /// Rotates `x` of four axes.
    pub fn rotate(&mut self, x: ValueId, tables: &Tables, by_position: bool, interleaved: bool) -> ValueId {
        let pairs = if interleaved { Pairs::Neighbours } else { Pairs::Halves };
        let op = Rotary { by_position, pairs, full_tables: false, offset: tables.offset };
        let dims = self.dims(x);
        self.emit(Op::Rotary(op), vec![x, tables.cosines, tables.sines], dims)
    }

    /// Rows of the caches in inputs `cosines` and the next for positions: of each element of a batch, or with one number
    /// that of the first of `length` for all.
    pub fn picked(&mut self, cosines: usize, positions: ValueId, length: Dim) -> TractResult<Tables> {
        let mut positions = self.lowering.int64(positions).context("positions are not integers")?;
        let mut dims = self.dims(positions);
        if dims.len() == 1 {
            let name = self.lowering.node.name.clone();
            let one = self.lowering.graph.add_constant(&name, Arc::new(Tensor::from(1i64)));
            let range = Op::Range(Range { datum_type: DatumType::I64 });
            dims = vec![Dim::Known(1), length];
            positions = self.emit_once(range, vec![positions, one], DatumType::I64, dims.clone());
        }
        let &[batch, steps] = dims.as_slice() else { bail!("positions of {} axes", dims.len()) };
        let mut tables = [0; 2];
        for (index, table) in tables.iter_mut().enumerate() {
            let cache = self.float(cosines + index)?;
            let half = Dim::Known(self.known(cache, 1)?);
            ensure!(self.dims(cache).len() == 2, "a cache of sines and cosines has not two axes");
            let gather = Op::Gather(Gather { axis: 0 });
            let rows = self.emit_once(gather, vec![cache, positions], DatumType::F32, vec![batch, steps, half]);
            *table = self.emit_once(Op::Reshape, vec![rows], DatumType::F32, vec![batch, Dim::Known(1), steps, half]);
        }
        Ok(Tables { cosines: tables[0], sines: tables[1], offset: None })
    }

    fn rotary_embedding(&mut self) -> TractResult<ValueId> {
        let is_contrib = self.op.operator == Operator::ContribRotaryEmbedding;
        let (positions, cosines) = if is_contrib { (1, 2) } else { (3, 1) };
        let x = self.float(0)?;
        let dims = self.dims(x);
        let length = if dims.len() == 4 { dims[2] } else { dims[1] };
        let tables = match self.input(positions) {
            Some(positions) => self.picked(cosines, positions, length)?,
            None => {
                let mut tables = [0; 2];
                for (index, table) in tables.iter_mut().enumerate() {
                    let rows = self.float(cosines + index)?;
                    let &[batch, steps, half] = self.dims(rows).as_slice() else {
                        bail!("sines and cosines without positions have not three axes");
                    };
                    *table = self.reshape(rows, vec![batch, Dim::Known(1), steps, half]);
                }
                Tables { cosines: tables[0], sines: tables[1], offset: None }
            }
        };
        let half = self.known(tables.cosines, 3)?;
        let rotated = self.op.count("rotary_embedding_dim")?;
        let columns = match (dims.len(), self.op.count("num_heads")?) {
            (4, _) => self.known(x, 3)?,
            (_, 0) => 2 * half,
            (_, heads) => self.known(x, 2)? / heads,
        };
        let fits = half > 0 && 2 * half <= columns && (rotated == 0 && 2 * half == columns || rotated == 2 * half);
        ensure!(fits, "{half} angles for heads of {columns}, of which {rotated} numbers are rotated (0: all)");
        let interleaved = self.op.int("interleaved", 0) != 0;
        if dims.len() == 4 {
            return Ok(self.rotate(x, &tables, false, interleaved));
        }
        let hidden = self.known(x, 2)?;
        ensure!(hidden.is_multiple_of(columns), "rows of {hidden} are not heads of {columns}");
        let split = vec![dims[0], dims[1], Dim::Known(hidden / columns), Dim::Known(columns)];
        let x = self.reshape(x, split);
        let y = self.rotate(x, &tables, true, interleaved);
        Ok(self.reshape(y, dims))
    }
}
