//! The binary's commands: `replica start`, `replica meter`, and the PocketIC server's own command line.

pub mod meter;
pub mod pocketic;
mod shutdown;
pub mod start;

use std::path::PathBuf;

/// The seed of keys when none is given, so that the root key is the same in every run and can be pinned.
pub const DEFAULT_SEED: [u8; 32] = *b"onnx-canister embedded replica 1";

/// Where compiled modules are kept when no directory is given: the user's cache directory, if there is one.
pub fn default_cache_dir() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))?;
    Some(base.join("onnx-canister").join("replica"))
}
