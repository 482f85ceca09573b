//! Running: pauses, results, and requests that do not fit the model.

mod common;

use common::*;
use onnx_engine::{ElementType, EngineError, Meter, Plan, Session, Step, Tensor};
use std::sync::Arc;
use tract_onnx::pb::GraphProto;

fn image(count: u64) -> Tensor {
    f32_input(&[count, 2, 8, 8], &numbers(9, 128 * count as usize))
}

fn run(plan: &Arc<Plan>, input: Tensor, meter: &dyn Meter, limit: u64) -> (Vec<(String, Tensor)>, u32) {
    let mut session = Session::new(plan.clone(), vec![("image".into(), input)], None).unwrap();
    let mut pauses = 0;
    while let Step::Paused { done, total } = session.step(meter, limit).unwrap() {
        assert!(done < total && done as usize == session.nodes_done());
        pauses += 1;
    }
    (session.into_outputs().unwrap(), pauses)
}

#[test]
fn results_follow_the_operators_definitions() {
    let plan = load(files(cnn_graph(Size::Fixed(1)))).unwrap();
    assert_eq!(plan.inputs()[0].shape, [Some(1), Some(2), Some(8), Some(8)]);
    assert_eq!(plan.weight_bytes(), 1280 * 4);
    let (outputs, _) = run(&plan, image(1), &Free, u64::MAX);
    let logits = cnn_logits(&numbers(9, 128));
    let total: f64 = logits.iter().map(|logit| logit.exp()).sum();
    let names: Vec<_> = outputs.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["probabilities", "logits"]);
    let (probabilities, computed) = (outputs[0].1.to_f32().unwrap(), outputs[1].1.to_f32().unwrap());
    for class in 0..10 {
        assert!((f64::from(computed[class]) - logits[class]).abs() < 1e-4, "{computed:?} {logits:?}");
        assert!((f64::from(probabilities[class]) - logits[class].exp() / total).abs() < 1e-5, "{probabilities:?}");
    }
}

#[test]
fn a_pause_at_every_node_changes_no_bit() {
    let plan = load(files(cnn_graph(Size::Fixed(1)))).unwrap();
    let (whole, pauses) = run(&plan, image(1), &Free, u64::MAX);
    assert_eq!(pauses, 0);
    // A limit of 0 leaves room for the first node of each call only.
    let (paused, pauses) = run(&plan, image(1), &CountingMeter::new(1), 0);
    assert_eq!(pauses as usize, plan.node_count() - 1);
    assert_eq!(paused, whole);
    // And at every other place once: a budget that ends before the node of that number.
    for stop in 1..plan.node_count() {
        let mut session = Session::new(plan.clone(), vec![("image".into(), image(1))], None).unwrap();
        for _ in 0..stop {
            session.step(&Free, 0).unwrap();
        }
        assert_eq!(session.nodes_done(), stop);
        assert_eq!(session.step(&Free, u64::MAX).unwrap(), Step::Done);
        assert_eq!(session.into_outputs().unwrap(), whole, "after a pause before node {stop}");
    }
}

#[test]
fn a_free_batch_takes_any_size() {
    let plan = load(files(cnn_graph(Size::Named("N")))).unwrap();
    assert_eq!(plan.inputs()[0].shape[0], None);
    assert_eq!(plan.outputs()[0].shape, [None, Some(10)]);
    for count in [1, 3] {
        let (outputs, _) = run(&plan, image(count), &CountingMeter::new(1), 0);
        assert_eq!(outputs[1].1.shape(), [count, 10]);
        let logits = outputs[1].1.to_f32().unwrap();
        let images = numbers(9, 128 * count as usize);
        for (index, image) in images.chunks(128).enumerate() {
            for (class, expected) in cnn_logits(image).iter().enumerate() {
                let got = f64::from(logits[index * 10 + class]);
                assert!((got - expected).abs() < 1e-4, "image {index}, class {class}: {got}, not {expected}");
            }
        }
    }
}

#[test]
fn outputs_are_chosen_by_name() {
    let plan = load(files(cnn_graph(Size::Fixed(1)))).unwrap();
    let whole = run(&plan, image(1), &Free, u64::MAX).0;
    let session = |outputs: &[&str]| {
        let names = outputs.iter().map(|name| name.to_string()).collect();
        Session::new(plan.clone(), vec![("image".into(), image(1))], Some(names))
    };
    let mut logits = session(&["logits"]).unwrap();
    // The softmax is of no use to the logits.
    assert!(logits.nodes_total() < plan.node_count());
    assert_eq!(logits.step(&Free, u64::MAX).unwrap(), Step::Done);
    assert_eq!(logits.into_outputs().unwrap(), whole[1..]);
    let available = vec!["probabilities".to_string(), "logits".to_string()];
    let unknown = EngineError::UnknownTensor { name: "scores".into(), available };
    assert_eq!(session(&["scores"]).err(), Some(unknown));
    let twice = EngineError::DuplicateTensor { name: "logits".into() };
    assert_eq!(session(&["logits", "logits"]).err(), Some(twice));
}

#[test]
fn inputs_may_be_narrower_than_the_models() {
    let plan = load(files(cnn_graph(Size::Fixed(1)))).unwrap();
    let bytes: Vec<u8> = (0..128).collect();
    let narrow = Tensor::from_bytes(ElementType::Uint8, &[1, 2, 8, 8], &bytes).unwrap();
    let wide = f32_input(&[1, 2, 8, 8], &bytes.iter().map(|byte| f32::from(*byte)).collect::<Vec<_>>());
    assert_eq!(run(&plan, narrow, &Free, u64::MAX).0, run(&plan, wide, &Free, u64::MAX).0);
}

#[test]
fn requests_that_do_not_fit_are_refused() {
    let plan = load(files(cnn_graph(Size::Named("N")))).unwrap();
    let refused = |inputs: Vec<(&str, Tensor)>| {
        let inputs = inputs.into_iter().map(|(name, tensor)| (name.to_string(), tensor)).collect();
        Session::new(plan.clone(), inputs, None).err().unwrap()
    };
    assert_eq!(refused(vec![]), EngineError::MissingTensor { name: "image".into() });
    let available = vec!["image".to_string()];
    assert_eq!(refused(vec![("picture", image(1))]), EngineError::UnknownTensor { name: "picture".into(), available });
    assert_eq!(
        refused(vec![("image", image(1)), ("image", image(1))]),
        EngineError::DuplicateTensor { name: "image".into() }
    );
    let ints = Tensor::from_bytes(ElementType::Int32, &[1, 2, 8, 8], &[0; 512]).unwrap();
    let (expected, got) = (ElementType::Float32, ElementType::Int32);
    assert_eq!(refused(vec![("image", ints)]), EngineError::TensorType { name: "image".into(), expected, got });
    let expected = vec![None, Some(2), Some(8), Some(8)];
    for shape in [&[1, 2, 8, 9][..], &[1, 128], &[128]] {
        let values = vec![0.0; shape.iter().product::<u64>() as usize];
        let wrong = refused(vec![("image", f32_input(shape, &values))]);
        let got = shape.to_vec();
        assert_eq!(wrong, EngineError::TensorShape { name: "image".into(), expected: expected.clone(), got });
    }
}

#[test]
fn two_inputs_must_agree_on_a_free_dimension() {
    let sizes = || [Size::Named("N"), Size::Fixed(2)];
    let graph = GraphProto {
        node: vec![node("Add", &["a", "b"], &["sum"])],
        input: vec![value("a", FLOAT, &sizes()), value("b", FLOAT, &sizes())],
        output: vec![value("sum", FLOAT, &sizes())],
        ..GraphProto::default()
    };
    let plan = load(files(graph)).unwrap();
    let inputs = |a: u64, b: u64| {
        let input = |count: u64| f32_input(&[count, 2], &vec![1.0; 2 * count as usize]);
        vec![("a".to_string(), input(a)), ("b".to_string(), input(b))]
    };
    assert!(Session::new(plan.clone(), inputs(2, 3), None).is_err());
    let mut session = Session::new(plan, inputs(3, 3), None).unwrap();
    assert_eq!(session.step(&Free, u64::MAX).unwrap(), Step::Done);
    assert_eq!(session.into_outputs().unwrap()[0].1.to_f32().unwrap(), [2.0; 6]);
}

#[test]
fn an_unfinished_session_has_no_outputs() {
    let plan = load(files(cnn_graph(Size::Fixed(1)))).unwrap();
    let mut session = Session::new(plan.clone(), vec![("image".into(), image(1))], None).unwrap();
    session.step(&Free, 0).unwrap();
    let total = plan.node_count() as u64;
    let expected = EngineError::NotDone { place: "inference".into(), done: 1, total };
    assert_eq!(session.into_outputs(), Err(expected));
}

#[test]
fn a_node_beyond_the_limit_is_refused() {
    let plan = load(files(cnn_graph(Size::Fixed(1)))).unwrap();
    let largest = plan.largest_node_estimate_instructions();
    let run = |limit: u64| {
        let session = Session::new(plan.clone(), vec![("image".into(), image(1))], None).unwrap();
        let mut session = session.with_node_limit(limit);
        let result = session.step(&Free, u64::MAX);
        assert_eq!(session.step(&Free, u64::MAX).is_err(), result.is_err());
        result
    };
    assert_eq!(run(largest), Ok(Step::Done));
    match run(1) {
        Err(EngineError::NodeTooExpensive { estimate, limit: 1, .. }) => assert!(estimate > 1),
        other => panic!("{other:?}"),
    }
}

/// Where tract runs the graph whole. Each node costs 1,000, of which a bound of the shapes knows nothing.
#[test]
fn measured_costs_replace_the_bound() {
    let plan = load(files(repeat_rows())).unwrap();
    assert!(plan.whole_reason().is_some());
    let estimates = || {
        let input = ("x".into(), f32_input(&[1, 2], &[1.0, 2.0]));
        let mut session = Session::new(plan.clone(), vec![input], None).unwrap();
        let mut estimates = Vec::new();
        let meter = CountingMeter::new(1000);
        loop {
            estimates.push(session.next_node_estimate_instructions());
            if session.step(&meter, 0).unwrap() == Step::Done {
                return estimates;
            }
        }
    };
    let (bounds, measured) = (estimates(), estimates());
    assert_eq!(bounds.len(), plan.node_count());
    assert!(bounds.iter().zip(&measured).all(|(bound, measured)| measured <= bound));
    assert!(measured.iter().sum::<u64>() < bounds.iter().sum::<u64>());
}

#[test]
fn a_model_without_a_variant_for_any_size_is_prepared_for_each() {
    let plan = load(files(repeat_rows())).unwrap();
    assert_eq!(plan.inputs()[0].shape, [None, Some(2)]);
    assert_eq!(plan.outputs()[0].shape, [None, Some(3), Some(2)]);
    let run = |count: u64| {
        let rows: Vec<f32> = (0..2 * count).map(|value| value as f32).collect();
        let input = ("x".to_string(), f32_input(&[count, 2], &rows));
        let mut session = Session::new(plan.clone(), vec![input], None).unwrap();
        let mut prepared = 0;
        while session.next_node_name().starts_with("preparing") {
            assert_eq!(session.nodes_done(), 0);
            // Alone in its call, whatever the budget.
            assert!(matches!(session.step(&Free, u64::MAX).unwrap(), Step::Paused { .. }));
            prepared += 1;
        }
        assert_eq!(session.step(&Free, u64::MAX).unwrap(), Step::Done);
        let output = session.into_outputs().unwrap().remove(0).1;
        assert_eq!(output.shape(), [count, 3, 2]);
        let expected: Vec<f32> = rows
            .chunks(2)
            .flat_map(|row| [0.0, 10.0, 20.0].map(|add| [row[0] + add, row[1] + add]))
            .flatten()
            .collect();
        assert_eq!(output.to_f32().unwrap(), expected);
        prepared
    };
    // 1 was prepared at load, 3 is once; of several sizes the last two are kept.
    assert_eq!([1, 3, 3, 1, 4, 3, 5, 3].map(run), [0, 5, 0, 0, 5, 0, 5, 5]);
}
