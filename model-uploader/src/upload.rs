//! Upload: begin, send what is missing in parallel, commit, load, activate.
//!
//! What has arrived is known to the canister alone, so an upload that was killed at any moment is completed by the
//! same call again, from any machine, and no stored chunk is sent twice.

use crate::client::{CallError, Client, Transport, model_ref};
use crate::manifest::{self, ModelSource, SourceFile};
use crate::prices;
use anyhow::{Context, Result, anyhow, bail, ensure};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use onnx_canister_interface::{
    CHUNK_BYTES_MAX, Error, Manifest, MissingChunks, ModelInfo, ModelRef, ModelState, PutChunk,
};
use serde_bytes::ByteBuf;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Chunks in flight unless a user says otherwise. A block of the network holds 4 MiB, two chunks.
pub const DEFAULT_CONCURRENCY: usize = 4;
/// Rounds of asking what is missing, sending it and committing. More than one are needed only when somebody else
/// changes the upload meanwhile.
const ROUNDS_MAX: u32 = 3;
/// A state that does not change for so long is given up.
const STALLED_AFTER: Duration = Duration::from_secs(600);

#[derive(Clone, Debug)]
pub struct UploadOptions {
    /// Chunks in flight at once, at least 1.
    pub concurrency: usize,
    /// Bytes of a chunk, at most [`CHUNK_BYTES_MAX`].
    pub chunk_bytes: u32,
    /// Whether to load the model after the commit.
    pub load: bool,
    /// Whether to make it the active version after the load.
    pub activate: bool,
}

impl Default for UploadOptions {
    fn default() -> Self {
        Self { concurrency: DEFAULT_CONCURRENCY, chunk_bytes: CHUNK_BYTES_MAX, load: true, activate: true }
    }
}

/// How an upload comes along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Reading files and hashing.
    Hashing {
        bytes_done: u64,
        bytes_total: u64,
    },
    /// The canister knows the manifest; `bytes_stored` of the files it has already.
    Begun {
        version: u32,
        bytes_stored: u64,
        bytes_total: u64,
    },
    /// A chunk of `bytes` was stored by this call.
    ChunkStored {
        bytes: u64,
    },
    Committing {
        bytes_done: u64,
        bytes_total: u64,
    },
    Committed,
    Loading {
        done: u64,
        total: u64,
    },
    Ready,
    Activated,
}

/// What an upload did.
#[derive(Clone, Debug)]
pub struct UploadReport {
    pub info: ModelInfo,
    pub bytes_total: u64,
    /// Bytes of chunks that this call sent.
    pub bytes_sent: u64,
    pub chunks_sent: u64,
    pub chunks_total: u64,
    /// From the first chunk sent to the last stored.
    pub send_seconds: f64,
    /// From the commit to its end, and from the load to its end; 0 for what was done before.
    pub commit_seconds: f64,
    pub load_seconds: f64,
}

impl UploadReport {
    /// Cycles for taking in this call's chunks: messages and bytes, without the instructions they took.
    pub fn ingress_cycles(&self) -> u128 {
        prices::ingress_cycles(self.chunks_sent, self.bytes_sent) + prices::execution_cycles(self.chunks_sent, 0)
    }

    /// Cycles for loading.
    pub fn load_cycles(&self) -> u128 {
        let cost = &self.info.load_cost;
        prices::execution_cycles(u64::from(cost.messages), cost.instructions)
    }

    /// Cycles a year for what the version occupies in stable memory.
    pub fn storage_cycles_per_year(&self) -> u128 {
        prices::storage_cycles(self.info.stable_bytes, prices::YEAR_SECONDS)
    }
}

/// Uploads `source`, or completes its upload, up to the state that `options` asks for.
///
/// # Errors
/// When a file can't be read or changes meanwhile, the canister refuses, or the network stays unreachable. All that
/// was stored stays stored.
pub async fn upload<T: Transport>(
    client: &Client<T>,
    source: &ModelSource,
    options: &UploadOptions,
    on_event: &(dyn Fn(Event) + Sync),
) -> Result<UploadReport> {
    ensure!(options.concurrency > 0, "a concurrency of 0 sends nothing");
    let manifest = hash_files(source, options.chunk_bytes, on_event)?;
    let begun = client.begin_upload(&manifest).await.context("beginning the upload")?;
    let mut job = Upload {
        client,
        paths: source.files.iter().map(|file| file.path.clone()).collect(),
        bytes_total: manifest.files.iter().map(|file| file.size_bytes).sum(),
        chunks_total: manifest.files.iter().map(|file| file.chunk_sha256.len() as u64).sum(),
        model: model_ref(&manifest.name, Some(begun.version)),
        manifest,
        concurrency: options.concurrency,
        on_event,
        bytes_sent: 0,
        chunks_sent: 0,
    };
    let (mut send_seconds, mut commit_seconds, mut load_seconds) = (0.0, 0.0, 0.0);
    let mut state = begun.state;
    if matches!(state, ModelState::Uploading { .. } | ModelState::Committing { .. }) {
        (send_seconds, commit_seconds) = job.store_and_commit(&state).await?;
        state = ModelState::Committed;
    } else {
        on_event(Event::Begun { version: begun.version, bytes_stored: job.bytes_total, bytes_total: job.bytes_total });
    }
    on_event(Event::Committed);
    if options.load {
        let start = Instant::now();
        if matches!(state, ModelState::Committed | ModelState::Failed { .. }) {
            load(client, &job.model, on_event).await?;
            load_seconds = start.elapsed().as_secs_f64();
        } else if !matches!(state, ModelState::Ready) {
            wait_until_ready(client, &job.model, on_event).await?;
            load_seconds = start.elapsed().as_secs_f64();
        }
        on_event(Event::Ready);
        if options.activate {
            client.activate(&job.model).await.context("activating")?;
            on_event(Event::Activated);
        }
    }
    let info = client.model_info(&job.model).await.context("asking for the model's state")?;
    Ok(UploadReport {
        info,
        bytes_total: job.bytes_total,
        bytes_sent: job.bytes_sent,
        chunks_sent: job.chunks_sent,
        chunks_total: job.chunks_total,
        send_seconds,
        commit_seconds,
        load_seconds,
    })
}

/// Brings a committed model onto the heap and waits until it is ready.
pub async fn load<T: Transport>(
    client: &Client<T>,
    model: &ModelRef,
    on_event: &(dyn Fn(Event) + Sync),
) -> Result<ModelInfo> {
    client.load(model).await.context("loading")?;
    wait_until_ready(client, model, on_event).await
}

async fn wait_until_ready<T: Transport>(
    client: &Client<T>,
    model: &ModelRef,
    on_event: &(dyn Fn(Event) + Sync),
) -> Result<ModelInfo> {
    watch(client, model, |info| match &info.state {
        ModelState::Ready => Ok(true),
        ModelState::Loading { done, total } => {
            on_event(Event::Loading { done: *done, total: *total });
            Ok(false)
        }
        ModelState::Failed { reason } => {
            bail!("model '{}' version {} can't be loaded: {reason}", info.name, info.version)
        }
        // Asked before the load was under way.
        ModelState::Committed => Ok(false),
        other => bail!("model '{}' version {} is {other:?} while loading", info.name, info.version),
    })
    .await
}

/// Asks for the model's state until `is_done`, at growing intervals.
async fn watch<T: Transport>(
    client: &Client<T>,
    model: &ModelRef,
    mut is_done: impl FnMut(&ModelInfo) -> Result<bool>,
) -> Result<ModelInfo> {
    let mut polls = 0;
    let mut last_change = Instant::now();
    let mut last_state = None;
    loop {
        let info = client.model_info(model).await.context("asking for the model's state")?;
        if is_done(&info)? {
            return Ok(info);
        }
        if last_state.as_ref() != Some(&info.state) {
            last_state = Some(info.state);
            last_change = Instant::now();
        }
        if last_change.elapsed() > STALLED_AFTER {
            bail!("the model has been {last_state:?} for {} s", STALLED_AFTER.as_secs());
        }
        tokio::time::sleep(client.poll_delay(polls)).await;
        polls += 1;
    }
}

fn hash_files(source: &ModelSource, chunk_bytes: u32, on_event: &(dyn Fn(Event) + Sync)) -> Result<Manifest> {
    let size = |file: &SourceFile| {
        std::fs::metadata(&file.path).map(|metadata| metadata.len()).with_context(|| file.path.display().to_string())
    };
    let bytes_total = source.files.iter().map(size).sum::<Result<u64>>()?;
    let bytes_done = AtomicU64::new(0);
    manifest::build(source, chunk_bytes, &|bytes| {
        let before = bytes_done.fetch_add(bytes, Ordering::Relaxed);
        on_event(Event::Hashing { bytes_done: before + bytes, bytes_total });
    })
}

/// An upload under way.
struct Upload<'a, T> {
    client: &'a Client<T>,
    manifest: Manifest,
    model: ModelRef,
    /// Where the manifest's files are, in its order.
    paths: Vec<PathBuf>,
    bytes_total: u64,
    chunks_total: u64,
    concurrency: usize,
    on_event: &'a (dyn Fn(Event) + Sync),
    bytes_sent: u64,
    chunks_sent: u64,
}

impl<T: Transport> Upload<'_, T> {
    /// Until the commit is done; returns seconds of sending and of committing.
    async fn store_and_commit(&mut self, state: &ModelState) -> Result<(f64, f64)> {
        let (mut send_seconds, mut commit_seconds) = (0.0, 0.0);
        // An upload whose commit is under way has every chunk.
        let mut all_stored = matches!(state, ModelState::Committing { .. });
        for _ in 0..ROUNDS_MAX {
            let start = Instant::now();
            if all_stored {
                (self.on_event)(Event::Begun {
                    version: self.model.version.unwrap_or_default(),
                    bytes_stored: self.bytes_total,
                    bytes_total: self.bytes_total,
                });
            } else {
                self.send_missing().await?;
            }
            send_seconds += start.elapsed().as_secs_f64();
            let start = Instant::now();
            let committed = self.commit().await?;
            commit_seconds += start.elapsed().as_secs_f64();
            if committed {
                return Ok((send_seconds, commit_seconds));
            }
            all_stored = false;
        }
        Err(anyhow!(
            "chunks were missing again after each of {ROUNDS_MAX} rounds: is somebody else changing the upload?"
        ))
    }

    /// Sends all that is missing; the first error that trying again does not mend ends it.
    async fn send_missing(&mut self) -> Result<()> {
        let missing = self.client.missing_chunks(&self.model).await.context("asking what is missing")?;
        let mut chunks = Vec::new();
        let mut bytes_missing = 0;
        for run in &missing {
            for index in self.indices_of(run)? {
                bytes_missing += self.chunk_len(run.file, index);
                chunks.push((run.file, index));
            }
        }
        (self.on_event)(Event::Begun {
            version: self.model.version.unwrap_or_default(),
            bytes_stored: self.bytes_total.saturating_sub(bytes_missing),
            bytes_total: self.bytes_total,
        });
        let this = &*self;
        let sent: Vec<u64> = stream::iter(chunks)
            .map(|(file, index)| this.send(file, index))
            .buffer_unordered(self.concurrency)
            .try_collect()
            .await?;
        self.chunks_sent += sent.len() as u64;
        self.bytes_sent += sent.iter().sum::<u64>();
        Ok(())
    }

    /// The chunks of a run by index, if the manifest has them.
    fn indices_of(&self, run: &MissingChunks) -> Result<Range<u32>> {
        let MissingChunks { file, first, count } = *run;
        let chunks = self.manifest.files.get(file as usize).map_or(0, |file| file.chunk_sha256.len() as u64);
        ensure!(
            u64::from(first) + u64::from(count) <= chunks,
            "the canister misses chunks {first}+{count} of file {file}, which has {chunks}"
        );
        Ok(first..first + count)
    }

    fn chunk_len(&self, file: u32, index: u32) -> u64 {
        let chunk_bytes = u64::from(self.manifest.chunk_size);
        let size = self.manifest.files[file as usize].size_bytes;
        size.saturating_sub(u64::from(index) * chunk_bytes).min(chunk_bytes)
    }

    /// Reads and sends one chunk; returns its bytes.
    async fn send(&self, file: u32, index: u32) -> Result<u64> {
        let path = &self.paths[file as usize];
        let length = self.chunk_len(file, index);
        let bytes = read_at(path, u64::from(index) * u64::from(self.manifest.chunk_size), length)
            .with_context(|| format!("chunk {index} of {}", path.display()))?;
        let chunk = PutChunk {
            name: self.model.name.clone(),
            version: self.model.version.unwrap_or_default(),
            file,
            index,
            bytes: ByteBuf::from(bytes),
        };
        self.client.put_chunk(&chunk).await.with_context(|| format!("chunk {index} of {}", path.display()))?;
        (self.on_event)(Event::ChunkStored { bytes: length });
        Ok(length)
    }

    /// Commits and waits for its end; false when chunks turn out to be missing.
    async fn commit(&self) -> Result<bool> {
        for _ in 0..ROUNDS_MAX {
            match self.client.commit(&self.model).await {
                Ok(()) | Err(CallError::Canister { error: Error::StillRunning { .. }, .. }) => {}
                Err(CallError::Canister { error: Error::ChunksMissing { .. }, .. }) => return Ok(false),
                Err(error) => return Err(error).context("committing"),
            }
            let info = watch(self.client, &self.model, |info| {
                if let ModelState::Committing { bytes_done, bytes_total } = &info.state {
                    (self.on_event)(Event::Committing { bytes_done: *bytes_done, bytes_total: *bytes_total });
                    return Ok(false);
                }
                Ok(true)
            })
            .await?;
            // A file whose hash differs is back to uploading, and another commit says why.
            if !matches!(info.state, ModelState::Uploading { .. }) {
                return Ok(true);
            }
        }
        Err(anyhow!("the model is still uploading after {ROUNDS_MAX} commits"))
    }
}

fn read_at(path: &Path, offset: u64, length: u64) -> Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 == length, "{} bytes at {offset}, expected {length}: the file changed", bytes.len());
    Ok(bytes)
}

#[cfg(test)]
mod tests;
