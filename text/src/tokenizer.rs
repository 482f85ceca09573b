//! Text to tokens and back, as a `tokenizer.json` of Hugging Face says.

use crate::TextError;
use serde_json::Value;
use std::ops::Range;
use tk_encode::pipeline::{EncodeOptions, Override, PipelineTokenizer};

const FILE: &str = "tokenizer.json";
/// The version of the format that the reader takes; older files are turned into it.
const CANONICAL_VERSION: &str = "2.0";

/// A tokenizer: byte-level BPE, SentencePiece BPE, unigram, WordPiece or WordLevel.
pub struct Tokenizer {
    pipeline: PipelineTokenizer,
    /// Special tokens by content, longest first.
    specials: Vec<(String, u32)>,
    /// Tokens that the file lacks, of bytes that the model does not know.
    absent: Range<u32>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`, of the format that is published (1.0) or the canonical one (2.0).
    ///
    /// A pattern to split at must be one that a published family of models uses (GPT-2, cl100k, o200k, tekken, DeepSeek
    /// and their like) or plain text: there is no general regular expression here.
    pub fn from_json(json: &[u8]) -> Result<Tokenizer, TextError> {
        let invalid = |reason: String| TextError::file(FILE, reason);
        let text = std::str::from_utf8(json).map_err(|error| invalid(error.to_string()))?;
        let mut file: Value = serde_json::from_str(text).map_err(|error| invalid(error.to_string()))?;
        if file["version"] != CANONICAL_VERSION {
            tk_convert::canonicalize_value(&mut file).map_err(|error| invalid(error.to_string()))?;
        }
        let absent = complete_bytes(&mut file);
        let canonical = serde_json::to_string(&file).map_err(|error| invalid(error.to_string()))?;
        drop(file);
        let pipeline = tk_serialize::from_json(&canonical).map_err(|error| invalid(error.to_string()))?;
        let added = pipeline.get_added_vocabulary().get_added_tokens_decoder();
        let mut specials: Vec<(String, u32)> =
            added.into_iter().filter(|(_, token)| token.special).map(|(id, token)| (token.content, id)).collect();
        // By length and then by itself: the map they come from has no order.
        specials.sort_unstable_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        Ok(Tokenizer { pipeline, specials, absent })
    }

    /// The tokens of a text. A byte that a byte-level vocabulary lacks gives none. Text of special tokens in it becomes these tokens. With `adds_special_tokens` the tokenizer's
    /// template adds those that begin and end a text, as `tokenizer.json` says.
    pub fn encode(&self, text: &str, adds_special_tokens: bool) -> Result<Vec<u32>, TextError> {
        let failed = |reason: String| TextError::Tokenizer { reason };
        let options = EncodeOptions {
            add_special_tokens: adds_special_tokens,
            encode_special_tokens: false,
            padding: Override::Off,
            truncation: Override::Off,
        };
        let encodings = self.pipeline.encode(text, &options).wait().map_err(|error| failed(error.to_string()))?;
        let encoding = encodings.first().ok_or_else(|| failed("it gave no tokens".into()))?;
        let tokens = encoding.ids().iter().map(|token| u32::from(*token));
        Ok(tokens.filter(|token| !self.absent.contains(token)).collect())
    }

    /// The text of tokens, without that of special ones. Bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, TextError> {
        self.pipeline.decode(tokens, true).map_err(|error| TextError::Tokenizer { reason: error.to_string() })
    }

    /// The token of exactly this text.
    pub fn token(&self, text: &str) -> Option<u32> {
        let added = self.pipeline.get_added_vocabulary().token_to_id(text);
        added.or_else(|| match self.encode(text, false).ok()?.as_slice() {
            [token] => Some(*token),
            _ => None,
        })
    }

    /// The first special token whose text is in `text`.
    pub fn special_in(&self, text: &str) -> Option<&str> {
        self.specials.iter().map(|(content, _)| content.as_str()).find(|content| text.contains(content))
    }
}

/// Gives each byte that a byte-level BPE vocabulary lacks a token beyond all others; tells which these are.
///
/// Published vocabularies lack some that no UTF-8 text of their training had, and the library refuses those whole.
fn complete_bytes(file: &mut Value) -> Range<u32> {
    if file["model"]["byte_level"] != true {
        return 0..0;
    }
    let token = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let added = file["added_tokens"].as_array().into_iter().flatten().filter_map(|added| token(&added["id"]));
    let added_end = added.max().map_or(0, |id| id.saturating_add(1));
    let Some(vocabulary) = file["model"]["vocab"].as_object_mut() else { return 0..0 };
    let end = vocabulary.values().filter_map(token).max().map_or(0, |id| id.saturating_add(1)).max(added_end);
    let mut next = end;
    for letter in byte_letters() {
        let letter = letter.to_string();
        if !vocabulary.contains_key(&letter) && next < u32::MAX {
            vocabulary.insert(letter, Value::from(next));
            next += 1;
        }
    }
    end..next
}

/// The characters that stand for bytes in byte-level vocabularies, as GPT-2 began it: printable ones of Latin-1 for
/// themselves, those from U+0100 on for the rest.
fn byte_letters() -> impl Iterator<Item = char> {
    let is_printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let others = (0..=u8::MAX).filter(move |byte| !is_printable(byte)).count() as u32;
    let rest = (0..others).filter_map(|index| char::from_u32(0x100 + index));
    (0..=u8::MAX).filter(is_printable).map(char::from).chain(rest)
}
