//! Language models: text in, text out, and the sessions that keep what was read.

use crate::{CallLimits, Cost, ModelRef};
use candid::CandidType;
use serde::{Deserialize, Serialize};

/// A generation session's number; never used twice. It is its owner's.
pub type SessionId = u64;

/// One message of a conversation.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant`, or what else the model's chat template knows.
    pub role: String,
    pub content: String,
}

/// What to read before generating.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// Text, after all that the session has read. Text of special tokens in it becomes these tokens.
    #[serde(rename = "text")]
    Text(String),
    /// Tokens, after all that the session has read.
    #[serde(rename = "tokens")]
    Tokens(Vec<u32>),
    /// Messages, after those of the session, through the model's chat template. Text of special tokens is refused.
    #[serde(rename = "chat")]
    Chat(Vec<ChatMessage>),
    /// Nothing: the session's last generation goes on where it stopped, with its own sampling and stop sequences.
    #[serde(rename = "resume")]
    Resume,
}

/// How tokens are chosen; `None` is the default. In the order of the fields: bias, penalties, temperature, filters.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct SamplingOptions {
    /// Added to the logits of these tokens.
    pub logit_bias: Option<Vec<(u32, f32)>>,
    /// Divides the logits above 0 of tokens that prompt or text has, multiplies those below; default 1.
    pub repetition_penalty: Option<f32>,
    /// Subtracted from a token's logit as often as the generated text has it; default 0.
    pub frequency_penalty: Option<f32>,
    /// Subtracted once from the logit of a token that the generated text has; default 0.
    pub presence_penalty: Option<f32>,
    /// Divides the logits; 0, the default, is greedy.
    pub temperature: Option<f32>,
    /// Keeps the highest logits; 0, the default, is all.
    pub top_k: Option<u32>,
    /// Keeps the most probable tokens, as few as have this probability together; default 1.
    pub top_p: Option<f32>,
    /// Keeps tokens at least this probable relative to the most probable; default 0.
    pub min_p: Option<f32>,
    /// Of the draws. 0, the default, derives one, which the answer tells: of the network's randomness in an update, of the
    /// request's hash in a query.
    pub seed: Option<u64>,
}

#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct GenerateRequest {
    pub model: ModelRef,
    pub prompt: Prompt,
    /// The session to go on with; `None` begins one.
    pub session: Option<SessionId>,
    pub sampling: Option<SamplingOptions>,
    /// Tokens of text at most, counted from where the text begins; default and limit are what the context has room for.
    pub max_tokens: Option<u32>,
    /// Texts at whose first appearance generation stops; they are not part of the text. At most 16 of 256 bytes.
    pub stop: Option<Vec<String>>,
    pub limits: Option<CallLimits>,
}

/// Why a generation ended.
#[derive(CandidType, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended its text, or a stop sequence came.
    #[serde(rename = "stop")]
    Stop,
    /// `max_tokens` are there, or the context is full.
    #[serde(rename = "length")]
    Length,
    /// The call's instructions or messages are used up: `resume` the session.
    #[serde(rename = "budget")]
    Budget,
    /// The canister is stopping: `resume` the session after the upgrade.
    #[serde(rename = "interrupted")]
    Interrupted,
}

/// A generation: all of its text so far, also what came before it was resumed.
#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Generation {
    /// `None` after a query that began none, which keeps nothing.
    pub session: Option<SessionId>,
    pub model: ModelRef,
    /// Empty where the model has no tokenizer.
    pub text: String,
    /// The generated tokens, without one that ended the text.
    pub tokens: Vec<u32>,
    /// `None` while it goes on.
    pub finish_reason: Option<FinishReason>,
    /// Tokens that the model had before the text.
    pub prompt_tokens: u32,
    /// Tokens of prompt and text whose keys and values were still there.
    pub cached_tokens: u32,
    pub generated_tokens: u32,
    /// Of the draws; 0 for a greedy choice, which has none.
    pub seed: u64,
    pub cost: Cost,
    /// What the cost is in cycles on a subnet of 13 nodes.
    pub cycles: u64,
}
