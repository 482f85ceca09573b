//! ONNX files made in memory, and what the tests need to load and run them.

#![allow(dead_code)]

pub mod decoder;

use onnx_engine::{ByteSource, ElementType, EngineError, LoadOptions, Loader, Meter, ModelFiles, Plan, Step, Tensor};
use prost::Message;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto, type_proto,
};

/// `TensorProto.DataType` numbers.
pub const FLOAT: i32 = 1;
pub const INT64: i32 = 7;

#[derive(Clone, Default)]
pub struct Files {
    pub onnx: Vec<u8>,
    pub external: BTreeMap<String, Vec<u8>>,
}

impl ModelFiles for Files {
    fn onnx(&self) -> &dyn ByteSource {
        &self.onnx
    }

    fn external(&self, location: &str) -> Option<&dyn ByteSource> {
        self.external.get(location).map(|file| file as &dyn ByteSource)
    }
}

/// Counts `step` at every look.
pub struct CountingMeter {
    pub step: u64,
    count: Cell<u64>,
}

impl CountingMeter {
    pub fn new(step: u64) -> Self {
        CountingMeter { step, count: Cell::new(0) }
    }
}

impl Meter for CountingMeter {
    fn spent(&self) -> u64 {
        self.count.set(self.count.get() + self.step);
        self.count.get()
    }
}

/// Never spends anything.
pub struct Free;

impl Meter for Free {
    fn spent(&self) -> u64 {
        0
    }
}

pub enum Size {
    Fixed(i64),
    Named(&'static str),
    Unknown,
}

pub fn value(name: &str, elem_type: i32, sizes: &[Size]) -> ValueInfoProto {
    let dim = sizes.iter().map(|size| {
        let value = match size {
            Size::Fixed(size) => Some(dimension::Value::DimValue(*size)),
            Size::Named(name) => Some(dimension::Value::DimParam(name.to_string())),
            Size::Unknown => None,
        };
        Dimension { value, ..Dimension::default() }
    });
    let shape = Some(TensorShapeProto { dim: dim.collect() });
    let tensor = type_proto::Value::TensorType(type_proto::Tensor { elem_type, shape });
    let r#type = Some(TypeProto { value: Some(tensor), ..TypeProto::default() });
    ValueInfoProto { name: name.into(), r#type, ..ValueInfoProto::default() }
}

pub fn fixed(name: &str, sizes: &[i64]) -> ValueInfoProto {
    value(name, FLOAT, &sizes.iter().map(|size| Size::Fixed(*size)).collect::<Vec<_>>())
}

pub fn tensor(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    let raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    TensorProto { name: name.into(), dims: dims.to_vec(), data_type: FLOAT, raw_data, ..TensorProto::default() }
}

pub fn ints(name: &str, dims: &[i64], values: &[i64]) -> TensorProto {
    let int64_data = values.to_vec();
    TensorProto { name: name.into(), dims: dims.to_vec(), data_type: INT64, int64_data, ..TensorProto::default() }
}

/// Moves a tensor's bytes to an external file, after `padding` bytes.
pub fn external(mut tensor: TensorProto, location: &str, padding: usize) -> (TensorProto, Vec<u8>) {
    let mut file = vec![0x55; padding];
    let bytes = std::mem::take(&mut tensor.raw_data);
    let entry = |key: &str, value: String| StringStringEntryProto { key: key.into(), value };
    tensor.external_data = vec![
        entry("location", location.into()),
        entry("offset", padding.to_string()),
        entry("length", bytes.len().to_string()),
    ];
    tensor.data_location = Some(1);
    file.extend(bytes);
    (tensor, file)
}

pub fn node(op_type: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        op_type: op_type.into(),
        input: inputs.iter().map(|name| name.to_string()).collect(),
        output: outputs.iter().map(|name| name.to_string()).collect(),
        name: outputs.first().map_or(String::new(), |output| format!("{output}_node")),
        ..NodeProto::default()
    }
}

pub trait WithAttribute {
    fn ints(self, name: &str, values: &[i64]) -> Self;
    fn int(self, name: &str, value: i64) -> Self;
    fn tensor(self, name: &str, value: TensorProto) -> Self;
}

impl WithAttribute for NodeProto {
    fn ints(mut self, name: &str, values: &[i64]) -> Self {
        self.attribute.push(AttributeProto {
            name: name.into(),
            r#type: attribute_proto::AttributeType::Ints as i32,
            ints: values.to_vec(),
            ..AttributeProto::default()
        });
        self
    }

    fn int(mut self, name: &str, i: i64) -> Self {
        let r#type = attribute_proto::AttributeType::Int as i32;
        self.attribute.push(AttributeProto { name: name.into(), r#type, i, ..AttributeProto::default() });
        self
    }

    fn tensor(mut self, name: &str, value: TensorProto) -> Self {
        let r#type = attribute_proto::AttributeType::Tensor as i32;
        self.attribute.push(AttributeProto { name: name.into(), r#type, t: Some(value), ..AttributeProto::default() });
        self
    }
}

pub fn encode(graph: GraphProto) -> Vec<u8> {
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 13 }],
        producer_name: "onnx-engine tests".into(),
        graph: Some(graph),
        ..ModelProto::default()
    }
    .encode_to_vec()
}

/// A fixed sequence of numbers from -1 to 1.
pub fn numbers(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Convolution 3x3 with padding, Relu, 2x2 max pooling, Gemm, Softmax: images [N, 2, 8, 8] to ten classes.
///
/// The Gemm's weight (10 x 64 values) is larger than what is kept in the graph.
pub fn cnn_graph(batch: Size) -> GraphProto {
    GraphProto {
        name: "cnn".into(),
        node: vec![
            node("Conv", &["image", "conv_w", "conv_b"], &["conv"])
                .ints("pads", &[1, 1, 1, 1])
                .ints("kernel_shape", &[3, 3]),
            node("Relu", &["conv"], &["relu"]),
            node("MaxPool", &["relu"], &["pool"]).ints("kernel_shape", &[2, 2]).ints("strides", &[2, 2]),
            node("Flatten", &["pool"], &["flat"]).int("axis", 1),
            node("Gemm", &["flat", "gemm_w", "gemm_b"], &["logits"]).int("transB", 1),
            node("Softmax", &["logits"], &["probabilities"]).int("axis", 1),
        ],
        initializer: vec![
            tensor("conv_w", &[8, 2, 3, 3], &numbers(1, 144)),
            tensor("conv_b", &[8], &numbers(2, 8)),
            tensor("gemm_w", &[10, 128], &numbers(3, 1280)),
            tensor("gemm_b", &[10], &numbers(4, 10)),
        ],
        input: vec![value("image", FLOAT, &[batch, Size::Fixed(2), Size::Fixed(8), Size::Fixed(8)])],
        output: vec![
            value("probabilities", FLOAT, &[Size::Unknown, Size::Fixed(10)]),
            value("logits", FLOAT, &[Size::Unknown, Size::Fixed(10)]),
        ],
        ..GraphProto::default()
    }
}

/// Repeats each of N rows three times, by a shape computed in float32: sizes that tract loses track of while N is
/// free. What it adds to them is the beginning of a weight that is not kept in the graph.
pub fn repeat_rows() -> GraphProto {
    let mut large = vec![0.0; 1200];
    large[2..6].copy_from_slice(&[10.0, 10.0, 20.0, 20.0]);
    GraphProto {
        node: vec![
            node("Slice", &["large", "zero", "one"], &["weight"]),
            node("Shape", &["x"], &["shape"]),
            node("Cast", &["shape"], &["shape_32"]).int("to", FLOAT.into()),
            node("Slice", &["shape_32", "zero", "one"], &["rows"]),
            node("Concat", &["rows", "three_two"], &["wide"]).int("axis", 0),
            node("Cast", &["wide"], &["wide_64"]).int("to", INT64.into()),
            node("Unsqueeze", &["x", "one"], &["column"]),
            node("Expand", &["column", "wide_64"], &["repeated"]),
            node("Add", &["repeated", "weight"], &["y"]),
        ],
        initializer: vec![
            ints("zero", &[1], &[0]),
            ints("one", &[1], &[1]),
            tensor("three_two", &[2], &[3.0, 2.0]),
            tensor("large", &[200, 3, 2], &large),
        ],
        input: vec![value("x", FLOAT, &[Size::Named("N"), Size::Fixed(2)])],
        output: vec![value("y", FLOAT, &[Size::Named("N"), Size::Fixed(3), Size::Fixed(2)])],
        ..GraphProto::default()
    }
}

/// The logits of one image, computed from the definition of each operator.
pub fn cnn_logits(image: &[f32]) -> Vec<f64> {
    let (conv_w, conv_b) = (numbers(1, 144), numbers(2, 8));
    let (gemm_w, gemm_b) = (numbers(3, 1280), numbers(4, 10));
    let at = |channel: usize, row: i32, column: i32| {
        let inside = (0..8).contains(&row) && (0..8).contains(&column);
        if inside { f64::from(image[channel * 64 + row as usize * 8 + column as usize]) } else { 0.0 }
    };
    let conv = |out: usize, row: i32, column: i32| {
        let mut sum = f64::from(conv_b[out]);
        for channel in 0..2 {
            for (y, x) in (0..3).flat_map(|y| (0..3).map(move |x| (y, x))) {
                let weight = conv_w[out * 18 + channel * 9 + (y * 3 + x) as usize];
                sum += at(channel, row + y - 1, column + x - 1) * f64::from(weight);
            }
        }
        sum.max(0.0)
    };
    let mut flat = Vec::new();
    for out in 0..8 {
        for (row, column) in (0..4).flat_map(|row| (0..4).map(move |column| (row, column))) {
            let window = [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(y, x)| conv(out, 2 * row + y, 2 * column + x));
            flat.push(window.into_iter().fold(f64::MIN, f64::max));
        }
    }
    let dot = |class: usize| flat.iter().zip(&gemm_w[class * 128..]).map(|(a, b)| a * f64::from(*b)).sum::<f64>();
    (0..10).map(|class| dot(class) + f64::from(gemm_b[class])).collect()
}

pub fn files(graph: GraphProto) -> Files {
    Files { onnx: encode(graph), ..Files::default() }
}

pub fn load(files: Files) -> Result<Arc<Plan>, EngineError> {
    let mut loader = Loader::new(Box::new(files), LoadOptions::default())?;
    while loader.step(&Free, u64::MAX)? != Step::Done {}
    loader.finish()
}

pub fn f32_input(shape: &[u64], values: &[f32]) -> Tensor {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::from_bytes(ElementType::Float32, shape, &bytes).unwrap()
}
