//! What the system API works on during one message.

use crate::execution::costs;
use crate::execution::failure::{Failure, wrong_mode};
use crate::execution::heap::Heap;
use crate::execution::meter::{Counter, Slices};
use crate::execution::{Closure, Effects, EntryPoint, Environment, Message, StableMemory, SystemInfo};
use candid::Principal;
use std::sync::Arc;

/// Kinds of messages, as a set: which of them a system call may be made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::execution) struct Kind(u16);

impl Kind {
    pub(in crate::execution) const START: Kind = Kind(1);
    /// Init and post_upgrade.
    pub(in crate::execution) const INIT: Kind = Kind(1 << 1);
    pub(in crate::execution) const PRE_UPGRADE: Kind = Kind(1 << 2);
    pub(in crate::execution) const INSPECT: Kind = Kind(1 << 3);
    pub(in crate::execution) const UPDATE: Kind = Kind(1 << 4);
    pub(in crate::execution) const REPLICATED_QUERY: Kind = Kind(1 << 5);
    pub(in crate::execution) const QUERY: Kind = Kind(1 << 6);
    pub(in crate::execution) const COMPOSITE_QUERY: Kind = Kind(1 << 7);
    /// Heartbeat, global timer, on_low_wasm_memory.
    pub(in crate::execution) const TASK: Kind = Kind(1 << 8);
    pub(in crate::execution) const REPLY: Kind = Kind(1 << 9);
    pub(in crate::execution) const REJECT: Kind = Kind(1 << 10);
    pub(in crate::execution) const CLEANUP: Kind = Kind(1 << 11);
    /// Callbacks of composite queries.
    pub(in crate::execution) const COMPOSITE_REPLY: Kind = Kind(1 << 12);
    pub(in crate::execution) const COMPOSITE_REJECT: Kind = Kind(1 << 13);
    pub(in crate::execution) const COMPOSITE_CLEANUP: Kind = Kind(1 << 14);
    pub(in crate::execution) const ALL: Kind = Kind(u16::MAX);
    /// What runs on one node only, outside of consensus.
    pub(in crate::execution) const NON_REPLICATED: Kind = Kind::INSPECT.or(Kind::QUERY).or(Kind::COMPOSITE);
    /// A composite query and its callbacks.
    pub(in crate::execution) const COMPOSITE: Kind =
        Kind::COMPOSITE_QUERY.or(Kind::COMPOSITE_REPLY).or(Kind::COMPOSITE_REJECT).or(Kind::COMPOSITE_CLEANUP);

    pub(in crate::execution) const fn or(self, other: Kind) -> Kind {
        Kind(self.0 | other.0)
    }

    pub(in crate::execution) const fn except(self, other: Kind) -> Kind {
        Kind(self.0 & !other.0)
    }

    pub(in crate::execution) const fn is_in(self, set: Kind) -> bool {
        self.0 & set.0 != 0
    }

    /// The kind of a message, and the network's name of its mode.
    pub(in crate::execution) fn of(environment: &Environment) -> (Kind, &'static str) {
        match &environment.message.entry_point {
            EntryPoint::ReplyCallback(_) if environment.in_composite_query => {
                (Kind::COMPOSITE_REPLY, "composite reply callback")
            }
            EntryPoint::RejectCallback(_) if environment.in_composite_query => {
                (Kind::COMPOSITE_REJECT, "composite reject callback")
            }
            EntryPoint::Cleanup(_) if environment.in_composite_query => (Kind::COMPOSITE_CLEANUP, "composite cleanup"),
            EntryPoint::Start => (Kind::START, "start"),
            EntryPoint::Init | EntryPoint::PostUpgrade => (Kind::INIT, "init"),
            EntryPoint::PreUpgrade => (Kind::PRE_UPGRADE, "pre upgrade"),
            EntryPoint::InspectMessage(_) => (Kind::INSPECT, "inspect message"),
            EntryPoint::Update(_) => (Kind::UPDATE, "update"),
            EntryPoint::Query { replicated: true, .. } => (Kind::REPLICATED_QUERY, "replicated query"),
            EntryPoint::Query { replicated: false, .. } => (Kind::QUERY, "non replicated query"),
            EntryPoint::CompositeQuery(_) => (Kind::COMPOSITE_QUERY, "composite query"),
            EntryPoint::Heartbeat => (Kind::TASK, "heartbeat"),
            EntryPoint::GlobalTimer => (Kind::TASK, "global timer"),
            EntryPoint::OnLowWasmMemory => (Kind::TASK, "on low wasm memory"),
            EntryPoint::ReplyCallback(_) => (Kind::REPLY, "reply callback"),
            EntryPoint::RejectCallback(_) => (Kind::REJECT, "reject callback"),
            EntryPoint::Cleanup(_) => (Kind::CLEANUP, "cleanup"),
        }
    }
}

/// A call that `call_new` began and `call_perform` has not sent yet.
pub(super) struct CallInPreparation {
    pub callee: Principal,
    pub method: String,
    pub argument: Vec<u8>,
    pub cycles: u128,
    pub on_reply: Closure,
    pub on_reject: Closure,
    pub on_cleanup: Option<Closure>,
    pub timeout_s: Option<u32>,
}

/// The state of the running message: data of the Wasm store.
pub(in crate::execution) struct MessageState {
    pub(in crate::execution) kind: Kind,
    mode: &'static str,
    pub(super) system: SystemInfo,
    pub(super) message: Message,
    pub(in crate::execution) counter: Arc<Counter>,
    pub(in crate::execution) slices: Slices,
    pub(in crate::execution) heap: Arc<Heap>,
    pub(in crate::execution) stable: StableMemory,
    /// The module is instantiated and the message runs: memory growth is the canister's own.
    pub(in crate::execution) running: bool,
    pub(in crate::execution) failure: Option<Failure>,
    pub(in crate::execution) effects: Effects,
    pub(in crate::execution) log: Vec<Vec<u8>>,
    pub(super) log_remaining: u64,
    pub(super) reply: Vec<u8>,
    pub(super) call: Option<CallInPreparation>,
    /// Balance minus what calls took, plus what was accepted.
    pub(super) balance: u128,
    pub(super) cycles_available: u128,
}

impl MessageState {
    pub(in crate::execution) fn new(
        environment: Environment,
        counter: Arc<Counter>,
        slices: Slices,
        heap: Arc<Heap>,
        stable: StableMemory,
    ) -> Self {
        let (kind, mode) = Kind::of(&environment);
        MessageState {
            kind,
            mode,
            log_remaining: environment.system.log_remaining_bytes,
            balance: environment.system.cycle_balance,
            cycles_available: environment.message.cycles_available,
            system: environment.system,
            message: environment.message,
            counter,
            slices,
            heap,
            stable,
            running: false,
            failure: None,
            effects: Effects::default(),
            log: Vec::new(),
            reply: Vec::new(),
            call: None,
        }
    }

    /// Subtracts the cost of a system call, page charges so far with it.
    pub(super) fn charge(&mut self, instructions: u64) -> Result<(), Failure> {
        if self.counter.settle() < 0 {
            self.out_of_instructions()?;
        }
        let instructions = i64::try_from(instructions)
            .map_err(|_| Failure::InstructionLimit { limit: self.slices.first_slice() as u64 })?;
        self.counter.set_left(self.counter.settle().saturating_sub(instructions));
        if self.counter.settle() < 0 {
            self.out_of_instructions()?;
        }
        Ok(())
    }

    /// The counter may be below zero: begins the next slice, if there is one.
    pub(super) fn out_of_instructions(&mut self) -> Result<(), Failure> {
        let left = self.counter.settle();
        if left < 0 {
            let next = self.slices.next(left)?;
            self.counter.set_left(next);
        }
        Ok(())
    }

    /// Instructions executed in this message so far.
    pub(in crate::execution) fn executed(&self) -> u64 {
        self.slices.executed(self.counter.settle())
    }

    /// Fails unless the message is of one of these kinds.
    pub(super) fn only_in(&self, method: &str, kinds: Kind) -> Result<(), Failure> {
        if self.kind.is_in(kinds) { Ok(()) } else { Err(wrong_mode(method, self.mode)) }
    }

    pub(super) fn mode(&self) -> &'static str {
        self.mode
    }

    /// Checks a range of the heap without touching it.
    pub(super) fn check_heap(&self, context: &str, start: u64, len: u64) -> Result<(), Failure> {
        check_range(context, start, len, self.heap.bytes() as u64)
    }

    /// A copy of a range of the heap.
    pub(super) fn read_heap(&self, context: &str, start: u64, len: u64) -> Result<Vec<u8>, Failure> {
        self.check_heap(context, start, len)?;
        // SAFETY: the slice is copied at once.
        match unsafe { self.heap.read(start, len) } {
            Some(Ok(bytes)) => Ok(bytes.to_vec()),
            Some(Err(error)) => Err(heap_error(error)),
            None => Err(out_of_range(context, start, len, self.heap.bytes() as u64)),
        }
    }

    /// Writes bytes into the heap.
    pub(super) fn write_heap(&self, context: &str, start: u64, bytes: &[u8]) -> Result<(), Failure> {
        let len = bytes.len() as u64;
        // SAFETY: the slice is written at once.
        match unsafe { self.heap.write(start, len) } {
            Some(Ok(target)) => {
                target.copy_from_slice(bytes);
                Ok(())
            }
            Some(Err(error)) => Err(heap_error(error)),
            None => Err(out_of_range(context, start, len, self.heap.bytes() as u64)),
        }
    }

    /// Copies a part of `source` into the heap, as the `*_copy` calls do.
    pub(super) fn copy_out(
        &self,
        method: &str,
        source_name: &str,
        source: &[u8],
        (target, offset, len): (u64, u64, u64),
    ) -> Result<(), Failure> {
        let heap_context = format!("ic0.{method} heap");
        self.check_heap(&heap_context, target, len)?;
        check_range(&format!("ic0.{method} {source_name}"), offset, len, source.len() as u64)?;
        self.write_heap(&heap_context, target, &source[offset as usize..(offset + len) as usize])
    }

    /// Writes an amount of cycles as 16 little-endian bytes.
    pub(super) fn write_cycles(&self, method: &str, target: u64, cycles: u128) -> Result<(), Failure> {
        let heap_bytes = self.heap.bytes() as u64;
        if target.checked_add(16).is_none_or(|end| end > heap_bytes) {
            return Err(Failure::Toolchain(format!(
                "ic0_{method} failed because dst + size is out of bounds. Found dst = {target} and size = 16 while \
                 dst + size must be <= {heap_bytes}"
            )));
        }
        self.write_heap(method, target, &cycles.to_le_bytes())
    }

    /// The balance above the freezing limit.
    pub(super) fn liquid_cycles(&self) -> u128 {
        self.balance.saturating_sub(self.system.freezing_limit)
    }

    /// Whether replies may be long only in queries.
    pub(super) fn max_reply_bytes(&self) -> u64 {
        if self.kind.is_in(Kind::NON_REPLICATED) { costs::MAX_QUERY_REPLY_BYTES } else { costs::MAX_REPLY_BYTES }
    }

    /// Adds a line to the canister's log.
    pub(super) fn add_log(&mut self, line: Vec<u8>) {
        self.log_remaining = self.log_remaining.saturating_sub(line.len() as u64);
        self.log.push(line);
    }

    /// Whether the heap may grow to `bytes`: the setting `wasm_memory_limit` binds neither queries nor callbacks, so
    /// that a full canister can still be read and its open calls can end.
    fn check_heap_limit(&self, bytes: u64) -> Result<(), Failure> {
        let limit = self.system.wasm_memory_limit_bytes;
        let bound = Kind::START.or(Kind::INIT).or(Kind::UPDATE).or(Kind::TASK);
        if limit != 0 && bytes > limit && self.kind.is_in(bound) {
            return Err(Failure::HeapLimit { bytes, limit });
        }
        Ok(())
    }

    /// Before an update or a task starts: a heap that is already above the limit fails it.
    pub(in crate::execution) fn check_heap_before(&self) -> Result<(), Failure> {
        if self.kind.is_in(Kind::UPDATE.or(Kind::TASK)) {
            self.check_heap_limit(self.heap.bytes() as u64)?;
        }
        Ok(())
    }
}

impl wasmtime::ResourceLimiter for MessageState {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        // What does not fit at all makes `memory.grow` return -1.
        if self.running && desired <= self.heap.max_bytes() {
            self.check_heap_limit(desired as u64).map_err(|failure| {
                self.failure = Some(failure);
                wasmtime::Error::msg("the heap's limit is exceeded")
            })?;
        }
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, _: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(true)
    }
}

fn out_of_range(context: &str, start: u64, len: u64, size: u64) -> Failure {
    Failure::Toolchain(format!("{context}: src={start} + length={len} exceeds the slice size={size}"))
}

fn check_range(context: &str, start: u64, len: u64, size: u64) -> Result<(), Failure> {
    match start.checked_add(len) {
        Some(end) if end <= size => Ok(()),
        _ => Err(out_of_range(context, start, len, size)),
    }
}

pub(super) fn heap_error(error: std::io::Error) -> Failure {
    Failure::Engine(format!("the heap cannot be accessed: {error}"))
}
