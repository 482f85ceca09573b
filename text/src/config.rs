//! What the files beside `tokenizer.json` say: the tokens that begin and end a text, and the chat template.

use crate::{TextError, Tokenizer};
use std::collections::BTreeSet;
use tk_serialize::json::Json;

const CONFIG: &str = "tokenizer_config.json";
const GENERATION: &str = "generation_config.json";

/// Tokens with a meaning for generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Text of the token that begins a text; empty without one.
    pub bos: String,
    /// Text of the token that ends a text; empty without one.
    pub eos: String,
    /// Tokens that end a generation.
    pub ends: BTreeSet<u32>,
    /// The chat template in `tokenizer_config.json`, if it has one.
    pub chat_template: Option<String>,
}

impl SpecialTokens {
    /// Reads `tokenizer_config.json` (bos, eos, the chat template) and `generation_config.json` (tokens that end), as far as
    /// they are there.
    pub fn read(
        tokenizer: Option<&Tokenizer>,
        tokenizer_config: Option<&[u8]>,
        generation_config: Option<&[u8]>,
    ) -> Result<SpecialTokens, TextError> {
        let mut tokens = SpecialTokens::default();
        if let Some(bytes) = tokenizer_config {
            let text = utf8(CONFIG, bytes)?;
            let config = Json::parse(text).map_err(|error| TextError::file(CONFIG, error))?;
            tokens.bos = token_text(&config, "bos_token").unwrap_or_default();
            tokens.eos = token_text(&config, "eos_token").unwrap_or_default();
            tokens.chat_template = chat_template(&config);
            if !tokens.eos.is_empty()
                && let Some(tokenizer) = tokenizer
            {
                let missing = || TextError::file(CONFIG, format!("eos_token {:?} is no token", tokens.eos));
                tokens.ends.insert(tokenizer.token(&tokens.eos).ok_or_else(missing)?);
            }
        }
        if let Some(bytes) = generation_config {
            let text = utf8(GENERATION, bytes)?;
            let config = Json::parse(text).map_err(|error| TextError::file(GENERATION, error))?;
            if let Some(ends) = config.field("eos_token_id") {
                let not_tokens = || TextError::file(GENERATION, "eos_token_id is neither a token nor a list of tokens");
                match ends.as_u32() {
                    Some(token) => {
                        tokens.ends.insert(token);
                    }
                    None => {
                        for token in ends.as_array().ok_or_else(not_tokens)? {
                            tokens.ends.insert(token.as_u32().ok_or_else(not_tokens)?);
                        }
                    }
                }
            }
        }
        Ok(tokens)
    }
}

fn utf8<'a>(file: &'static str, bytes: &'a [u8]) -> Result<&'a str, TextError> {
    std::str::from_utf8(bytes).map_err(|error| TextError::file(file, error))
}

/// A token is written as its text, or as an object with its text as `content`.
fn token_text(config: &Json<'_>, key: &str) -> Option<String> {
    let token = config.field(key)?;
    token.as_str().or_else(|| token.field("content")?.as_str()).map(str::to_string)
}

/// A template is a text, or one of a list of objects with `name` and `template`; then the one named `default`.
fn chat_template(config: &Json<'_>) -> Option<String> {
    let template = config.field("chat_template")?;
    if let Some(text) = template.as_str() {
        return Some(text.to_string());
    }
    let is_default = |entry: &&Json<'_>| entry.field("name").and_then(Json::as_str) == Some("default");
    let entry = template.as_array()?.iter().find(is_default)?.field("template")?;
    entry.as_str().map(str::to_string)
}
