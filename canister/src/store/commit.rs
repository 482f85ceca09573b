//! Committing: hashing whole files, over as many messages as it takes, before a version may be used.
//!
//! The hash's state and position are stored after every message, so neither a pause nor an upgrade begins again.

use super::models::{self, CommitCursor, Entry, ModelRecord, Stage};
use super::{ModelKey, manifest, upload};
use crate::jobs::WorkId;
use crate::jobs::driver::{self, Waited};
use crate::limits::HASH_WINDOW_BYTES;
use crate::runtime;
use crate::settings;
use crate::stable::Blob;
use crate::stable::blob::{BLOCK_BYTES, Damage};
use onnx_canister_interface::{Error, ModelInfo, ModelRef};
use serde_bytes::ByteBuf;
use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

thread_local! {
    /// Versions being hashed.
    static PENDING: RefCell<BTreeSet<ModelKey>> = const { RefCell::new(BTreeSet::new()) };
    /// Why the last commit of a version failed, for the call that waits for it.
    static FAILURES: RefCell<BTreeMap<ModelKey, Error>> = const { RefCell::new(BTreeMap::new()) };
}

/// Verifies the sha256 of every file, in this message as far as its budget goes and then in messages of its own.
///
/// Answers with the version's info when it is verified. When the call's messages are used up, or the canister is
/// stopping, it answers with the state `Committing`; hashing goes on by itself.
pub async fn commit(model: ModelRef) -> Result<ModelInfo, Error> {
    let key = models::resolve(&model)?;
    let work = WorkId::Commit(key.clone());
    let driven_elsewhere = driver::is_driven(&work);
    if !begin(&key)? || driven_elsewhere {
        return models::info(&key);
    }
    step(&key);
    let waited = match is_pending(&key) {
        true => driver::wait(&work, settings::get().max_call_messages).await,
        false => Waited::Ended,
    };
    if let Waited::Ended = waited {
        outcome(&key)?;
    }
    models::info(&key)
}

/// The error that a version's hashing ended with, told once.
pub fn outcome(key: &ModelKey) -> Result<(), Error> {
    FAILURES.with_borrow_mut(|failures| failures.remove(key)).map_or(Ok(()), Err)
}

/// Whether the version is being hashed.
pub fn is_pending(key: &ModelKey) -> bool {
    PENDING.with_borrow(|pending| pending.contains(key))
}

/// Versions being hashed.
pub fn pending() -> Vec<ModelKey> {
    PENDING.with_borrow(|pending| pending.iter().cloned().collect())
}

/// Takes up again what an upgrade interrupted.
pub fn resume(key: &ModelKey) {
    PENDING.with_borrow_mut(|pending| pending.insert(key.clone()));
}

/// Stops hashing a version that is about to be deleted.
pub fn forget(key: &ModelKey) {
    PENDING.with_borrow_mut(|pending| pending.remove(key));
    FAILURES.with_borrow_mut(|failures| failures.remove(key));
}

/// Begins to hash; tells whether there is something to hash. A version that is verified stays so.
pub fn begin(key: &ModelKey) -> Result<bool, Error> {
    models::with(key, |entry| {
        match entry.record.stage {
            // A version that failed for damage is verified again when its chunks are there.
            Stage::Uploading | Stage::Failed { .. } => {}
            Stage::Committing => return Ok(true),
            _ => return Ok(false),
        }
        check_complete(entry)?;
        let record = Rc::make_mut(&mut entry.record);
        record.stage = Stage::Committing;
        record.commit = Some(CommitCursor::start());
        entry.save();
        Ok(true)
    })?;
    let begun = models::record(key)?.stage == Stage::Committing;
    if begun {
        resume(key);
        FAILURES.with_borrow_mut(|failures| failures.remove(key));
    }
    Ok(begun)
}

/// Refuses while chunks are missing.
pub fn check_complete(entry: &Entry) -> Result<(), Error> {
    if entry.bitmap.is_complete() {
        return Ok(());
    }
    let missing = upload::missing(entry);
    let (first_file, first_index) = missing.first().map_or((0, 0), |run| (run.file, run.first));
    let missing = entry.bitmap.total() - entry.bitmap.stored();
    Err(Error::ChunksMissing { missing, first_file, first_index })
}

/// Verifies, for one message, a version that is committed but whose bytes are not under checksums, as layout 1 left
/// them; tells whether all is verified.
pub fn verify_again(key: &ModelKey) -> Result<bool, Error> {
    let budget = settings::get().message_budget;
    models::with(key, |entry| {
        Rc::make_mut(&mut entry.record).commit.get_or_insert_with(CommitCursor::start);
        let done = hash(entry, budget)?;
        if done {
            Rc::make_mut(&mut entry.record).commit = None;
        }
        entry.save();
        Ok(done)
    })
}

/// Hashes for one message: at least one window, then as many as the budget allows.
pub fn step(key: &ModelKey) {
    let budget = settings::get().message_budget;
    let result = models::with(key, |entry| {
        let done = hash(entry, budget);
        if let Ok(false) = done {
            entry.save();
        }
        done
    });
    match result {
        Ok(false) => {}
        Ok(true) => finish(key, Stage::Committed, None),
        Err(error) => finish(key, Stage::Uploading, Some(error)),
    }
}

/// Ends the hashing of a version with an error, as when its step trapped. What is stored stays.
pub fn fail(key: &ModelKey, error: Error) {
    finish(key, Stage::Uploading, Some(error));
}

fn finish(key: &ModelKey, stage: Stage, error: Option<Error>) {
    PENDING.with_borrow_mut(|pending| pending.remove(key));
    // A version that was deleted meanwhile has nothing to record.
    let recorded = models::update(key, |record| {
        record.stage = stage;
        record.commit = None;
    });
    if let Some(error) = error.or(recorded.err()) {
        FAILURES.with_borrow_mut(|failures| failures.insert(key.clone(), error));
    }
}

/// Hashes until the budget is used; tells whether all files are done.
fn hash(entry: &mut Entry, budget: u64) -> Result<bool, Error> {
    if entry.record.commit.is_none() {
        return Err(entry.wrong_state("committing"));
    }
    let ModelRecord { commit, files, .. } = Rc::make_mut(&mut entry.record);
    let cursor = commit.get_or_insert_with(CommitCursor::start);
    let mut hasher = hasher(&cursor.hash_state)?;
    let mut window = vec![0; HASH_WINDOW_BYTES];
    let files_count = files.len();
    loop {
        let file = cursor.file as usize;
        let (Some(stored), Some(expected)) = (files.get_mut(file), entry.manifest.files.get(file)) else {
            return Ok(true);
        };
        let blob = &mut stored.blob;
        cursor.offset_bytes += hash_window(blob, cursor.offset_bytes, &mut window, &mut hasher);
        if cursor.offset_bytes == blob.size_bytes() {
            let got_sha256 = std::mem::take(&mut hasher).finalize();
            if got_sha256[..] != expected.sha256[..] {
                return Err(Error::FileHash {
                    file: cursor.file,
                    name: expected.name.clone(),
                    expected_sha256: expected.sha256.clone(),
                    got_sha256: ByteBuf::from(&got_sha256[..]),
                });
            }
            cursor.file += 1;
            cursor.offset_bytes = 0;
        }
        if runtime::instructions() >= budget && (cursor.file as usize) < files_count {
            cursor.hash_state = hash_state(&hasher);
            return Ok(false);
        }
    }
}

/// Hashes the bytes from `offset` on, at most a window, and puts them under checksums; tells how many there were.
fn hash_window(blob: &mut Blob, offset: u64, window: &mut [u8], hasher: &mut Sha256) -> u64 {
    let length = (blob.size_bytes() - offset).min(window.len() as u64);
    let bytes = &mut window[..length as usize];
    blob.read_unchecked(offset, bytes);
    hasher.update(&*bytes);
    if offset == 0 {
        blob.clear_sums();
    }
    // Windows are whole blocks, so that none has to be summed in two pieces.
    const _: () = assert!((HASH_WINDOW_BYTES as u64).is_multiple_of(BLOCK_BYTES));
    blob.push_sums(bytes);
    length
}

/// Takes the chunks of `file` that are in the damaged range and no longer have their hash out of those that are stored;
/// tells which.
pub fn take_out_damaged_chunks(entry: &mut Entry, file: u32, damage: Damage) -> Vec<u32> {
    let index = file as usize;
    let (Some(manifest), Some(stored)) = (entry.manifest.files.get(index), entry.record.files.get(index)) else {
        return Vec::new();
    };
    let chunk_size = u64::from(entry.manifest.chunk_size);
    let first = damage.offset_bytes / chunk_size;
    let end = (damage.offset_bytes + damage.length_bytes).div_ceil(chunk_size);
    let chunks = (first..end).map(|chunk| chunk as u32);
    let is_damaged = |chunk: &u32| {
        let length = manifest::chunk_bytes(stored.size_bytes, entry.manifest.chunk_size, *chunk);
        let mut bytes = vec![0; length as usize];
        stored.blob.read_unchecked(u64::from(*chunk) * chunk_size, &mut bytes);
        let expected = manifest.chunk_sha256.get(*chunk as usize);
        expected.is_none_or(|expected| Sha256::digest(&bytes)[..] != expected[..])
    };
    let damaged: Vec<u32> = chunks.filter(is_damaged).collect();
    for chunk in &damaged {
        let number = entry.chunk_number(file, *chunk);
        entry.bitmap.remove(number);
    }
    entry.bitmap.save(&entry.key);
    if let Some(stored) = Rc::make_mut(&mut entry.record).files.get_mut(index) {
        stored.blob.clear_sums();
    }
    entry.save();
    damaged
}

/// SHA-256's state, as it is stored.
pub fn hash_state(hasher: &Sha256) -> ByteBuf {
    ByteBuf::from(hasher.serialize().to_vec())
}

fn hasher(state: &[u8]) -> Result<Sha256, Error> {
    let damaged =
        || Error::ModelInvalid { place: "the commit's cursor".into(), reason: "its hash state is damaged".into() };
    let state = SerializedState::<Sha256>::try_from(state).map_err(|_| damaged())?;
    Sha256::deserialize(&state).map_err(|_| damaged())
}
