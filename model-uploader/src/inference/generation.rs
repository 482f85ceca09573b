//! Text out of a language model: streamed while a job generates, waited for, or as much as a query holds.

use super::{Answer, Sent};
use crate::client::{CallError, Client, Transport};
use anyhow::{Context, Result, bail};
use onnx_canister_interface::{Cost, Error, FinishReason, GenerateRequest, Generation, JobResult, JobState, Prompt};

/// How to ask for text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A job that goes on by itself, looked at again and again.
    Stream,
    /// Update calls that wait, as many as the text takes.
    Wait,
    /// One query.
    Query,
}

/// Generates; `on_text` gets each new piece of text as it comes.
///
/// # Errors
/// When the canister refuses, the job fails or is cancelled, or the network stays unreachable.
pub async fn generate<T: Transport>(
    client: &Client<T>,
    request: &GenerateRequest,
    mode: Mode,
    mut on_text: impl FnMut(&str),
) -> Result<Answer<Generation>> {
    let mut sent = Sent::default();
    let mut shown = 0;
    let mut show = |text: &str| {
        // Text only ever grows; should it not, what was shown stays shown.
        on_text(text.get(shown..).unwrap_or_default());
        shown = shown.max(text.len());
    };
    match mode {
        Mode::Query => {
            let generation = client.generate_query(request).await?;
            show(&generation.text);
            Ok(sent.answer(generation.cost.clone(), generation, None, true))
        }
        Mode::Wait => {
            sent.count(request);
            let mut generation = client.generate(request).await?;
            show(&generation.text);
            while let (Some(FinishReason::Budget | FinishReason::Interrupted), Some(session)) =
                (generation.finish_reason, generation.session)
            {
                let resume = resume(request, session);
                sent.count(&resume);
                let before = generation.cost;
                generation = client.generate(&resume).await?;
                generation.cost = sum(&before, &generation.cost);
                show(&generation.text);
            }
            Ok(sent.answer(generation.cost.clone(), generation, None, false))
        }
        Mode::Stream => {
            sent.count(request);
            let job = client.start_generation(request).await?;
            let mut polls = 0;
            loop {
                let info = client.poll(job).await.with_context(|| format!("polling job {job}"))?;
                match info.state {
                    JobState::Done(result) => {
                        let JobResult::Generate(generation) = *result else { bail!("job {job} is no generation") };
                        show(&generation.text);
                        return Ok(sent.answer(generation.cost.clone(), generation, Some(job), false));
                    }
                    JobState::Failed(error) => return Err(CallError::Canister { method: "poll", error }.into()),
                    JobState::Cancelled => {
                        let error = Error::Cancelled { job };
                        return Err(CallError::Canister { method: "poll", error }.into());
                    }
                    JobState::Queued | JobState::Running { .. } | JobState::Interrupted => {
                        if let Some(generation) = &info.generation {
                            show(&generation.text);
                        }
                        tokio::time::sleep(client.poll_delay(polls)).await;
                        polls += 1;
                    }
                }
            }
        }
    }
}

/// The request that goes on with a session.
fn resume(request: &GenerateRequest, session: u64) -> GenerateRequest {
    GenerateRequest {
        model: request.model.clone(),
        prompt: Prompt::Resume,
        session: Some(session),
        sampling: None,
        max_tokens: None,
        stop: None,
        limits: request.limits.clone(),
    }
}

fn sum(a: &Cost, b: &Cost) -> Cost {
    Cost {
        instructions: a.instructions + b.instructions,
        decode_instructions: a.decode_instructions + b.decode_instructions,
        messages: a.messages + b.messages,
    }
}
