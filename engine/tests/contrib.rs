//! Operators that transformers are exported with, of com.microsoft and of the standard, compared with what onnxruntime
//! makes of them: `contrib/make.py` tells the cases and their form.

mod common;

use common::*;
use onnx_engine::{Decoder, ElementType, EngineError, Plan, Session, Step, Tensor};
use prost::Message;
use std::sync::Arc;
use tract_onnx::pb::{AttributeProto, ModelProto, attribute_proto::AttributeType};

struct Case {
    name: String,
    model: Vec<u8>,
    tolerance: f32,
    inputs: Vec<(String, Tensor)>,
    outputs: Vec<(String, Tensor)>,
}

/// What is left to read.
struct Bytes(&'static [u8]);

impl Bytes {
    fn take(&mut self, count: usize) -> &'static [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn number(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn text(&mut self) -> Vec<u8> {
        let length = self.number() as usize;
        self.take(length).to_vec()
    }

    fn list<T>(&mut self, item: impl Fn(&mut Bytes) -> T) -> Vec<T> {
        (0..self.number()).map(|_| item(self)).collect()
    }

    fn tensor(&mut self) -> (String, Tensor) {
        let name = String::from_utf8(self.text()).unwrap();
        let &[kind, rank] = self.take(2) else { unreachable!() };
        let element_type = match kind {
            1 => ElementType::Float32,
            6 => ElementType::Int32,
            7 => ElementType::Int64,
            9 => ElementType::Bool,
            _ => panic!("elements of type {kind}"),
        };
        let shape: Vec<u64> = (0..rank).map(|_| u64::from(self.number())).collect();
        let bytes = shape.iter().product::<u64>() * element_type.size_bytes();
        let tensor = Tensor::from_bytes(element_type, &shape, self.take(bytes as usize)).unwrap();
        (name, tensor)
    }

    fn case(&mut self) -> Case {
        Case {
            name: String::from_utf8(self.text()).unwrap(),
            model: self.text(),
            tolerance: f32::from_bits(self.number()),
            inputs: self.list(Bytes::tensor),
            outputs: self.list(Bytes::tensor),
        }
    }
}

fn cases() -> Vec<Case> {
    Bytes(include_bytes!("contrib/cases.bin")).list(Bytes::case)
}

fn case(name: &str) -> Case {
    cases().into_iter().find(|case| case.name == name).unwrap()
}

fn load_model(onnx: Vec<u8>) -> Result<Arc<Plan>, EngineError> {
    load(Files { onnx, ..Files::default() })
}

fn run(plan: &Arc<Plan>, inputs: Vec<(String, Tensor)>) -> Result<Vec<(String, Tensor)>, EngineError> {
    let mut session = Session::new(plan.clone(), inputs, None)?;
    while session.step(&Free, 0)? != Step::Done {}
    session.into_outputs()
}

/// The largest difference, of the largest number that is expected.
fn difference(got: &Tensor, expected: &Tensor) -> f32 {
    assert_eq!(got.shape(), expected.shape());
    let (got, expected) = (got.to_f32().unwrap(), expected.to_f32().unwrap());
    let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    let differences = got.iter().zip(&expected).map(|(got, expected)| (got - expected).abs());
    // A NaN is no maximum.
    assert!(got.iter().all(|x| x.is_finite()));
    differences.fold(0f32, f32::max) / largest
}

/// 4-bit weights whose zero points are no whole numbers are brought to int8 when they are widened, each block with a scale of
/// its own: each weight is off by up to 1/254 of its block's largest.
const RECENTRED: (&str, f32) = ("product float zero points", 1e-2);

#[test]
fn operators_agree_with_onnxruntime() {
    let mut failed = Vec::new();
    let mut compared = 0;
    for case in cases().into_iter().filter(|case| case.name != "decoder") {
        let Case { name, model, tolerance, inputs, outputs } = case;
        let tolerance = if name == RECENTRED.0 { RECENTRED.1 } else { tolerance };
        let plan = match load_model(model) {
            Ok(plan) => plan,
            Err(error) => {
                failed.push(format!("{name}: {error}"));
                continue;
            }
        };
        if !plan.is_native() || plan.whole_reason().is_some() {
            failed.push(format!("{name}: not by steps: {:?}", plan.whole_reason()));
            continue;
        }
        match run(&plan, inputs) {
            Err(error) => failed.push(format!("{name}: {error}")),
            Ok(got) => {
                for ((output, got), (_, expected)) in got.iter().zip(&outputs) {
                    let difference = difference(got, expected);
                    compared += 1;
                    if difference > tolerance {
                        failed.push(format!("{name}: {output} differs by {difference}"));
                    }
                }
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(compared >= 100, "{compared} outputs were compared");
}

fn prompt_and_tokens(case: &Case) -> (Vec<u32>, Vec<u32>) {
    let numbers = |tensor: &Tensor| -> Vec<u32> {
        let numbers = tensor.bytes().as_chunks().0.iter();
        numbers.map(|bytes| i64::from_le_bytes(*bytes) as u32).collect()
    };
    (numbers(&case.inputs[0].1), numbers(&case.outputs[0].1))
}

fn read(decoder: &mut Decoder, tokens: &[u32]) -> Vec<f32> {
    decoder.feed(tokens).unwrap();
    while decoder.step(&Free, 0).unwrap() != Step::Done {}
    decoder.logits().to_vec()
}

#[test]
fn a_fused_decoder_grows_in_place_and_says_what_onnxruntime_says() {
    let case = case("decoder");
    let (prompt, expected) = prompt_and_tokens(&case);
    let plan = load_model(case.model).unwrap();
    assert_eq!(plan.whole_reason(), None);
    let mut decoder = Decoder::new(plan.clone()).unwrap();
    assert!(decoder.is_in_place());
    let best = |logits: &[f32]| (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap() as u32;
    let mut logits = read(&mut decoder, &prompt);
    let mut tokens = vec![best(&logits)];
    while tokens.len() < expected.len() {
        logits = read(&mut decoder, &tokens[tokens.len() - 1..]);
        tokens.push(best(&logits));
    }
    assert_eq!(tokens, expected);
    let got = f32_input(&[logits.len() as u64], &logits);
    let difference = difference(&got, &case.outputs[1].1);
    assert!(difference <= case.tolerance, "{difference}");
    // However the text is cut, the bits are the same.
    let text = [&*prompt, &tokens[..tokens.len() - 1]].concat();
    for cut in 1..text.len() {
        let mut decoder = Decoder::new(plan.clone()).unwrap();
        read(&mut decoder, &text[..cut]);
        assert_eq!(read(&mut decoder, &text[cut..]), logits, "cut at {cut}");
    }
}

/// A case's model with its first node of `operator` changed.
fn changed(name: &str, change: impl Fn(&mut tract_onnx::pb::NodeProto)) -> Vec<u8> {
    let mut model = ModelProto::decode(&*case(name).model).unwrap();
    change(&mut model.graph.as_mut().unwrap().node[0]);
    model.encode_to_vec()
}

#[test]
fn what_is_not_supported_is_refused_by_node_operator_and_attribute() {
    let set = |name: &'static str, i: i64| {
        move |node: &mut tract_onnx::pb::NodeProto| {
            node.attribute.retain(|attribute| attribute.name != name);
            let r#type = AttributeType::Int as i32;
            node.attribute.push(AttributeProto { name: name.into(), r#type, i, ..AttributeProto::default() });
        }
    };
    let refused = |model: Vec<u8>, wanted: &[&str]| {
        let error = load_model(model).unwrap_err().to_string();
        for wanted in wanted {
            assert!(error.contains(wanted), "{error} does not tell {wanted:?}");
        }
    };
    let group = ["a GroupQueryAttention", "com.microsoft.GroupQueryAttention", "attribute smooth_softmax is 1"];
    refused(changed("group query prompt", set("smooth_softmax", 1)), &group);
    refused(changed("group query prompt", set("invented", 1)), &["attribute invented is not known"]);
    let sink = changed("group query bias", |node| node.input.push("bias".into()));
    refused(sink, &["a GroupQueryAttention", "input head_sink is not supported"]);
    let mean = changed("skip layer", |node| node.output.push("mean".into()));
    refused(mean, &["a SkipLayerNormalization", "output mean is not supported"]);
    refused(changed("rotary", set("is_packed_batching", 1)), &["attribute is_packed_batching is 1"]);
    refused(changed("gather 4", set("bits", 3)), &["a GatherBlockQuantized", "attribute bits is 3"]);
    refused(
        changed("rms", |node| node.input.truncate(1)),
        &["a SimplifiedLayerNormalization", "input scale is missing"],
    );
    let fused = changed("attention plain", |node| node.domain = "com.microsoft".into());
    refused(fused, &["com.microsoft.Attention", "the operator is not supported"]);
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let set = |name: &'static str, i: i64| {
        move |node: &mut tract_onnx::pb::NodeProto| {
            let found = node.attribute.iter_mut().find(|attribute| attribute.name == name);
            found.unwrap().i = i;
        }
    };
    for (name, change, value) in [
        ("group query prompt", "num_heads", 3),
        ("group query prompt", "num_heads", -1),
        ("group query prompt", "kv_num_heads", 0),
        ("group query packed", "num_heads", 1 << 40),
        ("multi head plain", "num_heads", 7),
        ("multi head packed", "num_heads", 0),
        ("rotary partial", "num_heads", 5),
        ("rotary partial", "rotary_embedding_dim", 4),
        ("gather 4", "block_size", 24),
        ("gather 4", "block_size", 0),
    ] {
        let result = load_model(changed(name, set(change, value)));
        let error = result.expect_err(&format!("{name}, {change} {value}")).to_string();
        assert!(error.contains("a "), "{error}");
    }
}

#[test]
fn requests_that_do_not_fit_are_errors() {
    let run = |name: &str, input: &str, tensor: Tensor| {
        let Case { model, mut inputs, .. } = case(name);
        inputs.iter_mut().find(|(known, _)| known == input).unwrap().1 = tensor;
        run(&load_model(model).unwrap(), inputs).unwrap_err().to_string()
    };
    let int32 = |value: i32| Tensor::from_bytes(ElementType::Int32, &[1], &value.to_le_bytes()).unwrap();
    let error = run("group query more tokens", "seqlens_k", int32(3));
    assert!(error.contains("GroupQueryAttention") && error.contains("seqlens_k is 3, for 7 keys"), "{error}");
    // The caches of sines and cosines have 16 rows.
    let long = f32_input(&[1, 2, 14, 16], &[0.5; 2 * 14 * 16]);
    let case = case("group query more tokens");
    let inputs = case.inputs.into_iter().map(|(name, tensor)| match name.as_str() {
        "past_key" | "past_value" => (name, long.clone()),
        "seqlens_k" => (name, int32(16)),
        _ => (name, tensor),
    });
    let error = self::run(&load_model(case.model).unwrap(), inputs.collect()).unwrap_err().to_string();
    assert!(error.contains("its tables are [16, 8]") && error.contains("for 17 positions"), "{error}");
    let bias = f32_input(&[1, 4, 3, 6], &[0.0; 72]);
    let error = run("group query bias", "bias", bias);
    assert!(error.contains("GroupQueryAttention"), "{error}");
    let indices: Vec<u8> = [0i64, 1, 7, 2, 3, 4].iter().flat_map(|index| index.to_le_bytes()).collect();
    let error = run("gather 4", "i", Tensor::from_bytes(ElementType::Int64, &[2, 3], &indices).unwrap());
    assert!(error.contains("GatherBlockQuantized") && error.contains('7'), "{error}");
}
