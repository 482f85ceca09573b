//! The canister under the `pocket-ic` crate.

use crate::environment;
use candid::{CandidType, Decode, Encode, Principal};
use onnx_canister_interface::{
    ChunkReceipt, Error, FileManifest, InferResponse, InitArgs, JobId, JobInfo, JobResult, JobState, Manifest,
    ModelInfo, ModelRef, ModelState, PutChunk, Resize, Settings, SettingsPatch, UploadStatus,
};
use pocket_ic::common::rest::RawMessageId;
use pocket_ic::{CanisterInstallMode, PocketIc, PocketIcBuilder, RejectResponse};
use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

/// Cycles a canister gets: no test runs dry unless it means to.
pub const CYCLES: u128 = 1_000_000_000_000_000;

/// Rounds a test waits for work that goes on by itself.
const ROUNDS_MAX: u32 = 20_000;

/// One canister on one application subnet.
pub struct Pocket {
    pub ic: PocketIc,
    pub id: Principal,
    /// Who deployed and calls.
    pub caller: Principal,
}

impl Pocket {
    /// Deploys the project's Wasm with a 4 GiB heap limit.
    pub fn new(settings: Option<SettingsPatch>) -> Pocket {
        Pocket::with_cycles(settings, CYCLES)
    }

    /// As [`Pocket::new`], with a balance of its own.
    pub fn with_cycles(settings: Option<SettingsPatch>, cycles: u128) -> Pocket {
        let ic = PocketIcBuilder::new().with_application_subnet().build();
        let caller = Principal::self_authenticating(b"the deployer");
        let id = ic.create_canister_with_settings(
            Some(caller),
            Some(pocket_ic::CanisterSettings {
                wasm_memory_limit: Some((4_u64 << 30).into()),
                controllers: Some(vec![caller]),
                ..Default::default()
            }),
        );
        ic.add_cycles(id, cycles);
        let wasm = environment::canister_wasm().expect("the canister's Wasm");
        let arguments = Encode!(&Some(InitArgs { settings })).expect("init arguments");
        ic.install_canister(id, wasm, arguments, Some(caller));
        Pocket { ic, id, caller }
    }

    /// An update call as the deployer.
    pub fn update<A: CandidType, T: CandidType + DeserializeOwned>(
        &self,
        method: &str,
        argument: A,
    ) -> Result<T, Error> {
        self.update_as(self.caller, method, argument).unwrap_or_else(|reject| panic!("{method} was rejected: {reject}"))
    }

    /// An update call; the outer error is a reject.
    pub fn update_as<A: CandidType, T: CandidType + DeserializeOwned>(
        &self,
        caller: Principal,
        method: &str,
        argument: A,
    ) -> Result<Result<T, Error>, RejectResponse> {
        let argument = Encode!(&argument).expect("argument");
        let reply = self.ic.update_call(self.id, caller, method, argument)?;
        Ok(Decode!(&reply, Result<T, Error>).expect("reply"))
    }

    /// Sends an update without waiting.
    pub fn submit<A: CandidType>(&self, method: &str, argument: A) -> RawMessageId {
        let argument = Encode!(&argument).expect("argument");
        self.ic.submit_call(self.id, self.caller, method, argument).expect("submitted")
    }

    /// Waits for a submitted call.
    pub fn wait<T: CandidType + DeserializeOwned>(&self, message: RawMessageId) -> Result<T, Error> {
        let reply = self.ic.await_call(message).unwrap_or_else(|reject| panic!("rejected: {reject}"));
        Decode!(&reply, Result<T, Error>).expect("reply")
    }

    /// A query call as the deployer.
    pub fn query<A: CandidType, T: CandidType + DeserializeOwned>(
        &self,
        method: &str,
        argument: A,
    ) -> Result<T, Error> {
        self.query_as(self.caller, method, argument).unwrap_or_else(|reject| panic!("{method} was rejected: {reject}"))
    }

    /// A query call; the outer error is a reject.
    pub fn query_as<A: CandidType, T: CandidType + DeserializeOwned>(
        &self,
        caller: Principal,
        method: &str,
        argument: A,
    ) -> Result<Result<T, Error>, RejectResponse> {
        let argument = Encode!(&argument).expect("argument");
        let reply = self.ic.query_call(self.id, caller, method, argument)?;
        Ok(Decode!(&reply, Result<T, Error>).expect("reply"))
    }

    /// A query whose answer is not a result.
    pub fn query_plain<T: CandidType + DeserializeOwned>(&self, method: &str) -> T {
        let reply = self
            .ic
            .query_call(self.id, self.caller, method, Encode!().expect("no argument"))
            .unwrap_or_else(|reject| panic!("{method} was rejected: {reject}"));
        Decode!(&reply, T).expect("reply")
    }

    /// Ticks until `done` says so.
    pub fn tick_until(&self, what: &str, mut done: impl FnMut() -> bool) {
        for _ in 0..ROUNDS_MAX {
            if done() {
                return;
            }
            self.ic.advance_time(std::time::Duration::from_millis(10));
            self.ic.tick();
        }
        panic!("{what}: not within {ROUNDS_MAX} rounds");
    }

    /// Sets the instructions of a message.
    pub fn set_message_budget(&self, message_budget: u64) {
        let patch = SettingsPatch { message_budget: Some(message_budget), ..SettingsPatch::default() };
        let settings: Settings = self.update("update_settings", patch).expect("update_settings");
        assert_eq!(settings.message_budget, message_budget);
    }

    /// What `poll` tells.
    pub fn job(&self, job: JobId) -> JobInfo {
        self.query("poll", job).expect("poll")
    }

    /// Waits until a job that goes on by itself has ended, and gives its result.
    pub fn wait_for_result(&self, job: JobId) -> JobResult {
        let is_pending = |state| matches!(state, JobState::Queued | JobState::Running { .. } | JobState::Interrupted);
        self.tick_until("the job", || !is_pending(self.job(job).state));
        match self.job(job).state {
            JobState::Done(result) => *result,
            other => panic!("{other:?}"),
        }
    }

    /// The same of an inference.
    pub fn wait_for_job(&self, job: JobId) -> InferResponse {
        match self.wait_for_result(job) {
            JobResult::Infer(response) => response,
            _ => panic!("another kind of answer"),
        }
    }

    /// What `model_info` tells.
    pub fn info(&self, model: &ModelRef) -> ModelInfo {
        self.query("model_info", model.clone()).expect("model_info")
    }

    /// Uploads every chunk and commits.
    pub fn upload(&self, model: &Model) -> ModelRef {
        let version = self.begin(model);
        for (file, bytes) in model.files.iter().enumerate() {
            for (index, chunk) in bytes.chunks(model.manifest.chunk_size as usize).enumerate() {
                let receipt: ChunkReceipt = self
                    .update("put_chunk", model.chunk(version, file as u32, index as u32, chunk))
                    .expect("put_chunk");
                assert!(!receipt.already_stored);
            }
        }
        let model = ModelRef { name: model.manifest.name.clone(), version: Some(version) };
        let committed: Result<ModelInfo, Error> = self.update("commit", model.clone());
        match committed {
            Ok(_) | Err(Error::StillRunning { .. }) => {}
            Err(error) => panic!("commit: {error}"),
        }
        self.tick_until("commit", || self.info(&model).state == ModelState::Committed);
        model
    }

    /// Begins an upload and returns its version.
    pub fn begin(&self, model: &Model) -> u32 {
        let status: UploadStatus = self.update("begin_upload", model.manifest.clone()).expect("begin_upload");
        status.version
    }

    /// Uploads, loads and activates.
    pub fn deploy_model(&self, model: &Model) -> ModelRef {
        let model = self.upload(model);
        self.load(&model);
        let _: ModelInfo = self.update("activate", model.clone()).expect("activate");
        model
    }

    /// Loads and waits until it is ready.
    pub fn load(&self, model: &ModelRef) {
        let _: ModelInfo = self.update("load", model.clone()).expect("load");
        self.tick_until("load", || match self.info(model).state {
            ModelState::Ready => true,
            ModelState::Failed { reason } => panic!("load failed: {reason}"),
            _ => false,
        });
    }

    /// Stops, upgrades to the same Wasm, starts.
    pub fn upgrade(&self) {
        self.ic.stop_canister(self.id, Some(self.caller)).expect("stop");
        self.upgrade_running().expect("upgrade");
        self.ic.start_canister(self.id, Some(self.caller)).expect("start");
    }

    /// Upgrades without a stop.
    pub fn upgrade_running(&self) -> Result<(), RejectResponse> {
        let wasm = environment::canister_wasm().expect("the canister's Wasm");
        let arguments = Encode!(&None::<InitArgs>).expect("arguments");
        self.ic.upgrade_canister(self.id, wasm, arguments, Some(self.caller))
    }
}

/// An upgrade whose module is in the canister's chunk store already.
pub struct PreparedUpgrade {
    chunk_hashes: Vec<Vec<u8>>,
    module_hash: Vec<u8>,
}

impl Pocket {
    /// Stores the module's chunks for [`PreparedUpgrade::run`].
    pub fn prepare_upgrade(&self) -> PreparedUpgrade {
        const CHUNK_BYTES: usize = 1 << 20;
        let wasm = environment::canister_wasm().expect("the canister's Wasm");
        let chunk_hashes = wasm
            .chunks(CHUNK_BYTES)
            .map(|chunk| self.ic.upload_chunk(self.id, Some(self.caller), chunk.to_vec()).expect("upload_chunk"))
            .collect();
        PreparedUpgrade { chunk_hashes, module_hash: sha256(&wasm).into_vec() }
    }
}

impl PreparedUpgrade {
    /// Upgrades without a stop, in one message.
    pub fn run(self, pocket: &Pocket) -> Result<(), RejectResponse> {
        pocket.ic.install_chunked_canister(
            pocket.id,
            Some(pocket.caller),
            CanisterInstallMode::Upgrade(None),
            pocket.id,
            self.chunk_hashes,
            self.module_hash,
            Encode!(&None::<InitArgs>).expect("arguments"),
        )
    }
}

/// A manifest and the bytes of its files.
#[derive(Clone)]
pub struct Model {
    pub manifest: Manifest,
    pub files: Vec<Vec<u8>>,
}

impl Model {
    /// Fills in sizes and hashes.
    pub fn new(mut manifest: Manifest, files: Vec<(String, Vec<u8>)>) -> Model {
        manifest.files = files
            .iter()
            .map(|(name, bytes)| FileManifest {
                name: name.clone(),
                size_bytes: bytes.len() as u64,
                sha256: sha256(bytes),
                chunk_sha256: bytes.chunks(manifest.chunk_size as usize).map(sha256).collect(),
            })
            .collect();
        Model { manifest, files: files.into_iter().map(|(_, bytes)| bytes).collect() }
    }

    /// The same for images that have the network's size already: as they are, without resizing.
    pub fn unresized(mut self) -> Model {
        if let Some(preprocessing) = &mut self.manifest.preprocessing {
            preprocessing.resize = Resize::None;
        }
        self
    }

    /// The call that stores one chunk.
    pub fn chunk(&self, version: u32, file: u32, index: u32, bytes: &[u8]) -> PutChunk {
        PutChunk { name: self.manifest.name.clone(), version, file, index, bytes: ByteBuf::from(bytes.to_vec()) }
    }
}

/// SHA-256 as the manifest holds it.
pub fn sha256(bytes: &[u8]) -> ByteBuf {
    ByteBuf::from(Sha256::digest(bytes).to_vec())
}
