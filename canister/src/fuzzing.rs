//! What the fuzzers of `fuzz/` call: bytes in, and every promise that must hold for any bytes checked.

use crate::arguments;
use crate::limits::HASH_WINDOW_BYTES;
use crate::runtime::fake;
use crate::stable::{PAGE_BYTES, directory};
use crate::store::upload::{self, PutChunkBorrowed};
use crate::store::{commit, manifest as manifests, models, versions};
use onnx_canister_interface::{FileManifest, Manifest, ModelRef, ModelState, Task};
use serde_bytes::{ByteBuf, Bytes};
use sha2::{Digest, Sha256};
use std::cell::RefCell;

/// Runs `f` as a canister's life of its own.
fn life(f: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        if let Err(panic) = scope.spawn(f).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Bytes as the argument of `begin_upload`.
pub fn manifest(data: &[u8]) {
    let Ok(manifest) = arguments::decode_borrowed::<Manifest>("begin_upload", data) else { return };
    let checked = manifests::check(&manifest);
    // Room for more than this is the network's to give; what is checked is the same.
    let bytes: u64 = manifest.files.iter().map(|file| file.size_bytes).fold(0, u64::saturating_add);
    if bytes > HASH_WINDOW_BYTES as u64 {
        return;
    }
    life(|| match (checked, upload::begin(manifest.clone())) {
        (Ok(()), Ok(status)) => {
            let model = ModelRef { name: manifest.name.clone(), version: Some(status.version) };
            let missing = upload::missing_chunks(&model).expect("it has begun");
            let chunks: usize = manifest.files.iter().map(|file| file.chunk_sha256.len()).sum();
            assert_eq!(missing.iter().map(|run| run.count as usize).sum::<usize>(), chunks);
            assert_eq!(upload::begin(manifest).expect("it has begun").version, status.version);
        }
        (Err(_), Err(_)) => {}
        (checked, begun) => panic!("{checked:?}, {begun:?}"),
    });
}

const CHUNK_SIZE: u32 = 5;

/// Bytes as calls: each takes a few and does what they say to one of two models.
pub fn chunks(data: &[u8]) {
    let contents: [&[u8]; 2] = [b"seventeen bytes !", b"12345"];
    let hash = |bytes: &[u8]| ByteBuf::from(Sha256::digest(bytes).to_vec());
    let manifest = |name: &str| Manifest {
        name: name.into(),
        files: (0_u8..)
            .zip(contents)
            .map(|(number, bytes)| FileManifest {
                name: format!("file {number}"),
                size_bytes: bytes.len() as u64,
                sha256: hash(bytes),
                chunk_sha256: bytes.chunks(CHUNK_SIZE as usize).map(hash).collect(),
            })
            .collect(),
        chunk_size: CHUNK_SIZE,
        task: Task::Infer,
        preprocessing: None,
        labels: Vec::new(),
        description: String::new(),
        weights: None,
    };
    // What should be stored: chunks by model, and whether it is committed.
    thread_local! {
        static IMAGE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    let mut stored: [Option<(u32, [bool; 5], bool)>; 2] = [None, None];
    let mut calls = data.chunks_exact(4);
    let lives = data.first().copied().unwrap_or_default() % 3 + 1;
    for _ in 0..lives {
        let image = IMAGE.with_borrow(Clone::clone);
        let (calls, stored, manifest) = (&mut calls, &mut stored, &manifest);
        let after = std::thread::scope(|scope| {
            let life = scope.spawn(move || {
                if !image.is_empty() {
                    fake::set_stable_image(&image);
                    crate::lifecycle::post_upgrade(None);
                }
                for call in calls.take(20) {
                    one_call(call, stored, manifest, &contents);
                }
                fake::stable_image()
            });
            match life.join() {
                Ok(image) => image,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        });
        IMAGE.set(after);
    }
    IMAGE.set(Vec::new());
}

fn one_call(
    call: &[u8],
    stored: &mut [Option<(u32, [bool; 5], bool)>; 2],
    manifest: &impl Fn(&str) -> Manifest,
    contents: &[&[u8]; 2],
) {
    let which = usize::from(call[1] % 2);
    let name = ["a", "b"][which];
    let version = stored[which].map_or(1, |(version, ..)| version);
    let reference = ModelRef { name: name.into(), version: Some(version) };
    match call[0] % 8 {
        0 => {
            let begun = upload::begin(manifest(name)).expect("a good manifest");
            stored[which].get_or_insert((begun.version, [false; 5], false));
        }
        1..=4 => {
            let (file, index) = (u32::from(call[2] % 3), u32::from(call[3] % 6));
            let whole = contents[(call[2] % 2) as usize];
            let start = (index * CHUNK_SIZE) as usize % whole.len();
            let end = whole.len().min(start + CHUNK_SIZE as usize - usize::from(call[2] / 128));
            let bytes = Bytes::new(&whole[start..end]);
            let chunk = PutChunkBorrowed { name: name.into(), version, file, index, bytes };
            let expected = stored[which].is_some() && {
                let file = file as usize;
                contents.get(file).is_some_and(|content| {
                    content.chunks(CHUNK_SIZE as usize).nth(index as usize) == Some(&whole[start..end])
                })
            };
            assert_eq!(upload::put_chunk(&chunk).is_ok(), expected, "{call:?}");
            if let (true, Some((_, chunks, _))) = (expected, &mut stored[which]) {
                chunks[file as usize * 4 + index as usize] = true;
            }
        }
        5 => {
            let complete = stored[which].is_some_and(|(_, chunks, _)| chunks.iter().all(|chunk| *chunk));
            let answer = fake::block_on(commit::commit(reference));
            assert_eq!(answer.is_ok(), complete, "{answer:?}");
            if let (true, Some((_, _, committed))) = (complete, &mut stored[which]) {
                *committed = true;
            }
        }
        6 => {
            assert_eq!(versions::delete(&reference).is_ok(), stored[which].is_some());
            stored[which] = None;
        }
        _ => {
            let missing = upload::missing_chunks(&reference).map(|runs| runs.iter().map(|run| run.count).sum::<u32>());
            let expected = stored[which].map(|(_, chunks, _)| chunks.iter().filter(|chunk| !**chunk).count() as u32);
            assert_eq!(missing.ok(), expected);
            let state = models::resolve(&reference).and_then(|key| models::state(&key)).ok();
            let committed = stored[which].map(|(_, _, committed)| committed);
            assert_eq!(state.map(|state| state == ModelState::Committed), committed);
        }
    }
}

/// Bytes as changes to stable memory: where, in which page, and to what.
pub fn stored_bytes(data: &[u8]) {
    thread_local! {
        static WHOLE: Vec<u8> = whole_image();
    }
    let mut image = WHOLE.with(Clone::clone);
    let pages = image.len() as u64 / PAGE_BYTES;
    for change in data.chunks_exact(4) {
        // Most of a page is unused: three quarters of the changes go to its beginning.
        let within = u64::from(u16::from_le_bytes([change[1], change[2]]));
        let within = if change[0] & 0xc0 == 0 { within } else { within % 1_024 };
        let at = u64::from(change[0] & 0x3f) % pages * PAGE_BYTES + within;
        image[at as usize] = change[3];
    }
    refusals_are_no_findings();
    let opened = std::panic::catch_unwind(|| {
        life(|| {
            fake::set_stable_image(&image);
            crate::lifecycle::post_upgrade(None);
            for info in models::list().expect("a record that opens is whole") {
                let reference = ModelRef { name: info.name, version: Some(info.version) };
                let _ = upload::missing_chunks(&reference);
                let _ = versions::delete(&reference);
            }
            for job in 1..4 {
                let _ = crate::jobs::poll(job);
            }
            // Whatever was there, something new can be stored, and is whole afterwards.
            let _ = directory::free_bytes();
            let blob = crate::stable::Blob::store(&[7; 100]).expect("there is room");
            assert_eq!(blob.read(), Ok(vec![7; 100]));
        });
    });
    if let Err(panic) = opened {
        let message = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        assert!(is_refusal(&message), "{message}");
    }
}

fn is_refusal(message: &str) -> bool {
    message.ends_with("Nothing was changed.") || message.contains("Nothing was changed: install")
}

/// A fuzzer ends at every panic. A trap that refuses to open a memory is one natively, and is what shall happen.
fn refusals_are_no_findings() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let message = info.payload().downcast_ref::<String>().cloned().unwrap_or_default();
            if !is_refusal(&message) {
                hook(info);
            }
        }));
    });
}

/// A canister with two models, one of them committed.
fn whole_image() -> Vec<u8> {
    let mut image = Vec::new();
    life(|| {
        for name in ["a", "b"] {
            let content = b"some bytes of a file";
            let hash = ByteBuf::from(Sha256::digest(content).to_vec());
            let manifest = Manifest {
                name: name.into(),
                files: vec![FileManifest {
                    name: "file".into(),
                    size_bytes: content.len() as u64,
                    sha256: hash.clone(),
                    chunk_sha256: vec![hash],
                }],
                chunk_size: 100,
                task: Task::Infer,
                preprocessing: None,
                labels: Vec::new(),
                description: String::new(),
                weights: None,
            };
            let version = upload::begin(manifest).expect("a good manifest").version;
            let bytes = Bytes::new(content);
            let chunk = PutChunkBorrowed { name: name.into(), version, file: 0, index: 0, bytes };
            upload::put_chunk(&chunk).expect("a good chunk");
        }
        let model = ModelRef { name: "a".into(), version: Some(1) };
        fake::block_on(commit::commit(model)).expect("good files");
        image = fake::stable_image();
    });
    image
}

#[cfg(test)]
mod tests {
    //! A few thousand inputs of each kind, the same every time: what a fuzzer begins with.
    use super::*;

    /// A linear congruential sequence.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u8 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 56) as u8
        }

        fn bytes(&mut self, length: usize) -> Vec<u8> {
            (0..length).map(|_| self.next()).collect()
        }
    }

    #[test]
    fn manifests_with_bytes_changed() {
        let good = crate::testing::manifest("m", &[("a", &[1, 2, 3]), ("b", &[4])], 2);
        let encoded = candid::encode_one(&good).expect("it encodes");
        manifest(&encoded);
        let mut random = Random(1);
        for _ in 0..3_000 {
            let mut changed = encoded.clone();
            for _ in 0..random.next() % 4 + 1 {
                let at = (usize::from(random.next()) << 8 | usize::from(random.next())) % changed.len();
                changed[at] = random.next();
            }
            manifest(&changed);
        }
    }

    #[test]
    fn calls_in_any_order() {
        let mut random = Random(2);
        for _ in 0..200 {
            chunks(&random.bytes(240));
        }
    }

    #[test]
    fn stable_memory_with_bytes_changed() {
        let mut random = Random(3);
        for changes in 1..400 {
            stored_bytes(&random.bytes(4 * (changes % 8 + 1)));
        }
    }
}
