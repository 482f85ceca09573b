//! `update_settings`, and the checks of settings wherever they come from.

use super::super::Subnet;
use super::super::canister::Canister;
use super::super::errors;
use super::super::prices;
use super::super::settings::Settings;
use super::super::types::{ErrorCode, Rejection};
use super::{Call, decode, unit_reply};
use candid::Nat;
use ic_management_canister_types as ic00;
use std::collections::{BTreeMap, BTreeSet};

/// Controllers that a canister may have.
const MAX_CONTROLLERS: usize = 10;
/// Environment variables that a canister may have, and the bytes of their names and values.
const MAX_ENVIRONMENT_VARIABLES: usize = 20;
const MAX_ENVIRONMENT_VARIABLE_NAME_BYTES: usize = 128;
const MAX_ENVIRONMENT_VARIABLE_VALUE_BYTES: usize = 128;
/// Largest `memory_allocation`, `wasm_memory_limit` and `wasm_memory_threshold` in bytes.
const MAX_MEMORY_SETTING_BYTES: u64 = 1 << 48;
/// Largest log in bytes.
const MAX_LOG_BYTES: u64 = 2 << 20;
/// Viewers in a visibility setting.
const MAX_VIEWERS: usize = 10;

impl Subnet {
    pub(super) fn update_settings(&mut self, call: &Call) -> Result<Vec<u8>, Rejection> {
        let (args,) = decode::<(ic00::UpdateSettingsArgs,)>(call.argument)?;
        let id = args.canister_id;
        let time_ns = self.info.time_ns;
        let canister = self.canisters.get_mut(&id).ok_or_else(|| errors::canister_not_found(&id))?;
        let changes_controllers = args.settings.controllers.is_some();
        canister.settings = changed_settings(canister, args.settings)?;
        canister.log.shrink_to(canister.settings.log_memory_limit_bytes);
        canister.version += 1;
        canister.check_low_memory();
        if changes_controllers {
            let controllers = canister.settings.controllers.iter().copied().collect();
            let details = ic00::ChangeDetails::ControllersChange(ic00::ControllersChangeRecord { controllers });
            canister.record_change(time_ns, call.origin, args.sender_canister_version, details);
        }
        self.certified.set_canister(canister);
        Ok(unit_reply())
    }
}

/// The canister's settings with `new` in them, if these are valid and it can pay for them.
pub fn changed_settings(canister: &Canister, new: ic00::CanisterSettings) -> Result<Settings, Rejection> {
    let old = &canister.settings;
    let mut settings = old.clone();
    if let Some(controllers) = new.controllers {
        let controllers: BTreeSet<_> = controllers.into_iter().collect();
        at_most("controllers", controllers.len(), MAX_CONTROLLERS)?;
        settings.controllers = controllers;
    }
    if let Some(percent) = new.compute_allocation {
        let percent = to_u128("compute_allocation", percent)?;
        if percent > 100 {
            let message = format!("ComputeAllocation expected to be in the range [0..100], got {percent}");
            return Err(errors::contract_violation(message));
        }
        settings.compute_allocation_percent = percent as u64;
    }
    let set_u64 = |target: &mut u64, name: &str, value: Option<Nat>, max: u64| -> Result<(), Rejection> {
        if let Some(value) = value {
            *target = to_u64(name, value, max)?;
        }
        Ok(())
    };
    let most = MAX_MEMORY_SETTING_BYTES;
    set_u64(&mut settings.memory_allocation_bytes, "memory_allocation", new.memory_allocation, most)?;
    set_u64(&mut settings.freezing_threshold_s, "freezing_threshold", new.freezing_threshold, u64::MAX)?;
    set_u64(&mut settings.wasm_memory_limit_bytes, "wasm_memory_limit", new.wasm_memory_limit, most)?;
    set_u64(&mut settings.wasm_memory_threshold_bytes, "wasm_memory_threshold", new.wasm_memory_threshold, most)?;
    set_u64(&mut settings.log_memory_limit_bytes, "log_memory_limit", new.log_memory_limit, MAX_LOG_BYTES)?;
    if let Some(limit) = new.reserved_cycles_limit {
        settings.reserved_cycles_limit = to_u128("reserved_cycles_limit", limit)?;
    }
    if let Some(cycles) = new.minimum_incoming_canister_call_cycles {
        settings.minimum_incoming_call_cycles = to_u128("minimum_incoming_canister_call_cycles", cycles)?;
    }
    if let Some(visibility) = new.log_visibility {
        if let ic00::LogVisibility::AllowedViewers(viewers) = &visibility {
            at_most("allowed_viewers", viewers.len(), MAX_VIEWERS)?;
        }
        settings.log_visibility = visibility;
    }
    if let Some(visibility) = new.snapshot_visibility {
        if let ic00::SnapshotVisibility::AllowedViewers(viewers) = &visibility {
            at_most("allowed_viewers", viewers.len(), MAX_VIEWERS)?;
        }
        settings.snapshot_visibility = visibility;
    }
    if let Some(visibility) = new.status_visibility {
        if let ic00::StatusVisibility::AllowedViewers(viewers) = &visibility {
            at_most("allowed_viewers", viewers.len(), MAX_VIEWERS)?;
        }
        settings.status_visibility = visibility;
    }
    if let Some(variables) = new.environment_variables {
        settings.environment_variables = environment_variables(variables)?;
    }
    check_allocations(canister, &settings)?;
    Ok(settings)
}

fn environment_variables(variables: Vec<ic00::EnvironmentVariable>) -> Result<BTreeMap<String, String>, Rejection> {
    if variables.len() > MAX_ENVIRONMENT_VARIABLES {
        let message = format!("Too many environment variables: {} (max: {MAX_ENVIRONMENT_VARIABLES})", variables.len());
        return Err(errors::invalid_payload(message));
    }
    let mut by_name = BTreeMap::new();
    for ic00::EnvironmentVariable { name, value } in variables {
        if name.len() > MAX_ENVIRONMENT_VARIABLE_NAME_BYTES {
            return Err(errors::invalid_payload(format!(
                "Environment variable name \"{name}\" exceeds the maximum allowed length of \
                 {MAX_ENVIRONMENT_VARIABLE_NAME_BYTES}."
            )));
        }
        if value.len() > MAX_ENVIRONMENT_VARIABLE_VALUE_BYTES {
            return Err(errors::invalid_payload(format!(
                "Environment variable value \"{value}\" exceeds the maximum allowed length of \
                 {MAX_ENVIRONMENT_VARIABLE_VALUE_BYTES}."
            )));
        }
        if by_name.insert(name.clone(), value).is_some() {
            return Err(errors::invalid_payload(format!("Duplicate environment variables: \"{name}\"")));
        }
    }
    Ok(by_name)
}

/// A canister's memory fits into its allocation, and a raised allocation does not freeze it.
fn check_allocations(canister: &Canister, settings: &Settings) -> Result<(), Rejection> {
    let used_bytes = canister.memory().total();
    let allocation_bytes = settings.memory_allocation_bytes;
    if allocation_bytes != 0 && allocation_bytes < used_bytes {
        let message = format!(
            "Canister was given {allocation_bytes} B memory allocation but at least {used_bytes} B of memory is needed."
        );
        return Err(Rejection::new(ErrorCode::InsufficientMemoryAllocation, message));
    }
    let limit = prices::idle(
        used_bytes.max(allocation_bytes),
        settings.compute_allocation_percent,
        settings.freezing_threshold_s,
    );
    let missing = limit.saturating_sub(canister.cycles);
    let old = &canister.settings;
    if missing > 0 && settings.compute_allocation_percent > old.compute_allocation_percent {
        let message = format!(
            "Cannot increase compute allocation to {}% due to insufficient cycles. At least {missing} additional \
             cycles are required.",
            settings.compute_allocation_percent
        );
        return Err(Rejection::new(ErrorCode::InsufficientCyclesInComputeAllocation, message));
    }
    if missing > 0 && allocation_bytes > old.memory_allocation_bytes {
        let message = format!(
            "Cannot increase memory allocation to {allocation_bytes} B due to insufficient cycles. At least {missing} \
             additional cycles are required."
        );
        return Err(Rejection::new(ErrorCode::InsufficientCyclesInMemoryAllocation, message));
    }
    Ok(())
}

fn at_most(name: &str, count: usize, max: usize) -> Result<(), Rejection> {
    if count > max {
        let message = format!("The number of elements of {name} exceeds maximum allowed {max}: {count}");
        return Err(errors::invalid_payload(message));
    }
    Ok(())
}

fn to_u64(name: &str, value: Nat, max: u64) -> Result<u64, Rejection> {
    match u64::try_from(value.0) {
        Ok(value) if value <= max => Ok(value),
        Ok(value) => {
            let message = format!("Could not validate the settings: {name} expected to be at most {max}, got {value}");
            Err(errors::contract_violation(message))
        }
        Err(error) => {
            let value = Nat(error.into_original());
            let message = format!("Could not validate the settings: {name} expected to be at most {max}, got {value}");
            Err(errors::contract_violation(message))
        }
    }
}

/// An amount of cycles, or the error that names the field.
pub fn to_u128(name: &str, value: Nat) -> Result<u128, Rejection> {
    u128::try_from(value.0)
        .map_err(|error| errors::invalid_payload(format!("{name} {} is too large", Nat(error.into_original()))))
}
