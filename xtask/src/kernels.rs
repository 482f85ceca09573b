//! The kernels under the replica's meter: `cargo xtask bench-kernels`, and the part of `cargo xtask test` that compares
//! their bodies inside Wasm.

use crate::build::{self, WASM_TARGET};
use crate::process::{cargo, output, root, run, target_dir};
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

    /// The least that a multiply-accumulate can cost on the network's price list, its operands being free: of four float32
    /// values a multiplication (2) and an addition (2), or of eight int16 a dot product (1) and an addition (1). Winograd's
    /// F(2x2, 3x3) multiplies 16 times where a convolution does 36.
    fn arithmetic_floor(&self) -> Option<f64> {
        const INTEGER_KERNELS: [&str; 4] = ["int8", "int4", "4-bit", "qconv"];
        if self.unit != "MAC" {
            return None;
        }
        let is_integer = INTEGER_KERNELS.iter().any(|kernel| self.name.contains(kernel));
        Some(match () {
            () if is_integer => 2.0 / 8.0,
            () if self.name.starts_with("winograd") => 16.0 / 36.0,
            () => 1.0,
        })
    }

    /// The row of a table for people.
    fn markdown(&self) -> String {
        let optional = |value: Option<f64>| value.map(|value| format!("{value:.2}")).unwrap_or_default();
        format!(
            "| {} | {} | {} | {:.3} / {} | {} | {} |\n",
            self.name,
            self.instructions,
            self.work,
            self.instructions / self.work,
            self.unit,
            optional(self.arithmetic_floor()),
            optional(self.asked)
        )
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
/// more than asked, or whose estimate is wrong, is an error; with `--write`, all rows go into benches/KERNELS.md.
pub fn bench(arguments: &[&str]) -> Result<(), String> {
    let (flags, filters): (Vec<&str>, Vec<&str>) = arguments.iter().partition(|argument| argument.starts_with('-'));
    let is_writing = flags == ["--write"];
    if flags.iter().any(|flag| !["--check", "--write"].contains(flag)) || filters.len() > usize::from(!is_writing) {
        return Err(format!("bench-kernels [--check] [FILTER], or bench-kernels --write, not {arguments:?}"));
    }
    let rows = measure(&replica()?, filters.first().unwrap_or(&""), flags.contains(&"--check"))?;
    if is_writing {
        let mut text = KERNELS_HEAD.to_string();
        rows.iter().for_each(|row| text.push_str(&row.markdown()));
        let path = root().join("benches/KERNELS.md");
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

const KERNELS_HEAD: &str = "# Kernels

Written by `cargo xtask bench-kernels --write`; `cargo xtask test` fails when a row costs more than asked.

Metered instructions of each kernel alone, page charges apart. The floor is what the multiplications and additions cost by
themselves, operands being free.

| kernel | instructions | work | per unit | floor | asked |
|---|---:|---:|---:|---:|---:|
";

fn measure(replica: &Path, filter: &str, check: bool) -> Result<Vec<Row>, String> {
    let reply = meter(replica, &module(true)?, "bench", filter)?;
    let rows: Vec<Row> = reply.lines().map(Row::parse).collect::<Result<_, _>>()?;
    println!(
        "{:44} {:>13} {:>12} {:>17} {:>6} {:>9}",
        "kernel", "instructions", "work", "per unit", "asked", "estimate"
    );
    rows.iter().for_each(Row::print);
    let faults = rows.iter().filter(|row| row.fault().is_some()).count();
    if check && faults > 0 { Err(format!("{faults} rows are wrong")) } else { Ok(rows) }
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
    measure(replica, "", true).map(|_| ())
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
