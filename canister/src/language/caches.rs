//! Decoders of sessions between calls: keys and values that need not be computed again.

use super::sessions::SessionId;
use crate::limits::{CACHES_BYTES_MAX, CACHES_MAX};
use crate::store::ModelKey;
use onnx_engine::Decoder;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

struct Cached {
    key: ModelKey,
    decoder: Decoder,
    /// When it was put here, as [`USES`] counts.
    used: u64,
}

thread_local! {
    static CACHES: RefCell<BTreeMap<SessionId, Cached>> = const { RefCell::new(BTreeMap::new()) };
    static USES: Cell<u64> = const { Cell::new(0) };
}

/// Takes the decoder of a session out.
pub fn take(id: SessionId) -> Option<Decoder> {
    CACHES.with_borrow_mut(|caches| caches.remove(&id)).map(|cached| cached.decoder)
}

/// Keeps the decoder of a session; those that were used longest ago go, beyond what there is room for.
pub fn put(id: SessionId, key: &ModelKey, decoder: Decoder) {
    USES.set(USES.get() + 1);
    CACHES.with_borrow_mut(|caches| {
        caches.insert(id, Cached { key: key.clone(), decoder, used: USES.get() });
        let bytes = |caches: &BTreeMap<SessionId, Cached>| -> u64 {
            caches.values().map(|cached| cached.decoder.cache_bytes()).fold(0, u64::saturating_add)
        };
        while caches.len() > CACHES_MAX || bytes(caches) > CACHES_BYTES_MAX {
            let Some(oldest) = caches.iter().min_by_key(|(_, cached)| cached.used).map(|(id, _)| *id) else { return };
            caches.remove(&oldest);
        }
    });
}

pub fn forget(id: SessionId) {
    CACHES.with_borrow_mut(|caches| caches.remove(&id));
}

pub fn forget_model(key: &ModelKey) {
    CACHES.with_borrow_mut(|caches| caches.retain(|_, cached| cached.key != *key));
}
