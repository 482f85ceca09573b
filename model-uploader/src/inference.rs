//! `classify` and `infer` for people: large inputs are staged, long jobs are waited for, large outputs read in pages.

pub mod generation;

use crate::client::{CallError, Client, Transport};
use crate::prices;
use anyhow::{Context, Result, bail, ensure};
use onnx_canister_interface::{
    Classification, ClassifyInput, ClassifyRequest, Cost, ElementType, Error, InferInput, InferRequest, InferResponse,
    InputSource, JobId, JobResult, JobState, ModelRef, OutputPage, Profile, ProfileRequest, PutInput, ReadOutput,
    Tensor,
};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

/// Most bytes of input that travel in the call itself; an ingress message holds 2 MiB with its envelope.
pub const INLINE_BYTES_MAX: usize = 1_800_000;
/// Bytes of one part of a staged input.
const PART_BYTES: usize = 1_900_000;
/// Bytes of one page of an output.
const PAGE_BYTES: u32 = 1_900_000;

/// An answer, with what sending the request took.
#[derive(Clone, Debug)]
pub struct Answer<A> {
    pub answer: A,
    pub cost: Cost,
    /// Update messages from outside: parts of staged inputs, and the call itself. A query sends none.
    pub ingress_messages: u64,
    pub ingress_bytes: u64,
    /// The job, if the waiting call gave up and the answer came by polling.
    pub polled_job: Option<JobId>,
    /// Whether it was a query, which costs nothing.
    pub is_query: bool,
}

impl<A> Answer<A> {
    /// Cycles on a subnet of 13 nodes: execution and ingress. Staging is counted as messages and bytes, without its
    /// instructions.
    pub fn cycles(&self) -> u128 {
        if self.is_query {
            return prices::ingress_cycles(self.ingress_messages, self.ingress_bytes)
                + prices::execution_cycles(self.ingress_messages, 0);
        }
        let staging = self.ingress_messages.saturating_sub(1);
        prices::ingress_cycles(self.ingress_messages, self.ingress_bytes)
            + prices::execution_cycles(staging + u64::from(self.cost.messages), self.cost.instructions)
    }
}

/// What a classification is asked about.
#[derive(Clone, Debug)]
pub enum Subject {
    /// PNG or JPEG bytes.
    Image(Vec<u8>),
    Tensor(Tensor),
}

/// Labels of `subject`, best first.
///
/// # Errors
/// When the canister refuses, the job fails or is cancelled, or the network stays unreachable.
pub async fn classify<T: Transport>(
    client: &Client<T>,
    model: ModelRef,
    subject: Subject,
    top_k: Option<u32>,
    is_query: bool,
) -> Result<Answer<Classification>> {
    let mut sent = Sent::default();
    let request = classify_request(client, model, subject, top_k, &mut sent).await?;
    let result = if is_query {
        client.classify_query(&request).await
    } else {
        sent.count(&request);
        client.classify(&request).await
    };
    let (answer, polled_job) = match result {
        Ok(answer) => (answer, None),
        Err(error) => {
            let job = job_to_poll(error)?;
            match wait_for_job(client, job).await? {
                JobResult::Classify(answer) => (answer, Some(job)),
                _ => bail!("job {job} is no classification"),
            }
        }
    };
    Ok(sent.answer(answer.cost.clone(), answer, polled_job, is_query))
}

/// Runs the model on named tensors. Outputs come whole, also those that a message can't hold.
///
/// # Errors
/// As [`classify`].
pub async fn infer<T: Transport>(
    client: &Client<T>,
    model: ModelRef,
    inputs: Vec<(String, Tensor)>,
    outputs: Option<Vec<String>>,
    is_query: bool,
) -> Result<Answer<InferResponse>> {
    let mut sent = Sent::default();
    let request = infer_request(client, model, inputs, outputs, &mut sent).await?;
    let result = if is_query {
        client.infer_query(&request).await
    } else {
        sent.count(&request);
        client.infer(&request).await
    };
    let (mut answer, polled_job) = match result {
        Ok(answer) => (answer, None),
        Err(error) => {
            let job = job_to_poll(error)?;
            match wait_for_job(client, job).await? {
                JobResult::Infer(answer) => (answer, Some(job)),
                _ => bail!("job {job} is no inference"),
            }
        }
    };
    let job = answer.job;
    for output in &mut answer.outputs {
        complete(client, job, output).await.with_context(|| format!("output '{}'", output.name))?;
    }
    Ok(sent.answer(answer.cost.clone(), answer, polled_job, is_query))
}

/// What a model is profiled on.
#[derive(Clone, Debug)]
pub enum ProfileInput {
    Subject(Subject),
    Tensors(Vec<(String, Tensor)>),
}

/// Runs the model and tells what each node took.
///
/// # Errors
/// As [`classify`].
pub async fn profile<T: Transport>(
    client: &Client<T>,
    model: ModelRef,
    input: ProfileInput,
) -> Result<Answer<Profile>> {
    let mut sent = Sent::default();
    let request = match input {
        ProfileInput::Subject(subject) => {
            ProfileRequest::Classify(classify_request(client, model, subject, None, &mut sent).await?)
        }
        ProfileInput::Tensors(inputs) => {
            ProfileRequest::Infer(infer_request(client, model, inputs, None, &mut sent).await?)
        }
    };
    sent.count(&request);
    let (answer, polled_job) = match client.profile(&request).await {
        Ok(answer) => (answer, None),
        Err(error) => {
            let job = job_to_poll(error)?;
            match wait_for_job(client, job).await? {
                JobResult::Profile(answer) => (answer, Some(job)),
                _ => bail!("job {job} is no profile"),
            }
        }
    };
    Ok(sent.answer(answer.cost.clone(), answer, polled_job, false))
}

/// A request to classify; what is too large for it is staged before.
async fn classify_request<T: Transport>(
    client: &Client<T>,
    model: ModelRef,
    subject: Subject,
    top_k: Option<u32>,
    sent: &mut Sent,
) -> Result<ClassifyRequest> {
    let input = match subject {
        Subject::Image(bytes) if bytes.len() <= INLINE_BYTES_MAX => ClassifyInput::Image(ByteBuf::from(bytes)),
        Subject::Tensor(tensor) if tensor.data.len() <= INLINE_BYTES_MAX => ClassifyInput::Tensor(tensor),
        Subject::Image(bytes) => {
            let shape = vec![bytes.len() as u64];
            let vector = Tensor { element_type: ElementType::Uint8, shape, data: ByteBuf::from(bytes) };
            ClassifyInput::Staged(stage(client, &vector, sent).await?)
        }
        Subject::Tensor(tensor) => ClassifyInput::Staged(stage(client, &tensor, sent).await?),
    };
    Ok(ClassifyRequest { model, input, top_k, limits: None })
}

/// A request to infer; inputs that have no room in it are staged before.
async fn infer_request<T: Transport>(
    client: &Client<T>,
    model: ModelRef,
    inputs: Vec<(String, Tensor)>,
    outputs: Option<Vec<String>>,
    sent: &mut Sent,
) -> Result<InferRequest> {
    let mut named = Vec::new();
    let mut inline_bytes = 0;
    for (name, tensor) in inputs {
        let source = if inline_bytes + tensor.data.len() <= INLINE_BYTES_MAX {
            inline_bytes += tensor.data.len();
            InputSource::Tensor(tensor)
        } else {
            InputSource::Staged(stage(client, &tensor, sent).await.with_context(|| format!("input '{name}'"))?)
        };
        named.push(InferInput { name, source });
    }
    Ok(InferRequest { model, inputs: named, outputs, limits: None })
}

/// What went into update messages from outside.
#[derive(Default)]
struct Sent {
    messages: u64,
    bytes: u64,
}

impl Sent {
    fn count<A: candid::CandidType>(&mut self, request: &A) {
        self.messages += 1;
        self.bytes += candid::encode_one(request).map_or(0, |bytes| bytes.len() as u64);
    }

    fn answer<A>(self, cost: Cost, answer: A, polled_job: Option<JobId>, is_query: bool) -> Answer<A> {
        Answer { answer, cost, ingress_messages: self.messages, ingress_bytes: self.bytes, polled_job, is_query }
    }
}

/// Puts a tensor into the canister in parts and returns its key. The key is made of the content, so what an earlier
/// try has put there is not sent again.
async fn stage<T: Transport>(client: &Client<T>, tensor: &Tensor, sent: &mut Sent) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(format!("{:?} {:?} ", tensor.element_type, tensor.shape));
    hash.update(&tensor.data);
    let key = hex::encode(hash.finalize());
    let mut offset = 0;
    while offset < tensor.data.len() {
        let end = tensor.data.len().min(offset + PART_BYTES);
        let part = PutInput {
            key: key.clone(),
            element_type: tensor.element_type,
            shape: tensor.shape.clone(),
            offset_bytes: offset as u64,
            data: ByteBuf::from(&tensor.data[offset..end]),
        };
        sent.count(&part);
        let staged = client.put_input(&part).await.context("staging an input")?;
        let received = usize::try_from(staged.received_bytes).unwrap_or(usize::MAX);
        ensure!(
            received >= end && received <= tensor.data.len(),
            "the canister has {received} bytes of a staged input of {}, sent were {end}",
            tensor.data.len()
        );
        offset = received;
    }
    Ok(key)
}

/// The job that an answer says goes on; any other error is final.
fn job_to_poll(error: CallError) -> Result<JobId> {
    match error.canister_error() {
        Some(Error::StillRunning { job } | Error::Interrupted { job }) => Ok(*job),
        _ => Err(error.into()),
    }
}

/// Asks until the job has ended.
async fn wait_for_job<T: Transport>(client: &Client<T>, job: JobId) -> Result<JobResult> {
    let mut polls = 0;
    loop {
        let info = client.poll(job).await.with_context(|| format!("polling job {job}"))?;
        match info.state {
            JobState::Done(result) => return Ok(*result),
            JobState::Failed(error) => return Err(CallError::Canister { method: "poll", error }.into()),
            JobState::Cancelled => {
                return Err(CallError::Canister { method: "poll", error: Error::Cancelled { job } }.into());
            }
            JobState::Queued | JobState::Running { .. } | JobState::Interrupted => {
                tokio::time::sleep(client.poll_delay(polls)).await;
                polls += 1;
            }
        }
    }
}

/// Reads what is missing of an output.
async fn complete<T: Transport>(client: &Client<T>, job: Option<JobId>, output: &mut OutputPage) -> Result<()> {
    while (output.data.len() as u64) < output.size_bytes {
        let offset_bytes = output.data.len() as u64;
        let Some(job) = job else {
            bail!(
                "{} of {} bytes came, and a query leaves no job to read the rest from",
                offset_bytes,
                output.size_bytes
            );
        };
        let length_bytes = u32::try_from(output.size_bytes - offset_bytes).unwrap_or(PAGE_BYTES).min(PAGE_BYTES);
        let request = ReadOutput { job, name: output.name.clone(), offset_bytes, length_bytes };
        let page = client.read_output(&request).await?;
        ensure!(
            page.offset_bytes == offset_bytes && !page.data.is_empty() && page.data.len() <= length_bytes as usize,
            "asked for {length_bytes} bytes at {offset_bytes}, got {} at {}",
            page.data.len(),
            page.offset_bytes
        );
        output.data.extend_from_slice(&page.data);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
