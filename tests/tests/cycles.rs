//! A balance that runs dry: inference is refused, stored data stays.

use candid::Nat;
use end_to_end_tests::models::{MLP, assert_close, input, mlp, request};
use end_to_end_tests::pocket::Pocket;
use onnx_canister_interface::{Error, Health, InferResponse, Settings, SettingsPatch};

#[test]
fn below_the_reserve_inference_is_refused_and_a_top_up_brings_it_back() {
    let pocket = Pocket::new(None);
    let model = pocket.deploy_model(&mlp("mlp"));
    let balance = pocket.ic.cycle_balance(pocket.id);
    let health: Health = pocket.query_plain("health");
    assert!(!health.below_reserve);
    assert!(health.days_left.is_some());

    let patch = SettingsPatch { cycles_reserve: Some(Nat::from(2 * balance)), ..SettingsPatch::default() };
    let _: Settings = pocket.update("update_settings", patch).expect("update_settings");
    let refused = pocket.update::<_, InferResponse>("infer", request(&model, &input())).expect_err("below the reserve");
    assert!(matches!(refused, Error::CyclesLow { .. }), "{refused}");
    let refused = pocket.update::<_, u64>("start_infer", request(&model, &input())).expect_err("below the reserve");
    assert!(matches!(refused, Error::CyclesLow { .. }), "{refused}");
    let health: Health = pocket.query_plain("health");
    assert!(health.below_reserve);

    pocket.ic.add_cycles(pocket.id, 2 * balance);
    assert_close(&pocket.infer(&model, &input()).expect("topped up"), &MLP.reference(&input()));
}

#[test]
fn a_frozen_canister_keeps_its_models() {
    let pocket = Pocket::new(None);
    let model = pocket.deploy_model(&mlp("mlp"));
    let balance = pocket.ic.cycle_balance(pocket.id);
    // A freezing threshold that the balance can't carry: the network itself refuses every update now.
    let freeze = |seconds: u64| {
        pocket
            .ic
            .update_canister_settings(
                pocket.id,
                Some(pocket.caller),
                pocket_ic::CanisterSettings { freezing_threshold: Some(seconds.into()), ..Default::default() },
            )
            .expect("update_settings")
    };
    freeze(u64::try_from(balance / 10_000).expect("seconds"));
    let reject = pocket
        .update_as::<_, InferResponse>(pocket.caller, "infer", request(&model, &input()))
        .expect_err("the network refuses a frozen canister");
    assert!(reject.to_string().contains("CanisterOutOfCycles"), "{reject}");
    freeze(2_592_000);
    assert_close(&pocket.infer(&model, &input()).expect("thawed"), &MLP.reference(&input()));
}
