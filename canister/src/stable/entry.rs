//! One entry of the journal: a record that was set, or removed.
//!
//! ```text
//! -------------------------------------------------- <- 0
//! Magic "OCE"                           3 bytes
//! --------------------------------------------------
//! Entry layout version (1)              1 byte
//! --------------------------------------------------
//! Sequence number                       8 bytes
//! --------------------------------------------------
//! Kind of the record                    1 byte
//! --------------------------------------------------
//! 1: set, 0: removed                    1 byte
//! --------------------------------------------------
//! Length of the key                     2 bytes
//! --------------------------------------------------
//! Length of the record                  4 bytes
//! --------------------------------------------------
//! CRC-32 of the record                  4 bytes
//! --------------------------------------------------
//! CRC-32 of all before and of the key   4 bytes
//! -------------------------------------------------- <- 28
//! Key, then the record (see record.rs)
//! --------------------------------------------------
//! ```
//!
//! Numbers are little-endian. After the last entry are 28 bytes of zero, where the journal has room for them.

/// Bytes of an entry before its key.
pub const HEADER_BYTES: usize = 28;
const CRC_AT: usize = 24;
const MAGIC: [u8; 4] = *b"OCE\x01";

/// What an entry's first bytes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub sequence: u64,
    pub kind: u8,
    pub set: bool,
    pub key_length: u16,
    pub record_length: u32,
    record_crc: u32,
    header_crc: u32,
}

/// An entry's bytes; without a record, the entry that removes it.
pub fn encode(sequence: u64, kind: u8, key: &[u8], record: Option<&[u8]>) -> Vec<u8> {
    let body = record.unwrap_or_default();
    let mut bytes = Vec::with_capacity(HEADER_BYTES + key.len() + body.len());
    bytes.extend(MAGIC);
    bytes.extend(sequence.to_le_bytes());
    bytes.extend([kind, u8::from(record.is_some())]);
    // Keys are a name and a version, or a principal and a name: below 64 KiB; records are below 4 GiB, as the heap is.
    bytes.extend((key.len() as u16).to_le_bytes());
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(crc32fast::hash(body).to_le_bytes());
    let crc = header_crc(&bytes, key);
    bytes.extend(crc.to_le_bytes());
    bytes.extend(key);
    bytes.extend(body);
    bytes
}

/// Bytes of the entry of a key and a record.
pub fn length(key: &[u8], record: &[u8]) -> u64 {
    (HEADER_BYTES + key.len() + record.len()) as u64
}

fn header_crc(before: &[u8], key: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(before);
    crc.update(key);
    crc.finalize()
}

impl Header {
    /// Reads a header whose bytes look like one; whether it is whole, [`Header::is_whole`] tells when the key is known.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let number = |at: usize, length: usize| {
            bytes[at..at + length].iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        };
        if bytes[..4] != MAGIC || bytes[13] > 1 {
            return None;
        }
        Some(Self {
            sequence: number(4, 8),
            kind: bytes[12],
            set: bytes[13] == 1,
            key_length: number(14, 2) as u16,
            record_length: number(16, 4) as u32,
            record_crc: number(20, 4) as u32,
            header_crc: number(CRC_AT, 4) as u32,
        })
    }

    pub fn is_whole(&self, bytes: &[u8; HEADER_BYTES], key: &[u8]) -> bool {
        self.header_crc == header_crc(&bytes[..CRC_AT], key)
    }

    pub fn is_of(&self, record: &[u8]) -> bool {
        self.record_crc == crc32fast::hash(record)
    }
}
