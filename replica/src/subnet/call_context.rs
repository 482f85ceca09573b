//! Open calls: the ones a canister is answering (call contexts), and the ones it waits for (callbacks).

use super::message::{CallbackId, Origin};
use crate::execution::Closure;
use candid::Principal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Names a call context of one canister.
pub type CallContextId = u64;

/// A call that a canister is answering. It lives until it is answered and none of its own calls is open.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CallContext {
    pub origin: Origin,
    pub responded: bool,
    /// The module that opened it was uninstalled: answers to its calls run nothing.
    pub deleted: bool,
    /// Cycles attached to the call and not accepted yet.
    pub cycles_available: u128,
    /// Executed so far in this context, what `performance_counter(1)` starts from.
    pub instructions: u64,
    /// Calls made in this context and not answered yet.
    pub open_calls: u32,
}

/// A call that a canister waits for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Callback {
    pub context: CallContextId,
    pub callee: Principal,
    pub on_reply: Closure,
    pub on_reject: Closure,
    pub on_cleanup: Option<Closure>,
    /// Set aside when the call was made, for the transport of the response.
    pub prepaid_transmission: u128,
    /// Set aside when the call was made, for the execution of the callback.
    pub prepaid_execution: u128,
}

/// All open calls of one canister.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct OpenCalls {
    next_context: CallContextId,
    next_callback: CallbackId,
    contexts: BTreeMap<CallContextId, CallContext>,
    callbacks: BTreeMap<CallbackId, Callback>,
    /// Callbacks by callee.
    by_callee: BTreeMap<Principal, u32>,
}

impl OpenCalls {
    /// Opens a call context that has executed nothing yet.
    pub fn open_context(&mut self, origin: Origin, cycles_available: u128) -> CallContextId {
        let id = self.next_context;
        self.next_context += 1;
        let context =
            CallContext { origin, responded: false, deleted: false, cycles_available, instructions: 0, open_calls: 0 };
        self.contexts.insert(id, context);
        id
    }

    pub fn context(&self, id: CallContextId) -> Option<&CallContext> {
        self.contexts.get(&id)
    }

    pub fn context_mut(&mut self, id: CallContextId) -> Option<&mut CallContext> {
        self.contexts.get_mut(&id)
    }

    /// Every context, in the order they were opened.
    pub fn contexts_mut(&mut self) -> impl Iterator<Item = (CallContextId, &mut CallContext)> {
        self.contexts.iter_mut().map(|(id, context)| (*id, context))
    }

    pub fn remove_context(&mut self, id: CallContextId) -> Option<CallContext> {
        self.contexts.remove(&id)
    }

    /// Registers a call made in `callback.context`.
    pub fn open_callback(&mut self, callback: Callback) -> CallbackId {
        let id = self.next_callback;
        self.next_callback += 1;
        if let Some(context) = self.contexts.get_mut(&callback.context) {
            context.open_calls += 1;
        }
        *self.by_callee.entry(callback.callee).or_default() += 1;
        self.callbacks.insert(id, callback);
        id
    }

    /// Takes the callback out, once: an answer that comes twice, or after the deadline, finds nothing.
    pub fn take_callback(&mut self, id: CallbackId) -> Option<Callback> {
        let callback = self.callbacks.remove(&id)?;
        if let Some(context) = self.contexts.get_mut(&callback.context) {
            context.open_calls -= 1;
        }
        if let Some(count) = self.by_callee.get_mut(&callback.callee) {
            *count -= 1;
            if *count == 0 {
                self.by_callee.remove(&callback.callee);
            }
        }
        Some(callback)
    }

    pub fn callback(&self, id: CallbackId) -> Option<&Callback> {
        self.callbacks.get(&id)
    }

    /// Calls to `callee` that are open.
    pub fn open_to(&self, callee: &Principal) -> u32 {
        self.by_callee.get(callee).copied().unwrap_or(0)
    }

    /// Nothing is being answered and nothing is waited for: what stopping waits for.
    pub fn is_empty(&self) -> bool {
        self.contexts.is_empty() && self.callbacks.is_empty()
    }
}
