//! A canister's memories between messages, and the execution of one message against them.

use super::engine::{MAPPING_BYTES, with_memories};
use super::failure::{Backtrace, Failure, TrapKind};
use super::heap::Heap;
use super::image::{GlobalValue, MemoryImage};
use super::instrument::{GLOBAL_EXPORT_PREFIX, START_EXPORT, TABLE_EXPORT};
use super::meter::{Counter, Slices};
use super::system_api::{Kind, MessageState};
use super::{Closure, Effects, Engine, EntryPoint, Environment, LogVisit, Module, Outcome, StableMemory, Trap, costs};
use std::collections::BTreeMap;
use std::sync::Arc;
use wasmtime::unix::StoreExt;
use wasmtime::{Ref, Store, Val, WasmBacktrace};

/// Stack of the thread that runs a message: the Wasm stack, and room for the host below it.
const THREAD_STACK_BYTES: usize = costs::MAX_WASM_STACK_BYTES + (3 << 20);

/// Heap, globals and stable memory of one canister.
///
/// Every message runs in an engine instance of its own, made over these memories: so tables and dropped segments are
/// as the module defines them at the start of each message, as on the network.
pub struct Instance {
    engine: Engine,
    module: Module,
    heap: Arc<Heap>,
    counter: Arc<Counter>,
    /// Values of the mutable globals; none before the first message.
    globals: Option<Vec<Val>>,
    /// Out only while a message runs.
    stable: Option<StableMemory>,
    checkpoint: Option<Option<Vec<Val>>>,
}

impl Instance {
    /// A fresh heap with the module's data segments in it; the start function has not run yet.
    pub fn new(engine: &Engine, module: &Module, stable: StableMemory) -> Result<Instance, Trap> {
        let failed =
            |error: std::io::Error| Failure::Engine(format!("memory cannot be reserved: {error}")).into_trap(&vec![]);
        let inner = module.inner();
        let counter = Arc::new(Counter::new(MAPPING_BYTES).map_err(failed)?);
        let heap = Heap::new(inner.initial_bytes, inner.max_bytes, MAPPING_BYTES, counter.clone()).map_err(failed)?;
        for (offset, bytes) in &inner.segments {
            if !heap.initialise(*offset, bytes).map_err(failed)? {
                return Err(Failure::Trapped(TrapKind::HeapOutOfBounds).into_trap(&vec![]));
            }
        }
        Ok(Instance {
            engine: engine.clone(),
            module: module.clone(),
            heap: Arc::new(heap),
            counter,
            globals: None,
            stable: Some(stable),
            checkpoint: None,
        })
    }

    /// An instance as it was: a heap of `heap_bytes` zeros to put pages in, and none of the module's data segments.
    pub fn restored(
        engine: &Engine,
        module: &Module,
        globals: Option<&[GlobalValue]>,
        heap_bytes: u64,
        stable: StableMemory,
    ) -> anyhow::Result<Instance> {
        let inner = module.inner();
        let (least, most) = (inner.initial_bytes, inner.max_bytes);
        anyhow::ensure!(
            (least..=most).contains(&heap_bytes) && heap_bytes.is_multiple_of(super::costs::WASM_PAGE_BYTES),
            "a heap of {heap_bytes} bytes; the module's has whole pages from {least} to {most}"
        );
        if let Some(globals) = globals {
            let (given, wanted) = (globals.len(), inner.mutable_globals);
            anyhow::ensure!(given == wanted, "{given} values for the module's {wanted} mutable globals");
        }
        let counter = Arc::new(Counter::new(MAPPING_BYTES)?);
        let heap = Heap::new(heap_bytes, inner.max_bytes, MAPPING_BYTES, counter.clone())?;
        Ok(Instance {
            engine: engine.clone(),
            module: module.clone(),
            heap: Arc::new(heap),
            counter,
            globals: globals.map(|globals| globals.iter().map(|value| value.to_val()).collect()),
            stable: Some(stable),
            checkpoint: None,
        })
    }

    /// Replaces one page of the heap, between messages; false if there is no such page or it has another length.
    pub fn put_heap_page(&mut self, page: u32, bytes: &[u8]) -> anyhow::Result<bool> {
        if bytes.len() != super::PAGE_BYTES {
            return Ok(false);
        }
        Ok(self.heap.initialise(u64::from(page) * super::costs::WASM_PAGE_BYTES, bytes)?)
    }

    /// Shows every page of the heap that was ever written, between messages, in order.
    pub fn visit_heap(&self, visit: &mut dyn FnMut(u32, &[u8]) -> std::io::Result<()>) -> std::io::Result<()> {
        self.heap.visit(visit)
    }

    /// A copy of the heap.
    pub fn heap_image(&self) -> anyhow::Result<MemoryImage> {
        let mut pages = BTreeMap::new();
        self.heap.visit(&mut |page, bytes| {
            pages.insert(page, bytes.into());
            Ok(())
        })?;
        Ok(MemoryImage::of(self.heap_bytes(), pages, self.heap_revision()))
    }

    /// A number that changes whenever the heap's content or size do.
    pub fn heap_revision(&self) -> u64 {
        self.heap.revision()
    }

    /// Values of the mutable globals; `None` before the first message. Fails for references, which have no plain form.
    pub fn globals(&self) -> anyhow::Result<Option<Vec<GlobalValue>>> {
        let Some(globals) = &self.globals else { return Ok(None) };
        let values = globals.iter().map(GlobalValue::from_val).collect::<Option<Vec<_>>>();
        values.map(Some).ok_or_else(|| anyhow::anyhow!("the module has a mutable global that holds a reference"))
    }

    /// Runs one message: commits on `Ok`, leaves heap, globals and stable memory as they were on `Err`.
    /// Queries and inspect_message always leave them as they were; composite queries commit, for the sake of their
    /// callbacks (see [`Instance::checkpoint`]).
    pub fn execute(&mut self, environment: Environment) -> Outcome {
        // Wasm code runs on the thread's stack and may use 5 MiB of it, more than most threads have.
        std::thread::scope(|scope| {
            let spawned = std::thread::Builder::new()
                .name("canister message".to_string())
                .stack_size(THREAD_STACK_BYTES)
                .spawn_scoped(scope, || self.run(environment));
            match spawned {
                Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                Err(error) => failed_outcome(Failure::Engine(format!("no thread for the message: {error}"))),
            }
        })
    }

    fn run(&mut self, environment: Environment) -> Outcome {
        let Some(mut stable) = self.stable.take() else {
            return failed_outcome(Failure::Engine("an earlier message did not end".to_string()));
        };
        let (kind, _) = Kind::of(&environment);
        let entry_point = environment.message.entry_point.clone();
        let limits = Limits::of(kind);
        let slices = Slices::new(environment.instruction_limit.unwrap_or(limits.instructions), limits.slice);
        let charge_writes = !kind.is_in(Kind::NON_REPLICATED.or(Kind::REPLICATED_QUERY));

        self.counter.start(slices.first_slice());
        self.heap.begin(charge_writes);
        stable.begin(limits.stable_access_bytes, charge_writes);
        let state = MessageState::new(environment, self.counter.clone(), slices, self.heap.clone(), stable);
        let mut store = Store::new(self.engine.wasmtime(), state);
        store.limiter(|state| state);
        let heap = self.heap.clone();
        // SAFETY: the handler only does what `Heap::handle_fault` documents as async-signal-safe, and it runs on the
        // thread that executes the message.
        unsafe {
            store.set_signal_handler(move |signal, info, context| {
                (signal == libc::SIGSEGV || signal == libc::SIGBUS)
                    && heap.handle_fault((*info).si_addr() as usize, is_write(context))
            });
        }

        let result = self.enter(&mut store, &entry_point);
        let mut state = store.into_data();
        let instructions = state.executed();
        let page_charge = self.counter.page_charge();
        let pages_dirtied = self.heap.pages_written() + state.stable.pages_written();
        // A query leaves no trace, in replicated execution neither. The state machine rolls a composite query back
        // when it and its callbacks are done.
        let discards = kind.is_in(Kind::QUERY.or(Kind::REPLICATED_QUERY).or(Kind::INSPECT));
        let commit = result.is_ok() && !discards;
        let mut result = result.map_err(|(failure, backtrace)| {
            if let Some(line) = failure.log_line(&backtrace) {
                state.log.push(line.into_bytes());
            }
            failure.into_trap(&backtrace)
        });
        state.stable.end(commit);
        if let Err(error) = self.heap.end(commit) {
            result = Err(Failure::Engine(format!("the heap cannot be restored: {error}")).into_trap(&vec![]));
        }
        self.stable = Some(state.stable);
        Outcome {
            instructions,
            page_charge,
            slices: state.slices.begun(),
            pages_dirtied,
            log: LogVisit { lines: state.log },
            result: result.map(|globals| {
                if commit {
                    self.globals = Some(globals);
                }
                state.effects
            }),
        }
    }

    /// Instantiates the module over the memories and calls the entry point; the values of the globals afterwards.
    fn enter(
        &self,
        store: &mut Store<MessageState>,
        entry_point: &EntryPoint,
    ) -> Result<Vec<Val>, (Failure, Backtrace)> {
        let without_backtrace = |failure: Failure| (failure, Vec::new());
        let engine_error = |error: wasmtime::Error| without_backtrace(Failure::Engine(format!("{error:#}")));
        let inner = self.module.inner();
        store.data().check_heap_before().map_err(without_backtrace)?;
        let instance = with_memories(self.heap.clone(), self.counter.clone(), || inner.linked.instantiate(&mut *store))
            .map_err(engine_error)?;
        let mut globals = Vec::with_capacity(inner.mutable_globals);
        for number in 0..inner.mutable_globals {
            let name = format!("{GLOBAL_EXPORT_PREFIX}{number}");
            let global = instance
                .get_global(&mut *store, &name)
                .ok_or_else(|| without_backtrace(Failure::Engine(format!("the module has no {name}"))))?;
            globals.push(global);
        }
        if let Some(values) = &self.globals {
            for (global, value) in globals.iter().zip(values) {
                global.set(&mut *store, *value).map_err(engine_error)?;
            }
        }

        let (function, arguments) = match closure(entry_point) {
            Some(closure) => {
                let table = instance.get_table(&mut *store, TABLE_EXPORT);
                let element = table.and_then(|table| table.get(&mut *store, u64::from(closure.function)));
                let Some(Ref::Func(Some(function))) = element else {
                    return Err(without_backtrace(Failure::FunctionNotFound(closure.function)));
                };
                let environment = if inner.memory64 {
                    Val::I64(i64::from(closure.environment))
                } else {
                    Val::I32(closure.environment as i32)
                };
                let ty = function.ty(&*store);
                let takes = ty.params().map(|ty| ty.to_string()).collect::<Vec<_>>().join(", ");
                let wanted = if inner.memory64 { "i64" } else { "i32" };
                if takes != wanted || ty.results().len() != 0 {
                    return Err(without_backtrace(Failure::Toolchain(format!(
                        "function {} of table 0 is no callback: it takes ({takes}) and returns {} values",
                        closure.function,
                        ty.results().len()
                    ))));
                }
                (function, vec![environment])
            }
            None => {
                let name = export_name(entry_point);
                let Some(function) = instance.get_func(&mut *store, &name) else {
                    return Err(without_backtrace(method_not_found(entry_point, &name)));
                };
                (function, Vec::new())
            }
        };
        store.data_mut().running = true;
        function.call(&mut *store, &arguments, &mut []).map_err(|error| {
            let backtrace = error.downcast_ref::<WasmBacktrace>().map_or(Vec::new(), |trace| self.backtrace(trace));
            let failure = match store.data_mut().failure.take() {
                Some(failure) => failure,
                None => match error.downcast_ref::<wasmtime::Trap>() {
                    Some(trap) => Failure::Trapped(trap_kind(*trap)),
                    None => Failure::Engine(format!("{error:#}")),
                },
            };
            (failure, backtrace)
        })?;
        Ok(globals.iter().map(|global| global.get(&mut *store)).collect())
    }

    /// The functions of a backtrace, by their numbers before instrumentation.
    fn backtrace(&self, trace: &WasmBacktrace) -> Backtrace {
        let inner = self.module.inner();
        let frames = trace.frames().iter();
        frames
            .map(|frame| {
                let index = frame.func_index();
                let index = if index > inner.imported_functions { index - 1 } else { index };
                (index, inner.function_names.get(&index).cloned())
            })
            .collect()
    }

    /// From here on [`Instance::rollback_to_checkpoint`] can undo what messages commit to heap, globals and stable
    /// memory: an upgrade takes it before pre_upgrade, a composite query before its first message.
    pub fn checkpoint(&mut self) {
        self.heap.checkpoint();
        self.checkpoint = Some(self.globals.clone());
        if let Some(stable) = &mut self.stable {
            stable.checkpoint();
        }
    }

    /// Restores heap, globals and stable memory as they were at the checkpoint, and ends it.
    ///
    /// # Panics
    /// If the operating system refuses to change the protection of the heap's pages.
    pub fn rollback_to_checkpoint(&mut self) {
        if let Some(globals) = self.checkpoint.take() {
            self.globals = globals;
        }
        if let Err(error) = self.heap.rollback_to_checkpoint() {
            panic!("the heap cannot be restored: {error}");
        }
        if let Some(stable) = &mut self.stable {
            stable.rollback_to_checkpoint();
        }
    }

    /// Size of the heap in bytes.
    pub fn heap_bytes(&self) -> u64 {
        self.heap.bytes() as u64
    }

    /// Size of stable memory in bytes.
    pub fn stable_bytes(&self) -> u64 {
        self.stable().size_bytes()
    }

    /// The stable memory.
    pub fn stable(&self) -> &StableMemory {
        self.stable.as_ref().expect(STABLE_IS_HERE)
    }

    /// The stable memory, to be replaced or to end a checkpoint.
    pub fn stable_mut(&mut self) -> &mut StableMemory {
        self.stable.as_mut().expect(STABLE_IS_HERE)
    }

    /// Gives up heap and globals and hands the stable memory on, to an upgrade's new instance.
    pub fn into_stable(self) -> StableMemory {
        self.stable.expect(STABLE_IS_HERE)
    }

    /// Replaces the stable memory and returns the one that was here: an upgrade takes it out and, when it fails,
    /// puts it back.
    pub fn replace_stable(&mut self, stable: StableMemory) -> StableMemory {
        self.stable.replace(stable).expect(STABLE_IS_HERE)
    }
}

const STABLE_IS_HERE: &str = "stable memory is away only inside of `execute`";

/// Limits that depend on the kind of message.
struct Limits {
    instructions: u64,
    slice: u64,
    stable_access_bytes: u64,
}

impl Limits {
    fn of(kind: Kind) -> Limits {
        if kind.is_in(Kind::INSPECT) {
            Limits {
                instructions: costs::INSPECT_INSTRUCTION_LIMIT,
                slice: u64::MAX,
                stable_access_bytes: costs::STABLE_ACCESS_LIMIT_QUERY_BYTES,
            }
        } else if kind.is_in(Kind::QUERY.or(Kind::COMPOSITE)) {
            Limits {
                instructions: costs::QUERY_INSTRUCTION_LIMIT,
                slice: u64::MAX,
                stable_access_bytes: costs::STABLE_ACCESS_LIMIT_QUERY_BYTES,
            }
        } else if kind.is_in(Kind::START.or(Kind::INIT).or(Kind::PRE_UPGRADE)) {
            Limits {
                instructions: costs::INSTALL_INSTRUCTION_LIMIT,
                slice: costs::SLICE_INSTRUCTION_LIMIT,
                stable_access_bytes: costs::STABLE_ACCESS_LIMIT_INSTALL_BYTES,
            }
        } else {
            Limits {
                instructions: costs::UPDATE_INSTRUCTION_LIMIT,
                slice: costs::SLICE_INSTRUCTION_LIMIT,
                stable_access_bytes: costs::STABLE_ACCESS_LIMIT_UPDATE_BYTES,
            }
        }
    }
}

/// The outcome of a message that could not begin.
fn failed_outcome(failure: Failure) -> Outcome {
    Outcome {
        instructions: 0,
        page_charge: 0,
        slices: 0,
        pages_dirtied: 0,
        log: LogVisit::default(),
        result: Err::<Effects, _>(failure.into_trap(&vec![])),
    }
}

fn closure(entry_point: &EntryPoint) -> Option<Closure> {
    match entry_point {
        EntryPoint::ReplyCallback(closure) | EntryPoint::RejectCallback(closure) | EntryPoint::Cleanup(closure) => {
            Some(*closure)
        }
        _ => None,
    }
}

fn export_name(entry_point: &EntryPoint) -> String {
    match entry_point {
        EntryPoint::Start => START_EXPORT.to_string(),
        EntryPoint::Init => "canister_init".to_string(),
        EntryPoint::PreUpgrade => "canister_pre_upgrade".to_string(),
        EntryPoint::PostUpgrade => "canister_post_upgrade".to_string(),
        EntryPoint::InspectMessage(_) => "canister_inspect_message".to_string(),
        EntryPoint::Update(method) => format!("canister_update {method}"),
        EntryPoint::Query { method, .. } => format!("canister_query {method}"),
        EntryPoint::CompositeQuery(method) => format!("canister_composite_query {method}"),
        EntryPoint::Heartbeat => "canister_heartbeat".to_string(),
        EntryPoint::GlobalTimer => "canister_global_timer".to_string(),
        EntryPoint::OnLowWasmMemory => "canister_on_low_wasm_memory".to_string(),
        EntryPoint::ReplyCallback(_) | EntryPoint::RejectCallback(_) | EntryPoint::Cleanup(_) => String::new(),
    }
}

fn method_not_found(entry_point: &EntryPoint, export: &str) -> Failure {
    match entry_point {
        EntryPoint::Update(method) => Failure::MethodNotFound("update", method.clone()),
        EntryPoint::Query { method, .. } => Failure::MethodNotFound("query", method.clone()),
        EntryPoint::CompositeQuery(method) => Failure::MethodNotFound("composite_query", method.clone()),
        _ => Failure::MethodNotFound("system", export.to_string()),
    }
}

fn trap_kind(trap: wasmtime::Trap) -> TrapKind {
    match trap {
        wasmtime::Trap::StackOverflow => TrapKind::StackOverflow,
        wasmtime::Trap::MemoryOutOfBounds => TrapKind::HeapOutOfBounds,
        wasmtime::Trap::TableOutOfBounds => TrapKind::TableOutOfBounds,
        wasmtime::Trap::IntegerDivisionByZero => TrapKind::IntegerDivByZero,
        wasmtime::Trap::UnreachableCodeReached => TrapKind::Unreachable,
        _ => TrapKind::Other,
    }
}

/// Whether a faulting access was a write, where the processor's error code says so.
///
/// # Safety
/// `context` is what the system passed to the signal handler.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
unsafe fn is_write(context: *const libc::c_void) -> Option<bool> {
    /// Bit of a page fault's error code that is set for writes.
    const WRITE: i64 = 1 << 1;
    // SAFETY: on Linux the handler's third argument points to a `ucontext_t`.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    Some(context.uc_mcontext.gregs[libc::REG_ERR as usize] & WRITE != 0)
}

/// Elsewhere a page that was read faults once more when it is written.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
unsafe fn is_write(_: *const libc::c_void) -> Option<bool> {
    None
}
