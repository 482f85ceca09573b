//! From a request to a session that is ready to generate.

use super::loaded::{self, Language};
use super::sessions::{self, SessionId, SessionRecord, Turn};
use super::{generation, of_text};
use crate::inference;
use crate::limits::{CHAT_MESSAGES_MAX, PROMPT_BYTES_MAX};
use crate::runtime;
use crate::store::manifest::invalid;
use crate::store::models;
use candid::Principal;
use onnx_canister_interface::{
    CallLimits, ChatMessage, Error, FinishReason, GenerateRequest, ModelRef, Prompt, SamplingOptions,
};
use onnx_text::stop::{STOP_SEQUENCE_BYTES_MAX, STOP_SEQUENCES_MAX};
use onnx_text::{Message, SamplerState, Sampling};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A generation as a job keeps it: what there is to do is in the session's record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Continuation {
    pub model: ModelRef,
    pub session: SessionId,
    pub limits: Option<CallLimits>,
}

/// Whether a seed has to be derived.
pub fn needs_seed(request: &GenerateRequest) -> bool {
    let draws = request
        .sampling
        .as_ref()
        .is_some_and(|sampling| sampling.seed.unwrap_or_default() == 0 && !resolve(sampling, 0).is_greedy());
    draws && request.prompt != Prompt::Resume
}

/// A seed that depends on nothing but the request; never 0.
pub fn seed_of(request: &GenerateRequest) -> u64 {
    // Encoding what was just decoded does not fail; an empty text has a hash as well.
    let encoded = candid::encode_one(request).unwrap_or_default();
    let digest = Sha256::digest(&encoded);
    seed_from(&digest)
}

/// The first 8 bytes as a seed; 1 instead of 0, which would mean that there is none.
pub fn seed_from(bytes: &[u8]) -> u64 {
    let number = bytes.iter().take(8).rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    number.max(1)
}

/// Reads a request's prompt into its session, or into a new one, and stores that. Nothing is generated yet.
pub fn begin(owner: Principal, request: &GenerateRequest, derived_seed: u64) -> Result<Continuation, Error> {
    // A session must not change when the call is refused for something else.
    inference::resolve_limits(request.limits.clone())?;
    let key = models::resolve_ready(&request.model)?;
    let language = loaded::get(&key)?;
    let mut record = match request.session {
        Some(id) => {
            let record = sessions::get(id)?;
            sessions::check_free(id)?;
            if record.key != key {
                let reason = format!("it is a session of {}", record.key.describe());
                return Err(invalid("session", id, reason));
            }
            record
        }
        None => SessionRecord::new(owner, key.clone()),
    };
    match request.prompt {
        Prompt::Resume => resume(&mut record, request, &language)?,
        _ => begin_turn(&mut record, request, &language, derived_seed)?,
    }
    record.used_ns = runtime::time_ns();
    let session = match request.session {
        Some(id) => id,
        None => sessions::create(&owner)?,
    };
    sessions::save(session, &record);
    Ok(Continuation { model: key.to_ref(), session, limits: request.limits.clone() })
}

/// Lets the last turn go on.
fn resume(record: &mut SessionRecord, request: &GenerateRequest, language: &Language) -> Result<(), Error> {
    let refused = |place: &str, reason: &str| Err(invalid(place, "given", reason));
    if request.session.is_none() {
        return Err(invalid("session", "null", "name the session to resume"));
    }
    if request.sampling.is_some() {
        return refused("sampling", "a session that is resumed keeps its own");
    }
    if request.stop.is_some() {
        return refused("stop", "a session that is resumed keeps its own");
    }
    if let Some(max_tokens) = request.max_tokens {
        record.turn.max_tokens = max_tokens.min(room(record.turn.text_start, language));
    }
    // A text that is long enough may now be longer; one that ended stays as it is.
    if record.turn.finish != Some(FinishReason::Stop) {
        record.turn.finish = None;
    }
    Ok(())
}

/// Tokens that the context has room for after these.
fn room(tokens: usize, language: &Language) -> u32 {
    language.context_length.saturating_sub(u32::try_from(tokens).unwrap_or(u32::MAX))
}

fn begin_turn(
    record: &mut SessionRecord,
    request: &GenerateRequest,
    language: &Language,
    derived_seed: u64,
) -> Result<(), Error> {
    let mut sampling = resolve(&request.sampling.clone().unwrap_or_default(), derived_seed);
    sampling.check().map_err(|error| of_text("sampling", error))?;
    if sampling.is_greedy() {
        sampling.seed = 0;
    }
    let stop = request.stop.clone().unwrap_or_default();
    check_stop(&stop, language)?;
    read_prompt(record, &request.prompt, language)?;
    if record.tokens.is_empty() {
        return Err(invalid("prompt", "empty", "the model needs a token to begin with, and the tokenizer adds none"));
    }
    if let Some(token) = record.tokens.iter().find(|token| **token >= language.vocabulary_size) {
        return Err(invalid("prompt", token, format!("the model has {} tokens", language.vocabulary_size)));
    }
    if record.tokens.len() > language.context_length as usize {
        let reason = format!("the model's context has {} tokens", language.context_length);
        return Err(invalid("prompt", format!("{} tokens", record.tokens.len()), reason));
    }
    let text_start = record.tokens.len();
    let max_tokens = request.max_tokens.unwrap_or(u32::MAX).min(room(text_start, language));
    record.turn = Turn { text_start, max_tokens, sampling, state: SamplerState::default(), stop, finish: None };
    Ok(())
}

/// Makes the record's tokens those that the model is to read.
fn read_prompt(record: &mut SessionRecord, prompt: &Prompt, language: &Language) -> Result<(), Error> {
    let is_chat = !record.messages.is_empty();
    if is_chat != matches!(prompt, Prompt::Chat(_)) && !record.tokens.is_empty() {
        let (has, takes) = if is_chat { ("messages", "chat") } else { ("plain text", "text or tokens") };
        return Err(invalid("prompt", "of another kind", format!("the session has {has}: go on with {takes}")));
    }
    match prompt {
        Prompt::Text(text) => {
            check_bytes("prompt.text", text.len())?;
            let tokenizer = language.tokenizer.as_ref().ok_or_else(|| no_tokenizer("prompt.text"))?;
            // What begins a text is there already when it goes on.
            let tokens = tokenizer.encode(text, record.tokens.is_empty());
            record.tokens.extend(tokens.map_err(|error| of_text("prompt.text", error))?);
        }
        Prompt::Tokens(tokens) => record.tokens.extend(tokens),
        Prompt::Chat(messages) => read_messages(record, messages, language)?,
        Prompt::Resume => {}
    }
    Ok(())
}

fn read_messages(record: &mut SessionRecord, messages: &[ChatMessage], language: &Language) -> Result<(), Error> {
    const PLACE: &str = "prompt.chat";
    let tokenizer = language.tokenizer.as_ref().ok_or_else(|| no_tokenizer(PLACE))?;
    let no_template = || invalid(PLACE, "messages", "the model has no chat template: give text");
    let template = language.template.as_ref().ok_or_else(no_template)?;
    if messages.is_empty() || record.messages.len() + messages.len() >= CHAT_MESSAGES_MAX {
        let reason = format!("a conversation has 1 to {CHAT_MESSAGES_MAX} messages, and a call adds at least one");
        return Err(invalid(PLACE, format!("{} messages", messages.len()), reason));
    }
    for (index, message) in messages.iter().enumerate() {
        // As text of the template it would be the token: a user could end their own message and begin the assistant's.
        for (field, text) in [("role", &message.role), ("content", &message.content)] {
            if let Some(special) = tokenizer.special_in(text) {
                let reason = "text of a special token can't be part of a message";
                return Err(invalid(format!("{PLACE}[{index}].{field}"), special, reason));
            }
        }
    }
    if !record.messages.is_empty() {
        let content = generation::text(record, language, true)?;
        record.messages.push(Message { role: "assistant".into(), content });
    }
    let message = |message: &ChatMessage| Message { role: message.role.clone(), content: message.content.clone() };
    record.messages.extend(messages.iter().map(message));
    check_bytes(PLACE, record.messages.iter().map(|message| message.role.len() + message.content.len()).sum())?;
    let of_prompt = |error| of_text(PLACE, error);
    let rendered = template.render(&record.messages, true).map_err(of_prompt)?;
    check_bytes(PLACE, rendered.len())?;
    record.tokens = tokenizer.encode(&rendered, false).map_err(of_prompt)?;
    Ok(())
}

fn no_tokenizer(place: &str) -> Error {
    invalid(place, "text", "the model has no tokenizer.json: give tokens")
}

fn check_bytes(place: &str, bytes: usize) -> Result<(), Error> {
    match bytes > PROMPT_BYTES_MAX {
        true => Err(invalid(place, format!("{bytes} bytes"), format!("a prompt has at most {PROMPT_BYTES_MAX} bytes"))),
        false => Ok(()),
    }
}

fn check_stop(stop: &[String], language: &Language) -> Result<(), Error> {
    if stop.len() > STOP_SEQUENCES_MAX {
        return Err(invalid("stop", format!("{} texts", stop.len()), format!("at most {STOP_SEQUENCES_MAX}")));
    }
    if let Some(index) = stop.iter().position(|text| text.is_empty() || text.len() > STOP_SEQUENCE_BYTES_MAX) {
        let reason = format!("a stop sequence has 1 to {STOP_SEQUENCE_BYTES_MAX} bytes");
        return Err(invalid(format!("stop[{index}]"), format!("{} bytes", stop[index].len()), reason));
    }
    match stop.is_empty() || language.tokenizer.is_some() {
        true => Ok(()),
        false => Err(no_tokenizer("stop")),
    }
}

fn resolve(options: &SamplingOptions, derived_seed: u64) -> Sampling {
    let default = Sampling::default();
    Sampling {
        temperature: options.temperature.unwrap_or(default.temperature),
        top_k: options.top_k.unwrap_or(default.top_k),
        top_p: options.top_p.unwrap_or(default.top_p),
        min_p: options.min_p.unwrap_or(default.min_p),
        repetition_penalty: options.repetition_penalty.unwrap_or(default.repetition_penalty),
        frequency_penalty: options.frequency_penalty.unwrap_or(default.frequency_penalty),
        presence_penalty: options.presence_penalty.unwrap_or(default.presence_penalty),
        logit_bias: options.logit_bias.clone().unwrap_or_default(),
        seed: options.seed.filter(|seed| *seed != 0).unwrap_or(derived_seed),
    }
}
