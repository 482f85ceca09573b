//! Every call to the system goes through here, so that the rest is plain Rust that native tests can run.
//!
//! On Wasm each function is one system call; natively it reads a fake that tests set (see [`fake`]).

#[cfg(not(target_family = "wasm"))]
pub mod fake;

/// What became of a call of the canister to itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelfCall {
    /// The step ran to its end; what it did is in the canister's state.
    Replied,
    /// The step's message was rejected: it trapped and was rolled back, or never ran.
    Rejected { code: u32, message: String },
    /// The balance doesn't allow the call.
    CyclesLow,
    /// The network didn't take the call now; it may later.
    NotSent,
}

/// The name of the hidden update that runs one step of work, callable by the canister itself only.
pub const STEP_METHOD: &str = "__run_step";

#[cfg(target_family = "wasm")]
mod system {
    use super::{STEP_METHOD, SelfCall};
    use crate::jobs::WorkId;
    use candid::Principal;
    use ic_cdk::api;
    use ic_cdk::call::{Call, CallFailed};
    use ic_stable_structures::DefaultMemoryImpl;

    /// Instructions this message has spent so far, page charges included.
    pub fn instructions() -> u64 {
        api::performance_counter(0)
    }

    /// Nanoseconds since 1970, as the subnet agrees.
    pub fn time_ns() -> u64 {
        api::time()
    }

    pub fn caller() -> Principal {
        api::msg_caller()
    }

    pub fn self_id() -> Principal {
        api::canister_self()
    }

    pub fn is_controller(principal: &Principal) -> bool {
        api::is_controller(principal)
    }

    /// Cycles the canister has, without what this message has prepaid.
    pub fn cycle_balance() -> u128 {
        api::canister_cycle_balance()
    }

    /// Whether the canister has been asked to stop: it may then begin nothing new.
    pub fn is_stopping() -> bool {
        api::canister_status() == api::CanisterStatusCode::Stopping
    }

    /// Bytes of Wasm heap; it only ever grows.
    pub fn heap_bytes() -> u64 {
        core::arch::wasm32::memory_size::<0>() as u64 * crate::stable::PAGE_BYTES
    }

    /// Bytes of the heap that are in use.
    pub fn heap_used_bytes() -> u64 {
        crate::allocator::used_bytes()
    }

    /// Writes to the canister's log, which controllers can read.
    pub fn log(message: &str) {
        api::debug_print(message);
    }

    pub fn stable_memory() -> DefaultMemoryImpl {
        DefaultMemoryImpl::default()
    }

    /// Sets the global timer; it replaces the one that was set. Nothing in a query, which keeps nothing: the benchmarks
    /// run what updates do in one.
    pub fn set_timer(at_ns: u64) {
        if api::in_replicated_execution() {
            api::global_timer_set(at_ns);
        }
    }

    pub fn trap(message: &str) -> ! {
        api::trap(message)
    }

    /// 32 bytes of the network's randomness, which nobody knew before this message.
    pub async fn random() -> Result<Vec<u8>, String> {
        let call = Call::unbounded_wait(Principal::management_canister(), "raw_rand").await;
        let reply = call.map_err(|failed| failed.to_string())?;
        reply.candid().map_err(|failed| failed.to_string())
    }

    /// Runs one step of `work` in a message of its own, so that a trap there is seen here.
    pub async fn call_self(work: &WorkId) -> SelfCall {
        let arguments = crate::record::encode(work);
        match Call::unbounded_wait(self_id(), STEP_METHOD).with_raw_args(&arguments).await {
            Ok(_) => SelfCall::Replied,
            Err(CallFailed::CallRejected(rejected)) => {
                SelfCall::Rejected { code: rejected.raw_reject_code(), message: rejected.reject_message().to_string() }
            }
            Err(CallFailed::InsufficientLiquidCycleBalance(_)) => SelfCall::CyclesLow,
            Err(CallFailed::CallPerformFailed(_)) => SelfCall::NotSent,
        }
    }
}

#[cfg(target_family = "wasm")]
pub use system::*;

#[cfg(not(target_family = "wasm"))]
pub use fake::system::*;

/// Bytes of stable memory.
pub fn stable_bytes() -> u64 {
    use ic_stable_structures::Memory;
    stable_memory().size() * crate::stable::PAGE_BYTES
}
