//! Model versions and their names: the records, and the heap's mirror of them.

use super::bitmap::Bitmap;
use super::commit;
use crate::loading;
use crate::record;
use crate::stable::{Blob, Kind, damage, directory};
use onnx_canister_interface::{
    Cost, Error, Manifest, ModelInfo, ModelRef, ModelState, Preprocessing, Task, TensorInfo, WeightForm,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};
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
    pub blob: Blob,
}

/// All that is kept of a version beside its files and its manifest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelRecord {
    pub stage: Stage,
    /// The encoded manifest; it never changes.
    pub manifest: Blob,
    pub manifest_sha256: ByteBuf,
    pub files: Vec<StoredFile>,
    pub commit: Option<CommitCursor>,
    pub task: Task,
    pub preprocessing: Option<Preprocessing>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<WeightForm>,
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
    pub record: Rc<ModelRecord>,
    pub manifest: Rc<Manifest>,
    pub bitmap: Bitmap,
}

thread_local! {
    static ENTRIES: RefCell<BTreeMap<ModelKey, Entry>> = const { RefCell::new(BTreeMap::new()) };
}

impl CommitCursor {
    /// Before the first byte of the first file.
    pub fn start() -> Self {
        Self { file: 0, offset_bytes: 0, hash_state: commit::hash_state(&Sha256::new()), cost: Cost::default() }
    }
}

impl ModelRecord {
    /// Everything it owns in stable memory.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.files.iter().map(|file| &file.blob).chain([&self.manifest])
    }

    /// Whether the hash of every file has been verified, and every byte is under a checksum since.
    pub fn is_verified(&self) -> bool {
        self.files.iter().all(|file| file.blob.is_summed())
    }
}

impl ModelKey {
    /// The key of its records: the name, a zero, the version big-endian. So versions of a name are in order.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.name.len() + 5);
        bytes.extend_from_slice(self.name.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&self.version.to_be_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (name, version) = bytes.split_at_checked(bytes.len().checked_sub(5)?)?;
        let version = u32::from_be_bytes(version[1..].try_into().ok()?);
        Some(Self { name: String::from_utf8(name.to_vec()).ok()?, version })
    }

    pub fn to_ref(&self) -> ModelRef {
        ModelRef { name: self.name.clone(), version: Some(self.version) }
    }

    /// What it is called in errors.
    pub fn describe(&self) -> String {
        format!("model '{}' version {}", self.name, self.version)
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
    directory::set(Kind::Model, &key.to_bytes(), record);
}

/// Keys of all versions, by name and version.
pub fn keys() -> Vec<ModelKey> {
    directory::keys(Kind::Model, &[]).iter().filter_map(|bytes| ModelKey::from_bytes(bytes)).collect()
}

/// Number of versions in all.
pub fn count() -> u64 {
    keys().len() as u64
}

/// Versions of one name.
pub fn versions(name: &str) -> Vec<ModelKey> {
    let prefix = [name.as_bytes(), &[0]].concat();
    directory::keys(Kind::Model, &prefix).iter().filter_map(|bytes| ModelKey::from_bytes(bytes)).collect()
}

/// The record of a version, without bringing the version to the heap.
pub fn record(key: &ModelKey) -> Result<Rc<ModelRecord>, Error> {
    if let Some(record) = ENTRIES.with_borrow(|entries| entries.get(key).map(|entry| entry.record.clone())) {
        return Ok(record);
    }
    directory::get(Kind::Model, &key.to_bytes()).map(Rc::new).ok_or_else(|| key.not_found())
}

/// The manifest of a version, from stable memory.
fn manifest(key: &ModelKey, record: &ModelRecord) -> Result<Manifest, Error> {
    let place = || format!("the manifest of {}", key.describe());
    let bytes = record.manifest.read().map_err(|damage| damage.error(place()))?;
    record::decode(&bytes).map_err(|error| damage::error(place(), error.to_string()))
}

/// Gives `f` a version, bringing it to the heap first. `f` must not come back here.
pub fn with<R>(key: &ModelKey, f: impl FnOnce(&mut Entry) -> Result<R, Error>) -> Result<R, Error> {
    ENTRIES.with_borrow_mut(|entries| {
        if !entries.contains_key(key) {
            let record: Rc<ModelRecord> =
                directory::get(Kind::Model, &key.to_bytes()).map(Rc::new).ok_or_else(|| key.not_found())?;
            let manifest = Rc::new(manifest(key, &record)?);
            entries.insert(key.clone(), Entry { key: key.clone(), record, manifest, bitmap: Bitmap::open(key) });
        }
        match entries.get_mut(key) {
            Some(entry) => f(entry),
            None => Err(key.not_found()),
        }
    })
}

/// Changes the record of a version and stores it.
pub fn update(key: &ModelKey, f: impl FnOnce(&mut ModelRecord)) -> Result<(), Error> {
    // Not through `with`: a version whose manifest is damaged has a state all the same.
    let mut record = record(key)?;
    f(Rc::make_mut(&mut record));
    save(key, &record);
    ENTRIES.with_borrow_mut(|entries| {
        if let Some(entry) = entries.get_mut(key) {
            entry.record = record;
        }
    });
    Ok(())
}

/// Writes the manifest of a version again when what is stored of it is damaged. `encoded` is what was stored.
pub fn repair_manifest(key: &ModelKey, encoded: &[u8]) -> Result<(), Error> {
    let manifest = &record(key)?.manifest;
    if manifest.size_bytes() == encoded.len() as u64 && manifest.read().is_err() {
        manifest.write_at(0, encoded);
    }
    Ok(())
}

/// Keeps a new version.
pub fn insert(entry: Entry) {
    entry.save();
    entry.bitmap.save(&entry.key);
    ENTRIES.with_borrow_mut(|entries| entries.insert(entry.key.clone(), entry));
}

/// Forgets a version and gives its stable memory back.
pub fn remove(key: &ModelKey) -> Result<(), Error> {
    let record = record(key)?;
    directory::remove(Kind::Model, &key.to_bytes());
    Bitmap::forget(key);
    record.blobs().cloned().for_each(Blob::free);
    ENTRIES.with_borrow_mut(|entries| entries.remove(key));
    Ok(())
}

/// The record of a name.
pub fn name(name: &str) -> Option<NameRecord> {
    directory::get(Kind::Name, name.as_bytes())
}

pub fn set_name(name: &str, value: &NameRecord) {
    directory::set(Kind::Name, name.as_bytes(), value);
}

pub fn remove_name(name: &str) {
    directory::remove(Kind::Name, name.as_bytes());
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
    match directory::contains(Kind::Model, &key.to_bytes()) {
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
            let of = |bitmap: &Bitmap| (bitmap.stored(), bitmap.total());
            let cached = ENTRIES.with_borrow(|entries| entries.get(key).map(|entry| of(&entry.bitmap)));
            let (chunks_stored, chunks_total) = cached.unwrap_or_else(|| of(&Bitmap::open(key)));
            ModelState::Uploading { chunks_stored, chunks_total }
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
        files: record.files.iter().map(|file| file.name.clone()).collect(),
        task: record.task.clone(),
        description: record.description.clone(),
        stable_bytes: record.stable_bytes,
        heap_bytes: if loaded { record.heap_bytes } else { 0 },
        inputs: record.inputs.clone(),
        outputs: record.outputs.clone(),
        load_cost: record.load_cost.clone(),
        labels_count: record.labels_count,
        preprocessing: record.preprocessing.clone(),
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
