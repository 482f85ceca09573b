//! Where bytes come from and what budgets are counted in.

use crate::ReadError;

/// Bytes at rest: a file in stable memory, or a slice.
pub trait ByteSource {
    /// Length in bytes.
    fn len(&self) -> u64;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` with the bytes from `offset` on, or fails without a partial result.
    ///
    /// The engine never asks for more than [`crate::READ_BYTES_MAX`] at once.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError>;
}

impl ByteSource for Vec<u8> {
    fn len(&self) -> u64 {
        Vec::len(self) as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let refuse = || ReadError {
            offset,
            length: buffer.len() as u64,
            available: Vec::len(self) as u64,
            reason: "the range ends beyond the source".into(),
        };
        let start = usize::try_from(offset).map_err(|_| refuse())?;
        let end = start.checked_add(buffer.len()).ok_or_else(refuse)?;
        buffer.copy_from_slice(self.get(start..end).ok_or_else(refuse)?);
        Ok(())
    }
}

/// The files of a model.
pub trait ModelFiles {
    /// The ONNX file itself.
    fn onnx(&self) -> &dyn ByteSource;

    /// The external-data file whose `location` in the ONNX file is `location`.
    fn external(&self, location: &str) -> Option<&dyn ByteSource>;
}

/// Counts the instructions spent in the current message.
///
/// Tests use one that counts calls. The count only ever decides where a step pauses, never a result.
pub trait Meter {
    fn spent(&self) -> u64;
}

/// Most bytes read from a [`ByteSource`], cleared or copied at once. One bulk operation must fit a slice of a message
/// (2e9 instructions) with much to spare; smaller pieces also pause closer to the budget.
pub const READ_BYTES_MAX: usize = 1 << 20;
