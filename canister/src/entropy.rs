//! The source of entropy that dependencies find when they ask for one: the same bytes every time.
//!
//! A canister has no operating system, and results here must not depend on chance. Crates reach this function through
//! getrandom's custom backend; the only one that does on a path that the canister uses seeds a hash map's keys with it.
//! Nothing here is a secret, and nothing may be made one of these bytes.

/// Gives the bytes 1, 2, 3 and so on.
///
/// # Safety
/// `dest` points to `len` bytes that may be written.
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(dest: *mut u8, len: usize) -> Result<(), getrandom::Error> {
    for index in 0..len {
        // SAFETY: the caller lets `len` bytes from `dest` on be written.
        unsafe { dest.add(index).write((index as u8).wrapping_add(1)) };
    }
    Ok(())
}
