//! From a conversation to a prompt, by a chat template in Jinja.

use crate::TextError;
use minijinja::value::{Rest, Value};
use minijinja::{Environment, Error, ErrorKind, filters, functions, tests};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What rendering a prompt may take: instructions of the template's machine.
const FUEL: u64 = 1_000_000;
/// The template's name in the environment and in errors.
const NAME: &str = "chat";

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, or what else the template knows.
    pub role: String,
    pub content: String,
}

/// A chat template of Hugging Face's form.
///
/// Of Jinja it has statements, expressions, tests, macros and loops (without `break`), the filters and functions that most
/// published templates use, and Python's methods of strings and mappings. Not: `strftime_now` (there is no clock), tools, and documents.
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// Reads a template; `bos` and `eos` are what it knows as `bos_token` and `eos_token`.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<ChatTemplate, TextError> {
        let mut environment = Environment::empty();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("trim", filters::trim);
        environment.add_filter("length", filters::length);
        environment.add_filter("count", filters::length);
        environment.add_filter("join", filters::join);
        environment.add_filter("upper", filters::upper);
        environment.add_filter("lower", filters::lower);
        environment.add_filter("replace", filters::replace);
        environment.add_filter("default", filters::default);
        environment.add_filter("first", filters::first);
        environment.add_filter("last", filters::last);
        environment.add_filter("list", filters::list);
        environment.add_filter("string", filters::string);
        environment.add_filter("items", filters::items);
        environment.add_test("defined", tests::is_defined);
        environment.add_test("undefined", tests::is_undefined);
        environment.add_test("none", tests::is_none);
        environment.add_test("string", tests::is_string);
        environment.add_test("mapping", tests::is_mapping);
        environment.add_test("sequence", tests::is_sequence);
        environment.add_test("iterable", tests::is_iterable);
        environment.add_test("number", tests::is_number);
        environment.add_test("boolean", tests::is_boolean);
        environment.add_test("true", tests::is_true);
        environment.add_test("false", tests::is_false);
        environment.add_test("equalto", tests::is_eq);
        environment.add_test("in", tests::is_in);
        environment.add_function("range", functions::range);
        environment.add_function("namespace", functions::namespace);
        environment.add_function("raise_exception", raise_exception);
        environment.add_template_owned(NAME, source.to_string()).map_err(|error| failed(&error))?;
        Ok(ChatTemplate { environment, bos: bos.into(), eos: eos.into() })
    }

    /// The prompt of a conversation; with `adds_generation_prompt` it ends where the assistant's answer begins.
    pub fn render(&self, messages: &[Message], adds_generation_prompt: bool) -> Result<String, TextError> {
        let message = |message: &Message| {
            let fields = [("role", &message.role), ("content", &message.content)];
            Value::from_iter(fields.map(|(name, text)| (name.to_string(), Value::from(text.as_str()))))
        };
        let context: BTreeMap<String, Value> = [
            ("messages", Value::from_iter(messages.iter().map(message))),
            ("add_generation_prompt", Value::from(adds_generation_prompt)),
            ("bos_token", Value::from(self.bos.as_str())),
            ("eos_token", Value::from(self.eos.as_str())),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_string(), value))
        .collect();
        let template = self.environment.get_template(NAME).map_err(|error| failed(&error))?;
        template.render(Value::from(context)).map_err(|error| failed(&error))
    }
}

/// What templates call to refuse a conversation.
fn raise_exception(arguments: Rest<Value>) -> Result<Value, Error> {
    let reason = arguments.first().map(Value::to_string).unwrap_or_default();
    Err(Error::new(ErrorKind::InvalidOperation, reason))
}

fn failed(error: &Error) -> TextError {
    TextError::Template { reason: error.to_string() }
}

#[cfg(test)]
mod tests_of_templates {
    use super::*;

    /// As published with SmolLM2-135M-Instruct.
    const CHATML: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    fn message(role: &str, content: &str) -> Message {
        Message { role: role.into(), content: content.into() }
    }

    fn render(source: &str, messages: &[Message]) -> Result<String, TextError> {
        ChatTemplate::new(source, "<s>", "</s>")?.render(messages, true)
    }

    #[test]
    fn a_published_template_gives_its_prompt() {
        let got = render(CHATML, &[message("user", "What is the capital of Japan?")]).expect("a good template");
        let expected = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
            <|im_start|>user\nWhat is the capital of Japan?<|im_end|>\n<|im_start|>assistant\n";
        assert_eq!(got, expected);
        let system = [message("system", "Be brief."), message("user", "{{ 1 + 1 }}")];
        let got = render(CHATML, &system).expect("a good template");
        assert_eq!(
            got,
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n{{ 1 + 1 }}<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    /// The forms of the templates of Llama 2, Qwen and Mistral: tests, slices, namespaces, methods of strings, exceptions.
    #[test]
    fn what_published_templates_use_is_there() {
        let source = "{%- if messages[0].role == 'system' %}{% set system = messages[0]['content'] | trim %}{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}\
            {%- set ns = namespace(last=-1) %}{{ bos_token }}\
            {%- for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}\
            {%- set content = m.content.strip() %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}\
            {%- if system is defined and loop.first %}[{{ system }}]{% endif %}{% if m.role == 'user' %} U:{{ content }}{% else %} A:{{ content + eos_token }}{% endif %}\
            {%- set ns.last = loop.index0 %}{% endfor %}({{ ns.last }})";
        let talk = [
            message("system", " S "),
            message("user", " hi "),
            message("assistant", "<think>x</think>\n\nhello"),
            message("user", "bye"),
        ];
        assert_eq!(render(source, &talk).expect("all is there"), "<s>[S] U:hi A:hello</s> U:bye(2)");
        match render(source, &talk[2..]) {
            Err(TextError::Template { reason }) => assert!(reason.contains("roles must alternate"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn bad_and_endless_templates_are_refused() {
        assert!(matches!(ChatTemplate::new("{% if %}", "", ""), Err(TextError::Template { .. })));
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
        assert!(matches!(render(endless, &[]), Err(TextError::Template { .. })));
        assert!(matches!(render("{{ strftime_now('%Y') }}", &[]), Err(TextError::Template { .. })));
    }
}
