//! Values of a `TensorProto`, whichever of its data fields they are in.

use super::RANK_MAX;
use crate::tensor::canonical_bools;
use crate::{ElementType, EngineError};
use tract_onnx::pb::TensorProto;

/// `TensorProto.DataType` of text.
pub(super) const DATA_TYPE_STRING: i32 = 8;

/// The element type of a tensor called `place`; `None` for text.
pub(super) fn element_type(place: &str, data_type: i32) -> Result<Option<ElementType>, EngineError> {
    if data_type == DATA_TYPE_STRING {
        return Ok(None);
    }
    ElementType::from_onnx(data_type).map(Some).ok_or_else(|| EngineError::Unsupported {
        node: place.to_string(),
        operator: "tensor".into(),
        reason: format!("elements of ONNX data type {data_type} are not supported"),
    })
}

/// The shape and the number of elements of `dims`.
pub(super) fn shape(place: &str, dims: &[i64]) -> Result<(Vec<u64>, u64), EngineError> {
    if dims.len() > RANK_MAX {
        return Err(EngineError::TooLarge {
            place: format!("{place}: axes"),
            value: dims.len() as u64,
            limit: RANK_MAX as u64,
        });
    }
    let mut shape = Vec::with_capacity(dims.len());
    let mut count = 1u64;
    for &dim in dims {
        let dim =
            u64::try_from(dim).map_err(|_| EngineError::invalid(place, format!("dimension {dim} is negative")))?;
        count = count
            .checked_mul(dim)
            .ok_or_else(|| EngineError::invalid(place, format!("the number of elements of {dims:?} overflows")))?;
        shape.push(dim);
    }
    Ok((shape, count))
}

/// Bytes of `count` elements.
pub(super) fn byte_count(place: &str, element_type: ElementType, count: u64) -> Result<u64, EngineError> {
    count
        .checked_mul(element_type.size_bytes())
        .filter(|bytes| *bytes <= isize::MAX as u64)
        .ok_or_else(|| EngineError::invalid(place, format!("{count} elements of {element_type} overflow")))
}

/// Whether elements of that type may be in that data field of a `TensorProto` (numbers as in onnx.proto3).
pub(super) fn field_holds(field: u32, element_type: ElementType) -> bool {
    use ElementType::*;
    match field {
        4 => element_type == Float32,
        5 => matches!(element_type, Int32 | Int16 | Int8 | Uint16 | Uint8 | Bool | Float16),
        7 => element_type == Int64,
        9 => true,
        10 => element_type == Float64,
        11 => matches!(element_type, Uint32 | Uint64),
        _ => false,
    }
}

/// The element that a varint stands for: its little-endian bytes come first, as many as the type has.
pub(crate) fn element_of_varint(place: &str, element_type: ElementType, value: u64) -> Result<[u8; 8], EngineError> {
    use ElementType::*;
    let signed = value as i64;
    let fits = match element_type {
        Int8 => i8::try_from(signed).is_ok(),
        Int16 => i16::try_from(signed).is_ok(),
        Int32 => i32::try_from(signed).is_ok(),
        Uint8 => u8::try_from(signed).is_ok(),
        Uint16 | Float16 => u16::try_from(signed).is_ok(),
        Uint32 => u32::try_from(value).is_ok(),
        Bool => value <= 1,
        Int64 | Uint64 => true,
        Float32 | Float64 => false,
    };
    if !fits {
        return Err(EngineError::invalid(place, format!("the value {signed} is out of the range of {element_type}")));
    }
    // Two's complement: the low bytes of the 64-bit value are the narrower type's.
    Ok(value.to_le_bytes())
}

/// A varint of which some bytes have been read.
#[derive(Default)]
pub(crate) struct PartialVarint {
    value: u64,
    bytes: u32,
}

impl PartialVarint {
    /// Takes the next byte; the value once it is whole.
    pub fn push(&mut self, place: &str, byte: u8) -> Result<Option<u64>, EngineError> {
        // Ten bytes of seven bits: of the tenth only one bit is left.
        if self.bytes == 9 && byte > 1 {
            return Err(EngineError::invalid(place, "a varint exceeds 64 bits"));
        }
        self.value |= u64::from(byte & 0x7f) << (7 * self.bytes);
        self.bytes += 1;
        if byte & 0x80 != 0 {
            return Ok(None);
        }
        Ok(Some(std::mem::take(self).value))
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

/// Checks a tensor that is kept in the graph and brings its values, wherever they are, into `raw_data`: tract reads the
/// other fields differently from the standard for some types, and panics on types it does not know.
pub(super) fn normalise(place: &str, tensor: &mut TensorProto) -> Result<(), EngineError> {
    let element_type = element_type(place, tensor.data_type)?;
    let (shape, count) = shape(place, &tensor.dims)?;
    if tensor.segment.is_some() {
        return Err(EngineError::invalid(place, "tensors in segments are not supported"));
    }
    let Some(element_type) = element_type else {
        if tensor.string_data.len() as u64 != count {
            let found = tensor.string_data.len();
            return Err(EngineError::invalid(place, format!("{found} strings for a tensor of shape {shape:?}")));
        }
        return Ok(());
    };
    let expected_bytes = byte_count(place, element_type, count)?;
    let mut bytes = std::mem::take(&mut tensor.raw_data);
    if bytes.is_empty() {
        let wrong_field = |field: u32, empty: bool| !empty && !field_holds(field, element_type);
        for (field, empty) in [
            (4, tensor.float_data.is_empty()),
            (5, tensor.int32_data.is_empty()),
            (7, tensor.int64_data.is_empty()),
            (10, tensor.double_data.is_empty()),
            (11, tensor.uint64_data.is_empty()),
            (6, tensor.string_data.is_empty()),
        ] {
            if wrong_field(field, empty) {
                return Err(EngineError::invalid(place, format!("data field {field} can't hold {element_type}")));
            }
        }
        let size = element_type.size_bytes() as usize;
        let push = |value: u64, bytes: &mut Vec<u8>| -> Result<(), EngineError> {
            bytes.extend_from_slice(&element_of_varint(place, element_type, value)?[..size]);
            Ok(())
        };
        tensor.float_data.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        tensor.double_data.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        for &value in &tensor.int32_data {
            push(i64::from(value) as u64, &mut bytes)?;
        }
        for &value in &tensor.int64_data {
            push(value as u64, &mut bytes)?;
        }
        for &value in &tensor.uint64_data {
            push(value, &mut bytes)?;
        }
    }
    if bytes.len() as u64 != expected_bytes {
        return Err(EngineError::wrong_length(place, expected_bytes, bytes.len() as u64));
    }
    canonical_bools(element_type, &mut bytes);
    tensor.float_data = Vec::new();
    tensor.double_data = Vec::new();
    tensor.int32_data = Vec::new();
    tensor.int64_data = Vec::new();
    tensor.uint64_data = Vec::new();
    tensor.raw_data = bytes;
    Ok(())
}
