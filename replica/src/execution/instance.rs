//! A canister's memories between messages, and the execution of one message against them.

use super::{Engine, Environment, Module, Outcome, StableMemory, Trap};

/// Heap, globals and stable memory of one canister.
pub struct Instance;

impl Instance {
    /// A fresh heap with the module's data segments in it; the start function has not run yet.
    pub fn new(_engine: &Engine, _module: &Module, _stable: StableMemory) -> Result<Instance, Trap> {
        todo!()
    }

    /// Runs one message: commits on `Ok`, leaves heap, globals and stable memory as they were on `Err`.
    /// Non-replicated queries always leave them as they were.
    pub fn execute(&mut self, _environment: Environment) -> Outcome {
        todo!()
    }

    /// From here on [`Instance::rollback_to_checkpoint`] can undo what messages commit to heap, globals and stable
    /// memory: an upgrade takes it before pre_upgrade, a composite query before its first message.
    pub fn checkpoint(&mut self) {
        todo!()
    }

    /// Restores heap, globals and stable memory as they were at the checkpoint, and ends it.
    pub fn rollback_to_checkpoint(&mut self) {
        todo!()
    }

    /// Size of the heap in bytes.
    pub fn heap_bytes(&self) -> u64 {
        todo!()
    }

    /// Size of stable memory in bytes.
    pub fn stable_bytes(&self) -> u64 {
        todo!()
    }

    pub fn stable(&self) -> &StableMemory {
        todo!()
    }

    pub fn stable_mut(&mut self) -> &mut StableMemory {
        todo!()
    }

    /// Gives up heap and globals and hands the stable memory on, to an upgrade's new instance.
    pub fn into_stable(self) -> StableMemory {
        todo!()
    }

    /// Replaces the stable memory and returns the one that was here: an upgrade takes it out and, when it fails,
    /// puts it back.
    pub fn replace_stable(&mut self, _stable: StableMemory) -> StableMemory {
        todo!()
    }
}
