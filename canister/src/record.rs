//! How the canister's own records are encoded in stable memory.
//!
//! ```text
//! -------------------------------------------------- <- 0
//! Magic "OCR"                           ↕ 3 bytes
//! --------------------------------------------------
//! Record layout version (1)             ↕ 1 byte
//! --------------------------------------------------
//! First 8 bytes of SHA-256 of the body  ↕ 8 bytes
//! --------------------------------------------------
//! Body: the record in CBOR              ↕ the rest
//! --------------------------------------------------
//! ```
//!
//! Fields go by name, so a later version may add one with a default and still read what is stored.

use crate::runtime;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use std::fmt;

const MAGIC: [u8; 3] = *b"OCR";
const LAYOUT_VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 8;
const HEADER_BYTES: usize = MAGIC.len() + 1 + CHECKSUM_BYTES;

/// Why stored bytes are not a record.
#[derive(Debug, PartialEq, Eq)]
pub enum RecordError {
    TooShort { bytes: usize },
    Magic { got: [u8; 3] },
    Version { got: u8 },
    Checksum,
    Body(String),
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { bytes } => write!(f, "{bytes} bytes are too few for a record's header"),
            Self::Magic { got } => write!(f, "magic {got:02x?} instead of {MAGIC:02x?}"),
            Self::Version { got } => write!(f, "record layout {got}, this version reads {LAYOUT_VERSION}"),
            Self::Checksum => write!(f, "the checksum does not match"),
            Self::Body(reason) => write!(f, "{reason}"),
        }
    }
}

/// Encodes a record.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    if let Err(error) = ciborium::into_writer(value, &mut bytes) {
        // Writing to a vector cannot fail, and no record has a type that CBOR lacks; a message must not go on if it did.
        runtime::trap(&format!("a record could not be encoded: {error}"));
    }
    let checksum = checksum(&bytes[HEADER_BYTES..]);
    bytes[..3].copy_from_slice(&MAGIC);
    bytes[3] = LAYOUT_VERSION;
    bytes[4..HEADER_BYTES].copy_from_slice(&checksum);
    bytes
}

/// Decodes a record, checking its magic, version and checksum.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    if bytes.len() < HEADER_BYTES {
        return Err(RecordError::TooShort { bytes: bytes.len() });
    }
    if bytes[..3] != MAGIC {
        return Err(RecordError::Magic { got: [bytes[0], bytes[1], bytes[2]] });
    }
    if bytes[3] != LAYOUT_VERSION {
        return Err(RecordError::Version { got: bytes[3] });
    }
    let body = &bytes[HEADER_BYTES..];
    if bytes[4..HEADER_BYTES] != checksum(body) {
        return Err(RecordError::Checksum);
    }
    ciborium::from_reader(body).map_err(|error| RecordError::Body(error.to_string()))
}

/// Decodes a record that this canister wrote; `place` names it. Damage there is no caller's doing and nothing sound
/// can follow from it, so the message traps and leaves stable memory as it is.
pub fn decode_own<T: DeserializeOwned>(place: &str, bytes: &[u8]) -> T {
    match decode(bytes) {
        Ok(value) => value,
        Err(error) => runtime::trap(&format!("stable memory is damaged: {place}: {error}")),
    }
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = Sha256::digest(body);
    let mut checksum = [0; CHECKSUM_BYTES];
    checksum.copy_from_slice(&digest[..CHECKSUM_BYTES]);
    checksum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was() {
        let value = vec![(1_u64, "one".to_string()), (u64::MAX, String::new())];
        assert_eq!(decode::<Vec<(u64, String)>>(&encode(&value)), Ok(value));
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let bytes = encode(&"a record of some length".to_string());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            let error = decode::<String>(&damaged).expect_err("damage must be noticed");
            match at {
                0..=2 => assert!(matches!(error, RecordError::Magic { .. })),
                3 => assert!(matches!(error, RecordError::Version { got: 0x41 })),
                _ => assert_eq!(error, RecordError::Checksum),
            }
        }
        assert_eq!(decode::<String>(&bytes[..HEADER_BYTES - 1]), Err(RecordError::TooShort { bytes: 11 }));
        assert!(matches!(decode::<u64>(&bytes), Err(RecordError::Body(_))));
    }
}
