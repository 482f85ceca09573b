//! One canister: settings, balance, code, queues, open calls.

use super::call_context::OpenCalls;
use super::counters::{Counters, MessageCost};
use super::errors;
use super::logs::CanisterLog;
use super::message::{Origin, Request, Response, Task};
use super::prices;
use super::settings::Settings;
use super::snapshots::Snapshot;
use super::types::Rejection;
use crate::execution::{Engine, Instance, Module};
use candid::Principal;
use ic_management_canister_types as ic00;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::sync::Arc;

/// First bytes of a gzip file (RFC 1952).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// A module that imports this needs a certificate in queries.
const CERTIFICATE_IMPORT: &[u8] = b"data_certificate";

/// Changes that a canister's history keeps.
pub const MAX_HISTORY: usize = 20;

/// Whether a canister takes requests.
#[derive(Debug, Serialize, Deserialize)]
pub enum Status {
    Running,
    /// Takes no requests and waits for its open calls.
    Stopping(Vec<StopRequest>),
    Stopped,
}

impl Status {
    /// As `ic0.canister_status` counts it.
    pub fn number(&self) -> u32 {
        match self {
            Status::Running => 1,
            Status::Stopping(_) => 2,
            Status::Stopped => 3,
        }
    }
}

/// A `stop_canister` call that waits until the canister has stopped.
#[derive(Debug, Serialize, Deserialize)]
pub struct StopRequest {
    pub origin: Origin,
    pub cycles: u128,
    pub deadline_ns: u64,
}

/// An installed module and its memories.
pub struct Code {
    pub module: Module,
    /// The module as it was handed in, zipped or not.
    pub wasm: Arc<[u8]>,
    pub instance: Instance,
    /// SHA-256 of `wasm`.
    pub module_hash: [u8; 32],
    /// The module's text names `data_certificate`, so queries need one.
    pub wants_certificate: bool,
}

/// A piece of a module in the chunk store.
pub type Chunk = serde_bytes::ByteBuf;

/// The hook that tells a canister it runs low on heap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LowMemoryHook {
    #[default]
    ConditionNotSatisfied,
    Ready,
    Executed,
}

/// One canister.
#[derive(Serialize, Deserialize)]
pub struct Canister {
    pub id: Principal,
    pub settings: Settings,
    pub status: Status,
    pub cycles: u128,
    pub version: u64,
    /// Its memories are kept apart from the rest; see [`super::persistence`].
    #[serde(skip)]
    pub code: Option<Code>,
    pub certified_data: Vec<u8>,
    /// Zero when off.
    pub global_timer_ns: u64,
    pub low_memory_hook: LowMemoryHook,
    pub chunks: BTreeMap<[u8; 32], Chunk>,
    /// By the number in their ids, in the order they were taken.
    pub snapshots: BTreeMap<u64, Snapshot>,
    pub next_snapshot: u64,
    pub log: CanisterLog,
    pub history: VecDeque<ic00::Change>,
    pub history_total: u64,
    pub calls: OpenCalls,
    pub ingress: VecDeque<Request>,
    pub requests: VecDeque<Request>,
    pub responses: VecDeque<Response>,
    pub tasks: VecDeque<Task>,
    /// Whose turn it is: ingress messages and other canisters' requests alternate.
    pub request_turn: bool,
    /// A message of several slices keeps the canister busy until this round.
    pub busy_until_round: u64,
    /// Until when memory and compute allocation are paid.
    pub charged_until_ns: u64,
    pub counters: Counters,
    pub last_cost: MessageCost,
}

impl Code {
    /// Compiles a module as it was handed in; the error is what the network says about an invalid one.
    pub fn compile(engine: &Engine, id: &Principal, wasm: &[u8]) -> Result<CompiledCode, Rejection> {
        let unzipped = unzipped(id, wasm)?;
        let module =
            Module::compile(engine, &unzipped).map_err(|invalid| errors::invalid_module(id, &invalid.message))?;
        Ok(CompiledCode {
            module,
            wasm: wasm.into(),
            module_hash: Sha256::digest(wasm).into(),
            wants_certificate: unzipped.windows(CERTIFICATE_IMPORT.len()).any(|window| window == CERTIFICATE_IMPORT),
        })
    }
}

/// A module without an instance.
pub struct CompiledCode {
    pub module: Module,
    pub wasm: Arc<[u8]>,
    pub module_hash: [u8; 32],
    pub wants_certificate: bool,
}

impl CompiledCode {
    pub fn with_instance(self, instance: Instance) -> Code {
        let CompiledCode { module, wasm, module_hash, wants_certificate } = self;
        Code { module, wasm, instance, module_hash, wants_certificate }
    }
}

/// The module itself, unzipped if need be, at most of the size that the network takes.
fn unzipped<'a>(id: &Principal, wasm: &'a [u8]) -> Result<Cow<'a, [u8]>, Rejection> {
    let limit = prices::MAX_MODULE_BYTES;
    let too_large = || errors::invalid_module(id, &format!("the module is larger than {limit} bytes"));
    if !wasm.starts_with(&GZIP_MAGIC) {
        return if wasm.len() as u64 > limit { Err(too_large()) } else { Ok(Cow::Borrowed(wasm)) };
    }
    let mut module = Vec::new();
    flate2::read::GzDecoder::new(wasm)
        .take(limit + 1)
        .read_to_end(&mut module)
        .map_err(|error| errors::invalid_module(id, &format!("failed to decompress the module: {error}")))?;
    if module.len() as u64 > limit { Err(too_large()) } else { Ok(Cow::Owned(module)) }
}

impl Canister {
    pub fn new(id: Principal, settings: Settings, cycles: u128, time_ns: u64) -> Self {
        Canister {
            id,
            settings,
            status: Status::Running,
            cycles,
            version: 0,
            code: None,
            certified_data: Vec::new(),
            global_timer_ns: 0,
            low_memory_hook: LowMemoryHook::default(),
            chunks: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            next_snapshot: 0,
            log: CanisterLog::default(),
            history: VecDeque::new(),
            history_total: 0,
            calls: OpenCalls::default(),
            ingress: VecDeque::new(),
            requests: VecDeque::new(),
            responses: VecDeque::new(),
            tasks: VecDeque::new(),
            request_turn: false,
            busy_until_round: 0,
            charged_until_ns: time_ns,
            counters: Counters::default(),
            last_cost: MessageCost::default(),
        }
    }

    pub fn is_running(&self) -> bool {
        matches!(self.status, Status::Running)
    }

    /// The installed module exports a function of this name.
    pub fn exports(&self, name: &str) -> bool {
        self.code.as_ref().is_some_and(|code| code.module.has_export(name))
    }

    /// What the canister's memory is, by kind, in bytes.
    pub fn memory(&self) -> Memory {
        let mut memory = Memory {
            chunk_store: self.chunks.len() as u64 * prices::CHUNK_BYTES,
            history: self.history.iter().map(change_bytes).sum(),
            snapshots: self.snapshots.values().map(Snapshot::bytes).sum(),
            ..Memory::default()
        };
        if let Some(code) = &self.code {
            memory.heap = code.instance.heap_bytes();
            memory.stable = code.instance.stable_bytes();
            memory.wasm = code.module.wasm_bytes();
            memory.custom_sections = code
                .module
                .custom_sections()
                .iter()
                .map(|(name, section)| (name.len() + section.data.len()) as u64)
                .sum();
        }
        memory
    }

    /// Bytes that storage is charged for.
    pub fn charged_bytes(&self) -> u64 {
        self.memory().total().max(self.settings.memory_allocation_bytes)
    }

    /// Balance below which the canister is frozen: what it burns idle within its freezing threshold.
    pub fn freezing_limit(&self) -> u128 {
        let settings = &self.settings;
        prices::idle(self.charged_bytes(), settings.compute_allocation_percent, settings.freezing_threshold_s)
    }

    /// Takes `cost` and leaves the freezing limit untouched, or says how much is missing.
    pub fn withdraw(&mut self, cost: u128) -> Result<(), u128> {
        let needed = cost.saturating_add(self.freezing_limit());
        match self.cycles.checked_sub(needed) {
            Some(_) => {
                self.cycles -= cost;
                Ok(())
            }
            None => Err(needed - self.cycles),
        }
    }

    /// Anything to execute, timers not due yet left out.
    pub fn has_work(&self) -> bool {
        !(self.ingress.is_empty() && self.requests.is_empty() && self.responses.is_empty() && self.tasks.is_empty())
    }

    /// Takes a change of code, controllers or existence into the history.
    pub fn record_change(
        &mut self,
        time_ns: u64,
        origin: &Origin,
        sender_version: Option<u64>,
        details: ic00::ChangeDetails,
    ) {
        let origin = match origin {
            Origin::Ingress { sender, .. } => ic00::ChangeOrigin::FromUser(ic00::FromUserRecord { user_id: *sender }),
            Origin::Canister { caller, .. } => ic00::ChangeOrigin::FromCanister(ic00::FromCanisterRecord {
                canister_id: *caller,
                canister_version: sender_version,
            }),
            Origin::System => ic00::ChangeOrigin::FromCanister(ic00::FromCanisterRecord {
                canister_id: Principal::management_canister(),
                canister_version: None,
            }),
        };
        let change =
            ic00::Change { timestamp_nanos: time_ns, canister_version: self.version, origin, details: Some(details) };
        self.history.push_back(change);
        self.history_total += 1;
        while self.history.len() > MAX_HISTORY {
            self.history.pop_front();
        }
    }

    /// Takes code, memories, chunk store, log, certified data and timer away; open contexts are marked deleted.
    /// Returns whom they would have answered, with the cycles to give back.
    pub fn uninstall(&mut self) -> Vec<(Origin, u128)> {
        self.code = None;
        self.certified_data.clear();
        self.global_timer_ns = 0;
        self.low_memory_hook = LowMemoryHook::default();
        self.chunks.clear();
        self.log.clear();
        self.tasks.clear();
        self.version += 1;
        let mut unanswered = Vec::new();
        let mut finished = Vec::new();
        for (id, context) in self.calls.contexts_mut() {
            context.deleted = true;
            if !context.responded {
                context.responded = true;
                unanswered.push((context.origin.clone(), std::mem::take(&mut context.cycles_available)));
            }
            if context.open_calls == 0 {
                finished.push(id);
            }
        }
        for id in finished {
            self.calls.remove_context(id);
        }
        unanswered
    }
}

/// A canister's memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub heap: u64,
    pub stable: u64,
    pub wasm: u64,
    pub custom_sections: u64,
    pub chunk_store: u64,
    pub history: u64,
    pub snapshots: u64,
}

impl Memory {
    pub fn total(&self) -> u64 {
        self.heap + self.stable + self.wasm + self.custom_sections + self.chunk_store + self.history + self.snapshots
    }
}

/// What a change in the history takes in memory: a fixed part, and each controller's id.
fn change_bytes(change: &ic00::Change) -> u64 {
    const FIXED_BYTES: u64 = 112;
    const PRINCIPAL_BYTES: u64 = 30;
    let controllers = match &change.details {
        Some(ic00::ChangeDetails::Creation(creation)) => creation.controllers.len(),
        Some(ic00::ChangeDetails::ControllersChange(change)) => change.controllers.len(),
        _ => 0,
    };
    FIXED_BYTES + PRINCIPAL_BYTES * controllers as u64
}
