//! Tensors of the reference operators: any element type, and arithmetic on all of them by two widest types.

use crate::{ElementType, Tensor};
use half::f16;
use std::sync::Arc;

/// What a reference operator fails with: the reason, to which its node's name is added.
pub(crate) type Result<T> = std::result::Result<T, String>;

/// Most elements that a reference operator makes: with numbers 8 bytes wide, a quarter of a GiB.
pub(crate) const ELEMENTS_MAX: usize = 1 << 25;

/// A dense tensor whose bytes are shared until they are changed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Array {
    pub element_type: ElementType,
    pub shape: Vec<usize>,
    bytes: Arc<Vec<u8>>,
}

/// The elements of an array in the widest type of their kind, in which arithmetic on narrower ones is exact before it
/// is rounded or wrapped.
#[derive(Clone, Debug)]
pub(crate) enum Numbers {
    Floats(Vec<f64>),
    /// Of uint64 the two's complement.
    Integers(Vec<i64>),
}

/// The number of elements of a shape; fails beyond [`ELEMENTS_MAX`].
pub(crate) fn elements(shape: &[usize]) -> Result<usize> {
    let count = shape.iter().try_fold(1usize, |count, size| count.checked_mul(*size));
    let count = count.filter(|count| *count <= ELEMENTS_MAX);
    count.ok_or_else(|| format!("shape {shape:?} has more than {ELEMENTS_MAX} elements"))
}

/// Elements between neighbours along each axis of a row-major array.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
    }
    strides
}

/// For each element of a row-major array of `shape`, in order: `start` plus the sum of its coordinates times `strides`.
pub(crate) fn offsets(shape: &[usize], strides: &[isize], start: isize) -> Result<Vec<usize>> {
    let count = elements(shape)?;
    let mut offsets = Vec::with_capacity(count);
    let mut at = vec![0usize; shape.len()];
    let mut offset = start;
    for _ in 0..count {
        offsets.push(usize::try_from(offset).map_err(|_| "an index is negative".to_string())?);
        for axis in (0..shape.len()).rev() {
            at[axis] += 1;
            offset += strides[axis];
            if at[axis] < shape[axis] {
                break;
            }
            offset -= strides[axis] * shape[axis] as isize;
            at[axis] = 0;
        }
    }
    Ok(offsets)
}

/// The shape to which all of these broadcast.
pub(crate) fn broadcast(shapes: &[&[usize]]) -> Result<Vec<usize>> {
    let rank = shapes.iter().map(|shape| shape.len()).max().unwrap_or(0);
    let mut result = vec![1; rank];
    for shape in shapes {
        for (size, to) in shape.iter().rev().zip(result.iter_mut().rev()) {
            if *size != 1 && *to != 1 && size != to {
                return Err(format!("shapes {shapes:?} do not broadcast"));
            }
            if *size != 1 {
                *to = *size;
            }
        }
    }
    elements(&result)?;
    Ok(result)
}

/// For each element of an array of shape `to`, the element that stands there of one of shape `from` that broadcasts to it.
pub(crate) fn broadcast_offsets(from: &[usize], to: &[usize]) -> Result<Vec<usize>> {
    if broadcast(&[from, to])? != to {
        return Err(format!("shape {from:?} does not broadcast to {to:?}"));
    }
    let missing = to.len() - from.len();
    let own = strides(from);
    let stride = |axis: usize| match axis.checked_sub(missing) {
        Some(axis) if from[axis] != 1 => own[axis] as isize,
        _ => 0,
    };
    offsets(to, &(0..to.len()).map(stride).collect::<Vec<_>>(), 0)
}

/// An axis that may be counted from the end, of `rank` axes.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize> {
    let counted = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
    let found = counted.and_then(|axis| usize::try_from(axis).ok()).filter(|axis| *axis < rank);
    found.ok_or_else(|| format!("axis {axis} of {rank} axes"))
}

/// Sizes from numbers of a tensor or attribute.
pub(crate) fn sizes(numbers: &[i64]) -> Result<Vec<usize>> {
    let size = |number: &i64| usize::try_from(*number).map_err(|_| format!("size {number} in {numbers:?}"));
    numbers.iter().map(size).collect()
}

pub(crate) fn is_float(element_type: ElementType) -> bool {
    matches!(element_type, ElementType::Float16 | ElementType::Float32 | ElementType::Float64)
}

/// Bits of an integer type, and whether it is signed.
pub(crate) fn integer_bits(element_type: ElementType) -> (u32, bool) {
    use ElementType::*;
    let is_signed = matches!(element_type, Int8 | Int16 | Int32 | Int64);
    (8 * element_type.size_bytes() as u32, is_signed)
}

impl Array {
    /// An array of these bytes, of which there must be as many as the shape needs.
    pub fn new(element_type: ElementType, shape: Vec<usize>, bytes: Vec<u8>) -> Result<Array> {
        let expected = elements(&shape)? * element_type.size_bytes() as usize;
        if expected != bytes.len() {
            return Err(format!("{} bytes for shape {shape:?} of {element_type}", bytes.len()));
        }
        Ok(Array { element_type, shape, bytes: Arc::new(bytes) })
    }

    /// An array of these numbers, rounded to the nearest of the type.
    pub fn floats(element_type: ElementType, shape: Vec<usize>, values: &[f64]) -> Result<Array> {
        let bytes = match element_type {
            ElementType::Float64 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            ElementType::Float32 => values.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect(),
            ElementType::Float16 => values.iter().flat_map(|value| f16::from_f64(*value).to_le_bytes()).collect(),
            _ => {
                let values: Vec<i64> = values.iter().map(|value| to_integer(*value, element_type)).collect();
                return Array::integers(element_type, shape, &values);
            }
        };
        Array::new(element_type, shape, bytes)
    }

    /// An array of these numbers, wrapped around to the type; of bools those that are not 0 are true.
    pub fn integers(element_type: ElementType, shape: Vec<usize>, values: &[i64]) -> Result<Array> {
        if is_float(element_type) {
            let values: Vec<f64> = values.iter().map(|value| *value as f64).collect();
            return Array::floats(element_type, shape, &values);
        }
        let size = element_type.size_bytes() as usize;
        let mut bytes = Vec::with_capacity(values.len() * size);
        for value in values {
            let value = if element_type == ElementType::Bool { i64::from(*value != 0) } else { *value };
            bytes.extend_from_slice(&value.to_le_bytes()[..size]);
        }
        Array::new(element_type, shape, bytes)
    }

    pub fn from_numbers(element_type: ElementType, shape: Vec<usize>, numbers: &Numbers) -> Result<Array> {
        match numbers {
            Numbers::Floats(values) => Array::floats(element_type, shape, values),
            Numbers::Integers(values) => Array::integers(element_type, shape, values),
        }
    }

    pub fn bools(shape: Vec<usize>, values: impl IntoIterator<Item = bool>) -> Result<Array> {
        Array::new(ElementType::Bool, shape, values.into_iter().map(u8::from).collect())
    }

    /// A vector of sizes or indices.
    pub fn vector(values: &[i64]) -> Result<Array> {
        Array::integers(ElementType::Int64, vec![values.len()], values)
    }

    pub fn from_tensor(tensor: &Tensor) -> Result<Array> {
        let shape = tensor.shape().into_iter().map(usize::try_from).collect::<std::result::Result<_, _>>();
        let shape = shape.map_err(|error| error.to_string())?;
        Array::new(tensor.element_type(), shape, tensor.bytes().to_vec())
    }

    pub fn to_tensor(&self) -> std::result::Result<Tensor, crate::EngineError> {
        let shape: Vec<u64> = self.shape.iter().map(|size| *size as u64).collect();
        Tensor::from_bytes(self.element_type, &shape, &self.bytes)
    }

    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.element_bytes()
    }

    pub fn element_bytes(&self) -> usize {
        self.element_type.size_bytes() as usize
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn is_float(&self) -> bool {
        is_float(self.element_type)
    }

    pub fn is_uint64(&self) -> bool {
        self.element_type == ElementType::Uint64
    }

    /// The elements as they are, in the widest type of their kind.
    pub fn numbers(&self) -> Numbers {
        if self.is_float() { Numbers::Floats(self.f64s()) } else { Numbers::Integers(self.i64s()) }
    }

    /// The elements as float64, those of 64-bit integers rounded.
    pub fn f64s(&self) -> Vec<f64> {
        match self.element_type {
            ElementType::Float64 => self.bytes.as_chunks().0.iter().map(|x| f64::from_le_bytes(*x)).collect(),
            ElementType::Float32 => self.bytes.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x).into()).collect(),
            ElementType::Float16 => self.bytes.as_chunks().0.iter().map(|x| f16::from_le_bytes(*x).to_f64()).collect(),
            ElementType::Uint64 => self.i64s().into_iter().map(|x| x as u64 as f64).collect(),
            _ => self.i64s().into_iter().map(|x| x as f64).collect(),
        }
    }

    /// The elements as int64: of uint64 the two's complement, of floats what is left of the point.
    pub fn i64s(&self) -> Vec<i64> {
        if self.is_float() {
            return self.f64s().into_iter().map(|x| x as i64).collect();
        }
        let (bits, is_signed) = integer_bits(self.element_type);
        let number = |bytes: &[u8]| {
            let mut wide = [0; 8];
            wide[..bytes.len()].copy_from_slice(bytes);
            let number = i64::from_le_bytes(wide);
            if is_signed { number << (64 - bits) >> (64 - bits) } else { number }
        };
        self.bytes.chunks(self.element_bytes()).map(number).collect()
    }

    /// The only element, as float64.
    pub fn scalar_f64(&self) -> Result<f64> {
        self.f64s().first().copied().filter(|_| self.len() == 1).ok_or_else(|| self.not_scalar())
    }

    /// The only element, as int64.
    pub fn scalar_i64(&self) -> Result<i64> {
        self.i64s().first().copied().filter(|_| self.len() == 1).ok_or_else(|| self.not_scalar())
    }

    fn not_scalar(&self) -> String {
        format!("a tensor of shape {:?} where one number is needed", self.shape)
    }

    /// The same elements in another shape.
    pub fn reshaped(&self, shape: Vec<usize>) -> Result<Array> {
        if elements(&shape)? != self.len() {
            return Err(format!("a tensor of shape {:?} can't have shape {shape:?}", self.shape));
        }
        Ok(Array { element_type: self.element_type, shape, bytes: self.bytes.clone() })
    }

    /// The elements of these indices, in a new shape.
    pub fn pick(&self, shape: Vec<usize>, indices: &[usize]) -> Result<Array> {
        let size = self.element_bytes();
        let mut bytes = Vec::with_capacity(indices.len() * size);
        for index in indices {
            let element = self.bytes.get(index * size..(index + 1) * size);
            bytes.extend_from_slice(element.ok_or_else(|| format!("element {index} of {}", self.len()))?);
        }
        Array::new(self.element_type, shape, bytes)
    }

    /// The elements of these indices, and `fill`, an element's bytes, where there is none.
    pub fn pick_or(&self, shape: Vec<usize>, indices: &[Option<usize>], fill: &[u8]) -> Result<Array> {
        let size = self.element_bytes();
        let mut bytes = Vec::with_capacity(indices.len() * size);
        for index in indices {
            let element = match index {
                Some(index) => self.bytes.get(index * size..(index + 1) * size),
                None => Some(fill),
            };
            bytes.extend_from_slice(element.ok_or_else(|| format!("element {index:?} of {}", self.len()))?);
        }
        Array::new(self.element_type, shape, bytes)
    }

    pub fn transposed(&self, permutation: &[usize]) -> Result<Array> {
        let mut seen = vec![false; self.rank()];
        permutation.iter().for_each(|axis| {
            if let Some(seen) = seen.get_mut(*axis) {
                *seen = true;
            }
        });
        if permutation.len() != self.rank() || seen.contains(&false) {
            return Err(format!("{permutation:?} is no permutation of {} axes", self.rank()));
        }
        let own = strides(&self.shape);
        let shape: Vec<usize> = permutation.iter().map(|axis| self.shape[*axis]).collect();
        let moved: Vec<isize> = permutation.iter().map(|axis| own[*axis] as isize).collect();
        self.pick(shape.clone(), &offsets(&shape, &moved, 0)?)
    }

    /// The array repeated along axes of size 1 and new axes in front.
    pub fn broadcast_to(&self, shape: &[usize]) -> Result<Array> {
        if self.shape == shape {
            return Ok(self.clone());
        }
        self.pick(shape.to_vec(), &broadcast_offsets(&self.shape, shape)?)
    }

    /// Parts of the elements joined along an axis; all but that axis have equal sizes.
    pub fn concat(parts: &[Array], along: usize) -> Result<Array> {
        let first = parts.first().ok_or("there is nothing to join")?;
        let mut shape = first.shape.clone();
        if along >= shape.len() {
            return Err(format!("axis {along} of {} axes", shape.len()));
        }
        let fits = |part: &Array| {
            let other = |axis: usize| axis == along || part.shape[axis] == first.shape[axis];
            part.rank() == first.rank() && part.element_type == first.element_type && (0..part.rank()).all(other)
        };
        if let Some(part) = parts.iter().find(|part| !fits(part)) {
            return Err(format!("shapes {:?} and {:?} are joined along axis {along}", first.shape, part.shape));
        }
        shape[along] = parts.iter().map(|part| part.shape[along]).sum();
        let outer = elements(&shape[..along])?;
        let mut bytes = Vec::with_capacity(elements(&shape)? * first.element_bytes());
        for row in 0..outer {
            for part in parts {
                let length = part.bytes.len() / outer;
                bytes.extend_from_slice(&part.bytes[row * length..(row + 1) * length]);
            }
        }
        Array::new(first.element_type, shape, bytes)
    }

    /// The elements from `start` on, `count` of them, along an axis.
    pub fn part(&self, along: usize, start: usize, count: usize) -> Result<Array> {
        let size = *self.shape.get(along).ok_or_else(|| format!("axis {along} of {} axes", self.rank()))?;
        if start.checked_add(count).is_none_or(|end| end > size) {
            return Err(format!("elements {start} to {start}+{count} of an axis of {size}"));
        }
        let mut shape = self.shape.clone();
        shape[along] = count;
        let inner = elements(&self.shape[along + 1..])? * self.element_bytes();
        let rows = self.bytes.chunks((size * inner).max(1));
        let bytes = rows.flat_map(|row| &row[start * inner..(start + count) * inner]).copied().collect();
        Array::new(self.element_type, shape, bytes)
    }
}

/// A number as an integer of a type: rounded towards 0, wrapped around; NaN is 0, and of bools all but 0 is true.
pub(crate) fn to_integer(value: f64, element_type: ElementType) -> i64 {
    match element_type {
        ElementType::Bool => i64::from(value != 0.0),
        ElementType::Uint64 if value >= 0.0 => value as u64 as i64,
        _ => value as i64,
    }
}
