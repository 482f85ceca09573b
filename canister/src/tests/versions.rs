//! Versions: loading, activating, rolling back, unloading, deleting.

use crate::jobs::driver;
use crate::limits::MESSAGE_BUDGET_MIN;
use crate::loading;
use crate::runtime::fake::{self, Outcome};
use crate::settings;
use crate::store::{models, versions};
use crate::testing::{
    self, chain_request, commit, infer, life, make_chain, make_ready, manifest, model, onnx, upload_all,
};
use onnx_canister_interface::{Error, HeapPolicy, ModelState, SettingsPatch};

fn state(name: &str, version: u32) -> ModelState {
    models::state(&models::resolve(&model(name, version)).expect("it is there")).expect("it is there")
}

fn wrong_state(result: Result<impl std::fmt::Debug, Error>) -> String {
    match result {
        Err(Error::WrongState { state, .. }) => state,
        other => panic!("{other:?}"),
    }
}

#[test]
fn states_follow_each_other_and_nothing_skips_one() {
    life(|| {
        let onnx = onnx::chain(3);
        let files: [(&str, &[u8]); 1] = [("model.onnx", &onnx)];
        let version = upload_all(&manifest("m", &files, 50), &files);
        let reference = model("m", version);
        assert_eq!(wrong_state(loading::load(&reference)), "uploading");
        assert_eq!(wrong_state(versions::activate(&reference)), "uploading");
        commit("m", version).expect("good files");
        assert_eq!(wrong_state(versions::activate(&reference)), "committed");
        assert!(matches!(loading::load(&reference).expect("it is committed").state, ModelState::Loading { .. }));
        assert_eq!(wrong_state(versions::activate(&reference)), "loading");
        fake::run_timers(100);
        let info = loading::load(&reference).expect("it stays ready");
        assert_eq!((info.state, info.active), (ModelState::Ready, false));
        assert_eq!(info.inputs[0].name, "x");
        assert_eq!(info.outputs[0].shape, [Some(1), Some(4)]);
        assert!(info.load_cost.messages > 0 && info.load_cost.instructions > 0);
        assert_eq!(infer(chain_request("m")), Err(Error::NoActiveVersion { name: "m".into() }));
        assert!(versions::activate(&reference).expect("it is ready").active);
        assert!(infer(chain_request("m")).is_ok());
        assert_eq!(versions::unload(&reference).expect("nobody holds it").state, ModelState::Committed);
        assert_eq!(wrong_state(infer(chain_request("m"))), "committed");
    });
}

#[test]
fn loading_goes_on_by_itself_also_after_an_upgrade_at_every_step() {
    let steps = life(|| {
        prepare();
        fake::run_timers(1_000)
    });
    assert!(steps > 2, "{steps} messages");
    for pauses in 0..steps {
        life(move || {
            prepare();
            for _ in 0..pauses {
                assert!(matches!(state("m", 1), ModelState::Loading { .. }));
                assert!(fake::fire_timer());
            }
            fake::after_upgrade(|| {
                assert!(matches!(state("m", 1), ModelState::Loading { .. }));
                fake::run_timers(1_000);
                assert_eq!(state("m", 1), ModelState::Ready);
            });
        });
    }
}

/// A version that is about to be loaded, a message at a time.
fn prepare() {
    let onnx = onnx::chain(3);
    let files: [(&str, &[u8]); 1] = [("model.onnx", &onnx)];
    let version = upload_all(&manifest("m", &files, 50), &files);
    commit("m", version).expect("good files");
    let patch = SettingsPatch { message_budget: Some(MESSAGE_BUDGET_MIN), ..Default::default() };
    settings::update(patch).expect("in range");
    fake::set_instructions_step(1_000_000);
    loading::load(&model("m", version)).expect("it is committed");
}

#[test]
fn a_ready_version_is_ready_again_after_an_upgrade_and_stays_active() {
    life(|| {
        make_chain("m", 3);
        let expected = infer(chain_request("m")).expect("it is active").outputs;
        fake::after_upgrade(move || {
            assert_eq!(wrong_state(infer(chain_request("m"))), "loading");
            fake::run_timers(1_000);
            assert_eq!(infer(chain_request("m")).expect("it is active").outputs, expected);
        });
    });
}

#[test]
fn a_stop_while_loading_goes_on_after_it() {
    life(|| {
        prepare();
        fake::set_outcomes([Outcome::Run, Outcome::Stopping]);
        assert!(fake::fire_timer() && fake::fire_timer());
        assert_eq!(driver::open_calls(), 0);
        assert!(matches!(state("m", 1), ModelState::Loading { .. }));
        fake::set_stopping(false);
        fake::run_timers(1_000);
        assert_eq!(state("m", 1), ModelState::Ready);
    });
}

#[test]
fn a_trap_or_bytes_that_are_no_model_fail_and_keep_the_files() {
    life(|| {
        prepare();
        fake::set_outcomes([Outcome::Trap("boom".into())]);
        fake::run_timers(1_000);
        match state("m", 1) {
            ModelState::Failed { reason } => assert_eq!(reason, "trapped in loading model 'm' version 1: boom"),
            other => panic!("{other:?}"),
        }
        loading::load(&model("m", 1)).expect("its files are there");
        fake::run_timers(1_000);
        assert_eq!(state("m", 1), ModelState::Ready);

        let text = b"this is not an ONNX file, it is a sentence".as_slice();
        let version = upload_all(&manifest("text", &[("a", text)], 10), &[("a", text)]);
        commit("text", version).expect("good files");
        loading::load(&model("text", version)).expect("it is committed");
        fake::run_timers(1_000);
        match state("text", version) {
            ModelState::Failed { reason } => assert!(reason.starts_with("invalid model"), "{reason}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(wrong_state(versions::activate(&model("text", version))), "failed");
    });
}

#[test]
fn external_data_is_found_by_its_location() {
    life(|| {
        let (onnx, weights) = onnx::classifier(Some("weights.bin"));
        let files: [(&str, &[u8]); 2] = [("model.onnx", &onnx), ("weights.bin", &weights)];
        make_ready(&manifest("with", &files, 100), &files);
        let (inside, _) = onnx::classifier(None);
        make_ready(&manifest("inside", &[("model.onnx", &inside)], 100), &[("model.onnx", &inside)]);
        let answer = |name: &str| {
            let mut request = chain_request(name);
            request.inputs[0].name = "image".into();
            let pixels: Vec<f32> = (0..12).map(|at| at as f32).collect();
            let tensor = testing::f32_tensor(&[1, 3, 2, 2], &pixels);
            request.inputs[0].source = onnx_canister_interface::InputSource::Tensor(tensor);
            infer(request).expect("it is ready").outputs[0].data.clone()
        };
        assert_eq!(answer("with"), onnx::bytes(&[6.0, 22.0, 38.0]));
        assert_eq!(answer("with"), answer("inside"));
        // Without the file that its weights are in, a model can't be loaded.
        let version = upload_all(&manifest("lacks", &[("model.onnx", &onnx)], 100), &[("model.onnx", &onnx)]);
        commit("lacks", version).expect("good files");
        loading::load(&model("lacks", version)).expect("it is committed");
        fake::run_timers(1_000);
        assert!(matches!(state("lacks", version), ModelState::Failed { reason } if reason.contains("weights.bin")));
    });
}

#[test]
fn activate_switches_and_rollback_switches_back() {
    life(|| {
        make_chain("m", 3);
        let first = infer(chain_request("m")).expect("it is active").outputs;
        assert!(matches!(versions::rollback("m"), Err(Error::InvalidArgument { .. })));
        let onnx = onnx::chain(2);
        let files: [(&str, &[u8]); 1] = [("model.onnx", &onnx)];
        assert_eq!(make_ready(&manifest("m", &files, 64), &files), 2);
        let second = infer(chain_request("m")).expect("it is active").outputs;
        assert_ne!(first, second);
        for (version, expected) in [(1, &first), (2, &second), (1, &first)] {
            assert_eq!(versions::rollback("m"), Ok(version));
            assert_eq!(&infer(chain_request("m")).expect("it is active").outputs, expected);
        }
        // The version before can't be gone back to once it is unloaded or deleted.
        versions::unload(&model("m", 2)).expect("nobody holds it");
        assert_eq!(wrong_state(versions::rollback("m")), "committed");
        versions::delete(&model("m", 2)).expect("nobody holds it");
        assert!(matches!(versions::rollback("m"), Err(Error::InvalidArgument { .. })));
        versions::delete(&model("m", 1)).expect("nobody holds it");
        let gone = Error::ModelNotFound { name: "m".into(), version: None };
        assert_eq!(infer(chain_request("m")), Err(gone.clone()));
        assert_eq!(versions::rollback("m"), Err(gone));
    });
}

#[test]
fn what_can_not_be_meant_is_refused() {
    life(|| {
        make_chain("m", 2);
        let place = |result: Result<_, Error>| match result {
            Err(Error::InvalidArgument { place, .. }) => place,
            other => panic!("{other:?}"),
        };
        assert_eq!(place(versions::activate(&model("m", None)).map(|_| ())), "model.version");
        assert_eq!(place(versions::delete(&model("m", None))), "model.version");
        assert_eq!(place(versions::unload(&model("NO", None)).map(|_| ())), "model.name");
        assert_eq!(place(versions::rollback("").map(|_| ())), "name");
        let missing = Error::ModelNotFound { name: "m".into(), version: Some(9) };
        assert_eq!(versions::delete(&model("m", 9)), Err(missing));
    });
}

#[test]
fn the_least_recently_used_gives_way_if_asked() {
    life(|| {
        for name in ["a", "b", "c", "d"] {
            make_chain(name, 2);
            let key = models::resolve(&model(name, 1)).expect("it is there");
            models::update(&key, |record| record.heap_bytes = 1 << 30).expect("it is there");
        }
        versions::unload(&model("d", 1)).expect("nobody holds it");
        let used = 3_u64 << 30;
        fake::set_heap_used_bytes(used);
        let key = models::resolve(&model("d", 1)).expect("it is there");
        models::update(&key, |record| record.files[0].size_bytes = 1_000 << 20).expect("it is there");
        let full = Error::HeapFull { needed_bytes: 1_050 << 20, free_bytes: (1 << 30) - (128 << 20) };
        let load = || loading::load(&model("d", 1)).map(|info| info.name);
        assert_eq!(load(), Err(full.clone()));
        let patch = |policy| SettingsPatch { heap_policy: Some(policy), ..Default::default() };
        settings::update(patch(HeapPolicy::EvictLeastRecentlyUsed)).expect("in range");
        // What a job holds stays, and of the others the one that was used before the other goes.
        infer(chain_request("b")).expect("it is ready");
        let job = testing::start(chain_request("a")).expect("it is queued");
        assert_eq!(load(), Ok("d".into()));
        let states = ["a", "b", "c"].map(|name| state(name, 1));
        assert_eq!(states, [ModelState::Ready, ModelState::Ready, ModelState::Committed]);
        assert!(matches!(state("d", 1), ModelState::Loading { .. }));
        crate::jobs::cancel(job).expect("it is the caller's");
        versions::unload(&model("d", 1)).expect("nobody holds it");
        // More than all of them together: none is unloaded in vain.
        models::update(&key, |record| record.files[0].size_bytes = 4 << 30).expect("it is there");
        assert!(matches!(load(), Err(Error::HeapFull { .. })));
        assert_eq!(["a", "b"].map(|name| state(name, 1)), [ModelState::Ready, ModelState::Ready]);
    });
}

#[test]
fn a_model_that_the_heap_can_not_take_is_refused_before_it_is_loaded() {
    life(|| {
        make_chain("m", 2);
        versions::unload(&model("m", 1)).expect("nobody holds it");
        let key = models::resolve(&model("m", 1)).expect("it is there");
        models::update(&key, |record| record.files[0].size_bytes = 4 << 30).expect("it is there");
        match loading::load(&model("m", 1)) {
            Err(Error::HeapFull { needed_bytes, free_bytes }) => assert!(needed_bytes > free_bytes),
            other => panic!("{other:?}"),
        }
        assert_eq!(state("m", 1), ModelState::Committed);
    });
}

#[test]
fn room_is_made_for_what_weights_become_once_that_is_known() {
    life(|| {
        let weight = onnx::tensor("w", &[64, 64], &vec![0.5; 4_096], None);
        let nodes = [onnx::node("MatMul", &["x", "w"], "y")];
        let file = onnx::model(&nodes, &[weight], &[onnx::value("x", &[1, 64])], &[onnx::value("y", &[1, 64])]);
        let files: [(&str, &[u8]); 1] = [("model.onnx", &file)];
        let manifest = manifest("w", &files, 10_000);
        let version = upload_all(&manifest, &files);
        commit("w", version).expect("all is there");
        loading::load(&model("w", version)).expect("there is room");
        // Something else has taken it since.
        fake::set_heap_used_bytes((4 << 30) - (128 << 20) - 10_000);
        fake::run_timers(1_000);
        match state("w", version) {
            ModelState::Failed { reason } => assert_eq!(reason, "heap: 17203 bytes needed, 10000 free"),
            other => panic!("{other:?}"),
        }
    });
}
