//! The figures: kept, compared, and written for people.

use anyhow::{Context, Result, bail};
use end_to_end_tests::environment;
use end_to_end_tests::network::Charges;
use model_uploader::prices::{self, grouped};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most instructions a query may execute, page charges included.
const QUERY_INSTRUCTIONS_MAX: u64 = 5_000_000_000;

/// A figure may differ by this much before `--check` fails: the compiler's choices are the only thing that moves it.
const TOLERANCE_PERCENT: u64 = 1;

/// What is committed.
#[derive(Serialize, Deserialize, Default)]
pub struct Results {
    /// Bytes of the module, and of its code section.
    wasm_bytes: u64,
    code_section_bytes: u64,
    /// By what was done.
    rows: BTreeMap<String, Row>,
}

/// One thing that was done.
#[derive(Serialize, Deserialize, Default)]
pub struct Row {
    /// By the replica's count, page charges included.
    pub instructions: u64,
    /// Of these, for pages touched.
    pub page_charge: u64,
    pub messages: u64,
    pub rounds: u64,
    pub cycles: u64,
    /// Bytes of files that the work went over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The whole heap of a fresh canister afterwards, in bytes: it never shrinks, so this is the peak.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heap_bytes: Option<u64>,
    /// Of the instructions, those that made the input out of an image or an argument.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode_instructions: Option<u64>,
    /// What the graph's nodes took, by the canister's own profile, page charges included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_instructions: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multiply_accumulates: Option<u64>,
    /// Nodes that tract's operators run; none where tract runs the graph whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tract_nodes: Option<u32>,
    /// Of a text: tokens that were read or written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u32>,
    /// Of a text: the model's parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<u64>,
    #[serde(skip)]
    wall: Duration,
}

impl Row {
    /// Without page charges.
    fn opcodes(&self) -> u64 {
        self.instructions - self.page_charge
    }
}

impl Results {
    /// Nothing measured yet but the module's size.
    pub fn of_module() -> Result<Results> {
        let wasm = environment::canister_module()?;
        let mut code_section_bytes = 0;
        for payload in wasmparser::Parser::new(0).parse_all(&wasm) {
            if let wasmparser::Payload::CodeSectionStart { size, .. } = payload? {
                code_section_bytes = u64::from(size);
            }
        }
        Ok(Results { wasm_bytes: wasm.len() as u64, code_section_bytes, rows: BTreeMap::new() })
    }

    pub fn lacks(&self, name: &str) -> bool {
        !self.rows.contains_key(name)
    }

    pub fn add(&mut self, name: &str, charges: Charges, wall: Duration) -> &mut Row {
        let row = Row {
            instructions: charges.instructions,
            page_charge: charges.page_charge,
            messages: charges.messages,
            rounds: charges.rounds(),
            cycles: u64::try_from(charges.cycles.total()).unwrap_or(u64::MAX),
            wall,
            ..Row::default()
        };
        self.rows.entry(name.to_string()).insert_entry(row).into_mut()
    }

    pub fn row(&mut self, name: &str) -> &mut Row {
        self.rows.entry(name.to_string()).or_default()
    }

    /// Fails when a figure is not the committed one.
    pub fn check(&self, folder: &Path) -> Result<()> {
        let committed = read(folder)?;
        let mut wrong = Vec::new();
        for (name, row) in &self.rows {
            let now = row.instructions;
            match committed.rows.get(name).map(|row| row.instructions) {
                None => wrong.push(format!("{name}: {now}, not committed")),
                Some(before) if now.abs_diff(before) * 100 > before * TOLERANCE_PERCENT => {
                    wrong.push(format!("{name}: {now}, committed is {before}"));
                }
                Some(_) => println!("{name}: {now}"),
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        bail!("figures changed; if they should have, run `cargo xtask bench` and commit it\n{}", wrong.join("\n"))
    }

    /// Writes both files. Rows that were not measured this time, those of files that no recipe fetches, stay.
    pub fn write(mut self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        if let Ok(committed) = read(folder) {
            for (name, row) in committed.rows {
                self.rows.entry(name).or_insert(row);
            }
        }
        fs::write(path(folder), serde_json::to_string_pretty(&self)? + "\n")?;
        let text = self.markdown(&Baseline::read(folder)?)?;
        fs::write(folder.join("RESULTS.md"), &text)?;
        print!("{text}");
        Ok(())
    }

    fn markdown(&self, baseline: &Baseline) -> Result<String> {
        let mut text = String::new();
        writeln!(text, "# Results\n")?;
        writeln!(text, "Written by `cargo xtask bench`; `cargo xtask bench --check` fails when a count changes.\n")?;
        writeln!(
            text,
            "Module: {} bytes, code section {} bytes.\n",
            grouped(self.wasm_bytes),
            grouped(self.code_section_bytes)
        )?;
        writeln!(
            text,
            "Instructions by the replica's count: what the whole message cost, arguments, images and reply included. Opcodes \
             are that without the charges for pages touched. Rounds are roughly seconds on a real subnet, cycles and dollars \
             are those of {} nodes, storage apart; \"query\" tells whether a free query can do it. \"Ours\" tells whether every \
             operator of the graph is the engine's own, and so gives the same bits natively; otherwise how many nodes are \
             tract's. The last columns are plain tract 0.23 on the same file and the same input (`cargo xtask \
             bench-baseline`): opcodes of the run's message, or of a load its instructions; `baseline.json` tells why it fails.\n",
            prices::NODES
        )?;
        self.inferences(&mut text, baseline)?;
        self.texts(&mut text)?;
        self.loads(&mut text, baseline)?;
        writeln!(text, "## Everything else\n")?;
        writeln!(text, "| work | instructions | messages | rounds | cycles | dollars | per byte | here |")?;
        writeln!(text, "|---|---:|---:|---:|---:|---:|---:|---:|")?;
        for (name, row) in self.rows.iter().filter(|(name, row)| is_other(name, row)) {
            let per_byte = row.bytes.map_or(String::new(), |b| format!("{:.2}", row.instructions as f64 / b as f64));
            writeln!(
                text,
                "| {name} | {} | {} | {} | {} | {:.5} | {per_byte} | {} |",
                grouped(row.instructions),
                row.messages,
                row.rounds,
                grouped(row.cycles),
                prices::usd(u128::from(row.cycles)),
                seconds(row)
            )?;
        }
        Ok(text)
    }

    fn inferences(&self, text: &mut String, baseline: &Baseline) -> Result<()> {
        writeln!(text, "## Inferences\n")?;
        writeln!(
            text,
            "| work | instructions | page charges | opcodes | MACs | opcodes/MAC | messages | rounds | cycles | dollars | query \
             | ours | here | tract | tract/ours |"
        )?;
        writeln!(text, "|---|{}---|---|---:|---:|---:|", "---:|".repeat(9))?;
        for (name, row) in self.rows.iter().filter(|(_, row)| row.decode_instructions.is_some()) {
            let macs = row.multiply_accumulates.filter(|macs| *macs > 0);
            let per_mac = macs.map_or(String::new(), |macs| format!("{:.2}", row.opcodes() as f64 / macs as f64));
            let ours = match row.tract_nodes {
                None => "none".to_string(),
                Some(0) => "all".to_string(),
                Some(nodes) => format!("all but {nodes}"),
            };
            let (tract, ratio) = baseline.cells(name, row);
            writeln!(
                text,
                "| {name} | {} | {} | {} | {} | {per_mac} | {} | {} | {} | {:.5} | {} | {ours} | {} | {tract} | {ratio} |",
                grouped(row.instructions),
                grouped(row.page_charge),
                grouped(row.opcodes()),
                macs.map_or(String::new(), grouped),
                row.messages,
                row.rounds,
                grouped(row.cycles),
                prices::usd(u128::from(row.cycles)),
                if row.instructions <= QUERY_INSTRUCTIONS_MAX { "yes" } else { "no" },
                seconds(row)
            )?;
        }
        writeln!(text)?;
        Ok(())
    }

    fn texts(&self, text: &mut String) -> Result<()> {
        writeln!(text, "## Language models\n")?;
        writeln!(
            text,
            "Decoding is one update call with the message budget at its maximum, its prompt read by a call before it; the prompt's row includes its first token.\n"
        )?;
        writeln!(
            text,
            "| work | tokens | messages | instructions | page charges | per token | per parameter and token | rounds | \
             dollars per 1,000 tokens | here |"
        )?;
        writeln!(text, "|---|{}", "---:|".repeat(9))?;
        for (name, row) in &self.rows {
            let (Some(tokens), Some(parameters)) = (row.tokens, row.parameters) else { continue };
            let per_token = row.instructions / u64::from(tokens.max(1));
            writeln!(
                text,
                "| {name} | {tokens} | {} | {} | {} | {} | {:.2} | {} | {:.4} | {} |",
                row.messages,
                grouped(row.instructions),
                grouped(row.page_charge),
                grouped(per_token),
                per_token as f64 / parameters as f64,
                row.rounds,
                prices::usd(u128::from(row.cycles)) * 1_000.0 / f64::from(tokens.max(1)),
                seconds(row)
            )?;
        }
        writeln!(text)?;
        Ok(())
    }

    fn loads(&self, text: &mut String, baseline: &Baseline) -> Result<()> {
        writeln!(text, "## Loads, from stable memory to ready\n")?;
        writeln!(
            text,
            "| work | instructions | page charges | messages | rounds | cycles | dollars | per byte | bytes | heap | here | tract \
             | tract/ours |"
        )?;
        writeln!(text, "|---|{}", "---:|".repeat(12))?;
        for (name, row) in self.rows.iter().filter(|(name, _)| is_load(name)) {
            let bytes = row.bytes.unwrap_or_default();
            let (tract, ratio) = baseline.cells(name, row);
            writeln!(
                text,
                "| {name} | {} | {} | {} | {} | {} | {:.5} | {:.2} | {} | {} | {} | {tract} | {ratio} |",
                grouped(row.instructions),
                grouped(row.page_charge),
                row.messages,
                row.rounds,
                grouped(row.cycles),
                prices::usd(u128::from(row.cycles)),
                row.instructions as f64 / bytes.max(1) as f64,
                grouped(bytes),
                grouped(row.heap_bytes.unwrap_or_default()),
                seconds(row)
            )?;
        }
        writeln!(text)?;
        Ok(())
    }
}

/// Whether a row is in none of the other tables.
fn is_other(name: &str, row: &Row) -> bool {
    row.decode_instructions.is_none() && row.tokens.is_none() && !is_load(name)
}

fn is_load(name: &str) -> bool {
    name.ends_with(": load")
}

fn seconds(row: &Row) -> String {
    if row.wall.is_zero() { String::new() } else { format!("{:.2} s", row.wall.as_secs_f64()) }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("results.json")
}

fn read(folder: &Path) -> Result<Results> {
    let path = path(folder);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// Plain tract's figures, as `cargo xtask bench-baseline` has written them.
#[derive(Deserialize, Default)]
struct Baseline {
    /// Instructions by the row's name: of a load with its page charges, of a run without.
    instructions: BTreeMap<String, u64>,
    /// Why there is none, by model.
    failures: BTreeMap<String, String>,
}

impl Baseline {
    fn read(folder: &Path) -> Result<Baseline> {
        let path = folder.join("baseline.json");
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).with_context(|| path.display().to_string()),
            Err(_) => Ok(Baseline::default()),
        }
    }

    /// Its figure for a row, and how many times ours that is.
    fn cells(&self, name: &str, row: &Row) -> (String, String) {
        let Some(theirs) = self.instructions.get(name) else {
            let has_failed = self.failures.keys().any(|model| name.starts_with(&format!("{model}: ")));
            return (if has_failed { "fails" } else { "" }.to_string(), String::new());
        };
        let ours = if is_load(name) { row.instructions } else { row.opcodes() };
        (grouped(*theirs), format!("{:.1}", *theirs as f64 / ours as f64))
    }
}
