//! Bringing a version onto the heap, step by step and by itself, and the versions that are there.

use crate::engine_error;
use crate::jobs::driver;
use crate::limits::{HEAP_BASE_BYTES, HEAP_BYTES_MAX, HEAP_LOAD_TENTHS};
use crate::runtime;
use crate::settings;
use crate::store::ModelKey;
use crate::store::blobs::Blob;
use crate::store::models::{self, Stage};
use crate::tensors;
use onnx_canister_interface::{Cost, Error, ModelInfo, ModelRef};
use onnx_engine::{ByteSource, LoadOptions, Loader, Meter, ModelFiles, Plan, ReadError, Step};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A version on its way to the heap.
#[derive(Default)]
struct Load {
    /// `None` until the first step.
    loader: Option<Loader>,
    done: u64,
    total: u64,
    cost: Cost,
    heap_bytes_before: u64,
}

thread_local! {
    static LOADS: RefCell<BTreeMap<ModelKey, Load>> = const { RefCell::new(BTreeMap::new()) };
    static PLANS: RefCell<BTreeMap<ModelKey, Arc<Plan>>> = const { RefCell::new(BTreeMap::new()) };
}

/// The engine's view of the instructions that this message has spent.
pub struct MessageMeter;

impl Meter for MessageMeter {
    fn spent(&self) -> u64 {
        runtime::instructions()
    }
}

/// A version's files as the engine reads them, straight from stable memory.
struct StoredFiles {
    files: Vec<(String, StoredFile)>,
}

struct StoredFile(Blob);

impl ByteSource for StoredFile {
    fn len(&self) -> u64 {
        self.0.size_bytes()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let length = buffer.len() as u64;
        if offset.checked_add(length).is_none_or(|end| end > self.len()) {
            let reason = "the range ends beyond the file".to_string();
            return Err(ReadError { offset, length, available: self.len(), reason });
        }
        self.0.read_at(offset, buffer);
        Ok(())
    }
}

impl ModelFiles for StoredFiles {
    fn onnx(&self) -> &dyn ByteSource {
        // A checked manifest has at least one file.
        &self.files[0].1
    }

    fn external(&self, location: &str) -> Option<&dyn ByteSource> {
        self.files.iter().skip(1).find(|(name, _)| name == location).map(|(_, file)| file as &dyn ByteSource)
    }
}

/// Begins to load a version; it goes on by itself.
pub fn load(model: &ModelRef) -> Result<ModelInfo, Error> {
    let key = models::resolve(model)?;
    let record = models::record(&key)?;
    match record.stage {
        Stage::Committed | Stage::Failed { .. } => {
            check_heap(record.files.iter().map(|file| file.size_bytes).sum())?;
            models::update(&key, |record| record.stage = Stage::Loading)?;
            begin(&key);
        }
        Stage::Loading | Stage::Ready => {}
        Stage::Uploading | Stage::Committing => {
            return Err(models::with(&key, |entry| Ok(entry.wrong_state("committed: commit it")))?);
        }
    }
    driver::arm();
    models::info(&key)
}

/// Takes a version up for loading, also again after an upgrade.
pub fn begin(key: &ModelKey) {
    LOADS.with_borrow_mut(|loads| {
        loads.entry(key.clone()).or_default();
    });
}

/// Stops loading a version, and takes it off the heap.
pub fn forget(key: &ModelKey) {
    LOADS.with_borrow_mut(|loads| loads.remove(key));
    PLANS.with_borrow_mut(|plans| plans.remove(key));
}

/// Versions being loaded.
pub fn pending() -> Vec<ModelKey> {
    LOADS.with_borrow(|loads| loads.keys().cloned().collect())
}

pub fn is_pending(key: &ModelKey) -> bool {
    LOADS.with_borrow(|loads| loads.contains_key(key))
}

/// Units of work done and in all.
pub fn progress(key: &ModelKey) -> Option<(u64, u64)> {
    LOADS.with_borrow(|loads| loads.get(key).filter(|load| load.total > 0).map(|load| (load.done, load.total)))
}

/// The plan of a version that is on the heap.
pub fn plan(key: &ModelKey) -> Option<Arc<Plan>> {
    PLANS.with_borrow(|plans| plans.get(key).cloned())
}

/// Number of versions on the heap.
pub fn ready_count() -> u32 {
    PLANS.with_borrow(|plans| plans.len() as u32)
}

/// Adds what a message spent on loading a version.
pub fn charge(key: &ModelKey, instructions: u64) {
    LOADS.with_borrow_mut(|loads| {
        if let Some(load) = loads.get_mut(key) {
            load.cost.instructions += instructions;
        }
    });
}

/// Loads for one message. A phase that can't pause gets the message to itself.
pub fn step(key: &ModelKey) {
    let Some(mut load) = LOADS.with_borrow_mut(|loads| loads.remove(key)) else {
        return;
    };
    load.cost.messages += 1;
    match advance(key, &mut load) {
        Ok(None) => {
            LOADS.with_borrow_mut(|loads| loads.insert(key.clone(), load));
        }
        Ok(Some(plan)) => finish(key, load, plan),
        Err(error) => fail(key, &error),
    }
}

/// Ends the loading of a version with an error, as when its step trapped. Its files stay.
pub fn fail(key: &ModelKey, error: &Error) {
    forget(key);
    let reason = error.to_string();
    // A version that was deleted meanwhile has nothing to record.
    let _ = models::update(key, |record| record.stage = Stage::Failed { reason });
}

fn advance(key: &ModelKey, load: &mut Load) -> Result<Option<Arc<Plan>>, Error> {
    let budget = settings::get().message_budget;
    let mut loader = match load.loader.take() {
        Some(loader) => loader,
        None => {
            load.heap_bytes_before = runtime::heap_bytes();
            let files = models::with(key, |entry| {
                let names = entry.record.files.iter().map(|file| file.name.clone());
                Ok(StoredFiles { files: names.zip(entry.files.iter().cloned().map(StoredFile)).collect() })
            })?;
            Loader::new(Box::new(files), LoadOptions::default()).map_err(engine_error::of_model)?
        }
    };
    loop {
        match loader.step(&MessageMeter, budget).map_err(engine_error::of_model)? {
            Step::Done => return loader.finish().map(Some).map_err(engine_error::of_model),
            Step::Paused { done, total } => {
                (load.done, load.total) = (done, total);
                if loader.next_phase_is_indivisible() || runtime::instructions() >= budget {
                    load.loader = Some(loader);
                    return Ok(None);
                }
            }
        }
    }
}

fn finish(key: &ModelKey, load: Load, plan: Arc<Plan>) {
    let heap_bytes = runtime::heap_bytes().saturating_sub(load.heap_bytes_before);
    let mut cost = load.cost;
    cost.instructions += runtime::instructions();
    let recorded = models::update(key, |record| {
        record.stage = Stage::Ready;
        record.inputs = plan.inputs().iter().map(tensors::info).collect();
        record.outputs = plan.outputs().iter().map(tensors::info).collect();
        record.load_cost = cost;
        record.heap_bytes = heap_bytes;
    });
    if recorded.is_ok() {
        PLANS.with_borrow_mut(|plans| plans.insert(key.clone(), plan));
    }
}

/// Refuses a model that the heap can't take beside those that are on it.
fn check_heap(file_bytes: u64) -> Result<(), Error> {
    let taken: u64 = PLANS
        .with_borrow(|plans| plans.keys().cloned().collect::<Vec<_>>())
        .iter()
        .filter_map(|key| models::record(key).ok())
        .map(|record| record.heap_bytes)
        .sum();
    let needed_bytes = file_bytes.saturating_mul(HEAP_LOAD_TENTHS) / 10;
    let free_bytes = HEAP_BYTES_MAX.saturating_sub(HEAP_BASE_BYTES).saturating_sub(taken);
    match needed_bytes > free_bytes {
        true => Err(Error::HeapFull { needed_bytes, free_bytes }),
        false => Ok(()),
    }
}
