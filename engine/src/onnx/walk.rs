//! A pass over the ONNX file, a field at a time, that sorts it into graph and weights.
//!
//! Everything that describes the graph is copied, to be decoded as protobuf. A large initializer, a `Constant` node of a
//! large tensor, and any external tensor becomes a [`StoredTensor`]: a name, a type, a shape and a range to read from.

use super::check::{self, Message};
use super::entry::{NAME_BYTES_MAX, StoredTensor, TensorHeader};
use super::wire::{Field, Range, Value, Window, Wire};
use super::{EXTERNAL_CLAIMS_MAX, GRAPH_BYTES_MAX, STORED_TENSORS_MAX};
use crate::{ByteSource, EngineError, ModelFiles};
use std::collections::BTreeMap;

/// What the ONNX file is called in errors.
pub(super) const ONNX_FILE: &str = "ONNX file";

/// Fields of `ModelProto` (onnx.proto3).
mod model_field {
    pub const GRAPH: u32 = 7;
    pub const OPSET_IMPORT: u32 = 8;
    pub const IR_VERSION: u32 = 1;
}

/// Fields of `GraphProto`.
mod graph_field {
    pub const NODE: u32 = 1;
    pub const NAME: u32 = 2;
    pub const INITIALIZER: u32 = 5;
    pub const DOC_STRING: u32 = 10;
    pub const VALUE_INFO: u32 = 13;
    pub const QUANTIZATION_ANNOTATION: u32 = 14;
    pub const SPARSE_INITIALIZER: u32 = 15;
    pub const METADATA: u32 = 16;
}

/// The pass, between two fields.
#[derive(Default)]
pub(crate) struct Walk {
    position: u64,
    /// End of the graph while inside it.
    graph_end: Option<u64>,
    graph_seen: bool,
    window: Window,
    fields: u64,
    /// Bytes of the `ModelProto` fields that are decoded.
    pub model: Vec<u8>,
    /// Bytes of the `GraphProto` fields that are decoded.
    pub graph: Vec<u8>,
    pub tensors: Vec<StoredTensor>,
    claims: Claims,
}

impl Walk {
    /// Bytes of the file passed so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bytes that all stored tensors take in memory.
    pub fn stored_bytes(&self) -> u64 {
        // Each is at most as long as the file it is in, times 8 for varints.
        self.tensors.iter().fold(0, |sum, tensor| sum.saturating_add(tensor.bytes))
    }

    /// Bytes of what is kept to be decoded.
    pub fn kept_bytes(&self) -> u64 {
        (self.model.len() + self.graph.len()) as u64
    }

    /// Passes one field. True when the file is at its end.
    pub fn step(&mut self, files: &dyn ModelFiles) -> Result<bool, EngineError> {
        let source = files.onnx();
        if let Some(end) = self.graph_end {
            if self.position < end {
                self.graph_step(source, files, end)?;
                return Ok(false);
            }
            self.graph_end = None;
        }
        if self.position >= source.len() {
            if !self.graph_seen {
                return Err(EngineError::invalid(ONNX_FILE, "there is no graph in it: not an ONNX model"));
            }
            return Ok(true);
        }
        let mut wire = Wire::new(ONNX_FILE, source, &mut self.window);
        let field = wire.field(self.position, source.len())?;
        match field.number {
            model_field::GRAPH => {
                let range = wire.bytes_of(&field)?;
                if self.graph_seen {
                    let place = format!("{ONNX_FILE} at byte {}", field.range.offset);
                    return Err(EngineError::invalid(place, "a second graph"));
                }
                self.graph_seen = true;
                self.position = range.offset;
                self.graph_end = Some(range.end());
                return Ok(false);
            }
            model_field::OPSET_IMPORT | model_field::IR_VERSION => {
                let mut model = std::mem::take(&mut self.model);
                let kept = self.keep(source, Message::Leaf, &field, &mut model);
                self.model = model;
                kept?;
            }
            // Producer, documentation, metadata, training and local functions describe nothing that is run here.
            _ => {}
        }
        self.position = field.range.end();
        Ok(false)
    }

    fn graph_step(&mut self, source: &dyn ByteSource, files: &dyn ModelFiles, end: u64) -> Result<(), EngineError> {
        let mut wire = Wire::new(ONNX_FILE, source, &mut self.window);
        let field = wire.field(self.position, end)?;
        let stored = match field.number {
            graph_field::INITIALIZER => {
                let range = wire.bytes_of(&field)?;
                TensorHeader::read(&mut wire, range)?.stored(files)?
            }
            graph_field::NODE => {
                let range = wire.bytes_of(&field)?;
                constant_node(&mut wire, range, files)?
            }
            graph_field::SPARSE_INITIALIZER => {
                return Err(EngineError::Unsupported {
                    node: format!("{ONNX_FILE} at byte {}", field.range.offset),
                    operator: "sparse_initializer".into(),
                    reason: "sparse tensors are not supported".into(),
                });
            }
            graph_field::NAME
            | graph_field::DOC_STRING
            | graph_field::VALUE_INFO
            | graph_field::QUANTIZATION_ANNOTATION
            | graph_field::METADATA => {
                self.position = field.range.end();
                return Ok(());
            }
            _ => None,
        };
        if let Some(tensor) = stored {
            if self.tensors.len() == STORED_TENSORS_MAX {
                let place = format!("{ONNX_FILE}: number of weights");
                let limit = STORED_TENSORS_MAX as u64;
                return Err(EngineError::TooLarge { place, value: limit + 1, limit });
            }
            self.claims.add(&tensor, files)?;
            self.tensors.push(tensor);
        } else {
            let mut graph = std::mem::take(&mut self.graph);
            let kept = self.keep(source, Message::Graph.field(field.number), &field, &mut graph);
            self.graph = graph;
            kept?;
        }
        self.position = field.range.end();
        Ok(())
    }

    /// Copies a whole field to be decoded, within the bounds.
    fn keep(
        &mut self,
        source: &dyn ByteSource,
        message: Message,
        field: &Field,
        to: &mut Vec<u8>,
    ) -> Result<(), EngineError> {
        let mut wire = Wire::new(ONNX_FILE, source, &mut self.window);
        let value = to.len() as u64 + field.range.length;
        if value > GRAPH_BYTES_MAX {
            let place = format!("{ONNX_FILE} at byte {}: bytes of graph", field.range.offset);
            return Err(EngineError::TooLarge { place, value, limit: GRAPH_BYTES_MAX });
        }
        self.fields += 1;
        if let Value::Bytes(range) = field.value {
            check::check(&mut wire, message, range, 1, &mut self.fields)?;
        }
        wire.append(field.range, to)
    }
}

/// Which bytes of external-data files tensors claim.
#[derive(Default)]
struct Claims {
    by_file: BTreeMap<String, FileClaims>,
}

#[derive(Default)]
struct FileClaims {
    /// First byte to the byte after the last, and the tensor. No two overlap.
    ranges: BTreeMap<u64, (u64, String)>,
    bytes: u64,
}

impl Claims {
    /// Takes a tensor's bytes: the same as another's, or bytes that no other has.
    fn add(&mut self, tensor: &StoredTensor, files: &dyn ModelFiles) -> Result<(), EngineError> {
        let (Some(location), Range { offset, length: 1.. }) = (&tensor.location, tensor.range) else { return Ok(()) };
        let end = tensor.range.end();
        let place = format!("tensor {:?}", tensor.name);
        let file = self.by_file.entry(location.clone()).or_default();
        // Ranges don't overlap, so of those that begin before this one's end only the last can reach into it.
        if let Some((start, (other_end, other))) = file.ranges.range(..end).next_back()
            && *other_end > offset
            && (*start, *other_end) != (offset, end)
        {
            let reason = format!(
                "bytes {offset} to {end} of {location:?} overlap those of tensor {other:?}, {start} to {other_end}"
            );
            return Err(EngineError::invalid(place, reason));
        }
        file.ranges.insert(offset, (end, tensor.name.clone()));
        file.bytes = file.bytes.saturating_add(tensor.range.length);
        let limit = files.external(location).map_or(0, |file| file.len()).saturating_mul(EXTERNAL_CLAIMS_MAX);
        if file.bytes > limit {
            let place = format!("{place}: bytes of {location:?} that weights claim");
            return Err(EngineError::TooLarge { place, value: file.bytes, limit });
        }
        Ok(())
    }
}

/// The tensor of a `Constant` node, if it is one to be read from its range.
fn constant_node(
    wire: &mut Wire<'_>,
    range: Range,
    files: &dyn ModelFiles,
) -> Result<Option<StoredTensor>, EngineError> {
    // Fields of NodeProto: output 2, op_type 4, attribute 5.
    let mut is_constant = false;
    let mut output = String::new();
    let mut tensor = None;
    let mut offset = range.offset;
    while offset < range.end() {
        let field = wire.field(offset, range.end())?;
        offset = field.range.end();
        match field.number {
            2 => output = wire.text_of(&field, NAME_BYTES_MAX)?,
            4 => is_constant = wire.text_of(&field, NAME_BYTES_MAX)? == "Constant",
            5 => {
                let attribute = wire.bytes_of(&field)?;
                tensor = attribute_tensor(wire, attribute)?.or(tensor);
            }
            _ => {}
        }
    }
    let Some(tensor) = tensor.filter(|_| is_constant) else { return Ok(None) };
    let mut header = TensorHeader::read(wire, tensor)?;
    header.name = output;
    header.stored(files)
}

/// Where the tensor of an `AttributeProto` is: its field 5, `t`.
fn attribute_tensor(wire: &mut Wire<'_>, range: Range) -> Result<Option<Range>, EngineError> {
    let mut offset = range.offset;
    while offset < range.end() {
        let field = wire.field(offset, range.end())?;
        offset = field.range.end();
        if field.number == 5 {
            return Ok(Some(wire.bytes_of(&field)?));
        }
    }
    Ok(None)
}
