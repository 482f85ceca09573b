//! Dense tensors at the engine's door.

use crate::{ElementType, EngineError, READ_BYTES_MAX};
use half::f16;
use tract_onnx::prelude::{DatumType, IntoTensor, TValue, Tensor as TractTensor};

/// Most bytes of a tensor given or made here.
pub const TENSOR_BYTES_MAX: u64 = 1 << 30;

/// Alignment of a tensor's elements: that of a 128-bit vector, and more than any element type's.
const ALIGNMENT_BYTES: usize = 16;

/// A dense tensor: row-major elements, little-endian.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    element_type: ElementType,
    inner: TractTensor,
}

impl Tensor {
    /// A tensor of `shape` from its elements' little-endian bytes.
    ///
    /// Fails with [`EngineError::TensorLength`] unless there are exactly as many bytes as the shape needs, and with
    /// [`EngineError::TooLarge`] beyond [`TENSOR_BYTES_MAX`]. Any bool byte but 0 becomes 1.
    pub fn from_bytes(element_type: ElementType, shape: &[u64], bytes: &[u8]) -> Result<Tensor, EngineError> {
        let expected_bytes = byte_count(element_type, shape)?;
        if expected_bytes != bytes.len() as u64 {
            let got_bytes = bytes.len() as u64;
            return Err(EngineError::TensorLength { name: String::new(), expected_bytes, got_bytes });
        }
        let mut tensor = Self::zeroed(element_type, shape)?;
        for (to, from) in tensor.inner.as_bytes_mut().chunks_mut(READ_BYTES_MAX).zip(bytes.chunks(READ_BYTES_MAX)) {
            to.copy_from_slice(from);
            canonical_bools(element_type, to);
        }
        Ok(tensor)
    }

    /// A float32 tensor of `values`.
    pub fn from_f32(shape: &[u64], values: &[f32]) -> Result<Tensor, EngineError> {
        let expected_bytes = byte_count(ElementType::Float32, shape)?;
        let got_bytes = values.len() as u64 * 4;
        if expected_bytes != got_bytes {
            return Err(EngineError::TensorLength { name: String::new(), expected_bytes, got_bytes });
        }
        let mut tensor = Self::zeroed(ElementType::Float32, shape)?;
        for (to, value) in tensor.inner.as_bytes_mut().as_chunks_mut().0.iter_mut().zip(values) {
            *to = value.to_le_bytes();
        }
        Ok(tensor)
    }

    /// A tensor of zeros, cleared piece by piece.
    pub(crate) fn zeroed(element_type: ElementType, shape: &[u64]) -> Result<Tensor, EngineError> {
        let bytes = byte_count(element_type, shape)?;
        if bytes > TENSOR_BYTES_MAX {
            let place = format!("bytes of a tensor of shape {shape:?}");
            return Err(EngineError::TooLarge { place, value: bytes, limit: TENSOR_BYTES_MAX });
        }
        // Every dimension is at most the byte count, unless another is 0; then a large one is of no use to anyone.
        let shape = shape
            .iter()
            .map(|&dim| usize::try_from(dim).ok().filter(|dim| *dim as u64 <= TENSOR_BYTES_MAX))
            .collect::<Option<Vec<usize>>>()
            .ok_or_else(|| EngineError::invalid(format!("shape {shape:?}"), "a dimension is too large"))?;
        // SAFETY: every element type here is a plain number or bool, for which zero bytes are a value; all bytes are
        // cleared below before anything reads them. The buffer is made for `shape` and the alignment is a power of two.
        let mut inner =
            unsafe { TractTensor::uninitialized_aligned_dt(element_type.to_tract(), &shape, ALIGNMENT_BYTES) }
                .map_err(|error| EngineError::invalid("allocating a tensor", format!("{error:#}")))?;
        for piece in inner.as_bytes_mut().chunks_mut(READ_BYTES_MAX) {
            piece.fill(0);
        }
        Ok(Tensor { element_type, inner })
    }

    pub fn element_type(&self) -> ElementType {
        self.element_type
    }

    pub fn shape(&self) -> Vec<u64> {
        self.inner.shape().iter().map(|&dim| dim as u64).collect()
    }

    /// The elements, row-major, little-endian.
    pub fn bytes(&self) -> &[u8] {
        self.inner.as_bytes()
    }

    /// The elements of a float32 tensor; any other type is an error.
    pub fn to_f32(&self) -> Result<Vec<f32>, EngineError> {
        if self.element_type != ElementType::Float32 {
            return Err(EngineError::Cast { from: self.element_type, to: ElementType::Float32 });
        }
        Ok(self.bytes().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    /// The same values as another type: itself, or uint8 or float16 as float32, both exact.
    ///
    /// Anything else is [`EngineError::Cast`].
    pub fn cast_to(self, element_type: ElementType) -> Result<Tensor, EngineError> {
        if self.element_type == element_type {
            return Ok(self);
        }
        let refused = EngineError::Cast { from: self.element_type, to: element_type };
        if element_type != ElementType::Float32 {
            return Err(refused);
        }
        let mut cast = Self::zeroed(element_type, &self.shape())?;
        let to = cast.inner.as_bytes_mut().as_chunks_mut().0;
        match self.element_type {
            ElementType::Uint8 => {
                for (to, from) in to.iter_mut().zip(self.bytes()) {
                    *to = f32::from(*from).to_le_bytes();
                }
            }
            ElementType::Float16 => {
                for (to, from) in to.iter_mut().zip(self.bytes().as_chunks().0) {
                    *to = f16::from_le_bytes(*from).to_f32_const().to_le_bytes();
                }
            }
            _ => return Err(refused),
        }
        Ok(cast)
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.inner.as_bytes_mut()
    }

    pub(crate) fn into_tract(self) -> TractTensor {
        self.inner
    }

    /// A result of tract's; `None` when it is of a type that has no ONNX counterpart.
    pub(crate) fn from_tract(value: TValue) -> Option<Tensor> {
        let datum_type = value.datum_type();
        let element_type = ElementType::from_tract(datum_type)?;
        if datum_type == DatumType::TDim {
            // Sizes are symbolic numbers in tract, known by the time they are results.
            let inner = value.cast_to_dt(element_type.to_tract()).ok()?.into_owned();
            return Some(Tensor { element_type, inner });
        }
        value.as_plain_ram()?;
        // A quantised type has the bytes of its plain type and a scale beside them.
        if value.is_exclusive() && datum_type == element_type.to_tract() {
            return Some(Tensor { element_type, inner: value.into_tensor() });
        }
        let shape: Vec<u64> = value.shape().iter().map(|&dim| dim as u64).collect();
        let mut copy = Self::zeroed(element_type, &shape).ok()?;
        let pieces = value.as_bytes().chunks(READ_BYTES_MAX);
        copy.bytes_mut().chunks_mut(READ_BYTES_MAX).zip(pieces).for_each(|(to, from)| to.copy_from_slice(from));
        Some(copy)
    }
}

/// Bytes of a tensor; fails when their number overflows.
fn byte_count(element_type: ElementType, shape: &[u64]) -> Result<u64, EngineError> {
    shape
        .iter()
        .try_fold(element_type.size_bytes(), |bytes, &dim| bytes.checked_mul(dim))
        .ok_or_else(|| EngineError::invalid(format!("shape {shape:?}"), "its number of elements overflows"))
}

/// Turns any byte but 0 into 1 where elements are bool: other values are not a bool in Rust.
pub(crate) fn canonical_bools(element_type: ElementType, bytes: &mut [u8]) {
    if element_type == ElementType::Bool {
        bytes.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_as_given() {
        let bytes: Vec<u8> = (0..24).collect();
        let tensor = Tensor::from_bytes(ElementType::Int32, &[2, 3], &bytes).unwrap();
        assert_eq!((tensor.bytes(), tensor.shape()), (&*bytes, vec![2, 3]));
        let scalar = Tensor::from_bytes(ElementType::Float64, &[], &1.5f64.to_le_bytes()).unwrap();
        assert_eq!(scalar.shape(), Vec::<u64>::new());
        let empty = Tensor::from_bytes(ElementType::Float32, &[0, 3], &[]).unwrap();
        assert_eq!(empty.bytes(), &[] as &[u8]);
        let bools = Tensor::from_bytes(ElementType::Bool, &[3], &[0, 1, 255]).unwrap();
        assert_eq!(bools.bytes(), &[0, 1, 1]);
    }

    #[test]
    fn refuses_bytes_that_do_not_fit_the_shape() {
        let wrong = Tensor::from_bytes(ElementType::Float32, &[2], &[0; 7]).unwrap_err();
        assert_eq!(wrong, EngineError::TensorLength { name: String::new(), expected_bytes: 8, got_bytes: 7 });
        assert!(Tensor::from_bytes(ElementType::Float32, &[u64::MAX, 2], &[]).is_err());
        assert!(Tensor::from_bytes(ElementType::Float32, &[1 << 40, 0], &[]).is_err());
        assert!(matches!(Tensor::zeroed(ElementType::Uint8, &[1 << 31]), Err(EngineError::TooLarge { .. })));
    }

    #[test]
    fn casts_are_exact() {
        let bytes = Tensor::from_bytes(ElementType::Uint8, &[3], &[0, 128, 255]).unwrap();
        assert_eq!(bytes.cast_to(ElementType::Float32).unwrap().to_f32().unwrap(), [0.0, 128.0, 255.0]);
        // 1.0, the largest finite value, the smallest subnormal and infinity, as IEEE 754 binary16.
        let halves: Vec<u8> = [0x3c00u16, 0x7bff, 0x0001, 0x7c00].iter().flat_map(|half| half.to_le_bytes()).collect();
        let halves = Tensor::from_bytes(ElementType::Float16, &[4], &halves).unwrap();
        let values = halves.cast_to(ElementType::Float32).unwrap().to_f32().unwrap();
        assert_eq!(values, [1.0, 65504.0, 2f32.powi(-24), f32::INFINITY]);
        let ints = Tensor::from_bytes(ElementType::Int64, &[1], &[0; 8]).unwrap();
        let refused = EngineError::Cast { from: ElementType::Int64, to: ElementType::Float32 };
        assert_eq!(ints.cast_to(ElementType::Float32), Err(refused));
    }
}
