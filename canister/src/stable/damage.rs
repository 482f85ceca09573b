//! What has been found damaged in stable memory since the heap was new.

use crate::limits::DAMAGES_MAX;
use crate::runtime;
use onnx_canister_interface::Error;
use std::cell::RefCell;

thread_local! {
    static FOUND: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Records damage and what became of it, for `health` and the canister's log.
pub fn note(what: String) {
    runtime::log(&format!("stable memory: {what}"));
    FOUND.with_borrow_mut(|found| {
        if found.len() < DAMAGES_MAX && !found.contains(&what) {
            found.push(what);
        }
    });
}

/// Everything that was found.
pub fn found() -> Vec<String> {
    FOUND.with_borrow(Clone::clone)
}

/// Notes damage at `place` and gives the error that says so.
pub fn error(place: impl Into<String>, reason: impl Into<String>) -> Error {
    let (place, reason) = (place.into(), reason.into());
    note(format!("{place}: {reason}"));
    Error::StoredDataDamaged { place, reason }
}
