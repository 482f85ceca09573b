//! Job records in stable memory: the request, the state and the result, which outlive messages and upgrades.

use super::JobId;
use crate::inference::{Answer, Limits, Request};
use crate::language::generation;
use crate::limits::{JOB_RESULT_BYTES_MAX, JOBS_FINISHED_MAX, REPLY_DATA_BYTES_MAX};
use crate::record;
use crate::runtime;
use crate::stable::{Blob, Kind, damage, directory};
use crate::store::ModelKey;
use crate::store::manifest::invalid;
use crate::tensors;
use candid::Principal;
use onnx_canister_interface::{
    Classification, Cost, ElementType, Error, Generation, InferResponse, JobInfo, JobResult, JobState, Label,
    OutputPage, Profile, SessionId,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// A job as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobRecord {
    pub owner: Principal,
    pub key: ModelKey,
    /// The encoded request; `None` when the job has ended.
    pub request: Option<Blob>,
    pub staged: Vec<String>,
    /// The session of a generation.
    #[serde(default)]
    pub session: Option<SessionId>,
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
    /// A [`Profile`] in Candid.
    Profiled(Blob),
    Generated(Box<Generation>),
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
    pub blob: Blob,
}

impl JobRecord {
    /// Everything it owns in stable memory.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        let (outputs, profile) = match &self.state {
            StoredState::Inferred(outputs) => (outputs.as_slice(), None),
            StoredState::Profiled(profile) => (&[][..], Some(profile)),
            _ => (&[][..], None),
        };
        outputs.iter().map(|output| &output.blob).chain(profile).chain(&self.request)
    }
}

impl StoredState {
    pub fn failed(error: &Error) -> Self {
        Self::Failed(ByteBuf::from(encode(error)))
    }

    pub fn is_finished(&self) -> bool {
        !matches!(self, Self::Queued | Self::Running { .. } | Self::Interrupted)
    }
}

/// Candid of what is made here; of that none is that can't be encoded.
fn encode<T: candid::CandidType>(value: &T) -> Vec<u8> {
    match candid::encode_one(value) {
        Ok(bytes) => bytes,
        Err(failure) => runtime::trap(&format!("a job's result could not be encoded: {failure}")),
    }
}

fn decode_error(bytes: &[u8]) -> Error {
    match candid::decode_one(bytes) {
        Ok(error) => error,
        Err(failure) => runtime::trap(&format!("stable memory is damaged: a job's error: {failure}")),
    }
}

pub fn get(id: JobId) -> Result<JobRecord, Error> {
    directory::get(Kind::Job, &id.to_be_bytes()).ok_or(Error::JobNotFound { job: id })
}

pub fn save(id: JobId, job: &JobRecord) {
    directory::set(Kind::Job, &id.to_be_bytes(), job);
}

/// Numbers of all jobs, oldest first.
fn ids() -> Vec<JobId> {
    let keys = directory::keys(Kind::Job, &[]);
    keys.into_iter().filter_map(|key| key.try_into().ok()).map(u64::from_be_bytes).collect()
}

/// Jobs that are not finished, oldest first.
pub fn unfinished() -> Vec<(JobId, JobRecord)> {
    let jobs = ids().into_iter().filter_map(|id| get(id).ok().map(|job| (id, job)));
    jobs.filter(|(_, job)| !job.state.is_finished()).collect()
}

/// The request of a job.
pub fn request(id: JobId, job: &JobRecord) -> Result<Request, Error> {
    let blob = job.request.as_ref().ok_or(Error::JobNotFound { job: id })?;
    let place = || format!("the request of job {id}");
    let bytes = blob.read().map_err(|damage| damage.error(place()))?;
    record::decode(&bytes).map_err(|error| damage::error(place(), error.to_string()))
}

/// Stores an answer; its tensors go into blobs of their own.
pub fn store_answer(answer: Answer) -> Result<StoredState, Error> {
    let outputs = match answer {
        Answer::Classify(labels) => return Ok(StoredState::Classified(labels)),
        Answer::Profile(profile) => {
            return Blob::store(&encode(&profile)).map(StoredState::Profiled);
        }
        Answer::Infer(outputs) => outputs,
        Answer::Generate(generation) => return Ok(StoredState::Generated(generation)),
    };
    let bytes: u64 = outputs.iter().map(|(_, tensor)| tensor.bytes().len() as u64).sum();
    if bytes > JOB_RESULT_BYTES_MAX {
        let reason = format!("a result has at most {JOB_RESULT_BYTES_MAX} bytes: choose outputs by name");
        return Err(invalid("outputs", format!("{bytes} bytes"), reason));
    }
    let mut stored: Vec<StoredOutput> = Vec::with_capacity(outputs.len());
    for (name, tensor) in outputs {
        let blob = match Blob::store(tensor.bytes()) {
            Ok(blob) => blob,
            Err(error) => {
                stored.into_iter().for_each(|output| output.blob.free());
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
    let request = job.request.take();
    job.state = state;
    job.cost = cost.clone();
    save(id, &job);
    if let Some(request) = request {
        request.free();
    }
    forget_oldest(super::pending::count());
    Ok(())
}

fn forget_oldest(pending: usize) {
    let ids = ids();
    let surplus = ids.len().saturating_sub(pending).saturating_sub(JOBS_FINISHED_MAX);
    for id in ids.into_iter().filter(|id| !super::pending::contains(*id)).take(surplus) {
        let Ok(job) = get(id) else { continue };
        directory::remove(Kind::Job, &id.to_be_bytes());
        job.blobs().cloned().for_each(Blob::free);
    }
}

/// What a job's owner may know of it.
pub fn info(id: JobId, job: JobRecord) -> Result<JobInfo, Error> {
    let state = match job.state {
        StoredState::Queued => JobState::Queued,
        StoredState::Running { nodes_done, nodes_total } => JobState::Running { nodes_done, nodes_total },
        StoredState::Interrupted => JobState::Interrupted,
        StoredState::Classified(labels) => {
            let (model, cost) = (job.key.to_ref(), job.cost.clone());
            JobState::Done(Box::new(JobResult::Classify(Classification { labels, model, cost })))
        }
        StoredState::Inferred(outputs) => {
            let (outputs, cost) = (first_pages(id, &outputs)?, job.cost.clone());
            JobState::Done(Box::new(JobResult::Infer(InferResponse { outputs, job: Some(id), cost })))
        }
        StoredState::Profiled(blob) => {
            let place = || format!("the profile of job {id}");
            let bytes = blob.read().map_err(|damage| damage.error(place()))?;
            let profile: Profile =
                candid::decode_one(&bytes).map_err(|error| damage::error(place(), error.to_string()))?;
            JobState::Done(Box::new(JobResult::Profile(Profile { cost: job.cost.clone(), ..profile })))
        }
        StoredState::Generated(generation) => {
            let generation = generation::with_cost(*generation, &job.cost);
            JobState::Done(Box::new(JobResult::Generate(generation)))
        }
        StoredState::Failed(bytes) => JobState::Failed(decode_error(&bytes)),
        StoredState::Cancelled => JobState::Cancelled,
    };
    let unfinished = job.session.filter(|_| !matches!(state, JobState::Done(_)));
    let generation = unfinished.and_then(|session| generation::so_far(session, &job.cost));
    Ok(JobInfo { id, model: job.key.to_ref(), state, cost: job.cost, generation })
}

/// The first bytes of each output, in order, as far as one reply has room.
fn first_pages(id: JobId, outputs: &[StoredOutput]) -> Result<Vec<OutputPage>, Error> {
    let mut room = REPLY_DATA_BYTES_MAX;
    outputs
        .iter()
        .map(|output| {
            let page = page(id, output, 0, room)?;
            room -= page.data.len() as u64;
            Ok(page)
        })
        .collect()
}

/// At most `length` bytes of an output from `offset` on.
pub fn page(id: JobId, output: &StoredOutput, offset: u64, length: u64) -> Result<OutputPage, Error> {
    let length = length.min(output.size_bytes.saturating_sub(offset)).min(REPLY_DATA_BYTES_MAX);
    let mut data = vec![0; length as usize];
    let place = || format!("output '{}' of job {id}", output.name);
    output.blob.read_at(offset, &mut data).map_err(|damage| damage.error(place()))?;
    Ok(OutputPage {
        name: output.name.clone(),
        element_type: output.element_type,
        shape: output.shape.clone(),
        size_bytes: output.size_bytes,
        offset_bytes: offset,
        data: ByteBuf::from(data),
    })
}
