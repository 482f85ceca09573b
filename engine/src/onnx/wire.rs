//! The protobuf wire format over a [`ByteSource`], a window at a time.
//!
//! <https://protobuf.dev/programming-guides/encoding/>: a message is a run of fields; a field is a varint tag
//! (number * 8 + wire type) and a value: a varint (0), 8 bytes (1), a varint length and so many bytes (2), 4 bytes (5).

use super::GRAPH_FIELDS_MAX;
use crate::{ByteSource, EngineError, READ_BYTES_MAX};

/// Bytes read ahead. Most reads are of a tensor's header, beyond whose end the window is of no use.
const WINDOW_BYTES: u64 = 512;

/// Bytes of the longest varint.
const VARINT_BYTES_MAX: u64 = 10;

/// A run of bytes in a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub offset: u64,
    pub length: u64,
}

impl Range {
    pub fn end(self) -> u64 {
        // Ranges are only made within a source, whose length is a u64.
        self.offset + self.length
    }
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Varint(u64),
    /// Wire types 1 and 5: where the 8 or 4 bytes are.
    Fixed(Range),
    /// Wire type 2: where the bytes are.
    Bytes(Range),
}

/// A field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub number: u32,
    pub value: Value,
    /// The whole field, tag included.
    pub range: Range,
}

/// Recently read bytes, kept between fields.
#[derive(Default)]
pub(crate) struct Window {
    start: u64,
    bytes: Vec<u8>,
}

/// Reads fields of a source called `name`.
pub(crate) struct Wire<'a> {
    pub name: &'a str,
    source: &'a dyn ByteSource,
    window: &'a mut Window,
    fields_left: u64,
}

impl<'a> Wire<'a> {
    pub fn new(name: &'a str, source: &'a dyn ByteSource, window: &'a mut Window) -> Self {
        Wire { name, source, window, fields_left: GRAPH_FIELDS_MAX }
    }

    fn invalid(&self, offset: u64, reason: impl Into<String>) -> EngineError {
        EngineError::invalid(format!("{} at byte {offset}", self.name), reason)
    }

    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), EngineError> {
        self.source.read_at(offset, buffer).map_err(|error| EngineError::Read { file: self.name.to_string(), error })
    }

    fn byte(&mut self, offset: u64) -> Result<u8, EngineError> {
        if let Some(index) = offset.checked_sub(self.window.start)
            && let Some(byte) = self.window.bytes.get(index as usize)
        {
            return Ok(*byte);
        }
        let length = WINDOW_BYTES.min(self.source.len().saturating_sub(offset));
        if length == 0 {
            return Err(self.invalid(offset, "the file ends within a field"));
        }
        let mut bytes = vec![0; length as usize];
        self.read_at(offset, &mut bytes)?;
        *self.window = Window { start: offset, bytes };
        Ok(self.window.bytes[0])
    }

    /// The varint at `offset` and the offset after it; it must end by `end`.
    pub fn varint(&mut self, offset: u64, end: u64) -> Result<(u64, u64), EngineError> {
        let mut value = 0u64;
        for index in 0..VARINT_BYTES_MAX {
            if offset + index >= end {
                return Err(self.invalid(offset, "a varint runs beyond its message"));
            }
            let byte = self.byte(offset + index)?;
            if index == VARINT_BYTES_MAX - 1 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                return Ok((value, offset + index + 1));
            }
        }
        Err(self.invalid(offset, "a varint exceeds 64 bits"))
    }

    /// The next `length` bytes of the field `number`, if its message has so many left.
    fn take(&self, field: u64, number: u32, next: &mut u64, length: u64, end: u64) -> Result<Range, EngineError> {
        let left = end.saturating_sub(*next);
        if length > left {
            return Err(self.invalid(field, format!("field {number} needs {length} bytes, {left} are left")));
        }
        let range = Range { offset: *next, length };
        *next += length;
        Ok(range)
    }

    /// The field at `offset` of a message that ends at `end`.
    pub fn field(&mut self, offset: u64, end: u64) -> Result<Field, EngineError> {
        // A bound on the work between two pauses.
        self.fields_left = self.fields_left.checked_sub(1).ok_or_else(|| EngineError::TooLarge {
            place: format!("{} at byte {offset}: fields of one part of the graph", self.name),
            value: GRAPH_FIELDS_MAX + 1,
            limit: GRAPH_FIELDS_MAX,
        })?;
        let (tag, mut next) = self.varint(offset, end)?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| (1..1 << 29).contains(number));
        let Some(number) = number else {
            return Err(self.invalid(offset, format!("field number {} is out of range", tag >> 3)));
        };
        let value = match tag & 7 {
            0 => {
                let (value, after) = self.varint(next, end)?;
                next = after;
                Value::Varint(value)
            }
            1 => Value::Fixed(self.take(offset, number, &mut next, 8, end)?),
            5 => Value::Fixed(self.take(offset, number, &mut next, 4, end)?),
            2 => {
                let (length, after) = self.varint(next, end)?;
                next = after;
                Value::Bytes(self.take(offset, number, &mut next, length, end)?)
            }
            wire_type => return Err(self.invalid(offset, format!("field {number} has wire type {wire_type}"))),
        };
        Ok(Field { number, value, range: Range { offset, length: next - offset } })
    }

    /// The bytes of a field, which must be length-delimited.
    pub fn bytes_of(&self, field: &Field) -> Result<Range, EngineError> {
        match field.value {
            Value::Bytes(range) => Ok(range),
            _ => Err(self.invalid(field.range.offset, format!("field {} is not length-delimited", field.number))),
        }
    }

    /// The number of a field, which must be a varint.
    pub fn varint_of(&self, field: &Field) -> Result<u64, EngineError> {
        match field.value {
            Value::Varint(value) => Ok(value),
            _ => Err(self.invalid(field.range.offset, format!("field {} is not a varint", field.number))),
        }
    }

    /// Appends the bytes of `range`, piece by piece.
    pub fn append(&self, range: Range, to: &mut Vec<u8>) -> Result<(), EngineError> {
        let mut offset = range.offset;
        while offset < range.end() {
            let piece = (range.end() - offset).min(READ_BYTES_MAX as u64) as usize;
            // Not resized and then read into: where code is made small, resizing is a loop over bytes.
            let mut bytes = vec![0; piece];
            self.read_at(offset, &mut bytes)?;
            to.append(&mut bytes);
            offset += piece as u64;
        }
        Ok(())
    }

    /// The text of a field of at most `max_bytes`.
    pub fn text_of(&self, field: &Field, max_bytes: u64) -> Result<String, EngineError> {
        let range = self.bytes_of(field)?;
        if range.length > max_bytes {
            return Err(EngineError::TooLarge {
                place: format!("{} at byte {}: length of text", self.name, range.offset),
                value: range.length,
                limit: max_bytes,
            });
        }
        let mut bytes = Vec::new();
        self.append(range, &mut bytes)?;
        String::from_utf8(bytes).map_err(|_| self.invalid(range.offset, "text is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(bytes: &[u8]) -> Result<Field, EngineError> {
        let source = bytes.to_vec();
        let mut window = Window::default();
        Wire::new("test", &source, &mut window).field(0, bytes.len() as u64)
    }

    fn reason(bytes: &[u8]) -> String {
        field(bytes).unwrap_err().to_string()
    }

    #[test]
    fn reads_each_wire_type() {
        // Field 1 = 150 is the example of the encoding guide.
        assert_eq!(field(&[0x08, 0x96, 0x01]).unwrap().value, Value::Varint(150));
        let text = field(&[0x12, 0x03, b'a', b'b', b'c', 0xff]).unwrap();
        assert_eq!((text.number, text.value), (2, Value::Bytes(Range { offset: 2, length: 3 })));
        assert_eq!(text.range, Range { offset: 0, length: 5 });
        assert_eq!(field(&[0x0d, 0, 0, 0, 0]).unwrap().value, Value::Fixed(Range { offset: 1, length: 4 }));
        assert_eq!(field(&[0x09, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap().value, Value::Fixed(Range { offset: 1, length: 8 }));
        let largest = [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(field(&largest).unwrap().value, Value::Varint(u64::MAX));
    }

    #[test]
    fn refuses_what_is_cut_short_or_too_long() {
        assert_eq!(reason(&[0x12, 0x05, b'a']), "test at byte 0: field 2 needs 5 bytes, 1 are left");
        assert_eq!(reason(&[0x0d, 0, 0, 0]), "test at byte 0: field 1 needs 4 bytes, 3 are left");
        assert_eq!(reason(&[0x08, 0x80]), "test at byte 1: a varint runs beyond its message");
        assert_eq!(
            reason(&[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2]),
            "test at byte 1: a varint exceeds 64 bits"
        );
        assert_eq!(reason(&[0x0b]), "test at byte 0: field 1 has wire type 3");
        assert_eq!(reason(&[0x00]), "test at byte 0: field number 0 is out of range");
        // A length near 2^64 must not wrap around.
        let huge = [0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert!(reason(&huge).starts_with("test at byte 0: field 2 needs 18446744073709551615 bytes"));
    }

    #[test]
    fn fields_are_read_across_windows() {
        let mut bytes = vec![0x0a, 0xff, 0x1f];
        bytes.resize(3 + 4095, 7);
        bytes.extend([0x10, 0x05]);
        let source = bytes.clone();
        let mut window = Window::default();
        let mut wire = Wire::new("test", &source, &mut window);
        let first = wire.field(0, bytes.len() as u64).unwrap();
        let second = wire.field(first.range.end(), bytes.len() as u64).unwrap();
        assert_eq!(second.value, Value::Varint(5));
        let mut copy = Vec::new();
        wire.append(first.range, &mut copy).unwrap();
        assert_eq!(copy, bytes[..4098]);
    }
}
