//! Any bytes as an ONNX file, with the rest of them as its external data: reading its structure fails or doesn't, and
//! nothing else.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onnx_engine::{ByteSource, ModelFiles};

struct Files {
    onnx: Vec<u8>,
    external: Vec<u8>,
}

impl ModelFiles for Files {
    fn onnx(&self) -> &dyn ByteSource {
        &self.onnx
    }

    fn external(&self, _: &str) -> Option<&dyn ByteSource> {
        Some(&self.external)
    }
}

fuzz_target!(|data: &[u8]| {
    // The first byte says how much of the rest is external data.
    let Some((split, data)) = data.split_first() else { return };
    let external_bytes = data.len() * usize::from(*split) / 1024;
    let (onnx, external) = data.split_at(data.len() - external_bytes);
    let files = Files { onnx: onnx.to_vec(), external: external.to_vec() };
    let _ = onnx_engine::inspect(&files);
});
