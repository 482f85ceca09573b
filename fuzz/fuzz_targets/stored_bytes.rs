//! Any changes to a canister's stable memory: it opens with what is whole, or refuses with a sentence.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| onnx_canister::fuzzing::stored_bytes(data));
