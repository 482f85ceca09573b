//! The jobs that are not finished, on the heap: their sessions, what they have cost, and who drives them.

use super::JobId;
use super::record::{self, JobRecord, StoredState};
use crate::inference::{Limits, Request, Run};
use crate::store::ModelKey;
use candid::Principal;
use onnx_canister_interface::{Cost, SessionId};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// A job that waits or runs.
pub struct Pending {
    pub owner: Principal,
    pub key: ModelKey,
    /// Keys of the owner's inputs that it uses.
    pub staged: Vec<String>,
    /// The session of a generation.
    pub session: Option<SessionId>,
    pub limits: Limits,
    pub state: StoredState,
    pub cost: Cost,
    /// The inference itself, while it is on the heap; made again from the request when it is not.
    pub work: Option<(Request, Run)>,
}

thread_local! {
    static PENDING: RefCell<BTreeMap<JobId, Pending>> = const { RefCell::new(BTreeMap::new()) };
}

pub fn insert(id: JobId, job: Pending) {
    PENDING.with_borrow_mut(|pending| pending.insert(id, job));
}

/// Takes a job out, to work on it or to end it.
pub fn take(id: JobId) -> Option<Pending> {
    PENDING.with_borrow_mut(|pending| pending.remove(&id))
}

pub fn contains(id: JobId) -> bool {
    PENDING.with_borrow(|pending| pending.contains_key(&id))
}

pub fn with<R>(id: JobId, f: impl FnOnce(&mut Pending) -> R) -> Option<R> {
    PENDING.with_borrow_mut(|pending| pending.get_mut(&id).map(f))
}

/// The oldest job of which `wanted` is true.
pub fn find(wanted: impl Fn(&Pending) -> bool) -> Option<JobId> {
    PENDING.with_borrow(|pending| pending.iter().find(|(_, job)| wanted(job)).map(|(id, _)| *id))
}

pub fn ids() -> Vec<JobId> {
    PENDING.with_borrow(|pending| pending.keys().copied().collect())
}

pub fn count() -> usize {
    PENDING.with_borrow(BTreeMap::len)
}

/// Generations that have begun.
pub fn generations_under_way() -> usize {
    PENDING.with_borrow(|pending| pending.values().filter(|job| job.session.is_some() && job.work.is_some()).count())
}

/// Takes up again every job that an upgrade found unfinished; each begins again from its request.
pub fn restore() {
    for (id, mut job) in record::unfinished() {
        job.state = StoredState::Interrupted;
        record::save(id, &job);
        let JobRecord { owner, key, staged, session, limits, state, cost, .. } = job;
        insert(id, Pending { owner, key, staged, session, limits, state, cost, work: None });
    }
}
