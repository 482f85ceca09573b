//! What a reference operator is given: its node, with attributes, and its inputs.

use super::array::{Array, Result};
use crate::ElementType;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto};

/// A node and the values of its inputs.
pub(crate) struct Call<'a> {
    pub node: &'a NodeProto,
    /// Version of the operator set that the node's operator is of.
    pub opset: i64,
    pub inputs: &'a [Option<Array>],
}

impl<'a> Call<'a> {
    /// An input that must be there.
    pub fn input(&self, index: usize) -> Result<&'a Array> {
        self.optional(index).ok_or_else(|| format!("input {index} is missing"))
    }

    pub fn optional(&self, index: usize) -> Option<&'a Array> {
        self.inputs.get(index).and_then(Option::as_ref)
    }

    /// All inputs that are there.
    pub fn all(&self) -> Vec<&'a Array> {
        self.inputs.iter().flatten().collect()
    }

    pub fn attribute(&self, name: &str) -> Option<&'a AttributeProto> {
        self.node.attribute.iter().find(|attribute| attribute.name == name)
    }

    pub fn int(&self, name: &str, otherwise: i64) -> i64 {
        self.attribute(name).map_or(otherwise, |attribute| attribute.i)
    }

    pub fn flag(&self, name: &str) -> bool {
        self.int(name, 0) != 0
    }

    pub fn float(&self, name: &str, otherwise: f32) -> f64 {
        self.attribute(name).map_or(otherwise, |attribute| attribute.f).into()
    }

    pub fn ints(&self, name: &str) -> Option<&'a [i64]> {
        self.attribute(name).map(|attribute| &*attribute.ints)
    }

    pub fn floats(&self, name: &str) -> Option<Vec<f64>> {
        self.attribute(name).map(|attribute| attribute.floats.iter().map(|value| f64::from(*value)).collect())
    }

    pub fn text(&self, name: &str, otherwise: &'a str) -> &'a str {
        self.attribute(name).and_then(|attribute| std::str::from_utf8(&attribute.s).ok()).unwrap_or(otherwise)
    }

    pub fn texts(&self, name: &str) -> Vec<String> {
        let texts = self.attribute(name).map_or(&[][..], |attribute| &attribute.strings);
        texts.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect()
    }

    pub fn tensor(&self, name: &str) -> Option<Result<Array>> {
        self.attribute(name).and_then(|attribute| attribute.t.as_ref()).map(from_proto)
    }

    pub fn graph(&self, name: &str) -> Result<&'a GraphProto> {
        let graph = self.attribute(name).and_then(|attribute| attribute.g.as_ref());
        graph.ok_or_else(|| format!("the graph {name} is missing"))
    }

    /// The element type that an attribute names; `otherwise` when it is not there.
    pub fn element_type(&self, name: &str, otherwise: ElementType) -> Result<ElementType> {
        match self.attribute(name) {
            None => Ok(otherwise),
            Some(attribute) => {
                let found = i32::try_from(attribute.i).ok().and_then(ElementType::from_onnx);
                found.ok_or_else(|| format!("elements of ONNX data type {} are not supported", attribute.i))
            }
        }
    }

    /// Numbers that are an attribute in older versions of the operator and an input in newer ones.
    pub fn ints_or_input(&self, name: &str, index: usize) -> Option<Vec<i64>> {
        self.ints(name).map(<[i64]>::to_vec).or_else(|| self.optional(index).map(Array::i64s))
    }
}

/// A tensor of the file, whose values are in `raw_data` since it was read.
pub(crate) fn from_proto(tensor: &TensorProto) -> Result<Array> {
    let element_type = ElementType::from_onnx(tensor.data_type)
        .ok_or_else(|| format!("elements of ONNX data type {} are not supported", tensor.data_type))?;
    Array::new(element_type, super::array::sizes(&tensor.dims)?, tensor.raw_data.clone())
}
