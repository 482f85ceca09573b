//! The binary's commands: `replica start`, `replica meter`, and the PocketIC server's own command line.

pub mod meter;
pub mod start;
