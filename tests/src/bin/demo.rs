//! The demo: from nothing to a classified photo and a chat, and what each step cost.

use anyhow::{Context, Result, bail};
use candid::Principal;
use clap::Parser;
use end_to_end_tests::environment;
use end_to_end_tests::network::{Canister, Charges, Network};
use model_uploader::prices::{self, grouped};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const MODEL: &str = "efficientnet-lite0";
const PHOTO: &str = "models/photos/chelsea.png";
const LANGUAGE_MODEL: &str = "smollm2-135m-instruct";
const QUESTION: &str = "What is the capital of Japan?";

/// Deploys the canister on the embedded replica, uploads models, classifies a photo, chats.
#[derive(Parser)]
struct Arguments {
    /// Leave the network running until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Port of the network; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
}

/// What one step of the demo cost.
struct Row {
    step: &'static str,
    wall: Duration,
    charges: Charges,
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();

    heading("Network: the embedded replica");
    let mut network = Network::start(arguments.port)?;
    println!("listening on {}", network.url);

    heading("Deploy the canister");
    let started = Instant::now();
    let canister = Canister::deploy(&network.agent()?, None).await?;
    println!("canister {}", canister.id);
    let mut meter = Meter { network: &network, canister: canister.id, before: Charges::default() };
    let mut rows = vec![meter.row("deploy", started)?];

    heading("Fetch EfficientNet-Lite0 by its recipe");
    uploader(&network, canister.id, &["fetch", MODEL])?;

    heading("Upload, verify, load, activate");
    let started = Instant::now();
    uploader(&network, canister.id, &["upload", MODEL, "--no-load"])?;
    rows.push(meter.row("upload and commit", started)?);
    let started = Instant::now();
    uploader(&network, canister.id, &["upload", MODEL])?;
    rows.push(meter.row("load and activate", started)?);

    heading("Classify a photo of Chelsea the cat");
    let started = Instant::now();
    uploader(&network, canister.id, &["classify", MODEL, PHOTO])?;
    rows.push(meter.row("classify (update)", started)?);
    let started = Instant::now();
    uploader(&network, canister.id, &["--quiet", "classify", MODEL, PHOTO, "--query"])?;
    rows.push(meter.row("classify (query)", started)?);

    heading("Fetch SmolLM2-135M-Instruct by its recipe, upload, verify, load");
    let started = Instant::now();
    uploader(&network, canister.id, &["upload", LANGUAGE_MODEL, "--no-load"])?;
    rows.push(meter.row("upload SmolLM2", started)?);
    let started = Instant::now();
    uploader(&network, canister.id, &["upload", LANGUAGE_MODEL])?;
    rows.push(meter.row("load SmolLM2", started)?);

    heading("Chat with it, in one update call");
    println!("> {QUESTION}");
    let started = Instant::now();
    uploader(&network, canister.id, &["chat", LANGUAGE_MODEL, QUESTION, "--wait"])?;
    rows.push(meter.row("chat (update)", started)?);

    print_costs(&rows, &canister).await?;
    print_next_commands(&network, canister.id, arguments.keep);
    if arguments.keep {
        println!("\nThe network stays up: Ctrl-C ends it.");
        network.wait()?;
    }
    Ok(())
}

fn heading(text: &str) {
    println!("\n== {text}");
}

/// Runs the uploader as a user would.
fn uploader(network: &Network, canister: Principal, arguments: &[&str]) -> Result<()> {
    let status = Command::new(environment::uploader_bin()?)
        .args(["--replica-url", &network.url, "--root-key", &network.root_key_hex, "--anonymous"])
        .args(["--canister", &canister.to_text()])
        .args(arguments)
        .status()
        .context("cannot run the uploader")?;
    if !status.success() {
        bail!("model-uploader {} failed: {status}", arguments.join(" "));
    }
    Ok(())
}

/// Tells what the replica charged since the last time it was asked.
struct Meter<'a> {
    network: &'a Network,
    canister: Principal,
    before: Charges,
}

impl Meter<'_> {
    fn row(&mut self, step: &'static str, started: Instant) -> Result<Row> {
        let wall = started.elapsed();
        let now = self.network.charges(self.canister)?;
        let charges = now.since(&self.before);
        self.before = now;
        Ok(Row { step, wall, charges })
    }
}

async fn print_costs(rows: &[Row], canister: &Canister) -> Result<()> {
    heading("What each step cost, on a 13-node application subnet");
    println!(
        "{:<20} {:>16} {:>9} {:>7} {:>18} {:>11} {:>9}",
        "step", "instructions", "messages", "rounds", "cycles", "dollars", "wall here"
    );
    for Row { step, wall, charges } in rows {
        let cycles = charges.cycles.total();
        println!(
            "{step:<20} {:>16} {:>9} {:>7} {:>18} {:>11} {:>8.1}s",
            grouped(charges.instructions),
            charges.messages,
            charges.rounds(),
            grouped(cycles),
            dollars(cycles),
            wall.as_secs_f64()
        );
    }
    let health: onnx_canister_interface::Health = canister.query_plain("health").await?;
    let year = prices::storage_cycles(health.stable_bytes + health.heap_bytes, prices::YEAR_SECONDS);
    println!("{:<20} {:>16} {:>9} {:>7} {:>18} {:>11}", "storage for a year", "", "", "", grouped(year), dollars(year));
    println!(
        "\nA round is roughly a second on a real subnet. Queries are free: the query row executes but is not charged.\n\
         Storage counts {} bytes of stable memory and {} of heap.",
        grouped(health.stable_bytes),
        grouped(health.heap_bytes)
    );
    Ok(())
}

fn dollars(cycles: u128) -> String {
    format!("${:.5}", prices::usd(cycles))
}

fn print_next_commands(network: &Network, canister: Principal, keep: bool) {
    heading("What to type next");
    if !keep {
        println!("cargo xtask demo --keep --port 8123     # the same, and the network stays up; then, elsewhere:");
    }
    let url = if keep { network.url.as_str() } else { "http://127.0.0.1:8123" };
    let uploader = Path::new("target/debug/model-uploader");
    let base = format!("{} --replica-url {url} --anonymous --canister {canister}", uploader.display());
    println!("{base} list");
    println!("{base} status {MODEL}");
    println!("{base} classify {MODEL} models/photos/coffee.png");
    println!("{base} chat {LANGUAGE_MODEL}           # a conversation, line by line");
    println!("{base} upload magika");
    println!("{base} inspect MODEL.onnx          # would a model of yours run?");
    println!("curl '{url}/metrics?canisterId={canister}'");
}
