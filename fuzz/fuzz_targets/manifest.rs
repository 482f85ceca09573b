//! Any bytes as the argument of `begin_upload`: what is no manifest is refused, and what is one is kept as it is.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| onnx_canister::fuzzing::manifest(data));
