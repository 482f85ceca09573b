//! Modules that may not be installed, each with the network's reason.

use crate::canister::{compile, engine};
use replica::execution::Module;

fn rejected(wat: &str, text: &str) {
    let error = compile(wat).err().unwrap_or_else(|| panic!("accepted: {}", &wat[..wat.len().min(300)]));
    assert!(error.message.contains(text), "expected {text:?}, got {:?}", error.message);
}

fn accepted(wat: &str) -> Module {
    compile(wat).unwrap_or_else(|error| panic!("{}", error.message))
}

#[test]
fn what_is_no_wasm() {
    for bytes in [&b""[..], b"\0asm", b"garbage", b"\0asm\x01\0\0\0\x01\xff"] {
        let error = Module::compile(engine(), bytes).err().expect("accepted");
        assert!(error.message.contains("Failed to decode wasm module"), "{}", error.message);
    }
    rejected("(module (func (result i32)))", "Wasmtime failed to validate wasm module");
}

#[test]
fn proposals_outside_of_the_networks_set() {
    rejected(
        "(module (func (drop (i8x16.relaxed_swizzle (v128.const i64x2 0 0) (v128.const i64x2 0 0)))))",
        "relaxed SIMD",
    );
    rejected("(module (memory 1 1 shared))", "threads");
    rejected("(module (memory 1) (memory 1))", "multiple memories");
    rejected("(module (tag $t) (func (throw $t)))", "exceptions");
    rejected("(module (global i32 (i32.add (i32.const 1) (i32.const 2))))", "failed to validate");
    rejected("(module (type (struct)))", "gc");
    accepted("(module (func $f (return_call $f)))");
}

#[test]
fn imports() {
    rejected(
        r#"(module (import "ic0" "nothing" (func)))"#,
        "Module imports function 'nothing' from 'ic0' that is not exported by the runtime.",
    );
    rejected(
        r#"(module (import "env" "time" (func (result i64))))"#,
        "expected to be imported from one of [\"ic0\"] instead",
    );
    rejected(
        r#"(module (import "ic0" "time" (func (result i32))))"#,
        "invalid function signature. Expected return params [I64] for 'time', got [I32]",
    );
    rejected(r#"(module (import "ic0" "trap" (func (param i64 i64))))"#, "Expected input params [I32, I32] for 'trap'");
    rejected(r#"(module (import "env" "memory" (memory 1)))"#, "Importing memories is not allowed.");
    rejected(r#"(module (import "env" "g" (global i32)))"#, "Importing globals is not allowed.");
    // With a 64-bit memory addresses have 64 bits, and the old 32-bit calls are gone.
    accepted(r#"(module (import "ic0" "trap" (func (param i64 i64))) (memory i64 1))"#);
    rejected(
        r#"(module (import "ic0" "stable_size" (func (result i32))) (memory i64 1))"#,
        "not exported by the runtime",
    );
}

#[test]
fn exports() {
    rejected(r#"(module (func (export "canister_start")))"#, "Exporting reserved symbol canister_start not allowed.");
    rejected(r#"(module (global (export "canister counter_instructions") i32 (i32.const 0)))"#, "reserved symbol");
    rejected(
        r#"(module (func (export "canister_other")))"#,
        "Exporting reserved function 'canister_other' with \"canister_\" prefix",
    );
    rejected(r#"(module (func (export "canister_init") (param i32)))"#, "invalid function signature");
    rejected(
        r#"(module (func (export "canister_update a")) (func (export "canister_query a")))"#,
        "Duplicate function 'a' exported multiple times with different call types: update, query, or composite_query.",
    );
    let methods = |count: usize, width: usize| {
        let functions: String =
            (0..count).map(|index| format!(r#"(func (export "canister_update {index:0width$}"))"#)).collect();
        format!("(module {functions})")
    };
    accepted(&methods(1_000, 20));
    rejected(&methods(1_001, 4), "is 1001 which exceeds 1000");
    rejected(&methods(1_000, 21), "is 21000 which exceeds the allowed limit of 20000");
    assert!(accepted(r#"(module (func $f (export "canister_heartbeat")) (start $f))"#).has_export("canister_start"));
}

#[test]
fn sizes() {
    let globals = |count: usize| format!("(module {})", "(global i32 (i32.const 0))".repeat(count));
    accepted(&globals(1_000));
    rejected(&globals(1_001), "Wasm module defined 1001 globals which exceeds the maximum number allowed 1000.");
    let functions = |count: usize| format!("(module {})", "(func)".repeat(count));
    rejected(&functions(50_001), "Wasm module defined 50001 functions which exceeds the maximum number allowed 50000.");
    rejected("(module (global funcref (ref.null func)))", "Unsupported global type");
    rejected("(module (table 1 funcref) (table 1 funcref))", "Wasm module defined 2 tables");
    rejected("(module (table 1000001 funcref))", "a table of 1000001 elements");
    rejected(
        "(module (memory i64 98305))",
        "memory size of 98305 pages which exceeds the maximum allowed size of 98304 pages",
    );
    let wide = "i64.const 1000000000000000000 drop ".repeat(1_300_000 / 12);
    let wide = format!("(func {wide})");
    rejected(&format!("(module {})", wide.repeat(11)), "exceeds the maximum allowed size of 12582912");
}

#[test]
fn functions_that_are_too_large_or_complex() {
    // A nop counts 1 in both, and so does the final end.
    rejected(
        &format!("(module (func) (func {}))", "nop ".repeat(1_000_000)),
        "Wasm module contains a function at index 1 with complexity 1000001 which exceeds the maximum complexity allowed 1000000.",
    );
    // A call counts 50.
    let calls = |count: usize| format!("(module (func $f) (func {}))", "(call $f) ".repeat(count));
    accepted(&calls(19_999));
    rejected(&calls(20_000), "a function at index 1 with complexity 1000001");
}

#[test]
fn forbidden_table_operators() {
    let program = |body: &str| format!("(module (table 2 funcref) (elem $e funcref (ref.null func)) (func {body}))");
    for (body, name) in [
        ("(table.set (i32.const 0) (ref.null func))", "table.set"),
        ("(drop (table.grow (ref.null func) (i32.const 1)))", "table.grow"),
        ("(table.fill (i32.const 0) (ref.null func) (i32.const 1))", "table.fill"),
        ("(table.copy (i32.const 0) (i32.const 0) (i32.const 1))", "table.copy"),
        ("(table.init $e (i32.const 0) (i32.const 0) (i32.const 1))", "table.init"),
    ] {
        rejected(&program(body), &format!("a function at index 0 with unsupported instruction {name}."));
    }
    accepted(&program("(elem.drop $e)"));
}

#[test]
fn data_segments() {
    accepted(r#"(module (memory 1) (data (i32.const 65532) "full"))"#);
    rejected(
        r#"(module (memory 1) (data (i32.const 65533) "full"))"#,
        "Data segment 0 of 4 bytes at 65533 does not fit into the initial memory of 65536 bytes.",
    );
    rejected(r#"(module (memory 1) (data (i32.const -1) "x"))"#, "1 bytes at 4294967295");
    rejected(
        r#"(module (global $g i32 (i32.const 0)) (memory 1) (data (global.get $g) "x"))"#,
        "constant expression required: global.get of locally defined global",
    );
}

#[test]
fn custom_sections() {
    let module = accepted(
        r#"(module (@custom "icp:public candid:service" "did") (@custom "icp:private x" "") (@custom "other" "z"))"#,
    );
    let sections = module.custom_sections();
    assert_eq!(sections.len(), 2);
    assert!(sections["candid:service"].is_public && sections["candid:service"].data == b"did");
    assert!(!sections["x"].is_public);
    rejected(r#"(module (@custom "icp:public a" "") (@custom "icp:private a" ""))"#, "name a already exists");
    rejected(
        r#"(module (@custom "icp:secret a" ""))"#,
        "Custom section 'icp:secret a' has no public/private scope defined.",
    );
    rejected(r#"(module (@custom "icp:public" ""))"#, "must have a space after the public/private scope");
    let many = |count: usize| {
        let sections: String = (0..count).map(|index| format!(r#"(@custom "icp:public {index}" "")"#)).collect();
        format!("(module {sections})")
    };
    accepted(&many(16));
    rejected(&many(17), "Wasm module defined 17 custom sections which exceeds the maximum number allowed 16.");
    let large = "x".repeat(1 << 20);
    rejected(&format!(r#"(module (@custom "icp:public a" "{large}"))"#), "size 1048577 bytes, allowed 1048576 bytes");
}

/// The compile charge: 20,000,000, and 6,000 for every operator of the instrumented module and two for every global.
#[test]
fn compile_charge() {
    let empty = accepted("(module)").compile_instructions();
    assert_eq!(empty, 20_000_000);
    // One `end`, and the check at the entry as the network injects it: ten operators.
    assert_eq!(accepted("(module (func))").compile_instructions() - empty, 6_000 * 11);
    assert_eq!(accepted("(module (func nop nop))").compile_instructions() - empty, 6_000 * 13);
    assert_eq!(accepted("(module (global i32 (i32.const 0)))").compile_instructions() - empty, 6_000 * 2);
}
