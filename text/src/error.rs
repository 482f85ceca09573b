//! The crate's errors: each names the place and what is wrong with it.

/// Why a file about text can't be read, or a text not be made into tokens.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// A file contradicts its format, or asks for what is not offered.
    #[error("{file}: {reason}")]
    File { file: &'static str, reason: String },
    /// The tokenizer can't take this text, or these tokens.
    #[error("tokenizer: {reason}")]
    Tokenizer { reason: String },
    /// The chat template refuses the conversation, or fails on it.
    #[error("chat template: {reason}")]
    Template { reason: String },
    /// A value is out of its range.
    #[error("{place} = {value}: {reason}")]
    Range { place: &'static str, value: String, reason: &'static str },
}

impl TextError {
    pub(crate) fn file(file: &'static str, reason: impl ToString) -> TextError {
        TextError::File { file, reason: reason.to_string() }
    }
}
