//! Uploading a model: any order, resumed, refused when wrong, verified as a whole.

use candid::Principal;
use end_to_end_tests::models::{MLP, assert_close, bits, input, manifest, mlp};
use end_to_end_tests::pocket::{Model, Pocket, sha256};
use onnx_canister_interface::{
    ChunkReceipt, Error, Manifest, MissingChunks, ModelInfo, ModelRef, ModelState, UploadStatus,
};
use serde_bytes::ByteBuf;

#[test]
fn chunks_arrive_in_any_order_and_twice_and_the_model_answers() {
    let pocket = Pocket::new(None);
    let model = mlp("mlp");
    let version = pocket.begin(&model);
    let reference = ModelRef { name: "mlp".to_string(), version: Some(version) };
    let chunks: Vec<&[u8]> = model.files[0].chunks(10_000).collect();
    assert!(chunks.len() >= 5, "several chunks");

    let put = |index: usize| -> Result<ChunkReceipt, Error> {
        pocket.update("put_chunk", model.chunk(version, 0, index as u32, chunks[index]))
    };
    for index in (0..chunks.len()).rev().filter(|index| *index != 2) {
        assert!(!put(index).expect("stored").already_stored);
    }
    let missing: Vec<MissingChunks> = pocket.query("missing_chunks", reference.clone()).expect("missing_chunks");
    assert_eq!(missing, [MissingChunks { file: 0, first: 2, count: 1 }]);

    // Beginning again with an equal manifest is the same upload, which is how an uploader resumes.
    let again: UploadStatus = pocket.update("begin_upload", model.manifest.clone()).expect("begin_upload");
    assert_eq!(again.version, version);

    let error = pocket.update::<_, ModelInfo>("commit", reference.clone()).expect_err("a chunk is missing");
    assert_eq!(error, Error::ChunksMissing { missing: 1, first_file: 0, first_index: 2 });

    assert!(put(0).expect("stored").already_stored);
    let last = put(2).expect("stored");
    assert_eq!(last.chunks_stored, last.chunks_total);
    let info: ModelInfo = pocket.update("commit", reference.clone()).expect("commit");
    assert_eq!(info.state, ModelState::Committed);

    pocket.load(&reference);
    let info: ModelInfo = pocket.update("activate", reference.clone()).expect("activate");
    assert!(info.active);
    assert_close(&pocket.infer(&reference, &input()).expect("infer"), &MLP.reference(&input()));
}

#[test]
fn weights_in_an_external_data_file_give_the_same_bits() {
    let pocket = Pocket::new(None);
    let inside = pocket.deploy_model(&mlp("inside"));
    let (file, external) = MLP.file_with_external_data("weights.bin");
    let outside = Model::new(
        manifest("outside", 7_000),
        vec![("mlp.onnx".to_string(), file), ("weights.bin".to_string(), external)],
    );
    let outside = pocket.deploy_model(&outside);
    let answers = [&inside, &outside].map(|model| pocket.infer(model, &input()).expect("infer"));
    assert_eq!(bits(&answers[0]), bits(&answers[1]));
    assert_close(&answers[0], &MLP.reference(&input()));
}

#[test]
fn a_chunk_of_the_wrong_index_size_or_hash_is_refused() {
    let pocket = Pocket::new(None);
    let model = mlp("mlp");
    let version = pocket.begin(&model);
    let chunks: Vec<&[u8]> = model.files[0].chunks(10_000).collect();
    let put = |file: u32, index: u32, bytes: &[u8]| -> Error {
        pocket.update::<_, ChunkReceipt>("put_chunk", model.chunk(version, file, index, bytes)).expect_err("refused")
    };
    let count = chunks.len() as u32;

    assert_eq!(put(0, count, chunks[0]), Error::ChunkOutOfRange { file: 0, index: count, chunks: count });
    assert!(matches!(put(1, 0, chunks[0]), Error::InvalidArgument { .. } | Error::ChunkOutOfRange { file: 1, .. }));
    assert_eq!(
        put(0, 0, &chunks[0][..9_999]),
        Error::ChunkSize { file: 0, index: 0, expected_bytes: 10_000, got_bytes: 9_999 }
    );
    let mut flipped = chunks[0].to_vec();
    flipped[1234] ^= 1;
    assert_eq!(
        put(0, 0, &flipped),
        Error::ChunkHash { file: 0, index: 0, expected_sha256: sha256(chunks[0]), got_sha256: sha256(&flipped) }
    );
    let absent = model.chunk(version + 1, 0, 0, chunks[0]);
    assert_eq!(
        pocket.update::<_, ChunkReceipt>("put_chunk", absent).expect_err("no such version"),
        Error::ModelNotFound { name: "mlp".to_string(), version: Some(version + 1) }
    );
    let missing: Vec<MissingChunks> =
        pocket.query("missing_chunks", ModelRef { name: "mlp".to_string(), version: Some(version) }).expect("missing");
    assert_eq!(missing, [MissingChunks { file: 0, first: 0, count }], "nothing refused was stored");
}

#[test]
fn a_file_whose_hash_differs_is_not_committed() {
    let pocket = Pocket::new(None);
    let mut model = mlp("mlp");
    let promised = sha256(b"something else");
    model.manifest.files[0].sha256 = promised.clone();
    let version = pocket.begin(&model);
    for (index, chunk) in model.files[0].chunks(10_000).enumerate() {
        let _: ChunkReceipt = pocket
            .update("put_chunk", model.chunk(version, 0, index as u32, chunk))
            .expect("the chunk itself is right");
    }
    let reference = ModelRef { name: "mlp".to_string(), version: Some(version) };
    let error = pocket.update::<_, ModelInfo>("commit", reference.clone()).expect_err("hash differs");
    assert_eq!(
        error,
        Error::FileHash {
            file: 0,
            name: "mlp.onnx".to_string(),
            expected_sha256: promised,
            got_sha256: sha256(&model.files[0])
        }
    );
    let error = pocket.update::<_, ModelInfo>("load", reference).expect_err("not committed");
    assert!(matches!(error, Error::WrongState { .. }), "{error}");
}

#[test]
fn a_file_that_is_not_onnx_fails_to_load_and_says_where() {
    let pocket = Pocket::new(None);
    let good = pocket.deploy_model(&mlp("good"));
    for (name, bytes) in [
        ("text", b"this is not an ONNX file, whatever it may be instead".to_vec()),
        ("truncated", MLP.file()[..20_000].to_vec()),
        ("zeros", vec![0; 5_000]),
    ] {
        let model = pocket.upload(&Model::new(manifest(name, 10_000), vec![("model.onnx".to_string(), bytes)]));
        match pocket.update::<_, ModelInfo>("load", model.clone()) {
            Ok(_) => pocket.tick_until("load", || !matches!(pocket.info(&model).state, ModelState::Loading { .. })),
            Err(error) => assert!(matches!(error, Error::ModelInvalid { .. }), "{name}: {error}"),
        }
        let ModelState::Failed { reason } = pocket.info(&model).state else {
            panic!("{name}: {:?}", pocket.info(&model).state)
        };
        assert!(!reason.is_empty());
    }
    assert_close(&pocket.infer(&good, &input()).expect("the good model is untouched"), &MLP.reference(&input()));
}

#[test]
fn versions_switch_atomically_and_roll_back() {
    let pocket = Pocket::new(None);
    let first = pocket.deploy_model(&mlp("mlp"));
    let mut changed = mlp("mlp");
    changed.manifest.description = "the second version".to_string();
    let second = pocket.upload(&changed);
    assert_ne!(first.version, second.version);
    let active = ModelRef { name: "mlp".to_string(), version: None };
    assert_eq!(Some(pocket.info(&active).version), first.version, "uploading beside the old changes nothing");
    assert_close(&pocket.infer(&active, &input()).expect("still answers"), &MLP.reference(&input()));

    pocket.load(&second);
    let _: ModelInfo = pocket.update("activate", second.clone()).expect("activate");
    assert_eq!(Some(pocket.info(&active).version), second.version);
    let back: u32 = pocket.update("rollback", "mlp".to_string()).expect("rollback");
    assert_eq!(Some(back), first.version);
    assert_eq!(Some(pocket.info(&active).version), first.version);
}

#[test]
fn a_caller_without_the_right_is_told_so() {
    let pocket = Pocket::new(None);
    let model = mlp("mlp");
    let version = pocket.begin(&model);
    let stranger = Principal::self_authenticating(b"a stranger");
    let refused = |reply: Result<Error, pocket_ic::RejectResponse>| match reply {
        Ok(Error::NotAuthorized { caller, .. }) => assert_eq!(caller, stranger),
        Ok(other) => panic!("{other}"),
        // inspect_message may refuse it before it costs anything.
        Err(reject) => assert!(reject.to_string().contains("CanisterRejectedMessage"), "{reject}"),
    };
    let chunk = model.chunk(version, 0, 0, &model.files[0][..10_000]);
    refused(pocket.update_as::<_, ChunkReceipt>(stranger, "put_chunk", chunk).map(|r| r.expect_err("refused")));
    refused(
        pocket
            .update_as::<_, UploadStatus>(stranger, "begin_upload", model.manifest.clone())
            .map(|r| r.expect_err("refused")),
    );
    let reference = ModelRef { name: "mlp".to_string(), version: Some(version) };
    refused(
        pocket.update_as::<_, ModelInfo>(stranger, "delete_model", reference.clone()).map(|r| r.expect_err("refused")),
    );
    let anybody: ModelInfo =
        pocket.query_as(stranger, "model_info", reference).expect("query").expect("states are public");
    assert_eq!(anybody.version, version);
}

#[test]
fn manifests_that_make_no_sense_are_refused_with_their_place() {
    let pocket = Pocket::new(None);
    let refused = |change: &dyn Fn(&mut Manifest)| {
        let mut model = mlp("mlp");
        change(&mut model.manifest);
        match pocket.update::<_, UploadStatus>("begin_upload", model.manifest).expect_err("refused") {
            Error::InvalidArgument { place, .. } => place,
            other => panic!("{other}"),
        }
    };
    assert!(refused(&|m| m.name = "Ünïcode".to_string()).contains("name"));
    assert!(refused(&|m| m.name = String::new()).contains("name"));
    assert!(refused(&|m| m.chunk_size = 0).contains("chunk_size"));
    assert!(refused(&|m| m.chunk_size = 1_900_001).contains("chunk_size"));
    assert!(refused(&|m| m.files.clear()).contains("files"));
    assert!(refused(&|m| m.files[0].sha256 = ByteBuf::from(vec![1; 31])).contains("sha256"));
    assert!(refused(&|m| drop(m.files[0].chunk_sha256.pop())).contains("chunk_sha256"));
    assert!(refused(&|m| m.files[0].size_bytes = u64::MAX).contains("size"));
}
