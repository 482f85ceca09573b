//! Text for language models: from text to tokens and back, from a conversation to a prompt, and from logits to the next
//! token.
//!
//! Knows nothing of models, messages or the Internet Computer. Everything here gives the same on every machine: no clock,
//! no platform math, no randomness but a counter's.

pub mod config;
mod error;
pub mod sampler;
pub mod stop;
pub mod stream;
pub mod template;
pub mod tokenizer;

pub use config::SpecialTokens;
pub use error::TextError;
pub use sampler::{Sampler, SamplerState, Sampling};
pub use stop::StopSequences;
pub use stream::TextStream;
pub use template::{ChatTemplate, Message};
pub use tokenizer::Tokenizer;
