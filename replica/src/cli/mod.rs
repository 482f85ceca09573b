//! The binary's commands: `replica start`, `replica meter`, and the command lines of the PocketIC server and of icp's
//! network launcher.

pub mod launcher;
pub mod meter;
pub mod pocketic;
mod serving;
mod shutdown;
pub mod start;

use crate::doors::network::{Network, NetworkConfig, wall_clock_ns};
use crate::subnet::SubnetConfig;
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

/// Starts a network that lives by the wall clock, as a developer's local one does: rounds go on by themselves, and the
/// ledgers are there.
fn live_network(seed: [u8; 32], cache_dir: Option<PathBuf>, state_dir: Option<PathBuf>) -> anyhow::Result<Network> {
    Network::start(NetworkConfig {
        subnet: SubnetConfig {
            seed,
            cache_dir,
            start_time_ns: wall_clock_ns(),
            benchmark: false,
            system_canisters: true,
            state_dir,
        },
        auto_progress: true,
    })
}
