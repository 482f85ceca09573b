//! Graphs that are interpreted: nothing about their values is known before they run.

mod common;

use common::*;
use onnx_engine::{ElementType, EngineError, Meter, Plan, Session, Step, Tensor};
use std::sync::Arc;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, attribute_proto};

/// The elements that are not 0, doubled.
fn non_zero_graph() -> GraphProto {
    GraphProto {
        node: vec![
            node("NonZero", &["x"], &["places"]),
            node("Transpose", &["places"], &["rows"]),
            node("GatherND", &["x", "rows"], &["found"]),
            node("Add", &["found", "found"], &["y"]),
        ],
        input: vec![value("x", FLOAT, &[Size::Named("N"), Size::Fixed(2)])],
        output: vec![value("y", FLOAT, &[Size::Unknown])],
        ..GraphProto::default()
    }
}

fn run(plan: &Arc<Plan>, inputs: Vec<(String, Tensor)>, meter: &dyn Meter, limit: u64) -> (Tensor, u32) {
    let mut session = Session::new(plan.clone(), inputs, None).unwrap();
    let mut pauses = 0;
    while session.step(meter, limit).unwrap() != Step::Done {
        pauses += 1;
    }
    (session.into_outputs().unwrap().remove(0).1, pauses)
}

#[test]
fn sizes_may_depend_on_values_and_pauses_change_nothing() {
    let plan = load(files(non_zero_graph())).unwrap();
    assert!(plan.is_native() && plan.whole_reason().is_some());
    for (values, expected) in [(&[0.0, 1.5, -2.0, 0.0][..], &[3.0, -4.0][..]), (&[0.0, 0.0], &[]), (&[], &[])] {
        let input = || vec![("x".to_string(), f32_input(&[values.len() as u64 / 2, 2], values))];
        let (whole, _) = run(&plan, input(), &Free, u64::MAX);
        assert_eq!((whole.to_f32().unwrap(), whole.shape()), (expected.to_vec(), vec![expected.len() as u64]));
        let (in_pieces, pauses) = run(&plan, input(), &Free, 0);
        assert_eq!((in_pieces, pauses as usize), (whole, plan.node_count() - 1));
    }
}

#[test]
fn float64_keeps_its_precision() {
    let mut graph = non_zero_graph();
    graph.input = vec![value("x", 11, &[Size::Fixed(1), Size::Fixed(2)])];
    graph.output = vec![value("y", 11, &[Size::Unknown])];
    let plan = load(files(graph)).unwrap();
    let bytes: Vec<u8> = [0.0, 1.0 + f64::EPSILON].iter().flat_map(|x: &f64| x.to_le_bytes()).collect();
    let input = Tensor::from_bytes(ElementType::Float64, &[1, 2], &bytes).unwrap();
    let (output, _) = run(&plan, vec![("x".into(), input)], &Free, u64::MAX);
    assert_eq!(output.bytes(), (2.0 + 2.0 * f64::EPSILON).to_le_bytes());
}

/// A loop that goes on for as long as its input says, adding 1 to a number each time.
fn loop_graph() -> GraphProto {
    let body = GraphProto {
        name: "body".into(),
        node: vec![node("Identity", &["goes_on"], &["goes_on_out"]), node("Add", &["sum", "one"], &["sum_out"])],
        input: vec![value("trip", INT64, &[]), value("goes_on", 9, &[]), value("sum", INT64, &[])],
        output: vec![value("goes_on_out", 9, &[]), value("sum_out", INT64, &[])],
        ..GraphProto::default()
    };
    let attribute = AttributeProto {
        name: "body".into(),
        r#type: attribute_proto::AttributeType::Graph as i32,
        g: Some(body),
        ..AttributeProto::default()
    };
    GraphProto {
        node: vec![NodeProto { attribute: vec![attribute], ..node("Loop", &["trips", "", "zero"], &["y"]) }],
        initializer: vec![ints("zero", &[], &[0]), ints("one", &[], &[1])],
        input: vec![value("trips", INT64, &[])],
        output: vec![value("y", INT64, &[])],
        ..GraphProto::default()
    }
}

#[test]
fn a_loop_ends_when_it_is_over_or_takes_too_much() {
    let plan = load(files(loop_graph())).unwrap();
    let trips =
        |count: i64| vec![("trips".into(), Tensor::from_bytes(ElementType::Int64, &[], &count.to_le_bytes()).unwrap())];
    let (output, _) = run(&plan, trips(1000), &Free, u64::MAX);
    assert_eq!(output.bytes(), 1000i64.to_le_bytes());
    let endless = Session::new(plan, trips(i64::MAX), None).unwrap();
    let mut endless = endless.with_node_limit(1_000_000);
    match endless.step(&CountingMeter::new(1000), 1_000_000) {
        Err(EngineError::Run { reason, .. }) => assert!(reason.contains("more instructions"), "{reason}"),
        other => panic!("{other:?}"),
    }
}
