//! Hostile models: files that are cut, lie, nest or claim. Each is refused with a sentence that names the place, and
//! nothing else is touched.

use crate::engine_error;
use crate::runtime::fake;
use crate::store::models;
use crate::testing::{self, chain_request, commit, infer, life, make_chain, manifest, model, onnx, upload_all};
use onnx_canister_interface::{Error, ModelState};
use onnx_engine::{ByteSource, LoadOptions, Loader, Meter, ModelFiles, Step};
use std::collections::BTreeMap;

#[derive(Clone, Default)]
struct Files {
    onnx: Vec<u8>,
    external: BTreeMap<String, Vec<u8>>,
}

impl ModelFiles for Files {
    fn onnx(&self) -> &dyn ByteSource {
        &self.onnx
    }

    fn external(&self, location: &str) -> Option<&dyn ByteSource> {
        self.external.get(location).map(|file| file as &dyn ByteSource)
    }
}

struct Free;

impl Meter for Free {
    fn spent(&self) -> u64 {
        0
    }
}

fn load(files: Files) -> Result<(), Error> {
    let mut loader = Loader::new(Box::new(files), LoadOptions::default()).map_err(engine_error::of_model)?;
    while loader.step(&Free, u64::MAX).map_err(engine_error::of_model)? != Step::Done {}
    loader.finish().map(|_| ()).map_err(engine_error::of_model)
}

/// Why a file can't be loaded, as the version's state tells it.
fn refused(onnx: Vec<u8>) -> String {
    refused_with(onnx, &[])
}

fn refused_with(onnx: Vec<u8>, external: &[(&str, Vec<u8>)]) -> String {
    let external = external.iter().map(|(name, bytes)| (name.to_string(), bytes.clone())).collect();
    load(Files { onnx, external }).expect_err("it is hostile").to_string()
}

/// A graph `y = x + w` whose weight is what the test makes it.
fn with_weight(weight: Vec<u8>) -> Vec<u8> {
    onnx::model(
        &[onnx::node("Add", &["x", "w"], "y")],
        &[weight],
        &[onnx::value("x", &[1, 4])],
        &[onnx::value("y", &[1, 4])],
    )
}

/// A weight in external data at bytes of `data.bin`.
fn external(name: &str, shape: &[u64], offset: &str, length: &str) -> Vec<u8> {
    let entry = |key: &str, value: &str| {
        onnx::field(13, &[onnx::field(1, key.as_bytes()), onnx::field(2, value.as_bytes())].concat())
    };
    let dims: Vec<u8> = shape.iter().flat_map(|dimension| onnx::number(1, *dimension)).collect();
    let entries = [entry("location", "data.bin"), entry("offset", offset), entry("length", length)].concat();
    [dims, onnx::number(2, 1), onnx::field(8, name.as_bytes()), entries, onnx::number(14, 1)].concat()
}

#[test]
fn a_file_cut_at_any_byte_is_refused() {
    let (inside, _) = onnx::classifier(None);
    let (outside, weights) = onnx::classifier(Some("data.bin"));
    for (onnx, external) in [(onnx::chain(3), vec![]), (inside, vec![]), (outside, vec![("data.bin", weights)])] {
        for length in 0..onnx.len() {
            let reason = refused_with(onnx[..length].to_vec(), &external);
            assert!(reason.starts_with("invalid model, ONNX file"), "{length} of {} bytes: {reason}", onnx.len());
        }
    }
    let cut = onnx::chain(2);
    assert_eq!(refused(vec![]), "invalid model, ONNX file: it is empty");
    assert_eq!(
        refused(cut[..cut.len() / 2].to_vec()),
        "invalid model, ONNX file at byte 2: field 7 needs 89 bytes, 44 are left"
    );
}

#[test]
fn a_file_with_any_byte_changed_loads_or_is_refused() {
    let (inside, _) = onnx::classifier(None);
    for onnx in [onnx::chain(2), inside] {
        for at in 0..onnx.len() {
            for byte in [0, 0x7f, 0x80, 0xff, onnx[at] ^ 1, onnx[at].wrapping_add(1), onnx[at].wrapping_sub(1)] {
                let mut changed = onnx.clone();
                changed[at] = byte;
                if let Err(error) = load(Files { onnx: changed, ..Files::default() }) {
                    assert!(matches!(error, Error::ModelInvalid { .. }), "byte {at} is {byte}: {error:?}");
                }
            }
        }
    }
}

#[test]
fn lengths_that_lie_are_refused() {
    // A weight of 16 bytes that says it has more, or less, in its data or its shape.
    let weight = onnx::tensor("w", &[1, 4], &[1.0; 4], None);
    assert!(load(Files { onnx: with_weight(weight.clone()), ..Files::default() }).is_ok());
    let longer = [&weight[..weight.len() - 17], &[17], &weight[weight.len() - 16..]].concat();
    assert!(refused(with_weight(longer)).ends_with("field 9 needs 17 bytes, 16 are left"));
    assert_eq!(
        refused(with_weight(onnx::tensor("w", &[1, 5], &[1.0; 4], None))),
        "invalid model, tensor \"w\": it has 16 bytes, its shape needs 20"
    );
    assert_eq!(
        refused(with_weight(onnx::tensor("w", &[4, 1 << 20], &[1.0; 4], None))),
        "invalid model, tensor \"w\": it has 16 bytes, its shape needs 16777216"
    );
    assert_eq!(
        refused(with_weight(onnx::tensor("w", &[1 << 32, 1 << 32], &[1.0; 4], None))),
        "invalid model, tensor \"w\": the number of elements of [4294967296, 4294967296] overflows"
    );
    assert_eq!(
        refused(with_weight(onnx::tensor("w", &[u64::MAX], &[1.0; 4], None))),
        "invalid model, tensor \"w\": dimension -1 is negative"
    );
    assert!(refused(with_weight(onnx::tensor("w", &[1; 17], &[1.0], None))).contains("axes is 17, the limit is 16"));
}

#[test]
fn nesting_is_bounded() {
    // Graphs in the attributes of nodes of graphs, a hundred deep.
    let mut node = onnx::node("Relu", &["x"], "y");
    for _ in 0..100 {
        let graph = onnx::field(1, &node);
        let attribute = [onnx::field(1, b"then_branch"), onnx::field(6, &graph), onnx::number(20, 5)].concat();
        node = [onnx::node("If", &["x"], "y"), onnx::field(5, &attribute)].concat();
    }
    let file = onnx::model(&[node], &[], &[onnx::value("x", &[1])], &[onnx::value("y", &[1])]);
    let reason = refused(file);
    assert!(reason.contains("nesting of messages is 49, the limit is 48"), "{reason}");
}

#[test]
fn external_data_outside_its_file_or_claimed_too_often_is_refused() {
    let data = vec![("data.bin", vec![0; 64])];
    let two = |first: Vec<u8>, second: Vec<u8>| {
        onnx::model(
            &[onnx::node("Add", &["x", "v"], "z"), onnx::node("Add", &["z", "w"], "y")],
            &[first, second],
            &[onnx::value("x", &[1, 4])],
            &[onnx::value("y", &[1, 4])],
        )
    };
    let at = |name: &str, offset: &str| external(name, &[1, 4], offset, "16");
    let loads = |onnx: Vec<u8>| load(Files { onnx, external: BTreeMap::from([("data.bin".into(), vec![0; 64])]) });
    assert_eq!(loads(two(at("v", "0"), at("w", "16"))), Ok(()));
    assert_eq!(loads(two(at("v", "16"), at("w", "16"))), Ok(()), "two names of one weight");
    assert_eq!(
        refused_with(two(at("v", "0"), at("w", "8")), &data),
        "invalid model, tensor \"w\": bytes 8 to 24 of \"data.bin\" overlap those of tensor \"v\", 0 to 16"
    );
    assert_eq!(
        refused_with(with_weight(at("w", "49")), &data),
        "invalid model, tensor \"w\": bytes 49 to 49+16 of \"data.bin\", which has 64 bytes"
    );
    assert_eq!(
        refused_with(with_weight(at("w", "18446744073709551615")), &data),
        "invalid model, tensor \"w\": bytes 18446744073709551615 to 18446744073709551615+16 of \"data.bin\", which has \
         64 bytes"
    );
    assert_eq!(
        refused_with(with_weight(external("w", &[1, 4], "0", "-16")), &data),
        "invalid model, tensor \"w\": external_data length \"-16\" is not a number"
    );
    assert_eq!(
        refused(with_weight(at("w", "0"))),
        "invalid model, tensor \"w\": external-data file \"data.bin\" is missing"
    );
    // A kilobyte of file that says it holds the same 64 bytes of data a hundred times.
    let weights: Vec<Vec<u8>> = (0..100).map(|n| external(&format!("w{n}"), &[1, 16], "0", "64")).collect();
    let many = onnx::model(
        &[onnx::node("Add", &["x", "w0"], "y")],
        &weights,
        &[onnx::value("x", &[1, 16])],
        &[onnx::value("y", &[1, 16])],
    );
    assert_eq!(
        refused_with(many, &data),
        "invalid model, the model: tensor \"w4\": bytes of \"data.bin\" that weights claim is 320, the limit is 256"
    );
}

#[test]
fn a_tiny_file_that_claims_huge_tensors_is_refused() {
    let huge_input = |shape: &[u64]| {
        onnx::model(&[onnx::node("Relu", &["x"], "y")], &[], &[onnx::value("x", shape)], &[onnx::value("y", shape)])
    };
    let reason = refused(huge_input(&[1 << 40, 4]));
    assert!(reason.contains("input \"x\"") && reason.contains("the limit is"), "{reason}");
    let reason = refused(huge_input(&[1 << 40, 1 << 40]));
    assert!(reason.contains("input \"x\""), "{reason}");
    // A constant of a shape that is a weight, and one that is spread.
    let shape = onnx::ints("s", &[2], &[1 << 20, 1 << 20]);
    for (operator, inputs) in [("ConstantOfShape", vec!["s"]), ("Expand", vec!["x", "s"])] {
        let file = onnx::model(
            &[onnx::node(operator, &inputs, "y")],
            std::slice::from_ref(&shape),
            &[onnx::value("x", &[1])],
            &[onnx::value("y", &[1 << 20, 1 << 20])],
        );
        let reason = refused(file);
        assert!(
            reason.contains(&format!("node \"y\" ({operator})")) && reason.contains("1048576, 1048576"),
            "{operator}: {reason}"
        );
    }
}

#[test]
fn an_operator_that_is_not_supported_is_named_with_its_node() {
    let file = |node: Vec<u8>| onnx::model(&[node], &[], &[onnx::value("x", &[1])], &[onnx::value("y", &[1])]);
    let reason = refused(file(onnx::node("FlyToTheMoon", &["x"], "y")));
    assert_eq!(reason, "invalid model, node #0 y (FlyToTheMoon): the operator is not supported");
    let other_domain = [onnx::node("Relu", &["x"], "y"), onnx::field(7, b"com.example")].concat();
    assert_eq!(
        refused(file(other_domain)),
        "invalid model, node #0 y (com.example.Relu): the operator is not supported"
    );
}

#[test]
fn weights_that_are_no_numbers_give_what_ieee_754_says() {
    life(|| {
        let weight = onnx::tensor("w", &[1, 4], &[f32::NAN, f32::INFINITY, -f32::INFINITY, -0.0], None);
        let file = with_weight(weight);
        testing::make_ready(&manifest("m", &[("a", &file)], 100), &[("a", &file)]);
        let mut request = chain_request("m");
        let tensor = testing::f32_tensor(&[1, 4], &[1.0, 1.0, f32::INFINITY, 0.0]);
        request.inputs[0].source = onnx_canister_interface::InputSource::Tensor(tensor);
        let data = infer(request).expect("it is ready").outputs[0].data.clone();
        let values: Vec<f32> =
            data.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect();
        assert!(values[0].is_nan() && values[2].is_nan(), "{values:?}");
        assert_eq!((values[1], values[3].to_bits()), (f32::INFINITY, 0.0_f32.to_bits()));
    });
}

#[test]
fn scores_that_are_no_numbers_come_last() {
    life(|| {
        let (file, _) = onnx::classifier(None);
        let mut classifier = manifest("c", &[("a", &file)], 100);
        classifier.task = onnx_canister_interface::Task::Classify { softmax: false };
        testing::make_ready(&classifier, &[("a", &file)]);
        let mut pixels = [1.0; 12];
        pixels[0] = f32::NAN;
        let request = onnx_canister_interface::ClassifyRequest {
            model: model("c", None),
            input: onnx_canister_interface::ClassifyInput::Tensor(testing::f32_tensor(&[1, 3, 2, 2], &pixels)),
            top_k: None,
            limits: None,
        };
        let ask = crate::jobs::run_query(&crate::runtime::caller(), &crate::inference::Request::Classify(request));
        let Ok(onnx_canister_interface::JobResult::Classify(answer)) = ask else { panic!("{ask:?}") };
        assert_eq!(answer.labels.len(), 3);
        let nan = answer.labels.iter().filter(|label| label.score.is_nan()).count();
        assert!(nan > 0 && answer.labels[3 - nan..].iter().all(|label| label.score.is_nan()), "{answer:?}");
    });
}

#[test]
fn a_hostile_model_fails_and_the_others_answer() {
    life(|| {
        make_chain("good", 2);
        let expected = infer(chain_request("good")).expect("it is ready").outputs;
        let hostile = onnx::model(
            &[onnx::node("FlyToTheMoon", &["x"], "y")],
            &[],
            &[onnx::value("x", &[1])],
            &[onnx::value("y", &[1])],
        );
        for (name, file) in [("cut", onnx::chain(3)[..50].to_vec()), ("moon", hostile), ("zeros", vec![0; 500])] {
            upload_all(&manifest(name, &[("a", &file)], 100), &[("a", &file)]);
            commit(name, 1).expect("its hash is right");
            crate::loading::load(&model(name, 1)).expect("it is committed");
            fake::run_timers(100);
            let state = models::state(&models::resolve(&model(name, 1)).expect("it is there"));
            assert!(matches!(state, Ok(ModelState::Failed { .. })), "{name}: {state:?}");
            assert_eq!(infer(chain_request("good")).expect("it is ready").outputs, expected);
            crate::store::versions::delete(&model(name, 1)).expect("nobody holds it");
        }
    });
}
