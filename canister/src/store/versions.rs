//! Which version of a name answers, and taking versions away. None of it touches a version that a job holds.

use super::ModelKey;
use super::manifest::{check_name, invalid};
use super::models::{self, NameRecord, Stage};
use crate::jobs::lease;
use crate::language::sessions;
use crate::loading;
use crate::store::commit;
use onnx_canister_interface::{Error, ModelInfo, ModelRef};

/// Makes a version the one that answers to its name, at once for every call that follows.
pub fn activate(model: &ModelRef) -> Result<ModelInfo, Error> {
    if model.version.is_none() {
        return Err(invalid("model.version", "null", "say which version to activate"));
    }
    let key = models::resolve_ready(model)?;
    let name = name_record(&key.name)?;
    if name.active != Some(key.version) {
        replace(&key.name, NameRecord { active: Some(key.version), previous: name.active, ..name })?;
    }
    models::info(&key)
}

/// Makes the version answer that was active before; tells which. Twice is as if it had never been.
pub fn rollback(name: &str) -> Result<u32, Error> {
    check_name("name", name)?;
    let record = name_record(name)?;
    let Some(previous) = record.previous else {
        return Err(invalid("name", name, "no other version was active before"));
    };
    models::resolve_ready(&ModelRef { name: name.to_string(), version: Some(previous) })?;
    replace(name, NameRecord { active: Some(previous), previous: record.active, ..record })?;
    Ok(previous)
}

/// Takes a version off the heap; its files stay.
pub fn unload(model: &ModelRef) -> Result<ModelInfo, Error> {
    let key = models::resolve(model)?;
    lease::check_free(&key)?;
    if matches!(models::record(&key)?.stage, Stage::Ready | Stage::Loading | Stage::Failed { .. }) {
        loading::forget(&key);
        models::update(&key, |record| record.stage = Stage::Committed)?;
    }
    models::info(&key)
}

/// Deletes a version and gives its stable memory back.
pub fn delete(model: &ModelRef) -> Result<(), Error> {
    if model.version.is_none() {
        return Err(invalid("model.version", "null", "say which version to delete"));
    }
    let key = models::resolve(model)?;
    lease::check_free(&key)?;
    loading::forget(&key);
    commit::forget(&key);
    models::remove(&key)?;
    sessions::forget_model(&key);
    let mut name = name_record(&key.name)?;
    if models::versions(&key.name).is_empty() {
        models::remove_name(&key.name);
        return Ok(());
    }
    if name.active == Some(key.version) {
        name.active = None;
    }
    if name.previous == Some(key.version) {
        name.previous = None;
    }
    models::set_name(&key.name, &name);
    Ok(())
}

fn name_record(name: &str) -> Result<NameRecord, Error> {
    models::name(name).ok_or_else(|| Error::ModelNotFound { name: name.to_string(), version: None })
}

/// Switches the active version, unless a job holds the one that is active now.
fn replace(name: &str, record: NameRecord) -> Result<(), Error> {
    if let Some(active) = name_record(name)?.active {
        lease::check_free(&ModelKey { name: name.to_string(), version: active })?;
    }
    models::set_name(name, &record);
    Ok(())
}
