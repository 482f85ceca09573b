//! Rounds, timers, hooks, history, determinism.

use super::*;

#[test]
fn a_timer_fires_once_when_it_is_due() {
    let (mut net, id) = Net::with_canister();
    let due = net.subnet.time_ns() + 60 * SECOND_NS;
    net.call(id, "timer", due.to_le_bytes().to_vec()).expect("a reply");
    assert_eq!(net.subnet.next_timer_ns(), Some(due));
    net.settle();
    assert_eq!(net.words(id)[2], 0);
    net.subnet.set_time_ns(due);
    net.settle();
    assert_eq!(net.words(id)[2], 1);
    assert_eq!(net.subnet.next_timer_ns(), None);
    net.advance(1000 * SECOND_NS);
    net.settle();
    assert_eq!(net.words(id)[2], 1);
}

#[test]
fn a_stopped_canisters_timer_waits_and_a_poor_ones_is_lost() {
    let (mut net, id) = Net::with_canister();
    let due = net.subnet.time_ns() + SECOND_NS;
    net.call(id, "timer", due.to_le_bytes().to_vec()).expect("a reply");
    net.about("stop_canister", id).expect("it stops");
    net.subnet.set_time_ns(due + SECOND_NS);
    net.settle();
    assert_eq!(net.subnet.next_timer_ns(), None);
    net.about("start_canister", id).expect("it starts");
    net.settle();
    assert_eq!(net.words(id)[2], 1);

    let due = net.subnet.time_ns() + SECOND_NS;
    net.call(id, "timer", due.to_le_bytes().to_vec()).expect("a reply");
    let canister = net.subnet.canisters.get_mut(&id).expect("it exists");
    let (balance, poor) = (canister.cycles, canister.freezing_limit() + T / 100);
    canister.cycles = poor;
    net.advance(2 * SECOND_NS);
    net.settle();
    assert_eq!(net.canister(&id).global_timer_ns, 0);
    net.subnet.canisters.get_mut(&id).expect("it exists").cycles = balance;
    net.advance(SECOND_NS);
    net.settle();
    assert_eq!(net.words(id)[2], 1, "it never fired");
}

#[test]
fn a_trapping_timer_stays_off() {
    let wat = CANISTER_WAT.replace("(call $bump (i32.const 16))", "unreachable");
    let mut net = Net::new();
    let id = net.install_wat(&wat);
    let due = net.subnet.time_ns() + SECOND_NS;
    net.call(id, "timer", due.to_le_bytes().to_vec()).expect("a reply");
    net.advance(2 * SECOND_NS);
    net.settle();
    assert_eq!(net.canister(&id).global_timer_ns, 0);
    assert_eq!(net.canister(&id).log.records().count(), 1);
}

#[test]
fn heartbeats_beat_every_round_and_do_not_keep_the_subnet_awake() {
    let wat = CANISTER_WAT.replace(
        r#"(func (export "canister_global_timer")"#,
        r#"(func (export "canister_heartbeat") (call $bump (i32.const 24)))
           (func (export "canister_global_timer")"#,
    );
    let mut net = Net::new();
    let id = net.install_wat(&wat);
    let before = net.words(id)[3];
    for _ in 0..5 {
        let summary = net.subnet.execute_round();
        assert!(summary.idle);
        assert_eq!(summary.messages, 1);
    }
    assert_eq!(net.words(id)[3], before + 5);
}

#[test]
fn the_low_memory_hook_runs_once_when_memory_runs_low() {
    let wat = CANISTER_WAT.replace(
        r#"(func (export "canister_global_timer")"#,
        r#"(func (export "canister_on_low_wasm_memory") (call $bump (i32.const 24)))
           (func (export "canister_update grow") (drop (memory.grow (i32.const 1))) (call $reply))
           (func (export "canister_global_timer")"#,
    );
    let mut net = Net::new();
    let id = net.install_wat(&wat);
    // Two pages are in use; the hook is due when fewer than two of five are left.
    let settings = ic00::CanisterSettings {
        wasm_memory_limit: Some((5_u64 * 65_536).into()),
        wasm_memory_threshold: Some((2_u64 * 65_536).into()),
        ..Default::default()
    };
    net.update_settings(id, settings).expect("settings change");
    for expected in [0, 1, 1] {
        net.call(id, "grow", vec![]).expect("a reply");
        net.settle();
        assert_eq!(net.words(id)[3], expected);
    }
}

#[test]
fn a_round_with_nothing_to_do_is_idle_and_moves_time_by_a_nanosecond() {
    let (mut net, _) = Net::with_canister();
    net.settle();
    let time_ns = net.subnet.time_ns();
    assert_eq!(net.subnet.execute_round(), RoundSummary { messages: 0, instructions: 0, idle: true });
    assert_eq!(net.subnet.time_ns(), time_ns + 1);
    net.subnet.set_time_ns(time_ns - 5);
    assert_eq!(net.subnet.time_ns(), time_ns + 1, "time never goes back");
}

#[test]
fn a_long_message_keeps_its_canister_busy_and_nobody_else() {
    let (mut net, a) = Net::with_canister();
    let b = net.create_installed();
    let before = net.subnet.counters(&a).expect("it exists").slices;
    // Nine instructions a turn: a little over two slices of 2e9.
    let long = net.submit(a, "spin", 500_000_000_u64.to_le_bytes().to_vec()).expect("accepted");
    let next = net.submit(a, "inc", vec![]).expect("accepted");
    net.subnet.execute_round();
    assert!(net.answer(&long).is_some());
    let slices = net.subnet.counters(&a).expect("it exists").slices - before;
    assert_eq!(slices, 3);
    assert_eq!(net.subnet.last_message_cost(&a).expect("it executed").slices, 3);
    assert_eq!(number(net.call(b, "inc", vec![])), 1);
    let mut rounds = 2;
    while net.answer(&next).is_none() {
        net.subnet.execute_round();
        rounds += 1;
    }
    assert_eq!(rounds, 3, "the next message waits for the last slice's round");
}

#[test]
fn many_short_messages_share_a_round() {
    let (mut net, id) = Net::with_canister();
    let messages: Vec<_> = (0..100).map(|_| net.submit(id, "inc", vec![]).expect("accepted")).collect();
    let summary = net.subnet.execute_round();
    assert_eq!(summary.messages, 100);
    assert!(!summary.idle);
    assert!(messages.iter().all(|message| net.answer(message).is_some()));
    assert_eq!(net.counter(id), 100);
}

#[test]
fn settled_messages_are_forgotten_five_minutes_after_their_expiry() {
    let (mut net, id) = Net::with_canister();
    let message = net.submit(id, "inc", vec![]).expect("accepted");
    net.wait(&message).expect("a reply");
    net.advance(599 * SECOND_NS);
    net.subnet.execute_round();
    assert!(net.subnet.ingress_status(&message).is_some());
    net.advance(2 * SECOND_NS);
    net.subnet.execute_round();
    assert_eq!(net.subnet.ingress_status(&message), None);
    let path = vec![b"request_status".to_vec(), message.to_vec(), b"status".to_vec()];
    let certificate = net.subnet.certificate(std::slice::from_ref(&path));
    let certificate: ic_certification::Certificate = serde_cbor::from_slice(&certificate).expect("CBOR");
    assert_eq!(certificate.tree.lookup_path(&path), ic_certification::LookupResult::Absent);
}

#[test]
fn an_expired_message_is_not_executed() {
    let (mut net, id) = Net::with_canister();
    net.hold(&id);
    let message = net.submit(id, "inc", vec![]).expect("accepted");
    net.advance(301 * SECOND_NS);
    net.release(&id);
    assert_eq!(error_code(net.wait(&message)), ErrorCode::IngressMessageTimeout);
    assert_eq!(net.counter(id), 0);
}

#[test]
fn the_state_tree_tells_controllers_hash_and_answers() {
    let (mut net, id) = Net::with_canister();
    let message = net.submit(id, "echo", b"bytes".to_vec()).expect("accepted");
    net.wait(&message).expect("a reply");
    let refused = net.submit(id, "refuse", b"no".to_vec()).expect("accepted");
    net.wait(&refused).expect_err("a reject");
    let subnet_id = net.subnet.subnet_id();
    let certificate = net.subnet.certificate(&[vec![]]);
    let certificate: ic_certification::Certificate = serde_cbor::from_slice(&certificate).expect("CBOR");
    let leaf = |path: &[&[u8]]| match certificate.tree.lookup_path(path) {
        ic_certification::LookupResult::Found(value) => value.to_vec(),
        other => panic!("{path:?}: {other:?}"),
    };
    let hash = net.canister(&id).code.as_ref().expect("installed").module_hash;
    assert_eq!(leaf(&[b"canister", id.as_slice(), b"module_hash"]), hash);
    let controllers: Vec<Principal> =
        serde_cbor::from_slice(&leaf(&[b"canister", id.as_slice(), b"controllers"])).expect("CBOR");
    assert_eq!(controllers, [Principal::anonymous()]);
    assert_eq!(leaf(&[b"request_status", &message, b"status"]), b"replied");
    assert_eq!(leaf(&[b"request_status", &message, b"reply"]), b"bytes");
    assert_eq!(leaf(&[b"request_status", &refused, b"status"]), b"rejected");
    assert_eq!(leaf(&[b"request_status", &refused, b"reject_code"]), [4]);
    assert_eq!(leaf(&[b"request_status", &refused, b"reject_message"]), b"no");
    assert_eq!(leaf(&[b"request_status", &refused, b"error_code"]), b"IC0406");
    assert_eq!(leaf(&[b"subnet", subnet_id.as_slice(), b"public_key"]), net.subnet.root_key().der());
    let node = net.subnet.node_key().node_id();
    assert_eq!(
        leaf(&[b"subnet", subnet_id.as_slice(), b"node", node.as_slice(), b"public_key"]),
        net.subnet.node_key().der()
    );
    let ranges = leaf(&[b"subnet", subnet_id.as_slice(), b"canister_ranges"]);
    let ranges: Vec<(Principal, Principal)> = serde_cbor::from_slice(&ranges).expect("CBOR");
    assert_eq!(ranges, net.subnet.canister_ranges());
}

#[test]
fn the_same_inputs_give_the_same_state() {
    let run = || {
        let (mut net, a) = Net::with_canister();
        let b = net.create_installed();
        for round in 0..5_u64 {
            net.submit(a, "call", call_argument(round, &b, "accept", &round.to_le_bytes())).expect("accepted");
            net.submit(b, "inc", vec![]).expect("accepted");
            net.submit(a, "call_then_trap", call_argument(0, &b, "inc", b"")).expect("accepted");
            net.subnet.execute_round();
        }
        net.settle();
        (net.subnet.certificate(&[vec![]]), net.cycles(&a), net.cycles(&b), net.subnet.counters(&a))
    };
    assert_eq!(run(), run());
}

#[test]
fn the_version_counts_changes_and_nothing_else() {
    let (mut net, id) = Net::with_canister();
    let version = |net: &mut Net| number(net.query(id, "version", vec![]));
    let installed = version(&mut net);
    net.call(id, "inc", vec![]).expect("a reply");
    assert_eq!(version(&mut net), installed + 1);
    net.call(id, "inc_and_trap", vec![]).expect_err("a trap");
    net.call(id, "get", vec![]).expect("a reply");
    let after_query = version(&mut net);
    net.update_settings(id, ic00::CanisterSettings::default()).expect("settings change");
    assert_eq!(version(&mut net), after_query + 1);
    assert_eq!(net.status(id).version, after_query + 1);
}

#[test]
fn a_benchmarking_subnet_gives_queries_more_instructions() {
    let wat = CANISTER_WAT.replace(r#"(export "canister_update spin")"#, r#"(export "canister_query spin")"#);
    // Nine instructions a turn: over the five billion that a query has elsewhere.
    let turns = 560_000_000_u64.to_le_bytes().to_vec();
    let mut net = Net::new();
    let id = net.install_wat(&wat);
    assert_eq!(error_code(net.query(id, "spin", turns.clone())), ErrorCode::CanisterInstructionLimitExceeded);
    net.subnet.info.benchmark = true;
    net.query(id, "spin", turns).expect("a reply");
}
