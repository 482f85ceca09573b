//! Language models of the shapes that people run, with random weights of 4 bits: what they cost does not depend on the
//! numbers, and their files need not be fetched.
//!
//! A shape is written as a GGUF file and imported as `model-uploader import` does it. Each layer has weights of its own.

use super::work::{Text, Work};
use anyhow::{Context, Result};
use end_to_end_tests::models::manifest;
use end_to_end_tests::pocket::Model;
use onnx_canister_interface::{CHUNK_BYTES_MAX, Manifest, Prompt, Task};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// A Llama's sizes.
pub struct Shape {
    pub name: &'static str,
    layers: u32,
    width: u32,
    heads: u32,
    kv_heads: u32,
    head: u32,
    inner: u32,
    vocabulary: u32,
    /// Whether the output layer is the embedding again.
    is_tied: bool,
}

pub const SHAPES: &[Shape] = &[
    Shape {
        name: "0.5B shape (Qwen2.5-0.5B), random Q4_0",
        layers: 24,
        width: 896,
        heads: 14,
        kv_heads: 2,
        head: 64,
        inner: 4_864,
        vocabulary: 151_936,
        is_tied: true,
    },
    Shape {
        name: "1.7B shape (SmolLM2-1.7B), random Q4_0",
        layers: 24,
        width: 2_048,
        heads: 32,
        kv_heads: 32,
        head: 64,
        inner: 8_192,
        vocabulary: 49_152,
        is_tied: true,
    },
    Shape {
        name: "2.6B shape (Gemma-2-2B's sizes), random Q4_0",
        layers: 26,
        width: 2_304,
        heads: 8,
        kv_heads: 4,
        head: 256,
        inner: 9_216,
        vocabulary: 256_000,
        is_tied: true,
    },
];

const Q4_0: u32 = 2;
const F32: u32 = 0;
/// Weights of a block of Q4_0, and its bytes: a scale in f16 and two weights a byte.
const BLOCK: u64 = 32;
const BLOCK_BYTES: u64 = 18;
/// Bytes that tensors are aligned to.
const ALIGNMENT: u64 = 32;
const CONTEXT_LENGTH: u32 = 2_048;

struct Tensor {
    name: String,
    /// The innermost first.
    dims: Vec<u64>,
    ggml_type: u32,
}

impl Tensor {
    fn bytes(&self) -> u64 {
        let values: u64 = self.dims.iter().product();
        if self.ggml_type == F32 { 4 * values } else { values / BLOCK * BLOCK_BYTES }
    }
}

impl Shape {
    /// Uploading it, loading it, a text.
    pub fn work(&self) -> Result<Work> {
        let folder = tempfile::tempdir()?;
        let gguf = folder.path().join("model.gguf");
        self.write(&gguf).with_context(|| gguf.display().to_string())?;
        let out = folder.path().join("onnx");
        let imported = model_uploader::gguf::import(&gguf, &out)?;
        std::fs::remove_file(&gguf)?;
        // Without a tokenizer: tokens in, tokens out.
        let mut files = Vec::new();
        for path in imported.files.iter().filter(|path| path.extension().is_none_or(|kind| kind != "json")) {
            let name = path.file_name().and_then(|name| name.to_str()).context("a file's name")?;
            files.push((name.to_string(), std::fs::read(path)?));
        }
        let task = Task::Generate { context_length: CONTEXT_LENGTH };
        let model = Model::new(Manifest { task, ..manifest("shape", CHUNK_BYTES_MAX) }, files);
        let text = Text {
            prompt: Prompt::Tokens(vec![1, 2, 3, 4]),
            parameters: self.parameters(),
            vocabulary: self.vocabulary,
        };
        Ok(Work { name: self.name.to_string(), model, requests: Vec::new(), text: Some(text) })
    }

    fn tensors(&self) -> Vec<Tensor> {
        let matrix = |name: String, rows: u32, columns: u32| Tensor {
            name,
            dims: vec![columns.into(), rows.into()],
            ggml_type: Q4_0,
        };
        let vector = |name: String| Tensor { name, dims: vec![self.width.into()], ggml_type: F32 };
        let mut tensors = vec![matrix("token_embd.weight".into(), self.vocabulary, self.width)];
        if !self.is_tied {
            tensors.push(matrix("output.weight".into(), self.vocabulary, self.width));
        }
        tensors.push(vector("output_norm.weight".into()));
        let (queries, keys) = (self.heads * self.head, self.kv_heads * self.head);
        for layer in 0..self.layers {
            for (part, rows, columns) in [
                ("attn_q", queries, self.width),
                ("attn_k", keys, self.width),
                ("attn_v", keys, self.width),
                ("attn_output", self.width, queries),
                ("ffn_gate", self.inner, self.width),
                ("ffn_up", self.inner, self.width),
                ("ffn_down", self.width, self.inner),
            ] {
                tensors.push(matrix(format!("blk.{layer}.{part}.weight"), rows, columns));
            }
            for part in ["attn_norm", "ffn_norm"] {
                tensors.push(vector(format!("blk.{layer}.{part}.weight")));
            }
        }
        tensors
    }

    fn parameters(&self) -> u64 {
        self.tensors().iter().map(|tensor| tensor.dims.iter().product::<u64>()).sum()
    }

    fn write(&self, path: &Path) -> Result<()> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        let tensors = self.tensors();
        let mut head = Vec::new();
        head.extend(b"GGUF");
        head.extend(3u32.to_le_bytes());
        head.extend((tensors.len() as u64).to_le_bytes());
        let metadata = self.metadata();
        head.extend((metadata.len() as u64).to_le_bytes());
        for (key, value) in metadata {
            text(&mut head, &key);
            head.extend(value);
        }
        let mut offset = 0u64;
        for tensor in &tensors {
            text(&mut head, &tensor.name);
            head.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().for_each(|dim| head.extend(dim.to_le_bytes()));
            head.extend(tensor.ggml_type.to_le_bytes());
            head.extend(offset.to_le_bytes());
            offset += tensor.bytes().next_multiple_of(ALIGNMENT);
        }
        head.resize(head.len().next_multiple_of(ALIGNMENT as usize), 0);
        file.write_all(&head)?;
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        for tensor in &tensors {
            let mut written = 0;
            while written < tensor.bytes() {
                if tensor.ggml_type == F32 {
                    file.write_all(&1.0f32.to_le_bytes())?;
                    written += 4;
                    continue;
                }
                // 2^-9 and some: no block is zero, and sums stay small.
                let mut block = [0x00, 0x18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                for eight in block[2..].chunks_exact_mut(8) {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    eight.copy_from_slice(&(state ^ state >> 29).to_le_bytes());
                }
                block[0] = (state >> 40) as u8;
                file.write_all(&block)?;
                written += BLOCK_BYTES;
            }
            file.write_all(&[0; ALIGNMENT as usize][..(written.next_multiple_of(ALIGNMENT) - written) as usize])?;
        }
        file.flush()?;
        Ok(())
    }

    /// Keys, and their values with the number of the value's type before.
    fn metadata(&self) -> Vec<(String, Vec<u8>)> {
        let number = |value: u32| [4u32.to_le_bytes(), value.to_le_bytes()].concat();
        let float = |value: f32| [6u32.to_le_bytes(), value.to_le_bytes()].concat();
        let string = |value: &str| {
            let mut bytes = 8u32.to_le_bytes().to_vec();
            text(&mut bytes, value);
            bytes
        };
        let array = |element: u32, count: usize| {
            [&9u32.to_le_bytes()[..], &element.to_le_bytes(), &(count as u64).to_le_bytes()].concat()
        };
        let mut tokens = array(8, 2);
        ["<|end|>", "a"].iter().for_each(|token| text(&mut tokens, token));
        let mut kinds = array(5, 2);
        [3i32, 1].iter().for_each(|kind| kinds.extend(kind.to_le_bytes()));
        vec![
            ("general.architecture".into(), string("llama")),
            ("llama.block_count".into(), number(self.layers)),
            ("llama.context_length".into(), number(CONTEXT_LENGTH)),
            ("llama.embedding_length".into(), number(self.width)),
            ("llama.feed_forward_length".into(), number(self.inner)),
            ("llama.attention.head_count".into(), number(self.heads)),
            ("llama.attention.head_count_kv".into(), number(self.kv_heads)),
            ("llama.attention.key_length".into(), number(self.head)),
            ("llama.attention.layer_norm_rms_epsilon".into(), float(1e-5)),
            ("llama.rope.freq_base".into(), float(100_000.0)),
            ("tokenizer.ggml.model".into(), string("gpt2")),
            ("tokenizer.ggml.pre".into(), string("smollm")),
            ("tokenizer.ggml.token_type".into(), kinds),
            ("tokenizer.ggml.tokens".into(), tokens),
            ("tokenizer.ggml.merges".into(), array(8, 0)),
            ("tokenizer.ggml.eos_token_id".into(), number(0)),
        ]
    }
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}
