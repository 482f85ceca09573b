//! Static constructors, by which tract's kernels register themselves.
//!
//! Without a call of `__wasm_call_ctors` in the program, the linker wraps every exported function so that it runs the
//! constructors first, in every message. With one, they run where it is: once for each new heap.

unsafe extern "C" {
    fn __wasm_call_ctors();
}

/// Runs the constructors. To be called first in the message that makes the heap.
pub fn run() {
    // SAFETY: the linker makes this function, it takes and returns nothing, and only the message that makes a new heap
    // calls it, before anything that the constructors register is looked up.
    unsafe { __wasm_call_ctors() }
}
