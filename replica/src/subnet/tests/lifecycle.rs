//! Making, starting, stopping and deleting canisters; settings and who may change them.

use super::*;

#[test]
fn ids_are_given_in_order_or_chosen() {
    let mut net = Net::new();
    let first = net.create(T, None);
    assert_eq!(first, net.subnet.default_effective_canister_id());
    let chosen = canister_id(42);
    let args = ic00::ProvisionalCreateCanisterWithCyclesArgs { specified_id: Some(chosen), ..Default::default() };
    net.manage("provisional_create_canister_with_cycles", (args.clone(),)).expect("it is made");
    assert_eq!(net.cycles(&chosen), prices::PROVISIONAL_CYCLES);
    let rejection = net.manage("provisional_create_canister_with_cycles", (args,)).expect_err("it is there");
    assert_eq!(rejection.error_code, ErrorCode::CanisterIdAlreadyExists);
    let args = ic00::ProvisionalCreateCanisterWithCyclesArgs {
        specified_id: Some(Principal::anonymous()),
        ..Default::default()
    };
    let rejection = net.manage("provisional_create_canister_with_cycles", (args,)).expect_err("not a canister's id");
    assert_eq!(rejection.error_code, ErrorCode::InvalidManagementPayload);
    assert_ne!(net.create(T, None), first);
    let (low, high) = net.subnet.canister_ranges()[0];
    assert!((low..=high).contains(&first) && (low..=high).contains(&chosen));
}

#[test]
fn a_canister_makes_canisters_with_its_own_cycles() {
    let (mut net, id) = Net::with_canister();
    let management = Principal::management_canister();
    let payload = candid::encode_one(ic00::CreateCanisterArgs::default()).expect("it encodes");
    let too_little = call_argument(499_999_999_999, &management, "create_canister", &payload);
    let (code, message) = rejected(net.call(id, "call", too_little));
    assert_eq!(code, 4);
    assert!(message.starts_with("IC0403: Creating a canister requires a fee of"), "{message}");
    let balance = net.cycles(&id);
    let reply = net.call(id, "call", call_argument(3 * T as u64, &management, "create_canister", &payload));
    let made: ic00::CanisterIdRecord = candid::decode_one(&reply.expect("a reply")).expect("an id");
    assert_eq!(net.cycles(&made.canister_id), 3 * T - prices::CANISTER_CREATION);
    assert_eq!(net.subnet.controllers(&made.canister_id), Some(vec![id]));
    assert!(balance - net.cycles(&id) >= 3 * T);

    let payload = candid::encode_one(made.clone()).expect("it encodes");
    let deposit = call_argument(T as u64, &management, "deposit_cycles", &payload);
    net.call(id, "call", deposit).expect("a reply");
    assert_eq!(net.cycles(&made.canister_id), 4 * T - prices::CANISTER_CREATION);
    assert_eq!(net.manage("create_canister", (ic00::CreateCanisterArgs::default(),)), {
        Err(errors::only_canisters("create_canister"))
    });
}

#[test]
fn only_controllers_manage() {
    let (mut net, id) = Net::with_canister();
    net.sender = Principal::from_slice(&[7; 5]);
    for method in ["stop_canister", "start_canister", "uninstall_code", "delete_canister", "canister_status"] {
        assert_eq!(net.about(method, id), Err(errors::not_controller_ingress(&id, method)));
    }
    assert_eq!(
        errors::not_controller_ingress(&id, "install_code").message,
        format!("Only controllers of canister {id} can call ic00 method install_code")
    );
    assert_eq!(net.manage("no_such_method", ()), Err(errors::no_management_method("no_such_method")));
    let rejection = net.call(Principal::management_canister(), "start_canister", vec![1]).expect_err("no candid");
    assert_eq!(rejection.error_code, ErrorCode::InvalidManagementPayload);
    // A canister that is no controller hears it too, in other words.
    net.sender = Principal::anonymous();
    let other = net.create_installed();
    let payload = candid::encode_one(ic00::CanisterIdRecord { canister_id: id }).expect("it encodes");
    let management = Principal::management_canister();
    let (code, message) = rejected(net.call(other, "call", call_argument(0, &management, "stop_canister", &payload)));
    assert_eq!(code, 5);
    assert!(message.starts_with(&format!("IC0512: Only the controllers of the canister {id} can control it.")));
}

#[test]
fn stopping_waits_for_open_calls_and_refuses_new_ones() {
    let (mut net, a) = Net::with_canister();
    let b = net.create_installed();
    net.hold(&b);
    let call = net.submit(a, "call_then_inc", call_argument(0, &b, "inc", b"")).expect("accepted");
    net.subnet.execute_round();
    let args = candid::encode_one(ic00::CanisterIdRecord { canister_id: a }).expect("it encodes");
    let stop = net.submit(Principal::management_canister(), "stop_canister", args).expect("accepted");
    net.subnet.execute_round();
    assert_eq!(net.answer(&stop), None);
    assert_eq!(net.status(a).status, ic00::CanisterStatusType::Stopping);
    assert_eq!(net.call(a, "inc", vec![]), Err(errors::stopping(&a)));
    assert_eq!(net.query(a, "get", vec![]), Err(errors::stopping(&a)));
    net.release(&b);
    assert_eq!(number(net.wait(&call)), 1, "the open call's callback still runs");
    net.wait(&stop).expect("it has stopped");
    assert_eq!(net.status(a).status, ic00::CanisterStatusType::Stopped);
    assert_eq!(net.call(a, "inc", vec![]), Err(errors::stopped(&a)));
    assert_eq!(net.query(a, "get", vec![]), Err(errors::stopped_query(&a)));
    let (code, message) = rejected(net.call(b, "call", call_argument(0, &a, "inc", b"")));
    assert_eq!((code, message), (5, format!("IC0508: Canister {a} is stopped")));
    net.about("stop_canister", a).expect("stopping a stopped canister is nothing");
    net.about("start_canister", a).expect("it starts");
    assert_eq!(number(net.call(a, "inc", vec![])), 2);
}

#[test]
fn a_stopping_canister_refuses_its_own_calls() {
    // `go` calls the canister named in its argument, and after that calls itself.
    let wat = r#"(module
        (import "ic0" "msg_arg_data_size" (func $arg_size (result i32)))
        (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
        (import "ic0" "canister_self_size" (func $self_size (result i32)))
        (import "ic0" "canister_self_copy" (func $self_copy (param i32 i32 i32)))
        (import "ic0" "msg_reject_code" (func $reject_code (result i32)))
        (import "ic0" "msg_reject_msg_size" (func $reject_msg_size (result i32)))
        (import "ic0" "msg_reject_msg_copy" (func $reject_msg_copy (param i32 i32 i32)))
        (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
        (import "ic0" "msg_reply" (func $reply))
        (import "ic0" "call_new" (func $call_new (param i32 i32 i32 i32 i32 i32 i32 i32)))
        (import "ic0" "call_perform" (func $call_perform (result i32)))
        (memory 1)
        (data (i32.const 0) "inc")
        (table funcref (elem $itself $refused $done))
        (func $inc_of (param $id i32) (param $len i32) (param $on_reply i32)
          (call $call_new (local.get $id) (local.get $len) (i32.const 0) (i32.const 3)
            (local.get $on_reply) (i32.const 0) (i32.const 1) (i32.const 0))
          (drop (call $call_perform)))
        (func (export "canister_update inc") (call $reply))
        (func (export "canister_update go")
          (call $arg_copy (i32.const 16) (i32.const 0) (call $arg_size))
          (call $inc_of (i32.const 16) (call $arg_size) (i32.const 0)))
        (func $itself (param i32)
          (call $self_copy (i32.const 64) (i32.const 0) (call $self_size))
          (call $inc_of (i32.const 64) (call $self_size) (i32.const 2)))
        (func $done (param i32) (call $reply))
        (func $refused (param i32)
          (i32.store (i32.const 128) (call $reject_code))
          (call $reject_msg_copy (i32.const 132) (i32.const 0) (call $reject_msg_size))
          (call $append (i32.const 128) (i32.add (call $reject_msg_size) (i32.const 4)))
          (call $reply)))"#;
    let (mut net, other) = Net::with_canister();
    let id = net.install_wat(wat);
    assert_eq!(net.call(id, "go", other.as_slice().to_vec()), Ok(vec![]));
    net.hold(&other);
    let call = net.submit(id, "go", other.as_slice().to_vec()).expect("accepted");
    net.subnet.execute_round();
    let args = candid::encode_one(ic00::CanisterIdRecord { canister_id: id }).expect("it encodes");
    let stop = net.submit(Principal::management_canister(), "stop_canister", args).expect("accepted");
    net.subnet.execute_round();
    net.release(&other);
    assert_eq!(rejected(net.wait(&call)), (5, format!("IC0509: Canister {id} is stopping")));
    net.wait(&stop).expect("it has stopped");
}

#[test]
fn starting_cancels_a_stop_and_a_stop_times_out() {
    let (mut net, a) = Net::with_canister();
    let b = net.create_installed();
    net.hold(&b);
    net.submit(a, "call", call_argument(0, &b, "inc", b"")).expect("accepted");
    net.subnet.execute_round();
    let args = candid::encode_one(ic00::CanisterIdRecord { canister_id: a }).expect("it encodes");
    let management = Principal::management_canister();
    let stop = net.submit(management, "stop_canister", args.clone()).expect("accepted");
    net.subnet.execute_round();
    net.about("start_canister", a).expect("it starts");
    let rejection = net.wait(&stop).expect_err("the stop is cancelled");
    assert_eq!(rejection.error_code, ErrorCode::CanisterStoppingCancelled);
    assert_eq!(rejection.message, format!("Canister {a}'s stop request was cancelled."));

    let stop = net.submit(management, "stop_canister", args).expect("accepted");
    net.subnet.execute_round();
    net.advance(prices::STOP_TIMEOUT_NS + 1);
    let rejection = net.wait(&stop).expect_err("it times out");
    assert_eq!(rejection.error_code, ErrorCode::StopCanisterRequestTimeout);
    assert_eq!(net.status(a).status, ic00::CanisterStatusType::Stopping, "and stays stopping");
    net.release(&b);
    net.settle();
    assert_eq!(net.status(a).status, ic00::CanisterStatusType::Stopped);
}

#[test]
fn a_busy_canister_tells_its_status_and_stops_when_its_message_is_over() {
    let (mut net, id) = Net::with_canister();
    net.hold(&id);
    assert_eq!(net.status(id).status, ic00::CanisterStatusType::Running);
    let args = candid::encode_one(ic00::CanisterIdRecord { canister_id: id }).expect("it encodes");
    let stop = net.submit(Principal::management_canister(), "stop_canister", args).expect("accepted");
    for _ in 0..5 {
        assert!(!net.subnet.execute_round().idle);
    }
    assert_eq!(net.answer(&stop), None);
    net.release(&id);
    net.subnet.execute_round();
    assert_eq!(net.answer(&stop), Some(Ok(management::unit_reply())));
}

#[test]
fn only_a_stopped_canister_is_deleted() {
    let (mut net, id) = Net::with_canister();
    let rejection = net.about("delete_canister", id).expect_err("it runs");
    assert_eq!(rejection.error_code, ErrorCode::CanisterNotStopped);
    assert_eq!(rejection.message, format!("Canister {id} must be stopped before it is deleted."));
    net.about("stop_canister", id).expect("it stops");
    net.about("delete_canister", id).expect("it is deleted");
    assert!(!net.subnet.canister_exists(&id));
    assert_eq!(net.call(id, "inc", vec![]), Err(errors::canister_not_found(&id)));
    assert_eq!(net.about("start_canister", id), Err(errors::canister_not_found(&id)));
}

#[test]
fn every_setting_is_kept_and_shown() {
    let mut net = Net::new();
    let id = net.create(100 * T, None);
    let viewer = Principal::from_slice(&[4; 6]);
    let variable = ic00::EnvironmentVariable { name: "K".to_string(), value: "v".to_string() };
    let settings = ic00::CanisterSettings {
        controllers: Some(vec![net.sender, viewer]),
        compute_allocation: Some(1_u64.into()),
        memory_allocation: Some(1_000_000_u64.into()),
        freezing_threshold: Some(100_u64.into()),
        reserved_cycles_limit: Some(7_u64.into()),
        minimum_incoming_canister_call_cycles: Some(8_u64.into()),
        log_visibility: Some(ic00::LogVisibility::AllowedViewers(vec![viewer])),
        log_memory_limit: Some(9000_u64.into()),
        snapshot_visibility: Some(ic00::SnapshotVisibility::Public),
        status_visibility: Some(ic00::StatusVisibility::Public),
        wasm_memory_limit: Some(10_u64.into()),
        wasm_memory_threshold: Some(11_u64.into()),
        environment_variables: Some(vec![variable.clone()]),
    };
    net.update_settings(id, settings).expect("settings change");
    net.sender = Principal::from_slice(&[5; 5]);
    let shown = net.status(id).settings;
    let mut controllers = vec![Principal::anonymous(), viewer];
    controllers.sort();
    let expected = ic00::DefiniteCanisterSettings {
        controllers,
        compute_allocation: 1_u64.into(),
        memory_allocation: 1_000_000_u64.into(),
        freezing_threshold: 100_u64.into(),
        reserved_cycles_limit: 7_u64.into(),
        minimum_incoming_canister_call_cycles: 8_u64.into(),
        log_visibility: ic00::LogVisibility::AllowedViewers(vec![viewer]),
        log_memory_limit: 9000_u64.into(),
        snapshot_visibility: ic00::SnapshotVisibility::Public,
        status_visibility: ic00::StatusVisibility::Public,
        wasm_memory_limit: 10_u64.into(),
        wasm_memory_threshold: 11_u64.into(),
        environment_variables: vec![variable],
    };
    assert_eq!(shown, expected);
}

#[test]
fn settings_out_of_range_change_nothing() {
    let (mut net, id) = Net::with_canister();
    let before = net.status(id).settings;
    let bad = |code: ErrorCode, settings: ic00::CanisterSettings| (code, settings);
    let variable = |name: &str| ic00::EnvironmentVariable { name: name.to_string(), value: String::new() };
    let huge = candid::Nat::parse(b"340282366920938463463374607431768211456").expect("a number");
    let cases = [
        bad(
            ErrorCode::CanisterContractViolation,
            ic00::CanisterSettings {
                compute_allocation: Some(101_u64.into()),
                freezing_threshold: Some(1_u64.into()),
                ..Default::default()
            },
        ),
        bad(
            ErrorCode::InsufficientMemoryAllocation,
            ic00::CanisterSettings { memory_allocation: Some(1_u64.into()), ..Default::default() },
        ),
        bad(
            ErrorCode::InsufficientCyclesInMemoryAllocation,
            ic00::CanisterSettings { memory_allocation: Some((1_u64 << 40).into()), ..Default::default() },
        ),
        bad(
            ErrorCode::InsufficientCyclesInComputeAllocation,
            ic00::CanisterSettings { compute_allocation: Some(100_u64.into()), ..Default::default() },
        ),
        bad(
            ErrorCode::InvalidManagementPayload,
            ic00::CanisterSettings { reserved_cycles_limit: Some(huge.clone()), ..Default::default() },
        ),
        bad(
            ErrorCode::CanisterContractViolation,
            ic00::CanisterSettings { freezing_threshold: Some(huge), ..Default::default() },
        ),
        bad(
            ErrorCode::InvalidManagementPayload,
            ic00::CanisterSettings { controllers: Some((0..11).map(canister_id).collect()), ..Default::default() },
        ),
        bad(
            ErrorCode::InvalidManagementPayload,
            ic00::CanisterSettings {
                environment_variables: Some(vec![variable(&"n".repeat(129))]),
                ..Default::default()
            },
        ),
        bad(
            ErrorCode::InvalidManagementPayload,
            ic00::CanisterSettings {
                environment_variables: Some(vec![variable("twice"), variable("twice")]),
                ..Default::default()
            },
        ),
    ];
    for (code, settings) in cases {
        assert_eq!(error_code(net.update_settings(id, settings)), code);
        assert_eq!(net.status(id).settings, before);
    }
}

#[test]
fn new_controllers_take_over() {
    let (mut net, id) = Net::with_canister();
    let owner = Principal::from_slice(&[9; 9]);
    let settings = ic00::CanisterSettings { controllers: Some(vec![owner]), ..Default::default() };
    net.update_settings(id, settings.clone()).expect("settings change");
    assert_eq!(net.update_settings(id, settings.clone()), Err(errors::not_controller_ingress(&id, "update_settings")));
    net.sender = owner;
    net.update_settings(id, settings).expect("settings change");
    assert_eq!(net.subnet.controllers(&id), Some(vec![owner]));
}
