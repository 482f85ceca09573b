//! Uploading: a manifest reserves the room, chunks fill it in any order, and anyone may ask what is missing.

use super::ModelKey;
use super::bitmap::Bitmap;
use super::manifest::{self, chunk_bytes};
use super::models::{self, Entry, ModelRecord, NameRecord, Stage, StoredFile};
use crate::health;
use crate::limits::MODEL_VERSIONS_MAX;
use crate::record;
use crate::stable::Blob;
use onnx_canister_interface::{ChunkReceipt, Cost, Error, Manifest, MissingChunks, ModelRef, UploadStatus};
use serde::Deserialize;
use serde_bytes::{ByteBuf, Bytes};
use sha2::{Digest, Sha256};
use std::rc::Rc;

/// [`onnx_canister_interface::PutChunk`] with its bytes left where the message has them, which saves a copy.
#[derive(candid::CandidType, Deserialize)]
pub struct PutChunkBorrowed<'a> {
    pub name: String,
    pub version: u32,
    pub file: u32,
    pub index: u32,
    #[serde(borrow)]
    pub bytes: &'a Bytes,
}

/// Begins an upload, or finds the one that an equal manifest began.
pub fn begin(manifest: Manifest) -> Result<UploadStatus, Error> {
    manifest::check(&manifest)?;
    let encoded = record::encode(&manifest);
    let digest = Sha256::digest(&encoded);
    for key in models::versions(&manifest.name) {
        if models::record(&key)?.manifest_sha256[..] == digest[..] {
            resume(&key, &encoded)?;
            return Ok(UploadStatus { version: key.version, state: models::state(&key)? });
        }
    }
    health::check_reserve()?;
    if models::count() >= MODEL_VERSIONS_MAX {
        let reason = format!("there are {MODEL_VERSIONS_MAX} model versions: delete one first");
        return Err(manifest::invalid("manifest", &manifest.name, reason));
    }
    let mut name = models::name(&manifest.name).unwrap_or(NameRecord { next_version: 1, active: None, previous: None });
    let key = ModelKey { name: manifest.name.clone(), version: name.next_version };
    let entry = reserve(key.clone(), manifest, &encoded, &digest)?;
    name.next_version += 1;
    models::set_name(&key.name, &name);
    models::insert(entry);
    Ok(UploadStatus { version: key.version, state: models::state(&key)? })
}

/// Takes up an upload again: stores the manifest anew if it was damaged, and lets damaged chunks be sent again.
fn resume(key: &ModelKey, encoded: &[u8]) -> Result<(), Error> {
    models::repair_manifest(key, encoded)?;
    let failed = matches!(models::record(key)?.stage, Stage::Failed { .. });
    if failed && models::with(key, |entry| Ok(!entry.bitmap.is_complete()))? {
        models::update(key, |record| record.stage = Stage::Uploading)?;
    }
    Ok(())
}

/// Reserves stable memory for everything, or for nothing.
fn reserve(key: ModelKey, manifest: Manifest, encoded: &[u8], digest: &[u8]) -> Result<Entry, Error> {
    let mut reserved: Vec<Blob> = Vec::new();
    let result = (|| {
        for file in &manifest.files {
            reserved.push(Blob::allocate(file.size_bytes)?);
        }
        Blob::store(encoded)
    })();
    let manifest_blob = match result {
        Ok(blob) => blob,
        Err(error) => {
            reserved.into_iter().for_each(Blob::free);
            return Err(error);
        }
    };
    let files_bytes: u64 = reserved.iter().map(Blob::stable_bytes).sum();
    let chunks_total: usize = manifest.files.iter().map(|file| file.chunk_sha256.len()).sum();
    let record = ModelRecord {
        stage: Stage::Uploading,
        stable_bytes: files_bytes + manifest_blob.stable_bytes(),
        manifest: manifest_blob,
        manifest_sha256: ByteBuf::from(digest),
        files: manifest
            .files
            .iter()
            .zip(reserved)
            .map(|(file, blob)| StoredFile { name: file.name.clone(), size_bytes: file.size_bytes, blob })
            .collect(),
        commit: None,
        task: manifest.task.clone(),
        preprocessing: manifest.preprocessing.clone(),
        weights: manifest.weights,
        labels_count: manifest.labels.len() as u32,
        description: manifest.description.clone(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        load_cost: Cost::default(),
        heap_bytes: 0,
    };
    // A checked manifest has at most `CHUNKS_MAX` chunks.
    let bitmap = Bitmap::new(chunks_total as u32);
    Ok(Entry { key, record: Rc::new(record), manifest: Rc::new(manifest), bitmap })
}

/// Stores one chunk: one hash over its bytes, one write to its final place.
pub fn put_chunk(chunk: &PutChunkBorrowed) -> Result<ChunkReceipt, Error> {
    manifest::check_name("name", &chunk.name)?;
    let key = ModelKey { name: chunk.name.clone(), version: chunk.version };
    let (file, index) = (chunk.file, chunk.index);
    models::with(&key, |entry| {
        let Some(file_manifest) = entry.manifest.files.get(file as usize) else {
            let reason = format!("the model has files 0 to {}", entry.manifest.files.len() - 1);
            return Err(manifest::invalid("file", file, reason));
        };
        let Some(expected_sha256) = file_manifest.chunk_sha256.get(index as usize) else {
            let chunks = file_manifest.chunk_sha256.len() as u32;
            return Err(Error::ChunkOutOfRange { file, index, chunks });
        };
        let chunk_size = entry.manifest.chunk_size;
        let expected_bytes = chunk_bytes(file_manifest.size_bytes, chunk_size, index);
        let got_bytes = chunk.bytes.len() as u64;
        if got_bytes != expected_bytes {
            return Err(Error::ChunkSize { file, index, expected_bytes, got_bytes });
        }
        let got_sha256 = Sha256::digest(chunk.bytes);
        if got_sha256[..] != expected_sha256[..] {
            return Err(Error::ChunkHash {
                file,
                index,
                expected_sha256: expected_sha256.clone(),
                got_sha256: ByteBuf::from(&got_sha256[..]),
            });
        }
        let number = entry.chunk_number(file, index);
        let already_stored = entry.bitmap.contains(number);
        if !already_stored {
            // A version fails with a chunk missing when the chunk was found damaged: it may be sent again.
            if !matches!(entry.record.stage, Stage::Uploading | Stage::Failed { .. }) {
                return Err(entry.wrong_state("uploading"));
            }
            let stored = &entry.record.files[file as usize].blob;
            stored.write_at(u64::from(index) * u64::from(chunk_size), chunk.bytes);
            entry.bitmap.insert(number);
            entry.bitmap.save(&key);
        }
        Ok(ChunkReceipt { already_stored, chunks_stored: entry.bitmap.stored(), chunks_total: entry.bitmap.total() })
    })
}

/// Runs of chunks not yet stored, by file and index.
pub fn missing_chunks(model: &ModelRef) -> Result<Vec<MissingChunks>, Error> {
    let key = models::resolve(model)?;
    models::with(&key, |entry| Ok(missing(entry)))
}

/// As [`missing_chunks`], of a version at hand.
pub fn missing(entry: &Entry) -> Vec<MissingChunks> {
    let mut missing = Vec::new();
    let mut from = 0;
    for (file, file_manifest) in entry.manifest.files.iter().enumerate() {
        let to = from + file_manifest.chunk_sha256.len() as u32;
        for (first, count) in entry.bitmap.missing(from, to) {
            missing.push(MissingChunks { file: file as u32, first: first - from, count });
        }
        from = to;
    }
    missing
}
