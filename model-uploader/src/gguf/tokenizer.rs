//! The tokenizer of a GGUF file as the files that Hugging Face's libraries read: `tokenizer.json`, `tokenizer_config.json`
//! and `generation_config.json`.
//!
//! A `gpt2` tokenizer is byte-level BPE with the merges of the file and the pre-tokenizer that `tokenizer.ggml.pre` names. A
//! `llama` tokenizer is SentencePiece BPE: its merges are all pairs of tokens that make a token, by the score of what they
//! make, as Hugging Face's conversion has them.

use super::error::{GgufError, Result};
use super::metadata::{Metadata, required};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use std::cmp::Reverse;
use std::collections::HashMap;

/// Characters of a token, the longest of known vocabularies has 256. Merges of a token are as many.
const TOKEN_BYTES_MAX: usize = 2048;
const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const KINDS: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const PRE_TOKENIZER: &str = "tokenizer.ggml.pre";

/// GPT-4's way to split text, with numbers of at most that many digits: Llama 3 has 3, Qwen2 has 1.
const SPLIT_HEAD: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|";
const SPLIT_TAIL: &str = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The texts of the files.
pub(super) struct TokenizerFiles {
    pub tokenizer: Vec<u8>,
    pub tokenizer_config: Vec<u8>,
    pub generation_config: Vec<u8>,
}

/// The kinds of tokens, by llama.cpp's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// What the metadata says, checked.
struct Vocabulary<'a> {
    metadata: Metadata<'a>,
    tokens: &'a [String],
    kinds: Vec<Kind>,
    ids: HashMap<&'a str, usize>,
}

impl<'a> Vocabulary<'a> {
    fn new(metadata: Metadata<'a>, tokens_max: u64) -> Result<Self> {
        let tokens = required(TOKENS, metadata.strings(TOKENS)?)?;
        if tokens.is_empty() || tokens.len() as u64 > tokens_max {
            let expected = format!("1 to {tokens_max}, as the embedding has rows");
            return Err(GgufError::TokenizerLength { what: TOKENS, got: tokens.len() as u64, expected });
        }
        let mut ids = HashMap::with_capacity(tokens.len());
        for (second, token) in tokens.iter().enumerate() {
            if token.len() > TOKEN_BYTES_MAX {
                let (value, limit) = (token.len() as u64, TOKEN_BYTES_MAX as u64);
                return Err(GgufError::TooLarge { place: format!("token {second}"), value, limit });
            }
            if let Some(first) = ids.insert(token.as_str(), second) {
                return Err(GgufError::DuplicateToken { text: token.clone(), first, second });
            }
        }
        let kinds = match metadata.integers(KINDS)? {
            None => vec![Kind::Normal; tokens.len()],
            Some(kinds) => {
                same_length(KINDS, kinds.len(), tokens.len())?;
                kinds.iter().enumerate().map(|(token, kind)| Kind::of(token, *kind)).collect::<Result<_>>()?
            }
        };
        Ok(Self { metadata, tokens, kinds, ids })
    }

    /// The token that a key names, if there is that key.
    fn token(&self, name: &str) -> Result<Option<usize>> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let Some(id) = self.metadata.unsigned(&key)? else { return Ok(None) };
        match usize::try_from(id).ok().filter(|id| *id < self.tokens.len()) {
            Some(id) => Ok(Some(id)),
            None => Err(GgufError::TokenId { key, id, tokens: self.tokens.len() }),
        }
    }

    fn text(&self, name: &str) -> Result<Option<&'a str>> {
        Ok(self.token(name)?.map(|id| self.tokens[id].as_str()))
    }
}

fn same_length(what: &'static str, got: usize, tokens: usize) -> Result<()> {
    if got == tokens {
        return Ok(());
    }
    Err(GgufError::TokenizerLength { what, got: got as u64, expected: format!("{tokens}, one for each token") })
}

impl Kind {
    fn of(token: usize, kind: i64) -> Result<Self> {
        Ok(match kind {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return Err(GgufError::TokenKind { token, kind }),
        })
    }
}

/// `tokenizer.json`. Its fields are written in this order, so that the same file comes out everywhere.
#[derive(Serialize)]
struct Tokenizer<'a> {
    version: &'static str,
    truncation: (),
    padding: (),
    added_tokens: Vec<AddedToken<'a>>,
    normalizer: Option<Normalizer>,
    pre_tokenizer: Option<PreTokenizer>,
    post_processor: Option<PostProcessor<'a>>,
    decoder: Decoder,
    model: Bpe<'a>,
}

#[derive(Serialize)]
struct AddedToken<'a> {
    id: usize,
    content: &'a str,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

#[derive(Serialize)]
#[serde(tag = "type")]
enum Normalizer {
    #[serde(rename = "NFC")]
    Nfc,
    Sequence {
        normalizers: Vec<Normalizer>,
    },
    Prepend {
        prepend: &'static str,
    },
    Replace {
        pattern: Pattern,
        content: &'static str,
    },
}

#[derive(Serialize)]
enum Pattern {
    String(&'static str),
    Regex(String),
}

#[derive(Serialize)]
#[serde(tag = "type")]
enum PreTokenizer {
    Sequence { pretokenizers: Vec<PreTokenizer> },
    Digits { individual_digits: bool },
    Split { pattern: Pattern, behavior: &'static str, invert: bool },
    ByteLevel { add_prefix_space: bool, trim_offsets: bool, use_regex: bool },
}

#[derive(Serialize)]
#[serde(tag = "type")]
enum PostProcessor<'a> {
    TemplateProcessing { single: Vec<Piece<'a>>, pair: Vec<Piece<'a>>, special_tokens: SpecialTokens<'a> },
}

#[derive(Clone, Serialize)]
enum Piece<'a> {
    SpecialToken { id: &'a str, type_id: u32 },
    Sequence { id: &'static str, type_id: u32 },
}

/// Text and number of the tokens that are put around a text.
struct SpecialTokens<'a>(Vec<(&'a str, usize)>);

#[derive(Serialize)]
struct SpecialToken<'a> {
    id: &'a str,
    ids: [usize; 1],
    tokens: [&'a str; 1],
}

impl Serialize for SpecialTokens<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let entries = self.0.iter().copied();
        serializer.collect_map(entries.map(|(text, id)| (text, SpecialToken { id: text, ids: [id], tokens: [text] })))
    }
}

#[derive(Serialize)]
#[serde(tag = "type")]
enum Decoder {
    Sequence { decoders: Vec<Decoder> },
    Replace { pattern: Pattern, content: &'static str },
    ByteFallback {},
    Fuse {},
    Strip { content: &'static str, start: u32, stop: u32 },
    ByteLevel { add_prefix_space: bool, trim_offsets: bool, use_regex: bool },
}

#[derive(Serialize)]
struct Bpe<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    dropout: (),
    unk_token: Option<&'a str>,
    continuing_subword_prefix: (),
    end_of_word_suffix: (),
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    vocab: Vocab<'a>,
    merges: Vec<(&'a str, &'a str)>,
}

/// Tokens with their numbers, in the order of these.
struct Vocab<'a>(&'a [String]);

impl Serialize for Vocab<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (id, token) in self.0.iter().enumerate() {
            map.serialize_entry(token, &id)?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct TokenizerConfig<'a> {
    add_bos_token: bool,
    add_eos_token: bool,
    bos_token: Option<&'a str>,
    eos_token: Option<&'a str>,
    unk_token: Option<&'a str>,
    pad_token: Option<&'a str>,
    clean_up_tokenization_spaces: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_max_length: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_template: Option<&'a str>,
}

#[derive(Serialize)]
struct GenerationConfig {
    bos_token_id: Option<usize>,
    /// All tokens that end a text or a turn.
    eos_token_id: Vec<usize>,
    pad_token_id: Option<usize>,
}

/// Makes the files. The vocabulary has at most `tokens_max` tokens, the rows of the embedding.
pub(super) fn files(metadata: Metadata<'_>, tokens_max: u64, context_length: Option<u64>) -> Result<TokenizerFiles> {
    let model = required("tokenizer.ggml.model", metadata.string("tokenizer.ggml.model")?)?;
    let vocabulary = Vocabulary::new(metadata, tokens_max)?;
    let is_sentencepiece = match model {
        "gpt2" => false,
        "llama" => true,
        _ => return Err(GgufError::TokenizerModel(model.to_string())),
    };
    let add_bos = metadata.bool("tokenizer.ggml.add_bos_token")?;
    let add_eos = metadata.bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
    let (mut tokenizer, add_bos) = match is_sentencepiece {
        true => (sentencepiece(&vocabulary)?, add_bos.unwrap_or(true)),
        false => {
            let pre = required(PRE_TOKENIZER, metadata.string(PRE_TOKENIZER)?)?;
            let splitting = Splitting::of(pre).ok_or_else(|| GgufError::PreTokenizer(pre.to_string()))?;
            // Where the file does not say, llama.cpp decides by the pre-tokenizer.
            (byte_level(&vocabulary, splitting)?, add_bos.unwrap_or(splitting == Splitting::Llama3))
        }
    };
    let around = |is_added: bool, name: &str| -> Result<Vec<usize>> {
        match (is_added, vocabulary.token(name)?) {
            (true, Some(id)) => Ok(vec![id]),
            _ => Ok(Vec::new()),
        }
    };
    tokenizer.post_processor = post_processor(&vocabulary, &around(add_bos, "bos")?, &around(add_eos, "eos")?);
    let mut ends = Vec::new();
    for name in ["eos", "eot", "eom"] {
        ends.extend(vocabulary.token(name)?.filter(|id| !ends.contains(id)));
    }
    let config = TokenizerConfig {
        add_bos_token: add_bos,
        add_eos_token: add_eos,
        bos_token: vocabulary.text("bos")?,
        eos_token: vocabulary.text("eos")?,
        unk_token: vocabulary.text("unknown")?,
        pad_token: vocabulary.text("padding")?,
        clean_up_tokenization_spaces: false,
        model_max_length: context_length,
        chat_template: metadata.string("tokenizer.chat_template")?,
    };
    let generation = GenerationConfig {
        bos_token_id: vocabulary.token("bos")?,
        eos_token_id: ends,
        pad_token_id: vocabulary.token("padding")?,
    };
    Ok(TokenizerFiles {
        tokenizer: json(&tokenizer),
        tokenizer_config: json(&config),
        generation_config: json(&generation),
    })
}

/// Texts, numbers and lists of them are always JSON.
fn json(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

fn tokenizer<'a>(vocabulary: &Vocabulary<'a>, model: Bpe<'a>, decoder: Decoder) -> Tokenizer<'a> {
    let added = |(id, content): (usize, &'a String)| {
        let special = match vocabulary.kinds[id] {
            Kind::Control | Kind::Unknown => true,
            Kind::UserDefined => false,
            Kind::Normal | Kind::Unused | Kind::Byte => return None,
        };
        let (single_word, lstrip, rstrip, normalized) = (false, false, false, false);
        Some(AddedToken { id, content, single_word, lstrip, rstrip, normalized, special })
    };
    Tokenizer {
        version: "1.0",
        truncation: (),
        padding: (),
        added_tokens: vocabulary.tokens.iter().enumerate().filter_map(added).collect(),
        normalizer: None,
        pre_tokenizer: None,
        post_processor: None,
        decoder,
        model,
    }
}

fn post_processor<'a>(vocabulary: &Vocabulary<'a>, before: &[usize], after: &[usize]) -> Option<PostProcessor<'a>> {
    if before.is_empty() && after.is_empty() {
        return None;
    }
    let special = |ids: &[usize], type_id| -> Vec<Piece<'a>> {
        ids.iter().map(|id| Piece::SpecialToken { id: &vocabulary.tokens[*id], type_id }).collect()
    };
    let text = |id, type_id| {
        [special(before, type_id), vec![Piece::Sequence { id, type_id }], special(after, type_id)].concat()
    };
    let mut ids: Vec<usize> = before.iter().chain(after).copied().collect();
    ids.sort_unstable();
    ids.dedup();
    let special_tokens = SpecialTokens(ids.iter().map(|id| (vocabulary.tokens[*id].as_str(), *id)).collect());
    Some(PostProcessor::TemplateProcessing {
        single: text("A", 0),
        pair: [text("A", 0), text("B", 1)].concat(),
        special_tokens,
    })
}

/// How text is split before merges, by what llama.cpp's names stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Splitting {
    Gpt2,
    /// As GPT-2, each digit alone.
    SmolLm,
    Llama3,
    Qwen2,
}

impl Splitting {
    fn of(pre: &str) -> Option<Self> {
        Some(match pre {
            "gpt-2" => Self::Gpt2,
            "smollm" | "starcoder" | "refact" | "codeshell" => Self::SmolLm,
            "llama-bpe" | "llama3" | "llama-v3" => Self::Llama3,
            "qwen2" | "deepseek-r1-qwen" => Self::Qwen2,
            _ => return None,
        })
    }

    fn pre_tokenizer(self) -> PreTokenizer {
        let bytes = |use_regex| PreTokenizer::ByteLevel { add_prefix_space: false, trim_offsets: true, use_regex };
        let first = match self {
            Self::Gpt2 => return bytes(true),
            Self::SmolLm => PreTokenizer::Digits { individual_digits: true },
            Self::Llama3 | Self::Qwen2 => {
                let numbers = if self == Self::Llama3 { r"\p{N}{1,3}" } else { r"\p{N}" };
                let pattern = Pattern::Regex(format!("{SPLIT_HEAD}{numbers}{SPLIT_TAIL}"));
                PreTokenizer::Split { pattern, behavior: "Isolated", invert: false }
            }
        };
        PreTokenizer::Sequence { pretokenizers: vec![first, bytes(self == Self::SmolLm)] }
    }
}

fn byte_level<'a>(vocabulary: &Vocabulary<'a>, splitting: Splitting) -> Result<Tokenizer<'a>> {
    let lines = required(MERGES, vocabulary.metadata.strings(MERGES)?)?;
    let mut merges = Vec::with_capacity(lines.len());
    for (index, text) in lines.iter().enumerate() {
        // The space is that of no token: in byte-level tokens it is another character.
        let pair = text.split_once(' ').filter(|(left, right)| {
            !left.is_empty() && !right.is_empty() && !right.contains(' ') && text.len() <= TOKEN_BYTES_MAX
        });
        let Some((left, right)) = pair else { return Err(GgufError::Merge { index, text: text.clone() }) };
        let made = format!("{left}{right}");
        for token in [left, right, &made] {
            if !vocabulary.ids.contains_key(token) {
                return Err(GgufError::MergeToken { index, text: token.to_string() });
            }
        }
        merges.push((left, right));
    }
    let model = Bpe {
        kind: "BPE",
        dropout: (),
        unk_token: None,
        continuing_subword_prefix: (),
        end_of_word_suffix: (),
        fuse_unk: false,
        byte_fallback: false,
        ignore_merges: splitting == Splitting::Llama3,
        vocab: Vocab(vocabulary.tokens),
        merges,
    };
    let decoder = Decoder::ByteLevel { add_prefix_space: true, trim_offsets: true, use_regex: true };
    let mut tokenizer = tokenizer(vocabulary, model, decoder);
    tokenizer.normalizer = (splitting == Splitting::Qwen2).then_some(Normalizer::Nfc);
    tokenizer.pre_tokenizer = Some(splitting.pre_tokenizer());
    Ok(tokenizer)
}

/// What SentencePiece has for a space.
const SPACE: &str = "\u{2581}";

fn sentencepiece<'a>(vocabulary: &Vocabulary<'a>) -> Result<Tokenizer<'a>> {
    let scores = required(SCORES, vocabulary.metadata.floats(SCORES)?)?;
    same_length(SCORES, scores.len(), vocabulary.tokens.len())?;
    let unknown = (0..vocabulary.tokens.len()).find(|id| vocabulary.kinds[*id] == Kind::Unknown);
    let unknown = vocabulary.token("unknown")?.or(unknown);
    let model = Bpe {
        kind: "BPE",
        dropout: (),
        unk_token: unknown.map(|id| vocabulary.tokens[id].as_str()),
        continuing_subword_prefix: (),
        end_of_word_suffix: (),
        fuse_unk: true,
        byte_fallback: vocabulary.kinds.contains(&Kind::Byte),
        ignore_merges: false,
        vocab: Vocab(vocabulary.tokens),
        merges: merges_by_score(vocabulary, scores),
    };
    let has_prefix = vocabulary.metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let mut decoders = vec![
        Decoder::Replace { pattern: Pattern::String(SPACE), content: " " },
        Decoder::ByteFallback {},
        Decoder::Fuse {},
    ];
    let mut normalizers = vec![Normalizer::Replace { pattern: Pattern::String(" "), content: SPACE }];
    if has_prefix {
        decoders.push(Decoder::Strip { content: " ", start: 1, stop: 0 });
        normalizers.insert(0, Normalizer::Prepend { prepend: SPACE });
    }
    let mut tokenizer = tokenizer(vocabulary, model, Decoder::Sequence { decoders });
    tokenizer.normalizer = Some(Normalizer::Sequence { normalizers });
    Ok(tokenizer)
}

/// All pairs of tokens that make a token, the best score of what they make first; of those that make the same, the one
/// with the longer left part first.
fn merges_by_score<'a>(vocabulary: &Vocabulary<'a>, scores: &[f32]) -> Vec<(&'a str, &'a str)> {
    let is_text = |id: usize| matches!(vocabulary.kinds[id], Kind::Normal | Kind::UserDefined);
    let mut merges = Vec::new();
    for (id, token) in vocabulary.tokens.iter().enumerate().filter(|(id, _)| is_text(*id)) {
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            let (Some(one), Some(other)) = (vocabulary.ids.get(left), vocabulary.ids.get(right)) else { continue };
            if is_text(*one) && is_text(*other) {
                merges.push((scores[id], left.chars().count(), right.chars().count(), (left, right)));
            }
        }
    }
    // -0 and 0 are the same score.
    merges.sort_by(|a, b| {
        (b.0 + 0.0).total_cmp(&(a.0 + 0.0)).then((Reverse(a.1), Reverse(a.2)).cmp(&(Reverse(b.1), Reverse(b.2))))
    });
    merges.into_iter().map(|merge| merge.3).collect()
}
