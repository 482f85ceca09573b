//! The kernels under the replica's meter: `cargo xtask bench-kernels`, and the part of `cargo xtask test` that compares
//! their bodies inside Wasm.

use crate::build::{self, WASM_TARGET};
use crate::process::{cargo, output, run, target_dir};
use std::path::{Path, PathBuf};
use std::process::Command;

/// How far a kernel's estimate of its own cost may be from what was metered.
const ESTIMATE_TOLERANCE: f64 = 0.10;

/// How far it may be, in instructions, where a kernel is too small for a share to mean anything.
const ESTIMATE_SLACK: f64 = 3_000.0;

/// Inputs of a comparison of the bodies are made from these numbers.
const SEEDS: [&str; 2] = ["1", "2"];

/// A line that the module of `kernels/bench` replies with: see there.
struct Row {
    name: String,
    work: f64,
    unit: String,
    instructions: f64,
    estimate: Option<f64>,
    asked: Option<f64>,
}

impl Row {
    fn parse(line: &str) -> Result<Row, String> {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, work, unit, instructions, estimate, asked] = fields[..] else {
            return Err(format!("'{line}' is not a row"));
        };
        let number = |text: &str| text.parse::<f64>().map_err(|e| format!("'{text}' in '{line}': {e}"));
        let optional = |text: &str| if text.is_empty() { Ok(None) } else { number(text).map(Some) };
        Ok(Row {
            name: name.to_string(),
            work: number(work)?,
            unit: unit.to_string(),
            instructions: number(instructions)?,
            estimate: optional(estimate)?,
            asked: optional(asked)?,
        })
    }

    /// What is wrong with the row, if anything.
    fn fault(&self) -> Option<String> {
        if self.asked.is_some_and(|asked| self.instructions / self.work > asked) {
            return Some("more than asked".to_string());
        }
        let estimate = self.estimate?;
        let allowed = (self.instructions * ESTIMATE_TOLERANCE).max(ESTIMATE_SLACK);
        ((estimate - self.instructions).abs() > allowed).then(|| "the estimate is wrong".to_string())
    }

    fn print(&self) {
        let optional = |value: Option<String>| value.unwrap_or_default();
        println!(
            "{:44} {:>13} {:>12} {:>8.3} /{:<7} {:>6} {:>9}  {}",
            self.name,
            self.instructions,
            self.work,
            self.instructions / self.work,
            self.unit,
            optional(self.asked.map(|asked| format!("{asked:.2}"))),
            optional(self.estimate.map(|estimate| format!("{:+.1} %", (estimate / self.instructions - 1.0) * 100.0))),
            optional(self.fault()),
        );
    }
}

/// Measures every kernel whose row's name contains the argument, and prints a table. With `--check`, a row that costs
/// more than asked, or whose estimate is wrong, is an error.
pub fn bench(arguments: &[&str]) -> Result<(), String> {
    let (flags, filters): (Vec<&str>, Vec<&str>) = arguments.iter().partition(|argument| argument.starts_with('-'));
    if flags.iter().any(|flag| *flag != "--check") || filters.len() > 1 {
        return Err(format!("bench-kernels [--check] [FILTER], not {arguments:?}"));
    }
    measure(&replica()?, filters.first().unwrap_or(&""), flags.contains(&"--check"))
}

fn measure(replica: &Path, filter: &str, check: bool) -> Result<(), String> {
    let reply = meter(replica, &module(true)?, "bench", filter)?;
    let rows: Vec<Row> = reply.lines().map(Row::parse).collect::<Result<_, _>>()?;
    println!(
        "{:44} {:>13} {:>12} {:>17} {:>6} {:>9}",
        "kernel", "instructions", "work", "per unit", "asked", "estimate"
    );
    rows.iter().for_each(Row::print);
    let faults = rows.iter().filter(|row| row.fault().is_some()).count();
    if check && faults > 0 { Err(format!("{faults} rows are wrong")) } else { Ok(()) }
}

/// `cargo xtask test-kernels`.
pub fn test_alone() -> Result<(), String> {
    test(&replica()?)
}

/// Compares the bodies of all kernels inside Wasm, with simd128 and without, and checks what they cost.
pub fn test(replica: &Path) -> Result<(), String> {
    for (name, simd128) in [("with simd128", true), ("without simd128", false)] {
        let module = module(simd128)?;
        for seed in SEEDS {
            let reply = meter(replica, &module, "check", seed)?;
            let families: Vec<String> = reply.lines().map(|line| line.replace('\t', " ")).collect();
            eprintln!("kernels {name}, seed {seed}: comparisons in {}", families.join(", "));
        }
    }
    measure(replica, "", true)
}

/// The replica's binary: `REPLICA_BIN`, or built.
fn replica() -> Result<PathBuf, String> {
    match std::env::var_os("REPLICA_BIN") {
        Some(path) => Ok(path.into()),
        None => Ok(build::binaries()?.join("replica")),
    }
}

/// Builds the module of `kernels/bench`.
fn module(simd128: bool) -> Result<PathBuf, String> {
    build::ensure_wasm_target()?;
    let mut build = cargo(&["build", "--locked", "-p", "kernel-bench", "--target", WASM_TARGET]);
    build.args(["--profile", "kernel-bench"]);
    let mut folder = target_dir();
    if !simd128 {
        // In a folder of its own, lest one build throw the other's away. RUSTFLAGS replaces the flags of .cargo/config.toml.
        folder = folder.join("without-simd128");
        build.arg("--target-dir").arg(&folder).env("RUSTFLAGS", "-C target-feature=-simd128");
    }
    run(&mut build)?;
    Ok(folder.join(WASM_TARGET).join("kernel-bench/kernel_bench.wasm"))
}

/// Runs an update of a module under the meter and returns its reply, which is text.
fn meter(replica: &Path, module: &Path, method: &str, argument: &str) -> Result<String, String> {
    let printed = output(
        Command::new(replica)
            .arg("meter")
            .arg(module)
            .args(["--export", &format!("canister_update {method}"), "--arg-hex", &hex::encode(argument)])
            .args(["--instruction-limit", "1000000000000"]),
    )?;
    let measured: serde_json::Value = serde_json::from_str(&printed).map_err(|e| format!("{printed}: {e}"))?;
    if let Some(error) = measured["error"].as_str() {
        return Err(format!("{method} '{argument}': {error}"));
    }
    let reply = measured["reply_hex"].as_str().ok_or(format!("{method} '{argument}' did not reply: {printed}"))?;
    let bytes = hex::decode(reply).map_err(|e| format!("{printed}: {e}"))?;
    String::from_utf8(bytes).map_err(|e| format!("{printed}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_above_what_is_asked_are_found() {
        assert_eq!(Row::parse("gemm\t1000\tMAC\t1700000\t1600000\t1700").unwrap().fault(), None);
        let dear = Row::parse("gemm\t1000\tMAC\t1700001\t1600000\t1700").unwrap();
        assert_eq!(dear.fault().as_deref(), Some("more than asked"));
        let wrong = Row::parse("gemm\t1000\tMAC\t1700000\t1500000\t").unwrap();
        assert_eq!(wrong.fault().as_deref(), Some("the estimate is wrong"));
        assert_eq!(Row::parse("gemm\t1000\tMAC\t10\t\t").unwrap().fault(), None);
        assert!(Row::parse("gemm\t1000").is_err());
    }
}
