//! Tiny models with random weights, in the form of a GGUF file and as the numbers it stands for.

use super::file::{GgufFile, Tensor, Value};
use half::{bf16, f16};
use std::collections::BTreeMap;

/// Ways in which a matrix is stored, by ggml's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    F32 = 0,
    F16 = 1,
    Q4_0 = 2,
    Q4_1 = 3,
    Q8_0 = 8,
    Q4K = 12,
    Q6K = 14,
    Bf16 = 30,
}

pub struct Shape {
    pub architecture: &'static str,
    pub heads: usize,
    pub kv_heads: usize,
    /// Of the embedding; of the output layer, or none for the embedding again; of all other matrices in turn.
    pub embedding: Stored,
    pub output: Option<Stored>,
    pub matrices: &'static [Stored],
    pub has_bias: bool,
}

pub const LAYERS: usize = 2;
pub const WIDTH: usize = 256;
pub const INNER: usize = 512;
pub const HEAD: usize = 64;
pub const VOCABULARY: usize = 70;
pub const EPSILON: f32 = 1e-5;
pub const ROPE_BASE: f32 = 50_000.0;

/// A model's file, and its weights by name: matrices row by row, in Hugging Face's order.
pub struct Tiny {
    pub file: GgufFile,
    pub weights: BTreeMap<String, Vec<f32>>,
}

/// A fixed sequence of random numbers.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    /// From -1 to 1.
    pub fn number(&mut self) -> f32 {
        self.below(1 << 24) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// A random row, and the blocks that stand for it.
fn row(stored: Stored, columns: usize, random: &mut Random) -> (Vec<u8>, Vec<f32>) {
    let (mut bytes, mut numbers) = (Vec::new(), Vec::new());
    let size = 1.7 / (columns as f32).sqrt();
    let half = |bytes: &mut Vec<u8>, number: f32| {
        let number = f16::from_f32(number);
        bytes.extend(number.to_le_bytes());
        number.to_f32()
    };
    while numbers.len() < columns {
        match stored {
            Stored::F32 => {
                numbers.push(random.number() * size);
                bytes.extend(numbers[numbers.len() - 1].to_le_bytes());
            }
            Stored::F16 => numbers.push(half(&mut bytes, random.number() * size)),
            Stored::Bf16 => {
                let number = bf16::from_f32(random.number() * size);
                bytes.extend(number.to_le_bytes());
                numbers.push(number.to_f32());
            }
            Stored::Q4_0 | Stored::Q4_1 => {
                // Some blocks have no scale.
                let scale = if random.below(9) == 0 { 0.0 } else { random.number() * size / 7.0 };
                let scale = half(&mut bytes, scale);
                let offset = match stored {
                    Stored::Q4_1 => half(&mut bytes, -8.0 * scale + random.number() * size / 10.0),
                    _ => -8.0 * scale,
                };
                let quants: Vec<u8> = (0..32).map(|_| random.below(16) as u8).collect();
                bytes.extend((0..16).map(|at| quants[at] | quants[at + 16] << 4));
                numbers.extend(quants.iter().map(|quant| f32::from(*quant) * scale + offset));
            }
            Stored::Q8_0 => {
                let scale = half(&mut bytes, random.number() * size / 127.0);
                let quants: Vec<i8> = (0..32).map(|_| random.below(256) as u8 as i8).collect();
                bytes.extend(quants.iter().map(|quant| *quant as u8));
                numbers.extend(quants.iter().map(|quant| f32::from(*quant) * scale));
            }
            Stored::Q4K => {
                let scale = half(&mut bytes, size / 7.0 / 63.0);
                let offset = half(&mut bytes, size / 63.0);
                let scales: Vec<u8> = (0..8).map(|_| random.below(64) as u8).collect();
                let offsets: Vec<u8> = (0..8).map(|_| random.below(64) as u8).collect();
                bytes.extend((0..4).map(|at| scales[at] | scales[at + 4] >> 4 << 6));
                bytes.extend((0..4).map(|at| offsets[at] | offsets[at + 4] >> 4 << 6));
                bytes.extend((0..4).map(|at| scales[at + 4] & 15 | offsets[at + 4] << 4));
                let quants: Vec<u8> = (0..256).map(|_| random.below(16) as u8).collect();
                for pair in quants.chunks(64) {
                    bytes.extend((0..32).map(|at| pair[at] | pair[at + 32] << 4));
                }
                for (group, quants) in quants.chunks(32).enumerate() {
                    let (scale, offset) = (scale * f32::from(scales[group]), offset * f32::from(offsets[group]));
                    numbers.extend(quants.iter().map(|quant| scale * f32::from(*quant) - offset));
                }
            }
            Stored::Q6K => {
                let quants: Vec<u8> = (0..256).map(|_| random.below(64) as u8).collect();
                let scales: Vec<i8> = (0..16).map(|_| random.below(256) as u8 as i8).collect();
                for half in quants.chunks(128) {
                    bytes.extend((0..64).map(|at| half[at] & 15 | (half[at + 64] & 15) << 4));
                }
                for half in quants.chunks(128) {
                    let high = |at: usize| (0..4).fold(0, |byte, part| byte | half[at + 32 * part] >> 4 << (2 * part));
                    bytes.extend((0..32).map(high));
                }
                bytes.extend(scales.iter().map(|scale| *scale as u8));
                let scale = half(&mut bytes, size / 32.0 / 127.0);
                for (group, quants) in quants.chunks(16).enumerate() {
                    let scale = scale * f32::from(scales[group]);
                    numbers.extend(quants.iter().map(|quant| scale * (f32::from(*quant) - 32.0)));
                }
            }
        }
    }
    (bytes, numbers)
}

/// The place in a file of llama's architecture of each row of Hugging Face's order: the halves of pairs side by side.
fn interleaved(rows: usize) -> Vec<usize> {
    let of_head = |row: usize| if row < HEAD / 2 { 2 * row } else { 2 * (row - HEAD / 2) + 1 };
    (0..rows).map(|row| row / HEAD * HEAD + of_head(row % HEAD)).collect()
}

impl Tiny {
    pub fn new(shape: &Shape, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut tiny = Tiny { file: metadata(shape), weights: BTreeMap::new() };
        tiny.matrix("token_embd.weight", shape.embedding, VOCABULARY, WIDTH, false, &mut random);
        if let Some(output) = shape.output {
            tiny.matrix("output.weight", output, VOCABULARY, WIDTH, false, &mut random);
        }
        tiny.vector("output_norm.weight", WIDTH, 1.0, false, &mut random);
        let is_llama = shape.architecture == "llama";
        let (queries, keys) = (shape.heads * HEAD, shape.kv_heads * HEAD);
        let mut matrices = shape.matrices.iter().cycle();
        for layer in 0..LAYERS {
            for (part, rows, columns) in [
                ("attn_q", queries, WIDTH),
                ("attn_k", keys, WIDTH),
                ("attn_v", keys, WIDTH),
                ("attn_output", WIDTH, queries),
                ("ffn_gate", INNER, WIDTH),
                ("ffn_up", INNER, WIDTH),
                ("ffn_down", WIDTH, INNER),
            ] {
                let is_turned = is_llama && matches!(part, "attn_q" | "attn_k");
                let stored = *matrices.next().unwrap();
                tiny.matrix(&format!("blk.{layer}.{part}.weight"), stored, rows, columns, is_turned, &mut random);
                if shape.has_bias && matches!(part, "attn_q" | "attn_k" | "attn_v") {
                    tiny.vector(&format!("blk.{layer}.{part}.bias"), rows, 0.0, is_turned, &mut random);
                }
            }
            for part in ["attn_norm", "ffn_norm"] {
                tiny.vector(&format!("blk.{layer}.{part}.weight"), WIDTH, 1.0, false, &mut random);
            }
        }
        tiny
    }

    fn matrix(
        &mut self,
        name: &str,
        stored: Stored,
        rows: usize,
        columns: usize,
        is_turned: bool,
        random: &mut Random,
    ) {
        let places = if is_turned { interleaved(rows) } else { (0..rows).collect() };
        let mut blocks = vec![Vec::new(); rows];
        let mut numbers = Vec::new();
        for place in places {
            let (bytes, row) = row(stored, columns, random);
            blocks[place] = bytes;
            numbers.extend(row);
        }
        let dims = vec![columns as u64, rows as u64];
        self.file.tensors.push(Tensor { name: name.into(), dims, ggml_type: stored as u32, bytes: blocks.concat() });
        self.weights.insert(name.into(), numbers);
    }

    fn vector(&mut self, name: &str, length: usize, around: f32, is_turned: bool, random: &mut Random) {
        let numbers: Vec<f32> = (0..length).map(|_| around + 0.3 * random.number()).collect();
        let places = if is_turned { interleaved(length) } else { (0..length).collect() };
        let mut bytes = vec![[0; 4]; length];
        numbers.iter().zip(places).for_each(|(number, place)| bytes[place] = number.to_le_bytes());
        let dims = vec![length as u64];
        self.file.tensors.push(Tensor { name: name.into(), dims, ggml_type: 0, bytes: bytes.concat() });
        self.weights.insert(name.into(), numbers);
    }
}

fn metadata(shape: &Shape) -> GgufFile {
    let mut file = GgufFile { version: 3, metadata: Vec::new(), tensors: Vec::new() };
    file.set("general.architecture", Value::Text(shape.architecture.into()));
    let key = |key: &str| format!("{}.{key}", shape.architecture);
    for (name, value) in [
        ("block_count", LAYERS),
        ("context_length", 512),
        ("embedding_length", WIDTH),
        ("feed_forward_length", INNER),
        ("attention.head_count", shape.heads),
        ("attention.head_count_kv", shape.kv_heads),
        ("attention.key_length", HEAD),
    ] {
        file.set(&key(name), Value::U32(value as u32));
    }
    file.set(&key("attention.layer_norm_rms_epsilon"), Value::F32(EPSILON));
    file.set(&key("rope.freq_base"), Value::F32(ROPE_BASE));
    file.set("tokenizer.ggml.model", Value::Text("gpt2".into()));
    file.set("tokenizer.ggml.pre", Value::Text("smollm".into()));
    let tokens: Vec<String> = ["<|end|>", "a", "b", "c", "ab", "abc", "Ġ", "Ġab"].map(String::from).into();
    file.set("tokenizer.ggml.token_type", Value::I32s(vec![3, 1, 1, 1, 1, 1, 1, 1]));
    file.set("tokenizer.ggml.tokens", Value::Texts(tokens));
    file.set("tokenizer.ggml.merges", Value::Texts(["a b", "ab c", "Ġ ab"].map(String::from).into()));
    file.set("tokenizer.ggml.eos_token_id", Value::U32(0));
    file.set("tokenizer.chat_template", Value::Text("{{ messages[0].content }}".into()));
    file
}
