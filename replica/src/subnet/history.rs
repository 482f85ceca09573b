//! Where ingress messages stand, kept until nobody may ask any more.

use super::prices::INGRESS_HISTORY_TTL_NS;
use super::types::{IngressState, IngressStatus, RequestId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Serialize, Deserialize)]
struct Entry {
    status: IngressStatus,
    expiry_ns: u64,
}

/// All known ingress messages.
#[derive(Default, Serialize, Deserialize)]
pub struct IngressHistory {
    entries: BTreeMap<RequestId, Entry>,
    /// Settled ones, by the time they are forgotten.
    prunable: BTreeSet<(u64, RequestId)>,
}

impl IngressHistory {
    pub fn get(&self, id: &RequestId) -> Option<&IngressStatus> {
        self.entries.get(id).map(|entry| &entry.status)
    }

    /// Every known message and where it stands.
    pub fn iter(&self) -> impl Iterator<Item = (&RequestId, &IngressStatus)> {
        self.entries.iter().map(|(id, entry)| (id, &entry.status))
    }

    pub fn insert(&mut self, id: RequestId, status: IngressStatus, expiry_ns: u64) {
        self.entries.insert(id, Entry { status, expiry_ns });
    }

    /// Moves a message on; once replied or rejected it can be forgotten. False when it is not known.
    pub fn set_state(&mut self, id: &RequestId, state: IngressState, time_ns: u64) -> bool {
        let Some(entry) = self.entries.get_mut(id) else { return false };
        if matches!(state, IngressState::Replied(_) | IngressState::Rejected(_)) {
            let forgotten_ns = entry.expiry_ns.max(time_ns).saturating_add(INGRESS_HISTORY_TTL_NS);
            self.prunable.insert((forgotten_ns, *id));
        }
        entry.status.state = state;
        true
    }

    /// Forgets what is old enough, and tells which.
    pub fn prune(&mut self, time_ns: u64) -> Vec<RequestId> {
        let mut pruned = Vec::new();
        while let Some((_, id)) = self.prunable.first().copied().filter(|(forgotten_ns, _)| *forgotten_ns <= time_ns) {
            self.prunable.pop_first();
            self.entries.remove(&id);
            pruned.push(id);
        }
        pruned
    }
}
