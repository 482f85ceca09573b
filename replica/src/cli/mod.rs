//! The binary's commands: `replica start`, `replica meter`, and the command lines of the PocketIC server and of icp's
//! network launcher.

pub mod launcher;
pub mod meter;
pub mod pocketic;
mod serving;
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
