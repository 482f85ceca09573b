//! Counts derived by hand, operator by operator, for control flow, sizes, tables and bulk operations.

use crate::canister::{Canister, reply_u64};

/// Instructions of `canister_update go` in a module.
fn count(wat: &str) -> u64 {
    let outcome = Canister::new(wat).update("go");
    assert!(outcome.result.is_ok(), "{:?}\n{wat}", outcome.result);
    outcome.instructions
}

/// The same for a body in a module with one page of memory.
fn body(body: &str) -> u64 {
    count(&format!(
        r#"(module (memory 1 9) (global $g (mut i32) (i32.const 0)) (func $f) (table 3 funcref) (elem (i32.const 0) $f $f)
             (type $void (func)) (elem $passive funcref (ref.func $f)) (data $d "0123456789")
             (func (export "canister_update go") (local $x i32) {body}))"#
    ))
}

#[test]
fn an_empty_function_costs_its_entry() {
    assert_eq!(body(""), 1);
}

#[test]
fn plain_operators() {
    assert_eq!(body("nop nop"), 1 + 2);
    // const 1, drop 1
    assert_eq!(body("(drop (i32.const 1))"), 1 + 2);
    // three consts 3, select 1, drop 1
    assert_eq!(body("(drop (select (i32.const 1) (i32.const 2) (i32.const 3)))"), 1 + 5);
    assert_eq!(body("(drop (select (result i32) (i32.const 1) (i32.const 2) (i32.const 3)))"), 1 + 5);
    // const 1, local.set 1, local.get 1, local.tee 1, drop 1
    assert_eq!(body("(local.set $x (i32.const 1)) (drop (local.tee $x (local.get $x)))"), 1 + 5);
    // global.get 2, global.set 2
    assert_eq!(body("(global.set $g (global.get $g))"), 1 + 4);
    // memory.size 20, drop 1
    assert_eq!(body("(drop (memory.size))"), 1 + 21);
    // const 1, memory.grow 300, drop 1
    assert_eq!(body("(drop (memory.grow (i32.const 3)))"), 1 + 302);
    assert_eq!(body("(drop (memory.grow (i32.const 3000)))"), 1 + 302);
}

#[test]
fn tables_and_references() {
    // const 1, table.get 5, ref.is_null 5, drop 1
    assert_eq!(body("(drop (ref.is_null (table.get (i32.const 2))))"), 1 + 12);
    // table.size 100, drop 1
    assert_eq!(body("(drop (table.size))"), 1 + 101);
    // ref.func 130, drop 1; ref.null 1, drop 1
    assert_eq!(body("(drop (ref.func $f)) (drop (ref.null func))"), 1 + 131 + 2);
    // elem.drop 300, data.drop 300
    assert_eq!(body("(elem.drop $passive) (data.drop $d)"), 1 + 600);
}

#[test]
fn calls() {
    // call 5, and the entry of the callee 1
    assert_eq!(body("(call $f)"), 1 + 5 + 1);
    // const 1, call_indirect 10, entry 1
    assert_eq!(body("(call_indirect (type $void) (i32.const 1))"), 1 + 1 + 10 + 1);
    // return_call 3, entry 1
    assert_eq!(body("(return_call $f)"), 1 + 3 + 1);
    // const 1, return_call_indirect 60, entry 1
    assert_eq!(body("(return_call_indirect (type $void) (i32.const 0))"), 1 + 1 + 60 + 1);
}

#[test]
fn structured_control() {
    // block 0, nop 1, end 0
    assert_eq!(body("(block nop)"), 1 + 1);
    // const 1, if 2, then-branch: nop 1
    assert_eq!(body("(if (i32.const 1) (then nop) (else nop nop nop))"), 1 + 3 + 1);
    // const 1, if 2, else-branch: nop 3
    assert_eq!(body("(if (i32.const 0) (then nop) (else nop nop nop))"), 1 + 3 + 3);
    // br 2; what follows is never entered
    assert_eq!(body("(block (br 0) nop nop)"), 1 + 2);
    // const 1, br_if 2, and nop 1 only when not taken
    assert_eq!(body("(block (br_if 0 (i32.const 1)) nop)"), 1 + 3);
    assert_eq!(body("(block (br_if 0 (i32.const 0)) nop)"), 1 + 3 + 1);
    // const 1, br_table 2
    assert_eq!(body("(block (block (br_table 0 1 (i32.const 1)) nop) nop)"), 1 + 3);
    assert_eq!(body("(block (block (br_table 0 1 (i32.const 0)) nop) nop)"), 1 + 3 + 1);
    // return 1
    assert_eq!(body("return nop nop"), 1 + 1);
}

#[test]
fn loops() {
    // Header block: get 1, const 1, add 1, tee 1, const 1, lt_u 1, br_if 2 = 8 a turn; 10 turns.
    let ten = "(loop $l (br_if $l (i32.lt_u (local.tee $x (i32.add (local.get $x) (i32.const 1))) (i32.const 10))))";
    assert_eq!(body(ten), 1 + 80);
    // A loop without a back edge whose header costs nothing, twice nested.
    assert_eq!(body("(loop (loop nop))"), 1 + 1);
    assert_eq!(body("(loop (loop)) nop"), 1 + 1);
}

/// A trap in the middle of a block has paid for all of it.
#[test]
fn a_trap_pays_for_its_block() {
    let mut canister = Canister::new(r#"(module (func (export "canister_update go") nop (unreachable) nop nop))"#);
    // entry 1, nop 1, unreachable 1; the block ends there
    assert_eq!(canister.update("go").instructions, 3);
    let mut canister = Canister::new(
        r#"(module (func (export "canister_update go") (drop (i32.div_u (i32.const 1) (i32.const 0))) nop nop))"#,
    );
    // entry 1, consts 2, div 10, drop 1, nops 2
    assert_eq!(canister.update("go").instructions, 16);
}

#[test]
fn bulk_operations_pay_for_every_byte() {
    // 3 consts, fill 100, one per byte; one page accessed and written
    assert_eq!(body("(memory.fill (i32.const 0) (i32.const 7) (i32.const 1000))"), 1 + 3 + 100 + 1000 + 160_000);
    // nothing to copy: no page is touched
    assert_eq!(body("(memory.copy (i32.const 0) (i32.const 7) (i32.const 0))"), 1 + 3 + 100);
    assert_eq!(body("(memory.copy (i32.const 0) (i32.const 7) (i32.const 50))"), 1 + 3 + 100 + 50 + 160_000);
    assert_eq!(body("(memory.init $d (i32.const 0) (i32.const 1) (i32.const 9))"), 1 + 3 + 100 + 9 + 160_000);
}

/// With a 64-bit memory: operands of fill and copy have 64 bits, loads and stores cost 2.
#[test]
fn bulk_operations_with_64_bit_memories() {
    let program = |body: &str| {
        count(&format!(r#"(module (memory i64 1) (data $d "0123456789") (func (export "canister_update go") {body}))"#))
    };
    assert_eq!(program("(memory.fill (i64.const 0) (i32.const 7) (i64.const 1000))"), 1 + 3 + 100 + 1000 + 160_000);
    assert_eq!(program("(memory.copy (i64.const 0) (i64.const 9) (i64.const 1000))"), 1 + 3 + 100 + 1000 + 160_000);
    assert_eq!(program("(memory.init $d (i64.const 0) (i32.const 1) (i32.const 9))"), 1 + 3 + 100 + 9 + 160_000);
    // const 1, load 2, drop 1; const 2, store 2
    assert_eq!(program("(drop (i64.load (i64.const 8))) (i64.store (i64.const 8) (i64.const 1))"), 1 + 4 + 4 + 160_000);
}

const COUNTER: &str = r#"
    (import "ic0" "performance_counter" (func $pc (param i32) (result i64)))
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (import "ic0" "msg_reply" (func $reply))"#;

/// A counter read in the middle of a block already includes the rest of the block, and its own 200.
#[test]
fn performance_counter_in_the_middle_of_a_block() {
    let wat = format!(
        r#"(module {COUNTER} (memory 1)
             (func (export "canister_update go")
               (i64.store (i32.const 0) (call $pc (i32.const 0)))
               nop nop nop
               (call $append (i32.const 0) (i32.const 8))
               (call $reply)))"#
    );
    // entry 1, const 1, const 1, call 5, store 1, nops 3, consts 2, call 5, call 5
    let block = 24;
    let mut canister = Canister::new(&wat);
    let outcome = canister.update("go");
    // append 500 + 50 x 8, reply 500, the page accessed and written
    assert_eq!(outcome.instructions, block + 200 + 900 + 500 + 160_000);
    assert_eq!(reply_u64(outcome), block + 200);
}

/// Page charges are seen by the counter as soon as they happen, in Wasm code and in host calls.
#[test]
fn performance_counter_sees_page_charges() {
    let wat = format!(
        r#"(module {COUNTER} (memory 4)
             (func (export "canister_update go")
               (drop (i32.load (i32.const 65536)))
               (i64.store (i32.const 0) (call $pc (i32.const 0)))
               (call $append (i32.const 0) (i32.const 8))
               (call $reply)))"#
    );
    // entry 1; load: const 1, load 1, drop 1; store: const 1, const 1, call 5, store 1; append: consts 2, call 5; call 5
    let block = 1 + 3 + 8 + 7 + 5;
    let outcome = Canister::new(&wat).update("go");
    assert_eq!(outcome.page_charge, 80_000 + 160_000);
    assert_eq!(reply_u64(outcome), block + 80_000 + 200);
}

/// Counter 1 starts from what earlier messages of the call context executed.
#[test]
fn performance_counter_of_the_call_context() {
    let wat = format!(
        r#"(module {COUNTER} (memory 1)
             (func (export "canister_update go")
               (i64.store (i32.const 0) (call $pc (i32.const 1)))
               (call $append (i32.const 0) (i32.const 8))
               (call $reply)))"#
    );
    let mut canister = Canister::new(&wat);
    let outcome = canister.run_with(crate::canister::update("go"), |environment| {
        environment.message.call_context_instructions = 1_000_000;
    });
    // entry 1, const 1, const 1, call 5, store 1, consts 2, call 5, call 5
    assert_eq!(reply_u64(outcome), 1_000_000 + 21 + 200);
}

/// The start function runs as a message of its own, metered; init after it.
#[test]
fn start_and_init_are_metered() {
    let mut canister =
        Canister::new(r#"(module (memory 1) (func $s nop nop) (start $s) (func (export "canister_init") nop))"#);
    assert_eq!(canister.run(replica::execution::EntryPoint::Start).instructions, 3);
    assert_eq!(canister.run(replica::execution::EntryPoint::Init).instructions, 2);
}
