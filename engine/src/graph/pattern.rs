//! What the passes that look for several nodes in place of one have in common.
//!
//! A pass replaces the last node of what it finds and leaves the others: those that nothing uses any more go with
//! [`Graph::remove_dead`], and what is used elsewhere too stays as it is.

use super::dims::Dim;
use super::{Graph, ValueId};
use crate::ops::Op;
use crate::ops::copy::Move;
use crate::ops::pointwise::Step;
use onnx_kernels::pointwise::{Binary, Unary};

impl Graph {
    fn step(&self, value: ValueId) -> Option<(Step, &[ValueId])> {
        let (_, node) = self.producer(value)?;
        let Op::Pointwise(op) = &node.op else { return None };
        let [step] = op.steps.as_slice() else { return None };
        Some((*step, &node.inputs))
    }

    /// What `value` is a function of.
    pub(super) fn unary(&self, value: ValueId) -> Option<(Unary, ValueId)> {
        match self.step(value)? {
            (Step::Unary(function), inputs) => Some((function, inputs[0])),
            _ => None,
        }
    }

    /// The argument of which `value` is this function.
    pub(super) fn of(&self, value: ValueId, function: Unary) -> Option<ValueId> {
        self.unary(value).filter(|(found, _)| *found == function).map(|(_, x)| x)
    }

    /// The value and the number that `value` is a function of, in this order.
    pub(super) fn with_number(&self, value: ValueId) -> Option<(Binary, ValueId, f32)> {
        match self.step(value)? {
            (Step::Number { function, number, reversed }, inputs) => {
                let commutes = matches!(function, Binary::Add | Binary::Mul | Binary::Min | Binary::Max);
                (commutes || !reversed).then_some((function, inputs[0], number))
            }
            _ => None,
        }
    }

    /// The two values that `value` is a function of.
    pub(super) fn binary(&self, value: ValueId) -> Option<(Binary, ValueId, ValueId)> {
        match self.step(value)? {
            (Step::Input { function, reversed: false }, &[a, b]) => Some((function, a, b)),
            _ => None,
        }
    }

    /// The value, and what it is multiplied by to give `value`.
    pub(super) fn unscaled(&self, value: ValueId) -> (f32, ValueId) {
        match self.with_number(value) {
            Some((Binary::Mul, x, number)) => (number, x),
            Some((Binary::Div, x, number)) => (1.0 / number, x),
            _ => (1.0, value),
        }
    }

    /// What `value` is with its axes in this order.
    pub(super) fn transposed_from(&self, value: ValueId, order: &[usize]) -> Option<ValueId> {
        let (_, node) = self.producer(value)?;
        match &node.op {
            Op::Move(Move::Transpose { permutation }) if permutation == order => Some(node.inputs[0]),
            _ => None,
        }
    }

    /// What `value` is under another shape.
    pub(super) fn reshaped_from(&self, value: ValueId) -> Option<ValueId> {
        let (_, node) = self.producer(value)?;
        (node.op == Op::Reshape).then(|| node.inputs[0])
    }

    pub(super) fn dims(&self, value: ValueId) -> &[Dim] {
        &self.values[value].dims
    }

    /// The only node that uses `value`, when no other does and it is no output of the graph.
    pub(super) fn only_user(&self, value: ValueId) -> Option<usize> {
        let mut users = self.nodes.iter().enumerate().filter_map(|(index, node)| {
            let node = node.as_ref()?;
            node.inputs.contains(&value).then_some(index)
        });
        let user = users.next()?;
        (users.next().is_none() && !self.outputs.contains(&value)).then_some(user)
    }

    /// Whether a value is a weight with one number for each index of the last axis, of `columns`.
    pub(super) fn is_row(&self, value: ValueId, columns: usize) -> bool {
        let value = &self.values[value];
        let Some((last, rest)) = value.dims.split_last() else { return false };
        value.is_weight
            && value.datum_type == tract_onnx::prelude::DatumType::F32
            && *last == Dim::Known(columns)
            && rest.iter().all(|dim| dim.is_one())
    }
}

/// Whether two numbers that a file has in different ways are meant to be the same.
pub(super) fn is_about(number: f32, wanted: f64) -> bool {
    (f64::from(number) - wanted).abs() <= wanted.abs() * 1e-5
}
