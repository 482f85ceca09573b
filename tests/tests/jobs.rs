//! Work that outgrows a message: pausing, waiting, polling, cancelling, stopping, upgrading, trapping.

use end_to_end_tests::models::{
    MLP, assert_close, bits, classify_request, efficientnet, input, mlp, only_output, photo, request,
};
use end_to_end_tests::pocket::Pocket;
use onnx_canister_interface::{
    CallLimits, Classification, ClassifyRequest, Error, InferResponse, JobId, JobInfo, JobResult, JobState, Label,
    ModelInfo, ModelRef, ModelState, SettingsPatch,
};

/// The least budget: what a message does before its first node exceeds it, so that every node is a message of its own.
const ONE_NODE: u64 = 1;
/// A budget with which EfficientNet-Lite0 takes some hundreds of messages, which a waiting call can have.
const HUNDREDS_OF_MESSAGES: u64 = 2_600_000;

fn one_node_a_message(max_call_messages: u32) -> Option<SettingsPatch> {
    Some(SettingsPatch { max_call_messages: Some(max_call_messages), ..SettingsPatch::default() })
}

fn start(pocket: &Pocket, model: &ModelRef) -> JobId {
    pocket.update("start_infer", request(model, &input())).expect("start_infer")
}

#[test]
fn a_pause_after_every_single_node_gives_the_same_bits() {
    let pocket = Pocket::new(one_node_a_message(1_000));
    let model = pocket.deploy_model(&mlp("mlp"));
    let whole: InferResponse = pocket.update("infer", request(&model, &input())).expect("infer");
    assert_eq!(whole.cost.messages, 1);
    assert_close(&only_output(&whole), &MLP.reference(&input()));

    pocket.set_message_budget(ONE_NODE);
    let paused: InferResponse = pocket.update("infer", request(&model, &input())).expect("infer");
    assert!(paused.cost.messages >= 4, "{} messages", paused.cost.messages);
    assert_eq!(bits(&only_output(&paused)), bits(&only_output(&whole)));
}

#[test]
fn loading_and_commit_pause_everywhere_too() {
    let pocket = Pocket::new(one_node_a_message(1_000));
    pocket.set_message_budget(ONE_NODE);
    let model = pocket.deploy_model(&mlp("mlp"));
    let cost = pocket.info(&model).load_cost;
    assert!(cost.messages > 2, "{} messages", cost.messages);
    pocket.set_message_budget(20_000_000_000);
    assert_close(&pocket.infer(&model, &input()).expect("infer"), &MLP.reference(&input()));
}

#[test]
fn a_call_that_waits_too_long_names_its_job_and_the_job_goes_on_by_itself() {
    let pocket = Pocket::new(one_node_a_message(2));
    let model = pocket.deploy_model(&mlp("mlp"));
    pocket.set_message_budget(ONE_NODE);
    let error = pocket.update::<_, InferResponse>("infer", request(&model, &input())).expect_err("only two messages");
    let Error::StillRunning { job } = error else { panic!("{error}") };
    let response = pocket.wait_for_job(job);
    assert_close(&only_output(&response), &MLP.reference(&input()));
}

#[test]
fn started_jobs_queue_and_all_finish() {
    let pocket = Pocket::new(one_node_a_message(12));
    let model = pocket.deploy_model(&mlp("mlp"));
    pocket.set_message_budget(ONE_NODE);
    let jobs: Vec<JobId> = (0..3).map(|_| start(&pocket, &model)).collect();
    assert!(jobs.windows(2).all(|pair| pair[0] != pair[1]));
    let expected = MLP.reference(&input());
    for job in jobs {
        assert_close(&only_output(&pocket.wait_for_job(job)), &expected);
    }
}

#[test]
fn while_a_job_runs_its_model_is_leased() {
    let pocket = Pocket::new(one_node_a_message(12));
    let model = pocket.deploy_model(&mlp("mlp"));
    pocket.set_message_budget(ONE_NODE);
    let job = start(&pocket, &model);
    pocket.ic.tick();
    for method in ["delete_model", "unload"] {
        let error = pocket.update::<_, ModelInfo>(method, model.clone()).expect_err("leased");
        assert_eq!(error, Error::Busy { job }, "{method}");
    }
    pocket.wait_for_job(job);
    let info: ModelInfo = pocket.update("unload", model.clone()).expect("free again");
    assert_eq!(info.state, ModelState::Committed);
}

#[test]
fn a_cancelled_job_stops_and_frees_its_model() {
    let pocket = Pocket::new(one_node_a_message(12));
    let model = pocket.deploy_model(&mlp("mlp"));
    pocket.set_message_budget(ONE_NODE);
    let job = start(&pocket, &model);
    pocket.ic.tick();
    let _: JobInfo = pocket.update("cancel", job).expect("cancel");
    pocket.tick_until("cancelled", || pocket.job(job).state == JobState::Cancelled);
    let info: ModelInfo = pocket.update("unload", model).expect("free again");
    assert_eq!(info.state, ModelState::Committed);
    let error = pocket.query::<_, JobInfo>("poll", 999_999_u64).expect_err("no such job");
    assert_eq!(error, Error::JobNotFound { job: 999_999 });
}

#[test]
fn a_job_ends_at_its_callers_limits() {
    let pocket = Pocket::new(one_node_a_message(1_000));
    let model = pocket.deploy_model(&mlp("mlp"));
    pocket.set_message_budget(ONE_NODE);
    let mut limited = request(&model, &input());
    limited.limits = Some(CallLimits { max_messages: Some(2), max_instructions: None });
    let error = pocket.update::<_, InferResponse>("infer", limited.clone()).expect_err("two messages do not suffice");
    assert!(matches!(error, Error::JobLimit { messages: 2, .. }), "{error}");
    limited.limits = Some(CallLimits { max_messages: None, max_instructions: Some(10) });
    let error = pocket.update::<_, InferResponse>("infer", limited).expect_err("ten instructions do not suffice");
    assert!(matches!(error, Error::JobLimit { .. }), "{error}");
    let _: ModelInfo = pocket.update("unload", model).expect("free again");
}

/// EfficientNet-Lite0 with every node in a message of its own: more work than one round holds, so that a tick leaves it
/// in the middle.
fn longer_than_a_round(pocket: &Pocket) -> (ClassifyRequest, Vec<Label>) {
    let model = pocket.deploy_model(&efficientnet());
    let request = classify_request(&model, photo("crop224/coffee.png"));
    let whole: Classification = pocket.update("classify", request.clone()).expect("classify");
    pocket.set_message_budget(HUNDREDS_OF_MESSAGES);
    (request, whole.labels)
}

fn labels_of(pocket: &Pocket, job: JobId) -> Vec<Label> {
    let mut labels = Vec::new();
    pocket.tick_until("the job", || match pocket.job(job).state {
        JobState::Done(result) => match *result {
            JobResult::Classify(classification) => {
                labels = classification.labels;
                true
            }
            other => panic!("{other:?}"),
        },
        JobState::Failed(error) => panic!("{error}"),
        _ => false,
    });
    labels
}

#[test]
fn a_stop_during_inference_interrupts_and_the_upgraded_canister_gives_the_same_bits() {
    let pocket = Pocket::new(one_node_a_message(1_000));
    let (request, whole) = longer_than_a_round(&pocket);

    let waiting = pocket.submit("classify", request);
    pocket.ic.tick();
    pocket.ic.stop_canister(pocket.id, Some(pocket.caller)).expect("a stop waits for at most one message");
    let error = pocket.wait::<Classification>(waiting).expect_err("interrupted");
    let Error::Interrupted { job } = error else { panic!("{error}") };

    pocket.upgrade_running().expect("upgrade");
    pocket.ic.start_canister(pocket.id, Some(pocket.caller)).expect("start");
    assert_eq!(labels_of(&pocket, job), whole);
}

#[test]
fn a_stop_and_upgrade_during_upload_commit_and_load_loses_nothing() {
    let pocket = Pocket::new(one_node_a_message(1));
    let model = mlp("mlp");
    let version = pocket.begin(&model);
    let reference = ModelRef { name: "mlp".to_string(), version: Some(version) };
    for (index, chunk) in model.files[0].chunks(10_000).enumerate() {
        let _: onnx_canister_interface::ChunkReceipt =
            pocket.update("put_chunk", model.chunk(version, 0, index as u32, chunk)).expect("put_chunk");
        if index == 2 {
            pocket.upgrade();
        }
    }
    pocket.set_message_budget(ONE_NODE);
    let error = pocket.update::<_, ModelInfo>("commit", reference.clone());
    assert!(matches!(error, Ok(_) | Err(Error::StillRunning { .. })), "{error:?}");
    pocket.upgrade();
    pocket.tick_until("commit", || pocket.info(&reference).state == ModelState::Committed);

    let _: ModelInfo = pocket.update("load", reference.clone()).expect("load");
    pocket.ic.tick();
    assert!(matches!(pocket.info(&reference).state, ModelState::Loading { .. }));
    pocket.upgrade();
    pocket.tick_until("load", || pocket.info(&reference).state == ModelState::Ready);
    pocket.set_message_budget(20_000_000_000);
    assert_close(&pocket.infer(&reference, &input()).expect("infer"), &MLP.reference(&input()));

    // And a model that was ready is ready again, by itself.
    pocket.upgrade();
    pocket.tick_until("reload", || pocket.info(&reference).state == ModelState::Ready);
    assert_close(&pocket.infer(&reference, &input()).expect("infer"), &MLP.reference(&input()));
}

#[test]
fn an_upgrade_without_a_stop_is_refused_while_a_call_is_open_and_done_otherwise() {
    let pocket = Pocket::new(one_node_a_message(1_000));
    let (request, whole) = longer_than_a_round(&pocket);
    pocket.upgrade_running().expect("no call is open");
    pocket.tick_until("reload", || pocket.info(&request.model).state == ModelState::Ready);

    // The module's chunks are there beforehand, so that the upgrade itself is one message.
    let upgrade = pocket.prepare_upgrade();
    let waiting = pocket.submit("classify", request);
    pocket.ic.tick();
    let reject = upgrade.run(&pocket).expect_err("a call is open");
    assert!(reject.to_string().contains("stop the canister first"), "{reject}");
    let answer = pocket.wait::<Classification>(waiting).expect("the refused upgrade harmed nothing");
    assert_eq!(answer.labels, whole);
}
