//! Weights that go from their range in a file straight into packed form, some rows at a time: of a matrix or filter in
//! single or half precision there is never more than a piece on the heap in plain form.

use crate::graph::weights::Packed;
use crate::onnx::{Encoding, StoredTensor};
use crate::{ElementType, EngineError, ModelFiles, READ_BYTES_MAX};
use half::f16;
use onnx_kernels::matrix::MatrixRef;

/// Bytes read at once, rounded to whole rows: few enough that the piece's pages cost little, enough for whole panels and
/// for many blocks of a file whose checksums are looked at together.
const PIECE_BYTES: usize = READ_BYTES_MAX;

/// Rows of a piece are a multiple of this where there are as many: the columns of a panel.
const ROWS: usize = 32;

/// A tensor on its way into packed form.
pub(crate) struct Stream {
    packed: Packed,
    row_elements: usize,
    rows: usize,
    done: usize,
}

/// What is read into, from one tensor to the next.
#[derive(Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    values: Vec<f32>,
}

impl Stream {
    /// Whether a tensor can be read piece by piece.
    pub fn takes(stored: &StoredTensor) -> bool {
        stored.encoding == Encoding::Raw && matches!(stored.element_type, ElementType::Float32 | ElementType::Float16)
    }

    /// Begins; `row_elements` consecutive elements of the tensor are one row of what `packed` takes.
    pub fn new(packed: Packed, row_elements: usize, rows: usize) -> Stream {
        Stream { packed, row_elements, rows, done: 0 }
    }

    /// Reads and packs a piece. True when all is packed.
    pub fn step(
        &mut self,
        stored: &StoredTensor,
        files: &dyn ModelFiles,
        buffer: &mut Buffer,
    ) -> Result<bool, EngineError> {
        let element_bytes = stored.element_type.size_bytes() as usize;
        let row_bytes = self.row_elements * element_bytes;
        if row_bytes == 0 || self.rows == 0 {
            return Ok(true);
        }
        let fitting = (PIECE_BYTES / row_bytes).max(1);
        let rows = if fitting > ROWS { fitting / ROWS * ROWS } else { fitting }.min(self.rows - self.done);
        let place = || format!("tensor {:?}", stored.name);
        let (file, source) = match &stored.location {
            None => ("ONNX file", files.onnx()),
            Some(location) => {
                let missing = || EngineError::invalid(place(), format!("file {location:?} is missing"));
                (location.as_str(), files.external(location).ok_or_else(missing)?)
            }
        };
        let length = rows * row_bytes;
        if buffer.bytes.len() < length {
            // The old one's place is free for weights before the new one is there.
            buffer.bytes = Vec::new();
            buffer.bytes = vec![0; length.next_power_of_two()];
        }
        let from = stored.range.offset + (self.done * row_bytes) as u64;
        for (index, piece) in buffer.bytes[..length].chunks_mut(READ_BYTES_MAX).enumerate() {
            let offset = from + (index * READ_BYTES_MAX) as u64;
            source.read_at(offset, piece).map_err(|error| EngineError::Read { file: file.to_string(), error })?;
        }
        let bytes = &buffer.bytes[..length];
        buffer.values.clear();
        let values: &[f32] = match (stored.element_type, bytemuck::try_cast_slice(bytes)) {
            (ElementType::Float32, Ok(values)) => values,
            (ElementType::Float32, Err(_)) => {
                buffer.values.extend(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
                &buffer.values
            }
            _ => {
                let halves = bytes.as_chunks().0.iter();
                buffer.values.extend(halves.map(|bytes| f16::from_le_bytes(*bytes).to_f32_const()));
                &buffer.values
            }
        };
        match &mut self.packed {
            Packed::Rows(matrix) => matrix.set_rows(self.done, MatrixRef::new(values, rows, self.row_elements)),
            Packed::Columns(matrix) => matrix.set_columns(self.done, MatrixRef::new(values, rows, self.row_elements)),
            Packed::Filter(filter) => filter.set_output_channels(self.done, values),
        }
        self.done += rows;
        Ok(self.done == self.rows)
    }

    pub fn finish(self) -> Packed {
        self.packed
    }
}
