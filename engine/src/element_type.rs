//! Element types of tensors.

use std::fmt;
use tract_onnx::prelude::DatumType;

/// Element types of tensors, named as in ONNX.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ElementType {
    Float32,
    Float64,
    Float16,
    Uint8,
    Int8,
    Uint16,
    Int16,
    Uint32,
    Int32,
    Uint64,
    Int64,
    /// One byte an element, 0 or 1.
    Bool,
}

impl ElementType {
    /// Bytes of one element.
    pub const fn size_bytes(self) -> u64 {
        match self {
            Self::Uint8 | Self::Int8 | Self::Bool => 1,
            Self::Float16 | Self::Uint16 | Self::Int16 => 2,
            Self::Float32 | Self::Uint32 | Self::Int32 => 4,
            Self::Float64 | Self::Uint64 | Self::Int64 => 8,
        }
    }

    /// The type of an ONNX `TensorProto.DataType` number, if tensors of that type can be used here.
    pub(crate) const fn from_onnx(data_type: i32) -> Option<Self> {
        // Numbers of `TensorProto.DataType` in onnx.proto3.
        Some(match data_type {
            1 => Self::Float32,
            2 => Self::Uint8,
            3 => Self::Int8,
            4 => Self::Uint16,
            5 => Self::Int16,
            6 => Self::Int32,
            7 => Self::Int64,
            9 => Self::Bool,
            10 => Self::Float16,
            11 => Self::Float64,
            12 => Self::Uint32,
            13 => Self::Uint64,
            _ => return None,
        })
    }

    /// The number of this type in ONNX's `TensorProto.DataType`.
    pub(crate) const fn to_onnx(self) -> i32 {
        match self {
            Self::Float32 => 1,
            Self::Uint8 => 2,
            Self::Int8 => 3,
            Self::Uint16 => 4,
            Self::Int16 => 5,
            Self::Int32 => 6,
            Self::Int64 => 7,
            Self::Bool => 9,
            Self::Float16 => 10,
            Self::Float64 => 11,
            Self::Uint32 => 12,
            Self::Uint64 => 13,
        }
    }

    pub(crate) const fn to_tract(self) -> DatumType {
        match self {
            Self::Float32 => DatumType::F32,
            Self::Float64 => DatumType::F64,
            Self::Float16 => DatumType::F16,
            Self::Uint8 => DatumType::U8,
            Self::Int8 => DatumType::I8,
            Self::Uint16 => DatumType::U16,
            Self::Int16 => DatumType::I16,
            Self::Uint32 => DatumType::U32,
            Self::Int32 => DatumType::I32,
            Self::Uint64 => DatumType::U64,
            Self::Int64 => DatumType::I64,
            Self::Bool => DatumType::Bool,
        }
    }

    pub(crate) fn from_tract(datum_type: DatumType) -> Option<Self> {
        Some(match datum_type.unquantized() {
            DatumType::F32 => Self::Float32,
            DatumType::F64 => Self::Float64,
            DatumType::F16 => Self::Float16,
            DatumType::U8 => Self::Uint8,
            DatumType::I8 => Self::Int8,
            DatumType::U16 => Self::Uint16,
            DatumType::I16 => Self::Int16,
            DatumType::U32 => Self::Uint32,
            DatumType::I32 => Self::Int32,
            DatumType::U64 => Self::Uint64,
            // Shapes are computed symbolically (`TDim`) inside tract; ONNX types them int64.
            DatumType::I64 | DatumType::TDim => Self::Int64,
            DatumType::Bool => Self::Bool,
            _ => return None,
        })
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float32 => "float32",
            Self::Float64 => "float64",
            Self::Float16 => "float16",
            Self::Uint8 => "uint8",
            Self::Int8 => "int8",
            Self::Uint16 => "uint16",
            Self::Int16 => "int16",
            Self::Uint32 => "uint32",
            Self::Int32 => "int32",
            Self::Uint64 => "uint64",
            Self::Int64 => "int64",
            Self::Bool => "bool",
        })
    }
}
