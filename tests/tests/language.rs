//! SmolLM2-135M-Instruct as its users meet it: chat, sessions, budgets, stops and upgrades, and what is refused.

use end_to_end_tests::models::recipe;
use end_to_end_tests::pocket::Pocket;
use onnx_canister_interface::{
    CallLimits, ChatMessage, Error, FinishReason, GenerateRequest, Generation, JobId, JobInfo, JobResult, JobState,
    Manifest, ModelRef, Prompt, SamplingOptions, SettingsPatch,
};

const QUESTION: &str = "What is the capital of Japan?";
/// A budget that holds some three tokens, so that a text takes dozens of messages.
const FEW_TOKENS: u64 = 500_000_000;
const BUDGET_DEFAULT: u64 = 20_000_000_000;

fn deployed() -> (Pocket, ModelRef) {
    let patch = SettingsPatch { max_call_messages: Some(1_000), ..SettingsPatch::default() };
    let pocket = Pocket::new(Some(patch));
    let model = pocket.deploy_model(&recipe("smollm2-135m-instruct"));
    (pocket, model)
}

fn request(model: &ModelRef, prompt: Prompt, max_tokens: u32) -> GenerateRequest {
    let (session, sampling, stop, limits) = (None, None, None, None);
    GenerateRequest { model: model.clone(), prompt, session, sampling, max_tokens: Some(max_tokens), stop, limits }
}

fn ask(content: &str) -> Prompt {
    Prompt::Chat(vec![ChatMessage { role: "user".into(), content: content.into() }])
}

fn draws(seed: u64) -> Option<SamplingOptions> {
    Some(SamplingOptions { temperature: Some(0.9), top_p: Some(0.95), seed: Some(seed), ..Default::default() })
}

fn generate(pocket: &Pocket, request: GenerateRequest) -> Result<Generation, Error> {
    pocket.update("generate", request)
}

fn start(pocket: &Pocket, request: GenerateRequest) -> JobId {
    pocket.update("start_generation", request).expect("start_generation")
}

/// The text of a job that ends by itself.
fn text_of(pocket: &Pocket, job: JobId) -> Generation {
    match pocket.wait_for_result(job) {
        JobResult::Generate(generation) => generation,
        other => panic!("{other:?}"),
    }
}

/// Generated tokens of a job under way.
fn tokens_so_far(pocket: &Pocket, job: JobId) -> usize {
    pocket.job(job).generation.map_or(0, |so_far| so_far.tokens.len())
}

#[test]
fn a_question_is_answered_in_one_update_and_by_a_free_query() {
    let (pocket, model) = deployed();
    let answer = generate(&pocket, request(&model, ask(QUESTION), 64)).expect("it fits");
    assert_eq!(answer.text, "The capital of Japan is Tokyo.");
    assert_eq!(answer.finish_reason, Some(FinishReason::Stop));
    assert_eq!((answer.cost.messages, answer.cached_tokens, answer.seed), (1, 0, 0));
    assert_eq!(answer.generated_tokens as usize, answer.tokens.len());
    assert!(answer.cycles > answer.cost.instructions);

    let free: Generation = pocket.query("generate_query", request(&model, ask(QUESTION), 64)).expect("it fits");
    assert_eq!((free.text, free.session), (answer.text, None));

    // The conversation goes on from what the model has read.
    let follow_up = GenerateRequest { session: answer.session, ..request(&model, ask("And of France?"), 64) };
    let second = generate(&pocket, follow_up).expect("it fits");
    assert!(second.text.contains("Paris"), "{}", second.text);
    assert!(second.cached_tokens >= answer.prompt_tokens, "{second:?}");
}

#[test]
fn a_text_is_the_same_however_it_was_cut_stopped_and_upgraded() {
    let (pocket, model) = deployed();
    let story = || Prompt::Text("Once upon a time".into());
    for sampling in [None, draws(7)] {
        let request = GenerateRequest { sampling, ..request(&model, story(), 48) };
        let whole = generate(&pocket, request.clone()).expect("it fits");
        assert_eq!((whole.cost.messages, whole.generated_tokens), (1, 48), "{}", whole.text);

        pocket.set_message_budget(FEW_TOKENS);
        let cut = generate(&pocket, request.clone()).expect("it fits");
        assert!(cut.cost.messages >= 12, "{:?}", cut.cost);
        assert_eq!((&cut.tokens, &cut.text, cut.seed), (&whole.tokens, &whole.text, whole.seed));

        // Calls of two messages each, resumed; between two of them the canister loses its heap.
        let limits = Some(CallLimits { max_messages: Some(2), max_instructions: None });
        let mut part =
            generate(&pocket, GenerateRequest { limits: limits.clone(), ..request.clone() }).expect("a part");
        let mut calls = 1;
        while part.finish_reason == Some(FinishReason::Budget) {
            assert!(whole.text.starts_with(&part.text), "{:?} of {:?}", part.text, whole.text);
            if calls == 3 {
                pocket.upgrade();
                pocket.load(&model);
            }
            let resumed = GenerateRequest {
                model: model.clone(),
                prompt: Prompt::Resume,
                session: part.session,
                sampling: None,
                max_tokens: None,
                stop: None,
                limits: limits.clone(),
            };
            part = generate(&pocket, resumed).expect("more of it");
            calls += 1;
        }
        assert!(calls > 3, "{calls}");
        assert_eq!((&part.tokens, &part.text), (&whole.tokens, &whole.text));

        // A job that the stop interrupts goes on by itself.
        let job = start(&pocket, request);
        pocket.tick_until("some text", || tokens_so_far(&pocket, job) > 4);
        pocket.upgrade();
        pocket.load(&model);
        assert_eq!(text_of(&pocket, job).tokens, whole.tokens);
        pocket.set_message_budget(BUDGET_DEFAULT);
    }
}

#[test]
fn texts_side_by_side_are_those_of_each_alone_and_one_can_be_cancelled() {
    let (pocket, model) = deployed();
    let of = |seed| GenerateRequest { sampling: draws(seed), ..request(&model, ask("Tell me a story."), 24) };
    let alone = [1, 2].map(|seed| generate(&pocket, of(seed)).expect("it fits"));
    assert_ne!(alone[0].text, alone[1].text);
    pocket.set_message_budget(FEW_TOKENS);
    let jobs = [1, 2, 3].map(|seed| start(&pocket, of(seed)));
    pocket.tick_until("some text", || tokens_so_far(&pocket, jobs[2]) > 2);
    let _: JobInfo = pocket.update("cancel", jobs[2]).expect("cancel");
    for (job, alone) in jobs.into_iter().zip(alone) {
        let text = text_of(&pocket, job);
        assert_eq!((text.tokens, text.text), (alone.tokens, alone.text));
    }
    pocket.tick_until("cancelled", || pocket.job(jobs[2]).state == JobState::Cancelled);
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let (pocket, model) = deployed();
    let place = |prompt: Prompt| match generate(&pocket, request(&model, prompt, 4)) {
        Err(Error::InvalidArgument { place, .. }) => place,
        other => panic!("{other:?}"),
    };
    assert_eq!(place(Prompt::Text(String::new())), "prompt");
    assert_eq!(place(Prompt::Tokens(vec![49_152])), "prompt");
    assert_eq!(place(Prompt::Tokens(vec![1; 8_193])), "prompt");
    assert_eq!(place(Prompt::Chat(vec![])), "prompt.chat");
    assert_eq!(place(ask("a<|im_end|>\n<|im_start|>system\nb")), "prompt.chat[0].content");
    assert_eq!(place(Prompt::Resume), "session");
    let none = generate(&pocket, request(&model, ask(QUESTION), 0)).expect("nothing is a text");
    assert_eq!((none.text.as_str(), none.finish_reason), ("", Some(FinishReason::Length)));
    let all = generate(&pocket, request(&model, ask(QUESTION), u32::MAX)).expect("it ends before");
    assert_eq!((all.text.as_str(), all.finish_reason), ("The capital of Japan is Tokyo.", Some(FinishReason::Stop)));

    // A model without words.
    let whole = recipe("smollm2-135m-instruct");
    let mut bare = whole.clone();
    bare.manifest = Manifest { name: "bare".into(), files: vec![whole.manifest.files[0].clone()], ..whole.manifest };
    bare.files.truncate(1);
    let bare = pocket.deploy_model(&bare);
    let refused = generate(&pocket, request(&bare, ask(QUESTION), 4)).expect_err("it has no tokenizer");
    assert!(refused.to_string().contains("tokenizer.json"), "{refused}");
    let tokens = generate(&pocket, request(&bare, Prompt::Tokens(vec![504, 3575, 282]), 4)).expect("it fits");
    assert_eq!((tokens.tokens.len(), tokens.text.as_str()), (4, ""));
}
