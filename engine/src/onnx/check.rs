//! Bounds on the part of a file that is decoded as graph, checked before it is decoded.
//!
//! A decoder makes an object of every message and text, and goes as deep as messages are nested. Both are counted here
//! first, so that no file makes it use more memory or stack than [`GRAPH_FIELDS_MAX`] and [`NESTING_MAX`] allow.

use super::wire::{Range, Value, Wire};
use super::{GRAPH_FIELDS_MAX, NESTING_MAX};
use crate::EngineError;

/// The messages of onnx.proto3 that contain others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Graph,
    Node,
    Attribute,
    Tensor,
    SparseTensor,
    ValueInfo,
    Type,
    TensorType,
    Shape,
    /// Text, bytes, packed numbers, or a message without messages in it.
    Leaf,
}

impl Message {
    /// What the length-delimited field `number` of this message is.
    pub(super) fn field(self, number: u32) -> Message {
        match (self, number) {
            (Self::Graph, 1) => Self::Node,
            (Self::Graph, 5) => Self::Tensor,
            (Self::Graph, 11..=13) => Self::ValueInfo,
            (Self::Graph, 15) => Self::SparseTensor,
            (Self::Node, 5) => Self::Attribute,
            (Self::Attribute, 5 | 10) => Self::Tensor,
            (Self::Attribute, 6 | 11) => Self::Graph,
            (Self::Attribute, 14 | 15) => Self::Type,
            (Self::Attribute, 22 | 23) => Self::SparseTensor,
            (Self::SparseTensor, 1 | 2) => Self::Tensor,
            (Self::ValueInfo, 2) => Self::Type,
            (Self::Type, 1) => Self::TensorType,
            (Self::TensorType, 2) => Self::Shape,
            _ => Self::Leaf,
        }
    }
}

/// Counts the fields in `range`, a message of the given kind, and fails beyond the bounds.
pub(super) fn check(
    wire: &mut Wire<'_>,
    message: Message,
    range: Range,
    depth: u32,
    fields: &mut u64,
) -> Result<(), EngineError> {
    if depth > NESTING_MAX {
        return Err(EngineError::TooLarge {
            place: format!("{} at byte {}: nesting of messages", wire.name, range.offset),
            value: u64::from(depth),
            limit: u64::from(NESTING_MAX),
        });
    }
    if message == Message::Leaf {
        return Ok(());
    }
    let mut offset = range.offset;
    while offset < range.end() {
        let field = wire.field(offset, range.end())?;
        offset = field.range.end();
        if let Value::Bytes(inner) = field.value {
            *fields += 1;
            if *fields > GRAPH_FIELDS_MAX {
                return Err(EngineError::TooLarge {
                    place: format!("{}: fields of the graph", wire.name),
                    value: *fields,
                    limit: GRAPH_FIELDS_MAX,
                });
            }
            check(wire, message.field(field.number), inner, depth + 1, fields)?;
        }
    }
    Ok(())
}
