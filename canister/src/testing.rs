//! What tests need to build: manifests.

use onnx_canister_interface::{FileManifest, Manifest, Task};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

/// A manifest for `infer` of files given as name and bytes.
pub fn manifest(name: &str, files: &[(&str, &[u8])], chunk_size: u32) -> Manifest {
    let hash = |bytes: &[u8]| ByteBuf::from(Sha256::digest(bytes).to_vec());
    Manifest {
        name: name.into(),
        files: files
            .iter()
            .map(|(name, bytes)| FileManifest {
                name: name.to_string(),
                size_bytes: bytes.len() as u64,
                sha256: hash(bytes),
                chunk_sha256: bytes.chunks(chunk_size as usize).map(hash).collect(),
            })
            .collect(),
        chunk_size,
        task: Task::Infer,
        preprocessing: None,
        labels: Vec::new(),
        description: String::new(),
    }
}
