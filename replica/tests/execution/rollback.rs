//! What a failed message, a query, or a checkpoint leaves behind: nothing.

use crate::canister::{Canister, assert_trap, effects, query, reply_u64, update};
use replica::execution::{EntryPoint, Instance, StableMemory};

/// Heap, a global, heap size and stable memory, each changed by `go` and read by `state`:
/// heap byte + 100 x global + 10,000 x heap pages + 1,000,000 x stable pages + 100,000,000 x stable byte.
const PROGRAM: &str = r#"(module
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
    (import "ic0" "stable64_size" (func $size (result i64)))
    (import "ic0" "stable64_write" (func $write (param i64 i64 i64)))
    (import "ic0" "stable64_read" (func $read (param i64 i64 i64)))
    (memory 3) (data (i32.const 131072) "\05")
    (global $g (mut i64) (i64.const 3))
    (func $change
      (i32.store8 (i32.const 131072) (i32.add (i32.load8_u (i32.const 131072)) (i32.const 1)))
      (global.set $g (i64.add (global.get $g) (i64.const 1)))
      (drop (memory.grow (i32.const 1)))
      (drop (call $grow (i64.const 1)))
      (i32.store8 (i32.const 16) (i32.load8_u (i32.const 131072)))
      (call $write (i64.const 9) (i64.const 16) (i64.const 1)))
    (func $state (result i64)
      (if (i64.gt_u (call $size) (i64.const 0)) (then (call $read (i64.const 32) (i64.const 9) (i64.const 1))))
      (i64.add (i64.add (i64.add (i64.add
        (i64.load8_u (i32.const 131072))
        (i64.mul (i64.const 100) (global.get $g)))
        (i64.mul (i64.const 10000) (i64.extend_i32_u (memory.size))))
        (i64.mul (i64.const 1000000) (call $size)))
        (i64.mul (i64.const 100000000) (i64.load8_u (i32.const 32)))))
    (func $answer
      (i64.store (i32.const 0) (call $state))
      (call $append (i32.const 0) (i32.const 8)) (call $reply))
    (func (export "canister_update go") (call $change) (call $answer))
    (func (export "canister_update fail") (call $change) unreachable)
    (func (export "canister_query go_query") (call $change) (call $answer))
    (func (export "canister_composite_query go_composite") (call $change) (call $answer))
    (func (export "canister_inspect_message") (call $change))
    (func (export "canister_query state") (call $answer)))"#;

const FRESH: u64 = 5 + 300 + 30_000;
const ONCE: u64 = 6 + 400 + 40_000 + 1_000_000 + 600_000_000;
const TWICE: u64 = 7 + 500 + 50_000 + 2_000_000 + 700_000_000;

fn state(canister: &mut Canister) -> u64 {
    reply_u64(canister.query("state"))
}

#[test]
fn a_trap_rolls_everything_back() {
    let mut canister = Canister::new(PROGRAM);
    assert_eq!(state(&mut canister), FRESH);
    assert_trap(canister.update("fail"), "IC0502", "Canister trapped: unreachable");
    assert_eq!(state(&mut canister), FRESH);
    assert_eq!((canister.instance.heap_bytes(), canister.instance.stable_bytes()), (3 * 65_536, 0));
    assert_eq!(reply_u64(canister.update("go")), ONCE);
    assert_trap(canister.update("fail"), "IC0502", "unreachable");
    assert_eq!(state(&mut canister), ONCE);
    assert_eq!(reply_u64(canister.update("go")), TWICE);
    assert_eq!(state(&mut canister), TWICE);
}

#[test]
fn queries_and_inspection_leave_nothing() {
    let mut canister = Canister::new(PROGRAM);
    for replicated in [false, true] {
        let entry_point = EntryPoint::Query { method: "go_query".into(), replicated };
        assert_eq!(reply_u64(canister.run(entry_point)), ONCE);
        assert_eq!(state(&mut canister), FRESH);
    }
    effects(canister.run(EntryPoint::InspectMessage("go".into())));
    assert_eq!(state(&mut canister), FRESH);
}

/// A composite query commits, so that its callbacks see its heap; the checkpoint undoes it.
#[test]
fn a_checkpoint_undoes_composite_queries_and_updates() {
    let mut canister = Canister::new(PROGRAM);
    canister.instance.checkpoint();
    assert_eq!(reply_u64(canister.run(EntryPoint::CompositeQuery("go_composite".into()))), ONCE);
    assert_eq!(reply_u64(canister.run(update("go"))), TWICE);
    canister.instance.rollback_to_checkpoint();
    assert_eq!(state(&mut canister), FRESH);
    assert_eq!(reply_u64(canister.update("go")), ONCE);
    // Without a checkpoint there is nothing to roll back to.
    canister.instance.rollback_to_checkpoint();
    assert_eq!(state(&mut canister), ONCE);
}

/// The steps of an upgrade: stable memory moves over, and moves back rolled back when the new module fails.
#[test]
fn an_upgrade_is_atomic() {
    let mut old = Canister::new(PROGRAM);
    effects(old.update("go"));
    old.instance.checkpoint();
    effects(old.update("go"));
    let new_module = |body: &str| {
        format!(
            r#"(module (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
                 (import "ic0" "stable64_write" (func $write (param i64 i64 i64)))
                 (memory 1) (data (i32.const 0) "\63")
                 (func (export "canister_post_upgrade")
                   (drop (call $grow (i64.const 5))) (call $write (i64.const 9) (i64.const 0) (i64.const 1)) {body}))"#
        )
    };
    for body in ["unreachable", ""] {
        let module = crate::canister::compile(&new_module(body)).unwrap();
        let empty = StableMemory::new().unwrap();
        let mut new = Instance::new(crate::canister::engine(), &module, empty).unwrap();
        new.replace_stable(old.instance.replace_stable(StableMemory::new().unwrap()));
        let outcome = new.execute(crate::canister::environment(EntryPoint::PostUpgrade));
        if outcome.result.is_ok() {
            new.stable_mut().release_checkpoint();
            assert_eq!(new.stable_bytes(), 7 * 65_536);
            assert_eq!(new.stable().read_all()[9], 0x63);
        } else {
            old.instance.replace_stable(new.into_stable());
            old.instance.rollback_to_checkpoint();
            assert_eq!(state(&mut old), ONCE);
            old.instance.checkpoint();
            effects(old.update("go"));
        }
    }
}

/// Dropped segments are whole again in the next message, and active ones are as good as dropped.
#[test]
fn data_segments() {
    let mut canister = Canister::new(
        r#"(module (memory 1)
             (data $active (i32.const 8) "active") (data $passive "passive")
             (func (export "canister_update drop")
               (memory.init $passive (i32.const 0) (i32.const 0) (i32.const 7)) (data.drop $passive)
               (if (i32.ne (i32.load8_u (i32.const 8)) (i32.const 97)) (then unreachable)))
             (func (export "canister_update twice")
               (data.drop $passive) (memory.init $passive (i32.const 0) (i32.const 0) (i32.const 1)))
             (func (export "canister_update again")
               (memory.init $active (i32.const 0) (i32.const 0) (i32.const 1))))"#,
    );
    for _ in 0..2 {
        effects(canister.update("drop"));
        assert_trap(canister.update("twice"), "IC0502", "heap out of bounds");
        assert_trap(canister.update("again"), "IC0502", "heap out of bounds");
    }
}

/// Globals of every type keep their values between messages.
#[test]
fn globals_of_every_type_persist() {
    let mut canister = Canister::new(
        r#"(module
             (global $a (mut i32) (i32.const 1)) (global $constant i32 (i32.const 5))
             (global $b (mut i64) (i64.const 1)) (global $c (mut f32) (f32.const 1))
             (global $d (mut f64) (f64.const 1)) (global $e (mut v128) (v128.const i64x2 1 1))
             (func (export "canister_update go")
               (global.set $a (i32.add (global.get $a) (global.get $constant)))
               (global.set $b (i64.add (global.get $b) (i64.const 5)))
               (global.set $c (f32.add (global.get $c) (f32.const 5)))
               (global.set $d (f64.add (global.get $d) (f64.const 5)))
               (global.set $e (i64x2.add (global.get $e) (v128.const i64x2 5 5))))
             (func (export "canister_query check")
               (if (i32.ne (global.get $a) (i32.const 11)) (then unreachable))
               (if (i64.ne (global.get $b) (i64.const 11)) (then unreachable))
               (if (f32.ne (global.get $c) (f32.const 11)) (then unreachable))
               (if (f64.ne (global.get $d) (f64.const 11)) (then unreachable))
               (if (i64.ne (i64x2.extract_lane 1 (global.get $e)) (i64.const 11)) (then unreachable))))"#,
    );
    assert_trap(canister.query("check"), "IC0502", "unreachable");
    effects(canister.update("go"));
    effects(canister.update("go"));
    effects(canister.run(query("check")));
}
