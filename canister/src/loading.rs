//! Bringing a version onto the heap, step by step and by itself, and the versions that are there.

use crate::engine_error;
use crate::jobs::{driver, lease};
use crate::language;
use crate::limits::{
    CALLBACK_INSTRUCTIONS, HEAP_BYTES_MAX, HEAP_LOAD_PERCENT, HEAP_WORK_BYTES, LOAD_END_INSTRUCTIONS,
    LOAD_MESSAGE_END_INSTRUCTIONS, LOAD_REPLY_INSTRUCTIONS, LOAD_STABLE_BYTES_MAX, REPLY_INSTRUCTIONS,
    TRACT_BUDGET_MAX,
};
use crate::runtime;
use crate::settings;
use crate::stable::blob::{BLOCK_BYTES, Damage, Reader};
use crate::store::models::{self, Stage};
use crate::store::{ModelKey, commit, versions};
use crate::tensors;
use onnx_canister_interface::{Cost, Error, HeapPolicy, ModelInfo, ModelRef, Task, WeightForm};
use onnx_engine::{ByteSource, LoadOptions, Loader, Meter, ModelFiles, Plan, ReadError, Step};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// A version on its way to the heap.
#[derive(Default)]
struct Load {
    /// `None` until the first step.
    loader: Option<Loader>,
    /// The plan of a language model whose files of text are still to be read.
    plan: Option<Arc<Plan>>,
    done: u64,
    total: u64,
    cost: Cost,
    /// Heap in use after each step less that before it, summed up: what else happens between steps doesn't count.
    heap_bytes: i64,
    /// The damage that reading met.
    damage: Rc<Cell<Option<(u32, Damage)>>>,
    /// Bytes of stable memory that this message has read for it.
    read_bytes: Rc<Cell<u64>>,
    /// Room was made for what the weights become.
    has_room: bool,
}

thread_local! {
    static LOADS: RefCell<BTreeMap<ModelKey, Load>> = const { RefCell::new(BTreeMap::new()) };
    static PLANS: RefCell<BTreeMap<ModelKey, Loaded>> = const { RefCell::new(BTreeMap::new()) };
    /// Counts uses of plans.
    static USES: Cell<u64> = const { Cell::new(0) };
}

/// A version on the heap.
struct Loaded {
    plan: Arc<Plan>,
    /// When it was used last, as [`USES`] counts.
    last_use: u64,
}

/// The engine's view of the instructions that this message has spent.
pub struct MessageMeter;

impl Meter for MessageMeter {
    fn spent(&self) -> u64 {
        runtime::instructions()
    }
}

/// The same while loading: a message that has read as much of stable memory as it may has spent all it had.
struct LoadMeter(Rc<Cell<u64>>);

impl Meter for LoadMeter {
    fn spent(&self) -> u64 {
        if self.0.get() >= LOAD_STABLE_BYTES_MAX { u64::MAX } else { runtime::instructions() }
    }
}

/// A version's files as the engine reads them, straight from stable memory.
struct StoredFiles {
    files: Vec<(String, StoredFile)>,
}

struct StoredFile {
    index: u32,
    size_bytes: u64,
    reader: RefCell<Reader>,
    damage: Rc<Cell<Option<(u32, Damage)>>>,
    read_bytes: Rc<Cell<u64>>,
}

impl ByteSource for StoredFile {
    fn len(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let length = buffer.len() as u64;
        if offset.checked_add(length).is_none_or(|end| end > self.len()) {
            let reason = "the range ends beyond the file".to_string();
            return Err(ReadError { offset, length, available: self.len(), reason });
        }
        // The blocks at both ends are read whole.
        self.read_bytes.set(self.read_bytes.get() + length + 2 * BLOCK_BYTES);
        self.reader.borrow_mut().read_at(offset, buffer).map_err(|damage| {
            self.damage.set(Some((self.index, damage)));
            ReadError { offset, length, available: self.len(), reason: damage.to_string() }
        })
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
            // A chunk that was found damaged is missing.
            models::with(&key, |entry| commit::check_complete(entry))?;
            // What the weights become is known when the graph has been read; mostly it is as much as the files.
            make_room(match weights_of(&key)? {
                Some(WeightForm::Int8) => 0,
                _ => record.files.iter().map(|file| file.size_bytes).sum(),
            })?;
            models::update(&key, |record| record.stage = Stage::Loading)?;
            begin(&key);
        }
        Stage::Loading | Stage::Ready => {}
        Stage::Uploading | Stage::Committing => {
            return Err(models::with(&key, |entry| Ok(entry.wrong_state("committed: commit it")))?);
        }
    }
    driver::arm();
    let info = models::info(&key);
    begin_message(&key, REPLY_INSTRUCTIONS + LOAD_REPLY_INSTRUCTIONS);
    charge(&key, runtime::instructions());
    info
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
    language::forget(key);
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
    PLANS.with_borrow_mut(|plans| {
        let loaded = plans.get_mut(key)?;
        USES.set(USES.get() + 1);
        loaded.last_use = USES.get();
        Some(loaded.plan.clone())
    })
}

/// Number of versions on the heap.
pub fn ready_count() -> u32 {
    PLANS.with_borrow(|plans| plans.len() as u32)
}

/// Counts a message that is charged for loading a version (the call, a timer, a step or a callback), and what its end
/// costs.
pub fn begin_message(key: &ModelKey, end_instructions: u64) {
    LOADS.with_borrow_mut(|loads| {
        if let Some(load) = loads.get_mut(key) {
            load.cost.messages += 1;
            load.cost.instructions += end_instructions;
        }
    });
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
    load.cost.instructions += LOAD_MESSAGE_END_INSTRUCTIONS;
    let used_before = runtime::heap_used_bytes();
    let advanced = advance(key, &mut load);
    load.heap_bytes += runtime::heap_used_bytes() as i64 - used_before as i64;
    match advanced {
        Ok(None) => {
            LOADS.with_borrow_mut(|loads| loads.insert(key.clone(), load));
        }
        Ok(Some(plan)) => finish(key, load, plan),
        Err(error) => match load.damage.get() {
            Some((file, damage)) => fail(key, &mark_damaged(key, file, damage)),
            None => fail(key, &error),
        },
    }
}

/// Takes the chunks that are damaged out of those that are stored, so that they can be sent again; gives the error that
/// says so.
fn mark_damaged(key: &ModelKey, file: u32, damage: Damage) -> Error {
    let chunks = match models::with(key, |entry| Ok(commit::take_out_damaged_chunks(entry, file, damage))) {
        Ok(chunks) => chunks,
        Err(error) => return error,
    };
    let name = models::record(key).ok().and_then(|record| Some(record.files.get(file as usize)?.name.clone()));
    let place = format!("file {file} ('{}') of {}", name.unwrap_or_default(), key.describe());
    let reason = format!("{damage}. Chunks {chunks:?} are missing now: upload them again, commit and load");
    crate::stable::damage::error(place, reason)
}

/// Ends the loading of a version with an error, as when its step trapped. Its files stay.
pub fn fail(key: &ModelKey, error: &Error) {
    forget(key);
    let reason = error.to_string();
    // A version that was deleted meanwhile has nothing to record.
    let _ = models::update(key, |record| record.stage = Stage::Failed { reason });
}

fn advance(key: &ModelKey, load: &mut Load) -> Result<Option<Arc<Plan>>, Error> {
    let budget = settings::get().message_budget.min(TRACT_BUDGET_MAX);
    if let Some(plan) = load.plan.take() {
        language::loaded::load(key, &plan, |name| read_text_file(key, name, &load.damage))?;
        return Ok(Some(plan));
    }
    load.read_bytes.set(0);
    let meter = LoadMeter(load.read_bytes.clone());
    let mut loader = match load.loader.take() {
        Some(loader) => loader,
        None => {
            if !models::record(key)?.is_verified() && (!commit::verify_again(key)? || runtime::instructions() >= budget)
            {
                return Ok(None);
            }
            let files = stored_files(key, load)?;
            Loader::new(Box::new(files), load_options(weights_of(key)?)).map_err(engine_error::of_model)?
        }
    };
    loop {
        match loader.step(&meter, budget).map_err(engine_error::of_model)? {
            Step::Done => {
                let plan = loader.finish().map_err(engine_error::of_model)?;
                if !matches!(models::record(key)?.task, Task::Generate { .. }) {
                    return Ok(Some(plan));
                }
                // A tokenizer can't be read in parts: it has the next message to itself.
                load.plan = Some(plan);
                return Ok(None);
            }
            Step::Paused { done, total } => {
                (load.done, load.total) = (done, total);
                if let (false, Some(weight_bytes)) = (load.has_room, loader.weight_memory_bytes()) {
                    load.has_room = true;
                    make_room(match weights_of(key)? {
                        // Float weights become a quarter of what they are; how many there are of them is not known.
                        Some(WeightForm::Int8) => weight_bytes / 4,
                        _ => weight_bytes,
                    })?;
                }
                let spent = meter.spent();
                if loader.next_phase_is_alone(spent, budget) || spent >= budget {
                    load.loader = Some(loader);
                    return Ok(None);
                }
            }
        }
    }
}

/// What the manifest says of weights.
fn weights_of(key: &ModelKey) -> Result<Option<WeightForm>, Error> {
    Ok(models::record(key)?.weights)
}

fn load_options(weights: Option<WeightForm>) -> LoadOptions {
    let as_it_comes = LoadOptions::default();
    match weights {
        None => as_it_comes,
        Some(WeightForm::Stored) => LoadOptions { widen_int4_bytes_max: 0, ..as_it_comes },
        Some(WeightForm::Int8) => LoadOptions { quantize_int8: true, widen_int4_bytes_max: u64::MAX, ..as_it_comes },
    }
}

/// The bytes of one of a version's files of text, if it has it.
fn read_text_file(
    key: &ModelKey,
    name: &str,
    damage: &Rc<Cell<Option<(u32, Damage)>>>,
) -> Result<Option<Vec<u8>>, Error> {
    let record = models::record(key)?;
    let Some(index) = record.files.iter().position(|file| file.name == name) else { return Ok(None) };
    let file = &record.files[index];
    let mut bytes = vec![0; file.size_bytes as usize];
    Reader::new(file.blob.clone()).read_at(0, &mut bytes).map_err(|found| {
        damage.set(Some((index as u32, found)));
        found.error(format!("file {index} ('{name}') of {}", key.describe()))
    })?;
    Ok(Some(bytes))
}

fn stored_files(key: &ModelKey, load: &Load) -> Result<StoredFiles, Error> {
    let record = models::record(key)?;
    let files = (0_u32..).zip(&record.files).map(|(index, file)| {
        let reader = RefCell::new(Reader::new(file.blob.clone()));
        let (damage, read_bytes) = (load.damage.clone(), load.read_bytes.clone());
        let stored = StoredFile { index, size_bytes: file.size_bytes, reader, damage, read_bytes };
        (file.name.clone(), stored)
    });
    Ok(StoredFiles { files: files.collect() })
}

fn finish(key: &ModelKey, load: Load, plan: Arc<Plan>) {
    let heap_bytes = u64::try_from(load.heap_bytes).unwrap_or_default();
    let mut cost = load.cost;
    // The callback that hears of this step is still to come.
    cost.instructions += runtime::instructions() + LOAD_END_INSTRUCTIONS + CALLBACK_INSTRUCTIONS;
    cost.messages += 1;
    let recorded = models::update(key, |record| {
        record.stage = Stage::Ready;
        record.inputs = plan.inputs().iter().map(tensors::info).collect();
        record.outputs = plan.outputs().iter().map(tensors::info).collect();
        record.load_cost = cost;
        record.heap_bytes = heap_bytes;
    });
    if recorded.is_ok() {
        USES.set(USES.get() + 1);
        PLANS.with_borrow_mut(|plans| plans.insert(key.clone(), Loaded { plan, last_use: USES.get() }));
    }
}

/// Makes room on the heap for weights of that many bytes: refuses when there isn't enough, or unloads what was least
/// recently used and is held by no job, as the setting says. Nothing is unloaded in vain.
fn make_room(weight_bytes: u64) -> Result<(), Error> {
    let needed_bytes = weight_bytes.saturating_mul(HEAP_LOAD_PERCENT) / 100;
    let free_bytes = HEAP_BYTES_MAX.saturating_sub(HEAP_WORK_BYTES).saturating_sub(runtime::heap_used_bytes());
    let full = Err(Error::HeapFull { needed_bytes, free_bytes });
    if needed_bytes <= free_bytes {
        return Ok(());
    }
    if settings::get().heap_policy == HeapPolicy::Refuse {
        return full;
    }
    let mut loaded: Vec<(u64, ModelKey)> =
        PLANS.with_borrow(|plans| plans.iter().map(|(key, loaded)| (loaded.last_use, key.clone())).collect());
    loaded.sort_unstable();
    let mut evicted = Vec::new();
    let mut room = free_bytes;
    for (_, key) in loaded {
        if needed_bytes <= room {
            break;
        }
        if lease::check_free(&key).is_ok() {
            room = room.saturating_add(models::record(&key)?.heap_bytes);
            evicted.push(key);
        }
    }
    if needed_bytes > room {
        return full;
    }
    for key in evicted {
        versions::unload(&key.to_ref())?;
    }
    Ok(())
}
