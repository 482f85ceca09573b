//! Programs of DFINITY's that come as npm packages, one for each platform.

use anyhow::{Context, Result, bail, ensure};
use model_uploader::recipe::Cache;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// The binary that the environment's `variable` names, else `bin/{program}` of the package `{package}-{platform}`,
/// installed into this user's cache once.
pub fn binary(variable: &str, package: &str, version: &str, program: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(PathBuf::from(path));
    }
    let platform = match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => "linux-x64",
        ("linux", "aarch64") => "linux-arm64",
        ("macos", "x86_64") => "darwin-x64",
        ("macos", "aarch64") => "darwin-arm64",
        (os, arch) => bail!("{package} {version} has no npm package for {os} on {arch}: name a binary with {variable}"),
    };
    let package = format!("{package}-{platform}");
    let folder = Cache::of_this_user()?.root().join("npm").join(format!("{program}-{version}-{platform}"));
    let binary = folder.join("node_modules").join(&package).join("bin").join(program);
    if !binary.is_file() {
        // Installed beside its place and moved there, so that what is there is whole.
        let temporary = folder.with_extension(format!("{}.tmp", std::process::id()));
        fs::create_dir_all(&temporary)?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--no-save", "--ignore-scripts", "--prefix"]);
        let output = npm.arg(&temporary).arg(format!("{package}@{version}")).output().with_context(|| {
            format!("npm, which brings {program}, cannot be run: install Node.js, or name a binary with {variable}")
        })?;
        ensure!(output.status.success(), "npm install {package}: {}", String::from_utf8_lossy(&output.stderr));
        if let Err(error) = fs::rename(&temporary, &folder) {
            let _ = fs::remove_dir_all(&temporary);
            ensure!(binary.is_file(), "{}: {error}", folder.display());
        }
    }
    Ok(binary)
}
