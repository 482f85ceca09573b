//! What can be wrong with a GGUF file, or with what is asked of it.

use std::path::PathBuf;

/// Why a GGUF file was not imported. Each names the place and the value.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: std::io::Error },
    #[error("reading {place}: {error}")]
    Read { place: String, error: std::io::Error },
    #[error("writing: {0}")]
    Write(std::io::Error),
    #[error("it is no GGUF file: it begins with {0:02x?}")]
    Magic([u8; 4]),
    #[error("GGUF version {0} is not supported, 2 and 3 are (a file for big-endian machines has its version reversed)")]
    Version(u32),
    #[error("the file ends {left} bytes after the beginning of {place}, which takes {needed}")]
    End { place: String, needed: u64, left: u64 },
    #[error("{place} takes {value}, the most is {limit}")]
    TooLarge { place: String, value: u64, limit: u64 },
    #[error("{place} is not UTF-8")]
    Utf8 { place: String },
    #[error("{place} has the unknown type {value}")]
    ValueType { place: String, value: u32 },
    #[error("{place} is an array of arrays")]
    NestedArray { place: String },
    #[error("{place} is the byte {value}, neither true nor false")]
    Bool { place: String, value: u8 },
    #[error("metadata {0:?} is there twice")]
    DuplicateKey(String),
    #[error("general.alignment is {0}, not a power of two from 8 to 65536")]
    Alignment(u64),
    #[error("tensor {0:?} is there twice")]
    DuplicateTensor(String),
    #[error("tensor {tensor:?} has {rank} axes, not 1 to 4")]
    Rank { tensor: String, rank: u32 },
    #[error("tensor {tensor:?} has the axes {dims:?}, with no element or too many")]
    Dims { tensor: String, dims: Vec<u64> },
    #[error("tensor {tensor:?} has the type {value}; supported are F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K and Q6_K")]
    TensorType { tensor: String, value: u32 },
    #[error("tensor {tensor:?} has rows of {row} elements, not of whole blocks of {block}")]
    PartialBlock { tensor: String, row: u64, block: u64 },
    #[error("tensor {tensor:?} begins at {offset}, which is no multiple of {alignment}")]
    Unaligned { tensor: String, offset: u64, alignment: u64 },
    #[error("tensor {tensor:?} ends at byte {end}, the file at {length}")]
    OutOfFile { tensor: String, end: u64, length: u64 },
    #[error("tensors {first:?} and {second:?} overlap")]
    Overlap { first: String, second: String },
    #[error("tensor {tensor:?} has a scale or element that is no finite number, in block {block}")]
    NotFinite { tensor: String, block: usize },

    #[error("metadata {0:?} is missing")]
    MissingKey(String),
    #[error("metadata {key:?} is not {expected}")]
    KeyType { key: String, expected: &'static str },
    #[error("metadata {key:?} is {value}: {reason}")]
    KeyValue { key: String, value: String, reason: &'static str },
    #[error("architecture {0:?} is not supported, \"llama\" and \"qwen2\" are")]
    Architecture(String),
    #[error("tensor {0:?} is missing")]
    MissingTensor(String),
    #[error("tensor {0:?} is none that its architecture has")]
    UnknownTensor(String),
    #[error("tensor {tensor:?} has the axes {got:?}, needed are {expected:?}")]
    TensorShape { tensor: String, got: Vec<u64>, expected: Vec<u64> },

    #[error("tokenizer {0:?} is not supported, \"gpt2\" and \"llama\" are")]
    TokenizerModel(String),
    #[error(
        "pre-tokenizer {0:?} is not known here; known are gpt-2, llama-bpe, qwen2 and smollm, and those that do the same"
    )]
    PreTokenizer(String),
    #[error("{what} has {got} entries, needed are {expected}")]
    TokenizerLength { what: &'static str, got: u64, expected: String },
    #[error("token {second} is {text:?}, as token {first} is")]
    DuplicateToken { text: String, first: usize, second: usize },
    #[error("token {token} has the unknown kind {kind}")]
    TokenKind { token: usize, kind: i64 },
    #[error("merge {index} is {text:?}, not two tokens with a space between")]
    Merge { index: usize, text: String },
    #[error("merge {index} takes or makes {text:?}, which is no token")]
    MergeToken { index: usize, text: String },
    #[error("{key} is {id}, the vocabulary has {tokens} tokens")]
    TokenId { key: String, id: u64, tokens: usize },
}

pub(super) type Result<T> = std::result::Result<T, GgufError>;
