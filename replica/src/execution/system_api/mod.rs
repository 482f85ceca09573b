//! The functions a canister imports from `ic0`.
//!
//! Every function charges first, then checks that it may be called in this kind of message, then acts. Errors roll
//! the message back. Texts follow the network's.

mod calls;
mod cycles;
mod environment;
mod messages;
mod stable;
mod state;

pub(super) use state::{Kind, MessageState};

use super::costs;
use super::failure::Failure;
use super::instrument::{HOST_MODULE, OUT_OF_INSTRUCTIONS};
use wasmtime::{Caller, Linker, WasmTy};

/// The canister's address type: i32, or i64 with a 64-bit memory.
trait Word: WasmTy + Copy + 'static {
    fn to_u64(self) -> u64;
    fn from_usize(value: usize) -> Self;
}

impl Word for u32 {
    fn to_u64(self) -> u64 {
        u64::from(self)
    }

    fn from_usize(value: usize) -> Self {
        // Everything a 32-bit canister can ask the size of is far below 4 GiB.
        value as u32
    }
}

impl Word for u64 {
    fn to_u64(self) -> u64 {
        self
    }

    fn from_usize(value: usize) -> Self {
        value as u64
    }
}

type Host<'a> = Caller<'a, MessageState>;

/// The system API for canisters with 32-bit or 64-bit memories.
pub(super) fn linker(engine: &wasmtime::Engine, memory64: bool) -> wasmtime::Result<Linker<MessageState>> {
    let mut linker = Linker::new(engine);
    linker.func_wrap(HOST_MODULE, OUT_OF_INSTRUCTIONS, |mut caller: Host<'_>| {
        run(&mut caller, MessageState::out_of_instructions)
    })?;
    if memory64 {
        link::<u64>(&mut linker)?
    } else {
        link::<u32>(&mut linker)?
    }
    Ok(linker)
}

fn link<I: Word>(linker: &mut Linker<MessageState>) -> wasmtime::Result<()> {
    messages::link::<I>(linker)?;
    calls::link::<I>(linker)?;
    cycles::link::<I>(linker)?;
    environment::link::<I>(linker)?;
    stable::link(linker)
}

/// Runs a step of a system call; a failure is kept for the outcome and ends the Wasm code.
fn run<T>(caller: &mut Host<'_>, step: impl FnOnce(&mut MessageState) -> Result<T, Failure>) -> wasmtime::Result<T> {
    let state = caller.data_mut();
    step(state).map_err(|failure| {
        state.failure = Some(failure);
        wasmtime::Error::msg("the system call failed")
    })
}

/// The costs of a system call.
fn cost(name: &'static str) -> wasmtime::Result<costs::SystemCall> {
    costs::system_call(name).copied().ok_or_else(|| wasmtime::Error::msg(format!("no costs for ic0.{name}")))
}

/// Registers a system call of a fixed cost: `fixed!(linker, "name", |state, a: i64| -> u32 { ... })`.
macro_rules! fixed {
    ($linker:expr, $name:literal, |$state:ident $(, $argument:ident : $type:ty)*| -> $result:ty $body:block) => {{
        let cost = $crate::execution::system_api::cost($name)?;
        $linker.func_wrap("ic0", $name, move |mut caller: $crate::execution::system_api::Host<'_> $(, $argument: $type)*| {
            $crate::execution::system_api::run(&mut caller, |$state| -> Result<$result, $crate::execution::failure::Failure> {
                $state.charge(cost.fixed)?;
                $body
            })
        })?;
    }};
}

/// Registers a system call that also pays for bytes: the expression after `bytes` says how many.
macro_rules! sized {
    ($linker:expr, $name:literal, bytes $bytes:expr, |$state:ident $(, $argument:ident : $type:ty)*| -> $result:ty $body:block) => {{
        let cost = $crate::execution::system_api::cost($name)?;
        $linker.func_wrap("ic0", $name, move |mut caller: $crate::execution::system_api::Host<'_> $(, $argument: $type)*| {
            $crate::execution::system_api::run(&mut caller, |$state| -> Result<$result, $crate::execution::failure::Failure> {
                let bytes: u64 = $bytes;
                $state.charge(cost.fixed.saturating_add(bytes.saturating_mul(cost.per_byte)))?;
                $body
            })
        })?;
    }};
}

use {fixed, sized};
