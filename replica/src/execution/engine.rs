//! The Wasm engine and its cache of compiled modules.

use super::costs;
use super::heap::Heap;
use super::instrument::Instrumented;
use super::meter::Counter;
use super::system_api::{self, MessageState};
use anyhow::Context;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use wasmtime::{Config, LinearMemory, Linker, MemoryCreator, MemoryType, OptLevel};

/// Address space reserved for a heap: every address a 32-bit memory can form lies inside (index and offset have 32
/// bits each), so compiled code needs no bounds checks, and a 64-bit heap of the largest size fits.
const MEMORY_RESERVATION_BYTES: u64 = 8 << 30;
/// Address space behind it that is never accessible.
const MEMORY_GUARD_BYTES: u64 = 32 << 20;
/// What a memory's mapping must have.
pub(super) const MAPPING_BYTES: usize = (MEMORY_RESERVATION_BYTES + MEMORY_GUARD_BYTES) as usize;

/// The Wasm engine with an optional directory of compiled modules; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    wasmtime: wasmtime::Engine,
    linker32: Linker<MessageState>,
    linker64: Linker<MessageState>,
    cache: Option<Cache>,
}

impl Engine {
    /// An engine that keeps compiled modules in `cache_dir` (made if absent), or nowhere.
    pub fn new(cache_dir: Option<&Path>) -> anyhow::Result<Engine> {
        let wasmtime = wasmtime::Engine::new(&config()).map_err(plain)?;
        let cache = cache_dir.map(Cache::new).transpose()?;
        let linker32 = system_api::linker(&wasmtime, false).map_err(plain)?;
        let linker64 = system_api::linker(&wasmtime, true).map_err(plain)?;
        Ok(Engine { inner: Arc::new(Inner { wasmtime, linker32, linker64, cache }) })
    }

    pub(super) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.inner.wasmtime
    }

    pub(super) fn linker(&self, memory64: bool) -> &Linker<MessageState> {
        if memory64 { &self.inner.linker64 } else { &self.inner.linker32 }
    }

    /// Compiles what `instrument` gives for `wasm`, or takes the result of an earlier run from the cache. Also
    /// returns the instructions that the network charges for the compilation.
    pub(super) fn compile<E>(
        &self,
        wasm: &[u8],
        instrument: impl FnOnce() -> Result<Instrumented, E>,
        failed: impl Fn(wasmtime::Error) -> E,
    ) -> Result<(wasmtime::Module, u64), E> {
        let entry = self.inner.cache.as_ref().map(|cache| cache.entry(wasm));
        if let Some(found) = entry.as_deref().and_then(|entry| read_entry(&self.inner.wasmtime, entry)) {
            return Ok(found);
        }
        let Instrumented { wasm, compile_instructions } = instrument()?;
        let module = wasmtime::Module::from_binary(&self.inner.wasmtime, &wasm).map_err(failed)?;
        if let Some(entry) = entry {
            // A module that cannot be stored is compiled again next time; that is all.
            let _ = write_entry(&module, compile_instructions, &entry);
        }
        Ok((module, compile_instructions))
    }
}

/// An error of the engine as one of this crate's.
fn plain(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:#}")
}

/// The network's Wasm features, and what makes execution deterministic. Optimisation differs from the network's (off
/// there), because it changes speed only.
fn config() -> Config {
    let mut config = Config::new();
    config
        .with_host_memory(Arc::new(ProvidedMemories))
        .memory_reservation(MEMORY_RESERVATION_BYTES)
        .memory_guard_size(MEMORY_GUARD_BYTES)
        .memory_may_move(false)
        .guard_before_linear_memory(false)
        .memory_init_cow(false)
        .max_wasm_stack(costs::MAX_WASM_STACK_BYTES)
        .async_stack_size(costs::MAX_WASM_STACK_BYTES)
        .cranelift_opt_level(OptLevel::Speed)
        .cranelift_nan_canonicalization(true)
        .parallel_compilation(true)
        .generate_address_map(false)
        .wasm_backtrace_max_frames(NonZeroUsize::new(costs::MAX_BACKTRACE_FRAMES))
        .wasm_bulk_memory(true)
        .wasm_multi_value(true)
        .wasm_multi_memory(true)
        .wasm_memory64(true)
        .wasm_simd(true)
        .wasm_tail_call(true)
        .wasm_relaxed_simd(false)
        .wasm_extended_const(false);
    // Page faults come as signals on every system; on macOS the engine would otherwise ask for Mach messages.
    #[cfg(target_os = "macos")]
    config.macos_use_mach_ports(false);
    config
}

thread_local! {
    /// Memories for the instance that this thread is about to make, last first.
    static NEXT_MEMORIES: RefCell<Vec<Box<dyn LinearMemory>>> = const { RefCell::new(Vec::new()) };
}

/// Instantiates with the given heap and counter as memories 0 and 1.
pub(super) fn with_memories<T>(heap: Arc<Heap>, counter: Arc<Counter>, instantiate: impl FnOnce() -> T) -> T {
    let memories: Vec<Box<dyn LinearMemory>> = vec![Box::new(CounterMemory(counter)), Box::new(HeapMemory(heap))];
    NEXT_MEMORIES.set(memories);
    let result = instantiate();
    NEXT_MEMORIES.take();
    result
}

/// Gives out the memories of [`with_memories`], in order.
struct ProvidedMemories;

// SAFETY: the memories given out have the reservation and guard that compiled code relies on (checked here), are
// zero where they were never written, and stay mapped for as long as the instance holds them.
unsafe impl MemoryCreator for ProvidedMemories {
    fn new_memory(
        &self,
        _: MemoryType,
        minimum: usize,
        _: Option<usize>,
        reserved_bytes: Option<usize>,
        guard_bytes: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        let memory = NEXT_MEMORIES.with_borrow_mut(Vec::pop).ok_or("no memory was provided")?;
        let needed = reserved_bytes.unwrap_or(0).saturating_add(guard_bytes);
        if needed > MAPPING_BYTES || memory.byte_size() < minimum {
            return Err(format!(
                "a memory of {} bytes, mapped {MAPPING_BYTES}, does not serve for {minimum} bytes in {needed}",
                memory.byte_size()
            ));
        }
        Ok(memory)
    }
}

struct HeapMemory(Arc<Heap>);

// SAFETY: the heap's base never moves, and faults below `byte_size` are resolved by the signal handler.
unsafe impl LinearMemory for HeapMemory {
    fn byte_size(&self) -> usize {
        self.0.bytes()
    }

    fn byte_capacity(&self) -> usize {
        self.0.max_bytes()
    }

    fn grow_to(&mut self, new_size: usize) -> wasmtime::Result<()> {
        if self.0.grow_to(new_size) {
            Ok(())
        } else {
            Err(wasmtime::Error::msg(format!("the heap cannot grow to {new_size} bytes")))
        }
    }

    fn as_ptr(&self) -> *mut u8 {
        self.0.base()
    }
}

struct CounterMemory(Arc<Counter>);

// SAFETY: the page is mapped readable and writable at a fixed address.
unsafe impl LinearMemory for CounterMemory {
    fn byte_size(&self) -> usize {
        costs::WASM_PAGE_BYTES as usize
    }

    fn byte_capacity(&self) -> usize {
        costs::WASM_PAGE_BYTES as usize
    }

    fn grow_to(&mut self, _: usize) -> wasmtime::Result<()> {
        Err(wasmtime::Error::msg("the counter's memory does not grow"))
    }

    fn as_ptr(&self) -> *mut u8 {
        self.0.base()
    }
}

/// Compiled modules on disk, by the hash of everything that determines them.
///
/// An entry:
///
/// ```text
/// byte  0  8 bytes   "RPLCMOD" and the version of this layout
/// byte  8  u64 LE    instructions charged for the compilation
/// byte 16  32 bytes  SHA-256 of what follows
/// byte 48            the compiled module, as the engine serialises it
/// ```
struct Cache {
    dir: PathBuf,
}

const ENTRY_MAGIC: &[u8; 8] = b"RPLCMOD\x01";
const ENTRY_HEADER_BYTES: usize = 48;

impl Cache {
    fn new(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("the module cache {} cannot be made", dir.display()))?;
        Ok(Cache { dir: dir.to_path_buf() })
    }

    fn entry(&self, wasm: &[u8]) -> PathBuf {
        let mut hash = Sha256::new();
        // The engine checks its own version and settings when it reads an entry; ours are the instrumentation.
        hash.update(ENTRY_MAGIC);
        hash.update(env!("CARGO_PKG_VERSION"));
        hash.update(costs::TABLES_DATE);
        hash.update(INSTRUMENTATION_VERSION.to_le_bytes());
        hash.update(MEMORY_RESERVATION_BYTES.to_le_bytes());
        hash.update(wasm);
        self.dir.join(format!("{}.module", hex::encode(hash.finalize())))
    }
}

/// To be raised whenever `instrument` gives other code for the same module.
const INSTRUMENTATION_VERSION: u32 = 1;

/// A cached module; `None` if there is none that can be trusted.
fn read_entry(engine: &wasmtime::Engine, entry: &Path) -> Option<(wasmtime::Module, u64)> {
    let bytes = std::fs::read(entry).ok()?;
    let (header, artifact) = bytes.split_at_checked(ENTRY_HEADER_BYTES)?;
    let intact = header[..8] == ENTRY_MAGIC[..] && header[16..] == Sha256::digest(artifact)[..];
    if !intact {
        return None;
    }
    let compile_instructions = u64::from_le_bytes(header[8..16].try_into().ok()?);
    // SAFETY: the bytes are what `Module::serialize` gave us: the hash tells of any damage, and whoever can write to
    // the cache directory on purpose can replace this program as well.
    let module = unsafe { wasmtime::Module::deserialize(engine, artifact) }.ok()?;
    Some((module, compile_instructions))
}

fn write_entry(module: &wasmtime::Module, compile_instructions: u64, entry: &Path) -> anyhow::Result<()> {
    let artifact = module.serialize().map_err(plain)?;
    let mut bytes = Vec::with_capacity(ENTRY_HEADER_BYTES + artifact.len());
    bytes.extend_from_slice(ENTRY_MAGIC);
    bytes.extend_from_slice(&compile_instructions.to_le_bytes());
    bytes.extend_from_slice(&Sha256::digest(&artifact));
    bytes.extend_from_slice(&artifact);
    // Readers see the old file or the new one, never half of it.
    let temporary = entry.with_extension(format!("{}-{:?}", std::process::id(), std::thread::current().id()));
    std::fs::write(&temporary, bytes)?;
    std::fs::rename(&temporary, entry)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execution::Module;

    #[test]
    fn a_damaged_cache_entry_is_compiled_again() {
        let dir = std::env::temp_dir().join(format!("replica-module-cache-{}", std::process::id()));
        let engine = Engine::new(Some(&dir)).unwrap();
        let wasm = wat::parse_str(r#"(module (func (export "canister_update go")))"#).unwrap();
        let compiled = Module::compile(&engine, &wasm).unwrap();
        let entry = engine.inner.cache.as_ref().unwrap().entry(&wasm);
        let good = std::fs::read(&entry).unwrap();
        assert!(read_entry(engine.wasmtime(), &entry).is_some());

        let mut bad = good.clone();
        let last = bad.len() - 1;
        bad[last] ^= 1;
        for bytes in [&bad[..], &good[..100], b""] {
            std::fs::write(&entry, bytes).unwrap();
            assert!(read_entry(engine.wasmtime(), &entry).is_none());
            let again = Module::compile(&engine, &wasm).unwrap();
            assert_eq!(again.compile_instructions(), compiled.compile_instructions());
            assert_eq!(std::fs::read(&entry).unwrap(), good);
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
