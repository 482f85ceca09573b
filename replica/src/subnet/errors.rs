//! The network's rejections, in its own words: clients match on them.

use super::types::{ErrorCode, Rejection};
use candid::Principal;

const METHOD_HELP: &str = "Check that the method being called is exported by the target canister. See documentation: https://docs.internetcomputer.org/references/execution-errors#method-not-found";
const EMPTY_HELP: &str = "Please install code to this canister before calling it. See documentation: https://docs.internetcomputer.org/references/execution-errors#wasm-module-not-found";

pub fn canister_not_found(id: &Principal) -> Rejection {
    Rejection::new(ErrorCode::CanisterNotFound, format!("Canister {id} not found"))
}

pub fn stopped(id: &Principal) -> Rejection {
    Rejection::new(ErrorCode::CanisterStopped, format!("Canister {id} is stopped"))
}

/// The wording of a query to a stopped canister.
pub fn stopped_query(id: &Principal) -> Rejection {
    let message = format!("Canister {id} is stopped and therefore does not have a CallContextManager");
    Rejection::new(ErrorCode::CanisterStopped, message)
}

pub fn stopping(id: &Principal) -> Rejection {
    Rejection::new(ErrorCode::CanisterStopping, format!("Canister {id} is stopping"))
}

/// `kind` is `update`, `query` or `composite_query`.
pub fn method_not_found(id: &Principal, kind: &str, method: &str) -> Rejection {
    let message = format!("Error from Canister {id}: Canister has no {kind} method '{method}'..\n{METHOD_HELP}");
    Rejection::new(ErrorCode::CanisterMethodNotFound, message)
}

pub fn composite_in_replicated_mode(id: &Principal, method: &str) -> Rejection {
    let message =
        format!("Error from Canister {id}: Composite query method '{method}' cannot be called in replicated mode");
    Rejection::new(ErrorCode::CompositeQueryCalledInReplicatedMode, message)
}

pub fn no_wasm_module(id: &Principal) -> Rejection {
    let message = format!(
        "Error from Canister {id}: Attempted to execute a message, but the canister contains no Wasm module.\n{EMPTY_HELP}"
    );
    Rejection::new(ErrorCode::CanisterWasmModuleNotFound, message)
}

/// `missing` is how many cycles more it would have taken; told to those who may know, the canister's controllers.
pub fn out_of_cycles(id: &Principal, missing: Option<u128>) -> Rejection {
    Rejection::new(ErrorCode::CanisterOutOfCycles, out_of_cycles_text(id, missing))
}

pub fn out_of_cycles_text(id: &Principal, missing: Option<u128>) -> String {
    match missing {
        Some(missing) => format!(
            "Canister {id} is out of cycles: please top up the canister with at least {} additional cycles",
            grouped(missing)
        ),
        None => format!("Canister {id} is out of cycles"),
    }
}

pub fn frozen_query(id: &Principal) -> Rejection {
    let message = format!(
        "Canister {id} is unable to process query calls because it's frozen. Please top up the canister with cycles \
         and try again."
    );
    Rejection::new(ErrorCode::CanisterOutOfCycles, message)
}

pub fn did_not_reply(id: &Principal) -> Rejection {
    let message = format!("Error from Canister {id}: Canister did not reply to the call");
    Rejection::new(ErrorCode::CanisterDidNotReply, message)
}

pub fn inspect_rejected(id: &Principal) -> Rejection {
    let message = format!("Error from Canister {id}: Canister rejected the message");
    Rejection::new(ErrorCode::CanisterRejectedMessage, message)
}

pub fn uninstalled() -> Rejection {
    Rejection::new(ErrorCode::CanisterRejectedMessage, "Canister has been uninstalled.")
}

pub fn trapped(id: &Principal, trap: crate::execution::Trap) -> Rejection {
    Rejection::new(trap.code, format!("Error from Canister {id}: {}", trap.message))
}

pub fn queue_full(callee: &Principal) -> Rejection {
    let message = format!("Queue to canister {callee} is full: too many calls are waiting for an answer");
    Rejection::new(ErrorCode::CanisterQueueFull, message)
}

pub fn deadline_expired() -> Rejection {
    Rejection::new(ErrorCode::DeadlineExpired, "Call deadline has expired.")
}

pub fn ingress_timeout(method: &str) -> Rejection {
    let message = format!("Ingress message to method {method} timed out waiting to start executing.");
    Rejection::new(ErrorCode::IngressMessageTimeout, message)
}

/// The wording of an ingress message to the management canister.
pub fn not_controller_ingress(id: &Principal, method: &str) -> Rejection {
    let message = format!("Only controllers of canister {id} can call ic00 method {method}");
    Rejection::new(ErrorCode::CanisterInvalidController, message)
}

/// The wording of a canister's call to the management canister.
pub fn not_controller(id: &Principal, controllers: impl Iterator<Item = Principal>, sender: &Principal) -> Rejection {
    let controllers = controllers.map(|controller| controller.to_text()).collect::<Vec<_>>().join(" ");
    let message = format!(
        "Only the controllers of the canister {id} can control it.\nCanister's controllers: {controllers}\nSender's \
         ID: {sender}"
    );
    Rejection::new(ErrorCode::CanisterInvalidController, message)
}

pub fn only_canisters(method: &str) -> Rejection {
    let message = format!("Only canisters can call ic00 method {method}");
    Rejection::new(ErrorCode::CanisterRejectedMessage, message)
}

pub fn no_management_method(method: &str) -> Rejection {
    Rejection::new(ErrorCode::CanisterMethodNotFound, format!("Management canister has no method '{method}'"))
}

pub fn invalid_module(id: &Principal, message: &str) -> Rejection {
    let message = format!("Error from Canister {id}: Canister's Wasm module is not valid: {message}");
    Rejection::new(ErrorCode::CanisterInvalidWasm, message)
}

pub fn invalid_payload(message: impl Into<String>) -> Rejection {
    Rejection::new(ErrorCode::InvalidManagementPayload, message)
}

pub fn contract_violation(message: impl Into<String>) -> Rejection {
    Rejection::new(ErrorCode::CanisterContractViolation, message)
}

/// Cycles as the network writes them: underscores between thousands.
fn grouped(cycles: u128) -> String {
    let digits = cycles.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push('_');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_are_grouped_by_thousands() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1_000");
        assert_eq!(grouped(40_005_000_000), "40_005_000_000");
    }
}
