//! A validated, instrumented and compiled canister module.

use super::Engine;
use std::collections::BTreeMap;

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
pub struct Module;

impl Module {
    /// Validates, instruments and compiles `wasm` (already gunzipped).
    pub fn compile(_engine: &Engine, _wasm: &[u8]) -> Result<Module, InvalidModule> {
        todo!()
    }

    /// Whether the module exports a function of this name, such as `canister_update go` or `canister_init`.
    pub fn has_export(&self, _name: &str) -> bool {
        todo!()
    }

    /// The module's `icp:` sections by name (without the prefix).
    pub fn custom_sections(&self) -> &BTreeMap<String, CustomSection> {
        todo!()
    }

    /// Size of the module before instrumentation.
    pub fn wasm_bytes(&self) -> u64 {
        todo!()
    }

    /// Instructions charged for compiling it at install.
    pub fn compile_instructions(&self) -> u64 {
        todo!()
    }
}
