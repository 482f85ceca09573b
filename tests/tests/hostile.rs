//! What strangers send: bytes that are no argument, on every endpoint, and models that are no models.

use candid::{Encode, Principal};
use end_to_end_tests::environment;
use end_to_end_tests::models::{MLP, assert_close, input, manifest, mlp};
use end_to_end_tests::onnx::constant_of_computed_shape;
use end_to_end_tests::pocket::{Model, Pocket};
use onnx_canister_interface::{Health, InferenceAccess, ModelInfo, ModelState, Settings, SettingsPatch};

const UPDATES: [&str; 17] = [
    "begin_upload",
    "put_chunk",
    "commit",
    "load",
    "unload",
    "activate",
    "rollback",
    "delete_model",
    "classify",
    "infer",
    "profile",
    "put_input",
    "delete_input",
    "start_classify",
    "start_infer",
    "cancel",
    "update_settings",
];
const QUERIES: [&str; 7] =
    ["missing_chunks", "model_info", "classify_query", "infer_query", "poll", "read_output", "http_request"];

/// Instructions that a message of nonsense may cost the canister, whatever it is.
const NONSENSE_INSTRUCTIONS_MAX: u128 = 100_000_000;

/// Bytes that are an argument of none of the methods.
fn nonsense() -> Vec<(&'static str, Vec<u8>)> {
    // A field that nobody asked for: a vector of 2^32 - 1 nulls, in a few bytes.
    let bomb = b"DIDL\x02\x6d\x7f\x6c\x01\x00\x00\x01\x01\xff\xff\xff\xff\x0f".to_vec();
    // A type that contains itself, and a value as deep as the message is long.
    let mut deep = b"DIDL\x01\x6e\x00\x01\x00".to_vec();
    deep.extend(vec![1; 200_000]);
    deep.push(0);
    // A type table of 60,000 entries.
    let mut table = b"DIDL\xe0\xd4\x03".to_vec();
    table.extend([0x6e, 0x7f].repeat(60_000));
    table.extend([0]);
    let overlong_text = b"DIDL\x00\x01\x71\x02\xc0\xaf".to_vec();
    vec![
        ("no Candid", b"neither this nor that".to_vec()),
        ("a header that ends", b"DIDL\x05".to_vec()),
        ("an integer", Encode!(&candid::Int::from(-7)).expect("it encodes")),
        ("a blob", Encode!(&vec![0_u8; 1_000]).expect("it encodes")),
        ("a principal", Encode!(&Principal::anonymous()).expect("it encodes")),
        ("a length beyond the message", b"DIDL\x00\x01\x71\xff\xff\xff\xff\x0f".to_vec()),
        ("text that is not UTF-8", overlong_text),
        ("a bomb", bomb),
        ("nesting", deep),
        ("a table of types", table),
        ("a record of other fields", Encode!(&Health::default_for_test()).expect("it encodes")),
    ]
}

trait DefaultForTest {
    fn default_for_test() -> Self;
}

impl DefaultForTest for Health {
    fn default_for_test() -> Self {
        Health {
            version: String::new(),
            cycle_balance: 0_u8.into(),
            idle_cycles_per_day: 0_u8.into(),
            days_left: None,
            below_reserve: false,
            stable_bytes: 0,
            heap_bytes: 0,
            models_ready: 0,
            jobs_pending: 0,
            open_calls: 0,
            heap_used_bytes: 0,
            damages: vec![],
        }
    }
}

#[test]
fn bytes_that_are_no_argument_are_rejected_on_every_endpoint_and_cheaply() {
    let everyone = SettingsPatch { inference_access: Some(InferenceAccess::Everyone), ..SettingsPatch::default() };
    let pocket = Pocket::new(Some(everyone));
    let model = pocket.deploy_model(&mlp("mlp"));
    let settings: Settings = pocket.query_plain("get_settings");
    for (what, bytes) in nonsense() {
        for method in UPDATES {
            let before = pocket.ic.cycle_balance(pocket.id);
            let answer = pocket.ic.update_call(pocket.id, pocket.caller, method, bytes.clone());
            let spent = before.saturating_sub(pocket.ic.cycle_balance(pocket.id));
            // Ingress costs 2,000 cycles a byte, whatever the canister does.
            let executed = spent.saturating_sub(bytes.len() as u128 * 2_000);
            assert!(executed < NONSENSE_INSTRUCTIONS_MAX, "{what} to {method}: {executed} cycles");
            // Every field of a change of settings may be left out: by Candid's rules another record is one, of nothing.
            if (what, method) == ("a record of other fields", "update_settings") {
                let answer: Result<Settings, onnx_canister_interface::Error> =
                    candid::decode_one(&answer.expect("a change of nothing")).expect("it decodes");
                assert_eq!(answer.expect("a change of nothing"), settings);
            } else {
                check(what, method, answer);
            }
        }
        for method in QUERIES {
            check(what, method, pocket.ic.query_call(pocket.id, pocket.caller, method, bytes.clone()));
        }
    }
    assert_eq!(pocket.query_plain::<Settings>("get_settings"), settings);
    let health: Health = pocket.query_plain("health");
    assert_eq!((health.jobs_pending, health.open_calls, health.damages.len()), (0, 0, 0));
    assert_eq!(pocket.query::<_, Vec<ModelInfo>>("list_models", ()).expect("list_models").len(), 1);
    assert_close(&pocket.infer(&model, &input()).expect("infer"), &MLP.reference(&input()));
}

/// An upgrade's argument is the installation's. It is optional, so by Candid's rules a value of any other type is null.
#[test]
fn bytes_that_are_no_argument_install_nothing() {
    const OF_ANOTHER_TYPE: [&str; 4] = ["an integer", "a blob", "a principal", "a record of other fields"];
    let everyone = SettingsPatch { inference_access: Some(InferenceAccess::Everyone), ..SettingsPatch::default() };
    let pocket = Pocket::new(Some(everyone));
    let model = pocket.deploy_model(&mlp("mlp"));
    let settings: Settings = pocket.query_plain("get_settings");
    let wasm = environment::canister_wasm().expect("the canister's Wasm");
    for (what, bytes) in nonsense() {
        let before = pocket.ic.cycle_balance(pocket.id);
        let answer = pocket.ic.upgrade_canister(pocket.id, wasm.clone(), bytes, Some(pocket.caller));
        let spent = before.saturating_sub(pocket.ic.cycle_balance(pocket.id));
        println!("{what}: {spent} cycles, {answer:?}");
        if OF_ANOTHER_TYPE.contains(&what) {
            answer.unwrap_or_else(|reject| panic!("{what}: {reject}"));
            pocket.tick_until(what, || pocket.info(&model).state == ModelState::Ready);
        } else {
            let message = answer.expect_err(what).to_string();
            let says_so = ["decode", "Candid", "argument", "parse", "skipping", "quota", "UTF-8", "utf-8"];
            assert!(says_so.iter().any(|word| message.contains(word)), "{what}: {message}");
            assert!(message.len() < 20_000, "{what}: a message of {} bytes", message.len());
            // The heap is as it was too.
            assert_eq!(pocket.info(&model).state, ModelState::Ready, "{what}");
        }
        assert_eq!(pocket.query_plain::<Settings>("get_settings"), settings, "{what}");
        assert_close(&pocket.infer(&model, &input()).expect("infer"), &MLP.reference(&input()));
    }
}

/// A reject that names what could not be decoded, or an answer that is an error: a text may be a name of nothing.
fn check(what: &str, method: &str, answer: Result<Vec<u8>, pocket_ic::RejectResponse>) {
    match answer {
        Err(reject) => {
            let message = reject.to_string();
            let says_so = ["decode", "Candid", "argument", "parse", "skipping", "quota", "UTF-8", "utf-8"];
            assert!(says_so.iter().any(|word| message.contains(word)), "{what} to {method}: {message}");
            assert!(message.len() < 20_000, "{what} to {method}: a message of {} bytes", message.len());
        }
        Ok(bytes) => {
            let answer: Result<candid::Reserved, onnx_canister_interface::Error> =
                candid::decode_one(&bytes).unwrap_or_else(|error| panic!("{what} to {method}: {error}"));
            assert!(answer.is_err(), "{what} to {method} was taken");
        }
    }
}

#[test]
fn models_that_are_bombs_fail_and_the_others_answer() {
    let pocket = Pocket::new(None);
    let good = pocket.deploy_model(&mlp("good"));
    let cut = MLP.file();
    for (name, file) in [
        ("bomb", constant_of_computed_shape(&[1 << 12, 1 << 12])),
        ("cut", cut[..cut.len() - 1].to_vec()),
        ("noise", (0..40_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()),
    ] {
        let model = pocket.upload(&Model::new(manifest(name, 1_000_000), vec![("model.onnx".to_string(), file)]));
        let _: ModelInfo = pocket.update("load", model.clone()).expect("it is committed");
        pocket.tick_until(name, || !matches!(pocket.info(&model).state, ModelState::Loading { .. }));
        match pocket.info(&model).state {
            ModelState::Failed { reason } => {
                println!("{name}: {reason}");
                assert!(reason.starts_with("invalid model") || reason.starts_with("trapped in loading model"));
            }
            other => panic!("{name}: {other:?}"),
        }
        assert_close(&pocket.infer(&good, &input()).expect("infer"), &MLP.reference(&input()));
        let _: () = pocket.update("delete_model", model).expect("delete_model");
    }
    let health: Health = pocket.query_plain("health");
    assert_eq!((health.jobs_pending, health.open_calls), (0, 0));
}
