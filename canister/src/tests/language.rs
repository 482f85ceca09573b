//! Generation on a tiny language model: whole, in pieces, side by side, interrupted, and what it refuses.

use crate::jobs::{self, JobId};
use crate::language::{prompt, sessions};
use crate::limits::GENERATIONS_MAX;
use crate::runtime::fake::{self, Outcome};
use crate::settings;
use crate::testing::{life, make_ready, manifest, model, onnx};
use onnx_canister_interface::{
    CallLimits, ChatMessage, Error, FinishReason, GenerateRequest, Generation, JobResult, JobState, Manifest, Prompt,
    SamplingOptions, SettingsPatch, Task,
};

const VOCABULARY: u64 = 12;
const WIDTH: u64 = 4;
const CONTEXT: u32 = 64;
/// Text of the tokens from 2 on.
const LETTERS: &str = "abcdefghij";

/// Eighths from -1 to 1: sums and products of a few of them are exact in any order.
fn numbers(seed: u32, count: u64) -> Vec<f32> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 % 17.0 / 8.0 - 1.0
    };
    (0..count).map(next).collect()
}

/// A model whose logits are of the sum of the embeddings of all tokens so far, the last one counted twice. It keeps the
/// embeddings as a language model keeps keys and values.
fn causal_onnx() -> Vec<u8> {
    let attribute = |name: &str, value: u64| {
        onnx::field(5, &[onnx::field(1, name.as_bytes()), onnx::number(3, value), onnx::number(20, 2)].concat())
    };
    let with = |node: Vec<u8>, name: &str, value: u64| [node, attribute(name, value)].concat();
    let value = |name: &str, element_type: u64, sizes: &[&str]| {
        let size = |size: &&str| match size.parse::<u64>() {
            Ok(known) => onnx::field(1, &onnx::number(1, known)),
            Err(_) => onnx::field(1, &onnx::field(2, size.as_bytes())),
        };
        let shape: Vec<u8> = sizes.iter().flat_map(size).collect();
        let tensor = [onnx::number(1, element_type), onnx::field(2, &shape)].concat();
        [onnx::field(1, name.as_bytes()), onnx::field(2, &onnx::field(1, &tensor))].concat()
    };
    let (float, int64) = (1, 7);
    let axes: Vec<u8> = [0, 1, 3, 2].iter().flat_map(|axis| onnx::number(8, *axis)).collect();
    let permutation = onnx::field(5, &[onnx::field(1, b"perm"), axes, onnx::number(20, 7)].concat());
    let nodes = [
        onnx::node("Gather", &["embedding", "input_ids"], "token"),
        onnx::node("Unsqueeze", &["token", "axis_1"], "new"),
        with(onnx::node("Concat", &["past_key_values.0.key", "new"], "present.0.key"), "axis", 2),
        onnx::node("Shape", &["attention_mask"], "mask_shape"),
        onnx::node("Gather", &["mask_shape", "one"], "total"),
        onnx::node("Range", &["zero", "total", "one"], "places"),
        onnx::node("Unsqueeze", &["position_ids", "axes_1_3"], "own_places"),
        onnx::node("LessOrEqual", &["places", "own_places"], "sees"),
        // Ones of the size that the cache and the new tokens have together, which is also the mask's.
        [onnx::node("Transpose", &["present.0.key"], "keys"), permutation].concat(),
        onnx::node("MatMul", &["new", "keys"], "products"),
        onnx::node("Mul", &["products", "nothing"], "zeros"),
        onnx::node("Add", &["zeros", "unit"], "ones"),
        onnx::node("Where", &["sees", "ones", "nothing"], "weights"),
        onnx::node("MatMul", &["weights", "present.0.key"], "sum"),
        onnx::node("Add", &["sum", "new"], "mixed"),
        onnx::node("MatMul", &["mixed", "head"], "scores"),
        onnx::node("Squeeze", &["scores", "axis_1"], "logits"),
    ];
    let initializers = [
        onnx::tensor("embedding", &[VOCABULARY, WIDTH], &numbers(1, VOCABULARY * WIDTH), None),
        onnx::tensor("head", &[WIDTH, VOCABULARY], &numbers(2, VOCABULARY * WIDTH), None),
        onnx::tensor("nothing", &[], &[0.0], None),
        onnx::tensor("unit", &[], &[1.0], None),
        onnx::ints("axis_1", &[1], &[1]),
        onnx::ints("axes_1_3", &[2], &[1, 3]),
        onnx::ints("zero", &[], &[0]),
        onnx::ints("one", &[], &[1]),
    ];
    let inputs = [
        value("input_ids", int64, &["1", "sequence"]),
        value("attention_mask", int64, &["1", "total"]),
        value("position_ids", int64, &["1", "sequence"]),
        value("past_key_values.0.key", float, &["1", "1", "past", "4"]),
    ];
    let outputs =
        [value("logits", float, &["1", "sequence", "12"]), value("present.0.key", float, &["1", "1", "total", "4"])];
    onnx::model(&nodes, &initializers, &inputs, &outputs)
}

/// The greedy tokens after a prompt, from the model's definition.
fn greedy(prompt: &[u32], count: usize) -> Vec<u32> {
    let (embedding, head) = (numbers(1, VOCABULARY * WIDTH), numbers(2, VOCABULARY * WIDTH));
    let mut tokens = prompt.to_vec();
    while tokens.len() < prompt.len() + count {
        let last = tokens[tokens.len() - 1];
        let row = |i: usize| {
            let of = |token: &u32| f64::from(embedding[*token as usize * 4 + i]);
            tokens.iter().map(of).sum::<f64>() + of(&last)
        };
        let logit = |token: usize| (0..4).map(|i| row(i) * f64::from(head[i * 12 + token])).sum::<f64>();
        let best = (0..12).max_by(|a, b| logit(*a).total_cmp(&logit(*b)).then(b.cmp(a))).expect("there are tokens");
        tokens.push(best as u32);
    }
    tokens.split_off(prompt.len())
}

fn tokenizer_json() -> String {
    let special = |id: u32, content: &str| {
        format!(
            r#"{{"id":{id},"content":"{content}","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}}"#
        )
    };
    let letters: Vec<String> = LETTERS.chars().enumerate().map(|(i, c)| format!(r#""{c}":{}"#, i + 2)).collect();
    format!(
        r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{},{}],"normalizer":null,"pre_tokenizer":null,"post_processor":null,"decoder":{{"type":"Fuse"}},"model":{{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"ignore_merges":false,"vocab":{{"<s>":0,"</s>":1,{}}},"merges":[]}}}}"#,
        special(0, "<s>"),
        special(1, "</s>"),
        letters.join(",")
    )
}

const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}";

fn language_manifest(name: &str, files: &[(&str, &[u8])]) -> Manifest {
    let mut manifest = manifest(name, files, 4_096);
    manifest.task = Task::Generate { context_length: CONTEXT };
    manifest
}

fn make_language() {
    let (onnx, json) = (causal_onnx(), tokenizer_json());
    let config = r#"{"bos_token":"<s>","eos_token":{"content":"</s>"}}"#;
    let files: [(&str, &[u8]); 4] = [
        ("model.onnx", &onnx),
        ("tokenizer.json", json.as_bytes()),
        ("tokenizer_config.json", config.as_bytes()),
        ("chat_template.jinja", TEMPLATE.as_bytes()),
    ];
    make_ready(&language_manifest("l", &files), &files);
}

fn ask(prompt: Prompt) -> GenerateRequest {
    GenerateRequest {
        model: model("l", None),
        prompt,
        session: None,
        sampling: None,
        max_tokens: Some(20),
        stop: None,
        limits: None,
    }
}

fn ask_text(text: &str) -> GenerateRequest {
    ask(Prompt::Text(text.into()))
}

/// Never greedy, and never the end of the text.
fn draws(seed: u64) -> Option<SamplingOptions> {
    let logit_bias = Some(vec![(1, -100.0), (0, -100.0)]);
    let (temperature, repetition_penalty) = (Some(1.5), Some(1.2));
    Some(SamplingOptions { logit_bias, temperature, repetition_penalty, seed: Some(seed), ..Default::default() })
}

fn resume(session: u64) -> GenerateRequest {
    GenerateRequest { session: Some(session), max_tokens: None, ..ask(Prompt::Resume) }
}

fn generate(request: &GenerateRequest) -> Result<Generation, Error> {
    fake::begin_message();
    let owner = crate::runtime::caller();
    let begun = prompt::begin(owner, request, 77)?;
    match fake::block_on(jobs::run(owner, crate::inference::Request::Generate(begun))).map(jobs::with_reply_cost)? {
        JobResult::Generate(generation) => Ok(generation),
        other => panic!("{other:?}"),
    }
}

fn query(request: &GenerateRequest) -> Result<Generation, Error> {
    fake::begin_message();
    let owner = crate::runtime::caller();
    let begun = prompt::begin(owner, request, prompt::seed_of(request))?;
    match jobs::run_query(&owner, &crate::inference::Request::Generate(begun))? {
        JobResult::Generate(generation) => Ok(generation),
        other => panic!("{other:?}"),
    }
}

fn start(request: &GenerateRequest) -> JobId {
    fake::begin_message();
    let owner = crate::runtime::caller();
    let begun = prompt::begin(owner, request, 77).expect("a good request");
    jobs::start(owner, crate::inference::Request::Generate(begun)).expect("there is room")
}

fn finished(job: JobId) -> Generation {
    match jobs::poll(job).expect("it is ours").state {
        JobState::Done(result) => match *result {
            JobResult::Generate(generation) => generation,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn set_budget(message_budget: u64) {
    let patch = SettingsPatch { message_budget: Some(message_budget), ..Default::default() };
    settings::update(patch).expect("in range");
}

fn text_of(tokens: &[u32]) -> String {
    tokens.iter().filter(|token| **token >= 2).filter_map(|token| LETTERS.chars().nth(*token as usize - 2)).collect()
}

fn place(result: Result<Generation, Error>) -> String {
    match result {
        Err(Error::InvalidArgument { place, .. }) => place,
        other => panic!("{other:?}"),
    }
}

#[test]
fn greedy_text_is_that_of_the_models_definition() {
    life(|| {
        make_language();
        let mut request = ask_text("abc");
        request.sampling = Some(SamplingOptions { logit_bias: Some(vec![(1, -100.0)]), ..Default::default() });
        let answer = generate(&request).expect("it fits");
        let expected = greedy(&[2, 3, 4], 20);
        assert!(!expected.contains(&1), "the end is of no matter here: {expected:?}");
        assert_eq!((answer.tokens.as_slice(), answer.text), (&expected[..], text_of(&expected)));
        assert_eq!(answer.finish_reason, Some(FinishReason::Length));
        assert_eq!((answer.prompt_tokens, answer.cached_tokens, answer.generated_tokens), (3, 0, 20));
        assert_eq!((answer.seed, answer.cost.messages), (0, 1));
        assert_eq!(answer.cycles, answer.cost.instructions + 5_000_000);
        let tokens = generate(&GenerateRequest { prompt: Prompt::Tokens(vec![2, 3, 4]), ..request }).expect("it fits");
        assert_eq!(tokens.tokens, expected);
    });
}

#[test]
fn a_text_does_not_depend_on_how_it_was_cut() {
    life(|| {
        make_language();
        for sampling in [None, draws(5)] {
            let request = GenerateRequest { sampling, ..ask_text("abcd") };
            let whole = generate(&request).expect("it fits");
            assert_eq!(whole.cost.messages, 1);
            // Every message does the least there is.
            set_budget(1);
            let by_itself = start(&request);
            fake::run_timers(10_000);
            let by_itself = finished(by_itself);
            assert_eq!((by_itself.tokens.as_slice(), &by_itself.text), (&whole.tokens[..], &whole.text));
            assert!(by_itself.cost.messages > 20, "{:?}", by_itself.cost);
            // And every call has three messages.
            let limits = Some(CallLimits { max_messages: Some(3), max_instructions: None });
            let mut answer = generate(&GenerateRequest { limits: limits.clone(), ..request }).expect("a part of it");
            let mut calls = 1;
            while answer.finish_reason == Some(FinishReason::Budget) {
                assert!(whole.text.starts_with(&answer.text), "{} of {}", answer.text, whole.text);
                let session = answer.session.expect("an update keeps one");
                answer = generate(&GenerateRequest { limits: limits.clone(), ..resume(session) }).expect("more of it");
                calls += 1;
                assert!(calls < 1_000);
            }
            assert_eq!((answer.tokens, answer.text, answer.seed), (whole.tokens, whole.text, whole.seed));
            assert_eq!(answer.finish_reason, whole.finish_reason);
            assert!(calls > 3, "{calls}");
            set_budget(20_000_000_000);
        }
    });
}

#[test]
fn texts_side_by_side_are_those_of_each_alone() {
    life(|| {
        make_language();
        let requests = [5, 6].map(|seed| GenerateRequest { sampling: draws(seed), ..ask_text("ab") });
        let alone = requests.clone().map(|request| generate(&request).expect("it fits"));
        assert_ne!(alone[0].tokens, alone[1].tokens);
        set_budget(1);
        let jobs = requests.map(|request| start(&request));
        let mut lengths = [0, 0];
        let mut overlapped = false;
        while fake::fire_timer() {
            for (index, job) in jobs.iter().enumerate() {
                let info = crate::jobs::poll(*job).expect("it is ours");
                if let Some(so_far) = info.generation {
                    assert!(alone[index].text.starts_with(&so_far.text), "{} of {}", so_far.text, alone[index].text);
                    lengths[index] = so_far.tokens.len();
                }
            }
            overlapped |= lengths.iter().all(|length| (2..18).contains(length));
        }
        assert!(overlapped, "none waits for the other's end");
        for (job, alone) in jobs.into_iter().zip(alone) {
            assert_eq!((finished(job).tokens, finished(job).text), (alone.tokens, alone.text));
        }
    });
}

#[test]
fn as_many_texts_as_may_be_are_under_way() {
    life(|| {
        make_language();
        let whole = generate(&ask_text("ab")).expect("it fits");
        set_budget(1);
        let jobs: Vec<JobId> = (0..GENERATIONS_MAX + 2).map(|_| start(&ask_text("ab"))).collect();
        (0..2 * jobs.len()).for_each(|_| assert!(fake::fire_timer()));
        let queued = |job: &&JobId| jobs::poll(**job).expect("it is ours").state == JobState::Queued;
        assert_eq!(jobs.iter().filter(queued).count(), 2);
        assert!(matches!(generate(&ask_text("ab")), Err(Error::Busy { .. })));
        fake::run_timers(100_000);
        assert!(jobs.iter().all(|job| finished(*job).text == whole.text));
    });
}

#[test]
fn a_seed_of_zero_is_derived_and_told() {
    life(|| {
        make_language();
        let request = GenerateRequest { sampling: draws(0), ..ask_text("ab") };
        assert!(prompt::needs_seed(&request) && !prompt::needs_seed(&ask_text("ab")));
        let answer = generate(&request).expect("it fits");
        assert_eq!(answer.seed, 77);
        let again = GenerateRequest { sampling: draws(77), ..ask_text("ab") };
        assert!(!prompt::needs_seed(&again));
        assert_eq!(generate(&again).expect("it fits").tokens, answer.tokens);
        let (first, second) = (query(&request).expect("it fits"), query(&request).expect("it fits"));
        assert_eq!((first.seed, &first.tokens), (second.seed, &second.tokens));
        assert!(first.seed != 0 && first.seed != 77);
    });
}

#[test]
fn a_stop_sequence_ends_the_text_before_it() {
    life(|| {
        make_language();
        let request = GenerateRequest { sampling: draws(9), ..ask_text("ab") };
        let whole = generate(&request).expect("it fits");
        let stop = whole.text[7..9].to_string();
        let at = whole.text.find(&stop).expect("it is there");
        let answer = generate(&GenerateRequest { stop: Some(vec![stop]), ..request }).expect("it fits");
        assert_eq!((answer.text.as_str(), answer.finish_reason), (&whole.text[..at], Some(FinishReason::Stop)));
        assert_eq!(answer.tokens, whole.tokens[..at + 2]);
        // What has ended stays as it is.
        let again = generate(&resume(answer.session.expect("an update keeps one"))).expect("it is there");
        assert_eq!((again.text, again.finish_reason), (answer.text, Some(FinishReason::Stop)));
        // The token that ends a text is no part of it.
        let sampling = Some(SamplingOptions { logit_bias: Some(vec![(1, 100.0)]), ..Default::default() });
        let ended = generate(&GenerateRequest { sampling, ..ask_text("ab") }).expect("it fits");
        assert_eq!((ended.text.as_str(), ended.tokens.len(), ended.finish_reason), ("", 0, Some(FinishReason::Stop)));
    });
}

#[test]
fn a_conversation_keeps_what_it_has_read() {
    life(|| {
        make_language();
        let user = |content: &str| Prompt::Chat(vec![ChatMessage { role: "user".into(), content: content.into() }]);
        let first = generate(&GenerateRequest { sampling: draws(3), ..ask(user("bcd")) }).expect("it fits");
        // <s> b c d </s>
        assert_eq!((first.prompt_tokens, first.cached_tokens), (5, 0));
        let request = GenerateRequest { session: first.session, sampling: draws(4), ..ask(user("e")) };
        let second = generate(&request).expect("it fits");
        // What the template makes of the first answer is its text, so all of that is known but the last token, which was
        // never read.
        assert_eq!((second.prompt_tokens, second.cached_tokens), (5 + 20 + 1 + 2, 5 + 19));
        let record = sessions::read(first.session.expect("an update keeps one")).expect("it is there");
        let contents: Vec<&str> = record.messages.iter().map(|message| message.content.as_str()).collect();
        assert_eq!(contents, ["bcd", first.text.as_str(), "e"]);
        // The same in a session of its own, which has to read all of it.
        let all = vec![
            ChatMessage { role: "user".into(), content: "bcd".into() },
            ChatMessage { role: "assistant".into(), content: first.text.clone() },
            ChatMessage { role: "user".into(), content: "e".into() },
        ];
        let anew = generate(&GenerateRequest { sampling: draws(4), ..ask(Prompt::Chat(all)) }).expect("it fits");
        assert_eq!((anew.tokens, anew.text, anew.cached_tokens), (second.tokens, second.text, 0));
        let special = ask(user("b</s>"));
        assert_eq!(place(generate(&special)), "prompt.chat[0].content");
        let plain = GenerateRequest { session: first.session, ..ask_text("b") };
        assert_eq!(place(generate(&plain)), "prompt");
        assert_eq!(place(generate(&ask(Prompt::Chat(vec![])))), "prompt.chat");
    });
}

#[test]
fn plain_text_goes_on_from_the_cache() {
    life(|| {
        make_language();
        let first = generate(&GenerateRequest { sampling: draws(3), ..ask_text("abc") }).expect("it fits");
        let request = GenerateRequest { session: first.session, sampling: draws(4), ..ask_text("de") };
        let second = generate(&request).expect("it fits");
        // The last generated token was not read yet.
        assert_eq!((second.prompt_tokens, second.cached_tokens), (25, 22));
        let all = [&[2, 3, 4][..], &first.tokens, &[5, 6]].concat();
        let anew = GenerateRequest { sampling: draws(4), ..ask(Prompt::Tokens(all)) };
        assert_eq!(generate(&anew).expect("it fits").tokens, second.tokens);
    });
}

#[test]
fn stops_traps_and_upgrades_lose_no_text() {
    life(|| {
        make_language();
        let patch = SettingsPatch { max_call_messages: Some(1_000), ..Default::default() };
        settings::update(patch).expect("in range");
        let request = GenerateRequest { sampling: draws(8), ..ask_text("abc") };
        let whole = generate(&request).expect("it fits");
        set_budget(1);
        // A trap: the job fails, the session goes on from the message before.
        let runs = |count: usize| vec![Outcome::Run; count];
        fake::set_outcomes([runs(60), vec![Outcome::Trap("out of order".into())]].concat());
        match generate(&request) {
            Err(Error::Trapped { message, .. }) => assert_eq!(message, "out of order"),
            other => panic!("{other:?}"),
        }
        let trapped = latest_session();
        let known = sessions::read(trapped).expect("it is kept").prompt_and_text().1.len();
        assert!((1..20).contains(&known), "{known}");
        assert_eq!(goes_on(trapped), (whole.tokens.clone(), whole.text.clone()));
        // The canister stops in the middle: the call is answered with what there is.
        fake::set_outcomes([runs(60), vec![Outcome::Stopping]].concat());
        let answer = generate(&request).expect("it has a part");
        assert_eq!(answer.finish_reason, Some(FinishReason::Interrupted));
        assert!(!answer.tokens.is_empty() && whole.text.starts_with(&answer.text));
        fake::set_stopping(false);
        // A job of its own is cancelled, and another is under way at the upgrade.
        let cancelled = start(&request);
        (0..80).for_each(|_| assert!(fake::fire_timer()));
        let info = jobs::cancel(cancelled).expect("it is ours");
        let kept = info.generation.expect("what there is");
        assert!(info.state == JobState::Cancelled && whole.text.starts_with(&kept.text) && !kept.tokens.is_empty());
        let under_way = start(&request);
        (0..80).for_each(|_| assert!(fake::fire_timer()));
        let sessions = [answer.session, kept.session];
        fake::after_upgrade(move || {
            set_budget(1);
            fake::run_timers(10_000);
            let (tokens, text) = (finished(under_way).tokens, finished(under_way).text);
            assert_eq!((tokens, text), (whole.tokens.clone(), whole.text.clone()));
            for session in sessions {
                let after = goes_on(session.expect("it is kept"));
                assert_eq!(after, (whole.tokens.clone(), whole.text.clone()));
            }
        });
    });
}

/// Resumes a session until its text has ended.
fn goes_on(session: u64) -> (Vec<u32>, String) {
    loop {
        let answer = generate(&resume(session)).expect("it goes on");
        if answer.finish_reason != Some(FinishReason::Budget) {
            assert_eq!(answer.finish_reason, Some(FinishReason::Length));
            return (answer.tokens, answer.text);
        }
    }
}

/// The session that was begun last.
fn latest_session() -> u64 {
    let keys = crate::stable::directory::keys(crate::stable::Kind::Session, &[]);
    u64::from_be_bytes(keys.last().expect("there is one").as_slice().try_into().expect("eight bytes"))
}

#[test]
fn a_query_gives_what_fits() {
    life(|| {
        make_language();
        let request = GenerateRequest { sampling: draws(5), ..ask_text("abcd") };
        let whole = generate(&request).expect("it fits");
        assert_eq!(query(&request).expect("it fits").tokens, whole.tokens);
        let patch = SettingsPatch { query_budget: Some(200_000), ..Default::default() };
        settings::update(patch).expect("in range");
        let part = query(&request).expect("what fits");
        assert_eq!(part.finish_reason, Some(FinishReason::Budget));
        assert!(part.tokens.len() < 20 && whole.text.starts_with(&part.text));
    });
}

#[test]
fn what_can_t_be_generated_is_told() {
    life(|| {
        make_language();
        assert_eq!(place(generate(&ask_text(""))), "prompt");
        assert_eq!(place(generate(&ask(Prompt::Tokens(vec![])))), "prompt");
        assert_eq!(place(generate(&ask(Prompt::Tokens(vec![2, 12])))), "prompt");
        assert_eq!(place(generate(&ask(Prompt::Tokens(vec![2; 65])))), "prompt");
        let special = generate(&ask_text("<s>ab")).expect("special tokens are tokens");
        assert_eq!(special.prompt_tokens, 3);
        let with = |change: fn(&mut GenerateRequest)| {
            let mut request = ask_text("abc");
            change(&mut request);
            generate(&request)
        };
        let nothing = with(|r| r.max_tokens = Some(0)).expect("an empty text");
        assert_eq!((nothing.text.as_str(), nothing.finish_reason), ("", Some(FinishReason::Length)));
        let all =
            with(|r| (r.max_tokens, r.sampling) = (Some(4_000_000_000), draws(1))).expect("as much as there is room");
        assert_eq!((all.generated_tokens, all.finish_reason), (CONTEXT - 3, Some(FinishReason::Length)));
        assert_eq!(place(with(|r| r.stop = Some(vec![String::new()]))), "stop[0]");
        assert_eq!(place(with(|r| r.stop = Some(vec!["x".into(); 17]))), "stop");
        let hot = SamplingOptions { temperature: Some(f32::NAN), ..Default::default() };
        assert_eq!(place(generate(&GenerateRequest { sampling: Some(hot), ..ask_text("a") })), "sampling.temperature");
        assert_eq!(place(with(|r| r.prompt = Prompt::Resume)), "session");
        assert_eq!(with(|r| r.session = Some(9_999)), Err(Error::SessionNotFound { session: 9_999 }));
        // Of another caller's session not even its being there is told.
        let session = nothing.session;
        let controller = crate::runtime::caller();
        fake::set_caller(fake::stranger(1));
        let stolen = GenerateRequest { session, ..ask_text("a") };
        assert_eq!(generate(&stolen), Err(Error::SessionNotFound { session: session.expect("there is one") }));
        fake::set_caller(controller);
        sessions::delete(session.expect("there is one")).expect("it is ours");
        assert!(matches!(generate(&stolen), Err(Error::SessionNotFound { .. })));
    });
}

#[test]
fn models_without_words_take_tokens_and_others_none() {
    life(|| {
        let onnx = causal_onnx();
        let files: [(&str, &[u8]); 1] = [("model.onnx", &onnx)];
        make_ready(&language_manifest("l", &files), &files);
        assert_eq!(place(generate(&ask_text("abc"))), "prompt.text");
        let answer = generate(&ask(Prompt::Tokens(vec![2, 3, 4]))).expect("it fits");
        assert_eq!((answer.tokens, answer.text.as_str()), (greedy(&[2, 3, 4], 20), ""));
        crate::testing::make_chain("m", 2);
        assert_eq!(place(generate(&GenerateRequest { model: model("m", None), ..ask_text("a") })), "model");
    });
}

#[test]
fn the_sessions_of_a_caller_are_bounded() {
    life(|| {
        make_language();
        let first = generate(&ask_text("a")).expect("it fits").session.expect("it is kept");
        for _ in 0..crate::limits::SESSIONS_PER_CALLER_MAX {
            generate(&ask_text("b")).expect("it fits");
        }
        assert_eq!(generate(&resume(first)), Err(Error::SessionNotFound { session: first }));
        let count = crate::stable::directory::keys(crate::stable::Kind::Session, &[]).len();
        assert_eq!(count, crate::limits::SESSIONS_PER_CALLER_MAX);
    });
}
