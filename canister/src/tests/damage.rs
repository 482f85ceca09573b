//! Damage: a flipped byte anywhere in stable memory is named, or repaired, and does no further harm.

use crate::runtime::fake::{self};
use crate::settings;
use crate::stable::{HEADER_BYTES, PAGE_BYTES, Superblock, damage, directory};
use crate::store::{models, upload};
use crate::testing::{
    self, chain_request, commit, f32_tensor, infer, life, make_chain, manifest, model, onnx, put, start,
};
use crate::{inputs, jobs, loading};
use onnx_canister_interface::{
    ElementType, Error, InputSource, JobInfo, JobResult, JobState, MissingChunks, ModelInfo, ModelState, OutputPage,
    SettingsPatch,
};
use serde_bytes::Bytes;
use std::sync::Arc;

/// A small canister: two models, a job that is done, one that waits, an input.
struct State {
    image: Vec<u8>,
    superblock: Superblock,
    journal_bytes: u64,
    outputs: Vec<OutputPage>,
    models: Vec<ModelInfo>,
    done: JobInfo,
}

fn stage(offset_bytes: u64, data: &[u8]) -> Result<onnx_canister_interface::StagedInput, Error> {
    let (key, element_type, shape) = ("k".into(), ElementType::Float32, vec![1, 4]);
    let part = inputs::PutInputBorrowed { key, element_type, shape, offset_bytes, data: Bytes::new(data) };
    inputs::put(&crate::runtime::caller(), &part)
}

fn staged_request() -> onnx_canister_interface::InferRequest {
    let mut request = chain_request("b");
    request.inputs[0].source = InputSource::Staged("k".into());
    request
}

/// The state, its journal freshly written, as an upgrade finds it.
fn state() -> State {
    let outputs = Arc::new(std::sync::Mutex::new(Vec::new()));
    let told = outputs.clone();
    let mut image = life(move || {
        make_chain("a", 2);
        make_chain("b", 2);
        *told.lock().expect("nobody panicked") = infer(chain_request("b")).expect("it is ready").outputs;
        start(chain_request("a")).expect("it is queued");
        fake::run_timers(100);
        stage(0, &f32_tensor(&[1, 4], &[0.1, -0.7, 2.0, 0.0]).data).expect("a good part");
        start(chain_request("a")).expect("it is queued");
        fake::stable_image()
    });
    // Damage makes the next life write the journal anew, without its history.
    image[PAGE_BYTES as usize] ^= 1;
    life(move || {
        fake::set_stable_image(&image);
        crate::lifecycle::post_upgrade(None);
        assert_eq!(damage::found().len(), 1);
        let (superblock, journal_bytes) = directory::layout();
        State {
            image: fake::stable_image(),
            superblock,
            journal_bytes,
            outputs: outputs.lock().expect("nobody panicked").clone(),
            models: models::list().expect("all are whole"),
            done: jobs::poll(1).expect("it is done"),
        }
    })
}

/// Runs `f` after an upgrade over the state with one byte flipped.
fn flipped<R: Send + 'static>(state: &Arc<State>, at: usize, f: impl FnOnce(&State) -> R + Send + 'static) -> R {
    let state = state.clone();
    life(move || {
        let mut image = state.image.clone();
        image[at] ^= 1 << (at % 8);
        fake::set_stable_image(&image);
        crate::lifecycle::post_upgrade(None);
        f(&state)
    })
}

fn failed(name: &str) -> Option<String> {
    match models::state(&models::resolve(&model(name, 1)).expect("it is there")).expect("it is there") {
        ModelState::Ready => None,
        ModelState::Failed { reason } => Some(reason),
        other => panic!("{name}: {other:?}"),
    }
}

/// Loads everything and asks everything; gives the damages that answers told, none of which is a wrong answer.
fn damages_met(state: &State) -> Vec<String> {
    let mut met = Vec::new();
    let mut tell = |error: Error| match error {
        Error::StoredDataDamaged { place, .. } => met.push(place),
        other => panic!("{other:?}"),
    };
    assert_eq!(models::list().expect("all are whole"), state.models);
    fake::run_timers(1_000);
    for name in ["a", "b"] {
        match failed(name) {
            Some(reason) => {
                assert!(reason.starts_with("stable memory is damaged"), "{reason}");
                tell(Error::StoredDataDamaged { place: format!("model {name}"), reason });
            }
            None => assert_eq!(infer(chain_request(name)).expect("it is ready").outputs, state.outputs, "{name}"),
        }
        if let Err(error) = upload::missing_chunks(&model(name, 1)) {
            tell(error);
        }
    }
    match jobs::poll(1) {
        Ok(job) => assert_eq!(job, state.done),
        Err(error) => tell(error),
    }
    match jobs::poll(2).expect("it has no outputs that are damaged").state {
        JobState::Done(result) => match *result {
            JobResult::Infer(response) => assert_eq!(response.outputs, state.outputs),
            other => panic!("{other:?}"),
        },
        JobState::Failed(Error::WrongState { name, .. }) => assert_eq!(name, "a", "its model can't be loaded"),
        JobState::Failed(error) => tell(error),
        other => panic!("{other:?}"),
    }
    if failed("b").is_none() {
        match infer(staged_request()) {
            Ok(response) => assert_eq!(response.outputs, state.outputs),
            Err(error) => tell(error),
        }
    }
    met
}

#[test]
fn a_flipped_byte_in_superblock_or_journal_is_repaired() {
    let state = Arc::new(state());
    let page = PAGE_BYTES as usize;
    let superblock_bytes = (0..page).rev().find(|at| state.image[*at] != 0).expect("there is one") + 1;
    let journals = state.superblock.in_use.each_ref().map(|copy| {
        assert_eq!(copy.len(), 1, "a small journal is one run of pages");
        copy[0].first_page as usize * page
    });
    let journal_bytes = state.journal_bytes as usize + HEADER_BYTES;
    let parts = [0, page].map(|start| (start, superblock_bytes)).into_iter();
    for (start, length) in parts.chain(journals.map(|start| (start, journal_bytes))) {
        for at in start..start + length {
            flipped(&state, at, move |state| {
                let found = damage::found();
                assert_eq!(found.len(), 1, "byte {at}: {found:?}");
                assert!(found[0].starts_with("copy ") && found[0].contains("damaged"), "{found:?}");
                match at % 101 {
                    0 => assert_eq!(damages_met(state), Vec::<String>::new()),
                    _ => assert_eq!(models::list().expect("all are whole"), state.models),
                }
                assert_eq!(jobs::poll(1).expect("it is done"), state.done);
                // What was repaired is whole for the next life.
                if at % 31 == 0 {
                    fake::after_upgrade(|| assert_eq!(damage::found(), Vec::<String>::new()));
                }
            });
        }
    }
}

#[test]
fn a_flipped_byte_in_a_blob_is_told_by_who_reads_it_and_by_nobody_else() {
    let state = Arc::new(state());
    let page = PAGE_BYTES as usize;
    let records: Vec<u64> = state.superblock.extents().map(|extent| extent.first_page).chain([0, 1]).collect();
    let mut places = std::collections::BTreeSet::new();
    for number in (0..state.image.len() / page).filter(|number| !records.contains(&(*number as u64))) {
        let bytes = &state.image[number * page..][..page];
        let Some(last) = bytes.iter().rposition(|byte| *byte != 0) else { continue };
        for at in number * page..=number * page + last {
            let met = flipped(&state, at, damages_met);
            assert!(met.len() <= 1, "byte {at}: {met:?}");
            places.extend(met);
        }
    }
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    let expected = [
        "model a",
        "model b",
        "output 'y' of job 1",
        "staged input 'k'",
        "the manifest of model 'a' version 1",
        "the manifest of model 'b' version 1",
        "the request of job 2",
    ];
    assert_eq!(places, expected);
}

#[test]
fn a_flipped_byte_in_free_pages_is_nobody_s() {
    let state = Arc::new(state());
    for extent in state.superblock.spare.iter().flatten() {
        for at in (0..PAGE_BYTES as usize).step_by(997) {
            let met = flipped(&state, extent.first_page as usize * PAGE_BYTES as usize + at, |state| {
                assert_eq!(damage::found(), Vec::<String>::new());
                damages_met(state)
            });
            assert_eq!(met, Vec::<String>::new());
        }
    }
}

#[test]
fn a_damaged_chunk_is_named_and_sent_again() {
    life(|| {
        let file = onnx::chain(40);
        let files: [(&str, &[u8]); 1] = [("model.onnx", &file)];
        testing::make_ready(&manifest("m", &files, 64), &files);
        let expected = infer(chain_request("m")).expect("it is ready").outputs;
        let mut image = fake::stable_image();
        let at = (0..image.len()).find(|at| image[*at..].starts_with(&file)).expect("it is stored");
        image[at + 200] ^= 4;
        image[at + 500] ^= 4;
        life(move || {
            fake::set_stable_image(&image);
            crate::lifecycle::post_upgrade(None);
            fake::run_timers(1_000);
            let reason = failed("m").expect("it is damaged");
            let named = "file 0 ('model.onnx') of model 'm' version 1: bytes 0 to ";
            assert!(reason.contains(named) && reason.contains("Chunks [3, 7] are missing now"), "{reason}");
            assert!(damage::found().iter().any(|found| found.contains(named)), "{:?}", damage::found());
            let run = |first| MissingChunks { file: 0, first, count: 1 };
            assert_eq!(upload::missing_chunks(&model("m", 1)), Ok(vec![run(3), run(7)]));
            let missing = Err(Error::ChunksMissing { missing: 2, first_file: 0, first_index: 3 });
            assert_eq!(loading::load(&model("m", 1)), missing);
            // An uploader that runs again sends what is missing, no more.
            let status = upload::begin(manifest("m", &[("model.onnx", &file)], 64)).expect("it is known");
            let chunks_total = file.len().div_ceil(64) as u32;
            let uploading = ModelState::Uploading { chunks_stored: chunks_total - 2, chunks_total };
            assert_eq!((status.version, status.state), (1, uploading));
            for index in [3, 7] {
                put("m", 1, 0, &file, 64, index).expect("a good chunk");
            }
            assert_eq!(commit("m", 1).expect("good files").state, ModelState::Committed);
            loading::load(&model("m", 1)).expect("it is committed");
            fake::run_timers(1_000);
            assert_eq!(infer(chain_request("m")).expect("it is ready").outputs, expected);
        });
    });
}

#[test]
fn a_damaged_manifest_is_stored_again_by_beginning_its_upload_again() {
    let state = Arc::new(state());
    let file = onnx::chain(2);
    let manifest = manifest("a", &[("model.onnx", &file)], 64);
    let encoded = crate::record::encode(&manifest);
    let at = (0..state.image.len()).find(|at| state.image[*at..].starts_with(&encoded)).expect("it is stored");
    flipped(&state, at + 30, move |_| {
        let missing = upload::missing_chunks(&model("a", 1));
        assert!(matches!(missing, Err(Error::StoredDataDamaged { place, .. }) if place.contains("manifest")));
        assert_eq!(upload::begin(manifest).expect("it is known").version, 1);
        assert_eq!(upload::missing_chunks(&model("a", 1)), Ok(vec![]));
    });
}

#[test]
fn damage_that_comes_while_hashing_is_a_hash_that_differs() {
    life(|| {
        let contents = vec![5_u8; (1 << 20) + 100];
        let files: [(&str, &[u8]); 1] = [("a", &contents)];
        testing::upload_all(&manifest("m", &files, 1_900_000), &files);
        settings::update(SettingsPatch { message_budget: Some(1), max_call_messages: Some(1), ..Default::default() })
            .expect("in range");
        let mut image = fake::stable_image();
        let at = (0..image.len()).find(|at| image[*at..].starts_with(&[5; 64])).expect("it is stored");
        image[at + 7] = 4;
        life(move || {
            fake::set_stable_image(&image);
            crate::lifecycle::post_upgrade(None);
            fake::begin_message();
            settings::update(SettingsPatch { max_call_messages: Some(9), ..Default::default() }).expect("in range");
            assert!(matches!(commit("m", 1), Err(Error::FileHash { file: 0, .. })));
        });
    });
}
