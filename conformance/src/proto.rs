//! The fields of onnx.proto3 that a case is read from; the rest of a file is passed over.

use anyhow::{Context, Result, ensure};
use onnx_engine::{ElementType, Tensor};
use prost::Message;

#[derive(Clone, PartialEq, Message)]
pub struct Model {
    #[prost(message, optional, tag = "7")]
    pub graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSet>,
}

#[derive(Clone, PartialEq, Message)]
pub struct OperatorSet {
    #[prost(string, tag = "1")]
    pub domain: String,
    #[prost(int64, tag = "2")]
    pub version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<Node>,
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Node {
    #[prost(string, tag = "4")]
    pub op_type: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct ValueInfo {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub r#type: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Type {
    /// Present when the value is a plain tensor.
    #[prost(message, optional, tag = "1")]
    pub tensor: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TensorType {
    #[prost(int32, tag = "1")]
    pub elem_type: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    pub dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    pub int32_data: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    #[prost(bytes = "vec", tag = "9")]
    pub raw_data: Vec<u8>,
    #[prost(double, repeated, tag = "10")]
    pub double_data: Vec<f64>,
    #[prost(uint64, repeated, tag = "11")]
    pub uint64_data: Vec<u64>,
}

/// The element type of a `TensorProto.DataType` number; `None` for what is no plain number.
pub fn element_type(data_type: i32) -> Option<ElementType> {
    Some(match data_type {
        1 => ElementType::Float32,
        2 => ElementType::Uint8,
        3 => ElementType::Int8,
        4 => ElementType::Uint16,
        5 => ElementType::Int16,
        6 => ElementType::Int32,
        7 => ElementType::Int64,
        9 => ElementType::Bool,
        10 => ElementType::Float16,
        11 => ElementType::Float64,
        12 => ElementType::Uint32,
        13 => ElementType::Uint64,
        _ => return None,
    })
}

impl TensorProto {
    /// # Errors
    /// When the data are not as many as the shape needs, or of a type that is no plain number.
    pub fn tensor(&self) -> Result<Tensor> {
        let element_type =
            element_type(self.data_type).with_context(|| format!("data type {} of a case's tensor", self.data_type))?;
        let shape: Vec<u64> = self.dims.iter().map(|size| u64::try_from(*size)).collect::<Result<_, _>>()?;
        let mut bytes = self.raw_data.clone();
        if bytes.is_empty() {
            let size = element_type.size_bytes() as usize;
            bytes.extend(self.float_data.iter().flat_map(|value| value.to_le_bytes()));
            bytes.extend(self.double_data.iter().flat_map(|value| value.to_le_bytes()));
            // The low bytes of a wider number are the narrower one's.
            bytes.extend(self.int32_data.iter().flat_map(|value| value.to_le_bytes().into_iter().take(size)));
            bytes.extend(self.int64_data.iter().flat_map(|value| value.to_le_bytes().into_iter().take(size)));
            bytes.extend(self.uint64_data.iter().flat_map(|value| value.to_le_bytes().into_iter().take(size)));
        }
        Ok(Tensor::from_bytes(element_type, &shape, &bytes)?)
    }
}

impl Model {
    /// Version of the default operator set; `None` when the model takes no operators of it.
    pub fn opset(&self) -> Option<i64> {
        let default = |set: &&OperatorSet| set.domain.is_empty() || set.domain == "ai.onnx";
        self.opset_import.iter().find(default).map(|set| set.version)
    }

    /// # Errors
    /// When the model has no graph.
    pub fn graph(&self) -> Result<&Graph> {
        self.graph.as_ref().context("the model has no graph")
    }

    /// Whether every declared input and output is a plain tensor of numbers.
    pub fn has_plain_types(&self) -> Result<bool> {
        let graph = self.graph()?;
        ensure!(!graph.output.is_empty(), "the graph declares no outputs");
        let is_plain = |value: &ValueInfo| {
            let tensor = value.r#type.as_ref().and_then(|declared| declared.tensor.as_ref());
            tensor.is_some_and(|tensor| element_type(tensor.elem_type).is_some())
        };
        Ok(graph.input.iter().chain(&graph.output).all(is_plain))
    }
}
