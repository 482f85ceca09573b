//! Which command does what, and the connection that most of them need.

use super::arguments::{Arguments, Command, Global, RecipesFolder};
use super::output::Output;
use super::{generate_commands, model_commands, run_commands};
use anyhow::{Context, Result};
use model_uploader::recipe::{self, Cache, Recipe, Step};
use model_uploader::{ConnectOptions, Connection, IdentityChoice, client::principal_name, connect};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Runs one command.
pub async fn run(arguments: Arguments, output: &Output) -> Result<()> {
    let global = &arguments.global;
    match arguments.command {
        Command::Inspect { file } => inspect(&file, output),
        Command::Fetch { name: Some(name), recipes } => {
            let (recipe, folder) = fetch(&name, &recipes, output)?;
            let files: Vec<_> = recipe.outputs.iter().map(|file| folder.join(&file.name)).collect();
            let text = files.iter().map(|path| format!("{}\n", path.display())).collect::<String>();
            output.result(&json!({ "name": name, "folder": folder, "files": files }), &text);
            Ok(())
        }
        Command::Fetch { name: None, recipes } => list_recipes(&recipes, output),
        Command::Import { file, out } => import(&file, &out, output),
        Command::Upload(upload) => model_commands::upload(global, upload, output).await,
        Command::Classify { model, input, top, how } => {
            run_commands::classify(global, &model, &input, top, &how, output).await
        }
        Command::Profile { model, subject, inputs, top, version } => {
            run_commands::profile(global, &model, subject.as_deref(), &inputs, top, version, output).await
        }
        Command::Infer { model, inputs, outputs, output_dir, how } => {
            run_commands::infer(global, &model, &inputs, outputs, output_dir.as_deref(), &how, output).await
        }
        Command::Generate(arguments) => generate_commands::generate(global, &arguments, output).await,
        Command::Chat(arguments) => generate_commands::chat(global, &arguments, output).await,
        Command::List => model_commands::list(global, output).await,
        Command::Status { model } => model_commands::status(global, model.as_deref(), output).await,
        Command::Load(version) => model_commands::load(global, &version, output).await,
        Command::Unload(version) => model_commands::unload(global, &version, output).await,
        Command::Activate(version) => model_commands::activate(global, &version, output).await,
        Command::Rollback { model } => model_commands::rollback(global, &model, output).await,
        Command::Delete(version) => model_commands::delete(global, &version, output).await,
        Command::Health => model_commands::health(global, output).await,
    }
}

/// Connects as the global options say.
pub async fn open(global: &Global, output: &Output) -> Result<Connection> {
    let identity = match (&global.identity, &global.pem, global.anonymous) {
        (Some(name), ..) => IdentityChoice::Named(name.clone()),
        (None, Some(path), _) => IdentityChoice::Pem(path.clone()),
        (None, None, true) => IdentityChoice::Anonymous,
        (None, None, false) => IdentityChoice::Default,
    };
    let options = ConnectOptions {
        canister: global.canister.clone(),
        network: global.network.clone(),
        replica_url: global.replica_url.clone(),
        identity,
        root_key: global.root_key.clone(),
        directory: current_dir()?,
    };
    let connection = connect(&options).await?;
    output.note(&format!(
        "canister {} at {}, as {}",
        connection.canister,
        connection.replica_url,
        principal_name(&connection.caller)
    ));
    Ok(connection)
}

fn current_dir() -> Result<PathBuf> {
    std::env::current_dir().context("the current folder")
}

fn recipes_folder(folder: &RecipesFolder) -> Result<PathBuf> {
    match &folder.recipes {
        Some(folder) => Ok(folder.clone()),
        None => recipe::find_recipes(&current_dir()?),
    }
}

/// Fetches and converts, with a spinner for each step; returns the recipe and the folder of its outputs.
pub fn fetch(name: &str, recipes: &RecipesFolder, output: &Output) -> Result<(Recipe, PathBuf)> {
    let recipe = Recipe::find(&recipes_folder(recipes)?, name)?;
    let cache = Cache::of_this_user()?;
    let mut spinner = None;
    let folder = recipe::fetch(&recipe, &cache, &mut |step| {
        let text = match step {
            Step::Cached => return,
            Step::Download { package, version, size_bytes } => {
                format!("downloading {package} {version} ({})", super::output::bytes_text(size_bytes))
            }
            Step::Extract { path } => format!("taking out {path}"),
            Step::Environment { requirements } => format!("installing {} for Python", requirements.join(", ")),
            Step::Convert { script } => format!("converting with {script}"),
            Step::Import { id } => format!("importing {id}"),
        };
        output.note(&text);
        // The one before ends first, so that its line is free.
        spinner = None;
        spinner = Some(output.spinner(text));
    })
    .with_context(|| format!("recipe {name}"))?;
    drop(spinner);
    Ok((recipe, folder))
}

fn list_recipes(recipes: &RecipesFolder, output: &Output) -> Result<()> {
    let folder = recipes_folder(recipes)?;
    let recipes = recipe::names(&folder)?.iter().map(|name| Recipe::find(&folder, name)).collect::<Result<Vec<_>>>()?;
    let text = recipes.iter().map(|recipe| format!("{:20} {}\n", recipe.name, recipe.description)).collect::<String>();
    let value = recipes
        .iter()
        .map(|recipe| json!({ "name": recipe.name, "description": recipe.description, "licence": recipe.licence }))
        .collect();
    output.result(&value, &text);
    Ok(())
}

fn import(file: &Path, out: &Path, output: &Output) -> Result<()> {
    let spinner = output.spinner(format!("importing {}", file.display()));
    let imported = model_uploader::gguf::import(file, out).with_context(|| file.display().to_string())?;
    drop(spinner);
    let files: Vec<_> = imported.files.iter().map(|path| path.display().to_string()).collect();
    let (vocabulary, context_length) = (imported.vocabulary, imported.context_length);
    let value = json!({ "files": files, "vocabulary": vocabulary, "context_length": context_length });
    output.result(&value, &files.iter().map(|path| format!("{path}\n")).collect::<String>());
    Ok(())
}

fn inspect(file: &Path, output: &Output) -> Result<()> {
    let inspection = model_uploader::inspection::inspect(file)?;
    let tensors = |specs: &[onnx_engine::TensorSpec]| -> Vec<(String, String)> {
        specs.iter().map(|spec| (spec.name.clone(), describe(spec))).collect()
    };
    let (inputs, outputs) = (tensors(&inspection.inputs), tensors(&inspection.outputs));
    let unsupported: Vec<_> = inspection
        .unsupported
        .iter()
        .map(|missing| json!({ "node": missing.node, "operator": missing.operator, "reason": missing.reason }))
        .collect();
    let runs = inspection.unsupported.is_empty();
    let value = json!({
        "opset": inspection.opset,
        "inputs": inputs.iter().map(|(name, text)| json!({ "name": name, "type": text })).collect::<Vec<_>>(),
        "outputs": outputs.iter().map(|(name, text)| json!({ "name": name, "type": text })).collect::<Vec<_>>(),
        "operators": inspection.operators,
        "weight_bytes": inspection.weight_bytes,
        "can_run": runs,
        "unsupported": unsupported,
    });
    let mut text = format!("opset      {}\n", inspection.opset);
    for (title, list) in [("input", inputs), ("output", outputs)] {
        for (name, spec) in list {
            text.push_str(&format!("{title:10} {name} {spec}\n"));
        }
    }
    text.push_str(&format!("weights    {}\n", super::output::bytes_text(inspection.weight_bytes)));
    let operators = inspection.operators.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>();
    text.push_str(&format!("operators  {}\n", operators.join(", ")));
    for missing in &inspection.unsupported {
        text.push_str(&format!("can't run  {} ({}): {}\n", missing.node, missing.operator, missing.reason));
    }
    text.push_str(if runs { "the canister can run this model" } else { "the canister can't run this model" });
    output.result(&value, &text);
    Ok(())
}

/// `float32 ?x3x224x224`.
fn describe(spec: &onnx_engine::TensorSpec) -> String {
    let dims = spec.shape.iter().map(|dim| dim.map_or("?".to_string(), |dim| dim.to_string())).collect::<Vec<_>>();
    format!("{} {}", spec.element_type, if dims.is_empty() { "scalar".to_string() } else { dims.join("x") })
}
