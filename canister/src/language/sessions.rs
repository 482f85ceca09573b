//! Generation sessions in stable memory: what was read and generated, and how it goes on.

use super::caches;
use crate::access;
use crate::counters;
use crate::jobs::pending;
use crate::limits::{SESSIONS_MAX, SESSIONS_PER_CALLER_MAX};
use crate::runtime;
use crate::stable::{Kind, directory};
use crate::store::ModelKey;
use candid::Principal;
use onnx_canister_interface::{Error, FinishReason};
use onnx_text::{Message, SamplerState, Sampling};
use serde::{Deserialize, Serialize};

pub use onnx_canister_interface::SessionId;

/// A session as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionRecord {
    pub owner: Principal,
    pub key: ModelKey,
    /// Of all prompts and texts.
    pub tokens: Vec<u32>,
    /// The conversation, without the text of the last turn; empty for plain text.
    pub messages: Vec<Message>,
    pub turn: Turn,
    /// When it was used last, in nanoseconds since 1970.
    pub used_ns: u64,
}

/// The last prompt, and how its text is generated.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// Where in the tokens its text begins.
    pub text_start: usize,
    pub max_tokens: u32,
    pub sampling: Sampling,
    pub state: SamplerState,
    pub stop: Vec<String>,
    pub finish: Option<FinishReason>,
}

impl SessionRecord {
    pub fn new(owner: Principal, key: ModelKey) -> Self {
        let (tokens, messages) = (Vec::new(), Vec::new());
        Self { owner, key, tokens, messages, turn: Turn::default(), used_ns: runtime::time_ns() }
    }

    /// The tokens before the last text, and those of it.
    pub fn prompt_and_text(&self) -> (&[u32], &[u32]) {
        self.tokens.split_at(self.turn.text_start.min(self.tokens.len()))
    }
}

/// A session of the caller.
pub fn get(id: SessionId) -> Result<SessionRecord, Error> {
    let record = read(id).ok_or(Error::SessionNotFound { session: id })?;
    access::check_owner(&record.owner).map_err(|_| Error::SessionNotFound { session: id })?;
    Ok(record)
}

/// A session, whoever asks.
pub fn read(id: SessionId) -> Option<SessionRecord> {
    directory::get(Kind::Session, &id.to_be_bytes())
}

pub fn save(id: SessionId, record: &SessionRecord) {
    directory::set(Kind::Session, &id.to_be_bytes(), record);
}

/// Refuses while a job works on the session.
pub fn check_free(id: SessionId) -> Result<(), Error> {
    match pending::find(|job| job.session == Some(id)) {
        Some(job) => Err(Error::Busy { job }),
        None => Ok(()),
    }
}

/// A number for a new session of `owner`; those that were used longest ago go, beyond what is kept.
pub fn create(owner: &Principal) -> Result<SessionId, Error> {
    let ids = directory::keys(Kind::Session, &[]).into_iter().filter_map(|key| key.try_into().ok());
    let mut free: Vec<(u64, SessionId, Principal)> = Vec::new();
    let (mut owned, mut count) = (0, 0);
    for (id, record) in ids.map(u64::from_be_bytes).filter_map(|id| read(id).map(|record| (id, record))) {
        count += 1;
        owned += usize::from(record.owner == *owner);
        if check_free(id).is_ok() {
            free.push((record.used_ns, id, record.owner));
        }
    }
    free.sort_unstable();
    let busy = || Error::Busy { job: pending::find(|job| job.session.is_some()).unwrap_or_default() };
    if owned >= SESSIONS_PER_CALLER_MAX {
        let (_, id, _) = free.iter().find(|(_, _, other)| other == owner).ok_or_else(busy)?;
        remove(*id);
    } else if count >= SESSIONS_MAX {
        let (_, id, _) = free.first().ok_or_else(busy)?;
        remove(*id);
    }
    Ok(counters::next_job())
}

/// Forgets a session of the caller.
pub fn delete(id: SessionId) -> Result<(), Error> {
    get(id)?;
    check_free(id)?;
    remove(id);
    Ok(())
}

/// Forgets the sessions of a version that is deleted.
pub fn forget_model(key: &ModelKey) {
    let ids = directory::keys(Kind::Session, &[]).into_iter().filter_map(|key| key.try_into().ok());
    for id in ids.map(u64::from_be_bytes) {
        if read(id).is_some_and(|record| record.key == *key) {
            remove(id);
        }
    }
}

fn remove(id: SessionId) {
    directory::remove(Kind::Session, &id.to_be_bytes());
    caches::forget(id);
}
