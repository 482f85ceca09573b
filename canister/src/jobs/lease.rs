//! Who holds what. A lease is not stored: a job holds its model version and its staged inputs for exactly as long as
//! it is pending, so a lease can't outlive its job, however the job ends.

use super::{JobId, pending};
use crate::limits::GENERATIONS_MAX;
use crate::store::ModelKey;
use candid::Principal;
use onnx_canister_interface::Error;

/// The job that holds a model version: of those pending on it, the oldest.
pub fn holder(key: &ModelKey) -> Option<JobId> {
    pending::find(|job| job.key == *key)
}

/// Whether a job may take a step: generations on one version take turns, as many as may be under way; everything else has it
/// alone, in the order they came.
pub fn may_step(id: JobId) -> bool {
    let of_job = |job: &mut pending::Pending| (job.key.clone(), job.session.is_some(), job.work.is_some());
    let Some((key, is_generation, has_begun)) = pending::with(id, of_job) else {
        return false;
    };
    if is_generation && !has_begun && pending::generations_under_way() >= GENERATIONS_MAX {
        return false;
    }
    let in_the_way = |job: &pending::Pending| job.key == key && !(is_generation && job.session.is_some());
    pending::find(in_the_way).is_none_or(|first| first >= id)
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
