//! Jobs: work that outgrows a message.

use crate::{Classification, Cost, Error, Generation, InferResponse, ModelRef, Profile};
use candid::CandidType;
use serde::{Deserialize, Serialize};

/// A job's number; never used twice.
pub type JobId = u64;

#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum JobResult {
    #[serde(rename = "classify")]
    Classify(Classification),
    #[serde(rename = "infer")]
    Infer(InferResponse),
    #[serde(rename = "profile")]
    Profile(Profile),
    #[serde(rename = "generate")]
    Generate(Generation),
}

#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum JobState {
    /// Waits for the model's lease.
    #[serde(rename = "queued")]
    Queued,
    /// `nodes_done` of `nodes_total` graph nodes have run.
    #[serde(rename = "running")]
    Running { nodes_done: u32, nodes_total: u32 },
    #[serde(rename = "done")]
    Done(Box<JobResult>),
    #[serde(rename = "failed")]
    Failed(Error),
    #[serde(rename = "cancelled")]
    Cancelled,
    /// The canister stopped while it ran; after the upgrade it starts again from its request.
    #[serde(rename = "interrupted")]
    Interrupted,
}

#[derive(CandidType, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct JobInfo {
    pub id: JobId,
    pub model: ModelRef,
    pub state: JobState,
    pub cost: Cost,
    /// The text so far of a generation that is not done.
    pub generation: Option<Generation>,
}
