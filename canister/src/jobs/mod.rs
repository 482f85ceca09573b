//! Jobs: inference that outgrows a message and goes on by itself.
//!
//! A call's inference begins in the call's own message. Most end there, and nothing is recorded of them. What doesn't
//! becomes a job: its request and state are stored, its session stays on the heap, and every further step runs in a
//! message of its own (see [`driver`]). A job's steps are driven by the call that waits for it, as long as that waits,
//! and by the timer otherwise.
//!
//! ```text
//!             admit                 a node is left          all nodes done
//!   request ---------> queued -----> running -----------------> done
//!                        ^  \__________/ |  \-- an error, a trap, a limit --> failed
//!            restart     |               |  \-- cancel --> cancelled
//!                        +- interrupted <+ the canister stops, or is upgraded
//! ```

pub mod driver;
pub mod lease;
pub mod pending;
pub mod record;

use crate::counters;
use crate::health;
use crate::inference::{Answer, Limits, Request, Run};
use crate::inputs;
use crate::language::generation;
use crate::limits::{
    CALL_END_INSTRUCTIONS, CALLBACK_INSTRUCTIONS, GENERATIONS_MAX, IMAGE_INSTRUCTIONS_MAX, JOB_END_INSTRUCTIONS,
    JOBS_PENDING_MAX, MESSAGE_END_INSTRUCTIONS, PROFILE_NODE_BYTES, REPLY_DATA_BYTES_MAX, REPLY_INSTRUCTIONS,
    REPLY_INSTRUCTIONS_PER_BYTE,
};
use crate::runtime;
use crate::settings;
use crate::stable::Blob;
use crate::store::ModelKey;
use crate::store::manifest::invalid;
use crate::store::models;
use crate::tensors;
use candid::Principal;
use driver::Waited;
use onnx_canister_interface::{
    Classification, Cost, Error, FinishReason, IMAGE_PIXELS_MAX, InferResponse, JobInfo, JobResult, JobState,
    OutputPage, Profile, ReadOutput,
};
use pending::Pending;
use record::{JobRecord, StoredState};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

pub use onnx_canister_interface::JobId;

/// A piece of work that takes more than one message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum WorkId {
    Commit(ModelKey),
    Load(ModelKey),
    Job(JobId),
}

/// Runs a request and waits for its answer, as far as the call's messages go.
pub async fn run(owner: Principal, request: Request) -> Result<JobResult, Error> {
    let (key, limits) = check(&owner, &request)?;
    match request.session() {
        None => lease::check_free(&key)?,
        Some(_) if pending::generations_under_way() >= GENERATIONS_MAX => {
            return Err(Error::Busy { job: pending::find(|job| job.session.is_some()).unwrap_or_default() });
        }
        Some(_) => {}
    }
    let settings = settings::get();
    let budget = settings.message_budget.min(limits.max_instructions);
    let mut run = prepare(&owner, &key, &request)?;
    // An image that took the whole budget leaves the nodes to the next message.
    let done = match runtime::instructions() < budget {
        true => run.advance(budget)?,
        false => false,
    };
    let cost = Cost { instructions: 0, decode_instructions: run.decode_instructions, messages: 1 };
    if done {
        let answer = run.answer(&key, &request)?;
        return match reply_bytes(&answer) <= REPLY_DATA_BYTES_MAX {
            true => Ok(result(&key, answer, cost)),
            false => Ok(keep(owner, key, request, limits, answer, cost)?),
        };
    }
    let id = admit(owner, key, request, limits, cost, Some(run))?;
    charge(id, CALL_END_INSTRUCTIONS);
    end_at_limit(id, Cost::default());
    let call_messages = settings.max_call_messages;
    match driver::wait(&WorkId::Job(id), call_messages).await {
        Waited::Ended => finished(id),
        // What a generation has is an answer, and its session goes on in another call.
        Waited::OutOfMessages if end_early(id, FinishReason::Budget, Cost::default()) => finished(id),
        Waited::Interrupted if end_early(id, FinishReason::Interrupted, Cost::default()) => finished(id),
        Waited::OutOfMessages => Err(Error::StillRunning { job: id }),
        Waited::Interrupted => Err(Error::Interrupted { job: id }),
    }
}

/// Runs a request in a query: all of it, or an error that says that it doesn't fit.
pub fn run_query(owner: &Principal, request: &Request) -> Result<JobResult, Error> {
    request.check()?;
    let key = models::resolve_ready(request.model())?;
    let budget = settings::get().query_budget;
    let too_much = || Error::QueryBudget { spent: runtime::instructions(), budget };
    let image_instructions = budget.saturating_sub(runtime::instructions());
    let mut run = Run::prepare(owner, &key, request, image_instructions).map_err(|error| match error {
        // Too large for a query only: an update takes it.
        Error::ImageTooLarge { pixels, .. } if pixels <= IMAGE_PIXELS_MAX => too_much(),
        error => error,
    })?;
    let cost = Cost { instructions: 0, decode_instructions: run.decode_instructions, messages: 1 };
    let done = run.next_node_fits(budget) && run.advance(budget)?;
    let answer = match done {
        true => run.answer(&key, request)?,
        false => run.answer_early(FinishReason::Budget).map_err(|_| too_much())??,
    };
    let bytes = reply_bytes(&answer);
    if bytes > REPLY_DATA_BYTES_MAX {
        let reason = format!("a reply holds {REPLY_DATA_BYTES_MAX} bytes: choose outputs by name, or call infer");
        return Err(invalid("outputs", format!("{bytes} bytes"), reason));
    }
    Ok(result(&key, answer, cost))
}

/// Queues a request; it runs by itself.
pub fn start(owner: Principal, request: Request) -> Result<JobId, Error> {
    let (key, limits) = check(&owner, &request)?;
    let id = admit(owner, key, request, limits, Cost::default(), None)?;
    driver::arm();
    begin_message(id, REPLY_INSTRUCTIONS);
    charge(id, runtime::instructions());
    Ok(id)
}

/// What the job's owner may know of it.
pub fn poll(id: JobId) -> Result<JobInfo, Error> {
    let mut job = record::get(id)?;
    crate::access::check_owner(&job.owner)?;
    pending::with(id, |pending| {
        job.state = pending.state.clone();
        job.cost = pending.cost.clone();
    });
    record::info(id, job)
}

/// Ends a job that waits or runs. One that has ended stays as it is.
pub fn cancel(id: JobId) -> Result<JobInfo, Error> {
    crate::access::check_owner(&record::get(id)?.owner)?;
    if let Some(mut job) = pending::take(id) {
        if let Some((_, run)) = job.work.take() {
            run.release();
        }
        record::finish(id, StoredState::Cancelled, &job.cost)?;
    }
    poll(id)
}

/// A page of a finished job's output.
pub fn read_output(request: &ReadOutput) -> Result<OutputPage, Error> {
    let job = record::get(request.job)?;
    crate::access::check_owner(&job.owner)?;
    if u64::from(request.length_bytes) > REPLY_DATA_BYTES_MAX {
        let reason = format!("a page has at most {REPLY_DATA_BYTES_MAX} bytes");
        return Err(invalid("length_bytes", request.length_bytes, reason));
    }
    let outputs = match &job.state {
        StoredState::Inferred(outputs) => outputs.as_slice(),
        _ => &[],
    };
    let Some(output) = outputs.iter().find(|output| output.name == request.name) else {
        let available = outputs.iter().map(|output| output.name.clone()).collect();
        return Err(Error::UnknownTensor { name: request.name.clone(), available });
    };
    if request.offset_bytes > output.size_bytes {
        let reason = format!("the output has {} bytes", output.size_bytes);
        return Err(invalid("offset_bytes", request.offset_bytes, reason));
    }
    record::page(request.job, output, request.offset_bytes, u64::from(request.length_bytes))
}

/// Whether a job waits or runs.
pub fn is_pending(id: JobId) -> bool {
    pending::contains(id)
}

/// Runs a job for one message.
pub fn step(id: JobId) {
    let Some(mut job) = pending::take(id) else {
        return;
    };
    job.cost.messages += 1;
    job.cost.instructions += MESSAGE_END_INSTRUCTIONS;
    // When this message ends the job, the callback that hears of it is the last that it is charged for.
    let last_callback = Cost {
        messages: 1,
        instructions: if driver::is_driven(&WorkId::Job(id)) { 0 } else { CALLBACK_INSTRUCTIONS },
        decode_instructions: 0,
    };
    let outcome = advance(id, &mut job);
    // The job is pending again before it is ended, so that every end goes one way.
    let mut state = job.state.clone();
    let work = job.work.take();
    pending::insert(id, job);
    match outcome {
        Err(error) => return end(id, StoredState::failed(&error), last_callback),
        Ok(false) => {
            if let Some((_, run)) = &work {
                let (nodes_done, nodes_total) = run.progress();
                state = StoredState::Running { nodes_done, nodes_total };
            }
            pending::with(id, |job| {
                job.state = state;
                job.work = work;
            });
        }
        Ok(true) => {
            let key = pending::with(id, |job| job.key.clone());
            let answer = match (work, key) {
                (Some((request, run)), Some(key)) => run.answer(&key, &request),
                _ => return,
            };
            return match answer.and_then(record::store_answer) {
                Ok(state) => end(id, state, last_callback),
                Err(error) => end(id, StoredState::failed(&error), last_callback),
            };
        }
    }
    end_at_limit(id, last_callback);
}

/// One message's work; tells whether all nodes are done.
fn advance(id: JobId, job: &mut Pending) -> Result<bool, Error> {
    health::check_reserve()?;
    let settings = settings::get();
    let left = job.limits.max_instructions.saturating_sub(job.cost.instructions);
    let budget = settings.message_budget.min(left);
    let (_, run) = match &mut job.work {
        Some(work) => work,
        none => {
            let request = record::request(id, &record::get(id)?)?;
            let run = prepare(&job.owner, &job.key, &request)?;
            job.cost.decode_instructions += run.decode_instructions;
            let work = none.insert((request, run));
            if runtime::instructions() >= budget {
                return Ok(false);
            }
            work
        }
    };
    run.advance(budget)
}

fn prepare(owner: &Principal, key: &ModelKey, request: &Request) -> Result<Run, Error> {
    Run::prepare(owner, key, request, IMAGE_INSTRUCTIONS_MAX)
}

/// Ends a job that has reached its limit of instructions or messages.
fn end_at_limit(id: JobId, to_come: Cost) {
    let error = pending::with(id, |job| {
        let instructions = job.cost.instructions.saturating_add(runtime::instructions());
        let Limits { max_messages, max_instructions } = job.limits;
        let reason = match () {
            () if instructions >= max_instructions => format!("its limit is {max_instructions} instructions"),
            () if job.cost.messages >= max_messages => format!("its limit is {max_messages} messages"),
            () => return None,
        };
        Some(Error::JobLimit { job: id, instructions, messages: job.cost.messages, reason })
    });
    if let Some(error) = error.flatten()
        && !end_early(id, FinishReason::Budget, to_come.clone())
    {
        end(id, StoredState::failed(&error), to_come);
    }
}

/// Ends a generation that can't go on with what it has; tells whether the job was one.
fn end_early(id: JobId, reason: FinishReason, to_come: Cost) -> bool {
    let Some((key, session)) = pending::with(id, |job| Some((job.key.clone(), job.session?))).flatten() else {
        return false;
    };
    let work = pending::with(id, |job| job.work.take()).flatten();
    let run = match work {
        Some((_, run)) => Ok(run),
        // What it had on the heap is lost; its record tells how far it was.
        None => Run::resume(&key, session),
    };
    let answer = run.and_then(|run| run.answer_early(reason).unwrap_or_else(|_| Err(Error::Interrupted { job: id })));
    match answer.and_then(record::store_answer) {
        Ok(state) => end(id, state, to_come),
        Err(error) => end(id, StoredState::failed(&error), to_come),
    }
    true
}

/// Ends a job with an error, as when its step trapped.
pub fn fail(id: JobId, error: &Error) {
    begin_message(id, MESSAGE_END_INSTRUCTIONS);
    end(id, StoredState::failed(error), Cost::default());
}

/// Ends a job. What this message has spent so far is in the stored cost, and so is what is still `to_come`.
fn end(id: JobId, state: StoredState, to_come: Cost) {
    if let Some(mut job) = pending::take(id) {
        job.cost.instructions += runtime::instructions() + JOB_END_INSTRUCTIONS + to_come.instructions;
        job.cost.messages += to_come.messages;
        // A pending job always has a record; if that were lost there would be nobody left to tell.
        let _ = record::finish(id, state, &job.cost);
    }
}

/// Records that the canister stops: the job begins again from its request when the canister runs again.
pub fn interrupt(id: JobId) {
    pending::with(id, |job| {
        job.state = StoredState::Interrupted;
        job.work = None;
    });
    store_state(id);
}

/// Stores the state of a pending job.
fn store_state(id: JobId) {
    let current = pending::with(id, |job| (job.state.clone(), job.cost.clone()));
    if let (Some((state, cost)), Ok(mut job)) = (current, record::get(id)) {
        (job.state, job.cost) = (state, cost);
        record::save(id, &job);
    }
}

/// Counts a message that is charged for a job (a call, a timer, a step or a callback), and what its end costs.
fn begin_message(id: JobId, end_instructions: u64) {
    pending::with(id, |job| {
        job.cost.messages += 1;
        job.cost.instructions += end_instructions;
    });
}

/// As [`begin_message`], for the callback after a step: the job may have reached its limit.
fn begin_callback(id: JobId, end_instructions: u64) {
    begin_message(id, end_instructions);
    end_at_limit(id, Cost::default());
}

/// Adds what a message spent on a job.
pub fn charge(id: JobId, instructions: u64) {
    pending::with(id, |job| job.cost.instructions += instructions);
}

/// Checks what must hold before a request may run or wait.
fn check(owner: &Principal, request: &Request) -> Result<(ModelKey, Limits), Error> {
    health::check_reserve()?;
    request.check()?;
    let key = models::resolve_ready(request.model())?;
    let limits = request.limits()?;
    for staged in request.staged_keys() {
        inputs::check_complete(owner, &staged)?;
    }
    Ok((key, limits))
}

/// Refuses while as many jobs wait or run as may.
pub fn check_room() -> Result<(), Error> {
    match pending::count() >= JOBS_PENDING_MAX {
        true => Err(Error::Busy { job: pending::find(|_| true).unwrap_or_default() }),
        false => Ok(()),
    }
}

/// Records a job.
fn admit(
    owner: Principal,
    key: ModelKey,
    request: Request,
    limits: Limits,
    cost: Cost,
    run: Option<Run>,
) -> Result<JobId, Error> {
    check_room()?;
    let state = match run.as_ref().map(Run::progress) {
        Some((nodes_done, nodes_total)) => StoredState::Running { nodes_done, nodes_total },
        None => StoredState::Queued,
    };
    let (staged, session) = (request.staged_keys(), request.session());
    let blob = Blob::store(&crate::record::encode(&request))?;
    let id = counters::next_job();
    let job = JobRecord {
        owner,
        key: key.clone(),
        request: Some(blob),
        staged: staged.clone(),
        session,
        limits,
        state: state.clone(),
        cost: cost.clone(),
    };
    record::save(id, &job);
    let work = run.map(|run| (request, run));
    pending::insert(id, Pending { owner, key, staged, session, limits, state, cost, work });
    Ok(id)
}

/// Keeps an answer that a reply can't hold as a finished job, whose outputs are read in pages.
fn keep(
    owner: Principal,
    key: ModelKey,
    request: Request,
    limits: Limits,
    answer: Answer,
    cost: Cost,
) -> Result<JobResult, Error> {
    let state = record::store_answer(answer)?;
    let id = admit(owner, key, request, limits, cost, None)?;
    end(id, state, Cost::default());
    let mut result = finished(id)?;
    // There is but this message, which whoever sends the reply counts whole.
    cost_of(&mut result).instructions = 0;
    Ok(result)
}

/// The answer of a job that has ended. Its cost grows by what this message, the last one, has spent.
fn finished(id: JobId) -> Result<JobResult, Error> {
    match record::info(id, record::get(id)?)?.state {
        JobState::Done(result) => Ok(*result),
        JobState::Failed(error) => Err(error),
        JobState::Cancelled => Err(Error::Cancelled { job: id }),
        JobState::Queued | JobState::Running { .. } => Err(Error::StillRunning { job: id }),
        JobState::Interrupted => Err(Error::Interrupted { job: id }),
    }
}

/// The reply to an inference that ended in its first message.
fn result(key: &ModelKey, answer: Answer, cost: Cost) -> JobResult {
    match answer {
        Answer::Classify(labels) => JobResult::Classify(Classification { labels, model: key.to_ref(), cost }),
        Answer::Profile(profile) => JobResult::Profile(Profile { cost, ..profile }),
        Answer::Infer(outputs) => {
            let outputs = outputs
                .into_iter()
                .map(|(name, tensor)| OutputPage {
                    name,
                    element_type: tensors::element_type(tensor.element_type()),
                    shape: tensor.shape(),
                    size_bytes: tensor.bytes().len() as u64,
                    offset_bytes: 0,
                    data: ByteBuf::from(tensor.bytes()),
                })
                .collect();
            JobResult::Infer(InferResponse { outputs, job: None, cost })
        }
        Answer::Generate(generation) => JobResult::Generate(generation::with_cost(*generation, &cost)),
    }
}

fn reply_bytes(answer: &Answer) -> u64 {
    match answer {
        // A profile's limits, and a text's, keep them below what a reply holds.
        Answer::Classify(_) | Answer::Profile(_) | Answer::Generate(_) => 0,
        Answer::Infer(outputs) => outputs.iter().map(|(_, tensor)| tensor.bytes().len() as u64).sum(),
    }
}

fn cost_of(result: &mut JobResult) -> &mut Cost {
    match result {
        JobResult::Classify(classification) => &mut classification.cost,
        JobResult::Infer(response) => &mut response.cost,
        JobResult::Profile(profile) => &mut profile.cost,
        JobResult::Generate(generation) => &mut generation.cost,
    }
}

/// Completes an answer's cost: adds what this message has spent, and what encoding and sending the reply will.
pub fn with_reply_cost(mut result: JobResult) -> JobResult {
    let bytes = match &result {
        JobResult::Classify(classification) => {
            classification.labels.iter().map(|label| label.label.len() as u64 + 16).sum::<u64>()
        }
        JobResult::Infer(response) => response.outputs.iter().map(|page| page.data.len() as u64 + 64).sum(),
        JobResult::Profile(profile) => (profile.nodes.len() + profile.operators.len()) as u64 * PROFILE_NODE_BYTES,
        JobResult::Generate(generation) => generation.text.len() as u64 + 4 * generation.tokens.len() as u64,
    };
    cost_of(&mut result).instructions +=
        runtime::instructions() + REPLY_INSTRUCTIONS + REPLY_INSTRUCTIONS_PER_BYTE * bytes;
    if let JobResult::Generate(generation) = &mut result {
        generation.cycles = generation::cycles(&generation.cost);
    }
    result
}
