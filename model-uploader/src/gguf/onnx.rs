//! Writes ONNX files whose weights are made one after another: the file is never in memory whole.
//!
//! The messages are those parts of `onnx.proto` that are written here. In a message the order of fields is free and a
//! repeated one may stand anywhere, so the graph's weights are written behind the rest of it, each straight to the file.

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use std::io::{self, Write};

/// `TensorProto.DataType` numbers.
pub(super) const FLOAT: i32 = 1;
pub(super) const UINT8: i32 = 2;
pub(super) const INT64: i32 = 7;
pub(super) const BOOL: i32 = 9;
pub(super) const FLOAT16: i32 = 10;

/// Name of the file that weights are in when one file can't hold them.
pub const EXTERNAL_FILE: &str = "model.onnx.data";

/// Most bytes that a protobuf file can have.
pub(super) const INLINE_BYTES_MAX: u64 = (1 << 31) - 1;
/// Smaller tensors stay in the ONNX file always, as those that shapes are computed from have to.
const EXTERNAL_BYTES_MIN: u64 = 1024;
/// External weights begin at multiples of it.
const EXTERNAL_ALIGNMENT: u64 = 64;

const IR_VERSION: i64 = 8;
const OPSET: i64 = 17;

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSet>,
}

/// Field of [`Model`] that holds the graph.
const GRAPH_FIELD: u32 = 7;
/// Field of [`Graph`] that holds weights.
const INITIALIZER_FIELD: u32 = 5;
/// Field of [`TensorHead`] that holds the bytes.
const RAW_DATA_FIELD: u32 = 9;

#[derive(Clone, PartialEq, Message)]
struct OperatorSet {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

/// `GraphProto` but for its weights.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<Node>,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<Attribute>,
    #[prost(string, tag = "7")]
    pub domain: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Attribute {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(int64, optional, tag = "3")]
    pub i: Option<i64>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    pub kind: i32,
}

/// `AttributeProto.AttributeType` numbers.
const ATTRIBUTE_INT: i32 = 2;
const ATTRIBUTE_INTS: i32 = 7;

impl Node {
    pub fn new(op_type: &str, inputs: &[&str], output: &str) -> Self {
        Self {
            input: inputs.iter().map(|name| name.to_string()).collect(),
            output: vec![output.to_string()],
            name: output.to_string(),
            op_type: op_type.to_string(),
            ..Self::default()
        }
    }

    pub fn int(mut self, name: &str, value: i64) -> Self {
        let (name, kind) = (name.to_string(), ATTRIBUTE_INT);
        self.attribute.push(Attribute { name, i: Some(value), ints: Vec::new(), kind });
        self
    }

    pub fn ints(mut self, name: &str, values: &[i64]) -> Self {
        let (name, kind) = (name.to_string(), ATTRIBUTE_INTS);
        self.attribute.push(Attribute { name, i: None, ints: values.to_vec(), kind });
        self
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ValueInfo {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value_type: Option<ValueType>,
}

#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(message, optional, tag = "1")]
    tensor_type: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    elem_type: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(int64, optional, tag = "1")]
    dim_value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    dim_param: Option<String>,
}

/// The size of an axis of an input or output.
pub(super) enum Size {
    Known(u64),
    Named(&'static str),
}

impl ValueInfo {
    pub fn new(name: &str, elem_type: i32, sizes: &[Size]) -> Self {
        let dim = sizes.iter().map(|size| match size {
            Size::Known(size) => Dimension { dim_value: Some(*size as i64), dim_param: None },
            Size::Named(name) => Dimension { dim_value: None, dim_param: Some(name.to_string()) },
        });
        let tensor_type = Some(TensorType { elem_type, shape: Some(Shape { dim: dim.collect() }) });
        Self { name: name.to_string(), value_type: Some(ValueType { tensor_type }) }
    }
}

/// `TensorProto` but for its bytes.
#[derive(Clone, PartialEq, Message)]
struct TensorHead {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(message, repeated, tag = "13")]
    external_data: Vec<Entry>,
    #[prost(int32, optional, tag = "14")]
    data_location: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

const EXTERNAL: i32 = 1;

/// A weight whose bytes come when they are written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Initializer {
    pub name: String,
    pub data_type: i32,
    pub dims: Vec<u64>,
}

impl Initializer {
    pub fn bytes(&self) -> u64 {
        let size = match self.data_type {
            FLOAT => 4,
            FLOAT16 => 2,
            INT64 => 8,
            _ => 1,
        };
        self.dims.iter().fold(size, |product, dim| product.saturating_mul(*dim))
    }

    fn head(&self, external_offset: Option<u64>) -> TensorHead {
        let entry = |key: &str, value: String| Entry { key: key.to_string(), value };
        let external_data = external_offset.map(|offset| {
            vec![
                entry("location", EXTERNAL_FILE.to_string()),
                entry("offset", offset.to_string()),
                entry("length", self.bytes().to_string()),
            ]
        });
        TensorHead {
            dims: self.dims.iter().map(|dim| *dim as i64).collect(),
            data_type: self.data_type,
            name: self.name.clone(),
            data_location: external_data.as_ref().map(|_| EXTERNAL),
            external_data: external_data.unwrap_or_default(),
        }
    }
}

fn varint_field_len(field: u32, length: u64) -> u64 {
    let key = u64::from(field << 3 | WireType::LengthDelimited as u32);
    (encoded_len_varint(key) + encoded_len_varint(length)) as u64
}

fn write_key(to: &mut Vec<u8>, field: u32, length: u64) {
    encode_key(field, WireType::LengthDelimited, to);
    encode_varint(length, to);
}

/// Where the weights go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Inline,
    External,
}

/// A whole model, but for the bytes of its weights.
pub(super) struct Layout {
    graph: Graph,
    initializers: Vec<Initializer>,
    pub place: Place,
}

impl Layout {
    /// Weights go into the file if it has at most `inline_bytes_max` bytes then.
    pub fn new(graph: Graph, initializers: Vec<Initializer>, inline_bytes_max: u64) -> Self {
        let mut layout = Self { graph, initializers, place: Place::Inline };
        // The model's own fields and the graph's length take less than a hundred bytes.
        if layout.graph_bytes().saturating_add(100) > inline_bytes_max.min(INLINE_BYTES_MAX) {
            layout.place = Place::External;
        }
        layout
    }

    fn is_external(&self, initializer: &Initializer) -> bool {
        self.place == Place::External && initializer.bytes() >= EXTERNAL_BYTES_MIN
    }

    /// Bytes of the message of a weight, and of those before its own bytes.
    fn inline_tensor(initializer: &Initializer) -> (u64, Vec<u8>) {
        let mut head = initializer.head(None).encode_to_vec();
        write_key(&mut head, RAW_DATA_FIELD, initializer.bytes());
        (head.len() as u64 + initializer.bytes(), head)
    }

    fn graph_bytes(&self) -> u64 {
        let tensors =
            self.heads().map(|(length, _)| varint_field_len(INITIALIZER_FIELD, length).saturating_add(length));
        tensors.fold(self.graph.encoded_len() as u64, u64::saturating_add)
    }

    /// The length of each weight's message, and its bytes without those of the weight where it is inside.
    fn heads(&self) -> impl Iterator<Item = (u64, Vec<u8>)> {
        let mut offset = 0u64;
        self.initializers.iter().map(move |initializer| match self.is_external(initializer) {
            false => Self::inline_tensor(initializer),
            true => {
                let head = initializer.head(Some(offset)).encode_to_vec();
                offset = (offset + initializer.bytes()).next_multiple_of(EXTERNAL_ALIGNMENT);
                (head.len() as u64, head)
            }
        })
    }

    /// Writes the model, and the weights to `external` if they go there. `weight` gives the bytes of the initializer of an
    /// index, asked for in order.
    pub fn write<E: From<io::Error>>(
        &self,
        onnx: &mut dyn Write,
        mut external: Option<&mut dyn Write>,
        weight: &mut dyn FnMut(usize) -> Result<Vec<u8>, E>,
    ) -> Result<(), E> {
        let opset = |domain: &str, version| OperatorSet { domain: domain.to_string(), version };
        let model = Model {
            ir_version: IR_VERSION,
            producer_name: "model-uploader".to_string(),
            opset_import: vec![opset("", OPSET), opset("com.microsoft", 1)],
        };
        let mut head = model.encode_to_vec();
        write_key(&mut head, GRAPH_FIELD, self.graph_bytes());
        head.extend(self.graph.encode_to_vec());
        onnx.write_all(&head)?;
        for (index, (length, bytes)) in self.heads().enumerate() {
            let mut head = Vec::new();
            write_key(&mut head, INITIALIZER_FIELD, length);
            head.extend(bytes);
            onnx.write_all(&head)?;
            let weight = weight(index)?;
            if weight.len() as u64 != self.initializers[index].bytes() {
                return Err(io::Error::other(format!("{:?} has not its bytes", self.initializers[index].name)).into());
            }
            match (self.is_external(&self.initializers[index]), &mut external) {
                (true, Some(external)) => {
                    external.write_all(&weight)?;
                    let padding = weight.len().next_multiple_of(EXTERNAL_ALIGNMENT as usize) - weight.len();
                    external.write_all(&[0; EXTERNAL_ALIGNMENT as usize][..padding])?;
                }
                (true, None) => return Err(io::Error::other("there is no file for external data").into()),
                (false, _) => onnx.write_all(&weight)?,
            }
        }
        Ok(())
    }
}
