//! Operators that exporters take transformers apart into: as one step each and as the file has them.

mod common;

use common::*;
use onnx_engine::{Decoder, ElementType, LoadOptions, Loader, Plan, Session, Step, Tensor};
use std::sync::Arc;
use tract_onnx::pb::{GraphProto, NodeProto};

fn load_with(graph: GraphProto, without_fusion: bool) -> Arc<Plan> {
    let options = LoadOptions { without_fusion, ..LoadOptions::default() };
    let mut loader = Loader::new(Box::new(files(graph)), options).unwrap();
    while loader.step(&Free, u64::MAX).unwrap() != Step::Done {}
    loader.finish().unwrap()
}

/// Outputs, and the operators that computed them.
fn run(plan: &Arc<Plan>, inputs: &[(&str, Tensor)]) -> (Vec<Tensor>, Vec<String>) {
    assert_eq!(plan.whole_reason(), None);
    assert!(plan.is_native());
    let inputs = inputs.iter().map(|(name, tensor)| (name.to_string(), tensor.clone())).collect();
    let mut session = Session::new(plan.clone(), inputs, None).unwrap();
    while session.step(&Free, 0).unwrap() != Step::Done {}
    let operators = session.profile().into_iter().map(|node| node.operator).collect();
    (session.into_outputs().unwrap().into_iter().map(|(_, tensor)| tensor).collect(), operators)
}

/// Runs a graph joined and taken apart; both must agree but for roundings, and the former must have these operators.
fn compare(graph: GraphProto, inputs: &[(&str, Tensor)], joined: &[&str]) {
    let (expected, apart) = run(&load_with(graph.clone(), true), inputs);
    let (got, operators) = run(&load_with(graph, false), inputs);
    for operator in joined {
        assert!(operators.iter().any(|found| found == operator), "{operator} is none of {operators:?}");
        assert!(!apart.iter().any(|found| found == operator), "{operator} is one of {apart:?}");
    }
    assert!(operators.len() < apart.len(), "{operators:?}");
    for (got, expected) in got.iter().zip(&expected) {
        assert_eq!(got.shape(), expected.shape());
        let (got, expected) = (got.to_f32().unwrap(), expected.to_f32().unwrap());
        let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        for (got, expected) in got.iter().zip(&expected) {
            assert!((got - expected).abs() <= 2e-6 * largest.max(1.0), "{got}, not {expected}, of {largest}");
        }
    }
}

fn graph(nodes: Vec<NodeProto>, weights: Vec<tract_onnx::pb::TensorProto>, shape: &[i64], output: &str) -> GraphProto {
    GraphProto {
        name: "pattern".into(),
        node: nodes,
        initializer: weights,
        input: vec![fixed("x", shape)],
        output: vec![value(output, FLOAT, &shape.iter().map(|size| Size::Fixed(*size)).collect::<Vec<_>>())],
        ..GraphProto::default()
    }
}

fn scalar(name: &str, number: f32) -> tract_onnx::pb::TensorProto {
    tensor(name, &[], &[number])
}

#[test]
fn normalisations_are_one_step() {
    let x = || vec![("x", f32_input(&[2, 5, 12], &numbers(1, 120)))];
    let weights = || {
        vec![
            tensor("w", &[12], &numbers(2, 12)),
            tensor("b", &[12], &numbers(3, 12)),
            scalar("two", 2.0),
            scalar("epsilon", 1e-5),
            scalar("one", 1.0),
        ]
    };
    let centred = || {
        vec![
            node("ReduceMean", &["x"], &["mean"]).ints("axes", &[-1]),
            node("Sub", &["x", "mean"], &["centred"]),
            node("Pow", &["centred", "two"], &["squares"]),
            node("ReduceMean", &["squares"], &["variance"]).ints("axes", &[-1]),
            node("Add", &["variance", "epsilon"], &["shifted"]),
            node("Sqrt", &["shifted"], &["deviation"]),
        ]
    };
    // PyTorch's exporter before opset 17, and the same by the reciprocal.
    let mut divided = centred();
    divided.extend([
        node("Div", &["centred", "deviation"], &["scaled"]),
        node("Mul", &["scaled", "w"], &["weighted"]),
        node("Add", &["weighted", "b"], &["y"]),
    ]);
    compare(graph(divided, weights(), &[2, 5, 12], "y"), &x(), &["LayerNormalization"]);
    let mut multiplied = centred();
    multiplied.extend([node("Div", &["one", "deviation"], &["inverse"]), node("Mul", &["centred", "inverse"], &["y"])]);
    compare(graph(multiplied, weights(), &[2, 5, 12], "y"), &x(), &["LayerNormalization"]);
    let rms = vec![
        node("Mul", &["x", "x"], &["squares"]),
        node("ReduceMean", &["squares"], &["mean"]).ints("axes", &[-1]),
        node("Add", &["mean", "epsilon"], &["shifted"]),
        node("Sqrt", &["shifted"], &["root"]),
        node("Div", &["one", "root"], &["inverse"]),
        node("Mul", &["x", "inverse"], &["scaled"]),
        node("Mul", &["w", "scaled"], &["y"]),
    ];
    compare(graph(rms, weights(), &[2, 5, 12], "y"), &x(), &["RMSNormalization"]);
}

#[test]
fn a_mean_over_another_axis_is_no_normalisation() {
    let nodes = vec![
        node("Mul", &["x", "x"], &["squares"]),
        node("ReduceMean", &["squares"], &["mean"]).ints("axes", &[1]),
        node("Add", &["mean", "epsilon"], &["shifted"]),
        node("Sqrt", &["shifted"], &["root"]),
        node("Div", &["x", "root"], &["y"]),
    ];
    let graph = graph(nodes, vec![scalar("epsilon", 1e-5)], &[2, 5, 12], "y");
    let (_, operators) = run(&load_with(graph, false), &[("x", f32_input(&[2, 5, 12], &numbers(1, 120)))]);
    assert!(!operators.iter().any(|operator| operator == "RMSNormalization"), "{operators:?}");
}

#[test]
fn activations_are_one_step() {
    let x: Vec<f32> = numbers(1, 600).iter().map(|x| 6.0 * x).collect();
    let x = || vec![("x", f32_input(&[600], &x))];
    let weights = || {
        vec![
            scalar("root", std::f32::consts::SQRT_2),
            scalar("one", 1.0),
            scalar("half", 0.5),
            scalar("three", 3.0),
            scalar("cubic", 0.044_715),
            scalar("factor", 0.797_884_6),
        ]
    };
    let erf = || {
        vec![
            node("Div", &["x", "root"], &["argument"]),
            node("Erf", &["argument"], &["erf"]),
            node("Add", &["erf", "one"], &["gate"]),
        ]
    };
    let orders = [
        vec![node("Mul", &["x", "gate"], &["product"]), node("Mul", &["product", "half"], &["y"])],
        vec![node("Mul", &["half", "gate"], &["product"]), node("Mul", &["x", "product"], &["y"])],
        vec![node("Mul", &["x", "half"], &["product"]), node("Mul", &["product", "gate"], &["y"])],
    ];
    for order in orders {
        compare(graph([erf(), order].concat(), weights(), &[600], "y"), &x(), &["Gelu"]);
    }
    let tanh = vec![
        node("Pow", &["x", "three"], &["cube"]),
        node("Mul", &["cube", "cubic"], &["small"]),
        node("Add", &["x", "small"], &["sum"]),
        node("Mul", &["sum", "factor"], &["argument"]),
        node("Tanh", &["argument"], &["tanh"]),
        node("Add", &["tanh", "one"], &["gate"]),
        node("Mul", &["x", "gate"], &["product"]),
        node("Mul", &["product", "half"], &["y"]),
    ];
    compare(graph(tanh, weights(), &[600], "y"), &x(), &["Gelu"]);
    let silu = vec![node("Sigmoid", &["x"], &["gate"]), node("Mul", &["x", "gate"], &["y"])];
    compare(graph(silu, weights(), &[600], "y"), &x(), &[]);
}

const VOCABULARY: i64 = 29;
const WIDTH: i64 = 24;
const HEADS: i64 = 4;
const KV_HEADS: i64 = 2;
const HEAD: i64 = 6;
const INNER: i64 = 20;

/// A Llama of two layers as Hugging Face's exporter takes it apart: RMS normalisation, rotary embedding, heads of keys
/// that share, a causal mask added, gated SiLU, the embedding's weights again for the logits.
fn llama() -> GraphProto {
    let mut nodes = vec![
        node("Shape", &["input_ids"], &["shape"]),
        node("Gather", &["shape", "i0"], &["batch"]),
        node("Gather", &["shape", "i1"], &["new"]),
        node("Shape", &["past_key_values.0.key"], &["past_shape"]),
        node("Gather", &["past_shape", "i2"], &["past"]),
        node("Add", &["past", "new"], &["total"]),
        node("Range", &["i0", "total", "i1"], &["keys"]),
        node("Unsqueeze", &["keys", "axis0"], &["keys_row"]),
        node("Range", &["past", "total", "i1"], &["queries"]),
        node("Unsqueeze", &["queries", "axis1"], &["queries_column"]),
        node("LessOrEqual", &["keys_row", "queries_column"], &["causal"]),
        node("Unsqueeze", &["causal", "axes01"], &["causal_4"]),
        node("Cast", &["attention_mask"], &["given"]).int("to", 9),
        node("Unsqueeze", &["given", "axes12"], &["given_4"]),
        node("And", &["causal_4", "given_4"], &["sees"]),
        node("Where", &["sees", "zero", "lowest"], &["mask"]),
        node("Unsqueeze", &["position_ids", "axis2"], &["places"]),
        node("Cast", &["places"], &["places_f"]).int("to", FLOAT.into()),
        node("MatMul", &["places_f", "frequencies"], &["half_angles"]),
        node("Concat", &["half_angles", "half_angles"], &["angles"]).int("axis", -1),
        node("Cos", &["angles"], &["cos_3"]),
        node("Unsqueeze", &["cos_3", "axis1"], &["cos"]),
        node("Sin", &["angles"], &["sin_3"]),
        node("Unsqueeze", &["sin_3", "axis1"], &["sin"]),
        node("Unsqueeze", &["batch", "axis0"], &["batch_1"]),
        node("Unsqueeze", &["total", "axis0"], &["total_1"]),
        node("Concat", &["batch_1", "kv_and_group", "total_1", "head_1"], &["wide"]).int("axis", 0),
        node("Concat", &["batch_1", "heads_1", "total_1", "head_1"], &["repeated"]).int("axis", 0),
        node("Gather", &["embedding", "input_ids"], &["x0"]),
    ];
    let weight = |name: String, rows: i64, columns: i64, seed: u32| {
        let values: Vec<f32> = numbers(seed, (rows * columns) as usize).iter().map(|x| x * 0.4).collect();
        tensor(&name, &[rows, columns], &values)
    };
    let mut weights = vec![
        weight("embedding".into(), VOCABULARY, WIDTH, 1),
        tensor("frequencies", &[1, HEAD / 2], &[1.0, 0.3, 0.01]),
        scalar("zero", 0.0),
        scalar("lowest", f32::MIN),
        scalar("two", 2.0),
        scalar("one", 1.0),
        scalar("epsilon", 1e-5),
        scalar("scale", 1.0 / (HEAD as f32).sqrt()),
        ints("i0", &[], &[0]),
        ints("i1", &[], &[1]),
        ints("i2", &[], &[2]),
        ints("axis0", &[1], &[0]),
        ints("axis1", &[1], &[1]),
        ints("axis2", &[1], &[2]),
        ints("axes01", &[2], &[0, 1]),
        ints("axes12", &[2], &[1, 2]),
        ints("split", &[4], &[0, 0, -1, HEAD]),
        ints("join", &[3], &[0, 0, HEADS * HEAD]),
        ints("kv_and_group", &[2], &[KV_HEADS, HEADS / KV_HEADS]),
        ints("heads_1", &[1], &[HEADS]),
        ints("head_1", &[1], &[HEAD]),
        ints("start", &[1], &[0]),
        ints("middle", &[1], &[HEAD / 2]),
        ints("end", &[1], &[i64::MAX]),
        ints("last", &[1], &[3]),
    ];
    fn norm(nodes: &mut Vec<NodeProto>, x: &str, weight: &str, y: &str) {
        let at = |name: &str| format!("{y}.{name}");
        nodes.extend([
            node("Pow", &[x, "two"], &[&at("squares")]),
            node("ReduceMean", &[&at("squares")], &[&at("mean")]).ints("axes", &[-1]),
            node("Add", &[&at("mean"), "epsilon"], &[&at("shifted")]),
            node("Sqrt", &[&at("shifted")], &[&at("root")]),
            node("Div", &["one", &at("root")], &[&at("inverse")]),
            node("Mul", &[x, &at("inverse")], &[&at("scaled")]),
            node("Mul", &[weight, &at("scaled")], &[y]),
        ]);
    }
    let mut x = "x0".to_string();
    for layer in 0..2u32 {
        let at = |name: &str| format!("l{layer}.{name}");
        let seed = 10 * layer + 5;
        for (index, (name, rows, columns)) in [
            ("q", WIDTH, HEADS * HEAD),
            ("k", WIDTH, KV_HEADS * HEAD),
            ("v", WIDTH, KV_HEADS * HEAD),
            ("o", HEADS * HEAD, WIDTH),
            ("gate", WIDTH, INNER),
            ("up", WIDTH, INNER),
            ("down", INNER, WIDTH),
        ]
        .into_iter()
        .enumerate()
        {
            weights.push(weight(at(&format!("{name}_w")), rows, columns, seed + index as u32));
        }
        weights.push(tensor(&at("norm1_w"), &[WIDTH], &numbers(seed + 7, WIDTH as usize)));
        weights.push(tensor(&at("norm2_w"), &[WIDTH], &numbers(seed + 8, WIDTH as usize)));
        norm(&mut nodes, &x, &at("norm1_w"), &at("normed1"));
        for name in ["q", "k", "v"] {
            nodes.extend([
                node("MatMul", &[&at("normed1"), &at(&format!("{name}_w"))], &[&at(&format!("{name}_flat"))]),
                node("Reshape", &[&at(&format!("{name}_flat")), "split"], &[&at(&format!("{name}_split"))]),
                node("Transpose", &[&at(&format!("{name}_split"))], &[&at(name)]).ints("perm", &[0, 2, 1, 3]),
            ]);
        }
        for name in ["q", "k"] {
            let part = |suffix: &str| at(&format!("{name}_{suffix}"));
            nodes.extend([
                node("Slice", &[&at(name), "start", "middle", "last"], &[&part("low")]),
                node("Slice", &[&at(name), "middle", "end", "last"], &[&part("high")]),
                node("Neg", &[&part("high")], &[&part("negated")]),
                node("Concat", &[&part("negated"), &part("low")], &[&part("turned")]).int("axis", -1),
                node("Mul", &[&at(name), "cos"], &[&part("by_cos")]),
                node("Mul", &[&part("turned"), "sin"], &[&part("by_sin")]),
                node("Add", &[&part("by_cos"), &part("by_sin")], &[&part("rotated")]),
            ]);
        }
        for (name, new, kind) in [("keys", "k_rotated", "key"), ("values", "v", "value")] {
            let (past, present) = (format!("past_key_values.{layer}.{kind}"), format!("present.{layer}.{kind}"));
            let part = |suffix: &str| at(&format!("{name}_{suffix}"));
            nodes.extend([
                node("Concat", &[&past, &at(new)], &[&present]).int("axis", 2),
                node("Unsqueeze", &[&present, "axis2"], &[&part("5")]),
                node("Expand", &[&part("5"), "wide"], &[&part("wide")]),
                node("Reshape", &[&part("wide"), "repeated"], &[&at(name)]),
            ]);
        }
        nodes.extend([
            node("Transpose", &[&at("keys")], &[&at("keys_turned")]).ints("perm", &[0, 1, 3, 2]),
            node("MatMul", &[&at("q_rotated"), &at("keys_turned")], &[&at("products")]),
            node("Mul", &[&at("products"), "scale"], &[&at("scores")]),
            node("Add", &[&at("scores"), "mask"], &[&at("masked")]),
            node("Softmax", &[&at("masked")], &[&at("weights")]).int("axis", -1),
            node("MatMul", &[&at("weights"), &at("values")], &[&at("mixed")]),
            node("Transpose", &[&at("mixed")], &[&at("mixed_rows")]).ints("perm", &[0, 2, 1, 3]),
            node("Reshape", &[&at("mixed_rows"), "join"], &[&at("joined")]),
            node("MatMul", &[&at("joined"), &at("o_w")], &[&at("projected")]),
            node("Add", &[&x, &at("projected")], &[&at("between")]),
        ]);
        norm(&mut nodes, &at("between"), &at("norm2_w"), &at("normed2"));
        nodes.extend([
            node("MatMul", &[&at("normed2"), &at("gate_w")], &[&at("gate")]),
            node("MatMul", &[&at("normed2"), &at("up_w")], &[&at("up")]),
            node("Sigmoid", &[&at("gate")], &[&at("sigmoid")]),
            node("Mul", &[&at("gate"), &at("sigmoid")], &[&at("silu")]),
            node("Mul", &[&at("silu"), &at("up")], &[&at("gated")]),
            node("MatMul", &[&at("gated"), &at("down_w")], &[&at("down")]),
            node("Add", &[&at("between"), &at("down")], &[&at("out")]),
        ]);
        x = at("out");
    }
    nodes.extend([
        node("Transpose", &["embedding"], &["head"]).ints("perm", &[1, 0]),
        node("MatMul", &[&x, "head"], &["logits"]),
    ]);
    let cache = |name: String, size: &'static str| {
        value(&name, FLOAT, &[Size::Named("batch"), Size::Fixed(KV_HEADS), Size::Named(size), Size::Fixed(HEAD)])
    };
    let kinds = || (0..2).flat_map(|layer| ["key", "value"].map(|kind| format!("{layer}.{kind}")));
    let tokens = |name: &str, size: &'static str| value(name, INT64, &[Size::Named("batch"), Size::Named(size)]);
    let mut input =
        vec![tokens("input_ids", "sequence"), tokens("attention_mask", "total"), tokens("position_ids", "sequence")];
    input.extend(kinds().map(|kind| cache(format!("past_key_values.{kind}"), "past")));
    let mut output =
        vec![value("logits", FLOAT, &[Size::Named("batch"), Size::Named("sequence"), Size::Fixed(VOCABULARY)])];
    output.extend(kinds().map(|kind| cache(format!("present.{kind}"), "total")));
    GraphProto { name: "llama".into(), node: nodes, initializer: weights, input, output, ..GraphProto::default() }
}

fn integers(shape: &[u64], values: impl Iterator<Item = i64>) -> Tensor {
    Tensor::from_bytes(ElementType::Int64, shape, &values.flat_map(i64::to_le_bytes).collect::<Vec<u8>>()).unwrap()
}

fn llama_inputs(batch: u64, past: u64, new: u64) -> Vec<(&'static str, Tensor)> {
    let tokens = (0..batch * new).map(|at| ((at * at + 3 * at + 1) % VOCABULARY as u64) as i64);
    // In the second batch the first token is hidden.
    let mask = (0..batch * (past + new)).map(|at| i64::from(at != past + new));
    let places = (0..batch).flat_map(|_| past as i64..(past + new) as i64);
    let mut inputs = vec![
        ("input_ids", integers(&[batch, new], tokens)),
        ("attention_mask", integers(&[batch, past + new], mask)),
        ("position_ids", integers(&[batch, new], places)),
    ];
    let names =
        ["past_key_values.0.key", "past_key_values.0.value", "past_key_values.1.key", "past_key_values.1.value"];
    for (seed, name) in (40..).zip(names) {
        let shape = [batch, KV_HEADS as u64, past, HEAD as u64];
        inputs.push((name, f32_input(&shape, &numbers(seed, shape.iter().product::<u64>() as usize))));
    }
    inputs
}

#[test]
fn a_llama_is_the_same_joined_and_taken_apart() {
    for (batch, past, new) in [(1, 0, 1), (1, 5, 1), (1, 3, 70), (2, 4, 3), (3, 0, 2)] {
        let joined = ["RMSNormalization", "RotaryEmbedding", "Attention"];
        compare(llama(), &llama_inputs(batch, past, new), &joined);
    }
}

#[test]
fn keys_and_values_that_grow_in_place_give_the_bits_of_those_that_are_copied() {
    let plan = load_with(llama(), false);
    let text: Vec<u32> = (0..150).map(|at| (at * at + 7 * at + 2) % VOCABULARY as u32).collect();
    // Whole sequences, by a session that is given no past.
    let shape = |length: usize| [1, length as u64];
    let logits = |length: usize| {
        let mut inputs = llama_inputs(1, 0, 1);
        inputs[0].1 = integers(&shape(length), text[..length].iter().map(|token| i64::from(*token)));
        inputs[1].1 = integers(&shape(length), text[..length].iter().map(|_| 1));
        inputs[2].1 = integers(&shape(length), 0..length as i64);
        let (outputs, _) = run(&plan, &inputs);
        let logits = outputs[0].to_f32().unwrap();
        logits[logits.len() - VOCABULARY as usize..].iter().map(|x| x.to_bits()).collect::<Vec<_>>()
    };
    for cuts in [vec![150], vec![1; 150], vec![64, 1, 1, 63, 21], vec![7, 100, 43]] {
        let mut decoder = Decoder::new(plan.clone()).unwrap();
        assert!(decoder.is_in_place());
        for count in cuts {
            let length = decoder.len() + count;
            decoder.feed(&text[decoder.len()..length]).unwrap();
            while decoder.step(&CountingMeter::new(1), 0).unwrap() != Step::Done {}
            let got: Vec<u32> = decoder.logits().iter().map(|x| x.to_bits()).collect();
            if count > 1 || length.is_multiple_of(37) {
                assert_eq!(got, logits(length), "after {length}");
            }
        }
        // Going back and on is as if nothing else had been there.
        decoder.truncate(70).unwrap();
        decoder.feed(&[9, 9, 9]).unwrap();
        while decoder.step(&Free, u64::MAX).unwrap() != Step::Done {}
        decoder.truncate(70).unwrap();
        decoder.feed(&text[70..75]).unwrap();
        while decoder.step(&Free, u64::MAX).unwrap() != Step::Done {}
        let got: Vec<u32> = decoder.logits().iter().map(|x| x.to_bits()).collect();
        assert_eq!(got, logits(75));
        assert_eq!(decoder.cache_bytes(), 75 * decoder.spec().cache_bytes_per_token);
        assert!(decoder.cache_capacity_bytes() <= 320 * decoder.spec().cache_bytes_per_token);
    }
}

#[test]
fn a_mask_of_another_length_is_refused() {
    let plan = load_with(llama(), false);
    let mut inputs = llama_inputs(1, 2, 2);
    inputs[1].1 = integers(&[1, 3], [1, 1, 1].into_iter());
    let inputs = inputs.into_iter().map(|(name, tensor)| (name.to_string(), tensor)).collect();
    let error = Session::new(plan, inputs, None).and_then(|mut session| session.step(&Free, u64::MAX).map(|_| ()));
    assert!(error.is_err());
}

#[test]
fn sizes_that_no_tensor_has_are_refused() {
    for (operator, sizes) in [("Reshape", [0, 1 << 40]), ("Reshape", [1 << 40, -1]), ("Expand", [1 << 40, 0])] {
        let graph = GraphProto {
            name: "sizes".into(),
            node: vec![node(operator, &["x", "sizes"], &["y"])],
            initializer: vec![ints("sizes", &[2], &sizes)],
            input: vec![fixed("x", &[1, 2])],
            output: vec![fixed("y", &[1, 2])],
            ..GraphProto::default()
        };
        let error = load(files(graph)).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("1099511627776"), "{operator}: {error}");
    }
}

#[test]
fn integers_and_bools_are_computed_by_steps_of_our_own() {
    let nodes = vec![
        node("Cast", &["x"], &["i"]).int("to", INT64.into()),
        node("CumSum", &["i", "axis"], &["sums"]),
        node("ReduceSum", &["i", "axes"], &["total"]),
        node("Less", &["sums", "total"], &["below"]),
        node("Not", &["below"], &["above"]),
        node("Where", &["above", "sums", "i"], &["chosen"]),
        node("Mod", &["chosen", "three"], &["rest"]),
        node("ArgMax", &["x"], &["place"]).int("axis", -1),
        node("Add", &["rest", "place"], &["sum"]),
        node("Cast", &["sum"], &["y"]).int("to", FLOAT.into()),
    ];
    let weights = vec![ints("axis", &[], &[1]), ints("axes", &[1], &[1]), ints("three", &[], &[3])];
    let x = [3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0, 6.0];
    let (outputs, _) = run(&load_with(graph(nodes, weights, &[2, 4], "y"), false), &[("x", f32_input(&[2, 4], &x))]);
    // sums 3 2 6 7 | -5 4 6 12, totals 7 and 12, largest at 2 and 1; the rest of a negative number is not negative.
    let expected = [0.0 + 2.0, 2.0 + 2.0, 1.0 + 2.0, 1.0 + 2.0, 1.0 + 1.0, 0.0 + 1.0, 2.0 + 1.0, 0.0 + 1.0];
    assert_eq!(outputs[0].to_f32().unwrap(), expected);
}
