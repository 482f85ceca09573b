//! Costs, values and rules of the system API.

use crate::canister::{Canister, assert_trap, effects, query, reply, reply_u64, update};
use replica::execution::{EntryPoint, Environment};

/// A function's own cost in the table of the public replica (`tests/vectors/system_api_costs.csv`).
fn row(name: &str) -> (u64, u64) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/system_api_costs.csv");
    let text = std::fs::read_to_string(path).unwrap();
    let line =
        text.lines().find(|line| line.split(',').next().is_some_and(|names| names.split(" / ").any(|n| n == name)));
    let cells: Vec<&str> = line.unwrap_or_else(|| panic!("{name}")).split(',').collect();
    (cells[1].parse().unwrap(), cells[2].parse().unwrap())
}

struct Call {
    name: &'static str,
    parameters: &'static str,
    results: &'static str,
    arguments: &'static str,
    /// Bytes that the call pays for.
    bytes: u64,
    /// Pages the host touches: accesses and first writes.
    pages: u64,
}

const fn call(
    name: &'static str,
    parameters: &'static str,
    results: &'static str,
    arguments: &'static str,
    bytes: u64,
    pages: u64,
) -> Call {
    Call { name, parameters, results, arguments, bytes, pages }
}

/// Runs one call in a message and compares the count: entry 1, arguments 1 each, call 5, drop 1.
fn check(call: &Call, entry_point: EntryPoint, export: &str, change: impl FnOnce(&mut Environment)) {
    let parameters: Vec<&str> = call.parameters.split_whitespace().collect();
    let arguments: Vec<&str> = call.arguments.split_whitespace().collect();
    assert_eq!(parameters.len(), arguments.len(), "{}", call.name);
    let pushes: String = parameters.iter().zip(&arguments).map(|(ty, value)| format!("({ty}.const {value})")).collect();
    let result = if call.results.is_empty() { String::new() } else { format!("(result {})", call.results) };
    let invocation = format!("(call $f {pushes})");
    let invocation = if call.results.is_empty() { invocation } else { format!("(drop {invocation})") };
    let wat = format!(
        r#"(module (import "ic0" "{}" (func $f (param {}) {result})) (memory 1) (data (i32.const 0) "key")
             (func (export "{export}") {invocation}))"#,
        call.name, call.parameters
    );
    let outcome = Canister::new(&wat).run_with(entry_point, change);
    assert!(outcome.result.is_ok(), "{}: {:?}", call.name, outcome.result);
    let (fixed, per_byte) = row(call.name);
    let pushed = 1 + arguments.len() as u64 + 5 + u64::from(!call.results.is_empty());
    let expected = pushed + fixed + per_byte * call.bytes + 80_000 * call.pages;
    assert_eq!(outcome.instructions, expected, "{}", call.name);
}

#[test]
fn every_call_of_an_update_costs_what_the_table_says() {
    let calls = [
        call("msg_arg_data_size", "", "i32", "", 0, 0),
        call("msg_arg_data_copy", "i32 i32 i32", "", "0 1 2", 2, 2),
        call("msg_caller_size", "", "i32", "", 0, 0),
        call("msg_caller_copy", "i32 i32 i32", "", "9 0 1", 1, 2),
        call("msg_caller_info_data_size", "", "i32", "", 0, 0),
        call("msg_caller_info_data_copy", "i32 i32 i32", "", "9 0 0", 0, 0),
        call("msg_caller_info_signer_size", "", "i32", "", 0, 0),
        call("msg_caller_info_signer_copy", "i32 i32 i32", "", "9 0 0", 0, 0),
        call("msg_deadline", "", "i64", "", 0, 0),
        call("msg_reply", "", "", "", 0, 0),
        call("msg_reply_data_append", "i32 i32", "", "0 100", 100, 1),
        call("msg_reject", "i32 i32", "", "0 3", 3, 1),
        call("msg_cycles_available", "", "i64", "", 0, 0),
        call("msg_cycles_available128", "i32", "", "8", 0, 2),
        call("msg_cycles_accept", "i64", "i64", "8", 0, 0),
        call("msg_cycles_accept128", "i64 i64 i32", "", "0 1 8", 0, 2),
        call("canister_self_size", "", "i32", "", 0, 0),
        call("canister_self_copy", "i32 i32 i32", "", "0 0 10", 10, 2),
        call("canister_status", "", "i32", "", 0, 0),
        call("canister_version", "", "i64", "", 0, 0),
        call("canister_cycle_balance", "", "i64", "", 0, 0),
        call("canister_cycle_balance128", "i32", "", "0", 0, 2),
        call("canister_liquid_cycle_balance128", "i32", "", "65520", 0, 2),
        call("subnet_self_size", "", "i32", "", 0, 0),
        call("subnet_self_copy", "i32 i32 i32", "", "0 0 29", 29, 2),
        call("root_key_size", "", "i32", "", 0, 0),
        call("root_key_copy", "i32 i32 i32", "", "0 0 133", 133, 2),
        call("certified_data_set", "i32 i32", "", "0 32", 32, 1),
        call("data_certificate_present", "", "i32", "", 0, 0),
        call("in_replicated_execution", "", "i32", "", 0, 0),
        call("is_controller", "i32 i32", "i32", "0 3", 3, 1),
        call("time", "", "i64", "", 0, 0),
        call("global_timer_set", "i64", "i64", "5", 0, 0),
        call("performance_counter", "i32", "i64", "0", 0, 0),
        call("call_new", "i32 i32 i32 i32 i32 i32 i32 i32", "", "0 3 3 7 0 0 0 0", 10, 1),
        call("cycles_burn128", "i64 i64 i32", "", "0 5 0", 0, 2),
        call("cost_call", "i64 i64 i32", "", "9 9 0", 0, 2),
        call("cost_create_canister", "i32", "", "0", 0, 2),
        call("cost_http_request", "i64 i64 i32", "", "9 9 0", 0, 2),
        call("cost_sign_with_ecdsa", "i32 i32 i32 i32", "i32", "0 3 0 64", 3, 1),
        call("cost_sign_with_schnorr", "i32 i32 i32 i32", "i32", "0 3 9 64", 3, 1),
        call("cost_vetkd_derive_key", "i32 i32 i32 i32", "i32", "0 3 0 64", 3, 1),
        call("env_var_count", "", "i32", "", 0, 0),
        call("env_var_name_size", "i32", "i32", "0", 0, 0),
        call("env_var_name_copy", "i32 i32 i32 i32", "", "0 64 1 2", 2, 2),
        call("env_var_name_exists", "i32 i32", "i32", "0 3", 0, 1),
        call("env_var_value_size", "i32 i32", "i32", "0 3", 0, 1),
        call("env_var_value_copy", "i32 i32 i32 i32 i32", "", "0 3 64 0 5", 5, 2),
        call("stable64_size", "", "i64", "", 0, 0),
        call("stable64_grow", "i64", "i64", "3", 0, 0),
        call("stable64_read", "i64 i64 i64", "", "0 0 0", 0, 0),
        call("stable64_write", "i64 i64 i64", "", "0 0 0", 0, 0),
        call("stable_size", "", "i32", "", 0, 0),
        call("stable_grow", "i32", "i32", "3", 0, 0),
        call("stable_read", "i32 i32 i32", "", "0 0 0", 0, 0),
        call("stable_write", "i32 i32 i32", "", "0 0 0", 0, 0),
    ];
    for call in &calls {
        check(call, update("go"), "canister_update go", |environment| {
            environment.message.argument = vec![1, 2, 3];
            environment.system.environment_variables.insert("key".into(), "value".into());
        });
    }
}

#[test]
fn calls_of_other_kinds_cost_what_the_table_says() {
    for call in [
        call("data_certificate_size", "", "i32", "", 0, 0),
        // In a query only the access is charged.
        call("data_certificate_copy", "i32 i32 i32", "", "0 0 4", 4, 1),
    ] {
        check(&call, query("go"), "canister_query go", |environment| {
            environment.system.data_certificate = Some(vec![1, 2, 3, 4]);
        });
    }
    for call in [
        call("msg_method_name_size", "", "i32", "", 0, 0),
        call("msg_method_name_copy", "i32 i32 i32", "", "0 1 3", 3, 1),
        call("accept_message", "", "", "", 0, 0),
    ] {
        check(&call, EntryPoint::InspectMessage("name".into()), "canister_inspect_message", |_| {});
    }
}

/// Calls whose cost needs a call or a callback around them: `pc` before and after each.
#[test]
fn calls_in_preparation_cost_what_the_table_says() {
    let program = |before: &str, body: &str| {
        format!(
            r#"(module
                (import "ic0" "call_new" (func $new (param i32 i32 i32 i32 i32 i32 i32 i32)))
                (import "ic0" "call_data_append" (func $data (param i32 i32)))
                (import "ic0" "call_on_cleanup" (func $cleanup (param i32 i32)))
                (import "ic0" "call_cycles_add" (func $add (param i64)))
                (import "ic0" "call_cycles_add128" (func $add128 (param i64 i64)))
                (import "ic0" "call_with_best_effort_response" (func $timeout (param i32)))
                (import "ic0" "call_perform" (func $perform (result i32)))
                (memory 1)
                (func (export "canister_update go")
                  (call $new (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                             (i32.const 0) (i32.const 0)) {before} {body}))"#
        )
    };
    let count = |body: &str| Canister::new(&program("", body)).update("go").instructions;
    // entry 1, consts 8, call 5, call_new 1500
    let base = 1_514;
    assert_eq!(count(""), base);
    assert_eq!(count("(call $data (i32.const 0) (i32.const 1000))"), base + 7 + 500 + 50 * 1_000 + 80_000);
    assert_eq!(count("(call $cleanup (i32.const 0) (i32.const 0))"), base + 7 + 500);
    assert_eq!(count("(call $add (i64.const 1))"), base + 6 + 500);
    assert_eq!(count("(call $add128 (i64.const 0) (i64.const 1))"), base + 7 + 500);
    assert_eq!(count("(call $timeout (i32.const 1))"), base + 6 + 500);
    assert_eq!(count("(drop (call $perform))"), base + 6 + 5_000);
}

/// Printing pays for the log: 2 a byte up to its capacity, 50 a byte up to its room.
#[test]
fn logging() {
    let program = |function: &str, len: u64| {
        format!(
            r#"(module (import "ic0" "{function}" (func $f (param i32 i32))) (memory 2) (data (i32.const 0) "hello")
                 (func (export "canister_update go") (call $f (i32.const 0) (i32.const {len}))))"#
        )
    };
    let outcome = Canister::new(&program("debug_print", 5)).update("go");
    // entry 1, consts 2, call 5; 100 + 2 x 5 + 50 x 5; one page read
    assert_eq!(outcome.instructions, 8 + 100 + 10 + 250 + 80_000);
    assert_eq!(outcome.log.lines, [b"hello"]);
    let outcome = Canister::new(&program("debug_print", 50_000)).run_with(update("go"), |environment| {
        environment.system.log_remaining_bytes = 1_000;
    });
    assert_eq!(outcome.instructions, 8 + 100 + 2 * 4_096 + 50 * 1_000 + 80_000);
    let outcome = Canister::new(&program("trap", 5)).update("go");
    assert_eq!(outcome.instructions, 8 + 500 + 5 + 10 + 250 + 80_000);
    assert_eq!(outcome.log.lines, [b"[TRAP]: hello"]);
    assert_trap(
        outcome,
        "IC0503",
        "Canister called `ic0.trap` with message: 'hello'.\nConsider gracefully handling failures from this canister \
         or altering the canister to handle exceptions. See documentation: \
         https://internetcomputer.org/docs/current/references/execution-errors#trapped-explicitly",
    );
    // Neither fails for a wrong range.
    let far = |function: &str| {
        program(function, 5).replace("(i32.const 0) (i32.const 5)", "(i32.const 131068) (i32.const 5)")
    };
    assert!(far("trap").contains("131068"));
    let outcome = Canister::new(&far("debug_print")).update("go");
    assert_eq!(outcome.log.lines, [b"(debug_print message out of memory bounds)"]);
    effects(outcome);
    assert_trap(Canister::new(&far("trap")).update("go"), "IC0503", "'(trap message out of memory bounds)'");
}

#[test]
fn values_reach_the_canister() {
    let program = r#"(module
        (import "ic0" "msg_arg_data_size" (func $size (result i32)))
        (import "ic0" "msg_arg_data_copy" (func $copy (param i32 i32 i32)))
        (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
        (import "ic0" "msg_reply" (func $reply))
        (import "ic0" "time" (func $time (result i64)))
        (import "ic0" "global_timer_set" (func $timer (param i64) (result i64)))
        (import "ic0" "certified_data_set" (func $certify (param i32 i32)))
        (import "ic0" "env_var_value_copy" (func $variable (param i32 i32 i32 i32 i32)))
        (import "ic0" "is_controller" (func $is_controller (param i32 i32) (result i32)))
        (import "ic0" "in_replicated_execution" (func $replicated (result i32)))
        (memory 1) (data (i32.const 900) "\01\02\03key")
        (func $answer (param i64) (i64.store (i32.const 0) (local.get 0)) (call $append (i32.const 0) (i32.const 8)) (call $reply))
        (func (export "canister_update echo")
          (call $copy (i32.const 0) (i32.const 0) (call $size)) (call $append (i32.const 0) (call $size)) (call $reply))
        (func (export "canister_update time") (call $answer (call $time)))
        (func (export "canister_update timer") (drop (call $timer (i64.const 5))) (call $answer (call $timer (i64.const 6))))
        (func (export "canister_update first_timer") (call $answer (call $timer (i64.const 6))))
        (func (export "canister_update certify") (call $certify (i32.const 900) (i32.const 3)))
        (func (export "canister_update certify33") (call $certify (i32.const 0) (i32.const 33)))
        (func (export "canister_update variable")
          (call $variable (i32.const 903) (i32.const 3) (i32.const 0) (i32.const 1) (i32.const 3))
          (call $append (i32.const 0) (i32.const 3)) (call $reply))
        (func (export "canister_update controller")
          (call $answer (i64.extend_i32_u (i32.add (i32.mul (i32.const 10) (call $is_controller (i32.const 900) (i32.const 3)))
                                                   (call $is_controller (i32.const 900) (i32.const 2))))))
        (func (export "canister_update too_long") (drop (call $is_controller (i32.const 0) (i32.const 30))))
        (func (export "canister_update replicated") (call $answer (i64.extend_i32_u (call $replicated))))
        (func (export "canister_query replicated_query") (call $answer (i64.extend_i32_u (call $replicated))))
        (func (export "canister_update long") (call $append (i32.const 0) (i32.const 65537)))
        (func (export "canister_query timer_query") (drop (call $timer (i64.const 5)))))"#;
    let mut canister = Canister::new(program);
    let outcome = canister.run_with(update("echo"), |environment| environment.message.argument = b"argument".to_vec());
    assert_eq!(reply(outcome), b"argument");
    assert_eq!(reply_u64(canister.update("time")), 1_700_000_000_000_000_000);
    let outcome = effects(canister.update("timer"));
    assert_eq!(outcome.global_timer_ns, Some(6));
    assert_eq!(outcome.response, Some(Ok(5u64.to_le_bytes().to_vec())));
    assert_eq!(reply_u64(canister.update("first_timer")), 4);
    assert_eq!(effects(canister.update("certify")).certified_data, Some(vec![1, 2, 3]));
    assert_trap(canister.update("certify33"), "IC0504", "must be no larger than 32 bytes. Found 33 bytes.");
    let outcome = canister.run_with(update("variable"), |environment| {
        environment.system.environment_variables.insert("key".into(), "value".into());
    });
    assert_eq!(reply(outcome), b"alu");
    assert_trap(canister.update("variable"), "IC0504", "Environment variable key not found.");
    assert_eq!(reply_u64(canister.update("controller")), 10);
    assert_trap(canister.update("too_long"), "IC0504", "Canister provided invalid principal id");
    assert_eq!(reply_u64(canister.update("replicated")), 1);
    assert_eq!(reply_u64(canister.query("replicated_query")), 0);
    assert_trap(
        canister.update("long"),
        "IC0504",
        "Canister violated contract: msg.reply: src=0 + length=65537 exceeds the slice size=65536",
    );
    assert_trap(
        canister.query("timer_query"),
        "IC0504",
        "\"ic0_global_timer_set\" cannot be executed in non replicated query mode",
    );
}

/// Replies: 2 MiB in replicated execution, 3 MiB in queries.
#[test]
fn reply_limits() {
    let program = r#"(module (import "ic0" "msg_reply_data_append" (func $append (param i32 i32))) (memory 49)
        (func $send (call $append (i32.const 0) (i32.const 2097152)) (call $append (i32.const 0) (i32.const 1)))
        (func (export "canister_update go") (call $send))
        (func (export "canister_query go_query") (call $send) (call $append (i32.const 0) (i32.const 1048576))))"#;
    let mut canister = Canister::new(program);
    assert_trap(canister.update("go"), "IC0504", "application payload size (2097153) cannot be larger than 2097152.");
    assert_trap(
        canister.query("go_query"),
        "IC0504",
        "application payload size (3145729) cannot be larger than 3145728.",
    );
}
