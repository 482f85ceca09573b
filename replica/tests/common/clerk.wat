;; A canister that shows what the doors bring to it: arguments, callers, time, timers, and long messages.
(module
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reject" (func $reject (param i32 i32)))
  (import "ic0" "msg_arg_data_size" (func $arg_size (result i32)))
  (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
  (import "ic0" "msg_caller_size" (func $caller_size (result i32)))
  (import "ic0" "msg_caller_copy" (func $caller_copy (param i32 i32 i32)))
  (import "ic0" "time" (func $time (result i64)))
  (import "ic0" "global_timer_set" (func $timer_set (param i64) (result i64)))
  ;; 0: the counter. 8: "no". 16: scratch. 65536: a copy of the argument.
  (memory 80)
  (data (i32.const 8) "no")

  (func $bump
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))))
  (func $reply_counter
    (call $append (i32.const 0) (i32.const 4))
    (call $reply))

  (func (export "canister_update inc")
    (call $bump)
    (call $reply_counter))
  (func (export "canister_query get")
    (call $reply_counter))
  (func $whoami
    (call $caller_copy (i32.const 16) (i32.const 0) (call $caller_size))
    (call $append (i32.const 16) (call $caller_size))
    (call $reply))
  (func (export "canister_update whoami") (call $whoami))
  (func (export "canister_query whoami_query") (call $whoami))
  ;; Takes any argument and replies with its length.
  (func (export "canister_update swallow")
    (call $arg_copy (i32.const 65536) (i32.const 0) (call $arg_size))
    (i32.store (i32.const 16) (call $arg_size))
    (call $append (i32.const 16) (i32.const 4))
    (call $reply))
  (func (export "canister_query refuse")
    (call $reject (i32.const 8) (i32.const 2)))
  (func (export "canister_update trap")
    (unreachable))
  ;; Goes round as often as the argument (eight bytes, little-endian) says, slowly: each division waits for the one
  ;; before it, and costs no more than three additions.
  (func (export "canister_update toil")
    (local $left i64) (local $value f32) (local $up f32) (local $down f32)
    (call $arg_copy (i32.const 16) (i32.const 0) (i32.const 8))
    (local.set $left (i64.load (i32.const 16)))
    (local.set $value (f32.const 1.5))
    (local.set $up (f32.const 1.25))
    (local.set $down (f32.const 0.8))
    (loop $again
      (local.set $value
        (f32.div (f32.div (f32.div (f32.div (f32.div (f32.div (f32.div (f32.div (local.get $value)
          (local.get $up)) (local.get $down)) (local.get $up)) (local.get $down))
          (local.get $up)) (local.get $down)) (local.get $up)) (local.get $down)))
      (local.set $left (i64.sub (local.get $left) (i64.const 1)))
      (br_if $again (i64.gt_s (local.get $left) (i64.const 0))))
    (f32.store (i32.const 16) (local.get $value))
    (call $bump)
    (call $reply_counter))
  ;; Sets the timer to one second from now; when it goes off, the counter goes up.
  (func (export "canister_update arm")
    (drop (call $timer_set (i64.add (call $time) (i64.const 1_000_000_000))))
    (call $reply))
  (func (export "canister_global_timer")
    (call $bump))
  (func (export "canister_query now")
    (i64.store (i32.const 16) (call $time))
    (call $append (i32.const 16) (i32.const 8))
    (call $reply))

  (@custom "icp:public motto" "everyone may read this")
  (@custom "icp:private diary" "controllers may read this"))
