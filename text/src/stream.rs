//! Text of tokens that come one by one, in pieces that never split a character.

use crate::{TextError, Tokenizer};

/// Tokens of the prompt that give the first generated ones their context: a word's first space depends on them.
const CONTEXT_TOKENS: usize = 4;

/// What a byte sequence that is not (yet) UTF-8 decodes to.
const REPLACEMENT: char = '\u{fffd}';

/// Makes text of tokens as they come. Its text is a function of the tokens alone, not of when it was asked for.
#[derive(Clone, Debug, Default)]
pub struct TextStream {
    /// The tokens whose text is not settled, and those before them that its form depends on.
    window: Vec<u32>,
    /// Of these, those whose text is out already.
    settled: usize,
    text: String,
}

impl TextStream {
    /// A stream of what follows `prompt`.
    pub fn after(prompt: &[u32]) -> TextStream {
        let window = prompt[prompt.len().saturating_sub(CONTEXT_TOKENS)..].to_vec();
        TextStream { settled: window.len(), window, text: String::new() }
    }

    /// Takes a token; text grows when a character is whole.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> Result<(), TextError> {
        self.window.push(token);
        let new = self.new_text(tokenizer)?;
        if !new.is_empty() && !new.ends_with(REPLACEMENT) {
            self.text.push_str(&new);
            self.window.drain(..self.settled);
            self.settled = self.window.len();
        }
        Ok(())
    }

    /// Takes what is left, as it is: bytes that make no character become U+FFFD.
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<(), TextError> {
        let new = self.new_text(tokenizer)?;
        self.text.push_str(&new);
        self.settled = self.window.len();
        Ok(())
    }

    /// The text of the tokens that are not settled.
    fn new_text(&self, tokenizer: &Tokenizer) -> Result<String, TextError> {
        let before = tokenizer.decode(&self.window[..self.settled])?;
        let all = tokenizer.decode(&self.window)?;
        // A prompt may end within a character; then what was U+FFFD before becomes something else.
        let shared =
            before.strip_suffix(REPLACEMENT).map_or(before.as_str(), |whole| whole.trim_end_matches(REPLACEMENT));
        let rest = all.strip_prefix(before.as_str()).or_else(|| all.strip_prefix(shared));
        Ok(rest.unwrap_or(&all).to_string())
    }

    /// The text so far.
    pub fn text(&self) -> &str {
        &self.text
    }
}
