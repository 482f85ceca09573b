//! Who holds what. A lease is not stored: a job holds its model version and its staged inputs for exactly as long as
//! it is pending, so a lease can't outlive its job, however the job ends.

use super::{JobId, pending};
use crate::store::ModelKey;
use candid::Principal;
use onnx_canister_interface::Error;

/// The job that holds a model version: of those pending on it, the oldest.
pub fn holder(key: &ModelKey) -> Option<JobId> {
    pending::find(|job| job.key == *key)
}

/// Refuses while a job holds the version.
pub fn check_free(key: &ModelKey) -> Result<(), Error> {
    match holder(key) {
        Some(job) => Err(Error::Busy { job }),
        None => Ok(()),
    }
}

/// Refuses while a job is to use a staged input.
pub fn check_input_free(owner: &Principal, key: &str) -> Result<(), Error> {
    match pending::find(|job| job.owner == *owner && job.staged.iter().any(|staged| staged == key)) {
        Some(job) => Err(Error::Busy { job }),
        None => Ok(()),
    }
}
