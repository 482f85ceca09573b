//! Numbers that are never given twice: of jobs and of generation sessions, which share one row.

use crate::stable::{Kind, directory};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Counters {
    pub next_job: u64,
}

/// A job's number.
pub fn next_job() -> u64 {
    let after_the_last = || {
        let last = |kind| directory::keys(kind, &[]).pop().and_then(|key| key.try_into().ok());
        let numbers = [Kind::Job, Kind::Session].map(|kind| last(kind).map_or(0, u64::from_be_bytes));
        let number = numbers[0].max(numbers[1]);
        Counters { next_job: number + 1 }
    };
    let Counters { next_job } = directory::get(Kind::Counters, &[]).unwrap_or_else(after_the_last);
    directory::set(Kind::Counters, &[], &Counters { next_job: next_job + 1 });
    next_job
}
