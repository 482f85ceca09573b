//! What the engine expects a step to cost, beside what it does: sessions pause by the former and are billed the latter.

use end_to_end_tests::models::recipe;
use end_to_end_tests::pocket::Pocket;
use end_to_end_tests::requests::{numbers, text_tokens};
use onnx_canister_interface::{InferRequest, ModelInfo, NodeProfile, Profile, ProfileRequest, SettingsPatch};

/// Instructions of a kind of step beneath which a share of them means nothing.
const LEAST_INSTRUCTIONS: u64 = 1_000_000;

/// How far from its estimate a kind of step may be, beside charges for pages of 64 KiB that a message touches first, which
/// estimates don't have.
const TOLERANCE: f64 = 0.15;
/// How many times what it costs a kind of step may be expected to, where that is a twentieth of the inference or more.
const MOST_UNDER: f64 = 1.4;
const NOTABLE_PART: u64 = 20;
/// Pages of the arena, which the first steps are the first to touch.
const ARENA_PAGES: u64 = 100;

const PAGE_BYTES: u64 = 65_536;
const PAGE_ACCESS_INSTRUCTIONS: u64 = 80_000;

/// Instructions for all pages of a node's inputs and output, each read and written, and of the weights, if it has any.
fn page_charges(node: &NodeProfile, heap_bytes: u64) -> u64 {
    let values = node.input_shapes.iter().chain([&node.output_shape]);
    // Elements have 4 bytes mostly, and a value lies on a page more than it fills.
    let pages: u64 = values.map(|shape| shape.iter().product::<u64>() * 4 / PAGE_BYTES + 2).sum();
    let has_weights = node.multiply_accumulates > 0 || node.operator.starts_with("Gather");
    let weight_pages = if has_weights { heap_bytes / PAGE_BYTES } else { 0 };
    PAGE_ACCESS_INSTRUCTIONS * (2 * pages + weight_pages)
}

fn check(recipe_name: &str, request: fn(&ModelInfo) -> InferRequest) {
    let pocket = Pocket::new(Some(SettingsPatch::default()));
    let reference = pocket.deploy_model(&recipe(recipe_name));
    let info = pocket.info(&reference);
    let profile: Profile = pocket.update("profile", ProfileRequest::Infer(request(&info))).expect("profile");
    assert!(!profile.operators.is_empty());
    let total: u64 = profile.operators.iter().map(|kind| kind.instructions).sum();
    let mut wrong = Vec::new();
    for kind in &profile.operators {
        let (measured, estimated) = (kind.instructions, kind.estimated_instructions);
        let nodes = profile.nodes.iter().filter(|node| node.operator == kind.operator);
        // Whatever the kind, the weights are touched once.
        let charges = nodes.clone().map(|node| page_charges(node, 0)).sum::<u64>()
            + nodes.map(|node| page_charges(node, info.heap_bytes) - page_charges(node, 0)).max().unwrap_or(0);
        let is_first = profile.nodes.iter().take(2).any(|node| node.operator == kind.operator);
        let charges = charges + if is_first { 2 * PAGE_ACCESS_INSTRUCTIONS * ARENA_PAGES } else { 0 };
        println!("{recipe_name}: {} x {}: {measured} instructions, expected {estimated}", kind.nodes, kind.operator);
        let is_small = measured < LEAST_INSTRUCTIONS && estimated < LEAST_INSTRUCTIONS;
        let is_over = measured as f64 > estimated as f64 * (1.0 + TOLERANCE) + charges as f64;
        let is_notable = estimated.max(measured) > total / NOTABLE_PART;
        let is_under = is_notable && estimated as f64 > measured as f64 * MOST_UNDER;
        if !is_small && (is_over || is_under) {
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
