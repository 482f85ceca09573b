//! The canister and its subnet: identity, time, timer, certified data, environment variables, log, counters.

use super::state::{Kind, MessageState};
use super::{Word, fixed, sized};
use crate::execution::costs;
use crate::execution::failure::{Failure, wrong_mode};
use candid::Principal;
use wasmtime::Linker;

const AFTER_START: Kind = Kind::ALL.except(Kind::START);
const MAY_SET_TIMER: Kind = AFTER_START.except(Kind::NON_REPLICATED).except(Kind::REPLICATED_QUERY);
const MAY_CERTIFY: Kind =
    Kind::INIT.or(Kind::PRE_UPGRADE).or(Kind::UPDATE).or(Kind::TASK).or(Kind::REPLY).or(Kind::REJECT);
const WITH_ROOT_KEY: Kind = AFTER_START.except(Kind::NON_REPLICATED);
const WITH_CERTIFICATE: Kind = Kind::QUERY.or(Kind::COMPOSITE_QUERY);

impl MessageState {
    fn certificate(&self, method: &str) -> Result<&[u8], Failure> {
        self.only_in(method, WITH_CERTIFICATE)?;
        self.system.data_certificate.as_deref().ok_or_else(|| wrong_mode(method, self.mode()))
    }

    fn variable_name(&self, method: &str, index: u64) -> Result<&[u8], Failure> {
        self.only_in(method, AFTER_START)?;
        let variables = &self.system.environment_variables;
        let name = usize::try_from(index).ok().and_then(|index| variables.keys().nth(index));
        name.map(|name| name.as_bytes()).ok_or_else(|| {
            Failure::Contract(
                format!(
                    "Environment variable index {index} is out of bounds. The number of environment variables is {}.",
                    variables.len()
                ),
                "",
                "",
            )
        })
    }

    /// The name that a canister passes to ask about a variable.
    fn requested_name(&self, method: &str, source: u64, len: u64) -> Result<String, Failure> {
        self.only_in(method, AFTER_START)?;
        if len > costs::MAX_ENVIRONMENT_NAME_BYTES {
            return Err(Failure::Contract(format!("ic0.{method}: Variable name is too large."), "", ""));
        }
        let name = self.read_heap(&format!("ic0.{method} heap"), source, len)?;
        String::from_utf8(name).map_err(|_| {
            Failure::Contract(
                format!("ic0.{method}: Variable name is not a valid UTF-8 string."),
                "Provide a valid UTF-8 string for the environment variable name.",
                "",
            )
        })
    }

    fn variable(&self, method: &str, source: u64, len: u64) -> Result<&[u8], Failure> {
        let name = self.requested_name(method, source, len)?;
        let value = self.system.environment_variables.get(&name);
        value
            .map(|value| value.as_bytes())
            .ok_or_else(|| Failure::Contract(format!("Environment variable {name} not found."), "", ""))
    }

    /// The text that `debug_print` and `trap` point to; neither fails for a wrong range.
    fn printed(&self, source: u64, len: u64, otherwise: &str) -> Vec<u8> {
        self.read_heap("", source, len).unwrap_or_else(|_| otherwise.as_bytes().to_vec())
    }

    fn charge_with_log(&mut self, fixed: u64, per_byte: u64, len: u64) -> Result<(), Failure> {
        let logging = costs::logging_instructions(len, self.log_remaining);
        self.charge(fixed.saturating_add(len.saturating_mul(per_byte)).saturating_add(logging))
    }
}

pub(super) fn link<I: Word>(linker: &mut Linker<MessageState>) -> wasmtime::Result<()> {
    link_identity::<I>(linker)?;
    link_certified_data::<I>(linker)?;
    link_variables::<I>(linker)?;

    fixed!(linker, "canister_status", |state| -> u32 {
        state.only_in("canister_status", AFTER_START)?;
        Ok(state.system.status)
    });
    fixed!(linker, "canister_version", |state| -> u64 {
        state.only_in("canister_version", AFTER_START)?;
        Ok(state.system.canister_version)
    });
    fixed!(linker, "in_replicated_execution", |state| -> u32 {
        Ok(u32::from(!state.kind.is_in(Kind::NON_REPLICATED)))
    });
    fixed!(linker, "time", |state| -> u64 {
        state.only_in("time", AFTER_START)?;
        Ok(state.system.time_ns)
    });
    fixed!(linker, "global_timer_set", |state, time_ns: u64| -> u64 {
        state.only_in("global_timer_set", MAY_SET_TIMER)?;
        let previous = state.effects.global_timer_ns.unwrap_or(state.system.global_timer_ns);
        state.effects.global_timer_ns = Some(time_ns);
        Ok(previous)
    });
    fixed!(linker, "performance_counter", |state, counter: u32| -> u64 {
        match counter {
            0 => Ok(state.executed()),
            1 => Ok(state.message.call_context_instructions.saturating_add(state.executed())),
            _ => Err(Failure::Contract(format!("Error getting performance counter type {counter}"), "", "")),
        }
    });

    let debug_print = super::cost("debug_print")?;
    linker.func_wrap("ic0", "debug_print", move |mut caller: super::Host<'_>, source: I, len: I| {
        super::run(&mut caller, |state| {
            let len = len.to_u64();
            state.charge_with_log(debug_print.fixed, debug_print.per_byte, len)?;
            let len = len.min(costs::MAX_DEBUG_MESSAGE_BYTES);
            let line = state.printed(source.to_u64(), len, "(debug_print message out of memory bounds)");
            state.add_log(line);
            Ok(())
        })
    })?;
    let trap = super::cost("trap")?;
    linker.func_wrap("ic0", "trap", move |mut caller: super::Host<'_>, source: I, len: I| {
        super::run(&mut caller, |state| -> Result<(), Failure> {
            let len = len.to_u64();
            state.charge_with_log(trap.fixed, trap.per_byte, len)?;
            let len = len.min(costs::MAX_TRAP_MESSAGE_BYTES);
            let text = state.printed(source.to_u64(), len, "(trap message out of memory bounds)");
            Err(Failure::CalledTrap(String::from_utf8_lossy(&text).into_owned()))
        })
    })?;
    Ok(())
}

fn link_identity<I: Word>(linker: &mut Linker<MessageState>) -> wasmtime::Result<()> {
    fixed!(linker, "canister_self_size", |state| -> I {
        state.only_in("canister_self_size", AFTER_START)?;
        Ok(I::from_usize(state.system.canister_id.as_slice().len()))
    });
    sized!(linker, "canister_self_copy", bytes len.to_u64(), |state, target: I, offset: I, len: I| -> () {
        state.only_in("canister_self_copy", AFTER_START)?;
        let range = (target.to_u64(), offset.to_u64(), len.to_u64());
        state.copy_out("canister_self_copy", "id", state.system.canister_id.as_slice(), range)
    });
    fixed!(linker, "subnet_self_size", |state| -> I {
        state.only_in("subnet_self_size", AFTER_START)?;
        Ok(I::from_usize(state.system.subnet_id.as_slice().len()))
    });
    sized!(linker, "subnet_self_copy", bytes len.to_u64(), |state, target: I, offset: I, len: I| -> () {
        state.only_in("subnet_self_copy", AFTER_START)?;
        let range = (target.to_u64(), offset.to_u64(), len.to_u64());
        state.copy_out("subnet_self_copy", "id", state.system.subnet_id.as_slice(), range)
    });
    fixed!(linker, "root_key_size", |state| -> I {
        state.only_in("root_key_size", WITH_ROOT_KEY)?;
        Ok(I::from_usize(state.system.root_key.len()))
    });
    sized!(linker, "root_key_copy", bytes len.to_u64(), |state, target: I, offset: I, len: I| -> () {
        state.only_in("root_key_copy", WITH_ROOT_KEY)?;
        let range = (target.to_u64(), offset.to_u64(), len.to_u64());
        state.copy_out("root_key_copy", "bytes", &state.system.root_key, range)
    });
    sized!(linker, "is_controller", bytes len.to_u64(), |state, source: I, len: I| -> u32 {
        let bytes = state.check_heap("ic0.is_controller", source.to_u64(), len.to_u64()).and_then(|()| {
            if len.to_u64() > Principal::MAX_LENGTH_IN_BYTES as u64 {
                return Err(Failure::InvalidPrincipal);
            }
            state.read_heap("ic0.is_controller", source.to_u64(), len.to_u64())
        })?;
        let principal = Principal::try_from_slice(&bytes).map_err(|_| Failure::InvalidPrincipal)?;
        Ok(u32::from(state.system.controllers.contains(&principal)))
    });
    Ok(())
}

fn link_certified_data<I: Word>(linker: &mut Linker<MessageState>) -> wasmtime::Result<()> {
    sized!(linker, "certified_data_set", bytes len.to_u64(), |state, source: I, len: I| -> () {
        state.only_in("certified_data_set", MAY_CERTIFY)?;
        let len = len.to_u64();
        if len > costs::MAX_CERTIFIED_DATA_BYTES {
            return Err(Failure::Contract(
                format!(
                    "ic0_certified_data_set failed because the passed data must be no larger than {} bytes. Found \
                     {len} bytes.",
                    costs::MAX_CERTIFIED_DATA_BYTES
                ),
                "Try certifying just the hash of your data instead of the full contents.",
                "certified_data_set-payload-too-large",
            ));
        }
        state.effects.certified_data = Some(state.read_heap("ic0.certified_data_set", source.to_u64(), len)?);
        Ok(())
    });
    fixed!(linker, "data_certificate_present", |state| -> u32 {
        state.only_in("data_certificate_present", AFTER_START)?;
        let present = state.kind.is_in(WITH_CERTIFICATE) && state.system.data_certificate.is_some();
        Ok(u32::from(present))
    });
    fixed!(linker, "data_certificate_size", |state| -> I {
        Ok(I::from_usize(state.certificate("data_certificate_size")?.len()))
    });
    sized!(linker, "data_certificate_copy", bytes len.to_u64(), |state, target: I, offset: I, len: I| -> () {
        let range = (target.to_u64(), offset.to_u64(), len.to_u64());
        state.copy_out("data_certificate_copy", "certificate", state.certificate("data_certificate_copy")?, range)
    });
    Ok(())
}

fn link_variables<I: Word>(linker: &mut Linker<MessageState>) -> wasmtime::Result<()> {
    fixed!(linker, "env_var_count", |state| -> I {
        state.only_in("env_var_count", AFTER_START)?;
        Ok(I::from_usize(state.system.environment_variables.len()))
    });
    fixed!(linker, "env_var_name_size", |state, index: I| -> I {
        Ok(I::from_usize(state.variable_name("env_var_name_size", index.to_u64())?.len()))
    });
    sized!(linker, "env_var_name_copy", bytes len.to_u64(), |state, index: I, target: I, offset: I, len: I| -> () {
        let range = (target.to_u64(), offset.to_u64(), len.to_u64());
        state.copy_out("env_var_name_copy", "name", state.variable_name("env_var_name_copy", index.to_u64())?, range)
    });
    fixed!(linker, "env_var_name_exists", |state, name: I, name_len: I| -> u32 {
        let name = state.requested_name("env_var_name_exists", name.to_u64(), name_len.to_u64())?;
        Ok(u32::from(state.system.environment_variables.contains_key(&name)))
    });
    fixed!(linker, "env_var_value_size", |state, name: I, name_len: I| -> I {
        Ok(I::from_usize(state.variable("env_var_value_size", name.to_u64(), name_len.to_u64())?.len()))
    });
    sized!(
        linker,
        "env_var_value_copy",
        bytes len.to_u64(),
        |state, name: I, name_len: I, target: I, offset: I, len: I| -> () {
            let range = (target.to_u64(), offset.to_u64(), len.to_u64());
            let value = state.variable("env_var_value_copy", name.to_u64(), name_len.to_u64())?;
            state.copy_out("env_var_value_copy", "value", value, range)
        }
    );
    Ok(())
}
