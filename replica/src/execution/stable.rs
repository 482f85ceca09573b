//! Stable memory.

/// The stable memory of one canister: pages of 64 KiB that survive upgrades.
pub struct StableMemory;

impl StableMemory {
    /// An empty stable memory.
    pub fn new() -> anyhow::Result<Self> {
        todo!()
    }

    /// Current size in bytes, a multiple of 64 KiB.
    pub fn size_bytes(&self) -> u64 {
        todo!()
    }

    /// The whole content.
    pub fn read_all(&self) -> Vec<u8> {
        todo!()
    }

    /// Replaces the whole content; the size becomes `bytes` rounded up to 64 KiB.
    pub fn write_all(&mut self, _bytes: &[u8]) -> anyhow::Result<()> {
        todo!()
    }

    /// From here on [`StableMemory::rollback_to_checkpoint`] can undo every write, committed messages included.
    ///
    /// An upgrade takes it before pre_upgrade of the old instance, moves the memory into the new instance
    /// ([`super::Instance::into_stable`]), runs start and post_upgrade there, and then either releases the
    /// checkpoint or moves the memory back, rolled back, into the old instance.
    pub fn checkpoint(&mut self) {
        todo!()
    }

    /// Restores content and size as they were at the checkpoint, and ends it.
    pub fn rollback_to_checkpoint(&mut self) {
        todo!()
    }

    /// Ends the checkpoint and keeps what was written since.
    pub fn release_checkpoint(&mut self) {
        todo!()
    }
}
