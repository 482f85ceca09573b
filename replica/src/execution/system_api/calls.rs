//! Calls to other canisters.

use super::state::{CallInPreparation, Kind, MessageState};
use super::{Word, fixed, sized};
use crate::execution::costs;
use crate::execution::failure::Failure;
use crate::execution::{Closure, OutgoingCall};
use candid::Principal;
use wasmtime::Linker;

const MAY_CALL: Kind = Kind::UPDATE
    .or(Kind::TASK)
    .or(Kind::REPLY)
    .or(Kind::REJECT)
    .or(Kind::COMPOSITE_QUERY)
    .or(Kind::COMPOSITE_REPLY)
    .or(Kind::COMPOSITE_REJECT);
const MAY_PAY: Kind = Kind::UPDATE.or(Kind::TASK).or(Kind::REPLY).or(Kind::REJECT);

/// What `ic0.call_perform` returns when the call was queued, and when cycles do not suffice (SysTransient).
const CALL_QUEUED: u32 = 0;
const CALL_SYS_TRANSIENT: u32 = 2;

impl MessageState {
    fn call_in_preparation(&mut self, method: &str, kinds: Kind) -> Result<&mut CallInPreparation, Failure> {
        self.only_in(method, kinds)?;
        self.call
            .as_mut()
            .ok_or_else(|| Failure::Toolchain(format!("ic0.{method} called when no call is under construction.")))
    }

    fn add_call_cycles(&mut self, method: &str, amount: u128) -> Result<(), Failure> {
        self.call_in_preparation(method, MAY_PAY)?;
        if amount > self.liquid_cycles() {
            return Err(Failure::OutOfCycles(format!("Canister {} is out of cycles", self.system.canister_id)));
        }
        self.balance -= amount;
        let call = self.call_in_preparation(method, MAY_PAY)?;
        call.cycles = call.cycles.saturating_add(amount);
        Ok(())
    }

    fn perform_call(&mut self) -> Result<u32, Failure> {
        self.call_in_preparation("call_perform", MAY_CALL)?;
        let Some(call) = self.call.take() else { return Ok(CALL_SYS_TRANSIENT) };
        // Calls of composite queries are not paid for.
        if !self.kind.is_in(Kind::COMPOSITE) {
            let bytes = (call.method.len() + call.argument.len()) as u128;
            let reserved = self.system.call_reservation.saturating_add(bytes * costs::CALL_BYTE_CYCLES);
            if reserved > self.liquid_cycles() {
                self.balance = self.balance.saturating_add(call.cycles);
                return Ok(CALL_SYS_TRANSIENT);
            }
            self.balance -= reserved;
        }
        self.effects.calls.push(OutgoingCall {
            callee: call.callee,
            method: call.method,
            argument: call.argument,
            cycles: call.cycles,
            on_reply: call.on_reply,
            on_reject: call.on_reject,
            on_cleanup: call.on_cleanup,
            timeout_s: call.timeout_s,
        });
        Ok(CALL_QUEUED)
    }
}

/// A callback; indices and environments of 64-bit canisters must fit into 32 bits.
fn closure<I: Word>(function: I, environment: I) -> Result<Closure, Failure> {
    let environment = u32::try_from(environment.to_u64()).map_err(|_| {
        Failure::Toolchain(format!("a callback's environment of {} does not fit into 32 bits", environment.to_u64()))
    })?;
    Ok(Closure { function: u32::try_from(function.to_u64()).unwrap_or(u32::MAX), environment })
}

pub(super) fn link<I: Word>(linker: &mut Linker<MessageState>) -> wasmtime::Result<()> {
    sized!(
        linker,
        "call_new",
        bytes callee_len.to_u64().saturating_add(name_len.to_u64()),
        |state, callee: I, callee_len: I, name: I, name_len: I, reply_function: I, reply_environment: I,
         reject_function: I, reject_environment: I| -> () {
            state.only_in("call_new", MAY_CALL)?;
            if let Some(abandoned) = state.call.take() {
                state.balance = state.balance.saturating_add(abandoned.cycles);
            }
            let name_len = name_len.to_u64();
            if name_len > costs::MAX_EXPORTED_NAMES_BYTES {
                return Err(Failure::Contract(
                    format!(
                        "ic0.call_new: the method name of {name_len} bytes exceeds the maximum of {} bytes",
                        costs::MAX_EXPORTED_NAMES_BYTES
                    ),
                    "",
                    "",
                ));
            }
            state.check_heap("ic0.call_new callee_src", callee.to_u64(), callee_len.to_u64())?;
            if callee_len.to_u64() > Principal::MAX_LENGTH_IN_BYTES as u64 {
                return Err(Failure::InvalidPrincipal);
            }
            let callee = state.read_heap("ic0.call_new callee_src", callee.to_u64(), callee_len.to_u64())?;
            let method = state.read_heap("ic0.call_new name_src", name.to_u64(), name_len)?;
            let method = String::from_utf8(method).map_err(|error| {
                Failure::Toolchain(format!("ic0.call_new: the method name is not valid UTF-8: {error}"))
            })?;
            state.call = Some(CallInPreparation {
                callee: Principal::try_from_slice(&callee).map_err(|_| Failure::InvalidPrincipal)?,
                method,
                argument: Vec::new(),
                cycles: 0,
                on_reply: closure(reply_function, reply_environment)?,
                on_reject: closure(reject_function, reject_environment)?,
                on_cleanup: None,
                timeout_s: None,
            });
            Ok(())
        }
    );
    sized!(linker, "call_data_append", bytes len.to_u64(), |state, source: I, len: I| -> () {
        let argument_len = state.call_in_preparation("call_data_append", MAY_CALL)?.argument.len() as u64;
        let total = argument_len.saturating_add(len.to_u64());
        if total > costs::MAX_CALL_PAYLOAD_BYTES {
            return Err(Failure::Contract(
                format!(
                    "ic0.call_data_append: request to the method has a payload of {total} bytes, which exceeds the \
                     allowed maximum of {} bytes.",
                    costs::MAX_CALL_PAYLOAD_BYTES
                ),
                "Try splitting the data into several calls.",
                "call-payload-too-large",
            ));
        }
        let bytes = state.read_heap("ic0.call_data_append", source.to_u64(), len.to_u64())?;
        state.call_in_preparation("call_data_append", MAY_CALL)?.argument.extend_from_slice(&bytes);
        Ok(())
    });
    fixed!(linker, "call_on_cleanup", |state, function: I, environment: I| -> () {
        let closure = closure(function, environment)?;
        let call = state.call_in_preparation("call_on_cleanup", MAY_CALL)?;
        if call.on_cleanup.is_some() {
            return Err(Failure::Toolchain(
                "ic0.call_on_cleanup can be called at most once between `ic0.call_new` and \
                 `ic0.call_perform`"
                    .to_string(),
            ));
        }
        call.on_cleanup = Some(closure);
        Ok(())
    });
    fixed!(linker, "call_cycles_add", |state, amount: u64| -> () {
        state.add_call_cycles("call_cycles_add", u128::from(amount))
    });
    fixed!(linker, "call_cycles_add128", |state, high: u64, low: u64| -> () {
        state.add_call_cycles("call_cycles_add128", u128::from(high) << 64 | u128::from(low))
    });
    fixed!(linker, "call_with_best_effort_response", |state, timeout_s: u32| -> () {
        let call = state.call_in_preparation("call_with_best_effort_response", MAY_CALL)?;
        if call.timeout_s.is_some() {
            return Err(Failure::Toolchain(
                "ic0_call_with_best_effort_response failed because a timeout is already set.".to_string(),
            ));
        }
        call.timeout_s = Some(timeout_s.min(costs::MAX_CALL_TIMEOUT_S));
        Ok(())
    });
    fixed!(linker, "call_perform", |state| -> u32 { state.perform_call() });
    Ok(())
}
