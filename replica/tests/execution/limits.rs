//! Every limit of a running message, and the error it gives.

use crate::canister::{Canister, assert_trap, effects, environment, query, update};
use replica::execution::EntryPoint;

#[test]
fn instruction_limit() {
    let mut canister = Canister::new(r#"(module (func (export "canister_update go") (loop (br 0))))"#);
    let outcome = canister.run_with(update("go"), |environment| environment.instruction_limit = Some(1_000));
    // entry 1, then 2 for every turn: 1,001 is the first count above the limit
    assert_eq!(outcome.instructions, 1_001);
    assert_trap(outcome, "IC0522", "Canister exceeded the limit of 1000 instructions for single message execution.");
}

/// Exactly the limit is enough, and one less is not.
#[test]
fn the_limit_itself_may_be_used() {
    let mut canister = Canister::new(r#"(module (func $f nop) (func (export "canister_update go") (call $f)))"#);
    // entry 1, call 5, entry 1, nop 1
    for (limit, ok) in [(8, true), (7, false)] {
        let outcome = canister.run_with(update("go"), |environment| environment.instruction_limit = Some(limit));
        assert_eq!(outcome.instructions, 8);
        assert_eq!(outcome.result.is_ok(), ok, "{limit}");
    }
}

/// The counter is only compared at entries, loops and calls: straight code may overrun the limit and succeed.
#[test]
fn a_loop_free_stretch_may_overrun() {
    let nops = "nop ".repeat(120);
    let wat = format!(r#"(module (func (export "canister_update go") (if (i32.const 1) (then {nops}))))"#);
    let outcome = Canister::new(&wat).run_with(update("go"), |environment| environment.instruction_limit = Some(100));
    // entry 1, const 1, if 2, nops 120
    assert_eq!(outcome.instructions, 124);
    effects(outcome);
}

#[test]
fn kinds_of_messages_have_their_limits() {
    let wat = r#"(module
        (import "ic0" "performance_counter" (func $pc (param i32) (result i64)))
        (func $spin (loop (br 0)))
        (func (export "canister_query go") (call $spin))
        (func (export "canister_inspect_message") (call $spin)))"#;
    let mut canister = Canister::new(wat);
    assert_trap(canister.query("go"), "IC0522", "limit of 5000000000 instructions");
    assert_trap(canister.run(EntryPoint::InspectMessage("x".into())), "IC0522", "limit of 200000000 instructions");
}

/// An update is cut into slices of 2e9; what is reported is the sum.
#[test]
fn long_messages_take_slices() {
    let wat = r#"(module (func (export "canister_update go") (local $i i32)
        (loop $l (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 600000000))))))"#;
    let outcome = Canister::new(wat).update("go");
    // entry 1, then 8 a turn
    assert_eq!(outcome.instructions, 1 + 8 * 600_000_000);
    assert_eq!(outcome.slices, 3);
    effects(outcome);
}

/// One operation that costs more than a whole slice fails, though the message has instructions left.
#[test]
fn slice_overrun() {
    let wat = r#"(module (memory 1) (func (export "canister_update go")
        (memory.fill (i32.const 0) (i32.const 0) (i32.const -294967296))))"#;
    // 4e9 bytes: out of bounds, but paid for first. The slice is overrun by 2e9 and more.
    assert_trap(
        Canister::new(wat).update("go"),
        "IC0522",
        "Canister attempted to perform a large memory operation that used 4000000104 instructions and exceeded the \
         slice limit 2000000000.",
    );
    // A slice less: the next slice has something left, and the operation itself traps.
    let wat = wat.replace("-294967296", "-294967996");
    assert_trap(Canister::new(&wat).update("go"), "IC0502", "heap out of bounds");
}

#[test]
fn wasm_memory_limit() {
    let wat = r#"(module (memory 1)
        (func (export "canister_update go") (drop (memory.grow (i32.const 1))))
        (func (export "canister_query go_query") (drop (memory.grow (i32.const 1))))
        (func (export "canister_init") (drop (memory.grow (i32.const 1))))
        (func (export "canister_pre_upgrade") (drop (memory.grow (i32.const 1)))))"#;
    let mut canister = Canister::new(wat);
    let text = "Canister exceeded its current Wasm memory limit of 100000 bytes. The peak Wasm memory usage was 131072 \
                bytes.";
    let limited = |canister: &mut Canister, entry_point| {
        canister.run_with(entry_point, |environment| environment.system.wasm_memory_limit_bytes = 100_000)
    };
    assert_trap(limited(&mut canister, update("go")), "IC0539", text);
    assert_trap(limited(&mut canister, EntryPoint::Init), "IC0539", text);
    // Neither queries nor pre_upgrade are bound, so that data can be rescued.
    effects(limited(&mut canister, query("go_query")));
    effects(limited(&mut canister, EntryPoint::PreUpgrade));
    // A heap that is above the limit already stops updates before they start.
    assert_trap(limited(&mut canister, update("go")), "IC0539", text);
}

#[test]
fn stable_memory_limits() {
    let program = |body: &str| {
        format!(
            r#"(module
                (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
                (import "ic0" "stable64_read" (func $read (param i64 i64 i64)))
                (import "ic0" "stable64_write" (func $write (param i64 i64 i64)))
                (import "ic0" "stable_size" (func $size32 (result i32)))
                (import "ic0" "stable_grow" (func $grow32 (param i32) (result i32)))
                (import "ic0" "stable_write" (func $write32 (param i32 i32 i32)))
                (memory 16400)
                (func $expect (param i64 i64) (if (i64.ne (local.get 0) (local.get 1)) (then unreachable)))
                (func (export "canister_update go") {body})
                (func (export "canister_query go_query") {body}))"#
        )
    };
    let run = |body: &str| Canister::new(&program(body)).update("go");
    let out_of_bounds = "Canister trapped: stable memory out of bounds";
    assert_trap(run("(call $read (i64.const 0) (i64.const 0) (i64.const 1))"), "IC0502", out_of_bounds);
    assert_trap(run("(call $write (i64.const -1) (i64.const 0) (i64.const 2))"), "IC0502", out_of_bounds);
    // Nothing is read at no place; the old write checks even that.
    effects(run("(call $read (i64.const 0) (i64.const 7) (i64.const 0))"));
    assert_trap(run("(call $write32 (i32.const 7) (i32.const 0) (i32.const 0))"), "IC0502", out_of_bounds);
    // 500 GiB are the most, 4 GiB for the 32-bit API, which traps beyond.
    effects(run(
        "(call $expect (call $grow (i64.const 8192001)) (i64.const -1)) (call $expect (call $grow (i64.const 8192000)) (i64.const 0))
         (call $expect (call $grow (i64.const 1)) (i64.const -1))",
    ));
    effects(run("(call $expect (i64.extend_i32_s (call $grow32 (i32.const 65537))) (i64.const -1))"));
    assert_trap(
        run("(drop (call $grow (i64.const 65537))) (drop (call $size32))"),
        "IC0502",
        "32 bit stable memory api used on a memory larger than 4GB",
    );
    // A query may access 1 GiB.
    let body = "(drop (call $grow (i64.const 20000)))
        (call $read (i64.const 0) (i64.const 0) (i64.const 1073741824))
        (call $read (i64.const 0) (i64.const 1073741824) (i64.const 1))";
    assert_trap(
        Canister::new(&program(body)).run_with(query("go_query"), |environment| {
            environment.instruction_limit = Some(50_000_000_000);
        }),
        "IC0524",
        "Canister exceeded memory access limits: Exceeded the limit for the number of accessed pages in the stable \
         memory in a single message execution: limit 2097152 KB for regular messages, 8388608 KB for upgrade messages \
         and 1048576 KB for queries.",
    );
}

#[test]
fn traps_have_the_networks_texts() {
    let cases = [
        ("(drop (i32.div_s (i32.const 1) (i32.const 0)))", "integer division by 0"),
        ("(call_indirect (type $t) (i32.const 9))", "table out of bounds"),
        ("(call_indirect (type $t) (i32.const 1))", "unknown"),
        ("(call $deep)", "stack overflow"),
        ("unreachable", "unreachable"),
    ];
    for (body, text) in cases {
        let wat = format!(
            r#"(module (type $t (func)) (table 2 funcref) (func $deep (call $deep) nop)
                (func (export "canister_update go") {body}))"#
        );
        assert_trap(Canister::new(&wat).update("go"), "IC0502", &format!("Canister trapped: {text}"));
    }
}

#[test]
fn a_trap_shows_where_it_happened() {
    let wat = r#"(module (import "ic0" "time" (func $time (result i64)))
        (func $inner unreachable) (func $outer (call $inner) nop)
        (func $go (export "canister_update go") (call $outer) nop))"#;
    let outcome = Canister::new(wat).update("go");
    assert_eq!(outcome.log.lines, [b"[TRAP]: unreachable\nCanister Backtrace:\ninner\nouter\ngo\n"]);
    assert_trap(
        outcome,
        "IC0502",
        "Canister trapped: unreachable\nCanister Backtrace:\ninner\nouter\ngo\n.\nConsider gracefully handling",
    );
}

#[test]
fn missing_functions() {
    let mut canister = Canister::new(r#"(module (func (export "canister_update go")))"#);
    assert_trap(canister.update("x"), "IC0536", "Canister has no update method 'x'.");
    assert_trap(canister.query("go"), "IC0536", "Canister has no query method 'go'.");
    let closure = replica::execution::Closure { function: 3, environment: 0 };
    assert_trap(
        canister.run(EntryPoint::ReplyCallback(closure)),
        "IC0513",
        "non-existent Wasm function 3 from table 0",
    );
}

/// A failed message tells what it executed, and the next one starts afresh.
#[test]
fn the_canister_goes_on_after_every_failure() {
    let mut canister = Canister::new(
        r#"(module (memory 1) (func (export "canister_update go") (i32.store (i32.const 0) (i32.const 1)))
            (func (export "canister_update bad") (i32.store (i32.const 0) (i32.const 1)) unreachable))"#,
    );
    for _ in 0..20 {
        let bad = canister.instance.execute(environment(update("bad")));
        assert!(bad.result.is_err());
        assert_eq!(bad.page_charge, 160_000);
        effects(canister.update("go"));
    }
}
