//! Memory over a canister's life: used again, never more than it takes, and kept when there is no more.

use end_to_end_tests::models::{assert_close, input, manifest};
use end_to_end_tests::onnx::Mlp;
use end_to_end_tests::pocket::{Model, Pocket};
use onnx_canister_interface::{Error, Health, ModelInfo, ModelRef, ModelState, UploadStatus};

const SMALL: Mlp = Mlp { width: 64, layers: 4 };
const LARGE: Mlp = Mlp { width: 256, layers: 12 };

fn model(name: &str, mlp: &Mlp) -> Model {
    Model::new(manifest(name, 1_000_000), vec![("mlp.onnx".to_string(), mlp.file())])
}

fn delete(pocket: &Pocket, model: &ModelRef) {
    let _: () = pocket.update("delete_model", model.clone()).expect("delete_model");
}

/// Cycles of loading and deleting.
const CYCLES: u32 = 20;

#[test]
fn twenty_cycles_of_loading_and_deleting_grow_nothing_after_the_first() {
    let pocket = Pocket::new(None);
    let x = input();
    let wide: Vec<f32> = (0..256).map(|at| (at as f32).sin()).collect();
    let mut first: Option<Health> = None;
    for cycle in 0..CYCLES {
        let small = pocket.deploy_model(&model("a", &SMALL));
        assert_close(&pocket.infer(&small, &x).expect("infer"), &SMALL.reference(&x));
        let _: ModelInfo = pocket.update("unload", small.clone()).expect("unload");
        let large = pocket.deploy_model(&model("b", &LARGE));
        assert_close(&pocket.infer(&large, &wide).expect("infer"), &LARGE.reference(&wide));
        delete(&pocket, &small);
        delete(&pocket, &large);
        let health: Health = pocket.query_plain("health");
        println!(
            "cycle {cycle}: stable {} bytes, heap {} bytes, of these {} used",
            health.stable_bytes, health.heap_bytes, health.heap_used_bytes
        );
        match &first {
            None => first = Some(health),
            Some(first) => {
                assert_eq!(health.stable_bytes, first.stable_bytes, "cycle {cycle}");
                assert_eq!(health.heap_used_bytes, first.heap_used_bytes, "cycle {cycle}");
                assert_eq!(health.heap_bytes, first.heap_bytes, "cycle {cycle}");
            }
        }
    }
}

#[test]
fn a_model_tells_the_heap_it_holds_and_gives_it_back() {
    let pocket = Pocket::new(None);
    let used = || pocket.query_plain::<Health>("health").heap_used_bytes;
    let before = used();
    let large = pocket.deploy_model(&model("b", &LARGE));
    let held = pocket.info(&large).heap_bytes;
    let weights = 12 * 256 * 256 * 4;
    assert!(held >= weights && held < 4 * weights, "{held} bytes for weights of {weights}");
    assert!(used() >= before + held * 9 / 10, "{} used before, {} after", before, used());
    let info: ModelInfo = pocket.update("unload", large).expect("unload");
    assert_eq!((info.heap_bytes, info.state), (0, ModelState::Committed));
    assert!(used() < before + weights / 2, "{} used before, {} after", before, used());
}

#[test]
fn stable_memory_that_runs_out_refuses_the_new_and_keeps_the_old() {
    let pocket = Pocket::new(None);
    let old = pocket.deploy_model(&model("old", &SMALL));
    // 130 models of 4 GiB each are more than the 500 GiB that a canister can have.
    let mut refused = None;
    for number in 0..130 {
        let mut huge = manifest(&format!("huge-{number}"), 1_900_000);
        let size_bytes = 4_u64 << 30;
        let chunks = size_bytes.div_ceil(1_900_000) as usize;
        let hash = serde_bytes::ByteBuf::from(vec![number as u8; 32]);
        huge.files = vec![onnx_canister_interface::FileManifest {
            name: "huge.onnx".to_string(),
            size_bytes,
            sha256: hash.clone(),
            chunk_sha256: vec![hash; chunks],
        }];
        if let Err(error) = pocket.update::<_, UploadStatus>("begin_upload", huge) {
            refused = Some((number, error));
            break;
        }
    }
    let (number, error) = refused.expect("500 GiB are the end");
    println!("after {number} models of 4 GiB: {error}");
    match error {
        Error::StableMemoryFull { needed_bytes, free_bytes } => {
            assert_eq!(needed_bytes, 4 << 30);
            assert!(free_bytes < needed_bytes);
        }
        other => panic!("{other}"),
    }
    assert_close(&pocket.infer(&old, &input()).expect("infer"), &SMALL.reference(&input()));
    let first = ModelRef { name: "huge-0".to_string(), version: Some(1) };
    delete(&pocket, &first);
    assert_close(
        &pocket.infer(&pocket.deploy_model(&model("new", &SMALL)), &input()).expect("infer"),
        &SMALL.reference(&input()),
    );
}
