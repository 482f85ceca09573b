//! The few system calls of the Internet Computer that a measurement needs (Interface Specification, System API).

mod sys {
    #[link(wasm_import_module = "ic0")]
    unsafe extern "C" {
        pub fn msg_arg_data_size() -> usize;
        pub fn msg_arg_data_copy(to: *mut u8, offset: usize, size: usize);
        pub fn msg_reply_data_append(from: *const u8, size: usize);
        pub fn msg_reply();
        pub fn performance_counter(kind: u32) -> u64;
        pub fn trap(from: *const u8, size: usize) -> !;
    }
}

/// The message's argument, as text.
pub fn argument() -> String {
    // SAFETY: the system fills exactly the bytes of `bytes`.
    let bytes = unsafe {
        let mut bytes = vec![0; sys::msg_arg_data_size()];
        sys::msg_arg_data_copy(bytes.as_mut_ptr(), 0, bytes.len());
        bytes
    };
    String::from_utf8(bytes).expect("the argument is text")
}

/// Replies with text.
pub fn reply(text: &str) {
    // SAFETY: the system reads the bytes of `text`.
    unsafe {
        sys::msg_reply_data_append(text.as_ptr(), text.len());
        sys::msg_reply();
    }
}

/// Instructions of this message so far.
pub fn instructions() -> u64 {
    // SAFETY: no memory is involved.
    unsafe { sys::performance_counter(0) }
}

/// Makes the text of a panic the error of the message.
pub fn trap_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.to_string();
        // SAFETY: the system reads the bytes of `text`.
        unsafe { sys::trap(text.as_ptr(), text.len()) }
    }));
}
