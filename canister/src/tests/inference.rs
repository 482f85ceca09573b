//! Inference: good inputs in every form, and bad ones with what is wrong.

use crate::inference::Request;
use crate::inputs::{self, PutInputBorrowed};
use crate::jobs;
use crate::limits::{REPLY_DATA_BYTES_MAX, TOP_K_MAX};
use crate::runtime::fake;
use crate::settings;
use crate::testing::{chain_request, f32_tensor, infer, life, make_chain, make_ready, manifest, model, onnx, start};
use onnx_canister_interface::{
    ChannelOrder, Classification, ClassifyInput, ClassifyRequest, ElementType, Error, InferRequest, InferResponse,
    InputSource, JobResult, Layout, Preprocessing, Profile, ProfileRequest, ReadOutput, Resize, SettingsPatch,
    StagedInput, Task, Tensor,
};
use serde_bytes::{ByteBuf, Bytes};

fn query(request: InferRequest) -> Result<InferResponse, Error> {
    fake::begin_message();
    match jobs::run_query(&crate::runtime::caller(), &Request::Infer(request))? {
        JobResult::Infer(response) => Ok(response),
        other => panic!("{other:?}"),
    }
}

fn classify(input: ClassifyInput, top_k: Option<u32>) -> Result<Classification, Error> {
    fake::begin_message();
    let request = Request::Classify(ClassifyRequest { model: model("c", None), input, top_k, limits: None });
    match fake::block_on(jobs::run(crate::runtime::caller(), request)).map(jobs::with_reply_cost)? {
        JobResult::Classify(classification) => Ok(classification),
        other => panic!("{other:?}"),
    }
}

/// Makes a classifier of three channels by their sum; with softmax if asked.
fn make_classifier(softmax: bool) {
    let (file, _) = onnx::classifier(None);
    let files: [(&str, &[u8]); 1] = [("model.onnx", &file)];
    let mut manifest = manifest("c", &files, 100);
    manifest.task = Task::Classify { softmax };
    manifest.labels = vec!["red".into(), "green".into()];
    manifest.preprocessing = Some(Preprocessing {
        height: 2,
        width: 2,
        resize: Resize::None,
        channel_order: ChannelOrder::Rgb,
        layout: Layout::Nchw,
        mean: vec![0.0; 3],
        std: vec![1.0; 3],
    });
    make_ready(&manifest, &files);
}

/// A PNG of 2 by 2 pixels of one colour.
fn png(colour: [u8; 3], side: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side, side);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().expect("memory takes it");
    writer.write_image_data(&colour.repeat((side * side) as usize)).expect("memory takes it");
    writer.finish().expect("memory takes it");
    bytes
}

fn put(
    key: &str,
    element_type: ElementType,
    shape: &[u64],
    offset_bytes: u64,
    data: &[u8],
) -> Result<StagedInput, Error> {
    fake::begin_message();
    let part =
        PutInputBorrowed { key: key.into(), element_type, shape: shape.to_vec(), offset_bytes, data: Bytes::new(data) };
    inputs::put(&crate::runtime::caller(), &part)
}

#[test]
fn an_image_is_classified_with_labels_indices_and_scores() {
    life(|| {
        make_classifier(false);
        let image = ClassifyInput::Image(ByteBuf::from(png([10, 200, 30], 2)));
        let answer = classify(image.clone(), None).expect("a good image");
        let labels: Vec<(&str, u32, f32)> =
            answer.labels.iter().map(|label| (label.label.as_str(), label.index, label.score)).collect();
        assert_eq!(labels, [("green", 1, 800.0), ("", 2, 120.0), ("red", 0, 40.0)]);
        assert_eq!(answer.model, model("c", 1));
        assert!(answer.cost.decode_instructions > 0 && answer.cost.instructions > answer.cost.decode_instructions);
        assert_eq!(classify(image, Some(1)).expect("a good image").labels.len(), 1);
        // The same pixels as a tensor of bytes, which are widened exactly.
        let data: Vec<u8> = [[10; 4], [200; 4], [30; 4]].concat();
        let tensor =
            Tensor { element_type: ElementType::Uint8, shape: vec![1, 3, 2, 2], data: ByteBuf::from(data.clone()) };
        assert_eq!(classify(ClassifyInput::Tensor(tensor), None).expect("a good tensor").labels, answer.labels);
        put("t", ElementType::Uint8, &[1, 3, 2, 2], 0, &data).expect("a good part");
        assert_eq!(classify(ClassifyInput::Staged("t".into()), None).expect("it is staged").labels, answer.labels);
        let file = png([10, 200, 30], 2);
        put("i", ElementType::Uint8, &[file.len() as u64], 0, &file).expect("a good part");
        assert_eq!(classify(ClassifyInput::Staged("i".into()), None).expect("it is staged").labels, answer.labels);
    });
}

#[test]
fn softmax_makes_probabilities() {
    life(|| {
        make_classifier(true);
        let tensor = f32_tensor(&[1, 3, 2, 2], &[0.0; 12]);
        let answer = classify(ClassifyInput::Tensor(tensor), None).expect("a good tensor");
        assert_eq!(answer.labels.iter().map(|label| label.index).collect::<Vec<_>>(), [0, 1, 2], "ties by index");
        assert!(answer.labels.iter().all(|label| (label.score - 1.0 / 3.0).abs() < 1e-6));
    });
}

#[test]
fn what_is_no_image_says_so() {
    life(|| {
        make_classifier(false);
        let image = |bytes: &[u8]| classify(ClassifyInput::Image(ByteBuf::from(bytes)), None);
        assert!(matches!(image(b"no image"), Err(Error::ImageInvalid { .. })));
        assert!(matches!(image(&png([1, 2, 3], 2)[..40]), Err(Error::ImageInvalid { .. })));
        assert!(matches!(image(&png([1, 2, 3], 1)), Err(Error::ImageInvalid { .. })), "smaller than the crop");
        let large = png([1, 2, 3], 4_900);
        assert_eq!(image(&large), Err(Error::ImageTooLarge { pixels: 24_010_000, limit_pixels: 24_000_000 }));
        let place = |result: Result<Classification, Error>| match result {
            Err(Error::InvalidArgument { place, .. }) => place,
            other => panic!("{other:?}"),
        };
        let good = ClassifyInput::Image(ByteBuf::from(png([1, 2, 3], 2)));
        assert_eq!(place(classify(good.clone(), Some(0))), "top_k");
        assert_eq!(place(classify(good.clone(), Some(TOP_K_MAX + 1))), "top_k");
        make_chain("m", 2);
        let other_task =
            Request::Classify(ClassifyRequest { model: model("m", None), input: good, top_k: None, limits: None });
        let answer = fake::block_on(jobs::run(crate::runtime::caller(), other_task));
        assert!(matches!(answer, Err(Error::InvalidArgument { place, .. }) if place == "model"));
    });
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    life(|| {
        make_chain("m", 2);
        let with = |change: fn(&mut InferRequest)| {
            let mut request = chain_request("m");
            change(&mut request);
            let (update, query) = (infer(request.clone()), query(request));
            assert_eq!(update, query);
            update.expect_err("it doesn't fit")
        };
        assert_eq!(
            with(|r| r.inputs[0].name = "z".into()),
            Error::UnknownTensor { name: "z".into(), available: vec!["x".into()] }
        );
        assert_eq!(with(|r| r.inputs.clear()), Error::MissingTensor { name: "x".into() });
        assert!(matches!(
            with(|r| r.inputs.push(r.inputs[0].clone())),
            Error::InvalidArgument { place, .. } if place == "inputs[1].name"
        ));
        assert!(matches!(
            with(|r| r.inputs[0].source = InputSource::Tensor(f32_tensor(&[1, 5], &[0.0; 5]))),
            Error::TensorShape { name, got, .. } if name == "x" && got == [1, 5]
        ));
        assert!(matches!(
            with(|r| r.inputs[0].source = InputSource::Tensor(f32_tensor(&[1, 4], &[0.0; 5]))),
            Error::TensorLength { name, expected_bytes: 16, got_bytes: 20 } if name == "x"
        ));
        assert!(matches!(
            with(|r| {
                let mut tensor = f32_tensor(&[1, 4], &[0.0; 4]);
                tensor.element_type = ElementType::Int32;
                r.inputs[0].source = InputSource::Tensor(tensor);
            }),
            Error::TensorType { expected: ElementType::Float32, got: ElementType::Int32, .. }
        ));
        assert!(matches!(
            with(|r| r.outputs = Some(vec!["q".into()])),
            Error::UnknownTensor { name, available } if name == "q" && available == ["y"]
        ));
        assert!(matches!(
            with(|r| r.outputs = Some(vec![])),
            Error::InvalidArgument { place, .. } if place == "outputs"
        ));
        assert_eq!(
            with(|r| r.inputs[0].source = InputSource::Staged("nothing".into())),
            Error::InputNotFound { key: "nothing".into() }
        );
    });
}

#[test]
fn a_query_answers_as_the_update_does_or_says_that_it_can_not() {
    life(|| {
        make_chain("m", 4);
        let update = infer(chain_request("m")).expect("it fits");
        let answer = query(chain_request("m")).expect("it fits");
        assert_eq!((answer.outputs, answer.job), (update.outputs, None));
        let patch = SettingsPatch { query_budget: Some(1_000_000), ..Default::default() };
        settings::update(patch).expect("in range");
        fake::set_instructions_step(300_000);
        match query(chain_request("m")) {
            Err(Error::QueryBudget { spent, budget: 1_000_000 }) => assert!(spent > 0),
            other => panic!("{other:?}"),
        }
        make_classifier(false);
        let image = ClassifyInput::Image(ByteBuf::from(png([1, 2, 3], 100)));
        let request =
            Request::Classify(ClassifyRequest { model: model("c", None), input: image, top_k: None, limits: None });
        fake::begin_message();
        let answer = jobs::run_query(&crate::runtime::caller(), &request);
        assert!(matches!(answer, Err(Error::QueryBudget { .. })), "an image that an update takes: {answer:?}");
    });
}

#[test]
fn inputs_come_in_parts_and_are_private() {
    life(|| {
        make_chain("m", 2);
        let expected = infer(chain_request("m")).expect("it fits").outputs;
        let data = f32_tensor(&[1, 4], &[0.1, -0.7, 2.0, 0.0]).data;
        let part = |offset: usize, to: usize| put("k", ElementType::Float32, &[1, 4], offset as u64, &data[offset..to]);
        let staged = |received_bytes| Ok(StagedInput { key: "k".into(), size_bytes: 16, received_bytes });
        assert_eq!(part(0, 5), staged(5));
        assert!(matches!(part(6, 16), Err(Error::InvalidArgument { place, .. }) if place == "offset_bytes"));
        let mut request = chain_request("m");
        request.inputs[0].source = InputSource::Staged("k".into());
        let incomplete = Error::TensorLength { name: "k".into(), expected_bytes: 16, got_bytes: 5 };
        assert_eq!(infer(request.clone()), Err(incomplete.clone()));
        assert_eq!(start(request.clone()), Err(incomplete));
        assert_eq!(part(5, 16), staged(16));
        assert_eq!(part(0, 5), staged(16), "a part again changes nothing");
        assert_eq!(infer(request.clone()).expect("it is complete").outputs, expected);
        let id = start(request.clone()).expect("it is complete");
        assert_eq!(inputs::delete(&crate::runtime::caller(), "k"), Err(Error::Busy { job: id }));
        assert_eq!(part(0, 5), Err(Error::Busy { job: id }));
        fake::run_timers(100);
        assert_eq!(
            inputs::delete(&fake::stranger(1), "k"),
            Err(Error::InputNotFound { key: "k".into() }),
            "it is its owner's"
        );
        assert_eq!(inputs::delete(&crate::runtime::caller(), "k"), Ok(()));
        assert_eq!(infer(request), Err(Error::InputNotFound { key: "k".into() }));
    });
}

#[test]
fn inputs_out_of_range_are_refused() {
    life(|| {
        let place = |result: Result<StagedInput, Error>| match result {
            Err(Error::InvalidArgument { place, .. }) => place,
            other => panic!("{other:?}"),
        };
        assert_eq!(place(put("", ElementType::Uint8, &[1], 0, &[1])), "key");
        assert_eq!(place(put(&"k".repeat(65), ElementType::Uint8, &[1], 0, &[1])), "key");
        assert_eq!(place(put("k", ElementType::Uint8, &[1; 17], 0, &[1])), "shape");
        assert_eq!(place(put("k", ElementType::Uint8, &[1 << 30], 0, &[1])), "shape");
        assert_eq!(place(put("k", ElementType::Uint8, &[2_000_000], 0, &vec![1; 1_900_001])), "data");
        let too_long = Error::TensorLength { name: "k".into(), expected_bytes: 2, got_bytes: 3 };
        assert_eq!(put("k", ElementType::Uint8, &[2], 0, &[1; 3]), Err(too_long));
        for number in 0..32 {
            put(&number.to_string(), ElementType::Uint8, &[2], 0, &[1]).expect("there is room");
        }
        assert_eq!(place(put("one more", ElementType::Uint8, &[2], 0, &[1])), "shape");
        // Another shape begins anew, in the place of the one before.
        let anew = put("5", ElementType::Uint8, &[3], 0, &[1]).expect("it takes its own place");
        assert_eq!((anew.size_bytes, anew.received_bytes), (3, 1));
        fake::set_balance(0);
        assert!(matches!(put("6", ElementType::Uint8, &[4], 0, &[1]), Err(Error::CyclesLow { .. })));
    });
}

#[test]
fn outputs_beyond_a_reply_are_read_in_pages() {
    life(|| {
        const COUNT: usize = 600_000;
        let nodes = [onnx::node("Neg", &["x"], "y"), onnx::node("Abs", &["x"], "z")];
        let shape = [1, COUNT as u64];
        let outputs = [onnx::value("y", &shape), onnx::value("z", &shape)];
        let file = onnx::model(&nodes, &[], &[onnx::value("x", &shape)], &outputs);
        let files: [(&str, &[u8]); 1] = [("model.onnx", &file)];
        make_ready(&manifest("m", &files, 1_000), &files);
        let values: Vec<f32> = (0..COUNT).map(|at| at as f32).collect();
        let data = f32_tensor(&shape, &values).data;
        for (index, part) in data.chunks(1_900_000).enumerate() {
            put("x", ElementType::Float32, &shape, index as u64 * 1_900_000, part).expect("a good part");
        }
        let mut request = chain_request("m");
        request.inputs[0].source = InputSource::Staged("x".into());
        assert!(matches!(query(request.clone()), Err(Error::InvalidArgument { place, .. }) if place == "outputs"));
        let response = infer(request.clone()).expect("it is kept as a job");
        let job = response.job.expect("its outputs are read in pages");
        let sizes: Vec<(&str, u64, usize)> =
            response.outputs.iter().map(|page| (page.name.as_str(), page.size_bytes, page.data.len())).collect();
        assert_eq!(sizes, [("y", 2_400_000, 1_900_000), ("z", 2_400_000, 0)]);
        let page = |name: &str, offset_bytes, length_bytes| {
            jobs::read_output(&ReadOutput { job, name: name.into(), offset_bytes, length_bytes })
        };
        let mut whole = response.outputs[0].data.to_vec();
        whole.extend_from_slice(&page("y", 1_900_000, 1_900_000).expect("in range").data);
        let negated: Vec<f32> = values.iter().map(|value| -value).collect();
        assert_eq!(whole, onnx::bytes(&negated));
        assert_eq!(page("z", 4, 4).expect("in range").data[..], 1.0_f32.to_le_bytes());
        assert_eq!(page("z", 2_400_000, 4).expect("in range").data.len(), 0);
        assert!(
            matches!(page("z", 2_400_001, 4), Err(Error::InvalidArgument { place, .. }) if place == "offset_bytes")
        );
        let too_long = page("z", 0, REPLY_DATA_BYTES_MAX as u32 + 1);
        assert!(matches!(too_long, Err(Error::InvalidArgument { place, .. }) if place == "length_bytes"));
        assert!(matches!(page("q", 0, 1), Err(Error::UnknownTensor { available, .. }) if available == ["y", "z"]));
        // A chosen output is the only one that is computed and returned; larger than a reply it is a job as well.
        request.outputs = Some(vec!["z".into()]);
        let chosen = infer(request).expect("it is kept as a job");
        assert_eq!((chosen.outputs.len(), chosen.outputs[0].name.as_str()), (1, "z"));
    });
}

fn profile() -> Result<Profile, Error> {
    fake::begin_message();
    let request = Request::Profile(ProfileRequest::Infer(chain_request("m")));
    match fake::block_on(jobs::run(crate::runtime::caller(), request)).map(jobs::with_reply_cost)? {
        JobResult::Profile(profile) => Ok(profile),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_profile_tells_of_every_node_in_one_message_and_in_many() {
    life(|| {
        make_chain("m", 6);
        let whole = profile().expect("it runs");
        assert!(whole.nodes.len() > 1 && whole.nodes.iter().all(|node| node.instructions > 0), "{whole:?}");
        let sum = |nodes: &[onnx_canister_interface::NodeProfile]| nodes.iter().map(|n| n.instructions).sum::<u64>();
        assert_eq!(whole.operators.iter().map(|operator| operator.instructions).sum::<u64>(), sum(&whole.nodes));
        assert!(sum(&whole.nodes) <= whole.cost.instructions);
        assert_eq!((whole.cost.messages, whole.model.version), (1, Some(1)));

        settings::update(SettingsPatch { message_budget: Some(1), ..SettingsPatch::default() }).expect("in range");
        let cut = profile().expect("it runs");
        assert!(cut.cost.messages > 1);
        let names = |profile: &Profile| profile.nodes.iter().map(|node| node.node.clone()).collect::<Vec<_>>();
        assert_eq!(names(&cut), names(&whole));

        let request = Request::Profile(ProfileRequest::Infer(chain_request("nobody")));
        let unknown = fake::block_on(jobs::run(crate::runtime::caller(), request));
        assert!(matches!(unknown, Err(Error::ModelNotFound { .. })), "{unknown:?}");
    });
}
