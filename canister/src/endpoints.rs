//! Every entry point of the canister, and nothing else: decode, check the caller, call, reply.

use crate::inference::Request;
use crate::inputs::{self, PutInputBorrowed};
use crate::jobs::{self, JobId, WorkId, driver};
use crate::language::{prompt, sessions};
use crate::metrics::{HttpRequest, HttpResponse};
use crate::store::manifest::invalid;
use crate::store::upload::{self, PutChunkBorrowed};
use crate::store::{commit, models, versions};
use crate::{access, arguments, health, lifecycle, loading, metrics, record, runtime, settings};
use candid::Principal;
use ic_cdk::{init, inspect_message, post_upgrade, pre_upgrade, query, update};
use onnx_canister_interface::{
    ChunkReceipt, Classification, ClassifyRequest, Error, GenerateRequest, Generation, Health, InferRequest,
    InferResponse, InitArgs, JobInfo, JobResult, Manifest, MissingChunks, ModelInfo, ModelRef, OutputPage, Profile,
    ProfileRequest, PutChunk, PutInput, ReadOutput, SessionId, Settings, SettingsPatch, StagedInput, UploadStatus,
};
use std::marker::PhantomData;

type Answer<T> = Result<T, Error>;

// ---------------------------------------------------------------------------------------------------- lifecycle

#[init]
fn init(args: Option<InitArgs>) {
    lifecycle::init(args);
}

#[pre_upgrade]
fn before_upgrade() {
    lifecycle::pre_upgrade();
}

#[post_upgrade]
fn after_upgrade(args: Option<InitArgs>) {
    lifecycle::post_upgrade(args);
}

#[inspect_message]
fn inspect() {
    if access::accepts_ingress(&ic_cdk::api::msg_method_name()) {
        ic_cdk::api::accept_message();
    }
}

/// The timer's entry point.
#[unsafe(export_name = "canister_global_timer")]
extern "C" fn global_timer() {
    ic_cdk::futures::internals::in_executor_context(|| ic_cdk::futures::spawn(driver::timer_fired()));
}

/// Runs one step of work in a message of its own; only the canister itself may call it.
#[update(
    name = "__run_step",
    hidden = true,
    manual_reply = true,
    guard = "access::only_self",
    decode_with = "decode_work"
)]
fn run_step(work: WorkId) -> PhantomData<()> {
    // The reply goes out when the message ends. Given first, it is a part of what the step counts last; and what the first
    // encoding costs on a new heap is counted in a step, not left to the reply of the first inference.
    ic_cdk::api::msg_reply(candid::encode_one(()).unwrap_or_default());
    driver::run_step(&work);
    PhantomData
}

fn decode_work(arguments: Vec<u8>) -> WorkId {
    record::decode_own("the argument of a step", &arguments)
}

/// Ends an update: work that nobody drives gets the timer.
fn done<T>(answer: Answer<T>) -> Answer<T> {
    driver::arm();
    answer
}

fn as_it_is(arguments: Vec<u8>) -> Vec<u8> {
    arguments
}

// ------------------------------------------------------------------------------------------------------- upload

#[update]
fn begin_upload(manifest: Manifest) -> Answer<UploadStatus> {
    done(access::check("begin_upload").and_then(|_| upload::begin(manifest)))
}

#[update(hidden = true, decode_with = "as_it_is")]
fn put_chunk(arguments: Vec<u8>) -> Answer<ChunkReceipt> {
    done((|| {
        access::check("put_chunk")?;
        upload::put_chunk(&arguments::decode_borrowed::<PutChunkBorrowed>("put_chunk", &arguments)?)
    })())
}

/// What `put_chunk` looks like from outside; the method itself decodes without copying.
#[candid::candid_method(update, rename = "put_chunk")]
#[expect(dead_code, unused_variables, reason = "its signature is exported as Candid")]
fn put_chunk_signature(chunk: PutChunk) -> Answer<ChunkReceipt> {
    unreachable!("only the signature is used")
}

#[query]
fn missing_chunks(model: ModelRef) -> Answer<Vec<MissingChunks>> {
    upload::missing_chunks(&model)
}

#[update]
async fn commit(model: ModelRef) -> Answer<ModelInfo> {
    access::check("commit")?;
    done(commit::commit(model).await)
}

// ------------------------------------------------------------------------------------------------------- models

#[update]
fn load(model: ModelRef) -> Answer<ModelInfo> {
    done(access::check("load").and_then(|_| loading::load(&model)))
}

#[update]
fn unload(model: ModelRef) -> Answer<ModelInfo> {
    done(access::check("unload").and_then(|_| versions::unload(&model)))
}

#[update]
fn activate(model: ModelRef) -> Answer<ModelInfo> {
    done(access::check("activate").and_then(|_| versions::activate(&model)))
}

#[update]
fn rollback(name: String) -> Answer<u32> {
    done(access::check("rollback").and_then(|_| versions::rollback(&name)))
}

#[update]
fn delete_model(model: ModelRef) -> Answer<()> {
    done(access::check("delete_model").and_then(|_| versions::delete(&model)))
}

#[query]
fn list_models() -> Answer<Vec<ModelInfo>> {
    models::list()
}

#[query]
fn model_info(model: ModelRef) -> Answer<ModelInfo> {
    models::resolve(&model).and_then(|key| models::info(&key))
}

// ---------------------------------------------------------------------------------------------------- inference

#[update]
async fn classify(request: ClassifyRequest) -> Answer<Classification> {
    let owner = access::check("classify")?;
    let result = jobs::run(owner, Request::Classify(request)).await.map(jobs::with_reply_cost);
    metrics::count(&result);
    done(result.and_then(classification))
}

#[query]
fn classify_query(request: ClassifyRequest) -> Answer<Classification> {
    let owner = access::check("classify_query")?;
    jobs::run_query(&owner, &Request::Classify(request)).map(jobs::with_reply_cost).and_then(classification)
}

#[update]
async fn infer(request: InferRequest) -> Answer<InferResponse> {
    let owner = access::check("infer")?;
    let result = jobs::run(owner, Request::Infer(request)).await.map(jobs::with_reply_cost);
    metrics::count(&result);
    done(result.and_then(tensors))
}

#[query]
fn infer_query(request: InferRequest) -> Answer<InferResponse> {
    let owner = access::check("infer_query")?;
    jobs::run_query(&owner, &Request::Infer(request)).map(jobs::with_reply_cost).and_then(tensors)
}

#[update]
async fn profile(request: ProfileRequest) -> Answer<Profile> {
    let owner = access::check("profile")?;
    let result = jobs::run(owner, Request::Profile(request)).await.map(jobs::with_reply_cost);
    metrics::count(&result);
    done(result.and_then(|result| match result {
        JobResult::Profile(profile) => Ok(profile),
        other => Err(another_answer("profile", &other)),
    }))
}

fn classification(result: JobResult) -> Answer<Classification> {
    match result {
        JobResult::Classify(classification) => Ok(classification),
        other => Err(another_answer("classify", &other)),
    }
}

fn tensors(result: JobResult) -> Answer<InferResponse> {
    match result {
        JobResult::Infer(response) => Ok(response),
        other => Err(another_answer("infer", &other)),
    }
}

#[update]
async fn generate(request: GenerateRequest) -> Answer<Generation> {
    let owner = access::check("generate")?;
    let result = match begin_generation(owner, &request).await {
        Ok(request) => jobs::run(owner, request).await.map(jobs::with_reply_cost),
        Err(error) => Err(error),
    };
    metrics::count(&result);
    done(result.and_then(generation))
}

#[query]
fn generate_query(request: GenerateRequest) -> Answer<Generation> {
    let owner = access::check("generate_query")?;
    let begun = prompt::begin(owner, &request, prompt::seed_of(&request))?;
    let result = jobs::run_query(&owner, &Request::Generate(begun)).map(jobs::with_reply_cost);
    // A query keeps nothing, so there is no session either.
    result.and_then(generation).map(|generation| Generation { session: request.session, ..generation })
}

#[update]
async fn start_generation(request: GenerateRequest) -> Answer<JobId> {
    let owner = access::check("start_generation")?;
    let begun = begin_generation(owner, &request).await;
    done(begun.and_then(|request| jobs::start(owner, request)))
}

#[update]
fn delete_session(session: SessionId) -> Answer<()> {
    done(access::check("delete_session").and_then(|_| sessions::delete(session)))
}

/// Reads the prompt into the session, with a seed of the network's where one is needed.
async fn begin_generation(owner: Principal, request: &GenerateRequest) -> Answer<Request> {
    let seed = match prompt::needs_seed(request) {
        true => {
            let _open = driver::OpenCall::begin();
            let failed = |message| Error::Trapped { place: "raw_rand".into(), message };
            prompt::seed_from(&runtime::random().await.map_err(failed)?)
        }
        false => 0,
    };
    health::check_reserve()?;
    jobs::check_room()?;
    prompt::begin(owner, request, seed).map(Request::Generate)
}

fn generation(result: JobResult) -> Answer<Generation> {
    match result {
        JobResult::Generate(generation) => Ok(generation),
        other => Err(another_answer("generate", &other)),
    }
}

/// A request is answered with its own kind of answer; this can't come up.
fn another_answer(asked: &str, result: &JobResult) -> Error {
    let kind = match result {
        JobResult::Classify(_) => "classify",
        JobResult::Infer(_) => "infer",
        JobResult::Profile(_) => "profile",
        JobResult::Generate(_) => "generate",
    };
    invalid("request", kind, format!("the job's request was to {asked}"))
}

#[update(hidden = true, decode_with = "as_it_is")]
fn put_input(arguments: Vec<u8>) -> Answer<StagedInput> {
    done((|| {
        let owner = access::check("put_input")?;
        inputs::put(&owner, &arguments::decode_borrowed::<PutInputBorrowed>("put_input", &arguments)?)
    })())
}

/// What `put_input` looks like from outside; the method itself decodes without copying.
#[candid::candid_method(update, rename = "put_input")]
#[expect(dead_code, unused_variables, reason = "its signature is exported as Candid")]
fn put_input_signature(part: PutInput) -> Answer<StagedInput> {
    unreachable!("only the signature is used")
}

#[update]
fn delete_input(key: String) -> Answer<()> {
    done(access::check("delete_input").and_then(|owner| inputs::delete(&owner, &key)))
}

// --------------------------------------------------------------------------------------------------------- jobs

#[update]
fn start_classify(request: ClassifyRequest) -> Answer<JobId> {
    done(access::check("start_classify").and_then(|owner| jobs::start(owner, Request::Classify(request))))
}

#[update]
fn start_infer(request: InferRequest) -> Answer<JobId> {
    done(access::check("start_infer").and_then(|owner| jobs::start(owner, Request::Infer(request))))
}

#[query]
fn poll(job: JobId) -> Answer<JobInfo> {
    access::check("poll").and_then(|_| jobs::poll(job))
}

#[update]
fn cancel(job: JobId) -> Answer<JobInfo> {
    done(access::check("cancel").and_then(|_| jobs::cancel(job)))
}

#[query]
fn read_output(request: ReadOutput) -> Answer<OutputPage> {
    access::check("read_output").and_then(|_| jobs::read_output(&request))
}

// ----------------------------------------------------------------------------------------------------- operation

#[query]
fn get_settings() -> Settings {
    settings::shown()
}

#[update]
fn update_settings(patch: SettingsPatch) -> Answer<Settings> {
    done(access::check("update_settings").and_then(|_| settings::update(patch)))
}

#[query]
fn health() -> Health {
    health::health()
}

#[query]
fn http_request(request: HttpRequest) -> HttpResponse {
    metrics::http_request(&request)
}

ic_cdk::export_candid!();

/// The service that this module exports, in Candid.
pub fn candid_service() -> String {
    __export_service()
}
