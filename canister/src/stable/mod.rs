//! Stable memory: what lies where, and how damage is found before it can do harm.
//!
//! ```text
//! -------------------------------------------------- <- page 0
//! Superblock, copy 1                    1 page of 64 KiB
//! -------------------------------------------------- <- page 1
//! Superblock, copy 2                    1 page
//! -------------------------------------------------- <- page 2
//! Pages, in any order, each owned by one of
//!   journal: copies 1 and 2, in use     as the superblock says
//!   journal: copies 1 and 2, spare      as the superblock says
//!   blobs: files, manifests, inputs,    as the records in the journal say
//!          requests, results
//!   nobody: free
//! --------------------------------------------------
//! ```
//!
//! [`superblock`] names the journal's pages, [`journal`] holds every record, twice, and the records name the pages of
//! their [`blob`]s. Which pages are free is stored nowhere: it is what is left. So nothing can leak, and no list of free
//! pages can be wrong.
//!
//! Every byte that is read is under a checksum: CRC-32, which notices each error of up to 32 bits in a row. Superblock
//! and records are there twice; damage to one copy is repaired from the other when the canister's heap is new, and
//! named in `health` and in the canister's log. Damage to a blob is named by whoever reads it, who gets an error.
//!
//! Layout 1, which [`layout1`] reads, was the same records in `ic-stable-structures`' maps. Their nodes have no
//! checksums, and one flipped bit in a node could have taken every model with it.

pub mod blob;
pub mod damage;
pub mod directory;
mod entry;
mod journal;
mod layout1;
mod pages;
mod superblock;

pub use blob::Blob;
pub use directory::Kind;
pub use pages::Extent;
#[cfg(test)]
pub use {entry::HEADER_BYTES, superblock::Superblock};

/// Bytes of a page of Wasm memory, heap or stable.
pub const PAGE_BYTES: u64 = 65_536;
