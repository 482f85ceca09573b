//! What stable memory has to know of the records in it: what they are called, and which pages they own.

use super::ModelKey;
use super::models::ModelRecord;
use crate::inputs::InputRecord;
use crate::jobs::record::JobRecord;
use crate::record::{self, RecordError};
use crate::stable::{Blob, Extent, Kind};

/// What a record is called in errors.
pub fn record_name(kind: u8, key: &[u8]) -> String {
    let model = || match ModelKey::from_bytes(key) {
        Some(key) => format!("model '{}' version {}", key.name, key.version),
        None => format!("a model with the key {key:02x?}"),
    };
    match kind {
        kind if kind == Kind::Settings as u8 => "the settings".into(),
        kind if kind == Kind::Counters as u8 => "the counters".into(),
        kind if kind == Kind::Name as u8 => format!("the name '{}'", String::from_utf8_lossy(key)),
        kind if kind == Kind::Model as u8 => model(),
        kind if kind == Kind::Bitmap as u8 => format!("the chunks stored of {}", model()),
        kind if kind == Kind::Job as u8 => match key.try_into() {
            Ok(number) => format!("job {}", u64::from_be_bytes(number)),
            Err(_) => format!("a job with the key {key:02x?}"),
        },
        kind if kind == Kind::Input as u8 => "a staged input".into(),
        kind if kind == Kind::Session as u8 => match key.try_into() {
            Ok(number) => format!("generation session {}", u64::from_be_bytes(number)),
            Err(_) => format!("a session with the key {key:02x?}"),
        },
        kind => format!("a record of the unknown kind {kind}"),
    }
}

/// Whether records of a kind own pages.
pub fn owns_pages(kind: u8) -> bool {
    [Kind::Model, Kind::Job, Kind::Input].iter().any(|owner| *owner as u8 == kind)
}

/// The pages that a record owns.
pub fn extents(kind: u8, bytes: &[u8]) -> Result<Vec<Extent>, RecordError> {
    let all = |blobs: Vec<&Blob>| blobs.into_iter().flat_map(|blob| blob.extents()).copied().collect();
    match kind {
        kind if kind == Kind::Model as u8 => Ok(all(record::decode::<ModelRecord>(bytes)?.blobs().collect())),
        kind if kind == Kind::Job as u8 => Ok(all(record::decode::<JobRecord>(bytes)?.blobs().collect())),
        kind if kind == Kind::Input as u8 => Ok(all(vec![&record::decode::<InputRecord>(bytes)?.blob])),
        _ => Ok(Vec::new()),
    }
}
