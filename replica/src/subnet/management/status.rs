//! What the management canister tells of a canister.

use super::super::Subnet;
use super::super::canister::{Canister, Status};
use super::super::errors;
use super::super::prices;
use super::super::types::{ErrorCode, Rejection};
use super::{Call, decode, encode};
use candid::{Nat, Principal};
use ic_management_canister_types as ic00;

impl Subnet {
    pub(super) fn canister_status(&self, argument: &[u8]) -> Result<Vec<u8>, Rejection> {
        let (args,) = decode::<(ic00::CanisterIdRecord,)>(argument)?;
        let id = args.canister_id;
        let canister = self.canisters.get(&id).ok_or_else(|| errors::canister_not_found(&id))?;
        Ok(encode((status_of(canister),)))
    }

    pub(super) fn canister_info(&self, call: &Call) -> Result<Vec<u8>, Rejection> {
        let (args,) = decode::<(ic00::CanisterInfoArgs,)>(call.argument)?;
        let id = args.canister_id;
        let canister = self.canisters.get(&id).ok_or_else(|| errors::canister_not_found(&id))?;
        let requested = usize::try_from(args.num_requested_changes.unwrap_or(0)).unwrap_or(usize::MAX);
        let skipped = canister.history.len().saturating_sub(requested);
        let info = ic00::CanisterInfoResult {
            total_num_changes: canister.history_total,
            recent_changes: canister.history.iter().skip(skipped).cloned().collect(),
            module_hash: canister.code.as_ref().map(|code| code.module_hash.to_vec()),
            controllers: canister.settings.controllers.iter().copied().collect(),
        };
        Ok(encode((info,)))
    }

    /// A public custom section for everyone, a private one for controllers.
    pub(super) fn canister_metadata(&self, call: &Call) -> Result<Vec<u8>, Rejection> {
        let (args,) = decode::<(ic00::CanisterMetadataArgs,)>(call.argument)?;
        let id = args.canister_id;
        let canister = self.canisters.get(&id).ok_or_else(|| errors::canister_not_found(&id))?;
        let code = canister.code.as_ref().ok_or_else(|| errors::no_wasm_module(&id))?;
        let is_controller = canister.settings.controllers.contains(&call.sender);
        match code.module.custom_sections().get(&args.name) {
            Some(section) if section.is_public || is_controller => {
                Ok(encode((ic00::CanisterMetadataResult { value: section.data.clone() },)))
            }
            _ => {
                let message = format!("The canister {id} has no metadata section with the name {}.", args.name);
                Err(Rejection::new(ErrorCode::CanisterRejectedMessage, message))
            }
        }
    }

    pub(super) fn fetch_canister_logs(&self, sender: &Principal, argument: &[u8]) -> Result<Vec<u8>, Rejection> {
        let (args,) = decode::<(ic00::FetchCanisterLogsArgs,)>(argument)?;
        let id = args.canister_id;
        let canister = self.canisters.get(&id).ok_or_else(|| errors::canister_not_found(&id))?;
        if !canister.settings.logs_visible_to(sender) {
            let message = format!("Caller {sender} is not allowed to access canister logs");
            return Err(Rejection::new(ErrorCode::CanisterRejectedMessage, message));
        }
        let passes = |record: &ic00::CanisterLogRecord| match args.filter {
            None => true,
            Some(ic00::CanisterLogFilter::ByIdx { start, end }) => (start..end).contains(&record.idx),
            Some(ic00::CanisterLogFilter::ByTimestampNanos { start, end }) => {
                (start..end).contains(&record.timestamp_nanos)
            }
        };
        let records = canister.log.records().filter(|record| passes(record)).cloned().collect();
        Ok(encode((ic00::FetchCanisterLogsResult { canister_log_records: records },)))
    }
}

fn status_of(canister: &Canister) -> ic00::CanisterStatusResult {
    let memory = canister.memory();
    let settings = &canister.settings;
    let idle = prices::idle_per_day(canister.charged_bytes(), settings.compute_allocation_percent);
    let zero = || Nat::from(0_u8);
    ic00::CanisterStatusResult {
        status: match canister.status {
            Status::Running => ic00::CanisterStatusType::Running,
            Status::Stopping(_) => ic00::CanisterStatusType::Stopping,
            Status::Stopped => ic00::CanisterStatusType::Stopped,
        },
        ready_for_migration: matches!(canister.status, Status::Stopped) && !canister.has_work(),
        version: canister.version,
        settings: settings.to_definite(),
        module_hash: canister.code.as_ref().map(|code| code.module_hash.to_vec()),
        memory_size: Nat::from(memory.total()),
        memory_metrics: ic00::MemoryMetrics {
            wasm_memory_size: Nat::from(memory.heap),
            stable_memory_size: Nat::from(memory.stable),
            global_memory_size: zero(),
            wasm_binary_size: Nat::from(memory.wasm),
            custom_sections_size: Nat::from(memory.custom_sections),
            canister_history_size: Nat::from(memory.history),
            wasm_chunk_store_size: Nat::from(memory.chunk_store),
            snapshots_size: Nat::from(memory.snapshots),
            log_memory_store_size: Nat::from(canister.log.used_bytes()),
        },
        cycles: Nat::from(canister.cycles),
        reserved_cycles: zero(),
        idle_cycles_burned_per_day: Nat::from(idle),
        query_stats: ic00::QueryStats {
            num_calls_total: zero(),
            num_instructions_total: zero(),
            request_payload_bytes_total: zero(),
            response_payload_bytes_total: zero(),
        },
    }
}
