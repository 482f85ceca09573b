//! Tests of the whole canister on the fake system.

mod candid_file;
mod damage;
mod hostile;
mod inference;
mod jobs;
mod language;
mod layouts;
mod upload;
mod versions;
