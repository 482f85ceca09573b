//! Imported models, run by the engine in place and on its own kernels, against the plain computation in double precision.

use super::tiny::{EPSILON, HEAD, INNER, LAYERS, ROPE_BASE, Shape, Stored, Tiny, VOCABULARY, WIDTH};
use model_uploader::gguf::{EXTERNAL_FILE, import_from};
use onnx_engine::{ByteSource, Decoder, LoadOptions, Loader, Meter, ModelFiles, Step};
use std::io::Cursor;
use std::path::Path;

struct Files {
    onnx: Vec<u8>,
    external: Option<Vec<u8>>,
}

impl ModelFiles for Files {
    fn onnx(&self) -> &dyn ByteSource {
        &self.onnx
    }

    fn external(&self, location: &str) -> Option<&dyn ByteSource> {
        self.external.as_ref().filter(|_| location == EXTERNAL_FILE).map(|file| file as &dyn ByteSource)
    }
}

struct Unlimited;

impl Meter for Unlimited {
    fn spent(&self) -> u64 {
        0
    }
}

/// A decoder of the model in the folder; all of it runs on the engine's own kernels.
fn decoder(folder: &Path) -> Decoder {
    let external = std::fs::read(folder.join(EXTERNAL_FILE)).ok();
    let files = Files { onnx: std::fs::read(folder.join("model.onnx")).unwrap(), external };
    let mut loader = Loader::new(Box::new(files), LoadOptions::default()).unwrap();
    while loader.step(&Unlimited, u64::MAX).unwrap() != Step::Done {}
    let plan = loader.finish().unwrap();
    assert_eq!(plan.whole_reason(), None);
    assert!(plan.is_native());
    let decoder = Decoder::new(plan).unwrap();
    assert!(decoder.is_in_place());
    decoder
}

/// Logits of the last token of each part.
fn logits(decoder: &mut Decoder, parts: &[&[u32]]) -> Vec<Vec<f32>> {
    let mut all = Vec::new();
    for part in parts {
        decoder.feed(part).unwrap();
        while decoder.step(&Unlimited, u64::MAX).unwrap() != Step::Done {}
        all.push(decoder.logits().to_vec());
    }
    all
}

/// The definition of the model, token by token.
struct Reference<'a> {
    tiny: &'a Tiny,
    shape: &'a Shape,
    keys: Vec<Vec<Vec<f64>>>,
    values: Vec<Vec<Vec<f64>>>,
}

impl Reference<'_> {
    fn weights(&self, name: &str) -> &[f32] {
        &self.tiny.weights[name]
    }

    fn product(&self, x: &[f64], name: &str) -> Vec<f64> {
        let rows = self.weights(name).chunks_exact(x.len());
        rows.map(|row| row.iter().zip(x).map(|(weight, x)| f64::from(*weight) * x).sum()).collect()
    }

    fn linear(&self, x: &[f64], layer: usize, part: &str) -> Vec<f64> {
        let mut y = self.product(x, &format!("blk.{layer}.{part}.weight"));
        if let Some(bias) = self.tiny.weights.get(&format!("blk.{layer}.{part}.bias")) {
            y.iter_mut().zip(bias).for_each(|(y, bias)| *y += f64::from(*bias));
        }
        y
    }

    fn norm(&self, x: &[f64], name: &str) -> Vec<f64> {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let scale = 1.0 / (mean + f64::from(EPSILON)).sqrt();
        x.iter().zip(self.weights(name)).map(|(x, weight)| x * scale * f64::from(*weight)).collect()
    }

    fn rotate(&self, heads: &mut [f64], position: usize) {
        for head in heads.chunks_exact_mut(HEAD) {
            for pair in 0..HEAD / 2 {
                let angle = position as f64 * f64::from(ROPE_BASE).powf(-(2.0 * pair as f64) / HEAD as f64);
                let (a, b) = (head[pair], head[pair + HEAD / 2]);
                head[pair] = a * angle.cos() - b * angle.sin();
                head[pair + HEAD / 2] = b * angle.cos() + a * angle.sin();
            }
        }
    }

    fn next(&mut self, token: u32) -> Vec<f64> {
        let row = token as usize * WIDTH..(token as usize + 1) * WIDTH;
        let mut x: Vec<f64> = self.weights("token_embd.weight")[row].iter().map(|x| f64::from(*x)).collect();
        for layer in 0..LAYERS {
            let normed = self.norm(&x, &format!("blk.{layer}.attn_norm.weight"));
            let [mut q, mut k, v] = ["attn_q", "attn_k", "attn_v"].map(|part| self.linear(&normed, layer, part));
            let position = self.keys[layer].len();
            self.rotate(&mut q, position);
            self.rotate(&mut k, position);
            self.keys[layer].push(k);
            self.values[layer].push(v);
            let mut mixed = vec![0.0; q.len()];
            for head in 0..self.shape.heads {
                let shared = head / (self.shape.heads / self.shape.kv_heads) * HEAD;
                let query = &q[head * HEAD..(head + 1) * HEAD];
                let dot = |key: &Vec<f64>| query.iter().zip(&key[shared..]).map(|(q, k)| q * k).sum::<f64>();
                let scores: Vec<f64> = self.keys[layer].iter().map(|key| dot(key) / (HEAD as f64).sqrt()).collect();
                let largest = scores.iter().fold(f64::MIN, |largest, score| largest.max(*score));
                let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for (weight, value) in weights.iter().zip(&self.values[layer]) {
                    let mixed = mixed[head * HEAD..].iter_mut().zip(&value[shared..shared + HEAD]);
                    mixed.for_each(|(mixed, value)| *mixed += weight / sum * value);
                }
            }
            let attended = self.linear(&mixed, layer, "attn_output");
            x.iter_mut().zip(attended).for_each(|(x, attended)| *x += attended);
            let normed = self.norm(&x, &format!("blk.{layer}.ffn_norm.weight"));
            let (gate, up) = (self.linear(&normed, layer, "ffn_gate"), self.linear(&normed, layer, "ffn_up"));
            assert_eq!(gate.len(), INNER);
            let gated: Vec<f64> = gate.iter().zip(up).map(|(gate, up)| gate / (1.0 + (-gate).exp()) * up).collect();
            let down = self.linear(&gated, layer, "ffn_down");
            x.iter_mut().zip(down).for_each(|(x, down)| *x += down);
        }
        let output = if self.shape.output.is_some() { "output.weight" } else { "token_embd.weight" };
        self.product(&self.norm(&x, "output_norm.weight"), output)
    }
}

/// Tokens in parts of several and of one, each token of the vocabulary among them.
fn parts() -> Vec<Vec<u32>> {
    let all: Vec<u32> = (0..VOCABULARY as u32).map(|token| token * 29 % VOCABULARY as u32).collect();
    [0..5, 5..6, 6..69, 69..70].map(|range| all[range].to_vec()).into()
}

fn check(shape: &Shape, seed: u64, tolerance: f64) {
    let tiny = Tiny::new(shape, seed);
    let folder = tempfile::tempdir().unwrap();
    let imported = import_from(Cursor::new(tiny.file.bytes()), folder.path(), u64::MAX).unwrap();
    let names: Vec<_> = imported.files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["model.onnx", "tokenizer.json", "tokenizer_config.json", "generation_config.json"]);
    assert_eq!((imported.vocabulary, imported.context_length), (VOCABULARY as u64, Some(512)));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 4);

    let parts = parts();
    let slices: Vec<&[u32]> = parts.iter().map(Vec::as_slice).collect();
    let got = logits(&mut decoder(folder.path()), &slices);
    let none = || vec![Vec::new(); LAYERS];
    let mut reference = Reference { tiny: &tiny, shape, keys: none(), values: none() };
    let mut worst = 0f64;
    for (part, got) in parts.iter().zip(&got) {
        let expected = part.iter().map(|token| reference.next(*token)).last().unwrap();
        let spread = expected.iter().fold(0f64, |largest, x| largest.max(x.abs()));
        assert_eq!(got.len(), VOCABULARY);
        assert!(spread > 0.5, "logits of at most {spread} tell nothing");
        let difference =
            got.iter().zip(&expected).map(|(got, expected)| (f64::from(*got) - expected).abs()).fold(0.0, f64::max);
        worst = worst.max(difference / spread);
    }
    assert!(worst <= tolerance, "logits differ by {worst:e} of the largest");

    // The same with weights in a file of their own.
    let apart = tempfile::tempdir().unwrap();
    let imported = import_from(Cursor::new(tiny.file.bytes()), apart.path(), 10_000).unwrap();
    assert_eq!(imported.files[1].file_name().unwrap(), EXTERNAL_FILE);
    assert!(std::fs::metadata(&imported.files[0]).unwrap().len() < 200_000);
    assert_eq!(logits(&mut decoder(apart.path()), &slices), got);
}

/// Activations are brought to integers of 16 bits for weights in blocks.
const OF_BLOCKS: f64 = 3e-4;
/// And 4-bit weights with zero points that are no whole numbers to int8: some 1/254 of a block's largest.
const OF_RECENTRED_BLOCKS: f64 = 2e-2;

#[test]
fn llama_in_q4_1_with_a_shared_q8_0_embedding() {
    let (embedding, output) = (Stored::Q8_0, None);
    let matrices = &[Stored::Q4_1];
    let shape = Shape { architecture: "llama", heads: 4, kv_heads: 2, embedding, output, matrices, has_bias: false };
    check(&shape, 1, OF_RECENTRED_BLOCKS);
}

#[test]
fn llama_in_k_quants() {
    let (embedding, output) = (Stored::Q4K, Some(Stored::Q6K));
    let matrices = &[Stored::Q4K, Stored::Q4K, Stored::Q6K];
    let shape = Shape { architecture: "llama", heads: 4, kv_heads: 1, embedding, output, matrices, has_bias: false };
    check(&shape, 2, OF_RECENTRED_BLOCKS);
}

#[test]
fn llama_without_shared_heads_and_with_a_shared_embedding_of_four_bits() {
    for (seed, embedding, tolerance) in
        [(3, Stored::Q4_1, OF_RECENTRED_BLOCKS), (4, Stored::Q4_0, OF_BLOCKS), (5, Stored::Q6K, OF_BLOCKS)]
    {
        let matrices = &[Stored::Q8_0, Stored::Q4_0];
        let shape =
            Shape { architecture: "llama", heads: 4, kv_heads: 4, embedding, output: None, matrices, has_bias: true };
        check(&shape, seed, tolerance);
    }
}

#[test]
fn qwen2_with_biases() {
    let (embedding, output) = (Stored::Q4_0, Some(Stored::Q8_0));
    let matrices = &[Stored::Q4_0, Stored::Q8_0, Stored::Q4_1];
    let shape = Shape { architecture: "qwen2", heads: 6, kv_heads: 2, embedding, output, matrices, has_bias: true };
    check(&shape, 6, OF_RECENTRED_BLOCKS);
}

#[test]
fn floats_of_all_kinds() {
    for (seed, embedding, output) in
        [(7, Stored::F16, None), (8, Stored::F32, None), (9, Stored::Bf16, Some(Stored::F16))]
    {
        let matrices = &[Stored::F16, Stored::Bf16, Stored::F32];
        let shape = Shape { architecture: "qwen2", heads: 4, kv_heads: 2, embedding, output, matrices, has_bias: true };
        check(&shape, seed, 1e-5);
    }
}
