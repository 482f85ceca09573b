//! Tests of the whole canister on the fake system.

mod candid_file;
mod inference;
mod jobs;
mod upload;
mod versions;
