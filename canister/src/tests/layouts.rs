//! Stable memory of every layout that was ever written opens, and keeps everything.
//!
//! The dumps are of small canisters on the fake system, one for each layout: `pages`, then address and bytes of each
//! row of 32 bytes that isn't zero, in hexadecimal.

use crate::runtime::fake::{self, stranger};
use crate::stable::{PAGE_BYTES, damage, directory};
use crate::store::{models, upload, versions};
use crate::testing::{chain_request, commit, f32_tensor, infer, life, make_chain, manifest, model, onnx, put, start};
use crate::{inputs, jobs, loading, settings};
use onnx_canister_interface::{
    ChannelOrder, ClassifyInput, ClassifyRequest, Cost, ElementType, Error, HeapPolicy, InferenceAccess, InputSource,
    JobResult, JobState, Label, MissingChunks, ModelState, OutputPage, Resize, SettingsPatch,
};
use serde_bytes::Bytes;

const LAYOUT_1: &str = include_str!("../testdata/layout_1.txt");
const LAYOUT_2: &str = include_str!("../testdata/layout_2.txt");

/// The bytes of a dump.
fn image(dump: &str) -> Vec<u8> {
    let mut lines = dump.lines();
    let pages = lines.next().and_then(|line| line.strip_prefix("pages ")).expect("the first line");
    let mut image = vec![0; pages.parse::<usize>().expect("a number") * PAGE_BYTES as usize];
    for line in lines {
        let (address, hex) = line.split_once(' ').expect("address and bytes");
        let address = usize::from_str_radix(address, 16).expect("an address");
        for at in 0..hex.len() / 2 {
            image[address + at] = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("a byte");
        }
    }
    image
}

/// Runs `f` as the life of a canister that is upgraded over the dump's bytes.
fn upgraded(dump: &'static str, f: impl FnOnce() + Send + 'static) {
    life(move || {
        fake::set_stable_image(&image(dump));
        crate::lifecycle::post_upgrade(None);
        f();
    });
}

fn state(name: &str, version: u32) -> ModelState {
    models::state(&models::resolve(&model(name, version)).expect("it is there")).expect("it is there")
}

/// What a chain of `nodes` nodes answers.
fn chain_outputs(nodes: usize) -> Vec<OutputPage> {
    life(move || {
        make_chain("m", nodes);
        infer(chain_request("m")).expect("it is ready").outputs
    })
}

/// The answer that the job of the dumps holds: exp(tanh(x)) as the engine of that time computed it, whose last bits need
/// not be today's.
const STORED_ANSWER: [u8; 16] = [56, 106, 141, 63, 42, 226, 11, 63, 185, 210, 39, 64, 0, 0, 128, 63];

/// What the canister of the dumps must hold, and do.
fn keeps_everything() {
    let settings = settings::shown();
    assert_eq!((settings.message_budget, settings.query_budget, settings.max_call_messages), (1, 4_000_000_000, 1));
    assert_eq!(settings.inference_access, InferenceAccess::Principals(vec![stranger(1)]));
    assert_eq!((settings.uploaders, settings.heap_policy), (vec![stranger(2)], HeapPolicy::Refuse));

    let names: Vec<(String, u32, bool)> =
        models::list().expect("all are whole").into_iter().map(|info| (info.name, info.version, info.active)).collect();
    let expected = [("chain", 1, false), ("chain", 2, true), ("classifier", 1, false), ("part", 1, false)];
    let expected = expected.into_iter().chain([("text", 1, false), ("zeros", 1, false)]);
    assert_eq!(names, expected.map(|(name, version, active)| (name.into(), version, active)).collect::<Vec<_>>());
    assert!(matches!(state("zeros", 1), ModelState::Committing { bytes_total: 2_097_352, .. }));
    let missing: Vec<MissingChunks> =
        [1, 3].into_iter().map(|first| MissingChunks { file: 0, first, count: 1 }).collect();
    assert_eq!(upload::missing_chunks(&model("part", 1)), Ok(missing));
    match state("text", 1) {
        ModelState::Failed { reason } => assert!(reason.contains("field 14 has wire type 4"), "{reason}"),
        other => panic!("{other:?}"),
    }

    // Jobs: one done, one failed, one that begins again from its request.
    match jobs::poll(1).expect("it is done").state {
        JobState::Done(result) => match *result {
            JobResult::Infer(response) => assert_eq!(response.outputs[0].data.as_slice(), STORED_ANSWER),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
    assert!(matches!(jobs::poll(2).expect("it failed").state, JobState::Failed(Error::JobLimit { job: 2, .. })));
    assert_eq!(jobs::poll(3).expect("it is unfinished").state, JobState::Interrupted);

    // Half an input, which goes on where it was, and a whole one.
    let data = f32_tensor(&[1, 4], &[0.1, -0.7, 2.0, 0.0]).data;
    let part = inputs::PutInputBorrowed {
        key: "half".into(),
        element_type: ElementType::Float32,
        shape: vec![1, 4],
        offset_bytes: 5,
        data: Bytes::new(&data[5..]),
    };
    assert_eq!(inputs::put(&crate::runtime::caller(), &part).expect("it goes on").received_bytes, 16);

    let patch = SettingsPatch { message_budget: Some(1_000_000_000), ..Default::default() };
    settings::update(patch).expect("in range");
    fake::run_timers(1_000);
    assert_eq!([1, 2].map(|version| state("chain", version)), [ModelState::Ready, ModelState::Ready]);
    assert_eq!(state("zeros", 1), ModelState::Committed);
    for key in ["whole", "half"] {
        let mut request = chain_request("chain");
        request.inputs[0].source = InputSource::Staged(key.into());
        assert_eq!(infer(request).expect("it is staged").outputs, chain_outputs(2), "{key}");
    }
    match jobs::poll(3).expect("it is done").state {
        JobState::Done(result) => assert!(matches!(*result, JobResult::Infer(r) if r.outputs == chain_outputs(2))),
        other => panic!("{other:?}"),
    }
    assert_eq!(versions::rollback("chain"), Ok(1));
    assert_eq!(infer(chain_request("chain")).expect("it is ready").outputs, chain_outputs(3));
    assert!(start(chain_request("chain")).expect("it is queued") > 3, "a job's number is never given twice");
    fake::run_timers(1_000);

    // A version with external data, labels and preprocessing, and one whose upload goes on.
    let record = models::record(&models::resolve(&model("classifier", 1)).expect("it is there")).expect("it is there");
    let preprocessing = record.preprocessing.clone().expect("it takes images");
    assert_eq!((preprocessing.resize, preprocessing.channel_order), (Resize::Stretch, ChannelOrder::Bgr));
    loading::load(&model("classifier", 1)).expect("it is committed");
    fake::run_timers(1_000);
    versions::activate(&model("classifier", 1)).expect("it is ready");
    let pixels: Vec<f32> = (0..12).map(|at| at as f32).collect();
    let request = ClassifyRequest {
        model: model("classifier", None),
        input: ClassifyInput::Tensor(f32_tensor(&[1, 3, 2, 2], &pixels)),
        top_k: Some(1),
        limits: None,
    };
    fake::begin_message();
    let answer = jobs::run_query(&crate::runtime::caller(), &crate::inference::Request::Classify(request));
    let Ok(JobResult::Classify(answer)) = answer else { panic!("{answer:?}") };
    assert_eq!(answer.labels, [Label { label: "blue".into(), index: 2, score: answer.labels[0].score }]);
    let whole: Vec<u8> = (0..47).collect();
    for index in [1, 3] {
        put("part", 1, 0, &whole, 10, index).expect("a good chunk");
    }
    assert_eq!(commit("part", 1).expect("good files").state, ModelState::Committed);
    assert_eq!(damage::found(), Vec::<String>::new());
}

#[test]
fn layout_1_becomes_this_one_and_keeps_everything() {
    upgraded(LAYOUT_1, || {
        let before = image(LAYOUT_1);
        assert_eq!(fake::stable_image().len(), before.len(), "nothing was grown");
        assert!(directory::free_bytes() > 15 << 20, "the old maps' pages are free");
        keeps_everything();
        // What it holds now opens again as this layout.
        fake::after_upgrade(|| {
            fake::run_timers(1_000);
            assert_eq!(infer(chain_request("chain")).expect("it is ready").outputs, chain_outputs(3));
            assert_eq!(models::list().expect("all are whole").len(), 6);
            assert_eq!(damage::found(), Vec::<String>::new());
        });
    });
}

#[test]
fn layout_2_keeps_everything() {
    upgraded(LAYOUT_2, keeps_everything);
}

#[test]
fn a_cost_is_kept_as_it_was() {
    upgraded(LAYOUT_1, || {
        let cost = Cost { instructions: 12_000, decode_instructions: 1_000, messages: 1 };
        assert_eq!(jobs::poll(1).expect("it is done").cost, cost);
    });
}

/// Opens a memory that holds `bytes`, and gives the trap's message and the bytes after it.
fn open_with(bytes: Vec<u8>) -> (Option<String>, Vec<u8>) {
    life(move || {
        fake::set_stable_image(&bytes);
        let opened = std::panic::catch_unwind(directory::open);
        let message = opened.err().map(|panic| panic.downcast_ref::<String>().cloned().unwrap_or_default());
        (message, fake::stable_image())
    })
}

#[test]
fn a_foreign_memory_traps_and_keeps_its_bytes() {
    let (old, new) = (|| image(LAYOUT_1), || image(LAYOUT_2));
    let page = PAGE_BYTES as usize;
    let changed = |mut bytes: Vec<u8>, changes: &[(usize, u8)]| {
        changes.iter().for_each(|(at, byte)| bytes[*at] = *byte);
        bytes
    };
    let cases = [
        (changed(old(), &[(0, b'X')]), "layout 1, whose table of memories"),
        (changed(old(), &[(3, 9)]), "layout 1, whose table of memories"),
        (changed(old(), &[(6, 128)]), "layout 1, whose table of memories"),
        (changed(old(), &[(page, b'X')]), "another canister's data"),
        (changed(new(), &[(0, b'X'), (page, b'X')]), "another canister's data"),
        (changed(new(), &[(20, 0xee), (page + 20, 0xee)]), "both copies of the superblock are damaged"),
        (vec![7; 3 * page], "another canister's data"),
        (vec![0; page], "another canister's data"),
    ];
    for (bytes, expected) in cases {
        let (message, after) = open_with(bytes.clone());
        let message = message.expect("a memory that isn't ours must trap");
        assert!(message.contains(expected) && message.contains("Nothing was changed"), "{message}");
        assert!(after == bytes, "the memory must be left as it was");
    }
}

/// Writes the dump of the layout that this version writes, when it has changed on purpose and got a new number:
/// `LAYOUT_DUMP=canister/src/testdata/layout_2.txt cargo test -p onnx-canister write_a_dump`.
#[test]
fn write_a_dump() {
    let Ok(path) = std::env::var("LAYOUT_DUMP") else { return };
    upgraded(LAYOUT_1, move || {
        let image = fake::stable_image();
        let mut dump = format!("pages {}\n", image.len() as u64 / PAGE_BYTES);
        for (row, bytes) in image.chunks(32).enumerate().filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0)) {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            dump.push_str(&format!("{:x} {hex}\n", row * 32));
        }
        std::fs::write(path, dump).expect("it can be written");
    });
}

/// The dumps' files are as the tests make them, so that what they hold isn't compared with itself.
#[test]
fn the_dump_of_layout_1_holds_the_files_that_the_tests_make() {
    let dump = image(LAYOUT_1);
    for file in [onnx::chain(3), onnx::chain(2), onnx::classifier(Some("weights.bin")).0] {
        assert!(dump.chunks(PAGE_BYTES as usize).any(|page| page.starts_with(&file)));
    }
    let manifest = manifest("part", &[("a", &(0..47).collect::<Vec<u8>>())], 10);
    upgraded(LAYOUT_1, move || assert_eq!(upload::begin(manifest).expect("known").version, 1));
}
