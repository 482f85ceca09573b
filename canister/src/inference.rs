//! One inference: from a request to a session, through its nodes, to an answer. Knows nothing of messages or jobs.

use crate::engine_error;
use crate::limits::{FRESH_INSTRUCTIONS_MAX, NODE_INSTRUCTIONS_MAX, REQUEST_TENSORS_MAX};
use crate::loading::{self, MessageMeter};
use crate::runtime;
use crate::settings;
use crate::store::ModelKey;
use crate::store::manifest::invalid;
use crate::{classify, infer, profile};
use candid::Principal;
use onnx_canister_interface::{
    CallLimits, ClassifyInput, ClassifyRequest, Error, InferRequest, InputSource, Label, ModelRef, Profile,
    ProfileRequest,
};
use onnx_engine::{Session, Step, Tensor};
use serde::{Deserialize, Serialize};

/// What a caller asks for. Stored with a job, so that it can begin again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    Classify(ClassifyRequest),
    Infer(InferRequest),
    Profile(ProfileRequest),
}

/// What an inference answers.
#[derive(Debug)]
pub enum Answer {
    Classify(Vec<Label>),
    /// Outputs by name in the order asked for.
    Infer(Vec<(String, Tensor)>),
    Profile(Profile),
}

/// Most that one call may use, resolved against the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub max_messages: u32,
    pub max_instructions: u64,
}

/// An inference under way.
pub struct Run {
    session: Session,
    /// Instructions spent on decoding and preparing the input.
    pub decode_instructions: u64,
}

/// What a request runs, whatever is answered of it.
enum Inference<'a> {
    Classify(&'a ClassifyRequest),
    Infer(&'a InferRequest),
}

impl Request {
    fn inference(&self) -> Inference<'_> {
        match self {
            Self::Classify(request) | Self::Profile(ProfileRequest::Classify(request)) => Inference::Classify(request),
            Self::Infer(request) | Self::Profile(ProfileRequest::Infer(request)) => Inference::Infer(request),
        }
    }

    pub fn model(&self) -> &ModelRef {
        match self.inference() {
            Inference::Classify(request) => &request.model,
            Inference::Infer(request) => &request.model,
        }
    }

    /// Keys of the staged inputs it uses.
    pub fn staged_keys(&self) -> Vec<String> {
        match self.inference() {
            Inference::Classify(ClassifyRequest { input: ClassifyInput::Staged(key), .. }) => vec![key.clone()],
            Inference::Classify(_) => Vec::new(),
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
        };
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
        let before = runtime::instructions();
        let (inputs, outputs) = match request.inference() {
            Inference::Classify(request) => {
                classify::inputs(owner, key, plan.inputs(), plan.outputs(), request, image_instructions)?
            }
            Inference::Infer(request) => infer::inputs(owner, plan.inputs(), request)?,
        };
        let decode_instructions = runtime::instructions().saturating_sub(before);
        let session = Session::new(plan, inputs, outputs)
            .map_err(|error| engine_error::of_request("inputs", error))?
            .with_node_limit(NODE_INSTRUCTIONS_MAX);
        Ok(Self { session, decode_instructions })
    }

    /// Nodes done and in all.
    pub fn progress(&self) -> (u32, u32) {
        let count = |nodes: usize| u32::try_from(nodes).unwrap_or(u32::MAX);
        (count(self.session.nodes_done()), count(self.session.nodes_total()))
    }

    /// Whether the next node is estimated to fit what is left of `budget` in this message.
    pub fn next_node_fits(&self, budget: u64) -> bool {
        runtime::instructions().saturating_add(self.session.next_node_estimate_instructions()) <= budget
    }

    /// Runs nodes while they fit what is left of `budget` in this message, and at least one in a message that has
    /// spent little before; tells whether all are done.
    pub fn advance(&mut self, budget: u64) -> Result<bool, Error> {
        if !self.next_node_fits(budget) && runtime::instructions() > FRESH_INSTRUCTIONS_MAX {
            return Ok(false);
        }
        match self.session.step(&MessageMeter, budget) {
            Ok(Step::Done) => Ok(true),
            Ok(Step::Paused { .. }) => Ok(false),
            Err(error) => Err(engine_error::of_request("inputs", error)),
        }
    }

    /// The answer, when all nodes are done.
    pub fn answer(self, key: &ModelKey, request: &Request) -> Result<Answer, Error> {
        let nodes = match request {
            Request::Profile(_) => self.session.profile(),
            Request::Classify(_) | Request::Infer(_) => Vec::new(),
        };
        let outputs = self.session.into_outputs().map_err(|error| engine_error::of_request("outputs", error))?;
        match request {
            Request::Classify(request) => classify::labels(key, request, outputs).map(Answer::Classify),
            Request::Infer(_) => Ok(Answer::Infer(outputs)),
            Request::Profile(_) => Ok(Answer::Profile(profile::profile(key, nodes))),
        }
    }
}
