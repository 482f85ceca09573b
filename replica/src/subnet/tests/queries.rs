//! Query calls, composite ones, logs.

use super::*;

#[test]
fn a_query_keeps_nothing_and_costs_nothing() {
    let (mut net, id) = Net::with_canister();
    let balance = net.cycles(&id);
    assert_eq!(number(net.query(id, "get_dirty", vec![])), 1);
    assert_eq!(number(net.query(id, "get_dirty", vec![])), 1);
    assert_eq!(net.cycles(&id), balance);
    assert_eq!(net.query(id, "caller", vec![]), Ok(net.sender.as_slice().to_vec()));
    assert_eq!(net.query(id, "inc", vec![]), Err(errors::method_not_found(&id, "query", "inc")));
    let missing = canister_id(1);
    assert_eq!(net.query(missing, "get", vec![]), Err(errors::canister_not_found(&missing)));
}

#[test]
fn a_composite_query_calls_queries_and_leaves_no_trace() {
    let (mut net, a) = Net::with_canister();
    let b = net.create_installed();
    net.call(b, "inc", vec![]).expect("a reply");
    assert_eq!(number(net.query(a, "compose", call_argument(0, &b, "get_dirty", b""))), 2);
    // Before the call the method counts one, in the callback another: the heap lasts as long as the query.
    assert_eq!(number(net.query(a, "compose_dirty", call_argument(0, &b, "get_dirty", b""))), 2);
    assert_eq!((net.counter(a), net.counter(b)), (0, 1));
    // Composite queries call composite queries.
    let inner = call_argument(0, &b, "get", b"");
    let c = net.create_installed();
    assert_eq!(number(net.query(c, "compose", call_argument(0, &a, "compose", &inner))), 1);
}

#[test]
fn a_composite_query_reaches_neither_updates_nor_itself() {
    let (mut net, a) = Net::with_canister();
    let b = net.create_installed();
    let (code, message) = rejected(net.query(a, "compose", call_argument(0, &b, "inc", b"")));
    assert_eq!(code, 5);
    assert!(message.starts_with(&format!("IC0536: Error from Canister {b}: Canister has no query method 'inc'")));
    let (code, message) = rejected(net.query(a, "compose", call_argument(0, &a, "get", b"")));
    assert_eq!(code, 5);
    assert!(message.starts_with("IC0517"), "{message}");
    // Seven canisters in a row are one too many.
    let chain: Vec<Principal> = (0..7).map(|_| net.create_installed()).collect();
    let argument = chain[1..].iter().rev().fold(vec![], |payload, callee| {
        let method = if payload.is_empty() { "get" } else { "compose" };
        call_argument(0, callee, method, &payload)
    });
    let (code, message) = rejected(net.query(chain[0], "compose", argument));
    assert_eq!(code, 5);
    assert!(message.starts_with("IC0525"), "{message}");
}

#[test]
fn a_query_shows_a_certificate_of_the_certified_data() {
    let (mut net, id) = Net::with_canister();
    net.call(id, "certify", b"certified".to_vec()).expect("a reply");
    let certificate = net.query(id, "certificate", vec![]).expect("a certificate");
    let certificate: ic_certification::Certificate = serde_cbor::from_slice(&certificate).expect("CBOR");
    let path: [&[u8]; 3] = [b"canister", id.as_slice(), b"certified_data"];
    let found = certificate.tree.lookup_path(path);
    assert_eq!(found, ic_certification::LookupResult::Found(b"certified".as_slice()));
    // Updates have none, so the copy traps.
    assert!(net.call(id, "certificate", vec![]).is_err());
}

#[test]
fn logs_are_kept_and_shown_to_those_who_may() {
    let (mut net, id) = Net::with_canister();
    net.call(id, "print", b"first".to_vec()).expect("a reply");
    net.call(id, "trap_with", b"second".to_vec()).expect_err("a trap");
    let args = ic00::FetchCanisterLogsArgs { canister_id: id, filter: None };
    let argument = candid::encode_one(args).expect("it encodes");
    let management = Principal::management_canister();
    let reply = net.query(management, "fetch_canister_logs", argument.clone()).expect("logs");
    let logs: ic00::FetchCanisterLogsResult = candid::decode_one(&reply).expect("it decodes");
    let lines: Vec<_> =
        logs.canister_log_records.iter().map(|record| String::from_utf8_lossy(&record.content)).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0], "first");
    assert!(lines[1].starts_with("[TRAP]: ") && lines[1].contains("second"), "{lines:?}");
    assert_eq!(logs.canister_log_records[1].idx, 1);

    net.sender = Principal::from_slice(&[3; 3]);
    let rejection = net.query(management, "fetch_canister_logs", argument.clone()).expect_err("not visible");
    assert_eq!(rejection.error_code, ErrorCode::CanisterRejectedMessage);
    assert_eq!(rejection.message, format!("Caller {} is not allowed to access canister logs", net.sender));
    net.sender = Principal::anonymous();
    let settings = ic00::CanisterSettings { log_visibility: Some(ic00::LogVisibility::Public), ..Default::default() };
    net.update_settings(id, settings).expect("settings change");
    net.sender = Principal::from_slice(&[3; 3]);
    net.query(management, "fetch_canister_logs", argument).expect("logs");
    let rejection = net.about("fetch_canister_logs", id).expect_err("only queries read logs");
    assert_eq!(rejection.error_code, ErrorCode::CanisterRejectedMessage);
}

#[test]
fn the_status_is_told_to_queries_of_those_who_may_see_it() {
    let (mut net, id) = Net::with_canister();
    let management = Principal::management_canister();
    let argument = candid::encode_one(ic00::CanisterIdRecord { canister_id: id }).expect("it encodes");
    let reply = net.query(management, "canister_status", argument.clone()).expect("the status");
    let status: ic00::CanisterStatusResult = candid::decode_one(&reply).expect("it decodes");
    assert_eq!(status.cycles, candid::Nat::from(net.cycles(&id)));
    let memory = net.canister(&id).memory();
    assert_eq!((memory.heap, memory.stable, memory.wasm), (2 * 65_536, 0, wasm().len() as u64));
    assert_eq!(status.memory_size, candid::Nat::from(memory.total()));
    net.sender = Principal::from_slice(&[3; 3]);
    let rejection = net.query(management, "canister_status", argument.clone()).expect_err("not visible");
    assert_eq!(rejection, errors::not_controller_ingress(&id, "canister_status"));
    assert!(net.query(management, "start_canister", argument).is_err(), "no update runs as a query");
}

#[test]
fn a_composite_query_stays_within_the_budget_of_its_call_graph() {
    // Each call costs the graph fifty million instructions beside its own, so a hundred calls are too many.
    let wat = CANISTER_WAT.replace(
        "(func $on_reply (param i32)",
        r#"(func (export "canister_composite_query forever") (call $arg_copy (i32.const 1024) (i32.const 0) (call $arg_size))
             (i32.store (i32.const 512) (call $arg_size)) (call $again (i32.const 0)))
           (func $again (param i32)
             (call $bump (i32.const 0))
             (call $call_new (i32.const 1024) (i32.load (i32.const 512)) (i32.const 600) (i32.const 3)
               (i32.const 6) (i32.const 0) (i32.const 1) (i32.const 0))
             (drop (call $call_perform)))
           (func $on_reply (param i32)"#,
    );
    let wat = wat
        .replace("$on_reply_silent))", "$on_reply_silent $again))")
        .replace("(memory (export", r#"(data (i32.const 600) "get") (memory (export"#);
    let mut net = Net::new();
    let id = net.install_wat(&wat);
    let other = net.create_installed();
    let result = net.query(id, "forever", other.as_slice().to_vec());
    assert_eq!(error_code(result), ErrorCode::QueryCallGraphTotalInstructionLimitExceeded);
    assert_eq!((net.counter(id), net.counter(other)), (0, 0));
}
