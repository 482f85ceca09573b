//! Model versions and their names: the records, and the heap's mirror of them.

use super::bitmap::Bitmap;
use super::blobs::{self, Blob, BlobId};
use crate::loading;
use crate::memory::{self, Stable};
use crate::record;
use ic_stable_structures::StableBTreeMap;
use onnx_canister_interface::{
    Cost, Error, Manifest, ModelInfo, ModelRef, ModelState, Preprocessing, Task, TensorInfo,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// A model version. Versions of a name are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ModelKey {
    pub name: String,
    pub version: u32,
}

/// Where a version stands. Progress within a stage is on the heap or in the version's bitmap and cursor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    Uploading,
    Committing,
    Committed,
    Loading,
    Ready,
    Failed { reason: String },
}

/// How far `commit` has hashed, so that an upgrade doesn't begin again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitCursor {
    /// The file being hashed.
    pub file: u32,
    /// Its bytes hashed so far.
    pub offset_bytes: u64,
    /// SHA-256's state after them.
    pub hash_state: ByteBuf,
    pub cost: Cost,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoredFile {
    pub name: String,
    pub size_bytes: u64,
    pub blob: BlobId,
}

/// All that is kept of a version beside its files and its manifest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelRecord {
    pub stage: Stage,
    /// The encoded manifest; it never changes.
    pub manifest: BlobId,
    pub manifest_sha256: ByteBuf,
    pub bitmap: BlobId,
    pub chunks_total: u32,
    pub files: Vec<StoredFile>,
    pub commit: Option<CommitCursor>,
    pub task: Task,
    pub preprocessing: Option<Preprocessing>,
    pub labels_count: u32,
    pub description: String,
    pub stable_bytes: u64,
    pub inputs: Vec<TensorInfo>,
    pub outputs: Vec<TensorInfo>,
    pub load_cost: Cost,
    pub heap_bytes: u64,
}

/// What is kept of a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameRecord {
    pub next_version: u32,
    pub active: Option<u32>,
    /// The version that was active before, to which `rollback` goes.
    pub previous: Option<u32>,
}

/// A version on the heap: its record, and what uploading and inference look at often.
pub struct Entry {
    pub key: ModelKey,
    pub record: ModelRecord,
    pub manifest: Rc<Manifest>,
    pub files: Vec<Blob>,
    pub bitmap: Bitmap,
}

thread_local! {
    static NAMES: RefCell<StableBTreeMap<String, Vec<u8>, Stable>> =
        RefCell::new(StableBTreeMap::init(memory::get(memory::NAMES)));
    static RECORDS: RefCell<StableBTreeMap<Vec<u8>, Vec<u8>, Stable>> =
        RefCell::new(StableBTreeMap::init(memory::get(memory::MODELS)));
    static ENTRIES: RefCell<BTreeMap<ModelKey, Entry>> = const { RefCell::new(BTreeMap::new()) };
}

impl ModelKey {
    /// The key in the map of records: the name, a zero, the version big-endian. So versions of a name are in order.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.name.len() + 5);
        bytes.extend_from_slice(self.name.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&self.version.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (name, version) = bytes.split_at_checked(bytes.len().checked_sub(5)?)?;
        let version = u32::from_be_bytes(version[1..].try_into().ok()?);
        Some(Self { name: String::from_utf8(name.to_vec()).ok()?, version })
    }

    pub fn to_ref(&self) -> ModelRef {
        ModelRef { name: self.name.clone(), version: Some(self.version) }
    }

    pub fn not_found(&self) -> Error {
        Error::ModelNotFound { name: self.name.clone(), version: Some(self.version) }
    }
}

impl Stage {
    /// The state's name as errors tell it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Uploading => "uploading",
            Self::Committing => "committing",
            Self::Committed => "committed",
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Failed { .. } => "failed",
        }
    }
}

impl Entry {
    /// Writes the record to stable memory.
    pub fn save(&self) {
        save(&self.key, &self.record);
    }

    /// The error for a stage in which something can't be done.
    pub fn wrong_state(&self, needs: &str) -> Error {
        wrong_state(&self.key, &self.record, needs)
    }

    /// Number of chunk `index` of `file` among the chunks of all files.
    pub fn chunk_number(&self, file: u32, index: u32) -> u32 {
        let before: usize = self.manifest.files.iter().take(file as usize).map(|f| f.chunk_sha256.len()).sum();
        before as u32 + index
    }
}

fn wrong_state(key: &ModelKey, record: &ModelRecord, needs: &str) -> Error {
    Error::WrongState {
        name: key.name.clone(),
        version: key.version,
        state: record.stage.name().to_string(),
        needs: needs.to_string(),
    }
}

fn save(key: &ModelKey, record: &ModelRecord) {
    let bytes = record::encode(record);
    RECORDS.with_borrow_mut(|records| records.insert(key.to_bytes(), bytes));
}

fn decode(key: &ModelKey, bytes: &[u8]) -> ModelRecord {
    record::decode_own(&format!("model '{}' version {}", key.name, key.version), bytes)
}

/// Opens the maps.
pub fn open() {
    NAMES.with_borrow(|_| ());
    RECORDS.with_borrow(|_| ());
}

/// Keys of all versions, by name and version.
pub fn keys() -> Vec<ModelKey> {
    RECORDS.with_borrow(|records| records.keys().filter_map(|bytes| ModelKey::from_bytes(&bytes)).collect())
}

/// Number of versions in all.
pub fn count() -> u64 {
    RECORDS.with_borrow(|records| records.len())
}

/// Versions of one name.
pub fn versions(name: &str) -> Vec<ModelKey> {
    let from = ModelKey { name: name.to_string(), version: 0 };
    let to = ModelKey { name: name.to_string(), version: u32::MAX };
    RECORDS.with_borrow(|records| {
        records.keys_range(from.to_bytes()..=to.to_bytes()).filter_map(|bytes| ModelKey::from_bytes(&bytes)).collect()
    })
}

/// The record of a version, without bringing the version to the heap.
pub fn record(key: &ModelKey) -> Result<ModelRecord, Error> {
    if let Some(record) = ENTRIES.with_borrow(|entries| entries.get(key).map(|entry| entry.record.clone())) {
        return Ok(record);
    }
    match RECORDS.with_borrow(|records| records.get(&key.to_bytes())) {
        Some(bytes) => Ok(decode(key, &bytes)),
        None => Err(key.not_found()),
    }
}

/// Gives `f` a version, bringing it to the heap first. `f` must not come back here.
pub fn with<R>(key: &ModelKey, f: impl FnOnce(&mut Entry) -> Result<R, Error>) -> Result<R, Error> {
    ENTRIES.with_borrow_mut(|entries| {
        if !entries.contains_key(key) {
            let bytes = RECORDS.with_borrow(|records| records.get(&key.to_bytes())).ok_or_else(|| key.not_found())?;
            let record = decode(key, &bytes);
            let place = format!("the manifest of model '{}' version {}", key.name, key.version);
            let manifest = record::decode_own(&place, &blobs::open(record.manifest).read());
            entries.insert(
                key.clone(),
                Entry {
                    key: key.clone(),
                    manifest: Rc::new(manifest),
                    files: record.files.iter().map(|file| blobs::open(file.blob)).collect(),
                    bitmap: Bitmap::open(record.bitmap, record.chunks_total),
                    record,
                },
            );
        }
        match entries.get_mut(key) {
            Some(entry) => f(entry),
            None => Err(key.not_found()),
        }
    })
}

/// Changes the record of a version and stores it.
pub fn update(key: &ModelKey, f: impl FnOnce(&mut ModelRecord)) -> Result<(), Error> {
    with(key, |entry| {
        f(&mut entry.record);
        entry.save();
        Ok(())
    })
}

/// Keeps a new version.
pub fn insert(entry: Entry) {
    entry.save();
    ENTRIES.with_borrow_mut(|entries| entries.insert(entry.key.clone(), entry));
}

/// Forgets a version and gives its stable memory back.
pub fn remove(key: &ModelKey) -> Result<(), Error> {
    let record = record(key)?;
    for file in &record.files {
        blobs::free(file.blob);
    }
    blobs::free(record.manifest);
    blobs::free(record.bitmap);
    RECORDS.with_borrow_mut(|records| records.remove(&key.to_bytes()));
    ENTRIES.with_borrow_mut(|entries| entries.remove(key));
    Ok(())
}

/// The record of a name.
pub fn name(name: &str) -> Option<NameRecord> {
    let bytes = NAMES.with_borrow(|names| names.get(&name.to_string()))?;
    Some(record::decode_own(&format!("name '{name}'"), &bytes))
}

pub fn set_name(name: &str, value: &NameRecord) {
    NAMES.with_borrow_mut(|names| names.insert(name.to_string(), record::encode(value)));
}

pub fn remove_name(name: &str) {
    NAMES.with_borrow_mut(|names| names.remove(&name.to_string()));
}

/// The version that a reference means.
pub fn resolve(model: &ModelRef) -> Result<ModelKey, Error> {
    super::manifest::check_name("model.name", &model.name)?;
    let not_found = || Error::ModelNotFound { name: model.name.clone(), version: model.version };
    let name_record = name(&model.name).ok_or_else(not_found)?;
    let version = match model.version {
        Some(version) => version,
        None => name_record.active.ok_or_else(|| Error::NoActiveVersion { name: model.name.clone() })?,
    };
    let key = ModelKey { name: model.name.clone(), version };
    match RECORDS.with_borrow(|records| records.contains_key(&key.to_bytes())) {
        true => Ok(key),
        false => Err(not_found()),
    }
}

/// The version that a reference means, if it can answer now.
pub fn resolve_ready(model: &ModelRef) -> Result<ModelKey, Error> {
    let key = resolve(model)?;
    let record = record(&key)?;
    match record.stage {
        Stage::Ready => Ok(key),
        _ => Err(wrong_state(&key, &record, "ready: load it")),
    }
}

/// The state that anyone can see.
pub fn state(key: &ModelKey) -> Result<ModelState, Error> {
    let record = record(key)?;
    Ok(state_of(key, &record))
}

fn state_of(key: &ModelKey, record: &ModelRecord) -> ModelState {
    let bytes_total = || record.files.iter().map(|file| file.size_bytes).sum();
    match &record.stage {
        Stage::Uploading => {
            let stored = ENTRIES.with_borrow(|entries| entries.get(key).map(|entry| entry.bitmap.stored()));
            let chunks_stored = stored.unwrap_or_else(|| Bitmap::open(record.bitmap, record.chunks_total).stored());
            ModelState::Uploading { chunks_stored, chunks_total: record.chunks_total }
        }
        Stage::Committing => {
            let bytes_done = record.commit.as_ref().map_or(0, |cursor| {
                let before: u64 = record.files.iter().take(cursor.file as usize).map(|file| file.size_bytes).sum();
                before + cursor.offset_bytes
            });
            ModelState::Committing { bytes_done, bytes_total: bytes_total() }
        }
        Stage::Committed => ModelState::Committed,
        Stage::Loading => {
            let (done, total) = loading::progress(key).unwrap_or((0, bytes_total()));
            ModelState::Loading { done, total }
        }
        Stage::Ready => ModelState::Ready,
        Stage::Failed { reason } => ModelState::Failed { reason: reason.clone() },
    }
}

/// What anyone may know of a version.
pub fn info(key: &ModelKey) -> Result<ModelInfo, Error> {
    let record = record(key)?;
    let state = state_of(key, &record);
    let loaded = record.stage == Stage::Ready;
    Ok(ModelInfo {
        name: key.name.clone(),
        version: key.version,
        active: name(&key.name).is_some_and(|name| name.active == Some(key.version)),
        state,
        size_bytes: record.files.iter().map(|file| file.size_bytes).sum(),
        files: record.files.into_iter().map(|file| file.name).collect(),
        task: record.task,
        description: record.description,
        stable_bytes: record.stable_bytes,
        heap_bytes: if loaded { record.heap_bytes } else { 0 },
        inputs: record.inputs,
        outputs: record.outputs,
        load_cost: record.load_cost,
        labels_count: record.labels_count,
        preprocessing: record.preprocessing,
    })
}

/// Every version, by name and version.
pub fn list() -> Result<Vec<ModelInfo>, Error> {
    keys().iter().map(info).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_and_are_ordered_by_name_and_version() {
        let key = |name: &str, version| ModelKey { name: name.into(), version };
        let keys = [key("a", 1), key("a", 2), key("a", 256), key("a-b", 1), key("ab", 1), key("b", 1)];
        let bytes: Vec<Vec<u8>> = keys.iter().map(ModelKey::to_bytes).collect();
        assert!(bytes.is_sorted());
        for (key, bytes) in keys.iter().zip(&bytes) {
            assert_eq!(ModelKey::from_bytes(bytes).as_ref(), Some(key));
        }
        assert_eq!(ModelKey::from_bytes(&[1, 2]), None);
    }
}
