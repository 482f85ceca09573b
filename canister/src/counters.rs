//! Numbers that are never given twice: of jobs.

use crate::stable::{Kind, directory};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Counters {
    pub next_job: u64,
}

/// A job's number.
pub fn next_job() -> u64 {
    let after_the_last = || {
        let last = directory::keys(Kind::Job, &[]).pop();
        let number = last.and_then(|key| key.try_into().ok()).map_or(0, u64::from_be_bytes);
        Counters { next_job: number + 1 }
    };
    let Counters { next_job } = directory::get(Kind::Counters, &[]).unwrap_or_else(after_the_last);
    directory::set(Kind::Counters, &[], &Counters { next_job: next_job + 1 });
    next_job
}
