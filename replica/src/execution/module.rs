//! A validated, instrumented and compiled canister module.

use super::instrument::{START_EXPORT, instrument};
use super::sections::Sections;
use super::system_api::MessageState;
use super::validate::{active_segments, validate};
use super::{Engine, costs};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Why a module cannot be installed, in the network's words (without the "Wasm module of canister ... is not
/// valid: " in front).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidModule {
    pub message: String,
}

/// A custom section `icp:public NAME` or `icp:private NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomSection {
    pub is_public: bool,
    pub data: Vec<u8>,
}

/// A module ready to run; cheap to clone.
#[derive(Clone)]
pub struct Module {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub linked: wasmtime::InstancePre<MessageState>,
    exports: BTreeSet<String>,
    custom_sections: BTreeMap<String, CustomSection>,
    pub function_names: BTreeMap<u32, String>,
    pub imported_functions: u32,
    pub memory64: bool,
    pub initial_bytes: u64,
    pub max_bytes: u64,
    /// Active data segments: offset, bytes.
    pub segments: Vec<(u64, Vec<u8>)>,
    pub mutable_globals: usize,
    wasm_bytes: u64,
    compile_instructions: u64,
}

impl Module {
    /// Validates, instruments and compiles `wasm` (already gunzipped).
    pub fn compile(engine: &Engine, wasm: &[u8]) -> Result<Module, InvalidModule> {
        let sections = Sections::read(wasm)?;
        validate(wasm, &sections)?;
        let failed = |what: &str, error: wasmtime::Error| InvalidModule { message: format!("{what}: {error:#}") };
        let (module, compile_instructions) =
            engine.compile(wasm, || instrument(&sections), |error| failed("Failed to compile wasm module", error))?;
        let memory64 = sections.memory64();
        let linked =
            engine.linker(memory64).instantiate_pre(&module).map_err(|error| failed("Failed to link", error))?;

        let mut exports: BTreeSet<String> =
            sections.exported_functions().filter(|name| name.starts_with("canister_")).map(str::to_string).collect();
        if sections.start.is_some() {
            exports.insert(START_EXPORT.to_string());
        }
        let page = costs::WASM_PAGE_BYTES;
        let largest = if memory64 { costs::MAX_HEAP64_BYTES } else { costs::MAX_HEAP_BYTES };
        let memory = sections.memories.first();
        Ok(Module {
            inner: Arc::new(Inner {
                linked,
                exports,
                custom_sections: sections.icp_sections()?,
                function_names: sections.function_names(),
                imported_functions: sections.imported_functions(),
                memory64,
                initial_bytes: memory.map_or(0, |memory| memory.initial.saturating_mul(page)),
                max_bytes: memory.map_or(0, |memory| {
                    memory.maximum.map_or(largest, |maximum| maximum.saturating_mul(page).min(largest))
                }),
                segments: active_segments(&sections)?
                    .into_iter()
                    .map(|(offset, bytes)| (offset, bytes.to_vec()))
                    .collect(),
                mutable_globals: sections.globals.iter().filter(|global| global.mutable).count(),
                wasm_bytes: wasm.len() as u64,
                compile_instructions,
            }),
        })
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.inner
    }

    /// Whether the module exports a function of this name, such as `canister_update go` or `canister_init`;
    /// `canister_start` stands for a start function.
    pub fn has_export(&self, name: &str) -> bool {
        self.inner.exports.contains(name)
    }

    /// Names of the functions the network may call, such as `canister_query go`.
    pub fn exports(&self) -> impl Iterator<Item = &str> {
        self.inner.exports.iter().map(String::as_str)
    }

    /// The module's `icp:` sections by name (without the prefix).
    pub fn custom_sections(&self) -> &BTreeMap<String, CustomSection> {
        &self.inner.custom_sections
    }

    /// Size of the module before instrumentation.
    pub fn wasm_bytes(&self) -> u64 {
        self.inner.wasm_bytes
    }

    /// Instructions charged for compiling it at install.
    pub fn compile_instructions(&self) -> u64 {
        self.inner.compile_instructions
    }
}
