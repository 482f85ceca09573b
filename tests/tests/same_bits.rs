//! Every answer is reproducible bit for bit: in one message, in many, across an upgrade, and off chain.

use end_to_end_tests::models::recipe;
use end_to_end_tests::pocket::Pocket;
use end_to_end_tests::replay::replay;
use end_to_end_tests::requests::{numbers, text_tokens};
use onnx_canister_interface::{
    InferRequest, InferResponse, JobId, JobState, ModelInfo, Profile, ProfileRequest, SettingsPatch,
};

/// Messages that an inference is cut into, where its graph has as many steps.
const MESSAGES: u64 = 50;
/// More instructions than the network executes in two rounds.
const WORK_OF_ROUNDS: u64 = 8_000_000_000;

fn bytes(response: &InferResponse) -> Vec<(String, Vec<u8>)> {
    let whole = |page: &onnx_canister_interface::OutputPage| {
        assert_eq!(page.data.len() as u64, page.size_bytes);
        (page.name.clone(), page.data.to_vec())
    };
    response.outputs.iter().map(whole).collect()
}

/// Runs a model in all the ways there are.
fn check(recipe_name: &str, request: fn(&ModelInfo) -> InferRequest) {
    let settings = SettingsPatch { max_call_messages: Some(1_000), ..SettingsPatch::default() };
    let pocket = Pocket::new(Some(settings));
    let model = recipe(recipe_name);
    let reference = pocket.deploy_model(&model);
    let request = request(&pocket.info(&reference));
    let whole: InferResponse = pocket.update("infer", request.clone()).expect("infer");
    assert_eq!(whole.cost.messages, 1);
    let expected = bytes(&whole);
    assert!(expected.iter().any(|(_, bytes)| bytes.iter().any(|byte| *byte != 0)));

    let profile: Profile = pocket.update("profile", ProfileRequest::Infer(request.clone())).expect("profile");
    pocket.set_message_budget(whole.cost.instructions / MESSAGES);
    let cut: InferResponse = pocket.update("infer", request.clone()).expect("infer");
    let steps = profile.nodes.len() as u64;
    assert!(u64::from(cut.cost.messages) >= MESSAGES.min(steps), "{} messages, {steps} steps", cut.cost.messages);
    assert!(bytes(&cut) == expected, "cut into {} messages it gives other bits", cut.cost.messages);

    // As much as a round can't end, so that the stop finds the first in the middle and others waiting.
    let count = WORK_OF_ROUNDS.div_ceil(cut.cost.instructions);
    let start = || pocket.update::<_, JobId>("start_infer", request.clone()).expect("start_infer");
    let jobs: Vec<JobId> = (0..count).map(|_| start()).collect();
    pocket.ic.stop_canister(pocket.id, Some(pocket.caller)).expect("stop");
    pocket.upgrade_running().expect("upgrade");
    pocket.ic.start_canister(pocket.id, Some(pocket.caller)).expect("start");
    let is_done = |job: &JobId| matches!(pocket.job(*job).state, JobState::Done(_));
    assert!(!jobs.iter().all(is_done), "the stop came too late: all {count} had ended");
    for job in jobs {
        assert!(bytes(&pocket.wait_for_job(job)) == expected, "after an upgrade it gives other bits");
    }

    let is_ours = !profile.operators.is_empty() && profile.operators.iter().all(|o| !o.operator.starts_with("tract "));
    match is_ours {
        true => {
            let native = replay(model.files[0].clone(), &request).expect("it runs natively");
            assert!(native == expected, "natively it gives other bits");
        }
        // tract's kernels differ by processor and its fallbacks by platform; the same Wasm gives the same bits.
        false => {
            let other = Pocket::new(None);
            other.deploy_model(&model);
            let again: InferResponse = other.update("infer", request).expect("infer");
            assert!(bytes(&again) == expected, "another canister gives other bits");
        }
    }
    println!("{recipe_name}: {steps} steps, {} messages, all operators ours: {is_ours}", cut.cost.messages);
}

#[test]
fn efficientnet_in_f32() {
    check("efficientnet-lite0", numbers);
}

#[test]
fn efficientnet_in_int8() {
    check("efficientnet-lite0-int8", numbers);
}

#[test]
fn magika() {
    check("magika", numbers);
}

#[test]
fn minilm_with_int8_weights() {
    check("minilm-l6-int8", text_tokens);
}
