//! Page charges and the heap's pages.

use crate::canister::{Canister, assert_trap, query, reply, update};
use replica::execution::EntryPoint;

const REPLY: &str = r#"
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (import "ic0" "msg_reply" (func $reply))"#;

fn page_charge(body: &str, entry_point: EntryPoint) -> u64 {
    let kind = if matches!(entry_point, EntryPoint::Update(_)) { "update" } else { "query" };
    let wat = format!(r#"(module (memory 9) (func (export "canister_{kind} go") {body}))"#);
    let outcome = Canister::new(&wat).run(entry_point);
    assert!(outcome.result.is_ok(), "{:?}", outcome.result);
    outcome.page_charge
}

/// Reads, writes, writes after reads, accesses that straddle two pages: access 80,000, write 80,000 more.
#[test]
fn every_way_to_touch_a_page() {
    let cases = [
        ("(drop (i32.load (i32.const 0)))", 1, 0),
        ("(drop (i32.load (i32.const 0))) (drop (i32.load (i32.const 65532)))", 1, 0),
        ("(i32.store (i32.const 0) (i32.const 1))", 1, 1),
        ("(drop (i32.load (i32.const 0))) (i32.store8 (i32.const 9) (i32.const 1))", 1, 1),
        ("(i32.store (i32.const 0) (i32.const 1)) (drop (i32.load (i32.const 0)))", 1, 1),
        ("(i64.store (i32.const 65532) (i64.const 1))", 2, 2),
        ("(drop (v128.load (i32.const 131064)))", 2, 0),
        ("(drop (i32.load offset=65536 (i32.const 65536)))", 1, 0),
        ("(memory.copy (i32.const 0) (i32.const 196608) (i32.const 65537))", 4, 2),
    ];
    for (body, accessed, written) in cases {
        assert_eq!(page_charge(body, update("go")), 80_000 * (accessed + written), "{body}");
        assert_eq!(page_charge(body, query("go")), 80_000 * accessed, "{body}");
    }
}

/// The next message pays again, and a query between them leaves nothing behind.
#[test]
fn charges_start_anew_with_every_message() {
    let mut canister = Canister::new(
        r#"(module (memory 2)
             (func (export "canister_update go") (i32.store (i32.const 0) (i32.const 1)))
             (func (export "canister_query look") (drop (i32.load (i32.const 0)))))"#,
    );
    for _ in 0..3 {
        assert_eq!(canister.update("go").page_charge, 160_000);
        assert_eq!(canister.query("look").page_charge, 80_000);
    }
}

/// Pages that came with memory.grow are charged like others, and only when touched.
#[test]
fn grown_pages() {
    let mut canister = Canister::new(
        r#"(module (memory 1)
             (func (export "canister_update go")
               (drop (memory.grow (i32.const 10)))
               (i32.store (i32.const 720000) (i32.const 1))
               (drop (i32.load (i32.const 65536)))))"#,
    );
    let outcome = canister.update("go");
    assert_eq!(outcome.page_charge, 160_000 + 80_000);
    assert_eq!(outcome.pages_dirtied, 1);
    assert_eq!(canister.instance.heap_bytes(), 11 * 65_536);
}

#[test]
fn out_of_bounds_traps() {
    for body in [
        "(drop (i32.load (i32.const 65533)))",
        "(i32.store (i32.const 65536) (i32.const 1))",
        "(drop (i64.load offset=4294967288 (i32.const -1)))",
        "(drop (i32.load (i32.const -4)))",
        "(memory.fill (i32.const 1) (i32.const 1) (i32.const 65536))",
        "(v128.store (i32.const 65528) (v128.const i64x2 1 2))",
    ] {
        let wat = format!(r#"(module (memory 1) (func (export "canister_update go") {body}))"#);
        assert_trap(Canister::new(&wat).update("go"), "IC0502", "Canister trapped: heap out of bounds");
    }
    let wat = r#"(module (memory i64 1) (func (export "canister_update go") (drop (i32.load (i64.const 65533)))))"#;
    assert_trap(Canister::new(wat).update("go"), "IC0502", "heap out of bounds");
    let wat = r#"(module (memory i64 1) (func (export "canister_update go") (drop (i32.load (i64.const -8)))))"#;
    assert_trap(Canister::new(wat).update("go"), "IC0502", "heap out of bounds");
}

/// All 65,536 pages of a 4 GiB heap are read in one message; then every 64th is written and read back.
#[test]
fn a_heap_of_4_gib_touched_densely_and_sparsely() {
    let wat = format!(
        r#"(module {REPLY} (memory 65536)
             (func (export "canister_update dense") (local $p i64) (local $sum i32)
               (loop $l
                 (local.set $sum (i32.add (local.get $sum) (i32.load (i32.wrap_i64 (local.get $p)))))
                 (local.set $p (i64.add (local.get $p) (i64.const 65536)))
                 (br_if $l (i64.lt_u (local.get $p) (i64.const 4294967296)))))
             (func (export "canister_update sparse") (local $p i64)
               (loop $l
                 (i32.store (i32.wrap_i64 (local.get $p)) (i32.const 1))
                 (local.set $p (i64.add (local.get $p) (i64.const 4194304)))
                 (br_if $l (i64.lt_u (local.get $p) (i64.const 4294967296)))))
             (func (export "canister_update last")
               (call $append (i32.const -4194304) (i32.const 1)) (call $reply)))"#
    );
    let mut canister = Canister::new(&wat);
    assert_eq!(canister.update("dense").page_charge, 65_536 * 80_000);
    assert_eq!(canister.update("sparse").page_charge, 1_024 * 160_000);
    assert_eq!(reply(canister.update("last")), [1]);
    assert_eq!(canister.update("dense").page_charge, 65_536 * 80_000);
}

/// Heaps beyond 4 GiB, by 64-bit addresses.
#[test]
fn a_64_bit_heap_reaches_6_gib() {
    let mut canister = Canister::new(
        r#"(module (memory i64 1)
             (func (export "canister_update go")
               (drop (memory.grow (i64.const 98303)))
               (i64.store (i64.const 6442450936) (i64.const 7))
               (if (i64.ne (i64.load (i64.const 6442450936)) (i64.const 7)) (then unreachable))
               (if (i64.ne (memory.grow (i64.const 1)) (i64.const -1)) (then unreachable))))"#,
    );
    let outcome = canister.update("go");
    assert_eq!(outcome.page_charge, 160_000);
    crate::canister::effects(outcome);
    assert_eq!(canister.instance.heap_bytes(), 6 << 30);
}
