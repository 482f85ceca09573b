//! The cost of every operator without control flow, one program each.
//!
//! The expected count is the operator's row of the cost table (`tests/vectors/instruction_costs.csv`, a copy of the
//! public table that the code was not generated from) plus the operands (1 each), the drop (1) and the entry (1).

use crate::canister::{Canister, query};

struct Row {
    name: String,
    cost32: u64,
    cost64: u64,
}

fn rows() -> Vec<Row> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/instruction_costs.csv");
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text.lines().skip(1).map(|line| {
        let cells: Vec<&str> = line.split(',').collect();
        Row { name: cells[0].to_string(), cost32: cells[3].parse().unwrap(), cost64: cells[4].parse().unwrap() }
    });
    rows.collect()
}

/// Operators with effects on control, functions, tables and sizes: counted by hand in `counts.rs`.
const BY_HAND: &[&str] = &[
    "unreachable",
    "nop",
    "block",
    "loop",
    "if",
    "else",
    "end",
    "br",
    "br_if",
    "br_table",
    "return",
    "call",
    "call_indirect",
    "drop",
    "select",
    "local.get",
    "local.set",
    "local.tee",
    "global.get",
    "global.set",
    "memory.size",
    "memory.grow",
    "memory.init",
    "data.drop",
    "memory.copy",
    "memory.fill",
    "elem.drop",
    "select (result t)",
    "table.get",
    "table.size",
    "ref.null",
    "ref.is_null",
    "ref.func",
    "return_call",
    "return_call_indirect",
    "(function entry)",
    // Forbidden in canisters.
    "table.init",
    "table.copy",
    "table.fill",
    "table.set",
    "table.grow",
    // The same operator with several types, which no other proposal gives a meaning.
    "select (result t*)",
];

fn constant(ty: &str) -> &'static str {
    match ty {
        "i32" => "(i32.const 0)",
        "i64" => "(i64.const 9)",
        "f32" => "(f32.const 2.5)",
        "f64" => "(f64.const 3.5)",
        "v128" => "(v128.const i32x4 1 2 3 4)",
        other => panic!("{other}"),
    }
}

/// The scalar type of a lane.
fn lane_type(shape: &str) -> &'static str {
    match shape {
        "i8x16" | "i16x8" | "i32x4" => "i32",
        "i64x2" => "i64",
        "f32x4" => "f32",
        "f64x2" => "f64",
        other => panic!("{other}"),
    }
}

/// Immediates, operand types, and whether there is a result.
fn shape_of(name: &str) -> (String, Vec<&str>, bool) {
    let (ty, op) = name.split_once('.').unwrap();
    let none = String::new();
    if op == "const" {
        return (if ty == "v128" { "i64x2 1 2".to_string() } else { "1".to_string() }, vec![], true);
    }
    if op.starts_with("load") || op.starts_with("store") {
        let lane = op.ends_with("_lane");
        let value = if ty == "v128" { "v128" } else { ty };
        let mut operands = vec!["address"];
        if lane || op.starts_with("store") {
            operands.push(value);
        }
        return (if lane { "0".to_string() } else { none }, operands, op.starts_with("load"));
    }
    if ["i32", "i64", "f32", "f64"].contains(&ty) {
        const BINARY: &[&str] = &[
            "eq", "ne", "lt", "gt", "le", "ge", "lt_s", "lt_u", "gt_s", "gt_u", "le_s", "le_u", "ge_s", "ge_u", "add",
            "sub", "mul", "div", "div_s", "div_u", "rem_s", "rem_u", "and", "or", "xor", "shl", "shr_s", "shr_u",
            "rotl", "rotr", "min", "max", "copysign",
        ];
        if BINARY.contains(&op) {
            return (none, vec![ty, ty], true);
        }
        let from = ["i32", "i64", "f32", "f64"].into_iter().find(|from| op.contains(&format!("_{from}")));
        return (none, vec![from.unwrap_or(ty)], true);
    }
    let shape = ty;
    match op {
        "shuffle" => ("0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15".to_string(), vec!["v128", "v128"], true),
        "splat" => (none, vec![lane_type(shape)], true),
        "replace_lane" => ("0".to_string(), vec!["v128", lane_type(shape)], true),
        "bitselect" => (none, vec!["v128", "v128", "v128"], true),
        "shl" | "shr_s" | "shr_u" => (none, vec!["v128", "i32"], true),
        _ if op.starts_with("extract_lane") => ("0".to_string(), vec!["v128"], true),
        "not" | "any_true" | "all_true" | "bitmask" | "abs" | "neg" | "popcnt" | "sqrt" | "ceil" | "floor"
        | "trunc" | "nearest" => (none, vec!["v128"], true),
        _ if ["extend_", "extadd_", "convert_", "demote_", "promote_", "trunc_sat_"]
            .iter()
            .any(|prefix| op.starts_with(prefix)) =>
        {
            (none, vec!["v128"], true)
        }
        _ => (none, vec!["v128", "v128"], true),
    }
}

fn check(row: &Row, memory64: bool) {
    let (immediates, operands, has_result) = shape_of(&row.name);
    let is_memory = operands.first() == Some(&"address");
    let arguments: String = operands
        .iter()
        .map(|ty| match *ty {
            "address" if memory64 => "(i64.const 0)",
            "address" => "(i32.const 0)",
            // A divisor of zero would trap.
            "i32" if !is_memory => "(i32.const 7)",
            ty => constant(ty),
        })
        .collect();
    let operator = format!("({} {immediates} {arguments})", row.name);
    let body = if has_result { format!("(drop {operator})") } else { operator };
    let index = if memory64 { "i64" } else { "" };
    let wat = format!("(module (memory {index} 1) (func (export \"canister_query go\") {body}))");
    let outcome = Canister::new(&wat).run(query("go"));
    assert!(outcome.result.is_ok(), "{}: {:?}", row.name, outcome.result);
    let page = if is_memory { 80_000 } else { 0 };
    let cost = if memory64 { row.cost64 } else { row.cost32 };
    let expected = 1 + operands.len() as u64 + u64::from(has_result) + cost + page;
    assert_eq!(outcome.instructions, expected, "{wat}");
}

#[test]
fn every_plain_operator_costs_what_the_table_says() {
    let rows = rows();
    assert_eq!(rows.len(), 441);
    for row in rows.iter().filter(|row| !BY_HAND.contains(&row.name.as_str())) {
        check(row, false);
        if row.cost32 != row.cost64 {
            check(row, true);
        }
    }
    let by_hand = rows.iter().filter(|row| BY_HAND.contains(&row.name.as_str())).count();
    assert_eq!(by_hand, BY_HAND.len());
    // Loads and stores, and nothing else, differ in canisters with 64-bit memories.
    assert!(
        rows.iter()
            .filter(|row| row.cost32 != row.cost64)
            .all(|row| row.name.contains("load") || row.name.contains("store"))
    );
}
