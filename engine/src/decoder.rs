//! A causal language model that is fed tokens: it keeps keys and values of what it has read and tells the logits of what
//! comes next.

use crate::graph::dims::Line;
use crate::plan::Body;
use crate::program::decode::Decode;
use crate::program::run::Progress;
use crate::{ElementType, EngineError, Meter, Plan, Session, Step, Tensor, TensorSpec};
use std::collections::VecDeque;
use std::sync::Arc;

/// Tokens that one pass through the model takes at most. More of them share the reading of the weights; fewer keep the
/// values between the steps small.
pub const BLOCK_TOKENS_MAX: usize = 64;

/// Where the sequence is among the dimensions of keys and values: batch, heads, sequence, head.
const SEQUENCE_AXIS: usize = 2;

/// Prefixes that exporters give the inputs and outputs that hold keys and values.
const PAST_PREFIXES: [&str; 3] = ["past_key_values.", "past_key_value.", "past."];
const PRESENT_PREFIXES: [&str; 3] = ["present.", "present_key_values.", "present_key_value."];

/// What the inputs and outputs of a causal language model are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecoderSpec {
    /// Numbers in a row of logits: token identifiers are below it.
    pub vocabulary_size: usize,
    /// Bytes that each token takes in the cache, as float32.
    pub cache_bytes_per_token: u64,
    /// Of each input of the plan, in order.
    inputs: Vec<Role>,
    /// Tensors of the cache: the input that takes each, the output that gives it, and its type.
    cache: Vec<CacheEntry>,
    logits: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Tokens(ElementType),
    AttentionMask(ElementType),
    Positions(ElementType),
    /// How many of the last rows of logits are wanted; its rank.
    LogitsToKeep(ElementType, usize),
    /// The entry of the cache of that index.
    Past(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct CacheEntry {
    present: String,
    heads: u64,
    head_size: u64,
}

impl DecoderSpec {
    /// Finds the roles of a plan's inputs and outputs by their names and shapes.
    ///
    /// Inputs: `input_ids` [batch, sequence]; if there, `attention_mask` [batch, past + sequence], `position_ids`
    /// [batch, sequence] and `num_logits_to_keep`; `past_key_values.N.key` and `.value` [batch, heads, past, head size].
    /// Outputs: `logits` [batch, sequence, vocabulary], and `present.N.key` and `.value` for each of the past. Names and
    /// order are those of Hugging Face's exporter. Fails with [`EngineError::Invalid`] naming what is missing or in the way.
    pub fn of(plan: &Plan) -> Result<DecoderSpec, EngineError> {
        let not_a_decoder = |reason: String| EngineError::invalid("causal language model", reason);
        let mut inputs = Vec::new();
        let mut cache: Vec<CacheEntry> = Vec::new();
        for spec in plan.inputs() {
            let role = match spec.name.as_str() {
                "input_ids" => Role::Tokens(integers(spec, 2)?),
                "attention_mask" => Role::AttentionMask(integers(spec, 2)?),
                "position_ids" => Role::Positions(integers(spec, 2)?),
                "num_logits_to_keep" => Role::LogitsToKeep(integers(spec, spec.shape.len().min(1))?, spec.shape.len()),
                name => {
                    let Some((layer, kind)) = cache_name(name, &PAST_PREFIXES) else {
                        let known = "input_ids, attention_mask, position_ids and past_key_values.N.key or .value";
                        return Err(not_a_decoder(format!("input {name:?} is none of {known}")));
                    };
                    let same =
                        |output: &&TensorSpec| cache_name(&output.name, &PRESENT_PREFIXES) == Some((layer, kind));
                    let present = plan.outputs().iter().find(same).ok_or_else(|| {
                        not_a_decoder(format!("there is no output present.{layer}.{kind} for input {name:?}"))
                    })?;
                    let (heads, head_size) = cache_shape(spec, true)?;
                    if cache_shape(present, false)? != (heads, head_size) || present.element_type != spec.element_type {
                        return Err(not_a_decoder(format!("output {:?} is not like input {name:?}", present.name)));
                    }
                    cache.push(CacheEntry { present: present.name.clone(), heads, head_size });
                    Role::Past(cache.len() - 1)
                }
            };
            inputs.push(role);
        }
        if !inputs.iter().any(|role| matches!(role, Role::Tokens(_))) {
            return Err(not_a_decoder("there is no input \"input_ids\"".into()));
        }
        if cache.is_empty() {
            return Err(not_a_decoder("there is no input \"past_key_values.0.key\"".into()));
        }
        let logits = plan.outputs().iter().find(|output| output.name == "logits");
        let logits = logits.ok_or_else(|| not_a_decoder("there is no output \"logits\"".into()))?;
        let vocabulary_size = match (logits.shape.as_slice(), logits.element_type) {
            (&[_, _, Some(size @ 1..)], ElementType::Float32 | ElementType::Float16) => usize::try_from(size).ok(),
            _ => None,
        };
        let vocabulary_size = vocabulary_size.filter(|size| u32::try_from(*size).is_ok()).ok_or_else(|| {
            let (got, shape) = (logits.element_type, &logits.shape);
            not_a_decoder(format!("\"logits\" is {got} of shape {shape:?}, not numbers [batch, sequence, vocabulary]"))
        })?;
        let numbers = |entry: &CacheEntry| entry.heads.saturating_mul(entry.head_size);
        let cache_bytes_per_token = cache.iter().map(numbers).fold(0, u64::saturating_add).saturating_mul(4);
        Ok(DecoderSpec { vocabulary_size, cache_bytes_per_token, inputs, cache, logits: logits.name.clone() })
    }
}

/// The type of an input of that rank, which must be integers.
fn integers(spec: &TensorSpec, rank: usize) -> Result<ElementType, EngineError> {
    let fits = spec.shape.len() == rank && matches!(spec.element_type, ElementType::Int64 | ElementType::Int32);
    let batch_fits = rank < 2 || matches!(spec.shape[0], None | Some(1));
    if !fits || !batch_fits || (rank == 2 && spec.shape[1].is_some()) {
        let (got, shape) = (spec.element_type, &spec.shape);
        let reason = format!("it is {got} of shape {shape:?}, not integers with a free dimension for the sequence");
        return Err(EngineError::invalid(format!("input {:?}", spec.name), reason));
    }
    Ok(spec.element_type)
}

/// Heads and size of a head of keys or values. Of an input the sequence has to be free; of an output it is known or not
/// as tract has found.
fn cache_shape(spec: &TensorSpec, is_input: bool) -> Result<(u64, u64), EngineError> {
    let is_float = matches!(spec.element_type, ElementType::Float32 | ElementType::Float16);
    match spec.shape.as_slice() {
        &[None | Some(1), Some(heads), sequence, Some(size)] if is_float && (sequence.is_none() || !is_input) => {
            Ok((heads, size))
        }
        shape => {
            let reason =
                format!("it is {} of shape {shape:?}, not numbers [1, heads, sequence, size]", spec.element_type);
            Err(EngineError::invalid(format!("keys or values {:?}", spec.name), reason))
        }
    }
}

/// The layer and `key` or `value` in a name such as `past_key_values.3.key`.
fn cache_name<'a>(name: &'a str, prefixes: &[&str]) -> Option<(u32, &'a str)> {
    let rest = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix))?;
    let (layer, kind) = rest.split_once('.')?;
    (kind == "key" || kind == "value").then_some((layer.parse().ok()?, kind))
}

/// A causal language model with what it has read.
///
/// Tokens are [queued](Decoder::feed) and run by [`Decoder::step`], block by block. The logits of a token are the same
/// bits however the text before it was cut into feeds, blocks and steps, as long as [`Plan::is_native`]: operators of
/// tract's give no such promise.
pub struct Decoder {
    plan: Arc<Plan>,
    spec: Arc<DecoderSpec>,
    node_limit: u64,
    context_length: usize,
    /// Those whose keys and values are in the cache.
    tokens: Vec<u32>,
    /// Those to run; the first of them are those of `running`.
    queue: VecDeque<u32>,
    store: Store,
    running: Option<Block>,
    logits: Vec<f32>,
}

/// Where keys and values are.
enum Store {
    /// In the program's own run, where they grow in place.
    InPlace(Box<Decode>),
    /// Inputs and outputs of a session for each block: [1, heads, tokens, size] each; none before the first block.
    Copied(Vec<Tensor>),
}

/// A pass under way.
struct Block {
    /// `None` where the store runs it.
    session: Option<Session>,
    tokens: usize,
    has_logits: bool,
}

impl Decoder {
    /// A decoder that has read nothing. Fails as [`DecoderSpec::of`] does.
    pub fn new(plan: Arc<Plan>) -> Result<Decoder, EngineError> {
        let spec = Arc::new(DecoderSpec::of(&plan)?);
        let store = match in_place(&plan, &spec)? {
            Some(decode) => Store::InPlace(Box::new(decode)),
            None => Store::Copied(Vec::new()),
        };
        Ok(Decoder {
            plan,
            spec,
            node_limit: u64::MAX,
            context_length: u32::MAX as usize,
            tokens: Vec::new(),
            queue: VecDeque::new(),
            store,
            running: None,
            logits: Vec::new(),
        })
    }

    /// Refuses more tokens than these. A model's file does not tell how many it was made for.
    pub fn with_context_length(mut self, tokens: usize) -> Decoder {
        self.context_length = tokens;
        self
    }

    /// As [`Session::with_node_limit`].
    pub fn with_node_limit(mut self, instructions: u64) -> Decoder {
        self.node_limit = instructions;
        self
    }

    pub fn spec(&self) -> &DecoderSpec {
        &self.spec
    }

    /// Token identifiers are below it.
    pub fn vocabulary_size(&self) -> usize {
        self.spec.vocabulary_size
    }

    /// Most tokens that can be fed in all.
    pub fn context_length(&self) -> usize {
        self.context_length
    }

    /// Tokens in the cache.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The tokens in the cache.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The tokens in the cache, then those queued or under way.
    pub fn fed(&self) -> impl Iterator<Item = u32> {
        self.tokens.iter().chain(&self.queue).copied()
    }

    /// Tokens queued or under way.
    pub fn pending(&self) -> usize {
        self.queue.len()
    }

    /// Bytes of the keys and values of the tokens in the cache.
    pub fn cache_bytes(&self) -> u64 {
        self.spec.cache_bytes_per_token.saturating_mul(self.tokens.len() as u64)
    }

    /// Bytes that the cache takes on the heap, with room for the tokens that come next.
    pub fn cache_capacity_bytes(&self) -> u64 {
        match &self.store {
            Store::InPlace(decode) => decode.cache_bytes(),
            Store::Copied(cache) => cache.iter().map(|tensor| tensor.bytes().len() as u64).sum(),
        }
    }

    /// Whether keys and values grow in place, so that a token costs no copy of those before it.
    pub fn is_in_place(&self) -> bool {
        matches!(self.store, Store::InPlace(_))
    }

    /// Queues tokens; [`Decoder::step`] runs them.
    ///
    /// Fails, and queues none, with [`EngineError::TooLarge`] when a token is not below the vocabulary's size or the
    /// context would be longer than it may be.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<(), EngineError> {
        let length = (self.tokens.len() + self.queue.len()).saturating_add(tokens.len());
        if length > self.context_length {
            let limit = self.context_length as u64;
            return Err(EngineError::TooLarge { place: "tokens in the context".into(), value: length as u64, limit });
        }
        let vocabulary_size = self.spec.vocabulary_size;
        if let Some(&token) = tokens.iter().find(|token| **token as usize >= vocabulary_size) {
            let limit = vocabulary_size as u64 - 1;
            return Err(EngineError::TooLarge { place: "a token's identifier".into(), value: token.into(), limit });
        }
        self.queue.extend(tokens);
        Ok(())
    }

    /// Runs queued tokens while `meter.spent()` plus the estimate of what comes next stays within `limit`, and at least the
    /// least that can be done. The units of [`Step::Paused`] are tokens.
    ///
    /// After an error the cache is that of the tokens before the block, and nothing is queued.
    pub fn step(&mut self, meter: &dyn Meter, limit: u64) -> Result<Step, EngineError> {
        let result = self.run(meter, limit);
        if result.is_err() {
            self.running = None;
            self.queue.clear();
        }
        result
    }

    /// Instructions of the least that can be done next, an upper bound; 0 with nothing queued. Fails as [`Decoder::step`].
    pub fn next_estimate_instructions(&mut self) -> Result<u64, EngineError> {
        if self.running.is_none() && !self.queue.is_empty() {
            match self.next_block() {
                Ok(block) => self.running = Some(block),
                Err(error) => {
                    self.queue.clear();
                    return Err(error);
                }
            }
        }
        Ok(self.running.as_ref().map_or(0, |block| self.estimate_instructions(block)))
    }

    fn estimate_instructions(&self, block: &Block) -> u64 {
        match (&block.session, &self.store) {
            (Some(session), _) => session.next_node_estimate_instructions(),
            (None, Store::InPlace(decode)) => decode.next_instructions(),
            (None, Store::Copied(_)) => 0,
        }
    }

    fn run(&mut self, meter: &dyn Meter, limit: u64) -> Result<Step, EngineError> {
        let mut is_first = true;
        while !self.queue.is_empty() {
            let paused =
                Step::Paused { done: self.tokens.len() as u64, total: (self.tokens.len() + self.queue.len()) as u64 };
            let mut block = match self.running.take() {
                Some(block) => block,
                None => self.next_block()?,
            };
            if !is_first && meter.spent().saturating_add(self.estimate_instructions(&block)) > limit {
                self.running = Some(block);
                return Ok(paused);
            }
            is_first = false;
            let is_done = match (&mut block.session, &mut self.store) {
                (Some(session), _) => session.step(meter, limit)? == Step::Done,
                (None, Store::InPlace(decode)) => decode.step(meter, limit, self.node_limit)? == Progress::Done,
                (None, Store::Copied(_)) => true,
            };
            if !is_done {
                self.running = Some(block);
                return Ok(paused);
            }
            self.finish(block)?;
        }
        Ok(Step::Done)
    }

    /// A pass over the first tokens of the queue.
    fn next_block(&mut self) -> Result<Block, EngineError> {
        let count = self.queue.len().min(BLOCK_TOKENS_MAX);
        let past = self.tokens.len();
        let total = (past + count) as u64;
        // Logits of tokens that others follow are of no use.
        let has_logits = count == self.queue.len();
        let cache = match &mut self.store {
            Store::InPlace(decode) => {
                decode.begin(past, count, has_logits)?;
                let tokens = || self.queue.iter().take(count).map(|token| i64::from(*token));
                for (index, role) in self.spec.inputs.iter().enumerate() {
                    match *role {
                        Role::Tokens(of) => write_integers(decode, index, of, count, tokens()),
                        Role::AttentionMask(of) => {
                            write_integers(decode, index, of, past + count, std::iter::repeat_n(1, past + count));
                        }
                        Role::Positions(of) => write_integers(decode, index, of, count, past as i64..total as i64),
                        Role::LogitsToKeep(of, _) => write_integers(decode, index, of, 1, std::iter::once(1)),
                        Role::Past(_) => {}
                    }
                }
                return Ok(Block { session: None, tokens: count, has_logits });
            }
            Store::Copied(cache) => &*cache,
        };
        let tokens = || self.queue.iter().take(count).map(|token| i64::from(*token));
        let mut inputs = Vec::new();
        for (spec, role) in self.plan.inputs().iter().zip(&self.spec.inputs) {
            let tensor = match *role {
                Role::Tokens(of) => integer_tensor(of, &[1, count as u64], tokens())?,
                Role::AttentionMask(of) => integer_tensor(of, &[1, total], (0..total).map(|_| 1))?,
                Role::Positions(of) => integer_tensor(of, &[1, count as u64], past as i64..total as i64)?,
                Role::LogitsToKeep(of, rank) => integer_tensor(of, &[1][..rank], std::iter::once(1))?,
                Role::Past(index) => match cache.get(index) {
                    Some(tensor) => tensor.clone(),
                    None => {
                        let entry = &self.spec.cache[index];
                        Tensor::zeroed(spec.element_type, &[1, entry.heads, 0, entry.head_size])?
                    }
                },
            };
            inputs.push((spec.name.clone(), tensor));
        }
        let present = self.spec.cache.iter().map(|entry| entry.present.clone());
        let outputs = has_logits.then(|| self.spec.logits.clone()).into_iter().chain(present).collect();
        let session = Session::new(self.plan.clone(), inputs, Some(outputs))?.with_node_limit(self.node_limit);
        Ok(Block { session: Some(session), tokens: count, has_logits })
    }

    fn finish(&mut self, block: Block) -> Result<(), EngineError> {
        let Some(session) = block.session else {
            self.logits.clear();
            if let (true, Store::InPlace(decode)) = (block.has_logits, &self.store) {
                let wrong = || EngineError::invalid("output \"logits\"", "it has no row of a number for each token");
                self.logits.extend_from_slice(decode.logits(self.spec.vocabulary_size).ok_or_else(wrong)?);
            }
            self.tokens.extend(self.queue.drain(..block.tokens));
            return Ok(());
        };
        let mut outputs = session.into_outputs()?.into_iter();
        if block.has_logits {
            let wrong = || EngineError::invalid("output \"logits\"", "it has no row of a number for each token");
            let (_, logits) = outputs.next().ok_or_else(wrong)?;
            let row = self.spec.vocabulary_size * size_of::<f32>();
            let logits = logits.cast_to(ElementType::Float32)?;
            let last = logits.bytes().len().checked_sub(row).ok_or_else(wrong)?;
            let numbers = logits.bytes()[last..].as_chunks().0.iter();
            self.logits.clear();
            self.logits.extend(numbers.map(|bytes| f32::from_le_bytes(*bytes)));
        } else {
            self.logits.clear();
        }
        let length = (self.tokens.len() + block.tokens) as u64;
        let cache: Vec<Tensor> = outputs.map(|(_, tensor)| tensor).collect();
        for (entry, tensor) in self.spec.cache.iter().zip(&cache) {
            let expected = [1, entry.heads, length, entry.head_size];
            if tensor.shape() != expected {
                return Err(EngineError::TensorShape {
                    name: entry.present.clone(),
                    expected: expected.map(Some).to_vec(),
                    got: tensor.shape(),
                });
            }
        }
        self.store = Store::Copied(cache);
        self.tokens.extend(self.queue.drain(..block.tokens));
        Ok(())
    }

    /// The logits of the last token, one number for each of the vocabulary. Empty while tokens are queued, before the
    /// first, and after [`Decoder::truncate`].
    pub fn logits(&self) -> &[f32] {
        if self.queue.is_empty() { &self.logits } else { &[] }
    }

    /// Forgets all tokens but the first `length`, and those that are queued.
    pub fn truncate(&mut self, length: usize) -> Result<(), EngineError> {
        self.queue.clear();
        self.running = None;
        if length >= self.tokens.len() {
            return Ok(());
        }
        self.logits.clear();
        // What is in place behind the length is written over.
        if let Store::Copied(cache) = &mut self.store {
            *cache = match length {
                0 => Vec::new(),
                _ => cache.iter().map(|tensor| first_of(tensor, length)).collect::<Result<_, _>>()?,
            };
        }
        self.tokens.truncate(length);
        Ok(())
    }
}

/// A run of the plan in which keys and values grow in place, where its program can do so.
fn in_place(plan: &Plan, spec: &DecoderSpec) -> Result<Option<Decode>, EngineError> {
    let Body::Program(body) = &plan.body else { return Ok(None) };
    let new = Line { of_new: 1, ..Line::constant(0) };
    let past = Line { of_past: 1, ..Line::constant(0) };
    let all = Line { of_past: 1, of_new: 1, ..Line::constant(0) };
    let one = Line::constant(1);
    let shape = |role: &Role| match *role {
        Role::Tokens(_) | Role::Positions(_) => vec![one, new],
        Role::AttentionMask(_) => vec![one, all],
        Role::LogitsToKeep(_, rank) => vec![one; rank],
        Role::Past(entry) => {
            let entry = &spec.cache[entry];
            vec![one, Line::constant(entry.heads as i64), past, Line::constant(entry.head_size as i64)]
        }
    };
    let shapes = spec.inputs.iter().map(shape).collect();
    let output = |name: &str| plan.outputs().iter().position(|output| output.name == name);
    let pair = |(index, role): (usize, &Role)| match role {
        Role::Past(entry) => output(&spec.cache[*entry].present).map(|present| (index, present)),
        _ => None,
    };
    let pairs: Vec<(usize, usize)> = spec.inputs.iter().enumerate().filter_map(pair).collect();
    let Some(logits) = output(&spec.logits) else { return Ok(None) };
    Decode::new(&body.program, &pairs, logits, shapes)
}

/// Gives an input of integers.
fn write_integers(
    decode: &mut Decode,
    index: usize,
    element_type: ElementType,
    count: usize,
    values: impl Iterator<Item = i64>,
) {
    let size = element_type.size_bytes() as usize;
    let places = decode.input(index, count * size).chunks_exact_mut(size);
    for (place, value) in places.zip(values) {
        place.copy_from_slice(&value.to_le_bytes()[..size]);
    }
}

/// A tensor of integers of one of the types that [`integers`] lets through.
fn integer_tensor(
    element_type: ElementType,
    shape: &[u64],
    values: impl Iterator<Item = i64>,
) -> Result<Tensor, EngineError> {
    let bytes: Vec<u8> = match element_type {
        ElementType::Int32 => values.flat_map(|value| (value as i32).to_le_bytes()).collect(),
        _ => values.flat_map(i64::to_le_bytes).collect(),
    };
    Tensor::from_bytes(element_type, shape, &bytes)
}

/// Keys or values of the first `length` tokens.
fn first_of(tensor: &Tensor, length: usize) -> Result<Tensor, EngineError> {
    let mut shape = tensor.shape();
    let row = (shape[SEQUENCE_AXIS + 1] * tensor.element_type().size_bytes()) as usize;
    let head = shape[SEQUENCE_AXIS] as usize * row;
    shape[SEQUENCE_AXIS] = length as u64;
    let mut kept = Tensor::zeroed(tensor.element_type(), &shape)?;
    if row > 0 {
        let heads = tensor.bytes().chunks_exact(head);
        kept.bytes_mut().chunks_exact_mut(length * row).zip(heads).for_each(|(to, from)| {
            to.copy_from_slice(&from[..length * row]);
        });
    }
    Ok(kept)
}
