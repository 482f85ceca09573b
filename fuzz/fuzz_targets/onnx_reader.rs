//! Any bytes as an ONNX file, with the last of them as its external data: reading it fails or doesn't, and nothing else.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The first two bytes say how much of the rest is external data, in 65,536ths.
    let Some((share, data)) = data.split_first_chunk::<2>() else { return };
    let external_bytes = (data.len() * usize::from(u16::from_le_bytes(*share))) >> 16;
    let (onnx, external) = data.split_at(data.len() - external_bytes);
    let _ = onnx_engine::fuzzing::read(onnx.to_vec(), external.to_vec());
});
