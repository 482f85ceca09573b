//! A canister of the kernels alone, for the replica's meter.
//!
//! * `canister_update bench` runs the rows whose names contain the argument (all of them when it is empty) and replies
//!   with a line for each, its fields separated by tabs: name, units of work, the unit, metered instructions, the
//!   kernel's own estimate of them, and the instructions per unit it may cost at most. The last two may be empty.
//! * `canister_update check` compares every body with its reference; the argument is the seed, in decimal. It replies
//!   with a line for each family, `family<tab>comparisons`, and traps at the first difference.
//!
//! `cargo xtask bench-kernels` builds it, runs it and prints the table. A family of kernels has a file in `rows/`.

#![cfg(target_arch = "wasm32")]

mod ic0;
mod meter;
mod rows;

use onnx_kernels::oracle;
use std::fmt::Write;

#[unsafe(export_name = "canister_update bench")]
extern "C" fn bench() {
    ic0::trap_on_panic();
    let filter = ic0::argument();
    let mut reply = String::new();
    for row in rows::all().into_iter().filter(|row| row.name.contains(&filter)) {
        let measured = (row.run)();
        let optional = |value: Option<String>| value.unwrap_or_default();
        let estimate = optional(row.estimate.map(|estimate| estimate.to_string()));
        let asked = optional(row.asked.map(|asked| asked.to_string()));
        writeln!(reply, "{}\t{}\t{}\t{measured}\t{estimate}\t{asked}", row.name, row.work, row.unit)
            .expect("a string takes any text");
    }
    ic0::reply(&reply);
}

#[unsafe(export_name = "canister_update check")]
extern "C" fn check() {
    ic0::trap_on_panic();
    let seed = ic0::argument();
    let seed = seed.parse().unwrap_or_else(|_| panic!("'{seed}' is not a seed"));
    let checked = oracle::check(seed).unwrap_or_else(|difference| panic!("{difference}"));
    let lines: Vec<String> = checked.iter().map(|(family, comparisons)| format!("{family}\t{comparisons}\n")).collect();
    ic0::reply(&lines.concat());
}
