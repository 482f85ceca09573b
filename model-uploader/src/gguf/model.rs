//! What a model's metadata and tensors say of its architecture.

use super::error::{GgufError, Result};
use super::metadata::{Metadata, required};
use super::reader::TensorInfo;
use std::collections::{BTreeMap, BTreeSet};

pub(super) const EMBEDDING: &str = "token_embd.weight";
pub(super) const OUTPUT: &str = "output.weight";
pub(super) const OUTPUT_NORM: &str = "output_norm.weight";
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Architecture {
    /// Rows of the queries' and keys' weights have the halves of rotary pairs side by side.
    Llama,
    /// Rows are as Hugging Face has them.
    Qwen2,
}

/// Sizes and numbers of a model.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Config {
    pub architecture: Architecture,
    pub layers: u64,
    /// Numbers of a token between layers.
    pub width: u64,
    /// Numbers inside the feed-forward part.
    pub inner: u64,
    pub heads: u64,
    /// Heads of keys and values; `heads` is a multiple of it.
    pub kv_heads: u64,
    pub head_size: u64,
    pub vocabulary: u64,
    pub epsilon: f32,
    pub rope_base: f64,
    /// What positions are divided by.
    pub rope_divisor: f64,
    pub context_length: Option<u64>,
}

/// A model whose tensors are all there, in the shapes that its architecture has.
pub(super) struct Model<'a> {
    pub config: Config,
    tensors: BTreeMap<&'a str, &'a TensorInfo>,
}

impl<'a> Model<'a> {
    /// # Errors
    /// When metadata or a tensor is missing or contradicts the rest, or a tensor is there that this would ignore.
    pub fn new(metadata: Metadata<'_>, tensors: &'a [TensorInfo]) -> Result<Self> {
        let tensors = tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        let mut model = Self { config: config(metadata)?, tensors };
        let embedding = model.needed(EMBEDDING)?;
        model.config.vocabulary = embedding.dims.get(1).copied().unwrap_or(1);
        model.check_tensors()?;
        Ok(model)
    }

    pub fn tensor(&self, name: &str) -> Option<&'a TensorInfo> {
        self.tensors.get(name).copied()
    }

    pub fn needed(&self, name: &str) -> Result<&'a TensorInfo> {
        self.tensor(name).ok_or_else(|| GgufError::MissingTensor(name.to_string()))
    }

    fn check_tensors(&self) -> Result<()> {
        let &Config { width, inner, heads, kv_heads, head_size, vocabulary, .. } = &self.config;
        let mut known = BTreeSet::new();
        let mut check = |name: &str, is_needed: bool, expected: &[u64]| {
            let Some(tensor) = (if is_needed { Some(self.needed(name)?) } else { self.tensor(name) }) else {
                return Ok(());
            };
            if tensor.dims != expected {
                let (got, expected) = (tensor.dims.clone(), expected.to_vec());
                return Err(GgufError::TensorShape { tensor: name.to_string(), got, expected });
            }
            known.insert(name.to_string());
            Ok(())
        };
        check(EMBEDDING, true, &[width, vocabulary])?;
        check(OUTPUT, false, &[width, vocabulary])?;
        check(OUTPUT_NORM, true, &[width])?;
        check(ROPE_FACTORS, false, &[head_size / 2])?;
        let (of_queries, of_keys) = (heads * head_size, kv_heads * head_size);
        for layer in 0..self.config.layers {
            for (part, is_needed, dims) in [
                ("attn_norm.weight", true, &[width][..]),
                ("attn_q.weight", true, &[width, of_queries]),
                ("attn_k.weight", true, &[width, of_keys]),
                ("attn_v.weight", true, &[width, of_keys]),
                ("attn_output.weight", true, &[of_queries, width]),
                ("attn_q.bias", false, &[of_queries]),
                ("attn_k.bias", false, &[of_keys]),
                ("attn_v.bias", false, &[of_keys]),
                ("attn_output.bias", false, &[width]),
                ("ffn_norm.weight", true, &[width]),
                ("ffn_gate.weight", true, &[width, inner]),
                ("ffn_up.weight", true, &[width, inner]),
                ("ffn_down.weight", true, &[inner, width]),
            ] {
                check(&layer_name(layer, part), is_needed, dims)?;
            }
        }
        match self.tensors.keys().find(|name| !known.contains(**name)) {
            Some(name) => Err(GgufError::UnknownTensor(name.to_string())),
            None => Ok(()),
        }
    }
}

/// The name of a layer's tensor.
pub(super) fn layer_name(layer: u64, part: &str) -> String {
    format!("blk.{layer}.{part}")
}

fn config(metadata: Metadata<'_>) -> Result<Config> {
    let name = required("general.architecture", metadata.string("general.architecture")?)?;
    let architecture = match name {
        "llama" => Architecture::Llama,
        "qwen2" => Architecture::Qwen2,
        _ => return Err(GgufError::Architecture(name.to_string())),
    };
    let key = |key: &str| format!("{name}.{key}");
    // Sizes beyond it are no model's, and their products would not fit.
    let size = |of: &str| {
        let (key, value) = (key(of), metadata.unsigned(&key(of))?);
        match value {
            Some(value) if !(1..=1 << 24).contains(&value) => {
                let reason = "a size is from 1 to 16777216";
                Err(GgufError::KeyValue { key, value: value.to_string(), reason })
            }
            _ => Ok(value),
        }
    };
    let needed = |of: &str| size(of).and_then(|value| required(&key(of), value));
    let wrong = |of: &str, value: &dyn ToString, reason: &'static str| {
        Err(GgufError::KeyValue { key: key(of), value: value.to_string(), reason })
    };
    let (width, heads) = (needed("embedding_length")?, needed("attention.head_count")?);
    let kv_heads = size("attention.head_count_kv")?.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        return wrong("attention.head_count_kv", &kv_heads, "it does not divide attention.head_count");
    }
    let head_size = match size("attention.key_length")? {
        Some(size) => size,
        None if width.is_multiple_of(heads) => width / heads,
        None => return wrong("attention.head_count", &heads, "it does not divide embedding_length"),
    };
    if !head_size.is_multiple_of(2) {
        return wrong("attention.key_length", &head_size, "rotary embedding needs pairs");
    }
    if let Some(value) = size("attention.value_length")?.filter(|value| *value != head_size) {
        return wrong("attention.value_length", &value, "it is not the length of keys, which is not supported");
    }
    if let Some(value) = size("rope.dimension_count")?.filter(|value| *value != head_size) {
        return wrong("rope.dimension_count", &value, "rotary embedding of a part of a head is not supported");
    }
    if let Some(value) = metadata.unsigned(&key("expert_count"))?.filter(|value| *value != 0) {
        return wrong("expert_count", &value, "mixtures of experts are not supported");
    }
    let rope_divisor = match metadata.string(&key("rope.scaling.type"))? {
        None | Some("none") => 1.0,
        Some("linear") => {
            let factor = key("rope.scaling.factor");
            required(&factor, metadata.float(&factor)?)?
        }
        Some(other) => return wrong("rope.scaling.type", &other, "only \"none\" and \"linear\" are supported"),
    };
    let rope_base = metadata.float(&key("rope.freq_base"))?.unwrap_or(10_000.0);
    for (of, value) in [("rope.scaling.factor", rope_divisor), ("rope.freq_base", rope_base)] {
        if !(value.is_finite() && value > 0.0) {
            return wrong(of, &value, "it has to be above 0");
        }
    }
    let epsilon_key = key("attention.layer_norm_rms_epsilon");
    let epsilon = required(&epsilon_key, metadata.float(&epsilon_key)?)?;
    if !(epsilon.is_finite() && epsilon >= 0.0) {
        return wrong("attention.layer_norm_rms_epsilon", &epsilon, "it has to be 0 or above");
    }
    Ok(Config {
        architecture,
        layers: needed("block_count")?,
        width,
        inner: needed("feed_forward_length")?,
        heads,
        kv_heads,
        head_size,
        vocabulary: 0,
        epsilon: epsilon as f32,
        rope_base,
        rope_divisor,
        context_length: metadata.unsigned(&key("context_length"))?,
    })
}

impl Config {
    /// The angle of each pair at position 1, from the factors that the file has for it, if any.
    pub fn rope_frequencies(&self, factors: Option<&[f32]>) -> Vec<f32> {
        let pairs = self.head_size / 2;
        (0..pairs as usize)
            .map(|pair| {
                // The C library's pow differs between machines.
                let power = libm::pow(self.rope_base, -((2 * pair) as f64) / self.head_size as f64);
                let factor = factors.and_then(|factors| factors.get(pair)).map_or(1.0, |factor| f64::from(*factor));
                (power / self.rope_divisor / factor) as f32
            })
            .collect()
    }
}
