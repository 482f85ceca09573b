//! Language models: prompts, sessions and generation.
//!
//! ```text
//!   request --prompt--> session record: tokens, sampling, draws      in stable memory, saved when a message ends
//!                            |
//!                            v
//!                       generation: decoder, sampler, text           on the heap, made of the record whenever it is missing
//! ```
//!
//! A generation is a request like any other to [`crate::jobs`]; what is stored with its job is the number of its session. All
//! that decides its text is in the session's record, so it goes on after an upgrade, a trap or the end of a budget where the
//! record says, and its text is that of a run without any of these. Keys and values of the tokens are on the heap as long
//! as there is room, and are computed again when they are not.

mod caches;
pub mod generation;
pub mod loaded;
pub mod prompt;
pub mod sessions;

use crate::store::ModelKey;
use crate::store::manifest::invalid;
use onnx_canister_interface::Error;
use onnx_text::TextError;

pub const TOKENIZER_FILE: &str = "tokenizer.json";
pub const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";
pub const GENERATION_CONFIG_FILE: &str = "generation_config.json";
pub const CHAT_TEMPLATE_FILE: &str = "chat_template.jinja";
/// Files of a language model that have a meaning by their names.
pub const TEXT_FILES: [&str; 4] = [TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, GENERATION_CONFIG_FILE, CHAT_TEMPLATE_FILE];

/// Takes what belongs to a version off the heap.
pub fn forget(key: &ModelKey) {
    loaded::forget(key);
    caches::forget_model(key);
}

/// An error about text as a caller sees it. `place` is where in the request the text is.
fn of_text(place: &str, error: TextError) -> Error {
    match error {
        TextError::File { file, reason } => Error::ModelInvalid { place: file.into(), reason },
        TextError::Range { place, value, reason } => invalid(format!("sampling.{place}"), value, reason),
        TextError::Tokenizer { .. } | TextError::Template { .. } => invalid(place, "a text", error.to_string()),
    }
}
