//! The real `icp` from npm, with a home, a project folder and a network of its own.

use crate::{environment, npm};
use anyhow::{Context, Result, ensure};
use model_uploader::recipe::Cache;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The version that the tests are written against.
pub const VERSION: &str = "1.5.0";

/// Stands in for cargo in the project's folder: the two commands of `icp.yaml`, answered with what is built already.
const CARGO_STAND_IN: &str = r#"#!/bin/sh
set -e
case "$*" in
"xtask build-canister")
    mkdir -p target/wasm
    cp "$ONNX_CANISTER_WASM" target/wasm/onnx-canister.wasm.gz ;;
"run --quiet --locked -p model-uploader -- "*)
    shift 6
    exec "$MODEL_UPLOADER_BIN" "$@" ;;
*)
    echo "icp.yaml runs another cargo command than the tests know: cargo $*" >&2
    exit 1 ;;
esac
"#;

/// The binary that `ICP_BIN` names, else the npm package's.
pub fn binary() -> Result<PathBuf> {
    npm::binary("ICP_BIN", "@icp-sdk/icp-cli", VERSION, "icp")
}

/// A copy of the project as `icp` sees it, in a folder of its own. Dropping it stops its network.
pub struct Project {
    folder: tempfile::TempDir,
    icp: PathBuf,
}

impl Project {
    /// The repository's `icp.yaml`, with a managed network on a free port instead of icp's usual one.
    pub fn new() -> Result<Project> {
        let icp = binary()?;
        let folder = tempfile::tempdir()?;
        let root = fs::canonicalize(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))?;
        let yaml = fs::read_to_string(root.join("icp.yaml")).context("icp.yaml")?;
        let (before, after) = yaml.split_once("\nnetworks:\n").context("icp.yaml has no networks")?;
        let local = "  - { name: local, mode: managed, gateway: { port: 0 } }";
        let project = folder.path().join("project");
        fs::create_dir_all(project.join("bin"))?;
        fs::create_dir(folder.path().join("home"))?;
        fs::write(project.join("icp.yaml"), format!("{before}\nnetworks:\n{local}\n{after}"))?;
        symlink(root.join("models"), project.join("models"))?;
        let stand_in = project.join("bin/cargo");
        fs::write(&stand_in, CARGO_STAND_IN)?;
        fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755))?;
        Ok(Project { folder, icp })
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("project")
    }

    /// A command of `program` in the project's folder and environment.
    pub fn command(&self, program: &Path) -> Result<Command> {
        let home = self.folder.path().join("home");
        let mut path = self.path().join("bin").into_os_string();
        for part in [self.icp.parent().map(|dir| dir.as_os_str().to_owned()), std::env::var_os("PATH")] {
            path.push(":");
            path.push(part.unwrap_or_default());
        }
        let mut command = Command::new(program);
        command
            .current_dir(self.path())
            .env("HOME", &home)
            .env("ICP_HOME", home.join("icp"))
            .env("PATH", path)
            .env("ICP_CLI_NETWORK_LAUNCHER_PATH", environment::replica_bin()?)
            // Compiled modules and models are this user's, not the new home's.
            .env("XDG_CACHE_HOME", user_cache()?)
            .env("ONNX_CANISTER_CACHE", Cache::of_this_user()?.root())
            .env("DO_NOT_TRACK", "1")
            .env("RUST_BACKTRACE", "0")
            .env("NO_COLOR", "1")
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("ICP_ENVIRONMENT")
            .env_remove("ICP_CLI_CID")
            .stdin(Stdio::null());
        Ok(command)
    }

    /// Runs icp to its end, whatever that is.
    pub fn try_icp(&self, arguments: &[&str]) -> Result<Output> {
        self.command(&self.icp)?.args(arguments).output().context("cannot run icp")
    }

    /// Runs icp to success and returns what it printed on standard output.
    pub fn icp(&self, arguments: &[&str]) -> Result<String> {
        let output = self.try_icp(arguments)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(
            output.status.success(),
            "icp {}: {}\n{}{}",
            arguments.join(" "),
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
        Ok(text(&output.stdout))
    }

    /// Runs icp to success and reads the JSON that it printed.
    pub fn icp_json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let printed = self.icp(arguments)?;
        serde_json::from_str(&printed).with_context(|| format!("icp {} printed {printed}", arguments.join(" ")))
    }

    /// Runs icp, which must fail, and returns what it printed on standard error.
    pub fn icp_fails(&self, arguments: &[&str]) -> Result<String> {
        let output = self.try_icp(arguments)?;
        ensure!(!output.status.success(), "icp {} succeeded", arguments.join(" "));
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let _ = self.try_icp(&["network", "stop"]);
    }
}

/// Where this user's programs cache things.
fn user_cache() -> Result<OsString> {
    let from_home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache").into_os_string());
    std::env::var_os("XDG_CACHE_HOME").or_else(from_home).context("neither XDG_CACHE_HOME nor HOME is set")
}
