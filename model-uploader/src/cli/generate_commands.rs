//! Commands that let a language model write.

use super::arguments::{Chat, Generate, Global, SamplingArguments};
use super::commands::open;
use super::output::{Output, cycles_json, cycles_text};
use anyhow::{Context, Result};
use model_uploader::error::usage;
use model_uploader::inference::generation::{Mode, generate as run};
use model_uploader::prices::grouped;
use model_uploader::{Answer, model_ref};
use onnx_canister_interface::{
    ChatMessage, FinishReason, GenerateRequest, Generation, Prompt, SamplingOptions, SessionId,
};
use serde_json::{Value, json};
use std::io::{BufRead, Write};
use std::time::Instant;

pub async fn generate(global: &Global, arguments: &Generate, output: &Output) -> Result<()> {
    let connection = open(global, output).await?;
    let prompt = Prompt::Text(arguments.prompt.clone());
    let request = request(&arguments.model, prompt, None, &arguments.sampling)?;
    let start = Instant::now();
    let answer = run(&connection.client, &request, mode(&arguments.sampling), |text| show(global, text)).await?;
    finish(global, &answer, start.elapsed().as_secs_f64(), output);
    Ok(())
}

/// One turn with a message in the arguments; without it, a turn for each line of standard input.
pub async fn chat(global: &Global, arguments: &Chat, output: &Output) -> Result<()> {
    if arguments.sampling.query && arguments.message.is_none() {
        return Err(usage("--query keeps no conversation: give the message"));
    }
    let connection = open(global, output).await?;
    let mut session: Option<SessionId> = arguments.session;
    let mut system = arguments.system.clone();
    let mut lines = std::io::stdin().lock().lines();
    loop {
        let content = match &arguments.message {
            Some(message) => message.clone(),
            None => match next_line(global, &mut lines)? {
                Some(line) => line,
                None => return Ok(()),
            },
        };
        let message = |role: &str, content: String| ChatMessage { role: role.to_string(), content };
        let messages: Vec<ChatMessage> =
            system.take().map(|text| message("system", text)).into_iter().chain([message("user", content)]).collect();
        let request = request(&arguments.model, Prompt::Chat(messages), session, &arguments.sampling)?;
        let start = Instant::now();
        let answer = run(&connection.client, &request, mode(&arguments.sampling), |text| show(global, text)).await?;
        finish(global, &answer, start.elapsed().as_secs_f64(), output);
        session = answer.answer.session;
        if arguments.message.is_some() {
            return Ok(());
        }
    }
}

/// The next line that is not empty.
fn next_line(global: &Global, lines: &mut impl Iterator<Item = std::io::Result<String>>) -> Result<Option<String>> {
    loop {
        if !global.json && !global.quiet {
            print!("> ");
            std::io::stdout().flush().context("standard output")?;
        }
        match lines.next() {
            None => return Ok(None),
            Some(line) => {
                let line = line.context("standard input")?;
                if !line.trim().is_empty() {
                    return Ok(Some(line));
                }
            }
        }
    }
}

fn mode(sampling: &SamplingArguments) -> Mode {
    match (sampling.query, sampling.wait) {
        (true, _) => Mode::Query,
        (false, true) => Mode::Wait,
        (false, false) => Mode::Stream,
    }
}

fn request(
    model: &str,
    prompt: Prompt,
    session: Option<SessionId>,
    sampling: &SamplingArguments,
) -> Result<GenerateRequest> {
    let bias = |text: &String| {
        let (token, bias) = text.split_once('=').with_context(|| format!("--logit-bias {text}: not TOKEN=BIAS"))?;
        let parse = || Some((token.parse().ok()?, bias.parse().ok()?));
        parse().with_context(|| format!("--logit-bias {text}: not a token and a number"))
    };
    let logit_bias = sampling.logit_bias.iter().map(bias).collect::<Result<Vec<(u32, f32)>>>();
    let logit_bias = logit_bias.map_err(|error| usage(format!("{error:#}")))?;
    Ok(GenerateRequest {
        model: model_ref(model, sampling.version),
        prompt,
        session,
        sampling: Some(SamplingOptions {
            logit_bias: (!logit_bias.is_empty()).then_some(logit_bias),
            repetition_penalty: sampling.repetition_penalty,
            frequency_penalty: sampling.frequency_penalty,
            presence_penalty: sampling.presence_penalty,
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            seed: sampling.seed,
        }),
        max_tokens: sampling.max_tokens,
        stop: (!sampling.stop.is_empty()).then(|| sampling.stop.clone()),
        limits: None,
    })
}

/// Prints a piece of text as it comes; with --json all of it comes at the end.
fn show(global: &Global, text: &str) {
    if !global.json {
        print!("{text}");
        // A closed standard output shows at the next line that is printed.
        let _ = std::io::stdout().flush();
    }
}

fn finish(global: &Global, answer: &Answer<Generation>, seconds: f64, output: &Output) {
    if !global.json {
        println!();
    }
    let text = if global.quiet { String::new() } else { cost_text(answer, seconds) };
    output.result(&to_json(answer, seconds), &text);
}

fn reason(finish: Option<FinishReason>) -> &'static str {
    match finish {
        Some(FinishReason::Stop) => "stop",
        Some(FinishReason::Length) => "length",
        Some(FinishReason::Budget) => "budget",
        Some(FinishReason::Interrupted) => "interrupted",
        None => "not yet",
    }
}

/// Tokens for each message that was charged.
fn tokens_per_message(generation: &Generation) -> f64 {
    f64::from(generation.generated_tokens) / f64::from(generation.cost.messages.max(1))
}

fn cost_text(answer: &Answer<Generation>, seconds: f64) -> String {
    let generation = &answer.answer;
    let price = match answer.is_query {
        true => "a query is free".to_string(),
        false => cycles_text(answer.cycles()),
    };
    let session = generation.session.map_or(String::new(), |session| format!(", session {session}"));
    format!(
        "tokens       {} of prompt ({} known before), {} generated, {:.1} for each message; ended by {}{session}\n\
         cost         {} instructions in {} messages, {seconds:.1} s; {price}\n",
        generation.prompt_tokens,
        generation.cached_tokens,
        generation.generated_tokens,
        tokens_per_message(generation),
        reason(generation.finish_reason),
        grouped(generation.cost.instructions),
        generation.cost.messages,
    )
}

fn to_json(answer: &Answer<Generation>, seconds: f64) -> Value {
    let generation = &answer.answer;
    let mut cost = cycles_json(answer.cycles());
    cost["instructions"] = json!(generation.cost.instructions);
    cost["messages"] = json!(generation.cost.messages);
    cost["seconds"] = json!(seconds);
    json!({
        "model": { "name": generation.model.name, "version": generation.model.version },
        "text": generation.text,
        "tokens": generation.tokens,
        "finish_reason": reason(generation.finish_reason),
        "session": generation.session,
        "seed": generation.seed,
        "prompt_tokens": generation.prompt_tokens,
        "cached_tokens": generation.cached_tokens,
        "generated_tokens": generation.generated_tokens,
        "tokens_per_message": tokens_per_message(generation),
        "cost": cost,
    })
}
