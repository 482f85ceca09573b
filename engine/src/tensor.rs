//! Dense tensors at the engine's door.

use crate::{ElementType, EngineError};

/// A dense tensor: row-major elements, little-endian.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {}

impl Tensor {
    /// A tensor of `shape` from its elements' little-endian bytes. Fails unless there are exactly as many as needed.
    pub fn from_bytes(element_type: ElementType, shape: &[u64], bytes: &[u8]) -> Result<Tensor, EngineError> {
        let _ = (element_type, shape, bytes);
        todo!()
    }

    pub fn element_type(&self) -> ElementType {
        todo!()
    }

    pub fn shape(&self) -> Vec<u64> {
        todo!()
    }

    /// The elements, row-major, little-endian.
    pub fn bytes(&self) -> &[u8] {
        todo!()
    }

    /// The elements of a float32 tensor.
    pub fn as_f32(&self) -> Result<&[f32], EngineError> {
        todo!()
    }

    /// The same values as another type: itself, or uint8 or float16 as float32 (both exact).
    pub fn cast_to(self, element_type: ElementType) -> Result<Tensor, EngineError> {
        let _ = element_type;
        todo!()
    }
}
