//! The source of entropy that dependencies find when they ask for one: it refuses.
//!
//! A canister has no operating system, and results here must not depend on chance. Crates reach this function through
//! getrandom's custom backend; none of them calls it on a path that the canister uses.

/// Refuses to give entropy.
///
/// # Safety
/// `dest` is not touched, so the caller has nothing to guarantee.
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(_dest: *mut u8, _len: usize) -> Result<(), getrandom::Error> {
    Err(getrandom::Error::UNSUPPORTED)
}
