//! Forms of attention, rotary embedding and activation that exporters write Gemma, GPT-2 and Phi with: each becomes the
//! steps of a Llama, and gives what its operators give one by one.

mod common;

use common::*;
use onnx_engine::{LoadOptions, Loader, Plan, Session, Step, Tensor};
use std::sync::Arc;
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

const WIDTH: i64 = 24;
const HEADS: i64 = 3;
const HEAD: i64 = 8;
const POSITIONS: u64 = 7;

fn load_with(graph: &GraphProto, without_fusion: bool) -> Arc<Plan> {
    let options = LoadOptions { without_fusion, ..LoadOptions::default() };
    let mut loader = Loader::new(Box::new(files(graph.clone())), options).unwrap();
    while loader.step(&Free, u64::MAX).unwrap() != Step::Done {}
    loader.finish().unwrap()
}

fn run(plan: &Arc<Plan>, x: &Tensor) -> (Vec<f32>, Vec<String>) {
    assert_eq!(plan.whole_reason(), None);
    assert!(plan.is_native());
    let mut session = Session::new(plan.clone(), vec![("x".into(), x.clone())], None).unwrap();
    while session.step(&Free, 0).unwrap() != Step::Done {}
    let operators = session.profile().into_iter().map(|node| node.operator).collect();
    (session.into_outputs().unwrap()[0].1.to_f32().unwrap(), operators)
}

/// Runs a graph joined and taken apart; the former has these operators and none of the others.
fn compare(nodes: Vec<NodeProto>, weights: Vec<TensorProto>, has: &[&str], lacks: &[&str]) {
    let rows = |name: &str| value(name, FLOAT, &[Size::Fixed(2), Size::Named("sequence"), Size::Fixed(WIDTH)]);
    let graph = GraphProto {
        name: "decomposed".into(),
        node: nodes,
        initializer: weights,
        input: vec![rows("x")],
        output: vec![rows("y")],
        ..GraphProto::default()
    };
    let x = f32_input(&[2, POSITIONS, WIDTH as u64], &numbers(1, 2 * POSITIONS as usize * WIDTH as usize));
    let (expected, _) = run(&load_with(&graph, true), &x);
    let (got, operators) = run(&load_with(&graph, false), &x);
    for operator in has {
        assert!(operators.iter().any(|found| found == operator), "{operator} is none of {operators:?}");
    }
    for operator in lacks {
        assert!(!operators.iter().any(|found| found == operator), "{operator} is one of {operators:?}");
    }
    let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    for (got, expected) in got.iter().zip(&expected) {
        assert!((got - expected).abs() <= 4e-6 * largest.max(1.0), "{got}, not {expected}, of {largest}");
    }
}

fn scalar(name: &str, number: f32) -> TensorProto {
    tensor(name, &[], &[number])
}

fn weight(name: &str, rows: i64, columns: i64, seed: u32) -> TensorProto {
    let values: Vec<f32> = numbers(seed, (rows * columns) as usize).iter().map(|x| x * 0.5).collect();
    tensor(name, &[rows, columns], &values)
}

/// One projection to queries, keys and values, split, heads first.
fn heads() -> (Vec<NodeProto>, Vec<TensorProto>) {
    let mut nodes = vec![
        node("MatMul", &["x", "qkv_w"], &["qkv"]),
        node("Split", &["qkv", "thirds"], &["q_flat", "k_flat", "v_flat"]).int("axis", -1),
    ];
    for name in ["q", "k", "v"] {
        let (flat, split) = (format!("{name}_flat"), format!("{name}_split"));
        nodes.push(node("Reshape", &[&flat, "split"], &[&split]));
        nodes.push(node("Transpose", &[&split], &[name]).ints("perm", &[0, 2, 1, 3]));
    }
    let weights = vec![
        weight("qkv_w", WIDTH, 3 * WIDTH, 2),
        ints("thirds", &[3], &[WIDTH; 3]),
        ints("split", &[4], &[0, 0, HEADS, HEAD]),
        ints("join", &[3], &[0, 0, WIDTH]),
        scalar("root", (HEAD as f32).sqrt()),
    ];
    (nodes, weights)
}

/// Attention of `queries` and `keys`, whose scores `between` turns into those that are weighed.
fn attention(queries: &str, keys: &str, between: Vec<NodeProto>) -> Vec<NodeProto> {
    let before = vec![
        node("Transpose", &[keys], &["keys_turned"]).ints("perm", &[0, 1, 3, 2]),
        node("MatMul", &[queries, "keys_turned"], &["products"]),
        node("Div", &["products", "root"], &["scores"]),
    ];
    let after = vec![
        node("Softmax", &["masked"], &["weights"]).int("axis", -1),
        node("MatMul", &["weights", "v"], &["mixed"]),
        node("Transpose", &["mixed"], &["mixed_rows"]).ints("perm", &[0, 2, 1, 3]),
        node("Reshape", &["mixed_rows", "join"], &["joined"]),
    ];
    before.into_iter().chain(between).chain(after).collect()
}

/// Positions of the keys beside those of the queries.
fn causal() -> (Vec<NodeProto>, Vec<TensorProto>) {
    let nodes = vec![
        node("Shape", &["x"], &["shape"]),
        node("Gather", &["shape", "one"], &["length"]).int("axis", 0),
        node("Range", &["zero", "length", "one"], &["places"]),
        node("Unsqueeze", &["places", "column"], &["places_column"]),
        node("LessOrEqual", &["places", "places_column"], &["sees_2"]),
        node("Unsqueeze", &["sees_2", "front"], &["sees"]),
    ];
    let weights = vec![
        ints("zero", &[], &[0]),
        ints("one", &[], &[1]),
        ints("column", &[1], &[1]),
        ints("front", &[2], &[0, 1]),
        scalar("lowest", f32::MIN),
        scalar("nothing", 0.0),
    ];
    (nodes, weights)
}

#[test]
fn scores_of_a_gemma_are_capped_by_the_attention() {
    let (mut nodes, mut weights) = causal();
    let (more, others) = heads();
    nodes.extend(more);
    weights.extend(others);
    nodes.extend([
        node("Where", &["sees", "nothing", "lowest"], &["mask"]),
        node("Add", &["norm_w", "unit"], &["gamma"]),
    ]);
    let between = vec![
        node("Div", &["scores", "cap"], &["small"]),
        node("Tanh", &["small"], &["bent"]),
        node("Mul", &["bent", "cap"], &["capped"]),
        node("Add", &["capped", "mask"], &["masked"]),
    ];
    nodes.extend(attention("q", "k", between));
    nodes.extend([
        node("Pow", &["joined", "two"], &["squares"]),
        node("ReduceMean", &["squares"], &["mean"]).ints("axes", &[-1]),
        node("Add", &["mean", "epsilon"], &["shifted"]),
        node("Sqrt", &["shifted"], &["deviation"]),
        node("Reciprocal", &["deviation"], &["inverse"]),
        node("Mul", &["joined", "inverse"], &["scaled"]),
        node("Mul", &["scaled", "gamma"], &["y"]),
    ]);
    weights.extend([
        scalar("cap", 0.75),
        scalar("unit", 1.0),
        scalar("two", 2.0),
        scalar("epsilon", 1e-6),
        tensor("norm_w", &[WIDTH], &numbers(5, WIDTH as usize)),
    ]);
    compare(nodes, weights, &["Attention", "RMSNormalization"], &["Softmax", "Tanh"]);
}

#[test]
fn a_gpt2_has_attention_and_gelu() {
    let (mut nodes, mut weights) = causal();
    let (more, others) = heads();
    nodes.extend(more);
    weights.extend(others);
    nodes.extend(attention("q", "k", vec![node("Where", &["sees", "scores", "lowest"], &["masked"])]));
    nodes.extend([
        node("Mul", &["joined", "half"], &["halved"]),
        node("Pow", &["joined", "three"], &["cube"]),
        node("Mul", &["cube", "cubic"], &["little"]),
        node("Add", &["joined", "little"], &["bent"]),
        node("Mul", &["bent", "factor"], &["argument"]),
        node("Tanh", &["argument"], &["tanh"]),
        node("Add", &["tanh", "unit"], &["gate"]),
        node("Mul", &["halved", "gate"], &["y"]),
    ]);
    weights.extend([
        scalar("half", 0.5),
        scalar("three", 3.0),
        scalar("cubic", 0.044_715),
        scalar("factor", (2.0 / std::f32::consts::PI).sqrt()),
        scalar("unit", 1.0),
    ]);
    compare(nodes, weights, &["Attention", "Gelu"], &["Softmax", "Tanh"]);
}

#[test]
fn a_phi_turns_a_part_of_each_head() {
    const TURNED: i64 = 4;
    let (mut nodes, mut weights) = causal();
    let (more, others) = heads();
    nodes.extend(more);
    weights.extend(others);
    nodes.extend([
        node("Cast", &["places"], &["places_f"]).int("to", FLOAT.into()),
        node("Unsqueeze", &["places_f", "column"], &["places_f_column"]),
        node("Mul", &["places_f_column", "frequencies"], &["angles"]),
        node("Cos", &["angles"], &["cos_2"]),
        node("Unsqueeze", &["cos_2", "front"], &["cos"]),
        node("Sin", &["angles"], &["sin_2"]),
        node("Unsqueeze", &["sin_2", "front"], &["sin"]),
        node("Where", &["sees", "nothing", "lowest"], &["mask"]),
    ]);
    for name in ["q", "k"] {
        let part = |suffix: &str| format!("{name}_{suffix}");
        nodes.extend([
            node("Slice", &[name, "start", "turned", "last"], &[&part("turning")]),
            node("Slice", &[name, "turned", "end", "last"], &[&part("passing")]),
            node("Slice", &[&part("turning"), "start", "middle", "last"], &[&part("low")]),
            node("Slice", &[&part("turning"), "middle", "end", "last"], &[&part("high")]),
            node("Neg", &[&part("high")], &[&part("negated")]),
            node("Concat", &[&part("negated"), &part("low")], &[&part("crossed")]).int("axis", -1),
            node("Mul", &[&part("turning"), "cos"], &[&part("by_cos")]),
            node("Mul", &[&part("crossed"), "sin"], &[&part("by_sin")]),
            node("Add", &[&part("by_cos"), &part("by_sin")], &[&part("rotated")]),
            node("Concat", &[&part("rotated"), &part("passing")], &[&part("whole")]).int("axis", -1),
        ]);
    }
    nodes.extend(attention("q_whole", "k_whole", vec![node("Add", &["scores", "mask"], &["masked"])]));
    nodes.push(node("MatMul", &["joined", "o_w"], &["y"]));
    weights.extend([
        weight("o_w", WIDTH, WIDTH, 4),
        tensor("frequencies", &[1, TURNED], &[1.0, 0.1, 1.0, 0.1]),
        ints("start", &[1], &[0]),
        ints("middle", &[1], &[TURNED / 2]),
        ints("turned", &[1], &[TURNED]),
        ints("end", &[1], &[i64::MAX]),
        ints("last", &[1], &[3]),
    ]);
    compare(nodes, weights, &["Attention", "RotaryEmbedding"], &["Softmax"]);
}
