//! One inference: from a request to a session, through its nodes, to an answer. Knows nothing of messages or jobs.

use crate::engine_error;
use crate::language::generation::Generation;
use crate::language::prompt::Continuation;
use crate::limits::{FRESH_INSTRUCTIONS_MAX, NODE_INSTRUCTIONS_MAX, REQUEST_TENSORS_MAX, TRACT_BUDGET_MAX};
use crate::loading::{self, MessageMeter};
use crate::runtime;
use crate::settings;
use crate::store::ModelKey;
use crate::store::manifest::invalid;
use crate::{classify, infer, profile};
use candid::Principal;
use onnx_canister_interface::{
    CallLimits, ClassifyInput, ClassifyRequest, Error, FinishReason, InferRequest, InputSource, Label, ModelRef,
    Profile, ProfileRequest, SessionId,
};
use onnx_engine::{Session, Step, Tensor};
use serde::{Deserialize, Serialize};

/// What a caller asks for. Stored with a job, so that it can begin again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    Classify(ClassifyRequest),
    Infer(InferRequest),
    Profile(ProfileRequest),
    Generate(Continuation),
}

/// What an inference answers.
#[derive(Debug)]
pub enum Answer {
    Classify(Vec<Label>),
    /// Outputs by name in the order asked for.
    Infer(Vec<(String, Tensor)>),
    Profile(Profile),
    /// Without its cost.
    Generate(Box<onnx_canister_interface::Generation>),
}

/// Most that one call may use, resolved against the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub max_messages: u32,
    pub max_instructions: u64,
}

/// An inference under way.
pub struct Run {
    work: Work,
    /// Most of a message's budget that it uses.
    budget_max: u64,
    /// Instructions spent on decoding and preparing the input.
    pub decode_instructions: u64,
}

/// What a request runs, whatever is answered of it.
enum Inference<'a> {
    Classify(&'a ClassifyRequest),
    Infer(&'a InferRequest),
    Generate(&'a Continuation),
}

enum Work {
    /// One pass through a graph.
    Pass(Box<Session>),
    Generation(Box<Generation>),
}

impl Request {
    fn inference(&self) -> Inference<'_> {
        match self {
            Self::Classify(request) | Self::Profile(ProfileRequest::Classify(request)) => Inference::Classify(request),
            Self::Infer(request) | Self::Profile(ProfileRequest::Infer(request)) => Inference::Infer(request),
            Self::Generate(request) => Inference::Generate(request),
        }
    }

    pub fn model(&self) -> &ModelRef {
        match self.inference() {
            Inference::Classify(request) => &request.model,
            Inference::Infer(request) => &request.model,
            Inference::Generate(request) => &request.model,
        }
    }

    /// The generation session that it goes on with.
    pub fn session(&self) -> Option<SessionId> {
        match self {
            Self::Generate(request) => Some(request.session),
            Self::Classify(_) | Self::Infer(_) | Self::Profile(_) => None,
        }
    }

    /// Keys of the staged inputs it uses.
    pub fn staged_keys(&self) -> Vec<String> {
        match self.inference() {
            Inference::Classify(ClassifyRequest { input: ClassifyInput::Staged(key), .. }) => vec![key.clone()],
            Inference::Classify(_) | Inference::Generate(_) => Vec::new(),
            Inference::Infer(request) => request
                .inputs
                .iter()
                .filter_map(|input| match &input.source {
                    InputSource::Staged(key) => Some(key.clone()),
                    InputSource::Tensor(_) => None,
                })
                .collect(),
        }
    }

    /// Checks what doesn't depend on the model.
    pub fn check(&self) -> Result<(), Error> {
        match self.inference() {
            Inference::Classify(request) => classify::check(request),
            Inference::Generate(_) => Ok(()),
            Inference::Infer(request) => {
                let too_many = |place: &str, count: usize| {
                    Err(invalid(place, count, format!("a request has at most {REQUEST_TENSORS_MAX}")))
                };
                if request.inputs.len() > REQUEST_TENSORS_MAX {
                    return too_many("inputs", request.inputs.len());
                }
                match &request.outputs {
                    Some(outputs) if outputs.is_empty() => {
                        Err(invalid("outputs", "[]", "name an output, or null for all"))
                    }
                    Some(outputs) if outputs.len() > REQUEST_TENSORS_MAX => too_many("outputs", outputs.len()),
                    _ => Ok(()),
                }
            }
        }
    }

    /// The limits of this call, which can only narrow the settings'.
    pub fn limits(&self) -> Result<Limits, Error> {
        let asked = match self.inference() {
            Inference::Classify(request) => request.limits.clone(),
            Inference::Infer(request) => request.limits.clone(),
            Inference::Generate(request) => request.limits.clone(),
        };
        resolve_limits(asked)
    }
}

/// The limits that are asked for, resolved against the settings.
pub fn resolve_limits(asked: Option<CallLimits>) -> Result<Limits, Error> {
    let CallLimits { max_messages, max_instructions } = asked.unwrap_or_default();
    let settings = settings::get();
    let messages = max_messages.unwrap_or(settings.max_job_messages);
    if messages == 0 || messages > settings.max_job_messages {
        let reason = format!("1 to {} (setting max_job_messages)", settings.max_job_messages);
        return Err(invalid("limits.max_messages", messages, reason));
    }
    let instructions = max_instructions.unwrap_or(settings.max_job_instructions);
    if instructions == 0 || instructions > settings.max_job_instructions {
        let reason = format!("1 to {} (setting max_job_instructions)", settings.max_job_instructions);
        return Err(invalid("limits.max_instructions", instructions, reason));
    }
    Ok(Limits { max_messages: messages, max_instructions: instructions })
}

impl Run {
    /// Decodes and checks the input of a request on a version that is on the heap. An image that
    /// may cost more than `image_instructions` is refused.
    pub fn prepare(
        owner: &Principal,
        key: &ModelKey,
        request: &Request,
        image_instructions: u64,
    ) -> Result<Self, Error> {
        let plan = loading::plan(key).ok_or_else(|| Error::WrongState {
            name: key.name.clone(),
            version: key.version,
            state: "not loaded".into(),
            needs: "ready: load it".into(),
        })?;
        let budget_max = if plan.is_native() { u64::MAX } else { TRACT_BUDGET_MAX };
        let before = runtime::instructions();
        let (inputs, outputs) = match request.inference() {
            Inference::Classify(request) => {
                classify::inputs(owner, key, plan.inputs(), plan.outputs(), request, image_instructions)?
            }
            Inference::Infer(request) => infer::inputs(owner, plan.inputs(), request)?,
            Inference::Generate(request) => {
                let generation = Generation::new(key, request.session)?;
                let decode_instructions = runtime::instructions().saturating_sub(before);
                return Ok(Self { work: Work::Generation(Box::new(generation)), budget_max, decode_instructions });
            }
        };
        let decode_instructions = runtime::instructions().saturating_sub(before);
        let session = Session::new(plan, inputs, outputs)
            .map_err(|error| engine_error::of_request("inputs", error))?
            .with_node_limit(NODE_INSTRUCTIONS_MAX);
        Ok(Self { work: Work::Pass(Box::new(session)), budget_max, decode_instructions })
    }

    /// A generation as its session's record has it.
    pub fn resume(key: &ModelKey, session: SessionId) -> Result<Self, Error> {
        let generation = Generation::new(key, session)?;
        Ok(Self { work: Work::Generation(Box::new(generation)), budget_max: TRACT_BUDGET_MAX, decode_instructions: 0 })
    }

    /// Nodes done and in all; of a generation, tokens.
    pub fn progress(&self) -> (u32, u32) {
        let count = |nodes: usize| u32::try_from(nodes).unwrap_or(u32::MAX);
        match &self.work {
            Work::Pass(session) => (count(session.nodes_done()), count(session.nodes_total())),
            Work::Generation(generation) => generation.progress(),
        }
    }

    /// Whether the next node is estimated to fit what is left of `budget` in this message.
    pub fn next_node_fits(&self, budget: u64) -> bool {
        let estimate = match &self.work {
            Work::Pass(session) => session.next_node_estimate_instructions(),
            // It looks for itself, and what it has is an answer.
            Work::Generation(_) => 0,
        };
        runtime::instructions().saturating_add(estimate) <= budget
    }

    /// Runs nodes while they fit what is left of `budget` in this message, and at least one in a message that has
    /// spent little before; tells whether all are done.
    pub fn advance(&mut self, budget: u64) -> Result<bool, Error> {
        let budget = budget.min(self.budget_max);
        if !self.next_node_fits(budget) && runtime::instructions() > FRESH_INSTRUCTIONS_MAX {
            return Ok(false);
        }
        let session = match &mut self.work {
            Work::Pass(session) => session,
            Work::Generation(generation) => return generation.advance(budget),
        };
        match session.step(&MessageMeter, budget) {
            Ok(Step::Done) => Ok(true),
            Ok(Step::Paused { .. }) => Ok(false),
            Err(error) => Err(engine_error::of_request("inputs", error)),
        }
    }

    /// The answer, when all nodes are done.
    pub fn answer(self, key: &ModelKey, request: &Request) -> Result<Answer, Error> {
        let session = match self.work {
            Work::Pass(session) => session,
            // Only one that has ended comes here, so why it might not have is of no matter.
            Work::Generation(generation) => {
                return generation.finish(FinishReason::Budget).map(|answer| Answer::Generate(Box::new(answer)));
            }
        };
        let nodes = match request {
            Request::Profile(_) => session.profile(),
            Request::Classify(_) | Request::Infer(_) | Request::Generate(_) => Vec::new(),
        };
        let outputs = session.into_outputs().map_err(|error| engine_error::of_request("outputs", error))?;
        match request {
            Request::Classify(request) => classify::labels(key, request, outputs).map(Answer::Classify),
            Request::Infer(_) | Request::Generate(_) => Ok(Answer::Infer(outputs)),
            Request::Profile(_) => Ok(Answer::Profile(profile::profile(key, nodes))),
        }
    }

    /// What a generation has when it can't go on for this reason; any other inference comes back.
    pub fn answer_early(self, reason: FinishReason) -> Result<Result<Answer, Error>, Self> {
        match self.work {
            Work::Generation(generation) => {
                Ok(generation.finish(reason).map(|answer| Answer::Generate(Box::new(answer))))
            }
            work => Err(Self { work, ..self }),
        }
    }

    /// Lets go of the work; the keys and values of a generation stay for its session's next call.
    pub fn release(self) {
        if let Work::Generation(generation) = self.work {
            generation.release();
        }
    }
}
