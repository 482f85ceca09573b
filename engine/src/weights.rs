//! Weights read from their ranges, each straight into its own buffer, a piece at a time.

use crate::onnx::{Encoding, PartialVarint, StoredTensor};
use crate::tensor::canonical_bools;
use crate::{EngineError, ModelFiles, READ_BYTES_MAX, Tensor};
use std::sync::Arc;
use tract_onnx::prelude::Tensor as TractTensor;

/// Bytes of varints decoded at once. Decoding one takes some 20 instructions a byte.
const VARINT_PIECE_BYTES: usize = 1 << 16;

/// Reads stored tensors one after another.
pub(crate) struct WeightReader {
    tensors: std::vec::IntoIter<StoredTensor>,
    current: Option<Current>,
    bytes_done: u64,
    done: Vec<(String, Arc<TractTensor>)>,
}

struct Current {
    stored: StoredTensor,
    tensor: Tensor,
    /// Bytes of the range read so far.
    read: u64,
    /// Bytes of the tensor written so far.
    written: usize,
    varint: PartialVarint,
}

impl WeightReader {
    pub fn new(tensors: Vec<StoredTensor>) -> WeightReader {
        WeightReader { tensors: tensors.into_iter(), current: None, bytes_done: 0, done: Vec::new() }
    }

    /// Bytes of the ranges read so far.
    pub fn bytes_done(&self) -> u64 {
        self.bytes_done
    }

    /// The tensors by name.
    pub fn into_tensors(self) -> Vec<(String, Arc<TractTensor>)> {
        self.done
    }

    /// Reads one piece of at most [`READ_BYTES_MAX`]. True when all is read.
    pub fn step(&mut self, files: &dyn ModelFiles) -> Result<bool, EngineError> {
        let mut current = match self.current.take() {
            Some(current) => current,
            None => match self.tensors.next() {
                Some(stored) => Current::new(stored)?,
                None => return Ok(true),
            },
        };
        if current.read < current.stored.range.length {
            self.bytes_done += current.read_piece(files)?;
        }
        if current.read < current.stored.range.length {
            self.current = Some(current);
        } else {
            let name = current.stored.name.clone();
            self.done.push((name, Arc::new(current.finish()?.into_tract())));
        }
        Ok(false)
    }
}

impl Current {
    fn new(stored: StoredTensor) -> Result<Current, EngineError> {
        let tensor = Tensor::zeroed(stored.element_type, &stored.shape)?;
        Ok(Current { stored, tensor, read: 0, written: 0, varint: PartialVarint::default() })
    }

    fn place(&self) -> String {
        format!("tensor {:?}", self.stored.name)
    }

    /// Reads the next piece and tells its length.
    fn read_piece(&mut self, files: &dyn ModelFiles) -> Result<u64, EngineError> {
        let (file, source) = match &self.stored.location {
            None => ("ONNX file", files.onnx()),
            Some(location) => {
                let missing = || EngineError::invalid(self.place(), format!("file {location:?} is missing"));
                (location.as_str(), files.external(location).ok_or_else(missing)?)
            }
        };
        let read_error = |error| EngineError::Read { file: file.to_string(), error };
        let offset = self.stored.range.offset + self.read;
        let left = self.stored.range.length - self.read;
        let element_type = self.stored.element_type;
        let piece = match self.stored.encoding {
            Encoding::Raw => {
                let length = left.min(READ_BYTES_MAX as u64) as usize;
                // The walk has checked that the range is as long as the tensor.
                let to = &mut self.tensor.bytes_mut()[self.written..self.written + length];
                source.read_at(offset, to).map_err(read_error)?;
                canonical_bools(element_type, to);
                self.written += length;
                length
            }
            Encoding::Varints => {
                let mut bytes = vec![0; left.min(VARINT_PIECE_BYTES as u64) as usize];
                source.read_at(offset, &mut bytes).map_err(read_error)?;
                let place = self.place();
                let size = element_type.size_bytes() as usize;
                for byte in &bytes {
                    let Some(value) = self.varint.push(&place, *byte)? else { continue };
                    let element = crate::onnx::element_of_varint(&place, element_type, value)?;
                    let expected_bytes = self.stored.bytes;
                    let Some(to) = self.tensor.bytes_mut().get_mut(self.written..self.written + size) else {
                        let got_bytes = expected_bytes + size as u64;
                        return Err(EngineError::wrong_length(place, expected_bytes, got_bytes));
                    };
                    to.copy_from_slice(&element[..size]);
                    self.written += size;
                }
                bytes.len()
            }
        };
        self.read += piece as u64;
        Ok(piece as u64)
    }

    fn finish(self) -> Result<Tensor, EngineError> {
        if self.written as u64 != self.stored.bytes || !self.varint.is_empty() {
            let (expected_bytes, got_bytes) = (self.stored.bytes, self.written as u64);
            return Err(EngineError::wrong_length(self.place(), expected_bytes, got_bytes));
        }
        Ok(self.tensor)
    }
}
