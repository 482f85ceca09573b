//! Calls to other canisters, their callbacks, and cycles.

use crate::canister::{BALANCE, Canister, assert_trap, effects, query, reply, update};
use candid::Principal;
use replica::execution::{Closure, EntryPoint};

const PROGRAM: &str = r#"(module
    (import "ic0" "call_new" (func $call_new (param i32 i32 i32 i32 i32 i32 i32 i32)))
    (import "ic0" "call_data_append" (func $data (param i32 i32)))
    (import "ic0" "call_on_cleanup" (func $cleanup (param i32 i32)))
    (import "ic0" "call_cycles_add128" (func $cycles (param i64 i64)))
    (import "ic0" "call_with_best_effort_response" (func $timeout (param i32)))
    (import "ic0" "call_perform" (func $perform (result i32)))
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "msg_reject_code" (func $code (result i32)))
    (import "ic0" "msg_reject_msg_size" (func $text_size (result i32)))
    (import "ic0" "msg_reject_msg_copy" (func $text (param i32 i32 i32)))
    (import "ic0" "msg_cycles_refunded128" (func $refunded (param i32)))
    (import "ic0" "msg_cycles_accept128" (func $accept (param i64 i64 i32)))
    (import "ic0" "canister_cycle_balance128" (func $balance (param i32)))
    (import "ic0" "canister_liquid_cycle_balance128" (func $liquid (param i32)))
    (import "ic0" "cycles_burn128" (func $burn (param i64 i64 i32)))
    (memory 1) (data (i32.const 0) "\01\02\03method")
    (table 4 funcref) (elem (i32.const 0) $on_reply $on_reject $on_cleanup $wrong)
    (global $environment (mut i32) (i32.const 0))
    (func $new (call $call_new (i32.const 0) (i32.const 3) (i32.const 3) (i32.const 6)
                               (i32.const 0) (i32.const 10) (i32.const 1) (i32.const 11)))
    (func $answer_code (param i32)
      (i32.store (i32.const 64) (local.get 0)) (call $append (i32.const 64) (i32.const 4)) (call $reply))
    (func (export "canister_update go")
      (call $new) (call $data (i32.const 3) (i32.const 4)) (call $data (i32.const 7) (i32.const 2))
      (call $cleanup (i32.const 2) (i32.const 12)) (call $cycles (i64.const 0) (i64.const 5000))
      (call $timeout (i32.const 700))
      (call $answer_code (call $perform)))
    (func (export "canister_update rich") (call $new) (call $cycles (i64.const 1) (i64.const 0)))
    (func (export "canister_update last")
      (call $new) (call $cycles (i64.const 0) (i64.const 999999990000)) (call $answer_code (call $perform)))
    (func (export "canister_update unfinished") (call $new) (call $cycles (i64.const 0) (i64.const 7)) (call $new)
      (call $balance (i32.const 64)) (call $append (i32.const 64) (i32.const 16)) (call $reply))
    (func (export "canister_update none") (drop (call $perform)))
    (func (export "canister_update timeouts") (call $new) (call $timeout (i32.const 1)) (call $timeout (i32.const 1)))
    (func (export "canister_update burn") (call $burn (i64.const 0) (i64.const 30) (i32.const 64))
      (call $append (i32.const 64) (i32.const 16)) (call $liquid (i32.const 64))
      (call $append (i32.const 64) (i32.const 16)) (call $reply))
    (func (export "canister_update burn_all") (call $burn (i64.const 9) (i64.const 0) (i32.const 64))
      (call $append (i32.const 64) (i32.const 16)) (call $reply))
    (func (export "canister_update accept")
      (call $accept (i64.const 0) (i64.const 60) (i32.const 64)) (call $append (i32.const 64) (i32.const 16))
      (call $accept (i64.const 0) (i64.const 60) (i32.const 64)) (call $append (i32.const 64) (i32.const 16))
      (call $balance (i32.const 64)) (call $append (i32.const 64) (i32.const 16)) (call $reply))
    (func (export "canister_query call") (call $new))
    (func (export "canister_composite_query call_composite") (call $new) (call $answer_code (call $perform)))
    (func (export "canister_init") (call $new))
    (func $on_reply (param i32)
      (i32.store (i32.const 64) (local.get 0)) (call $append (i32.const 64) (i32.const 4))
      (i32.store (i32.const 64) (call $code)) (call $append (i32.const 64) (i32.const 4))
      (call $refunded (i32.const 64)) (call $append (i32.const 64) (i32.const 16)) (call $reply))
    (func $on_reject (param i32)
      (i32.store (i32.const 64) (call $code)) (call $append (i32.const 64) (i32.const 4))
      (call $text (i32.const 64) (i32.const 0) (call $text_size)) (call $append (i32.const 64) (call $text_size)) (call $reply))
    (func $on_cleanup (param i32) (global.set $environment (local.get 0)))
    (func $wrong (param i64)))"#;

#[test]
fn a_call_carries_everything() {
    let effects = effects(Canister::new(PROGRAM).update("go"));
    assert_eq!(effects.response, Some(Ok(vec![0; 4])));
    let [call] = &effects.calls[..] else { panic!("{:?}", effects.calls) };
    assert_eq!(call.callee, Principal::from_slice(&[1, 2, 3]));
    assert_eq!((call.method.as_str(), &call.argument[..], call.cycles), ("method", &b"method"[..], 5_000));
    assert_eq!(call.on_reply, Closure { function: 0, environment: 10 });
    assert_eq!(call.on_reject, Closure { function: 1, environment: 11 });
    assert_eq!(call.on_cleanup, Some(Closure { function: 2, environment: 12 }));
    // Timeouts are cut to 300 s.
    assert_eq!(call.timeout_s, Some(300));
}

#[test]
fn a_call_needs_cycles() {
    let mut canister = Canister::new(PROGRAM);
    assert_trap(canister.update("rich"), "IC0504", "is out of cycles");
    // 10,000 are left after the payment, 1,000 of them frozen: enough for the reservation of 500 and 6 bytes of
    // method name at 1,000 each, but not with 9,000 frozen.
    assert_eq!(reply(canister.update("last")), [0; 4]);
    let outcome = canister.run_with(update("last"), |environment| environment.system.freezing_limit = 3_501);
    let effects = effects(outcome);
    assert_eq!((effects.calls.len(), effects.response), (0, Some(Ok(vec![2, 0, 0, 0]))));
    // A call that another one replaces gives its cycles back.
    assert_eq!(reply(canister.update("unfinished")), BALANCE.to_le_bytes());
}

#[test]
fn calls_are_refused_where_they_do_not_belong() {
    let mut canister = Canister::new(PROGRAM);
    let text = |mode| format!("Canister violated contract: \"ic0_call_new\" cannot be executed in {mode} mode");
    assert_trap(canister.run(query("call")), "IC0504", &text("non replicated query"));
    assert_trap(canister.run(EntryPoint::Init), "IC0504", &text("init"));
    assert_trap(canister.update("none"), "IC0504", "ic0.call_perform called when no call is under construction.");
    assert_trap(canister.update("timeouts"), "IC0504", "a timeout is already set");
    // A composite query may call, and pays nothing for it.
    let outcome = canister.run_with(EntryPoint::CompositeQuery("call_composite".into()), |environment| {
        environment.system.freezing_limit = u128::MAX;
    });
    assert_eq!(effects(outcome).calls.len(), 1);
}

#[test]
fn callbacks() {
    let mut canister = Canister::new(PROGRAM);
    let closure = |function| Closure { function, environment: 77 };
    let outcome = canister.run_with(EntryPoint::ReplyCallback(closure(0)), |environment| {
        environment.message.cycles_refunded = 1 << 100;
    });
    let expected = [&77u32.to_le_bytes()[..], &[0; 4], &(1u128 << 100).to_le_bytes()].concat();
    assert_eq!(reply(outcome), expected);
    let outcome = canister.run_with(EntryPoint::RejectCallback(closure(1)), |environment| {
        environment.message.reject = Some((4, "no".into()));
    });
    assert_eq!(reply(outcome), b"\x04\0\0\0no");
    effects(canister.run(EntryPoint::Cleanup(closure(2))));
    assert_trap(canister.run(EntryPoint::ReplyCallback(closure(3))), "IC0504", "is no callback");
    assert_trap(canister.run(EntryPoint::ReplyCallback(closure(4))), "IC0513", "function 4 from table 0");
    // A context that was replied to cannot be replied to again.
    let outcome = canister.run_with(EntryPoint::ReplyCallback(closure(0)), |environment| {
        environment.message.already_responded = true;
    });
    assert_trap(outcome, "IC0504", "the call is already replied");
}

#[test]
fn cycles_burn_and_arrive() {
    let mut canister = Canister::new(PROGRAM);
    let outcome = effects(canister.update("burn"));
    assert_eq!(outcome.cycles_burned, 30);
    let expected = [30u128.to_le_bytes(), (BALANCE - 30 - 1_000).to_le_bytes()].concat();
    assert_eq!(outcome.response, Some(Ok(expected)));
    // No more burns than is liquid.
    assert_eq!(reply(canister.update("burn_all")), (BALANCE - 1_000).to_le_bytes());
    let outcome = canister.run_with(update("accept"), |environment| environment.message.cycles_available = 100);
    let outcome = effects(outcome);
    assert_eq!(outcome.cycles_accepted, 100);
    let expected = [60u128.to_le_bytes(), 40u128.to_le_bytes(), (BALANCE + 100).to_le_bytes()].concat();
    assert_eq!(outcome.response, Some(Ok(expected)));
}
