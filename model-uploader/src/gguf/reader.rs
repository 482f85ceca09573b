//! The structure of a GGUF file: metadata, and where each tensor is. Nothing is allocated that the file has no bytes for.
//!
//! The format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use super::dequantise::BlockType;
use super::error::{GgufError, Result};
use std::collections::BTreeMap;
use std::io::{BufReader, Read, Seek, SeekFrom};

/// Bytes of metadata and tensor descriptions at most. A vocabulary of a quarter of a million takes some 15 million.
const STRUCTURE_BYTES_MAX: u64 = 1 << 28;
/// The format's own limits.
const KEY_BYTES_MAX: u64 = (1 << 16) - 1;
const TENSOR_NAME_BYTES_MAX: u64 = 64;
const AXES_MAX: u32 = 4;
const DEFAULT_ALIGNMENT: u64 = 32;
const ALIGNMENT_KEY: &str = "general.alignment";

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    String(String),
    Integers(Vec<i64>),
    Floats(Vec<f32>),
    Strings(Vec<String>),
}

/// Where a tensor is and what it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TensorInfo {
    pub name: String,
    /// Sizes of the axes, the innermost first; without axes of size 1 behind the last other.
    pub dims: Vec<u64>,
    pub block_type: BlockType,
    /// From the beginning of the file.
    offset: u64,
    bytes: u64,
}

/// An opened file whose structure has been checked.
pub(super) struct Gguf<R> {
    pub metadata: BTreeMap<String, Value>,
    pub tensors: Vec<TensorInfo>,
    file: BufReader<R>,
}

impl<R: Read + Seek> Gguf<R> {
    /// Reads the structure. Each way in which it may be malformed has its own [`GgufError`].
    pub fn read(mut file: R) -> Result<Self> {
        let length = file.seek(SeekFrom::End(0)).and_then(|length| file.rewind().map(|()| length));
        let length = length.map_err(|error| GgufError::Read { place: "the file's size".into(), error })?;
        let mut cursor = Cursor { file: BufReader::new(file), position: 0, length };
        let magic = cursor.array::<4>("the file's first bytes")?;
        if &magic != b"GGUF" {
            return Err(GgufError::Magic(magic));
        }
        let version = cursor.u32("the version")?;
        if !matches!(version, 2 | 3) {
            return Err(GgufError::Version(version));
        }
        let tensor_count = cursor.u64("the number of tensors")?;
        let value_count = cursor.u64("the number of metadata values")?;
        let mut metadata = BTreeMap::new();
        for index in 0..value_count {
            let key = cursor.string(&format!("key {index} of the metadata"), KEY_BYTES_MAX)?;
            let place = format!("metadata {key:?}");
            let value_type = cursor.u32(&place)?;
            let value = cursor.value(&place, value_type)?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(GgufError::DuplicateKey(key));
            }
        }
        let alignment = alignment(&metadata)?;
        let mut tensors: Vec<TensorInfo> = Vec::new();
        for index in 0..tensor_count {
            tensors.push(cursor.tensor(index, alignment)?);
        }
        let start = cursor.position.next_multiple_of(alignment);
        settle_places(&mut tensors, start, length)?;
        Ok(Self { metadata, tensors, file: cursor.file })
    }

    /// The bytes of a tensor, as they are stored.
    pub fn tensor_bytes(&mut self, tensor: &TensorInfo) -> Result<Vec<u8>> {
        // Its end was compared with the file's.
        let mut bytes = vec![0; tensor.bytes as usize];
        let read = self.file.seek(SeekFrom::Start(tensor.offset)).and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(|error| GgufError::Read { place: format!("tensor {:?}", tensor.name), error })?;
        Ok(bytes)
    }
}

fn alignment(metadata: &BTreeMap<String, Value>) -> Result<u64> {
    match metadata.get(ALIGNMENT_KEY) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(Value::Unsigned(alignment)) if alignment.is_power_of_two() && (8..=1 << 16).contains(alignment) => {
            Ok(*alignment)
        }
        Some(Value::Unsigned(alignment)) => Err(GgufError::Alignment(*alignment)),
        Some(_) => Err(GgufError::KeyType { key: ALIGNMENT_KEY.into(), expected: "an unsigned integer" }),
    }
}

/// Makes offsets count from the beginning of the file, and checks that no tensor leaves it or lies on another.
fn settle_places(tensors: &mut [TensorInfo], start: u64, length: u64) -> Result<()> {
    for tensor in tensors.iter_mut() {
        let end = start.saturating_add(tensor.offset).saturating_add(tensor.bytes);
        if end > length {
            return Err(GgufError::OutOfFile { tensor: tensor.name.clone(), end, length });
        }
        tensor.offset += start;
    }
    let mut by_place: Vec<&TensorInfo> = tensors.iter().collect();
    by_place.sort_by_key(|tensor| tensor.offset);
    for pair in by_place.windows(2) {
        if pair[0].offset + pair[0].bytes > pair[1].offset {
            return Err(GgufError::Overlap { first: pair[0].name.clone(), second: pair[1].name.clone() });
        }
    }
    let mut names: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(GgufError::DuplicateTensor(pair[0].to_string())),
        None => Ok(()),
    }
}

/// Reads the file from its beginning, and knows what is left.
struct Cursor<R> {
    file: BufReader<R>,
    position: u64,
    length: u64,
}

impl<R: Read> Cursor<R> {
    /// Fails unless `needed` bytes are left and the structure is not larger than it may be.
    fn claim(&mut self, place: &str, needed: u64) -> Result<()> {
        let left = self.length - self.position;
        if needed > left {
            return Err(GgufError::End { place: place.to_string(), needed, left });
        }
        self.position += needed;
        if self.position > STRUCTURE_BYTES_MAX {
            let limit = STRUCTURE_BYTES_MAX;
            return Err(GgufError::TooLarge { place: "the structure".into(), value: self.position, limit });
        }
        Ok(())
    }

    fn fill(&mut self, place: &str, bytes: &mut [u8]) -> Result<()> {
        self.claim(place, bytes.len() as u64)?;
        let read = self.file.read_exact(bytes);
        read.map_err(|error| GgufError::Read { place: place.to_string(), error })
    }

    fn array<const N: usize>(&mut self, place: &str) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(place, &mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self, place: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(place)?))
    }

    fn u64(&mut self, place: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(place)?))
    }

    fn string(&mut self, place: &str, limit: u64) -> Result<String> {
        let length = self.u64(place)?;
        if length > limit {
            return Err(GgufError::TooLarge { place: format!("the length of {place}"), value: length, limit });
        }
        let left = self.length - self.position;
        if length > left {
            return Err(GgufError::End { place: place.to_string(), needed: length, left });
        }
        let mut bytes = vec![0; length as usize];
        self.fill(place, &mut bytes)?;
        String::from_utf8(bytes).map_err(|_| GgufError::Utf8 { place: place.to_string() })
    }

    fn bool(&mut self, place: &str) -> Result<bool> {
        match self.array::<1>(place)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [value] => Err(GgufError::Bool { place: place.to_string(), value }),
        }
    }

    fn value(&mut self, place: &str, value_type: u32) -> Result<Value> {
        Ok(match value_type {
            0 => Value::Unsigned(u8::from_le_bytes(self.array(place)?).into()),
            2 => Value::Unsigned(u16::from_le_bytes(self.array(place)?).into()),
            4 => Value::Unsigned(self.u32(place)?.into()),
            10 => Value::Unsigned(self.u64(place)?),
            1 => Value::Signed(i8::from_le_bytes(self.array(place)?).into()),
            3 => Value::Signed(i16::from_le_bytes(self.array(place)?).into()),
            5 => Value::Signed(i32::from_le_bytes(self.array(place)?).into()),
            11 => Value::Signed(i64::from_le_bytes(self.array(place)?)),
            6 => Value::Float(f32::from_le_bytes(self.array(place)?).into()),
            12 => Value::Float(f64::from_le_bytes(self.array(place)?)),
            7 => Value::Bool(self.bool(place)?),
            8 => Value::String(self.string(place, STRUCTURE_BYTES_MAX)?),
            9 => self.values(place)?,
            value => return Err(GgufError::ValueType { place: place.to_string(), value }),
        })
    }

    /// An array. It grows as it is read, so that a length alone takes no memory.
    fn values(&mut self, place: &str) -> Result<Value> {
        let element_type = self.u32(place)?;
        let count = self.u64(place)?;
        let place = format!("an element of {place}");
        if element_type == 9 {
            return Err(GgufError::NestedArray { place });
        }
        if element_type == 8 {
            let mut strings = Vec::new();
            for _ in 0..count {
                strings.push(self.string(&place, STRUCTURE_BYTES_MAX)?);
            }
            return Ok(Value::Strings(strings));
        }
        let (mut integers, mut floats) = (Vec::new(), Vec::new());
        let is_float = matches!(element_type, 6 | 12);
        for _ in 0..count {
            match self.value(&place, element_type)? {
                // Those that no i64 holds mean nothing here.
                Value::Unsigned(value) => integers.push(i64::try_from(value).unwrap_or(i64::MAX)),
                Value::Signed(value) => integers.push(value),
                Value::Bool(value) => integers.push(value.into()),
                Value::Float(value) => floats.push(value as f32),
                _ => {}
            }
        }
        Ok(if is_float { Value::Floats(floats) } else { Value::Integers(integers) })
    }

    /// A tensor's description, its offset still from where tensors begin.
    fn tensor(&mut self, index: u64, alignment: u64) -> Result<TensorInfo> {
        let name = self.string(&format!("the name of tensor {index}"), TENSOR_NAME_BYTES_MAX)?;
        let place = format!("the description of tensor {name:?}");
        let rank = self.u32(&place)?;
        if !(1..=AXES_MAX).contains(&rank) {
            return Err(GgufError::Rank { tensor: name, rank });
        }
        let mut dims = Vec::new();
        for _ in 0..rank {
            dims.push(self.u64(&place)?);
        }
        let value = self.u32(&place)?;
        let offset = self.u64(&place)?;
        let elements = dims.iter().try_fold(1u64, |product, dim| product.checked_mul(*dim));
        let Some(elements @ 1..) = elements.filter(|elements| *elements <= i64::MAX as u64 / 8) else {
            return Err(GgufError::Dims { tensor: name, dims });
        };
        let Some(block_type) = BlockType::from_ggml(value) else {
            return Err(GgufError::TensorType { tensor: name, value });
        };
        let (row, block) = (dims[0], block_type.elements() as u64);
        if !row.is_multiple_of(block) {
            return Err(GgufError::PartialBlock { tensor: name, row, block });
        }
        if !offset.is_multiple_of(alignment) {
            return Err(GgufError::Unaligned { tensor: name, offset, alignment });
        }
        while dims.len() > 1 && dims.last() == Some(&1) {
            dims.pop();
        }
        let bytes = elements / block * block_type.bytes() as u64;
        Ok(TensorInfo { name, dims, block_type, offset, bytes })
    }
}
