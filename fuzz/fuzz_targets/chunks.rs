//! Any sequence of calls that upload, commit and delete: the canister's account of what is stored stays right.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| onnx_canister::fuzzing::chunks(data));
