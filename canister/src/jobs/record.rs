//! Job records in stable memory: the request, the state and the result, which outlive messages and upgrades.

use super::JobId;
use crate::inference::{Answer, Limits, Request};
use crate::limits::{JOB_RESULT_BYTES_MAX, JOBS_FINISHED_MAX, REPLY_DATA_BYTES_MAX};
use crate::memory::{self, Stable};
use crate::record;
use crate::runtime;
use crate::store::ModelKey;
use crate::store::blobs::{self, BlobId};
use crate::store::manifest::invalid;
use crate::tensors;
use candid::Principal;
use ic_stable_structures::StableBTreeMap;
use onnx_canister_interface::{
    Classification, Cost, ElementType, Error, InferResponse, JobInfo, JobResult, JobState, Label, OutputPage,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::cell::RefCell;

/// A job as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobRecord {
    pub owner: Principal,
    pub key: ModelKey,
    /// The encoded request; `None` when the job has ended.
    pub request: Option<BlobId>,
    pub staged: Vec<String>,
    pub limits: Limits,
    pub state: StoredState,
    pub cost: Cost,
}

/// A job's state as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StoredState {
    Queued,
    Running {
        nodes_done: u32,
        nodes_total: u32,
    },
    Interrupted,
    Classified(Vec<Label>),
    Inferred(Vec<StoredOutput>),
    /// An [`Error`] in Candid, whose numbers CBOR lacks.
    Failed(ByteBuf),
    Cancelled,
}

/// One output tensor of a finished job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredOutput {
    pub name: String,
    pub element_type: ElementType,
    pub shape: Vec<u64>,
    pub size_bytes: u64,
    pub blob: BlobId,
}

thread_local! {
    static JOBS: RefCell<StableBTreeMap<u64, Vec<u8>, Stable>> =
        RefCell::new(StableBTreeMap::init(memory::get(memory::JOBS)));
}

impl StoredState {
    pub fn failed(error: &Error) -> Self {
        match candid::encode_one(error) {
            Ok(bytes) => Self::Failed(ByteBuf::from(bytes)),
            Err(failure) => runtime::trap(&format!("an error could not be encoded: {failure}")),
        }
    }

    pub fn is_finished(&self) -> bool {
        !matches!(self, Self::Queued | Self::Running { .. } | Self::Interrupted)
    }
}

fn decode_error(bytes: &[u8]) -> Error {
    match candid::decode_one(bytes) {
        Ok(error) => error,
        Err(failure) => runtime::trap(&format!("stable memory is damaged: a job's error: {failure}")),
    }
}

pub fn get(id: JobId) -> Result<JobRecord, Error> {
    match JOBS.with_borrow(|jobs| jobs.get(&id)) {
        Some(bytes) => Ok(record::decode_own(&format!("job {id}"), &bytes)),
        None => Err(Error::JobNotFound { job: id }),
    }
}

pub fn save(id: JobId, job: &JobRecord) {
    JOBS.with_borrow_mut(|jobs| jobs.insert(id, record::encode(job)));
}

/// Jobs that are not finished, oldest first.
pub fn unfinished() -> Vec<(JobId, JobRecord)> {
    JOBS.with_borrow(|jobs| {
        jobs.iter()
            .map(|entry| (*entry.key(), record::decode_own::<JobRecord>("a job", &entry.value())))
            .filter(|(_, job)| !job.state.is_finished())
            .collect()
    })
}

/// The request of a job.
pub fn request(id: JobId, job: &JobRecord) -> Result<Request, Error> {
    let blob = job.request.ok_or(Error::JobNotFound { job: id })?;
    Ok(record::decode_own(&format!("the request of job {id}"), &blobs::open(blob).read()))
}

/// Stores an answer; its tensors go into blobs of their own.
pub fn store_answer(answer: Answer) -> Result<StoredState, Error> {
    let outputs = match answer {
        Answer::Classify(labels) => return Ok(StoredState::Classified(labels)),
        Answer::Infer(outputs) => outputs,
    };
    let bytes: u64 = outputs.iter().map(|(_, tensor)| tensor.bytes().len() as u64).sum();
    if bytes > JOB_RESULT_BYTES_MAX {
        let reason = format!("a result has at most {JOB_RESULT_BYTES_MAX} bytes: choose outputs by name");
        return Err(invalid("outputs", format!("{bytes} bytes"), reason));
    }
    let mut stored: Vec<StoredOutput> = Vec::with_capacity(outputs.len());
    for (name, tensor) in outputs {
        let blob = match blobs::store(tensor.bytes()) {
            Ok(blob) => blob.id(),
            Err(error) => {
                stored.iter().for_each(|output| blobs::free(output.blob));
                return Err(error);
            }
        };
        stored.push(StoredOutput {
            name,
            element_type: tensors::element_type(tensor.element_type()),
            shape: tensor.shape(),
            size_bytes: tensor.bytes().len() as u64,
            blob,
        });
    }
    Ok(StoredState::Inferred(stored))
}

/// Ends a job: its request is given back, and the oldest finished jobs beyond the limit are forgotten.
pub fn finish(id: JobId, state: StoredState, cost: &Cost) -> Result<(), Error> {
    let mut job = get(id)?;
    if let Some(request) = job.request.take() {
        blobs::free(request);
    }
    job.state = state;
    job.cost = cost.clone();
    save(id, &job);
    forget_oldest(super::pending::count());
    Ok(())
}

fn forget_oldest(pending: usize) {
    let stored = JOBS.with_borrow(|jobs| jobs.len()) as usize;
    let surplus = stored.saturating_sub(pending).saturating_sub(JOBS_FINISHED_MAX);
    if surplus == 0 {
        return;
    }
    let oldest: Vec<JobId> =
        JOBS.with_borrow(|jobs| jobs.keys().filter(|id| !super::pending::contains(*id)).take(surplus).collect());
    for id in oldest {
        if let Ok(JobRecord { state: StoredState::Inferred(outputs), .. }) = get(id) {
            outputs.iter().for_each(|output| blobs::free(output.blob));
        }
        JOBS.with_borrow_mut(|jobs| jobs.remove(&id));
    }
}

/// What a job's owner may know of it.
pub fn info(id: JobId, job: JobRecord) -> JobInfo {
    let state = match job.state {
        StoredState::Queued => JobState::Queued,
        StoredState::Running { nodes_done, nodes_total } => JobState::Running { nodes_done, nodes_total },
        StoredState::Interrupted => JobState::Interrupted,
        StoredState::Classified(labels) => {
            let (model, cost) = (job.key.to_ref(), job.cost.clone());
            JobState::Done(Box::new(JobResult::Classify(Classification { labels, model, cost })))
        }
        StoredState::Inferred(outputs) => {
            let (outputs, cost) = (first_pages(&outputs), job.cost.clone());
            JobState::Done(Box::new(JobResult::Infer(InferResponse { outputs, job: Some(id), cost })))
        }
        StoredState::Failed(bytes) => JobState::Failed(decode_error(&bytes)),
        StoredState::Cancelled => JobState::Cancelled,
    };
    JobInfo { id, model: job.key.to_ref(), state, cost: job.cost }
}

/// The first bytes of each output, in order, as far as one reply has room.
fn first_pages(outputs: &[StoredOutput]) -> Vec<OutputPage> {
    let mut room = REPLY_DATA_BYTES_MAX;
    outputs
        .iter()
        .map(|output| {
            let page = page(output, 0, room);
            room -= page.data.len() as u64;
            page
        })
        .collect()
}

/// At most `length` bytes of an output from `offset` on.
pub fn page(output: &StoredOutput, offset: u64, length: u64) -> OutputPage {
    let length = length.min(output.size_bytes.saturating_sub(offset)).min(REPLY_DATA_BYTES_MAX);
    let mut data = vec![0; length as usize];
    if length > 0 {
        blobs::open(output.blob).read_at(offset, &mut data);
    }
    OutputPage {
        name: output.name.clone(),
        element_type: output.element_type,
        shape: output.shape.clone(),
        size_bytes: output.size_bytes,
        offset_bytes: offset,
        data: ByteBuf::from(data),
    }
}
