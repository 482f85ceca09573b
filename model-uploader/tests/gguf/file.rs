//! Writes GGUF files.

/// A value of the metadata, by the format's number of its type.
#[derive(Clone)]
pub enum Value {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    /// The number of a type, and bytes.
    Raw(u32, Vec<u8>),
}

#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    /// The innermost first.
    pub dims: Vec<u64>,
    pub ggml_type: u32,
    pub bytes: Vec<u8>,
}

#[derive(Clone)]
pub struct GgufFile {
    pub version: u32,
    pub metadata: Vec<(String, Value)>,
    pub tensors: Vec<Tensor>,
}

pub const ALIGNMENT: usize = 32;

pub fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

impl Value {
    fn write(&self, bytes: &mut Vec<u8>) {
        let kind = |bytes: &mut Vec<u8>, kind: u32| bytes.extend(kind.to_le_bytes());
        let array = |bytes: &mut Vec<u8>, element: u32, count: usize| {
            bytes.extend(9u32.to_le_bytes());
            bytes.extend(element.to_le_bytes());
            bytes.extend((count as u64).to_le_bytes());
        };
        match self {
            Self::U32(value) => {
                kind(bytes, 4);
                bytes.extend(value.to_le_bytes());
            }
            Self::F32(value) => {
                kind(bytes, 6);
                bytes.extend(value.to_le_bytes());
            }
            Self::Bool(value) => {
                kind(bytes, 7);
                bytes.push((*value).into());
            }
            Self::Text(value) => {
                kind(bytes, 8);
                text(bytes, value);
            }
            Self::Texts(values) => {
                array(bytes, 8, values.len());
                values.iter().for_each(|value| text(bytes, value));
            }
            Self::I32s(values) => {
                array(bytes, 5, values.len());
                values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
            }
            Self::F32s(values) => {
                array(bytes, 6, values.len());
                values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
            }
            Self::Raw(value_type, raw) => {
                kind(bytes, *value_type);
                bytes.extend(raw);
            }
        }
    }
}

impl GgufFile {
    pub fn set(&mut self, key: &str, value: Value) {
        self.remove(key);
        self.metadata.push((key.to_string(), value));
    }

    pub fn remove(&mut self, key: &str) {
        self.metadata.retain(|(other, _)| other != key);
    }

    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.bytes_with(|_, offset| offset)
    }

    /// As [`GgufFile::bytes`], with other offsets than the right ones.
    pub fn bytes_with(&self, offset_of: impl Fn(&str, u64) -> u64) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            text(&mut bytes, key);
            value.write(&mut bytes);
        }
        let mut offset = 0;
        for tensor in &self.tensors {
            text(&mut bytes, &tensor.name);
            bytes.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().for_each(|dim| bytes.extend(dim.to_le_bytes()));
            bytes.extend(tensor.ggml_type.to_le_bytes());
            bytes.extend(offset_of(&tensor.name, offset as u64).to_le_bytes());
            offset += tensor.bytes.len().next_multiple_of(ALIGNMENT);
        }
        for tensor in &self.tensors {
            bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
            bytes.extend(&tensor.bytes);
        }
        bytes
    }
}
