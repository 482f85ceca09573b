//! Reads layout 1, and gives its records as this layout has them. Nothing is written, and no blob is moved: blobs stay
//! in the pages where they are.
//!
//! ```text
//! -------------------------------------------------- <- page 0
//! `ic-stable-structures`' memory manager: "MGR", version 1, buckets of 32 pages
//! -------------------------------------------------- <- page 1: buckets, each owned by one memory
//! memory 0: header                      "ONNXCAN\0", version 1 (4 bytes)
//! memory 1: settings                    cell, one record
//! memory 2: counters                    cell, one record
//! memory 3: names                       map, model name -> record
//! memory 4: models                      map, name and version -> record
//! memory 5: blob table                  map, blob number -> record (size, extents)
//! memory 6: free extents                map, first page -> pages
//! memory 7: blobs                       raw pages: files, manifests, bitmaps, inputs, requests, results
//! memory 8: jobs                        map, job number -> record
//! memory 9: inputs                      map, caller and key -> record
//! --------------------------------------------------
//! ```
//!
//! Records had the encoding of `record.rs` and the fields of the types below. A blob's extents counted the pages of
//! memory 7, whose buckets lie anywhere.

use super::journal::Records;
use super::{Blob, Extent, Kind, PAGE_BYTES};
use crate::counters::Counters;
use crate::inputs::InputRecord;
use crate::jobs::record::{JobRecord, StoredOutput, StoredState};
use crate::record;
use crate::settings;
use crate::store::bitmap::BitmapRecord;
use crate::store::models::{CommitCursor, ModelRecord, NameRecord, Stage, StoredFile};
use ic_stable_structures::memory_manager::{MemoryId, MemoryManager, VirtualMemory};
use ic_stable_structures::{DefaultMemoryImpl, Memory, StableBTreeMap, StableCell, Storable};
use onnx_canister_interface::{Cost, Preprocessing, Task, TensorInfo};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;

const BUCKET_PAGES: u16 = 32;
/// Where the manager's table tells which memory has each bucket.
const BUCKETS_AT: u64 = 2_080;
/// What the table says of a bucket that no memory has.
const NO_MEMORY: u8 = 255;
const MANAGER_START: [u8; 4] = *b"MGR\x01";
const HEADER: [u8; 12] = *b"ONNXCAN\0\x01\0\0\0";

const SETTINGS: u8 = 1;
const COUNTERS: u8 = 2;
const NAMES: u8 = 3;
const MODELS: u8 = 4;
const BLOB_TABLE: u8 = 5;
const BLOBS: u8 = 7;
const JOBS: u8 = 8;
const INPUTS: u8 = 9;

type OldBlobId = u64;

#[derive(Deserialize)]
struct OldBlob {
    size_bytes: u64,
    extents: Vec<Extent>,
}

#[derive(Deserialize)]
struct OldCounters {
    next_job: u64,
}

#[derive(Deserialize)]
struct OldFile {
    name: String,
    size_bytes: u64,
    blob: OldBlobId,
}

#[derive(Deserialize)]
struct OldModel {
    stage: Stage,
    manifest: OldBlobId,
    manifest_sha256: ByteBuf,
    bitmap: OldBlobId,
    chunks_total: u32,
    files: Vec<OldFile>,
    commit: Option<CommitCursor>,
    task: Task,
    preprocessing: Option<Preprocessing>,
    labels_count: u32,
    description: String,
    inputs: Vec<TensorInfo>,
    outputs: Vec<TensorInfo>,
    load_cost: Cost,
}

#[derive(Deserialize)]
struct OldJob {
    owner: candid::Principal,
    key: crate::store::ModelKey,
    request: Option<OldBlobId>,
    staged: Vec<String>,
    limits: crate::inference::Limits,
    state: OldState,
    cost: Cost,
}

#[derive(Deserialize)]
enum OldState {
    Queued,
    Running { nodes_done: u32, nodes_total: u32 },
    Interrupted,
    Classified(Vec<onnx_canister_interface::Label>),
    Inferred(Vec<OldOutput>),
    Failed(ByteBuf),
    Cancelled,
}

#[derive(Deserialize)]
struct OldOutput {
    name: String,
    element_type: onnx_canister_interface::ElementType,
    shape: Vec<u64>,
    size_bytes: u64,
    blob: OldBlobId,
}

#[derive(Deserialize)]
struct OldInput {
    element_type: onnx_canister_interface::ElementType,
    shape: Vec<u64>,
    size_bytes: u64,
    received_bytes: u64,
    blob: OldBlobId,
}

/// Whether the memory has layout 1: the manager's table, and behind it our header.
pub fn is_it(memory: &DefaultMemoryImpl) -> bool {
    let mut table = [0; 8];
    if memory.size() <= u64::from(BUCKET_PAGES) {
        return false;
    }
    memory.read(0, &mut table);
    if table[..4] != MANAGER_START || table[6..] != BUCKET_PAGES.to_le_bytes() {
        return false;
    }
    // The header was written first of all, so it lies in the first bucket.
    let mut header = [0; HEADER.len()];
    memory.read(PAGE_BYTES, &mut header);
    header == HEADER
}

/// Every record, and the pages that the records own.
pub fn read(memory: &DefaultMemoryImpl) -> Result<(Records, Vec<Extent>), String> {
    let manager = MemoryManager::init_with_bucket_size(memory.clone(), BUCKET_PAGES);
    let old = Old { blobs: Blobs::open(memory, &manager)?, manager };
    let mut new = New::default();
    new.set(Kind::Settings, Vec::new(), &old.cell::<settings::Stored>(SETTINGS, "settings")?);
    let counters: OldCounters = old.cell(COUNTERS, "counters")?;
    new.set(Kind::Counters, Vec::new(), &Counters { next_job: counters.next_job });
    for (name, record) in old.map::<String, NameRecord>(NAMES, "names")? {
        new.set(Kind::Name, name.into_bytes(), &record);
    }
    for (key, record) in old.map::<Vec<u8>, OldModel>(MODELS, "models")? {
        old.model(&mut new, key, record)?;
    }
    for (id, record) in old.map::<u64, OldJob>(JOBS, "jobs")? {
        let job = old.job(&mut new, record)?;
        new.set(Kind::Job, id.to_be_bytes().to_vec(), &job);
    }
    for (key, input) in old.map::<Vec<u8>, OldInput>(INPUTS, "inputs")? {
        let mut blob = old.blobs.get(input.blob)?;
        blob.sum_written(0, input.received_bytes);
        let blob = new.owns(blob);
        let OldInput { element_type, shape, size_bytes, received_bytes, .. } = input;
        new.set(Kind::Input, key, &InputRecord { element_type, shape, size_bytes, received_bytes, blob });
    }
    Ok((new.records, new.used))
}

#[derive(Default)]
struct New {
    records: Records,
    used: Vec<Extent>,
}

impl New {
    fn set<T: Serialize>(&mut self, kind: Kind, key: Vec<u8>, value: &T) {
        self.records.insert((kind as u8, key), record::encode(value));
    }

    fn owns(&mut self, blob: Blob) -> Blob {
        self.used.extend_from_slice(blob.extents());
        blob
    }

    /// Takes over a blob whose bytes are all there.
    fn owns_whole(&mut self, mut blob: Blob) -> Blob {
        blob.sum_written(0, blob.size_bytes());
        self.owns(blob)
    }
}

struct Old {
    manager: MemoryManager<DefaultMemoryImpl>,
    blobs: Blobs,
}

impl Old {
    fn memory(
        manager: &MemoryManager<DefaultMemoryImpl>,
        id: u8,
        magic: &[u8; 3],
        what: &str,
    ) -> Result<VirtualMemory<DefaultMemoryImpl>, String> {
        let memory = manager.get(MemoryId::new(id));
        let mut start = [0; 3];
        if memory.size() > 0 {
            memory.read(0, &mut start);
        }
        // The library would begin anew where it doesn't know the magic.
        match start == *magic {
            true => Ok(memory),
            false => Err(format!("the {what} of layout 1 begin with {start:02x?}, expected {magic:02x?}")),
        }
    }

    fn cell<T: DeserializeOwned>(&self, id: u8, what: &str) -> Result<T, String> {
        let memory = Self::memory(&self.manager, id, b"SCL", what)?;
        let cell = StableCell::init(memory, Vec::<u8>::new());
        record::decode(cell.get()).map_err(|error| format!("the {what}: {error}"))
    }

    fn map<K: Storable + Ord + Clone, T: DeserializeOwned>(&self, id: u8, what: &str) -> Result<Vec<(K, T)>, String> {
        read_map(&self.manager, id, what)
    }

    fn model(&self, new: &mut New, key: Vec<u8>, old: OldModel) -> Result<(), String> {
        let manifest = new.owns_whole(self.blobs.get(old.manifest)?);
        let bitmap = self.blobs.get(old.bitmap)?;
        let mut chunks = vec![0; bitmap.size_bytes() as usize];
        bitmap.read_unchecked(0, &mut chunks);
        new.set(Kind::Bitmap, key.clone(), &BitmapRecord { chunks: ByteBuf::from(chunks), total: old.chunks_total });
        let mut files = Vec::with_capacity(old.files.len());
        for file in old.files {
            // Their checksums are made when their hash is next verified.
            let blob = new.owns(self.blobs.get(file.blob)?);
            files.push(StoredFile { name: file.name, size_bytes: file.size_bytes, blob });
        }
        let record = ModelRecord {
            stage: old.stage,
            stable_bytes: manifest.stable_bytes() + files.iter().map(|file| file.blob.stable_bytes()).sum::<u64>(),
            manifest,
            manifest_sha256: old.manifest_sha256,
            files,
            // What was hashed before has no checksums, so hashing begins again.
            commit: old.commit.map(|_| CommitCursor::start()),
            task: old.task,
            preprocessing: old.preprocessing,
            weights: None,
            labels_count: old.labels_count,
            description: old.description,
            inputs: old.inputs,
            outputs: old.outputs,
            load_cost: old.load_cost,
            heap_bytes: 0,
        };
        new.set(Kind::Model, key, &record);
        Ok(())
    }

    fn job(&self, new: &mut New, old: OldJob) -> Result<JobRecord, String> {
        let request = match old.request {
            Some(id) => Some(new.owns_whole(self.blobs.get(id)?)),
            None => None,
        };
        let state = match old.state {
            OldState::Queued => StoredState::Queued,
            OldState::Running { nodes_done, nodes_total } => StoredState::Running { nodes_done, nodes_total },
            OldState::Interrupted => StoredState::Interrupted,
            OldState::Classified(labels) => StoredState::Classified(labels),
            OldState::Failed(error) => StoredState::Failed(error),
            OldState::Cancelled => StoredState::Cancelled,
            OldState::Inferred(outputs) => {
                let mut stored = Vec::with_capacity(outputs.len());
                for OldOutput { name, element_type, shape, size_bytes, blob } in outputs {
                    let blob = new.owns_whole(self.blobs.get(blob)?);
                    stored.push(StoredOutput { name, element_type, shape, size_bytes, blob });
                }
                StoredState::Inferred(stored)
            }
        };
        let OldJob { owner, key, staged, limits, cost, .. } = old;
        Ok(JobRecord { owner, key, request, staged, session: None, limits, state, cost })
    }
}

fn read_map<K: Storable + Ord + Clone, T: DeserializeOwned>(
    manager: &MemoryManager<DefaultMemoryImpl>,
    id: u8,
    what: &str,
) -> Result<Vec<(K, T)>, String> {
    let memory = Old::memory(manager, id, b"BTR", what)?;
    let map: StableBTreeMap<K, Vec<u8>, _> = StableBTreeMap::init(memory);
    map.iter()
        .map(|entry| match record::decode(&entry.value()) {
            Ok(record) => Ok((entry.key().clone(), record)),
            Err(error) => Err(format!("a record of the {what}: {error}")),
        })
        .collect()
}

/// The table of blobs, and where the pages of their memory lie.
struct Blobs {
    table: BTreeMap<OldBlobId, OldBlob>,
    /// Numbers of the buckets that memory 7 has, in its order.
    buckets: Vec<u64>,
}

impl Blobs {
    fn open(memory: &DefaultMemoryImpl, manager: &MemoryManager<DefaultMemoryImpl>) -> Result<Self, String> {
        let mut owners = vec![NO_MEMORY; (PAGE_BYTES - BUCKETS_AT) as usize];
        memory.read(BUCKETS_AT, &mut owners);
        let in_memory = (memory.size() - 1) / u64::from(BUCKET_PAGES);
        owners.truncate(usize::try_from(in_memory).unwrap_or(usize::MAX));
        let buckets = (0_u64..).zip(owners).filter(|(_, owner)| *owner == BLOBS).map(|(bucket, _)| bucket).collect();
        Ok(Self { table: read_map(manager, BLOB_TABLE, "blobs")?.into_iter().collect(), buckets })
    }

    /// A blob, its pages as the whole of stable memory counts them.
    fn get(&self, id: OldBlobId) -> Result<Blob, String> {
        let old = self.table.get(&id).ok_or_else(|| format!("there is no blob {id}"))?;
        let mut extents: Vec<Extent> = Vec::new();
        for old_extent in &old.extents {
            let mut page = old_extent.first_page;
            let end = old_extent.end().ok_or_else(|| format!("blob {id} has no end"))?;
            while page < end {
                let bucket_pages = u64::from(BUCKET_PAGES);
                let bucket = usize::try_from(page / bucket_pages).ok().and_then(|index| self.buckets.get(index));
                let bucket = bucket.ok_or_else(|| format!("page {page} of blob {id} is not there"))?;
                let pages = (bucket_pages - page % bucket_pages).min(end - page);
                let first_page = 1 + bucket * bucket_pages + page % bucket_pages;
                match extents.last_mut() {
                    Some(last) if last.first_page + last.pages == first_page => last.pages += pages,
                    _ => extents.push(Extent { first_page, pages }),
                }
                page += pages;
            }
        }
        Ok(Blob::at(old.size_bytes, extents))
    }
}
