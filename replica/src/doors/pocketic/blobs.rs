//! The blob store: bytes by their hash, for values too large for a JSON request.

use super::operations::ApiError;
use axum::body::Bytes;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::Read;
use std::sync::{Mutex, PoisonError};

/// Largest blob, also once unpacked: a stable memory that a test may want to set.
pub const MAX_BLOB_BYTES: usize = 4 * 1024 * 1024 * 1024;

#[derive(Clone)]
struct Blob {
    bytes: Bytes,
    is_gzip: bool,
}

#[derive(Default)]
pub struct BlobStore {
    blobs: Mutex<HashMap<[u8; 32], Blob>>,
}

impl BlobStore {
    /// Stores bytes as they came; the key is their SHA-256.
    pub fn put(&self, bytes: Bytes, is_gzip: bool) -> [u8; 32] {
        let key: [u8; 32] = Sha256::digest(&bytes).into();
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Blob { bytes, is_gzip });
        key
    }

    /// The bytes as they came, and whether they are gzip.
    pub fn get(&self, key: &[u8]) -> Option<(Bytes, bool)> {
        let key: [u8; 32] = key.try_into().ok()?;
        let blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        blobs.get(&key).map(|blob| (blob.bytes.clone(), blob.is_gzip))
    }

    /// The bytes, unpacked.
    pub fn get_unpacked(&self, key: &[u8]) -> Result<Vec<u8>, ApiError> {
        let (bytes, is_gzip) =
            self.get(key).ok_or_else(|| ApiError::bad_request(format!("no blob {} was uploaded", hex::encode(key))))?;
        if !is_gzip {
            return Ok(bytes.to_vec());
        }
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..])
            .take(MAX_BLOB_BYTES as u64 + 1)
            .read_to_end(&mut unpacked)
            .map_err(|e| ApiError::bad_request(format!("blob {} is not gzip: {e}", hex::encode(key))))?;
        if unpacked.len() > MAX_BLOB_BYTES {
            return Err(ApiError::bad_request(format!(
                "blob {} unpacks to more than {MAX_BLOB_BYTES} bytes",
                hex::encode(key)
            )));
        }
        Ok(unpacked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn blobs_come_back_unpacked() {
        let store = BlobStore::default();
        let plain = store.put(Bytes::from_static(b"plain"), false);
        assert_eq!(store.get_unpacked(&plain).unwrap(), b"plain");
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&[7; 100_000]).unwrap();
        let packed = store.put(gzip.finish().unwrap().into(), true);
        assert_eq!(store.get_unpacked(&packed).unwrap(), [7; 100_000]);
        let broken = store.put(Bytes::from_static(b"not gzip"), true);
        assert!(store.get_unpacked(&broken).unwrap_err().message.contains("is not gzip"));
        assert!(store.get_unpacked(&[0; 32]).unwrap_err().message.contains("no blob"));
        assert!(store.get_unpacked(b"short").is_err());
    }
}
