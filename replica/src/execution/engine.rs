//! The Wasm engine and its cache of compiled modules.

use std::path::Path;

/// The Wasm engine with an optional directory of compiled modules; cheap to clone.
#[derive(Clone)]
pub struct Engine;

impl Engine {
    /// An engine that keeps compiled modules in `cache_dir` (made if absent), or nowhere.
    pub fn new(_cache_dir: Option<&Path>) -> anyhow::Result<Engine> {
        todo!()
    }
}
