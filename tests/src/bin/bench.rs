//! Instructions per inference on real models, by the replica's own count.
//!
//! Instructions are deterministic, so one run is the measurement. `benches/results.json` holds the committed figures and
//! `benches/RESULTS.md` the same for people; `--check` fails when a figure rose, or fell without being committed.

use anyhow::{Context, Result, bail};
use clap::Parser;
use end_to_end_tests::environment;
use end_to_end_tests::models::{classify_request, efficientnet, magika, magika_request, photo};
use end_to_end_tests::network::{Canister, Charges, Network};
use end_to_end_tests::pocket::Model;
use model_uploader::prices::{self, grouped};
use onnx_canister_interface::{ChunkReceipt, Classification, ModelInfo, ModelRef, ModelState, UploadStatus};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Most instructions a query may execute, page charges included.
const QUERY_INSTRUCTIONS_MAX: u64 = 5_000_000_000;

/// A figure may differ by this much before `--check` fails: the compiler's choices are the only thing that moves it.
const TOLERANCE_PERCENT: u64 = 1;

#[derive(Parser)]
struct Arguments {
    /// Compare with the committed figures instead of writing them.
    #[arg(long)]
    check: bool,
}

/// What is committed.
#[derive(Serialize, Deserialize, Default)]
struct Results {
    /// Bytes of the module, and of its code section.
    wasm_bytes: u64,
    code_section_bytes: u64,
    /// Instructions by name.
    instructions: BTreeMap<String, u64>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches");
    let mut bench = Bench::new().await?;
    bench.image_model().await?;
    bench.tensor_model().await?;
    if arguments.check { bench.results.check(&folder) } else { bench.write(&folder) }
}

struct Bench {
    network: Network,
    canister: Canister,
    before: Charges,
    results: Results,
    /// What the network charged for it, and how long it took here.
    charged: BTreeMap<String, (Charges, Duration)>,
    /// Bytes that the work went over.
    bytes: BTreeMap<String, u64>,
}

impl Bench {
    async fn new() -> Result<Bench> {
        let network = Network::start(0)?;
        let started = Instant::now();
        let canister = Canister::deploy(&network.agent()?, None).await?;
        let (wasm_bytes, code_section_bytes) = sizes(&environment::canister_module()?)?;
        let results = Results { wasm_bytes, code_section_bytes, ..Results::default() };
        let mut bench = Bench {
            network,
            canister,
            before: Charges::default(),
            results,
            charged: BTreeMap::new(),
            bytes: BTreeMap::new(),
        };
        bench.note("install", started)?;
        Ok(bench)
    }

    /// Books what was charged since the last call under `name`.
    fn note(&mut self, name: &str, started: Instant) -> Result<()> {
        let wall = started.elapsed();
        let now = self.network.charges(self.canister.id)?;
        let charges = now.since(&self.before);
        self.before = now;
        self.results.instructions.insert(name.to_string(), charges.instructions);
        self.charged.insert(name.to_string(), (charges, wall));
        Ok(())
    }

    async fn image_model(&mut self) -> Result<()> {
        let model = self.upload("EfficientNet-Lite0 f32", &efficientnet()).await?;
        for (name, file) in
            [("classify a 224x224 PNG", "crop224/chelsea.png"), ("classify a 451x300 PNG", "chelsea.png")]
        {
            let request = classify_request(&model, photo(file));
            let started = Instant::now();
            let answer: Classification = self.canister.update("classify", request).await??;
            self.note(&format!("EfficientNet-Lite0 f32: {name}"), started)?;
            self.results
                .instructions
                .insert(format!("EfficientNet-Lite0 f32: {name}, of these decoding"), answer.cost.decode_instructions);
        }
        Ok(())
    }

    async fn tensor_model(&mut self) -> Result<()> {
        let model = self.upload("Magika", &magika()).await?;
        let request = magika_request(&model, include_bytes!("bench.rs"));
        let started = Instant::now();
        let _: Classification = self.canister.update("classify", request).await??;
        self.note("Magika: classify 2048 tokens", started)
    }

    /// Uploads, commits and loads, each booked apart.
    async fn upload(&mut self, name: &str, model: &Model) -> Result<ModelRef> {
        let started = Instant::now();
        let status: UploadStatus = self.canister.update("begin_upload", model.manifest.clone()).await??;
        for (file, bytes) in model.files.iter().enumerate() {
            for (index, chunk) in bytes.chunks(model.manifest.chunk_size as usize).enumerate() {
                let chunk = model.chunk(status.version, file as u32, index as u32, chunk);
                let _: ChunkReceipt = self.canister.update("put_chunk", chunk).await??;
            }
        }
        self.note(&format!("{name}: upload"), started)?;
        let model_bytes = model.files.iter().map(|file| file.len() as u64).sum();
        self.bytes.insert(format!("{name}: upload"), model_bytes);

        let model = ModelRef { name: model.manifest.name.clone(), version: Some(status.version) };
        let started = Instant::now();
        let _: ModelInfo = self.canister.update("commit", model.clone()).await??;
        self.wait(&model, &ModelState::Committed).await?;
        self.note(&format!("{name}: commit (SHA-256)"), started)?;
        self.bytes.insert(format!("{name}: commit (SHA-256)"), model_bytes);

        let started = Instant::now();
        let _: ModelInfo = self.canister.update("load", model.clone()).await??;
        self.wait(&model, &ModelState::Ready).await?;
        self.note(&format!("{name}: load"), started)?;
        self.bytes.insert(format!("{name}: load"), model_bytes);
        Ok(model)
    }

    async fn wait(&self, model: &ModelRef, state: &ModelState) -> Result<()> {
        loop {
            let info: ModelInfo = self.canister.query("model_info", model.clone()).await??;
            if info.state == *state {
                return Ok(());
            }
            if let ModelState::Failed { reason } = info.state {
                bail!("{}: {reason}", model.name);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(results_path(folder), serde_json::to_string_pretty(&self.results)? + "\n")?;
        let path = folder.join("RESULTS.md");
        let text = self.markdown()?;
        fs::write(&path, &text)?;
        print!("{text}");
        Ok(())
    }

    fn markdown(&self) -> Result<String> {
        let mut text = String::new();
        writeln!(text, "# Results\n")?;
        writeln!(text, "Written by `cargo xtask bench`; `cargo xtask bench --check` fails when a count changes.\n")?;
        writeln!(
            text,
            "Module: {} bytes, code section {} bytes.\n",
            grouped(self.results.wasm_bytes),
            grouped(self.results.code_section_bytes)
        )?;
        writeln!(
            text,
            "Instructions by the replica's count, page charges included. Rounds are roughly seconds on a real subnet, cycles \
             and dollars are those of {} nodes, storage apart; \"query\" tells whether a free query can do it. Wall times are \
             of one 2-core machine.\n",
            prices::NODES
        )?;
        writeln!(text, "| work | instructions | messages | rounds | cycles | dollars | query | per byte | wall |")?;
        writeln!(text, "|---|---:|---:|---:|---:|---:|---|---:|---:|")?;
        for (name, instructions) in &self.results.instructions {
            let bytes = self.bytes.get(name);
            let per_byte = bytes.map_or(String::new(), |bytes| format!("{:.2}", *instructions as f64 / *bytes as f64));
            let Some((charges, wall)) = self.charged.get(name) else {
                writeln!(text, "| {name} | {} |  |  |  |  |  | {per_byte} |  |", grouped(*instructions))?;
                continue;
            };
            let inference = name.contains("classify");
            let query = match inference {
                true if charges.instructions <= QUERY_INSTRUCTIONS_MAX => "yes",
                true => "no",
                false => "",
            };
            writeln!(
                text,
                "| {name} | {} | {} | {} | {} | {:.5} | {query} | {per_byte} | {:.2} s |",
                grouped(*instructions),
                charges.messages,
                charges.rounds(),
                grouped(u64::try_from(charges.cycles.total())?),
                prices::usd(charges.cycles.total()),
                wall.as_secs_f64()
            )?;
        }
        writeln!(text)?;
        for (name, (charges, wall)) in &self.charged {
            match self.bytes.get(name) {
                Some(bytes) if name.ends_with(": upload") => writeln!(
                    text,
                    "- {name}: {} bytes, {:.1} MB/s here, one chunk at a time.",
                    grouped(*bytes),
                    *bytes as f64 / 1e6 / wall.as_secs_f64()
                )?,
                _ if name.contains("224x224") => writeln!(
                    text,
                    "- {name}: {:.1}e9 metered instructions per second on the embedded replica.",
                    charges.instructions as f64 / 1e9 / wall.as_secs_f64()
                )?,
                _ => {}
            }
        }
        Ok(text)
    }
}

impl Results {
    /// Fails when a figure is not the committed one.
    fn check(&self, folder: &Path) -> Result<()> {
        let path = results_path(folder);
        let committed = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let committed: Results = serde_json::from_str(&committed).with_context(|| path.display().to_string())?;
        let mut wrong = Vec::new();
        for (name, now) in &self.instructions {
            match committed.instructions.get(name) {
                None => wrong.push(format!("{name}: {now}, not committed")),
                Some(before) if now.abs_diff(*before) * 100 > before * TOLERANCE_PERCENT => {
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
}

fn results_path(folder: &Path) -> PathBuf {
    folder.join("results.json")
}

/// Bytes of a module and of its code section.
fn sizes(wasm: &[u8]) -> Result<(u64, u64)> {
    let mut code_section_bytes = 0;
    for payload in wasmparser::Parser::new(0).parse_all(wasm) {
        if let wasmparser::Payload::CodeSectionStart { size, .. } = payload? {
            code_section_bytes = u64::from(size);
        }
    }
    Ok((wasm.len() as u64, code_section_bytes))
}
