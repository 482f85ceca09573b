//! Recipes: how a model that others publish becomes an ONNX file here.
//!
//! A recipe is a folder in `models/` with a `recipe.toml`. It names packages of a public registry, the files in them,
//! a conversion (a script of its own or an import of a format that is read here), and what comes out, each with its SHA-256. [`fetch`] does it all in a cache outside the project and
//! does nothing twice.

mod cache;
mod fetch;
mod python;

pub use cache::Cache;
pub use fetch::{Step, fetch, fetch_artefact};

use crate::error::usage;
use crate::manifest::{ModelSource, PreprocessingSpec, SourceFile, read_labels};
use anyhow::{Context, Result, bail, ensure};
use onnx_canister_interface::{Task, WeightForm};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Name of the file that makes a folder a recipe.
const RECIPE_FILE: &str = "recipe.toml";

/// A recipe as written in `recipe.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    pub name: String,
    pub description: String,
    pub licence: String,
    #[serde(rename = "source")]
    pub sources: Vec<Source>,
    pub convert: Convert,
    #[serde(rename = "output")]
    pub outputs: Vec<Output>,
    pub manifest: ManifestSpec,
    /// The recipe's own folder.
    #[serde(skip)]
    pub folder: PathBuf,
}

/// One artefact of a registry.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub registry: Registry,
    pub package: String,
    pub version: String,
    /// The downloaded file's name.
    pub artefact: String,
    pub size_bytes: u64,
    pub sha256: Sha256Hex,
    pub licence: String,
    #[serde(rename = "file")]
    pub files: Vec<PackagedFile>,
}

/// Where packages come from.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Registry {
    /// Wheels, by `pip download`; a wheel for one platform is fetched on all of them.
    Pypi,
}

/// A file inside an artefact, and the name by which the conversion knows it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackagedFile {
    pub id: String,
    pub path: String,
    pub size_bytes: u64,
    pub sha256: Sha256Hex,
}

/// How packaged files become the outputs: by a script or by an import, one of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "ConvertSpec")]
pub enum Convert {
    /// A Python script in the recipe's folder, called as `script OUT_DIR id=PATH...` with one `id=PATH` for each packaged
    /// file.
    Script {
        script: String,
        /// What pip installs into a virtual environment for it; none runs it with Python alone.
        requirements: Vec<String>,
    },
    /// What this program reads itself: the recipe's only packaged file.
    Import(ImportFormat),
}

/// Formats that [`Convert::Import`] reads.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ImportFormat {
    /// By [`crate::gguf::import`], which names the outputs.
    Gguf,
}

/// [`Convert`] as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConvertSpec {
    script: Option<String>,
    requirements: Option<Vec<String>>,
    import: Option<ImportFormat>,
}

impl TryFrom<ConvertSpec> for Convert {
    type Error = &'static str;

    fn try_from(spec: ConvertSpec) -> Result<Self, Self::Error> {
        match (spec.script, spec.requirements, spec.import) {
            (Some(script), Some(requirements), None) => Ok(Self::Script { script, requirements }),
            (Some(_), None, None) => Err("a script needs requirements, which may be []"),
            (None, None, Some(format)) => Ok(Self::Import(format)),
            (None, Some(_), Some(_)) => Err("an import has no requirements"),
            _ => Err("it needs either script or import"),
        }
    }
}

/// A file that the conversion writes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    pub name: String,
    pub size_bytes: u64,
    pub sha256: Sha256Hex,
}

/// What the canister is told.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestSpec {
    /// Names of outputs: the ONNX file, then its external-data files.
    pub files: Vec<String>,
    pub task: TaskSpec,
    /// For `classify`: whether the network ends in logits.
    pub softmax: Option<bool>,
    /// For `generate`: tokens that the model was made for.
    pub context_length: Option<u32>,
    /// Name of the output with one label a line.
    pub labels: Option<String>,
    pub preprocessing: Option<PreprocessingSpec>,
    /// `"stored"` or `"int8"`: what weights become when the model is loaded.
    pub weights: Option<WeightForm>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum TaskSpec {
    Classify,
    Infer,
    Generate,
}

impl TaskSpec {
    /// # Errors
    /// When `classify` does not say whether to apply softmax, `generate` not what its context is, or another task does.
    pub fn to_interface(self, softmax: Option<bool>, context_length: Option<u32>) -> Result<Task> {
        match (self, softmax, context_length) {
            (Self::Classify, Some(softmax), None) => Ok(Task::Classify { softmax }),
            (Self::Classify, None, _) => bail!("task classify needs softmax = true or false"),
            (Self::Infer, None, None) => Ok(Task::Infer),
            (Self::Generate, None, Some(context_length)) => Ok(Task::Generate { context_length }),
            (Self::Generate, _, None) => bail!("task generate needs context_length, in tokens"),
            (Self::Infer | Self::Generate, Some(_), _) => bail!("softmax is for task classify"),
            (Self::Classify | Self::Infer, _, Some(_)) => bail!("context_length is for task generate"),
        }
    }
}

/// A SHA-256, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Sha256Hex(String);

impl Sha256Hex {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Sha256Hex {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            Ok(Self(text))
        } else {
            Err(format!("'{text}' is not a SHA-256 in 64 lower-case hexadecimal digits"))
        }
    }
}

impl Recipe {
    /// Reads `folder/recipe.toml`.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(RECIPE_FILE);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let mut recipe: Self = toml::from_str(&text).with_context(|| path.display().to_string())?;
        recipe.folder = folder.to_path_buf();
        recipe.check().with_context(|| path.display().to_string())?;
        Ok(recipe)
    }

    /// Finds a recipe by name.
    ///
    /// # Errors
    /// [`crate::error::UsageError`] with the names that there are.
    pub fn find(recipes: &Path, name: &str) -> Result<Self> {
        let names = names(recipes)?;
        if names.iter().any(|known| known == name) {
            return Self::read(&recipes.join(name));
        }
        Err(usage(format!("no recipe '{name}' in {}; there are: {}", recipes.display(), names.join(", "))))
    }

    fn check(&self) -> Result<()> {
        let folder_name = self.folder.file_name().unwrap_or_default();
        ensure!(folder_name == self.name.as_str(), "name = '{}', but the folder is {folder_name:?}", self.name);
        for (index, output) in self.outputs.iter().enumerate() {
            ensure!(is_plain_name(&output.name), "output name '{}' is not a plain file name", output.name);
            let twice = self.outputs[..index].iter().any(|other| other.name == output.name);
            ensure!(!twice, "output '{}' is there twice", output.name);
        }
        ensure!(!self.manifest.files.is_empty(), "manifest.files is empty");
        let known = |name: &String| self.outputs.iter().any(|output| output.name == *name);
        for name in self.manifest.files.iter().chain(&self.manifest.labels) {
            ensure!(known(name), "manifest names '{name}', which is no output");
        }
        for source in &self.sources {
            ensure!(is_plain_name(&source.artefact), "artefact '{}' is not a plain file name", source.artefact);
        }
        match &self.convert {
            Convert::Script { script, .. } => {
                ensure!(is_plain_name(script), "script '{script}' is not a plain file name");
            }
            Convert::Import(_) => {
                let files = self.sources.iter().map(|source| source.files.len()).sum::<usize>();
                ensure!(files == 1, "an import reads one source.file, there are {files}");
            }
        }
        self.manifest.task.to_interface(self.manifest.softmax, self.manifest.context_length).context("manifest")?;
        Ok(())
    }

    /// What [`crate::upload::upload`] takes, from the outputs in `folder`.
    pub fn model_source(&self, folder: &Path) -> Result<ModelSource> {
        let files =
            self.manifest.files.iter().map(|name| SourceFile { name: name.clone(), path: folder.join(name) }).collect();
        let preprocessing = self.manifest.preprocessing.as_ref();
        Ok(ModelSource {
            name: self.name.clone(),
            files,
            task: self.manifest.task.to_interface(self.manifest.softmax, self.manifest.context_length)?,
            preprocessing: preprocessing.map(PreprocessingSpec::to_interface).transpose()?,
            labels: self
                .manifest
                .labels
                .as_ref()
                .map(|name| read_labels(&folder.join(name)))
                .transpose()?
                .unwrap_or_default(),
            description: format!("{}. {}", self.description, self.licence),
            weights: self.manifest.weights,
        })
    }
}

fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', ':'])
}

/// Names of all recipes in the folder, sorted.
pub fn names(recipes: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(recipes).with_context(|| recipes.display().to_string())? {
        let entry = entry?;
        if entry.path().join(RECIPE_FILE).is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// The folder `models` with recipes in it, in `directory` or the nearest one above.
pub fn find_recipes(directory: &Path) -> Result<PathBuf> {
    let candidates = directory.ancestors().map(|dir| dir.join("models"));
    for candidate in candidates.filter(|path| path.is_dir()) {
        if !names(&candidate)?.is_empty() {
            return Ok(candidate);
        }
    }
    Err(usage(format!("no folder models with recipes in {} or above: name one with --recipes", directory.display())))
}

#[cfg(test)]
mod tests;
