//! Each way in which a file may be malformed or not supported has its own error, and leaves no file behind.

use super::file::{GgufFile, Value};
use super::tokenizers::tiny;
use model_uploader::gguf::{GgufError, import_from};
use std::io::Cursor;

fn error_of_bytes(bytes: Vec<u8>) -> GgufError {
    let folder = tempfile::tempdir().unwrap();
    let error = import_from(Cursor::new(bytes), folder.path(), u64::MAX).unwrap_err();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{error}");
    error
}

fn error_of(change: impl FnOnce(&mut GgufFile)) -> GgufError {
    let mut file = tiny();
    change(&mut file);
    error_of_bytes(file.bytes())
}

macro_rules! assert_error {
    ($error:expr, $pattern:pat $(if $guard:expr)?) => {{
        let error = $error;
        assert!(matches!(&error, $pattern $(if $guard)?), "{error:?}");
    }};
}

fn text(value: &str) -> Value {
    Value::Text(value.into())
}

/// A metadata value by itself, and what reading it says.
fn error_of_value(value_type: u32, bytes: &[u8]) -> GgufError {
    error_of(|file| file.metadata.insert(0, ("x".into(), Value::Raw(value_type, bytes.to_vec()))))
}

#[test]
fn a_file_that_ends_anywhere_is_refused() {
    let bytes = tiny().bytes();
    let structure = 2_000;
    for length in (0..structure).chain([bytes.len() / 2, bytes.len() - 1]) {
        let error = error_of_bytes(bytes[..length].to_vec());
        assert!(matches!(error, GgufError::End { .. } | GgufError::OutOfFile { .. }), "{length}: {error:?}");
    }
}

#[test]
fn what_is_no_gguf_file_is_refused() {
    let good = tiny().bytes();
    let mut bytes = good.clone();
    bytes[3] = b'G';
    assert_error!(error_of_bytes(bytes), GgufError::Magic([b'G', b'G', b'U', b'G']));
    assert_error!(error_of(|file| file.version = 1), GgufError::Version(1));
    assert_error!(error_of(|file| file.version = 3 << 24), GgufError::Version(0x0300_0000));
    // Counts and lengths that the file has no bytes for.
    for at in [8, 16, 24] {
        let mut bytes = good.clone();
        bytes[at..at + 8].fill(0xff);
        let error = error_of_bytes(bytes);
        assert!(!error.to_string().is_empty());
    }
    let mut bytes = good.clone();
    bytes[24..32].fill(0xff);
    assert_error!(error_of_bytes(bytes), GgufError::TooLarge { limit: 65535, .. });
    let mut bytes = good;
    bytes[32] = 0xff;
    assert_error!(error_of_bytes(bytes), GgufError::Utf8 { .. });
}

#[test]
fn version_2_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = tiny();
    file.version = 2;
    assert!(import_from(Cursor::new(file.bytes()), folder.path(), u64::MAX).is_ok());
}

#[test]
fn metadata_values_are_bounded() {
    assert_error!(error_of_value(13, &[]), GgufError::ValueType { value: 13, .. });
    assert_error!(error_of_value(7, &[2]), GgufError::Bool { value: 2, .. });
    let nested = [9u32.to_le_bytes().as_slice(), &1u64.to_le_bytes()].concat();
    assert_error!(error_of_value(9, &nested), GgufError::NestedArray { .. });
    let long = u64::MAX.to_le_bytes();
    assert_error!(error_of_value(8, &long), GgufError::TooLarge { .. });
    for (element, expected) in [(0u32, "End"), (6, "End"), (8, "anything"), (13, "ValueType")] {
        let array = [element.to_le_bytes().as_slice(), &long].concat();
        let error = format!("{:?}", error_of_value(9, &array));
        assert!(error.starts_with(expected) || expected == "anything", "{error}");
    }
    assert_error!(
        error_of(|file| file.metadata.push(file.metadata[0].clone())),
        GgufError::DuplicateKey(key) if key == "general.architecture"
    );
    for alignment in [0, 3, 1 << 17] {
        assert_error!(
            error_of(|file| file.set("general.alignment", Value::U32(alignment))),
            GgufError::Alignment(value) if *value == u64::from(alignment)
        );
    }
    assert_error!(error_of(|file| file.set("general.alignment", text("32"))), GgufError::KeyType { .. });
}

#[test]
fn tensors_are_inside_the_file_and_apart() {
    let name = "blk.1.ffn_down.weight";
    let good = tiny();
    let end = good.bytes().len() as u64;
    let moved = |to: &dyn Fn(u64) -> u64| {
        error_of_bytes(good.bytes_with(|tensor, offset| if tensor == name { to(offset) } else { offset }))
    };
    assert_error!(moved(&|offset| offset + 8), GgufError::Unaligned { tensor, alignment: 32, .. } if tensor == name);
    assert_error!(moved(&|_| end.next_multiple_of(32)), GgufError::OutOfFile { tensor, .. } if tensor == name);
    assert_error!(moved(&|_| u64::MAX - 31), GgufError::OutOfFile { tensor, .. } if tensor == name);
    assert_error!(moved(&|offset| offset - 32), GgufError::Overlap { second, .. } if second == name);
    assert_error!(moved(&|_| 0), GgufError::Overlap { .. });

    assert_error!(error_of(|file| file.tensor(name).dims = vec![]), GgufError::Rank { rank: 0, .. });
    assert_error!(error_of(|file| file.tensor(name).dims = vec![32; 5]), GgufError::Rank { rank: 5, .. });
    assert_error!(error_of(|file| file.tensor(name).dims = vec![0, 256]), GgufError::Dims { .. });
    assert_error!(error_of(|file| file.tensor(name).dims = vec![1 << 32, 1 << 32]), GgufError::Dims { .. });
    assert_error!(error_of(|file| file.tensor(name).dims = vec![1 << 40]), GgufError::OutOfFile { .. });
    assert_error!(error_of(|file| file.tensor(name).dims = vec![500, 256]), GgufError::PartialBlock { row: 500, .. });
    assert_error!(error_of(|file| file.tensor(name).ggml_type = 6), GgufError::TensorType { value: 6, .. });
    assert_error!(error_of(|file| file.tensor(name).name = "x".repeat(65)), GgufError::TooLarge { limit: 64, .. });
    assert_error!(
        error_of(|file| file.tensor(name).name = "blk.0.ffn_down.weight".into()),
        GgufError::DuplicateTensor(_)
    );
    let nan = half::f16::NAN.to_le_bytes();
    assert_error!(
        error_of(|file| file.tensor(name).bytes[20..22].copy_from_slice(&nan)),
        GgufError::NotFinite { block: 1, .. }
    );
    let infinite = f32::INFINITY.to_le_bytes();
    assert_error!(
        error_of(|file| file.tensor("output_norm.weight").bytes[8..12].copy_from_slice(&infinite)),
        GgufError::NotFinite { block: 2, .. }
    );
}

#[test]
fn the_architecture_has_to_fit() {
    assert_error!(error_of(|file| file.set("general.architecture", text("gemma"))), GgufError::Architecture(_));
    for key in ["general.architecture", "llama.block_count", "llama.embedding_length", "llama.feed_forward_length"] {
        assert_error!(error_of(|file| file.remove(key)), GgufError::MissingKey(missing) if missing == key);
    }
    for (key, value) in [
        ("llama.embedding_length", Value::Bool(true)),
        ("llama.rope.freq_base", Value::U32(1)),
        ("llama.rope.scaling.type", Value::U32(1)),
        ("llama.expert_count", text("8")),
    ] {
        assert_error!(error_of(|file| file.set(key, value)), GgufError::KeyType { key: wrong, .. } if wrong == key);
    }
    for (key, value) in [
        ("llama.attention.head_count", Value::U32(0)),
        ("llama.attention.head_count_kv", Value::U32(3)),
        ("llama.attention.key_length", Value::U32(63)),
        ("llama.attention.value_length", Value::U32(32)),
        ("llama.rope.dimension_count", Value::U32(32)),
        ("llama.rope.freq_base", Value::F32(0.0)),
        ("llama.rope.freq_base", Value::F32(f32::NAN)),
        ("llama.rope.scaling.type", text("yarn")),
        ("llama.expert_count", Value::U32(8)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(-1.0)),
        ("llama.block_count", Value::U32(u32::MAX)),
    ] {
        assert_error!(error_of(|file| file.set(key, value)), GgufError::KeyValue { key: wrong, .. } if wrong == key);
    }
    assert_error!(
        error_of(|file| file.set("llama.block_count", Value::U32(3))),
        GgufError::MissingTensor(name) if name == "blk.2.attn_norm.weight"
    );
    assert_error!(
        error_of(|file| file.set("llama.block_count", Value::U32(1))),
        GgufError::UnknownTensor(name) if name.starts_with("blk.1.")
    );
    assert_error!(
        error_of(|file| file.tensor("blk.0.attn_q.weight").name = "blk.0.attn_qkv.weight".into()),
        GgufError::MissingTensor(name) if name == "blk.0.attn_q.weight"
    );
    assert_error!(
        error_of(|file| file.tensor("blk.0.attn_q.weight").dims = vec![512, 128]),
        GgufError::TensorShape { .. }
    );
    assert_error!(error_of(|file| file.tensors.remove(0).bytes.clear()), GgufError::MissingTensor(_));
}

#[test]
fn the_tokenizer_has_to_fit() {
    let texts = |texts: &[&str]| Value::Texts(texts.iter().map(ToString::to_string).collect());
    assert_error!(error_of(|file| file.set("tokenizer.ggml.model", text("bert"))), GgufError::TokenizerModel(_));
    assert_error!(error_of(|file| file.set("tokenizer.ggml.pre", text("viking"))), GgufError::PreTokenizer(_));
    for key in ["tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens", "tokenizer.ggml.merges"] {
        assert_error!(error_of(|file| file.remove(key)), GgufError::MissingKey(missing) if missing == key);
    }
    for tokens in [Value::Texts(vec![]), Value::Texts((0..71).map(|token| token.to_string()).collect())] {
        assert_error!(error_of(|file| file.set("tokenizer.ggml.tokens", tokens)), GgufError::TokenizerLength { .. });
    }
    assert_error!(
        error_of(|file| file.set("tokenizer.ggml.tokens", texts(&["a", "b", "a"]))),
        GgufError::DuplicateToken { first: 0, second: 2, .. }
    );
    assert_error!(
        error_of(|file| file.set("tokenizer.ggml.tokens", texts(&[&"a".repeat(5000)]))),
        GgufError::TooLarge { value: 5000, .. }
    );
    assert_error!(
        error_of(|file| file.set("tokenizer.ggml.token_type", Value::I32s(vec![1; 7]))),
        GgufError::TokenizerLength { got: 7, .. }
    );
    assert_error!(
        error_of(|file| file.set("tokenizer.ggml.token_type", Value::I32s(vec![1, 1, 1, 1, 1, 1, 9, 1]))),
        GgufError::TokenKind { token: 6, kind: 9 }
    );
    for merge in ["ab", "a b c", " b", "a "] {
        assert_error!(
            error_of(|file| file.set("tokenizer.ggml.merges", texts(&["a b", merge]))),
            GgufError::Merge { index: 1, .. }
        );
    }
    for merge in ["x b", "b x", "b a"] {
        assert_error!(
            error_of(|file| file.set("tokenizer.ggml.merges", texts(&["a b", merge]))),
            GgufError::MergeToken { index: 1, .. }
        );
    }
    assert_error!(
        error_of(|file| file.set("tokenizer.ggml.eos_token_id", Value::U32(8))),
        GgufError::TokenId { id: 8, tokens: 8, .. }
    );
    let mut file = tiny();
    file.set("tokenizer.ggml.model", text("llama"));
    assert_error!(error_of_bytes(file.bytes()), GgufError::MissingKey(key) if key == "tokenizer.ggml.scores");
    file.set("tokenizer.ggml.scores", Value::F32s(vec![0.0; 9]));
    assert_error!(error_of_bytes(file.bytes()), GgufError::TokenizerLength { got: 9, .. });
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.gguf");
    let error = model_uploader::gguf::import(&path, folder.path()).unwrap_err();
    assert!(matches!(error, GgufError::File { .. }) && error.to_string().contains("none.gguf"), "{error}");
}
