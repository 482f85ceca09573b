//! Commands that bring models in, show them and take them away.

use super::arguments::{Global, TaskArgument, Upload, Version};
use super::commands::{fetch, open};
use super::output::{Output, UploadProgress, bytes_text, cycles_json, cycles_text};
use anyhow::{Context, Result};
use candid::Nat;
use model_uploader::error::usage;
use model_uploader::manifest::{ModelSource, PreprocessingSpec, SourceFile, read_labels};
use model_uploader::prices::grouped;
use model_uploader::recipe::TaskSpec;
use model_uploader::tensor_file::{parse_input, type_name};
use model_uploader::{Connection, Loss, UploadOptions, UploadReport, model_ref};
use onnx_canister_interface::{ModelInfo, ModelRef, ModelState, Task, Tensor, TensorInfo, WeightForm};
use serde_json::{Value, json};
use std::path::Path;

pub async fn upload(global: &Global, upload: Upload, output: &Output) -> Result<()> {
    let mut source = match &upload.onnx {
        Some(onnx) => source_of_file(&upload, onnx)?,
        None => {
            let name = upload.name.as_deref().ok_or_else(|| usage("name a recipe, or a file with --onnx"))?;
            let (recipe, folder) = fetch(name, &upload.recipes, output)?;
            recipe.model_source(&folder)?
        }
    };
    if let Some(name) = &upload.model_name {
        source.name.clone_from(name);
    }
    if let Some(description) = &upload.description {
        source.description.clone_from(description);
    }
    if let Some(weights) = upload.weights {
        source.weights = Some(weights.to_interface());
    }
    if !upload.samples.is_empty() {
        output.note(&loss_text(&source, &upload.samples)?);
    }
    let options = UploadOptions {
        concurrency: usize::from(global.concurrency),
        chunk_bytes: upload.chunk_bytes,
        load: !upload.no_load,
        activate: !upload.no_load && !upload.no_activate,
    };
    let connection = open(global, output).await?;
    let progress = UploadProgress::new(output);
    let report = model_uploader::upload(&connection.client, &source, &options, &|event| progress.show(event)).await?;
    drop(progress);
    output.result(&report_json(&report), &report_text(&report));
    Ok(())
}

/// What int8 weights do to the answers to the samples.
fn loss_text(source: &ModelSource, samples: &[String]) -> Result<String> {
    if source.weights != Some(WeightForm::Int8) {
        return Err(usage("--sample is for --weights int8: there is no loss to measure otherwise"));
    }
    let samples: Vec<Vec<(String, Tensor)>> = samples
        .iter()
        .map(|sample| sample.split(';').map(|input| parse_input(input.trim())).collect::<Result<_>>())
        .collect::<Result<_>>()
        .map_err(|error| usage(format!("--sample: {error:#}")))?;
    let losses = model_uploader::quantisation_loss(source, &samples)?;
    let line = |loss: &Loss| {
        format!(
            "int8 weights change output '{}' by at most {:.2} % of its largest value, by {:.2} % in the mean square; the \
             largest value's place is the same in {} of {} samples",
            loss.output,
            100.0 * loss.largest,
            100.0 * loss.root_mean_square,
            loss.same_best,
            loss.samples
        )
    };
    Ok(losses.iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// A model from a file and options.
fn source_of_file(upload: &Upload, onnx: &Path) -> Result<ModelSource> {
    let task = match upload.task {
        Some(TaskArgument::Classify) => TaskSpec::Classify,
        Some(TaskArgument::Infer) => TaskSpec::Infer,
        Some(TaskArgument::Generate) => TaskSpec::Generate,
        None if upload.labels.is_some() || upload.preprocessing.is_some() => TaskSpec::Classify,
        None => TaskSpec::Infer,
    };
    if task != TaskSpec::Classify && upload.no_softmax {
        return Err(usage("--no-softmax is for --task classify"));
    }
    let preprocessing = upload.preprocessing.as_deref().map(PreprocessingSpec::read).transpose()?;
    let files = std::iter::once(onnx).chain(upload.external_data.iter().map(std::path::PathBuf::as_path));
    let stem = onnx.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    Ok(ModelSource {
        name: upload.name.clone().unwrap_or(stem),
        files: files
            .map(|path| {
                let name = path.file_name().with_context(|| format!("{} is not a file", path.display()))?;
                Ok(SourceFile { name: name.to_string_lossy().into_owned(), path: path.to_path_buf() })
            })
            .collect::<Result<_>>()?,
        task: task
            .to_interface((task == TaskSpec::Classify).then_some(!upload.no_softmax), upload.context_length)
            .map_err(|error| usage(error.to_string()))?,
        preprocessing: preprocessing.as_ref().map(PreprocessingSpec::to_interface).transpose()?,
        labels: upload.labels.as_deref().map(read_labels).transpose()?.unwrap_or_default(),
        description: String::new(),
        weights: None,
    })
}

fn report_json(report: &UploadReport) -> Value {
    json!({
        "model": info_json(&report.info),
        "bytes_total": report.bytes_total,
        "bytes_sent": report.bytes_sent,
        "chunks_total": report.chunks_total,
        "chunks_sent": report.chunks_sent,
        "send_seconds": report.send_seconds,
        "commit_seconds": report.commit_seconds,
        "load_seconds": report.load_seconds,
        "load_instructions": report.info.load_cost.instructions,
        "load_messages": report.info.load_cost.messages,
        "ingress": cycles_json(report.ingress_cycles()),
        "load": cycles_json(report.load_cycles()),
        "storage_year": cycles_json(report.storage_cycles_per_year()),
    })
}

fn report_text(report: &UploadReport) -> String {
    let info = &report.info;
    let mut text = format!("{} version {}: {}\n", info.name, info.version, state_text(info));
    if report.chunks_sent == 0 {
        text.push_str("sent         nothing: every chunk was there already\n");
    } else {
        text.push_str(&format!(
            "sent         {} of {} in {} chunks, {:.1} s, {}/s; {}\n",
            bytes_text(report.bytes_sent),
            bytes_text(report.bytes_total),
            report.chunks_sent,
            report.send_seconds,
            bytes_text((report.bytes_sent as f64 / report.send_seconds.max(1e-3)) as u64),
            cycles_text(report.ingress_cycles())
        ));
    }
    if report.load_seconds > 0.0 {
        text.push_str(&format!(
            "loaded       {} instructions in {} messages, {:.1} s; {}\n",
            grouped(info.load_cost.instructions),
            info.load_cost.messages,
            report.load_seconds,
            cycles_text(report.load_cycles())
        ));
    }
    text.push_str(&format!(
        "storage      {}, a year of it {}\n",
        bytes_text(info.stable_bytes),
        cycles_text(report.storage_cycles_per_year())
    ));
    text
}

pub async fn list(global: &Global, output: &Output) -> Result<()> {
    let connection = open(global, output).await?;
    let models = connection.client.list_models().await?;
    let mut text = String::new();
    for info in &models {
        let active = if info.active { "*" } else { " " };
        text.push_str(&format!(
            "{active} {:24} {:>4} {:>10}  {}\n",
            info.name,
            info.version,
            bytes_text(info.size_bytes),
            state_text(info)
        ));
    }
    if models.is_empty() {
        text.push_str("no models: `model-uploader upload NAME` brings one in");
    }
    output.result(&models.iter().map(info_json).collect(), &text);
    Ok(())
}

pub async fn status(global: &Global, model: Option<&str>, output: &Output) -> Result<()> {
    let connection = open(global, output).await?;
    let mut models = connection.client.list_models().await?;
    if let Some(name) = model {
        models.retain(|info| info.name == name);
        if models.is_empty() {
            // The canister's own words for it.
            connection.client.model_info(&model_ref(name, None)).await?;
        }
    }
    let text = models.iter().map(status_text).collect::<Vec<_>>().join("\n");
    output.result(&models.iter().map(info_json).collect(), &text);
    Ok(())
}

fn status_text(info: &ModelInfo) -> String {
    let active = if info.active { ", active" } else { "" };
    let mut text = format!("{} version {}: {}{active}\n", info.name, info.version, state_text(info));
    if !info.description.is_empty() {
        text.push_str(&format!("  about    {}\n", info.description));
    }
    let task = match info.task {
        Task::Classify { softmax: true } => "classify, with softmax",
        Task::Classify { softmax: false } => "classify",
        Task::Infer => "infer",
        Task::Generate { context_length } => &format!("generate, context of {context_length} tokens"),
    };
    text.push_str(&format!("  task     {task}, {} labels\n", info.labels_count));
    for (title, tensors) in [("input", &info.inputs), ("output", &info.outputs)] {
        for tensor in tensors {
            text.push_str(&format!("  {title:8} {} {}\n", tensor.name, tensor_text(tensor)));
        }
    }
    text.push_str(&format!(
        "  files    {} ({})\n  memory   {} stable, {} heap\n",
        info.files.join(", "),
        bytes_text(info.size_bytes),
        bytes_text(info.stable_bytes),
        bytes_text(info.heap_bytes)
    ));
    text
}

fn state_text(info: &ModelInfo) -> String {
    match &info.state {
        ModelState::Uploading { chunks_stored, chunks_total } => {
            format!("uploading, {chunks_stored} of {chunks_total} chunks stored")
        }
        ModelState::Committing { bytes_done, bytes_total } => {
            format!("verifying, {} of {}", bytes_text(*bytes_done), bytes_text(*bytes_total))
        }
        ModelState::Committed => "committed".to_string(),
        ModelState::Loading { done, total } => {
            format!("loading, {:.0} %", *done as f64 / (*total).max(1) as f64 * 100.0)
        }
        ModelState::Ready => "ready".to_string(),
        ModelState::Failed { reason } => format!("failed: {reason}"),
    }
}

/// `float32 ?x3x224x224`.
fn tensor_text(tensor: &TensorInfo) -> String {
    let dims = tensor.shape.iter().map(|dim| dim.map_or("?".to_string(), |dim| dim.to_string())).collect::<Vec<_>>();
    let shape = if dims.is_empty() { "scalar".to_string() } else { dims.join("x") };
    format!("{} {shape}", type_name(tensor.element_type))
}

fn info_json(info: &ModelInfo) -> Value {
    let tensors = |list: &[TensorInfo]| {
        list.iter()
            .map(|tensor| json!({ "name": tensor.name, "type": type_name(tensor.element_type), "shape": tensor.shape }))
            .collect::<Vec<_>>()
    };
    let state = match &info.state {
        ModelState::Uploading { chunks_stored, chunks_total } => {
            json!({ "name": "uploading", "chunks_stored": chunks_stored, "chunks_total": chunks_total })
        }
        ModelState::Committing { bytes_done, bytes_total } => {
            json!({ "name": "committing", "bytes_done": bytes_done, "bytes_total": bytes_total })
        }
        ModelState::Committed => json!({ "name": "committed" }),
        ModelState::Loading { done, total } => json!({ "name": "loading", "done": done, "total": total }),
        ModelState::Ready => json!({ "name": "ready" }),
        ModelState::Failed { reason } => json!({ "name": "failed", "reason": reason }),
    };
    json!({
        "name": info.name,
        "version": info.version,
        "active": info.active,
        "state": state,
        "task": match info.task {
            Task::Classify { .. } => "classify",
            Task::Infer => "infer",
            Task::Generate { .. } => "generate",
        },
        "description": info.description,
        "size_bytes": info.size_bytes,
        "files": info.files,
        "stable_bytes": info.stable_bytes,
        "heap_bytes": info.heap_bytes,
        "labels": info.labels_count,
        "inputs": tensors(&info.inputs),
        "outputs": tensors(&info.outputs),
    })
}

pub async fn load(global: &Global, version: &Version, output: &Output) -> Result<()> {
    let connection = open(global, output).await?;
    let model = which(&connection, version).await?;
    let progress = UploadProgress::new(output);
    let info = model_uploader::load(&connection.client, &model, &|event| progress.show(event)).await?;
    drop(progress);
    output.result(&info_json(&info), &format!("{} version {}: {}", info.name, info.version, state_text(&info)));
    Ok(())
}

pub async fn unload(global: &Global, version: &Version, output: &Output) -> Result<()> {
    let connection = open(global, output).await?;
    let model = which(&connection, version).await?;
    connection.client.unload(&model).await?;
    done(&model, "unloaded", output);
    Ok(())
}

pub async fn activate(global: &Global, version: &Version, output: &Output) -> Result<()> {
    let connection = open(global, output).await?;
    let model = which(&connection, version).await?;
    connection.client.activate(&model).await?;
    done(&model, "active", output);
    Ok(())
}

pub async fn rollback(global: &Global, model: &str, output: &Output) -> Result<()> {
    let connection = open(global, output).await?;
    connection.client.rollback(model).await?;
    let info = connection.client.model_info(&model_ref(model, None)).await?;
    output.result(&info_json(&info), &format!("{} version {} is active again", info.name, info.version));
    Ok(())
}

pub async fn delete(global: &Global, version: &Version, output: &Output) -> Result<()> {
    let connection = open(global, output).await?;
    let model = which(&connection, version).await?;
    connection.client.delete_model(&model).await?;
    done(&model, "deleted", output);
    Ok(())
}

/// The version that is meant: the one named, or the only one.
async fn which(connection: &Connection, version: &Version) -> Result<ModelRef> {
    if version.version.is_some() {
        return Ok(model_ref(&version.model, version.version));
    }
    let mut models = connection.client.list_models().await?;
    models.retain(|info| info.name == version.model);
    match models.as_slice() {
        // The canister's own words for it.
        [] => Ok(connection.client.model_info(&model_ref(&version.model, None)).await.map(|info| info_ref(&info))?),
        [only] => Ok(model_ref(&version.model, Some(only.version))),
        several => {
            let numbers = several.iter().map(|info| info.version.to_string()).collect::<Vec<_>>().join(", ");
            Err(usage(format!("{} has versions {numbers}: say which with --version", version.model)))
        }
    }
}

fn info_ref(info: &ModelInfo) -> ModelRef {
    model_ref(&info.name, Some(info.version))
}

fn done(model: &ModelRef, what: &str, output: &Output) {
    let version = model.version.map(|number| format!(" version {number}")).unwrap_or_default();
    let value = json!({ "name": model.name, "version": model.version, "done": what });
    output.result(&value, &format!("{}{version}: {what}", model.name));
}

pub async fn health(global: &Global, output: &Output) -> Result<()> {
    let connection = open(global, output).await?;
    let health = connection.client.health().await?;
    let days = health.days_left.map_or("never runs dry".to_string(), |days| format!("{} days left", grouped(days)));
    let text = format!(
        "version      {}\nbalance      {}{}\nburn         {} a day, {days}\nmemory       {} stable, {} heap\n\
         models       {} ready\nwork         {} jobs pending, {} calls open\n",
        health.version,
        cycles_text(amount(&health.cycle_balance)),
        if health.below_reserve { ", below the reserve: inference is refused" } else { "" },
        cycles_text(amount(&health.idle_cycles_per_day)),
        bytes_text(health.stable_bytes),
        bytes_text(health.heap_bytes),
        health.models_ready,
        health.jobs_pending,
        health.open_calls
    );
    let value = json!({
        "version": health.version,
        "cycle_balance": amount(&health.cycle_balance).to_string(),
        "idle_cycles_per_day": amount(&health.idle_cycles_per_day).to_string(),
        "days_left": health.days_left,
        "below_reserve": health.below_reserve,
        "stable_bytes": health.stable_bytes,
        "heap_bytes": health.heap_bytes,
        "models_ready": health.models_ready,
        "jobs_pending": health.jobs_pending,
        "open_calls": health.open_calls,
    });
    output.result(&value, &text);
    Ok(())
}

/// Cycles of a Candid `nat`; there are never more than fit.
fn amount(cycles: &Nat) -> u128 {
    u128::try_from(cycles.0.clone()).unwrap_or(u128::MAX)
}
