//! What is on the heap of a language model beside its plan: tokenizer, chat template, tokens that end a text.

use super::*;
use crate::engine_error;
use crate::store::models;
use onnx_canister_interface::Task;
use onnx_engine::{DecoderSpec, Plan};
use onnx_text::{ChatTemplate, SpecialTokens, Tokenizer};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// A language model's way with text.
pub struct Language {
    pub tokenizer: Option<Tokenizer>,
    pub template: Option<ChatTemplate>,
    /// Tokens that end a text.
    pub ends: BTreeSet<u32>,
    /// Tokens of prompt and text at most.
    pub context_length: u32,
    /// Token identifiers are below it.
    pub vocabulary_size: u32,
}

thread_local! {
    static LANGUAGES: RefCell<BTreeMap<ModelKey, Rc<Language>>> = const { RefCell::new(BTreeMap::new()) };
}

/// Reads the files of text of a version whose plan is made; `file` gives the bytes of one, if it is there.
pub fn load(
    key: &ModelKey,
    plan: &Plan,
    mut file: impl FnMut(&str) -> Result<Option<Vec<u8>>, Error>,
) -> Result<(), Error> {
    let Task::Generate { context_length } = models::record(key)?.task else { return Ok(()) };
    let spec = DecoderSpec::of(plan).map_err(engine_error::of_model)?;
    let of_file = |error| of_text("the model", error);
    let tokenizer = match file(TOKENIZER_FILE)? {
        Some(bytes) => Some(Tokenizer::from_json(&bytes).map_err(of_file)?),
        None => None,
    };
    let (config, generation_config) = (file(TOKENIZER_CONFIG_FILE)?, file(GENERATION_CONFIG_FILE)?);
    let tokens = SpecialTokens::read(tokenizer.as_ref(), config.as_deref(), generation_config.as_deref());
    let SpecialTokens { bos, eos, ends, chat_template } = tokens.map_err(of_file)?;
    let source = match file(CHAT_TEMPLATE_FILE)? {
        Some(bytes) => Some(
            String::from_utf8(bytes)
                .map_err(|error| Error::ModelInvalid { place: CHAT_TEMPLATE_FILE.into(), reason: error.to_string() })?,
        ),
        None => chat_template,
    };
    let invalid =
        |error: TextError| Error::ModelInvalid { place: "the chat template".into(), reason: error.to_string() };
    let template = match source {
        Some(source) => Some(ChatTemplate::new(&source, &bos, &eos).map_err(invalid)?),
        None => None,
    };
    let vocabulary_size = u32::try_from(spec.vocabulary_size).unwrap_or(u32::MAX);
    let language = Rc::new(Language { tokenizer, template, ends, context_length, vocabulary_size });
    LANGUAGES.with_borrow_mut(|languages| languages.insert(key.clone(), language));
    Ok(())
}

/// The language of a version that is loaded.
pub fn get(key: &ModelKey) -> Result<Rc<Language>, Error> {
    let not_one = || invalid("model", &key.name, "its task is not generate: call infer or classify");
    LANGUAGES.with_borrow(|languages| languages.get(key).cloned()).ok_or_else(not_one)
}

pub fn forget(key: &ModelKey) {
    LANGUAGES.with_borrow_mut(|languages| languages.remove(key));
}
