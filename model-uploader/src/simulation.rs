//! A canister in memory that obeys the contract of `onnx-canister-interface`, behind the uploader's transport: it sees
//! Candid bytes only, counts what it is sent, and can fail on demand.

use crate::client::{CallKind, Transport, TransportError};
use candid::CandidType;
use onnx_canister_interface::{
    ChunkReceipt, Classification, ClassifyInput, ClassifyRequest, Cost, Error, InferRequest, InferResponse,
    InputSource, JobInfo, JobResult, JobState, Label, Manifest, MissingChunks, ModelInfo, ModelRef, ModelState,
    OutputPage, PutChunk, PutInput, ReadOutput, StagedInput, Tensor, UploadStatus,
};
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes of an output's first page.
pub const FIRST_PAGE_BYTES: usize = 1000;
const POLLS_PER_STEP: u32 = 3;

#[derive(Default)]
pub struct State {
    manifest: Option<Manifest>,
    chunks: BTreeMap<(u32, u32), Vec<u8>>,
    progress: Progress,
    pub active: bool,
    inputs: BTreeMap<String, (PutInput, Vec<u8>)>,
    jobs: Vec<(u32, Result<JobResult, Error>)>,
    outputs: BTreeMap<String, Vec<u8>>,
    /// How often each method was executed.
    pub calls: BTreeMap<&'static str, u32>,
    /// How often each chunk was put, stored already or not.
    pub puts: BTreeMap<(u32, u32), u32>,
    /// Errors for the next calls; `maybe_executed` ones are executed first.
    pub failures: VecDeque<TransportError>,
    /// Chunk puts that are still answered; then the caller is cut off, as if the process were killed.
    pub puts_until_cut_off: Option<u32>,
    /// Waiting calls answer `StillRunning`.
    pub jobs_outlive_calls: bool,
    /// `load` ends so.
    pub load_failure: Option<String>,
    /// Most calls that were under way at once.
    pub concurrency_max: u32,
    concurrency: u32,
}

#[derive(Default, PartialEq)]
enum Progress {
    #[default]
    Uploading,
    Committing(u32),
    Committed,
    Loading(u32),
    Ready,
    Failed(String),
}

/// The canister and the way to it.
#[derive(Default)]
pub struct SimulatedCanister {
    state: Mutex<State>,
}

impl SimulatedCanister {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for &SimulatedCanister {
    async fn call(&self, kind: CallKind, method: &'static str, arg: &[u8]) -> Result<Vec<u8>, TransportError> {
        {
            let mut state = self.state();
            state.concurrency += 1;
            state.concurrency_max = state.concurrency_max.max(state.concurrency);
        }
        // Lets other calls begin before this one ends.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut state = self.state();
        state.concurrency -= 1;
        if method == "put_chunk" && state.puts_until_cut_off == Some(0) {
            return Err(TransportError::Fatal { message: "cut off".to_string() });
        }
        match state.failures.pop_front() {
            Some(failure @ TransportError::Transient { maybe_executed: true, .. }) => {
                state.execute(kind, method, arg);
                Err(failure)
            }
            Some(failure) => Err(failure),
            None => Ok(state.execute(kind, method, arg)),
        }
    }
}

fn argument<A: CandidType + DeserializeOwned>(bytes: &[u8]) -> A {
    candid::decode_one(bytes).expect("the uploader sends what the interface says")
}

fn reply<R: CandidType>(result: Result<R, Error>) -> Vec<u8> {
    candid::encode_one(result).expect("interface types can be encoded")
}

impl State {
    fn execute(&mut self, kind: CallKind, method: &'static str, arg: &[u8]) -> Vec<u8> {
        *self.calls.entry(method).or_default() += 1;
        let is_query = matches!(
            method,
            "missing_chunks" | "model_info" | "list_models" | "classify_query" | "infer_query" | "poll" | "read_output"
        );
        assert_eq!(kind == CallKind::Query, is_query, "{method}");
        match method {
            "begin_upload" => reply(self.begin_upload(argument(arg))),
            "put_chunk" => reply(self.put_chunk(argument(arg))),
            "missing_chunks" => reply(self.missing_chunks(&argument(arg))),
            "commit" => reply(self.commit(&argument(arg))),
            "load" => reply(self.load(&argument(arg))),
            "activate" => reply(self.activate(&argument(arg))),
            "model_info" => reply(self.model_info(&argument(arg))),
            "put_input" => reply(self.put_input(argument(arg))),
            "classify" | "classify_query" => reply(self.classify(&argument(arg), is_query)),
            "infer" | "infer_query" => reply(self.infer(&argument(arg), is_query)),
            "poll" => reply(self.poll(argument(arg))),
            "read_output" => reply(self.read_output(&argument(arg))),
            other => panic!("the simulation has no {other}"),
        }
    }

    fn manifest(&self, model: &ModelRef) -> Result<&Manifest, Error> {
        let not_found = || Error::ModelNotFound { name: model.name.clone(), version: model.version };
        self.manifest.as_ref().filter(|manifest| manifest.name == model.name).ok_or_else(not_found)
    }

    fn begin_upload(&mut self, manifest: Manifest) -> Result<UploadStatus, Error> {
        if self.manifest.as_ref() != Some(&manifest) {
            *self = Self { manifest: Some(manifest), ..std::mem::take(self) };
            self.chunks.clear();
            self.progress = Progress::Uploading;
        }
        Ok(UploadStatus { version: 1, state: self.model_state() })
    }

    fn chunks_total(&self) -> u32 {
        self.manifest.iter().flat_map(|manifest| &manifest.files).map(|file| file.chunk_sha256.len() as u32).sum()
    }

    fn put_chunk(&mut self, chunk: PutChunk) -> Result<ChunkReceipt, Error> {
        let (file, index) = (chunk.file, chunk.index);
        *self.puts.entry((file, index)).or_default() += 1;
        let expected = self.manifest.as_ref().map(|m| m.files[file as usize].chunk_sha256[index as usize].clone());
        let got = ByteBuf::from(Sha256::digest(&chunk.bytes).to_vec());
        if let Some(expected_sha256) = expected.filter(|expected| *expected != got) {
            return Err(Error::ChunkHash { file, index, expected_sha256, got_sha256: got });
        }
        if let Some(left) = &mut self.puts_until_cut_off {
            *left -= 1;
        }
        let already_stored = self.chunks.insert((file, index), chunk.bytes.into_vec()).is_some();
        let chunks_total = self.chunks_total();
        Ok(ChunkReceipt { already_stored, chunks_stored: self.chunks.len() as u32, chunks_total })
    }

    fn missing_chunks(&self, model: &ModelRef) -> Result<Vec<MissingChunks>, Error> {
        let mut runs: Vec<MissingChunks> = Vec::new();
        for (file, entry) in (0..).zip(&self.manifest(model)?.files) {
            for index in (0..entry.chunk_sha256.len() as u32).filter(|index| !self.chunks.contains_key(&(file, *index)))
            {
                match runs.last_mut() {
                    Some(run) if run.file == file && run.first + run.count == index => run.count += 1,
                    _ => runs.push(MissingChunks { file, first: index, count: 1 }),
                }
            }
        }
        Ok(runs)
    }

    fn commit(&mut self, model: &ModelRef) -> Result<ModelInfo, Error> {
        if let Some(run) = self.missing_chunks(model)?.first() {
            let missing = self.chunks_total() - self.chunks.len() as u32;
            return Err(Error::ChunksMissing { missing, first_file: run.file, first_index: run.first });
        }
        if self.progress == Progress::Uploading {
            self.progress = Progress::Committing(POLLS_PER_STEP);
            return Err(Error::StillRunning { job: 1 });
        }
        self.info(model)
    }

    fn load(&mut self, model: &ModelRef) -> Result<ModelInfo, Error> {
        if matches!(self.progress, Progress::Committed | Progress::Failed(_)) {
            self.progress = Progress::Loading(POLLS_PER_STEP);
        }
        self.info(model)
    }

    fn activate(&mut self, model: &ModelRef) -> Result<ModelInfo, Error> {
        if self.progress != Progress::Ready {
            let state = format!("{:?}", self.model_state());
            return Err(Error::WrongState { name: model.name.clone(), version: 1, state, needs: "ready".to_string() });
        }
        self.active = true;
        self.info(model)
    }

    /// Work goes on between polls, here one step for each.
    fn model_info(&mut self, model: &ModelRef) -> Result<ModelInfo, Error> {
        let info = self.info(model);
        self.progress = match std::mem::take(&mut self.progress) {
            Progress::Committing(0) => Progress::Committed,
            Progress::Committing(left) => Progress::Committing(left - 1),
            Progress::Loading(0) => match self.load_failure.clone() {
                Some(reason) => Progress::Failed(reason),
                None => Progress::Ready,
            },
            Progress::Loading(left) => Progress::Loading(left - 1),
            other => other,
        };
        info
    }

    fn model_state(&self) -> ModelState {
        let total = u64::from(POLLS_PER_STEP);
        match &self.progress {
            Progress::Uploading => {
                ModelState::Uploading { chunks_stored: self.chunks.len() as u32, chunks_total: self.chunks_total() }
            }
            Progress::Committing(left) => {
                ModelState::Committing { bytes_done: total - u64::from(*left), bytes_total: total }
            }
            Progress::Committed => ModelState::Committed,
            Progress::Loading(left) => ModelState::Loading { done: total - u64::from(*left), total },
            Progress::Ready => ModelState::Ready,
            Progress::Failed(reason) => ModelState::Failed { reason: reason.clone() },
        }
    }

    fn info(&self, model: &ModelRef) -> Result<ModelInfo, Error> {
        let manifest = self.manifest(model)?;
        Ok(ModelInfo {
            name: manifest.name.clone(),
            version: 1,
            active: self.active,
            state: self.model_state(),
            task: manifest.task.clone(),
            description: manifest.description.clone(),
            size_bytes: manifest.files.iter().map(|file| file.size_bytes).sum(),
            files: manifest.files.iter().map(|file| file.name.clone()).collect(),
            stable_bytes: 1 << 30,
            heap_bytes: 0,
            inputs: Vec::new(),
            outputs: Vec::new(),
            load_cost: Cost { instructions: 7_000_000, decode_instructions: 0, messages: 2 },
            labels_count: manifest.labels.len() as u32,
            preprocessing: manifest.preprocessing.clone(),
        })
    }

    fn put_input(&mut self, part: PutInput) -> Result<StagedInput, Error> {
        let size_bytes = part.shape.iter().product::<u64>() * part.element_type.size_bytes();
        let key = part.key.clone();
        let (first, stored) = self.inputs.entry(key.clone()).or_insert_with(|| (part.clone(), Vec::new()));
        assert_eq!((first.element_type, &first.shape), (part.element_type, &part.shape));
        assert!(part.offset_bytes <= stored.len() as u64, "a gap");
        if part.offset_bytes == stored.len() as u64 {
            stored.extend_from_slice(&part.data);
        }
        Ok(StagedInput { key, size_bytes, received_bytes: stored.len() as u64 })
    }

    fn staged(&self, key: &str) -> Result<Vec<u8>, Error> {
        Ok(self.inputs.get(key).ok_or_else(|| Error::InputNotFound { key: key.to_string() })?.1.clone())
    }

    /// The label is the hash of what was asked about, so that a test sees that all of it arrived.
    fn classify(&mut self, request: &ClassifyRequest, is_query: bool) -> Result<Classification, Error> {
        let bytes = match &request.input {
            ClassifyInput::Image(bytes) => bytes.to_vec(),
            ClassifyInput::Tensor(tensor) => tensor.data.to_vec(),
            ClassifyInput::Staged(key) => self.staged(key)?,
        };
        let label = hex::encode(Sha256::digest(bytes));
        let cost = Cost { instructions: 1_000_000, decode_instructions: 10, messages: 3 };
        let answer =
            Classification { labels: vec![Label { label, index: 0, score: 1.0 }], model: request.model.clone(), cost };
        self.finish(is_query, answer, JobResult::Classify)
    }

    /// One output for each input, with the same bytes.
    fn infer(&mut self, request: &InferRequest, is_query: bool) -> Result<InferResponse, Error> {
        let mut outputs = Vec::new();
        for input in &request.inputs {
            let (element_type, shape, bytes) = match &input.source {
                InputSource::Tensor(Tensor { element_type, shape, data }) => {
                    (*element_type, shape.clone(), data.to_vec())
                }
                InputSource::Staged(key) => {
                    let bytes = self.staged(key)?;
                    let part = &self.inputs[key].0;
                    (part.element_type, part.shape.clone(), bytes)
                }
            };
            outputs.push(OutputPage {
                name: input.name.clone(),
                element_type,
                shape,
                size_bytes: bytes.len() as u64,
                offset_bytes: 0,
                data: ByteBuf::from(&bytes[..bytes.len().min(FIRST_PAGE_BYTES)]),
            });
            self.outputs.insert(input.name.clone(), bytes);
        }
        let job = (!is_query).then_some(7);
        let answer = InferResponse { outputs, job, cost: Cost { messages: 1, ..Cost::default() } };
        self.finish(is_query, answer, JobResult::Infer)
    }

    fn finish<A>(&mut self, is_query: bool, answer: A, wrap: impl Fn(A) -> JobResult) -> Result<A, Error> {
        if self.jobs_outlive_calls && !is_query {
            self.jobs.push((POLLS_PER_STEP, Ok(wrap(answer))));
            return Err(Error::StillRunning { job: self.jobs.len() as u64 - 1 });
        }
        Ok(answer)
    }

    /// Makes the next jobs end with `error`.
    pub fn fail_jobs(&mut self, error: &Error) {
        for (_, result) in &mut self.jobs {
            *result = Err(error.clone());
        }
    }

    fn poll(&mut self, id: u64) -> Result<JobInfo, Error> {
        let model = ModelRef { name: "m".to_string(), version: Some(1) };
        let (left, result) = self.jobs.get_mut(id as usize).ok_or(Error::JobNotFound { job: id })?;
        let state = if *left > 0 {
            *left -= 1;
            JobState::Running { nodes_done: 0, nodes_total: 1 }
        } else {
            match result.clone() {
                Ok(result) => JobState::Done(Box::new(result)),
                Err(error) => JobState::Failed(error),
            }
        };
        Ok(JobInfo { id, model, state, cost: Cost::default(), generation: None })
    }

    fn read_output(&self, request: &ReadOutput) -> Result<OutputPage, Error> {
        let bytes = self.outputs.get(&request.name).ok_or(Error::JobNotFound { job: request.job })?;
        let start = request.offset_bytes as usize;
        // Shorter than asked for, as a canister may answer.
        let end = bytes.len().min(start + (request.length_bytes as usize).min(700_000));
        Ok(OutputPage {
            name: request.name.clone(),
            element_type: onnx_canister_interface::ElementType::Uint8,
            shape: vec![bytes.len() as u64],
            size_bytes: bytes.len() as u64,
            offset_bytes: request.offset_bytes,
            data: ByteBuf::from(&bytes[start..end]),
        })
    }
}
