//! Upload and commit: any order, any pause, any mistake.

use crate::jobs::driver;
use crate::limits::MESSAGE_BUDGET_MIN;
use crate::runtime::fake::{self, Outcome};
use crate::settings;
use crate::stable::directory;
use crate::store::upload;
use crate::store::{models, versions};
use crate::testing::{commit, life, manifest, model, put, upload_all};
use onnx_canister_interface::{Error, MissingChunks, ModelState, SettingsPatch};
use serde_bytes::{ByteBuf, Bytes};

const SIZE: usize = 7;

fn bytes(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

fn state(version: u32) -> ModelState {
    models::state(&models::resolve(&model("m", version)).expect("it is there")).expect("it is there")
}

/// Every order of five elements.
fn orders() -> Vec<Vec<u32>> {
    let mut orders = vec![vec![]];
    for _ in 0..5 {
        orders = orders
            .into_iter()
            .flat_map(|order: Vec<u32>| {
                (0..5)
                    .filter(|next| !order.contains(next))
                    .map(|next| [&order[..], &[next]].concat())
                    .collect::<Vec<_>>()
            })
            .collect();
    }
    orders
}

#[test]
fn chunks_come_in_every_order_and_twice() {
    life(|| {
        let (a, b) = (bytes(2 * SIZE + 1, 1), bytes(2 * SIZE, 2));
        let files: [(&str, &[u8]); 2] = [("a", &a), ("b", &b)];
        let orders = orders();
        assert_eq!(orders.len(), 120);
        for (number, order) in orders.iter().enumerate() {
            let mut manifest = manifest("m", &files, SIZE as u32);
            manifest.description = number.to_string();
            let version = upload::begin(manifest.clone()).expect("a good manifest").version;
            for (stored, chunk) in order.iter().enumerate() {
                let (file, index) = if *chunk < 3 { (0, *chunk) } else { (1, chunk - 3) };
                let missing = upload::missing_chunks(&model("m", version)).expect("it is there");
                let told: u32 = missing.iter().map(|run| run.count).sum();
                assert_eq!(told as usize, 5 - stored);
                assert!(
                    missing.iter().any(|run| run.file == file && (run.first..run.first + run.count).contains(&index))
                );
                let receipt = put("m", version, file, files[file as usize].1, SIZE, index).expect("a good chunk");
                assert_eq!((receipt.already_stored, receipt.chunks_stored), (false, stored as u32 + 1));
                let again = put("m", version, file, files[file as usize].1, SIZE, index).expect("a good chunk");
                assert_eq!((again.already_stored, again.chunks_stored), (true, stored as u32 + 1));
            }
            assert_eq!(upload::missing_chunks(&model("m", version)), Ok(vec![]));
            assert_eq!(commit("m", version).expect("good files").state, ModelState::Committed);
            assert_eq!(
                upload::begin(manifest).expect("known").version,
                version,
                "an equal manifest is the same upload"
            );
            versions::delete(&model("m", version)).expect("nobody holds it");
        }
    });
}

#[test]
fn an_upload_outlives_an_upgrade() {
    life(|| {
        let a = bytes(5 * SIZE, 1);
        let manifest = manifest("m", &[("a", &a)], SIZE as u32);
        let version = upload::begin(manifest.clone()).expect("a good manifest").version;
        for index in [0, 3, 4] {
            put("m", version, 0, &a, SIZE, index).expect("a good chunk");
        }
        fake::after_upgrade(move || {
            assert_eq!(upload::begin(manifest).expect("known").version, version);
            let expected = vec![MissingChunks { file: 0, first: 1, count: 2 }];
            assert_eq!(upload::missing_chunks(&model("m", version)), Ok(expected));
            for index in [1, 2] {
                put("m", version, 0, &a, SIZE, index).expect("a good chunk");
            }
            assert_eq!(commit("m", version).expect("good files").state, ModelState::Committed);
        });
    });
}

#[test]
fn a_bad_chunk_is_refused_with_what_is_wrong() {
    life(|| {
        let a = bytes(2 * SIZE + 1, 1);
        upload::begin(manifest("m", &[("a", &a)], SIZE as u32)).expect("a good manifest");
        let put = |version, file, index, bytes: &[u8]| {
            let bytes = Bytes::new(bytes);
            upload::put_chunk(&upload::PutChunkBorrowed { name: "m".into(), version, file, index, bytes })
        };
        let not_found = Error::ModelNotFound { name: "m".into(), version: Some(2) };
        assert_eq!(put(2, 0, 0, &a[..SIZE]), Err(not_found));
        assert!(matches!(put(1, 1, 0, &a[..SIZE]), Err(Error::InvalidArgument { place, .. }) if place == "file"));
        assert_eq!(put(1, 0, 3, &a[..SIZE]), Err(Error::ChunkOutOfRange { file: 0, index: 3, chunks: 3 }));
        let size = |index, expected_bytes, got_bytes| Error::ChunkSize { file: 0, index, expected_bytes, got_bytes };
        assert_eq!(put(1, 0, 0, &a[..SIZE - 1]), Err(size(0, 7, 6)));
        assert_eq!(put(1, 0, 2, &a[..SIZE]), Err(size(2, 1, 7)));
        match put(1, 0, 0, &a[1..SIZE + 1]) {
            Err(Error::ChunkHash { file: 0, index: 0, expected_sha256, got_sha256 }) => {
                assert_eq!((expected_sha256.len(), got_sha256.len()), (32, 32));
                assert_ne!(expected_sha256, got_sha256);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(state(1), ModelState::Uploading { chunks_stored: 0, chunks_total: 3 });
    });
}

#[test]
fn commit_tells_what_is_missing_and_what_does_not_match() {
    life(|| {
        let (a, b) = (bytes(2 * SIZE, 1), bytes(SIZE, 2));
        let files: [(&str, &[u8]); 2] = [("a", &a), ("b", &b)];
        let good = manifest("m", &files, SIZE as u32);
        upload::begin(good.clone()).expect("a good manifest");
        put("m", 1, 0, &a, SIZE, 0).expect("a good chunk");
        assert_eq!(commit("m", 1), Err(Error::ChunksMissing { missing: 2, first_file: 0, first_index: 1 }));
        assert!(commit("m", 2).is_err());

        let mut wrong = good;
        wrong.files[1].sha256 = ByteBuf::from(vec![7; 32]);
        let version = upload_all(&wrong, &files);
        assert_eq!(version, 2);
        for _ in 0..2 {
            match commit("m", 2) {
                Err(Error::FileHash { file: 1, name, expected_sha256, got_sha256 }) => {
                    assert_eq!((name.as_str(), &expected_sha256[..]), ("b", &[7_u8; 32][..]));
                    assert_eq!(got_sha256.len(), 32);
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(state(2), ModelState::Uploading { chunks_stored: 3, chunks_total: 3 });
        }
    });
}

/// Hashing that looks at its budget after every window, with windows that are most of a file.
fn slow() {
    let patch =
        SettingsPatch { message_budget: Some(MESSAGE_BUDGET_MIN), max_call_messages: Some(1), ..Default::default() };
    settings::update(patch).expect("in range");
    fake::set_instructions_step(1_000_000);
}

/// Uploads three files of two windows each; every message of a slow commit hashes one window.
fn upload_large() -> Vec<Vec<u8>> {
    let contents: Vec<Vec<u8>> = (0..3).map(|seed| bytes((1 << 20) + 100, seed)).collect();
    let files: Vec<(&str, &[u8])> = ["a", "b", "c"].into_iter().zip(contents.iter().map(Vec::as_slice)).collect();
    upload_all(&manifest("m", &files, 1_900_000), &files);
    slow();
    contents
}

#[test]
fn commit_pauses_everywhere_and_goes_on_by_itself() {
    life(|| {
        upload_large();
        let total = 3 * ((1 << 20) + 100);
        let info = commit("m", 1).expect("it goes on by itself");
        assert_eq!(info.state, ModelState::Committing { bytes_done: 1 << 20, bytes_total: total });
        assert!(matches!(put("m", 1, 0, &bytes(7, 0), 7, 0), Err(Error::ChunkSize { .. })));
        let mut seen = vec![];
        while fake::fire_timer() {
            seen.push(state(1));
        }
        let paused = |bytes_done| ModelState::Committing { bytes_done, bytes_total: total };
        let file = (1 << 20) + 100;
        let expected = [
            paused(file),
            paused(file + (1 << 20)),
            paused(2 * file),
            paused(2 * file + (1 << 20)),
            ModelState::Committed,
        ];
        assert_eq!(seen, expected);
    });
}

#[test]
fn commit_resumes_after_an_upgrade_at_every_pause() {
    for pauses in 0..5 {
        life(move || {
            upload_large();
            commit("m", 1).expect("it goes on by itself");
            for _ in 0..pauses {
                assert!(fake::fire_timer());
            }
            let before = state(1);
            fake::after_upgrade(move || {
                assert_eq!(state(1), before, "the place is kept");
                slow();
                assert_eq!(fake::run_timers(10), 5 - pauses, "nothing is hashed twice");
                assert_eq!(state(1), ModelState::Committed);
            });
        });
    }
}

#[test]
fn commit_waits_over_messages_and_meets_stops_and_traps() {
    life(|| {
        upload_large();
        let patch = SettingsPatch { max_call_messages: Some(100), ..Default::default() };
        settings::update(patch).expect("in range");
        fake::set_outcomes([Outcome::Run, Outcome::Trap("boom".into())]);
        match commit("m", 1) {
            Err(Error::Trapped { place, message }) => {
                assert_eq!((place.as_str(), message.as_str()), ("committing model 'm' version 1", "boom"));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(state(1), ModelState::Uploading { chunks_stored: 3, chunks_total: 3 });

        fake::set_outcomes([Outcome::Run, Outcome::Stopping]);
        let interrupted = commit("m", 1).expect("it goes on after the stop").state;
        assert!(matches!(interrupted, ModelState::Committing { bytes_done, .. } if bytes_done > 1 << 20));
        assert_eq!(driver::open_calls(), 0);
        fake::set_stopping(false);
        assert_eq!(commit("m", 1).expect("good files").state, ModelState::Committed);
        assert_eq!(commit("m", 1).expect("it stays so").state, ModelState::Committed);
    });
}

#[test]
fn deleting_gives_everything_back() {
    life(|| {
        let a = bytes(200_000, 1);
        let files: [(&str, &[u8]); 1] = [("a", &a)];
        upload_all(&manifest("m", &files, 100_000), &files);
        let held =
            models::info(&models::resolve(&model("m", 1)).expect("it is there")).expect("it is there").stable_bytes;
        assert_eq!(directory::free_bytes(), 0);
        versions::delete(&model("m", 1)).expect("nobody holds it");
        assert_eq!(directory::free_bytes(), held);
        assert_eq!(models::list(), Ok(vec![]));
        let stable_bytes = crate::runtime::stable_bytes();
        upload_all(&manifest("m", &files, 100_000), &files);
        assert_eq!((directory::free_bytes(), crate::runtime::stable_bytes()), (0, stable_bytes));
    });
}

#[test]
fn too_large_or_too_poor_is_refused_whole() {
    life(|| {
        let mut large = manifest("m", &[("a", &[1])], 1);
        large.files[0].size_bytes = 4 << 30;
        large.chunk_size = 1_900_000;
        let chunks = (4_u64 << 30).div_ceil(1_900_000) as usize;
        large.files[0].chunk_sha256 = vec![ByteBuf::from(vec![0; 32]); chunks];
        fake::set_balance(1);
        assert!(matches!(upload::begin(large), Err(Error::CyclesLow { .. })));
        assert_eq!(models::list(), Ok(vec![]));
    });
}
