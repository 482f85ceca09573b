//! The header of a `TensorProto`: what it is and where its values are, read without its values.

use super::external::{self, EXTERNAL_TEXT_BYTES_MAX};
use super::tensor::{byte_count, element_type, field_holds, shape};
use super::wire::{Range, Value, Wire};
use super::{INLINE_TENSOR_BYTES_MAX, RANK_MAX};
use crate::{ElementType, EngineError, ModelFiles};

/// Longest name of a tensor, in bytes.
pub(super) const NAME_BYTES_MAX: u64 = 4096;

/// Most `external_data` entries of a tensor.
const EXTERNAL_ENTRIES_MAX: usize = 16;

/// How elements are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// As in memory: little-endian, one after another.
    Raw,
    /// A varint each.
    Varints,
}

/// A tensor whose values are still in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredTensor {
    pub name: String,
    pub element_type: ElementType,
    pub shape: Vec<u64>,
    /// Bytes of the elements in memory.
    pub bytes: u64,
    /// Location of the external-data file; `None` is the ONNX file.
    pub location: Option<String>,
    pub range: Range,
    pub encoding: Encoding,
}

/// What a `TensorProto` says of itself.
#[derive(Debug, Default)]
pub(super) struct TensorHeader {
    pub name: String,
    dims: Vec<i64>,
    data_type: i32,
    /// Number and place of the only data field.
    data: Option<(u32, Range)>,
    /// The values are in several fields: the tensor has to be decoded as a whole.
    scattered: bool,
    external: bool,
    external_data: Vec<(String, String)>,
}

impl TensorHeader {
    /// Reads the fields of the `TensorProto` in `range`.
    pub fn read(wire: &mut Wire<'_>, range: Range) -> Result<TensorHeader, EngineError> {
        let mut header = TensorHeader::default();
        let mut offset = range.offset;
        while offset < range.end() {
            let field = wire.field(offset, range.end())?;
            offset = field.range.end();
            match field.number {
                1 => header.push_dims(wire, field.value)?,
                2 => header.data_type = wire.varint_of(&field)? as i32,
                3 => return Err(header.invalid(range, "tensors in segments are not supported")),
                8 => header.name = wire.text_of(&field, NAME_BYTES_MAX)?,
                // One field an element can be millions of fields: this is known of the first, and the rest is not read.
                4 | 5 | 7 | 10 | 11 if !matches!(field.value, Value::Bytes(_)) => {
                    header.scattered = true;
                    break;
                }
                4 | 5 | 7 | 9 | 10 | 11 => {
                    let values = wire.bytes_of(&field)?;
                    header.scattered |= header.data.replace((field.number, values)).is_some();
                }
                13 => {
                    let entry = wire.bytes_of(&field)?;
                    if header.external_data.len() == EXTERNAL_ENTRIES_MAX {
                        return Err(header.invalid(range, "too many external_data entries"));
                    }
                    header.external_data.push(read_entry(wire, entry)?);
                }
                14 => header.external = wire.varint_of(&field)? == 1,
                // doc_string, metadata, string_data (checked when decoded).
                _ => {}
            }
        }
        Ok(header)
    }

    fn invalid(&self, range: Range, reason: &str) -> EngineError {
        EngineError::invalid(format!("tensor {:?} at byte {}", self.name, range.offset), reason)
    }

    fn push_dims(&mut self, wire: &mut Wire<'_>, value: Value) -> Result<(), EngineError> {
        match value {
            Value::Varint(dim) => self.dims.push(dim as i64),
            Value::Bytes(packed) => {
                let mut offset = packed.offset;
                while offset < packed.end() && self.dims.len() <= RANK_MAX {
                    let (dim, next) = wire.varint(offset, packed.end())?;
                    self.dims.push(dim as i64);
                    offset = next;
                }
            }
            Value::Fixed(range) => return Err(self.invalid(range, "a dimension is not a varint")),
        }
        if self.dims.len() > RANK_MAX {
            let place = format!("tensor {:?}: axes", self.name);
            return Err(EngineError::TooLarge { place, value: self.dims.len() as u64, limit: RANK_MAX as u64 });
        }
        Ok(())
    }

    /// The tensor as a range to read from, or `None` when it is small or can only be decoded as a whole.
    pub fn stored(self, files: &dyn ModelFiles) -> Result<Option<StoredTensor>, EngineError> {
        if self.scattered && !self.external {
            return Ok(None);
        }
        let place = format!("tensor {:?}", self.name);
        let Some(element_type) = element_type(&place, self.data_type)? else { return Ok(None) };
        let (shape, count) = shape(&place, &self.dims)?;
        let bytes = byte_count(&place, element_type, count)?;
        if self.external {
            let found = external::locate(&place, &self.external_data, bytes, files)?;
            let (location, range) = (Some(found.location), found.range);
            let encoding = Encoding::Raw;
            return Ok(Some(StoredTensor { name: self.name, element_type, shape, bytes, location, range, encoding }));
        }
        if bytes <= INLINE_TENSOR_BYTES_MAX {
            return Ok(None);
        }
        let Some((field, range)) = self.data else {
            return Err(EngineError::wrong_length(place, bytes, 0));
        };
        if !field_holds(field, element_type) {
            return Err(EngineError::invalid(place, format!("data field {field} can't hold {element_type}")));
        }
        let encoding = if matches!(field, 5 | 7 | 11) { Encoding::Varints } else { Encoding::Raw };
        let wrong_length = match encoding {
            Encoding::Raw => range.length != bytes,
            // Each varint has at least a byte: this bounds the memory asked for by what the file holds.
            Encoding::Varints => range.length < count,
        };
        if wrong_length {
            let got_bytes = range.length;
            return Err(EngineError::wrong_length(place, bytes, got_bytes));
        }
        Ok(Some(StoredTensor { name: self.name, element_type, shape, bytes, location: None, range, encoding }))
    }
}

/// Key and value of a `StringStringEntryProto`.
fn read_entry(wire: &mut Wire<'_>, range: Range) -> Result<(String, String), EngineError> {
    let mut entry = (String::new(), String::new());
    let mut offset = range.offset;
    while offset < range.end() {
        let field = wire.field(offset, range.end())?;
        offset = field.range.end();
        match field.number {
            1 => entry.0 = wire.text_of(&field, EXTERNAL_TEXT_BYTES_MAX)?,
            2 => entry.1 = wire.text_of(&field, EXTERNAL_TEXT_BYTES_MAX)?,
            _ => {}
        }
    }
    Ok(entry)
}
