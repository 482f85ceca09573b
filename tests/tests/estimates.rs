//! What the engine expects a step to cost, beside what it does: sessions pause by the former and are billed the latter.

use end_to_end_tests::models::recipe;
use end_to_end_tests::pocket::Pocket;
use end_to_end_tests::requests::{numbers, text_tokens};
use onnx_canister_interface::{InferRequest, ModelInfo, Profile, ProfileRequest, SettingsPatch};

/// Instructions of a kind of step beneath which a share of them means nothing.
const LEAST_INSTRUCTIONS: u64 = 1_000_000;

/// How many times its estimate a kind of step may cost at most. Estimates don't know which pages a message has touched
/// before, which costs up to 160,000 instructions for each of 64 KiB.
const MOST_OVER: f64 = 1.5;
/// How many times what it costs it may be expected to.
const MOST_UNDER: f64 = 2.0;

fn check(recipe_name: &str, request: fn(&ModelInfo) -> InferRequest) {
    let pocket = Pocket::new(Some(SettingsPatch::default()));
    let reference = pocket.deploy_model(&recipe(recipe_name));
    let request = request(&pocket.info(&reference));
    let profile: Profile = pocket.update("profile", ProfileRequest::Infer(request)).expect("profile");
    assert!(!profile.operators.is_empty());
    let mut wrong = Vec::new();
    for kind in &profile.operators {
        let (measured, estimated) = (kind.instructions, kind.estimated_instructions);
        println!("{recipe_name}: {} x {}: {measured} instructions, expected {estimated}", kind.nodes, kind.operator);
        let over = measured as f64 / estimated as f64;
        let is_small = measured < LEAST_INSTRUCTIONS && estimated < LEAST_INSTRUCTIONS;
        if !is_small && !(1.0 / MOST_UNDER..=MOST_OVER).contains(&over) {
            wrong.push(format!("{}: {measured} instructions, expected {estimated}", kind.operator));
        }
    }
    assert!(wrong.is_empty(), "{recipe_name}: {wrong:#?}");
}

#[test]
fn of_a_network_of_convolutions() {
    check("efficientnet-lite0", numbers);
}

#[test]
fn of_convolutions_of_integers() {
    check("efficientnet-lite0-int8", numbers);
}

#[test]
fn of_a_classifier_of_bytes() {
    check("magika", numbers);
}

#[test]
fn of_a_transformer_with_int8_weights() {
    check("minilm-l6-int8", text_tokens);
}
