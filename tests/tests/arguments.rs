//! What a caller can get wrong when asking for an inference, each with its error.

use candid::Principal;
use end_to_end_tests::models::{MLP, assert_close, bits, input, mlp, only_output, request, row};
use end_to_end_tests::onnx::little_endian;
use end_to_end_tests::pocket::Pocket;
use onnx_canister_interface::{
    Classification, ClassifyInput, ClassifyRequest, ElementType, Error, InferInput, InferRequest, InferResponse,
    InferenceAccess, InputSource, JobId, JobInfo, JobState, ModelRef, OutputPage, PutInput, ReadOutput, Settings,
    SettingsPatch, StagedInput,
};
use serde_bytes::ByteBuf;

fn infer(pocket: &Pocket, request: &InferRequest) -> Result<InferResponse, Error> {
    let update = pocket.update("infer", request.clone());
    let query: Result<InferResponse, Error> = pocket.query("infer_query", request.clone());
    match (&update, &query) {
        (Ok(update), Ok(query)) => assert_eq!(bits(&only_output(update)), bits(&only_output(query))),
        (Err(update), Err(query)) => assert_eq!(update, query, "update and query name the same error"),
        (update, query) => panic!("update {update:?}, query {query:?}"),
    }
    update
}

#[test]
fn a_wrong_tensor_name_type_shape_or_length_is_named() {
    let pocket = Pocket::new(None);
    let model = pocket.deploy_model(&mlp("mlp"));
    let width = MLP.width;
    let good = request(&model, &input());
    assert_close(&only_output(&infer(&pocket, &good).expect("infer")), &MLP.reference(&input()));

    let mut unknown = good.clone();
    unknown.inputs[0].name = "X".to_string();
    assert_eq!(
        infer(&pocket, &unknown).expect_err("no input X"),
        Error::UnknownTensor { name: "X".to_string(), available: vec!["x".to_string()] }
    );
    let mut missing = good.clone();
    missing.inputs.clear();
    assert_eq!(infer(&pocket, &missing).expect_err("no input"), Error::MissingTensor { name: "x".to_string() });

    let with = |change: &dyn Fn(&mut onnx_canister_interface::Tensor)| {
        let mut tensor = row(&input());
        change(&mut tensor);
        let inputs = vec![InferInput { name: "x".to_string(), source: InputSource::Tensor(tensor) }];
        infer(&pocket, &InferRequest { inputs, ..good.clone() }).expect_err("refused")
    };
    assert_eq!(
        with(&|t| t.element_type = ElementType::Int32),
        Error::TensorType { name: "x".to_string(), expected: ElementType::Float32, got: ElementType::Int32 }
    );
    assert_eq!(
        with(&|t| t.shape = vec![width]),
        Error::TensorShape { name: "x".to_string(), expected: vec![Some(1), Some(width)], got: vec![width] }
    );
    assert_eq!(
        with(&|t| t.data = ByteBuf::from(vec![0; 12])),
        Error::TensorLength { name: "x".to_string(), expected_bytes: 4 * width, got_bytes: 12 }
    );
    assert!(matches!(
        with(&|t| t.shape = vec![u64::MAX, u64::MAX]),
        Error::TensorLength { .. } | Error::TensorShape { .. } | Error::InvalidArgument { .. }
    ));
    let mut output = good;
    output.outputs = Some(vec!["z".to_string()]);
    assert_eq!(
        infer(&pocket, &output).expect_err("no output z"),
        Error::UnknownTensor { name: "z".to_string(), available: vec!["y".to_string()] }
    );
}

#[test]
fn a_model_that_is_not_there_or_not_loaded_is_named() {
    let pocket = Pocket::new(None);
    let absent = ModelRef { name: "absent".to_string(), version: None };
    assert_eq!(
        infer(&pocket, &request(&absent, &input())).expect_err("absent"),
        Error::ModelNotFound { name: "absent".to_string(), version: None }
    );
    let model = pocket.upload(&mlp("mlp"));
    assert!(matches!(infer(&pocket, &request(&model, &input())).expect_err("not loaded"), Error::WrongState { .. }));
    let active = ModelRef { name: "mlp".to_string(), version: None };
    assert_eq!(
        infer(&pocket, &request(&active, &input())).expect_err("none is active"),
        Error::NoActiveVersion { name: "mlp".to_string() }
    );
}

#[test]
fn an_input_staged_in_parts_as_f32_or_f16_is_the_same_input() {
    let pocket = Pocket::new(None);
    let model = pocket.deploy_model(&mlp("mlp"));
    let bytes = little_endian(&input());
    let part = |key: &str, offset: usize, data: &[u8]| PutInput {
        key: key.to_string(),
        element_type: ElementType::Float32,
        shape: vec![1, MLP.width],
        offset_bytes: offset as u64,
        data: ByteBuf::from(data.to_vec()),
    };
    let staged = |key: &str| InferRequest {
        inputs: vec![InferInput { name: "x".to_string(), source: InputSource::Staged(key.to_string()) }],
        ..request(&model, &[])
    };
    let half = bytes.len() / 2;
    let first: StagedInput = pocket.update("put_input", part("photo", 0, &bytes[..half])).expect("put_input");
    assert_eq!((first.received_bytes, first.size_bytes), (half as u64, bytes.len() as u64));
    assert!(infer(&pocket, &staged("photo")).is_err(), "half an input is not an input");
    let second: StagedInput = pocket.update("put_input", part("photo", half, &bytes[half..])).expect("put_input");
    assert_eq!(second.received_bytes, bytes.len() as u64);
    let inline = infer(&pocket, &request(&model, &input())).expect("infer");
    let from_stage = infer(&pocket, &staged("photo")).expect("infer");
    assert_eq!(bits(&only_output(&from_stage)), bits(&only_output(&inline)));
    assert_eq!(
        infer(&pocket, &staged("nothing")).expect_err("no such key"),
        Error::InputNotFound { key: "nothing".to_string() }
    );
    // Half precision: 1.0 is 0x3c00, and exact.
    let ones = PutInput {
        key: "ones".to_string(),
        element_type: ElementType::Float16,
        shape: vec![1, MLP.width],
        offset_bytes: 0,
        data: ByteBuf::from([0x00, 0x3c].repeat(MLP.width as usize)),
    };
    let _: StagedInput = pocket.update("put_input", ones).expect("put_input");
    let from_f16 = infer(&pocket, &staged("ones")).expect("infer");
    let from_f32 = infer(&pocket, &request(&model, &vec![1.0; MLP.width as usize])).expect("infer");
    assert_eq!(bits(&only_output(&from_f16)), bits(&only_output(&from_f32)));
}

#[test]
fn outputs_are_read_in_pages() {
    let pocket = Pocket::new(None);
    let model = pocket.deploy_model(&mlp("mlp"));
    let whole: InferResponse = pocket.update("infer", request(&model, &input())).expect("infer");
    let job: JobId = pocket.update("start_infer", request(&model, &input())).expect("start_infer");
    pocket.tick_until("done", || {
        matches!(pocket.query::<_, JobInfo>("poll", job).expect("poll").state, JobState::Done(_))
    });
    let mut bytes = Vec::new();
    let size = whole.outputs[0].size_bytes;
    while (bytes.len() as u64) < size {
        let page: OutputPage = pocket
            .query(
                "read_output",
                ReadOutput { job, name: "y".to_string(), offset_bytes: bytes.len() as u64, length_bytes: 100 },
            )
            .expect("read_output");
        assert_eq!(page.size_bytes, size);
        assert!(!page.data.is_empty() && page.data.len() <= 100);
        bytes.extend_from_slice(&page.data);
    }
    assert_eq!(bytes, whole.outputs[0].data.as_ref());
    let beyond = ReadOutput { job, name: "y".to_string(), offset_bytes: size + 1, length_bytes: 1 };
    assert!(matches!(pocket.query::<_, OutputPage>("read_output", beyond), Err(Error::InvalidArgument { .. })));
    let unknown = ReadOutput { job, name: "z".to_string(), offset_bytes: 0, length_bytes: 1 };
    assert!(matches!(pocket.query::<_, OutputPage>("read_output", unknown), Err(Error::UnknownTensor { .. })));
}

#[test]
fn who_may_infer_is_a_setting() {
    let pocket = Pocket::new(None);
    let model = pocket.deploy_model(&mlp("mlp"));
    let stranger = Principal::self_authenticating(b"a stranger");
    let ask = || {
        let query = pocket.query_as::<_, InferResponse>(stranger, "infer_query", request(&model, &input()));
        query.expect("queries are not filtered by inspect_message")
    };
    assert!(
        matches!(ask().expect_err("controllers only by default"), Error::NotAuthorized { caller, .. } if caller == stranger)
    );
    let allow = |inference_access| {
        let patch = SettingsPatch { inference_access: Some(inference_access), ..SettingsPatch::default() };
        let _: Settings = pocket.update("update_settings", patch).expect("update_settings");
    };
    allow(InferenceAccess::Principals(vec![stranger]));
    assert_close(&only_output(&ask().expect("named")), &MLP.reference(&input()));
    allow(InferenceAccess::Controllers);
    assert!(ask().is_err());
    allow(InferenceAccess::Everyone);
    assert_close(&only_output(&ask().expect("everyone")), &MLP.reference(&input()));
}

#[test]
fn classify_refuses_what_is_no_image_and_what_is_no_classifier() {
    let pocket = Pocket::new(None);
    let model = pocket.deploy_model(&mlp("mlp"));
    let ask = |image: &[u8]| {
        let request = ClassifyRequest {
            model: model.clone(),
            input: ClassifyInput::Image(ByteBuf::from(image.to_vec())),
            top_k: None,
            limits: None,
        };
        pocket.update::<_, Classification>("classify", request).expect_err("refused")
    };
    // The perceptron's task is `infer`: it has neither preprocessing nor labels.
    assert!(matches!(ask(b"no image"), Error::InvalidArgument { .. } | Error::WrongState { .. }));
}
