//! Inference far beyond what any message holds: it takes as many messages as it needs, and the answer is right.

use end_to_end_tests::models::{floats, manifest};
use end_to_end_tests::onnx::{Outer, little_endian, weights};
use end_to_end_tests::pocket::{Model, Pocket};
use onnx_canister_interface::{
    ElementType, InferInput, InferRequest, InputSource, JobId, JobInfo, JobResult, JobState, Tensor,
};
use serde_bytes::ByteBuf;

/// Four products of 9216 rows and a matrix of 2048 by 2048: 38.7e9 multiply-accumulates each.
const OUTER: Outer = Outer { rows: 9_216, width: 2_048, products: 4 };
/// What the whole must cost, or the test shows nothing, and what each product must.
const INSTRUCTIONS_MIN: u64 = 200_000_000_000;
const PRODUCT_INSTRUCTIONS_MIN: u64 = 60_000_000_000;
/// What no message may exceed.
const MESSAGE_INSTRUCTIONS_MAX: u64 = 40_000_000_000;

fn tensor(shape: Vec<u64>, values: &[f32]) -> InputSource {
    let data = ByteBuf::from(little_endian(values));
    InputSource::Tensor(Tensor { element_type: ElementType::Float32, shape, data })
}

#[test]
fn an_inference_of_200e9_instructions_whose_products_each_outgrow_a_message_completes() {
    let pocket = Pocket::new(None);
    let model = Model::new(manifest("outer", 1_900_000), vec![("model.onnx".to_string(), OUTER.file())]);
    let model = pocket.deploy_model(&model);
    let (column, row) = (weights(OUTER.rows as usize, 5), weights(OUTER.width as usize, 6));
    let inputs = vec![
        InferInput { name: "column".to_string(), source: tensor(vec![OUTER.rows, 1], &column) },
        InferInput { name: "row".to_string(), source: tensor(vec![1, OUTER.width], &row) },
    ];
    let request = InferRequest { model, inputs, outputs: None, limits: None };
    let job: JobId = pocket.update("start_infer", request).expect("start_infer");
    let poll = || pocket.query::<_, JobInfo>("poll", job).expect("poll");
    pocket.tick_until("the job", || !matches!(poll().state, JobState::Queued | JobState::Running { .. }));
    let JobState::Done(result) = poll().state else { panic!("{:?}", poll().state) };
    let JobResult::Infer(response) = *result else { panic!("another kind of answer") };

    let cost = response.cost;
    println!("{cost:?}");
    assert!(cost.instructions >= INSTRUCTIONS_MIN, "{}", cost.instructions);
    assert!(cost.instructions / u64::from(OUTER.products) >= PRODUCT_INSTRUCTIONS_MIN, "{}", cost.instructions);
    assert!(u64::from(cost.messages) > cost.instructions / MESSAGE_INSTRUCTIONS_MAX, "{}", cost.messages);

    let output = &response.outputs[0];
    assert_eq!(output.shape, [3, OUTER.width]);
    let (got, expected) = (floats(&output.data), OUTER.reference(&column, &row));
    let largest = expected.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    assert!(largest > 0.1, "the reference is all but zero: nothing would be tested");
    for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
        assert!((got - expected).abs() <= 1e-4 * largest, "element {index}: {got} instead of {expected}");
    }
}
