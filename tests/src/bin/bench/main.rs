//! Instructions per load and inference of real models, by the replica's own count.
//!
//! Instructions are deterministic, so one run is the measurement. `benches/results.json` holds the committed figures and
//! `benches/RESULTS.md` the same for people; `--check` fails when a figure rose, or fell without being committed.

mod baseline;
mod measure;
mod results;
mod shapes;
mod work;

use anyhow::Result;
use clap::Parser;
use results::Results;
use std::path::{Path, PathBuf};
use work::Work;

#[derive(Parser)]
struct Arguments {
    /// Compare with the committed figures instead of writing them
    #[arg(long)]
    check: bool,
    /// Only the models that the tests have fetched anyway
    #[arg(long)]
    quick: bool,
    /// Measure plain tract instead, in this module of benches/baseline, and write baseline.json
    #[arg(long, value_name = "WASM", conflicts_with = "check")]
    baseline: Option<PathBuf>,
    /// Measure a synthetic model of 2 GiB too
    #[arg(long)]
    large: bool,
    /// Measure language models of larger shapes, with random weights, too; or those whose name has this in it
    #[arg(long, value_name = "PART")]
    shapes: Option<Option<String>>,
    /// A model that no recipe fetches: it runs on numbers from 0 to 255, its free sizes being 1, or on one token after 16
    /// others; repeat for more
    #[arg(long = "file", value_name = "NAME=PATH", value_parser = parse_file)]
    files: Vec<(String, PathBuf)>,
}

fn parse_file(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("it is NAME=PATH")?;
    Ok((name.to_string(), PathBuf::from(path)))
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches");
    let mut works = if arguments.quick { Work::quick() } else { Work::all() };
    if arguments.large {
        works.push(Work::large());
    }
    for (name, path) in &arguments.files {
        works.push(Work::of_file(name, path)?);
    }
    if let Some(wasm) = &arguments.baseline {
        return baseline::measure(works, wasm, &folder).await;
    }
    let mut results = Results::of_module()?;
    for work in works {
        measure::measure(work, &mut results).await?;
    }
    if let Some(part) = &arguments.shapes {
        let part = part.as_deref().unwrap_or_default();
        // Made one at a time: they are large.
        for shape in shapes::SHAPES.iter().filter(|shape| shape.name.contains(part)) {
            measure::measure(shape.work()?, &mut results).await?;
        }
    }
    match arguments.check {
        true => results.check(&folder),
        false => results.write(&folder),
    }
}
