//! A generation under way: reads what the cache lacks, then token by token.

use super::loaded::{self, Language};
use super::sessions::{self, SessionId, SessionRecord};
use super::{caches, of_text};
use crate::engine_error;
use crate::limits::{CYCLES_PER_INSTRUCTION, CYCLES_PER_MESSAGE, FRESH_INSTRUCTIONS_MAX, NODE_INSTRUCTIONS_MAX};
use crate::loading::{self, MessageMeter};
use crate::runtime;
use crate::store::ModelKey;
use onnx_canister_interface::{Cost, Error, FinishReason, Generation as Answer};
use onnx_engine::{Decoder, Step};
use onnx_text::{Sampler, StopSequences, TextStream, Tokenizer};
use std::rc::Rc;

/// A session at work.
pub struct Generation {
    id: SessionId,
    record: SessionRecord,
    language: Rc<Language>,
    decoder: Decoder,
    sampler: Sampler,
    stream: TextStream,
    stops: StopSequences,
    /// Tokens whose keys and values were there when it began.
    cached_tokens: usize,
}

impl Generation {
    /// Takes up a session where its record says.
    pub fn new(key: &ModelKey, id: SessionId) -> Result<Self, Error> {
        let record = sessions::read(id).ok_or(Error::SessionNotFound { session: id })?;
        let language = loaded::get(key)?;
        let not_loaded = || Error::WrongState {
            name: key.name.clone(),
            version: key.version,
            state: "not loaded".into(),
            needs: "ready: load it".into(),
        };
        let plan = loading::plan(key).ok_or_else(not_loaded)?;
        let mut decoder = match caches::take(id) {
            Some(decoder) => decoder,
            None => Decoder::new(plan)
                .map_err(engine_error::of_model)?
                .with_context_length(language.context_length as usize)
                .with_node_limit(NODE_INSTRUCTIONS_MAX),
        };
        let cached_tokens = keep_common(&mut decoder, &record.tokens)?;
        let (prompt, text) = record.prompt_and_text();
        let sampler = Sampler::new(record.turn.sampling.clone(), record.turn.state, prompt, text);
        let stops = StopSequences::new(&record.turn.stop);
        let stream = match &language.tokenizer {
            Some(tokenizer) => stream_of(&record, tokenizer)?,
            None => TextStream::default(),
        };
        Ok(Self { id, record, language, decoder, sampler, stream, stops, cached_tokens })
    }

    /// Tokens done and in all, as far as that is known.
    pub fn progress(&self) -> (u32, u32) {
        let count = |tokens: usize| u32::try_from(tokens).unwrap_or(u32::MAX);
        let total = count(self.record.turn.text_start).saturating_add(self.record.turn.max_tokens);
        (count(self.decoder.len()), total)
    }

    /// Goes on for what is left of `budget` in this message; tells whether the text has ended. The session is stored.
    pub fn advance(&mut self, budget: u64) -> Result<bool, Error> {
        let result = self.run(budget);
        self.record.turn.state = self.sampler.state();
        sessions::save(self.id, &self.record);
        result
    }

    fn run(&mut self, budget: u64) -> Result<bool, Error> {
        let of_tokens = |error| engine_error::of_request("tokens", error);
        while self.record.turn.finish.is_none() {
            let fed = self.decoder.len() + self.decoder.pending();
            self.decoder.feed(self.record.tokens.get(fed..).unwrap_or_default()).map_err(of_tokens)?;
            if self.decoder.logits().is_empty() {
                let estimate = self.decoder.next_estimate_instructions().map_err(of_tokens)?;
                let spent = runtime::instructions();
                if spent.saturating_add(estimate) > budget && spent > FRESH_INSTRUCTIONS_MAX {
                    return Ok(false);
                }
                if self.decoder.step(&MessageMeter, budget).map_err(of_tokens)? != Step::Done {
                    return Ok(false);
                }
            }
            self.choose()?;
            if self.record.turn.finish.is_none() && runtime::instructions() >= budget {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes the next token, or finds that the text has ended.
    fn choose(&mut self) -> Result<(), Error> {
        let turn = &mut self.record.turn;
        let generated = self.record.tokens.len() - turn.text_start;
        if generated >= turn.max_tokens as usize {
            turn.finish = Some(FinishReason::Length);
            return Ok(());
        }
        let nothing = || Error::ModelInvalid { place: "logits".into(), reason: "none is a number".into() };
        let token = self.sampler.choose(self.decoder.logits()).ok_or_else(nothing)?;
        if self.language.ends.contains(&token) {
            turn.finish = Some(FinishReason::Stop);
            return Ok(());
        }
        self.record.tokens.push(token);
        if let Some(tokenizer) = &self.language.tokenizer {
            self.stream.push(tokenizer, token).map_err(|error| of_text("text", error))?;
            if self.stops.find(self.stream.text()).is_some() {
                turn.finish = Some(FinishReason::Stop);
                return Ok(());
            }
        }
        if generated + 1 >= turn.max_tokens as usize {
            turn.finish = Some(FinishReason::Length);
        }
        Ok(())
    }

    /// What there is; `otherwise` is why, when the text has not ended. The decoder is kept for the session's next call.
    pub fn finish(self, otherwise: FinishReason) -> Result<Answer, Error> {
        let finish = self.record.turn.finish.unwrap_or(otherwise);
        let answer = answer(self.id, &self.record, &self.language, Some(finish), self.cached_tokens)?;
        self.release();
        Ok(answer)
    }

    /// Keeps the decoder for the session's next call.
    pub fn release(self) {
        caches::put(self.id, &self.record.key, self.decoder);
    }
}

/// Makes the decoder forget what is not the beginning of `tokens`, and leaves it something to read unless it has the
/// logits; gives the number of tokens that it still knows. A pass under way goes on, else calls that are shorter than
/// a pass would never come to its end.
fn keep_common(decoder: &mut Decoder, tokens: &[u32]) -> Result<usize, Error> {
    let common = decoder.fed().zip(tokens).take_while(|(known, token)| known == *token).count();
    let is_all = common == decoder.len() + decoder.pending();
    let has_more = common < tokens.len() || decoder.pending() > 0 || !decoder.logits().is_empty();
    if !(is_all && has_more) {
        let kept = common.min(decoder.len()).min(tokens.len().saturating_sub(1));
        decoder.truncate(kept).map_err(|error| engine_error::of_request("tokens", error))?;
    }
    Ok(decoder.len())
}

/// The stream after the session's text so far.
fn stream_of(record: &SessionRecord, tokenizer: &Tokenizer) -> Result<TextStream, Error> {
    let (prompt, text) = record.prompt_and_text();
    let mut stream = TextStream::after(prompt);
    for token in text {
        stream.push(tokenizer, *token).map_err(|error| of_text("text", error))?;
    }
    Ok(stream)
}

/// The text of a session's last turn; whole, or as far as it can't change any more.
pub fn text(record: &SessionRecord, language: &Language, is_whole: bool) -> Result<String, Error> {
    let Some(tokenizer) = &language.tokenizer else { return Ok(String::new()) };
    let mut stream = stream_of(record, tokenizer)?;
    let stops = StopSequences::new(&record.turn.stop);
    if is_whole {
        stream.finish(tokenizer).map_err(|error| of_text("text", error))?;
    }
    let text = stream.text();
    let end = match stops.find(text) {
        Some(end) => end,
        None if is_whole => text.len(),
        None => stops.settled(text),
    };
    Ok(text[..end].to_string())
}

fn answer(
    id: SessionId,
    record: &SessionRecord,
    language: &Language,
    finish_reason: Option<FinishReason>,
    cached_tokens: usize,
) -> Result<Answer, Error> {
    let count = |tokens: usize| u32::try_from(tokens).unwrap_or(u32::MAX);
    let (prompt, tokens) = record.prompt_and_text();
    // What may go on is shown as far as it can't change.
    let is_whole = matches!(finish_reason, Some(FinishReason::Stop | FinishReason::Length));
    Ok(Answer {
        session: Some(id),
        model: record.key.to_ref(),
        text: text(record, language, is_whole)?,
        tokens: tokens.to_vec(),
        finish_reason,
        prompt_tokens: count(prompt.len()),
        cached_tokens: count(cached_tokens),
        generated_tokens: count(tokens.len()),
        seed: record.turn.sampling.seed,
        cost: Cost::default(),
        cycles: 0,
    })
}

/// What a session has generated so far, as its record tells.
pub fn so_far(id: SessionId, cost: &Cost) -> Option<Answer> {
    let record = sessions::read(id)?;
    let language = loaded::get(&record.key).ok()?;
    answer(id, &record, &language, record.turn.finish, 0).ok().map(|answer| with_cost(answer, cost))
}

/// The answer with what it cost.
pub fn with_cost(mut answer: Answer, cost: &Cost) -> Answer {
    answer.cost = cost.clone();
    answer.cycles = cycles(cost);
    answer
}

/// The cost in cycles on a subnet of 13 nodes.
pub fn cycles(cost: &Cost) -> u64 {
    let messages = u64::from(cost.messages).saturating_mul(CYCLES_PER_MESSAGE);
    cost.instructions.saturating_mul(CYCLES_PER_INSTRUCTION).saturating_add(messages)
}
