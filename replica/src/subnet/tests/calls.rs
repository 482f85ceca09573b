//! Updates, replies and rejects, calls between canisters and their callbacks.

use super::*;

#[test]
fn an_update_replies_and_keeps_its_changes() {
    let (mut net, id) = Net::with_canister();
    assert_eq!(number(net.call(id, "inc", vec![])), 1);
    assert_eq!(number(net.call(id, "inc", vec![])), 2);
    assert_eq!(net.counter(id), 2);
}

#[test]
fn a_message_is_executed_once_however_often_it_is_submitted() {
    let (mut net, id) = Net::with_canister();
    let ingress = Ingress {
        id: [9; 32],
        sender: net.sender,
        canister_id: id,
        method: "inc".to_string(),
        argument: vec![],
        expiry_ns: net.subnet.time_ns() + SECOND_NS,
    };
    net.subnet.submit(ingress.clone()).expect("accepted");
    net.subnet.submit(ingress.clone()).expect("accepted again");
    net.settle();
    net.subnet.submit(ingress).expect("accepted after execution");
    net.settle();
    assert_eq!(net.counter(id), 1);
}

#[test]
fn a_trap_rolls_back_and_says_so() {
    let (mut net, id) = Net::with_canister();
    let rejection = net.call(id, "inc_and_trap", vec![]).expect_err("it traps");
    assert_eq!((rejection.error_code, rejection.reject_code), (ErrorCode::CanisterTrapped, RejectCode::CanisterError));
    assert!(rejection.message.starts_with(&format!("Error from Canister {id}: Canister trapped: unreachable")));
    assert_eq!(net.counter(id), 0);
}

#[test]
fn rejections_carry_the_networks_codes() {
    let (mut net, id) = Net::with_canister();
    let missing = canister_id(5);
    assert_eq!(net.call(missing, "inc", vec![]), Err(errors::canister_not_found(&missing)));
    assert_eq!(net.call(id, "nothing", vec![]), Err(errors::method_not_found(&id, "update", "nothing")));
    assert_eq!(net.call(id, "silent", vec![]), Err(errors::did_not_reply(&id)));
    assert_eq!(error_code(net.call(id, "compose", vec![])), ErrorCode::CompositeQueryCalledInReplicatedMode);
    let rejection = net.call(id, "refuse", b"no".to_vec()).expect_err("it rejects");
    assert_eq!(rejection, Rejection::new(ErrorCode::CanisterRejectedMessage, "no"));
    let rejection = net.call(id, "trap_with", b"because".to_vec()).expect_err("it traps");
    assert_eq!(rejection.error_code, ErrorCode::CanisterCalledTrap);
    assert!(rejection.message.contains("because"), "{}", rejection.message);
    let empty = net.create(T, None);
    assert_eq!(error_code(net.call(empty, "inc", vec![])), ErrorCode::CanisterWasmModuleNotFound);
    // A canister that was silent still keeps what it did.
    assert_eq!(net.counter(id), 1);
}

#[test]
fn a_query_method_answers_update_calls_and_keeps_nothing() {
    let (mut net, id) = Net::with_canister();
    assert_eq!(number(net.call(id, "get_dirty", vec![])), 1);
    assert_eq!(net.counter(id), 0);
}

#[test]
fn calls_bring_replies_and_rejects_to_callbacks() {
    let (mut net, a) = Net::with_canister();
    let b = net.create_installed();
    let call = |callee: &Principal, method: &str, payload: &[u8]| call_argument(0, callee, method, payload);
    assert_eq!(net.call(a, "call", call(&b, "echo", b"hello")), Ok(b"hello".to_vec()));
    // The callee sees the caller.
    assert_eq!(net.call(a, "call", call(&b, "caller", b"")), Ok(a.as_slice().to_vec()));
    // A canister calls itself like any other.
    assert_eq!(net.call(a, "call", call(&a, "echo", b"myself")), Ok(b"myself".to_vec()));

    assert_eq!(rejected(net.call(a, "call", call(&b, "refuse", b"no"))), (4, "no".to_string()));
    let (code, message) = rejected(net.call(a, "call", call(&b, "inc_and_trap", b"")));
    assert_eq!(code, 5);
    let expected = format!("IC0502: Error from Canister {b}: Canister trapped: unreachable");
    assert!(message.starts_with(&expected), "{message}");
    let (code, message) = rejected(net.call(a, "call", call(&b, "nothing", b"")));
    assert_eq!(code, 5);
    assert!(message.starts_with(&format!("IC0536: Error from Canister {b}: Canister has no update method 'nothing'")));
    let missing = canister_id(77);
    let (code, message) = rejected(net.call(a, "call", call(&missing, "inc", b"")));
    assert_eq!((code, message), (3, format!("IC0301: Canister {missing} not found")));
    assert_eq!(rejected(net.call(a, "call", call(&b, "silent", b""))).0, 5);
    assert!(net.canister(&a).calls.is_empty() && net.canister(&b).calls.is_empty());
}

#[test]
fn a_trap_in_a_callback_runs_cleanup_and_keeps_what_came_before() {
    let (mut net, a) = Net::with_canister();
    let b = net.create_installed();
    let result = net.call(a, "call_then_trap", call_argument(0, &b, "inc", b""));
    assert_eq!(error_code(result), ErrorCode::CanisterTrapped);
    let words = net.words(a);
    assert_eq!((words[0], words[1]), (0, 1), "the callback is rolled back, cleanup is kept");
    assert_eq!(net.counter(b), 1);
    assert!(net.canister(&a).calls.is_empty());
}

#[test]
fn a_trap_in_cleanup_is_told_beside_the_callbacks() {
    let wat = CANISTER_WAT.replace("(func $on_cleanup (param i32) (call $bump (i32.const 8)))", {
        "(func $on_cleanup (param i32) (call $bump (i32.const 8)) unreachable)"
    });
    let (mut net, b) = Net::with_canister();
    let a = net.install_wat(&wat);
    let rejection = net.call(a, "call_then_trap", call_argument(0, &b, "inc", b"")).expect_err("it traps");
    assert_eq!(rejection.error_code, ErrorCode::CanisterTrapped);
    assert_eq!(rejection.message.matches("Canister trapped: unreachable").count(), 2, "{}", rejection.message);
    assert!(rejection.message.contains("\n\ncall_on_cleanup also failed:\n\n"), "{}", rejection.message);
    assert_eq!(net.words(a)[..2], [0, 0]);
    assert!(net.canister(&a).calls.is_empty());
}

#[test]
fn a_reply_may_come_before_the_calls_end_and_callbacks_run_on() {
    let (mut net, a) = Net::with_canister();
    let b = net.create_installed();
    assert_eq!(number(net.call(a, "reply_then_call", call_argument(0, &b, "inc", b""))), 0);
    net.settle();
    assert_eq!((net.counter(a), net.counter(b)), (1, 1));
    assert!(net.canister(&a).calls.is_empty());
    // A callback that leaves the call unanswered, with nothing left to wait for, is an error of the canister.
    let result = net.call(a, "call_then_silence", call_argument(0, &b, "inc", b""));
    assert_eq!(result, Err(errors::did_not_reply(&a)));
}

#[test]
fn a_best_effort_call_gives_up_at_its_deadline() {
    let (mut net, a) = Net::with_canister();
    let b = net.create_installed();
    assert_eq!(net.call(a, "call_best_effort", call_argument(0, &b, "echo", b"fast")), Ok(b"fast".to_vec()));
    // The callee does not come to answering in time.
    net.hold(&b);
    let message = net.submit(a, "call_best_effort", call_argument(0, &b, "inc", b"")).expect("accepted");
    net.subnet.execute_round();
    assert_eq!(net.answer(&message), None);
    assert!(net.subnet.next_timer_ns().is_some(), "the deadline is something to wait for");
    net.advance(11 * SECOND_NS);
    let (code, text) = rejected(net.wait(&message));
    assert_eq!((code, text), (6, "IC0601: Call deadline has expired.".to_string()));
    net.release(&b);
    net.settle();
    assert_eq!(net.counter(b), 0, "an expired request is not executed");
    assert!(net.canister(&a).calls.is_empty());
}

#[test]
fn a_full_queue_answers_at_once() {
    let (mut net, a) = Net::with_canister();
    let b = net.create_installed();
    net.hold(&b);
    // Every open call sets cycles aside; the balance must hold five hundred of them.
    net.subnet.add_cycles(&a, 100 * T).expect("it exists");
    let argument = call_argument(0, &b, "inc", b"");
    let messages: Vec<_> = (0..501).map(|_| net.submit(a, "call", argument.clone()).expect("accepted")).collect();
    while !net.canister(&a).ingress.is_empty() {
        net.subnet.execute_round();
    }
    net.subnet.execute_round();
    let answered: Vec<_> = messages.iter().filter_map(|message| net.answer(message)).collect();
    assert_eq!(answered.len(), 1);
    let (code, text) = rejected(answered[0].clone());
    assert_eq!(code, 2);
    assert!(text.starts_with("IC0201"), "{text}");
    net.release(&b);
    net.settle();
    assert_eq!(net.counter(b), 500);
}

#[test]
fn inspect_message_decides_on_ingress_alone() {
    let wat = r#"(module
        (import "ic0" "accept_message" (func $accept))
        (import "ic0" "msg_method_name_size" (func $name_size (result i32)))
        (import "ic0" "msg_reply" (func $reply))
        (func (export "canister_inspect_message")
          (if (i32.eq (call $name_size) (i32.const 4)) (then (call $accept)))
          (if (i32.eq (call $name_size) (i32.const 3)) (then unreachable)))
        (func (export "canister_update open") (call $reply))
        (func (export "canister_update bad") (call $reply))
        (func (export "canister_update closed") (call $reply)))"#;
    let mut net = Net::new();
    let id = net.install_wat(wat);
    assert_eq!(net.call(id, "open", vec![]), Ok(vec![]));
    let balance = net.cycles(&id);
    assert_eq!(net.call(id, "closed", vec![]), Err(errors::inspect_rejected(&id)));
    assert_eq!(error_code(net.call(id, "bad", vec![])), ErrorCode::CanisterTrapped);
    assert_eq!(net.cycles(&id), balance, "a refused message costs nothing");
    let other = net.create_installed();
    assert_eq!(net.call(other, "call", call_argument(0, &id, "closed", b"")), Ok(vec![]));
}

#[test]
fn raw_rand_depends_on_the_seed_and_on_nothing_else() {
    let draw = |seed: u8| {
        let mut net = Net::with_seed(seed);
        let id = net.create_installed();
        let argument =
            call_argument(0, &Principal::management_canister(), "raw_rand", &candid::encode_args(()).unwrap());
        let first = net.call(id, "call", argument.clone()).expect("random bytes");
        let second = net.call(id, "call", argument).expect("random bytes");
        assert_ne!(first, second);
        let (bytes,): (Vec<u8>,) = candid::decode_args(&first).expect("a blob");
        assert_eq!(bytes.len(), 32);
        [first, second]
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    let mut net = Net::new();
    assert_eq!(net.manage("raw_rand", ()), Err(errors::only_canisters("raw_rand")));
}
