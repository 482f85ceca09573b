//! The folder outside the project where fetched and converted files are kept.
//!
//! ```text
//! CACHE/artefacts/<sha256>/<file>   as downloaded
//! CACHE/files/<sha256>              files taken out of artefacts
//! CACHE/models/<key>/<output>...    converted models; the key hashes everything that decides the outcome
//! CACHE/venvs/<key>/                virtual environments of conversions
//! CACHE/tmp/                        work in progress, renamed when whole and verified
//! ```

use super::Sha256Hex;
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Environment variable that names another folder.
const CACHE_VARIABLE: &str = "ONNX_CANISTER_CACHE";
const CACHE_NAME: &str = "onnx-canister";
/// Work in progress that is older belongs to no living process.
const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
const READ_BUFFER_BYTES: usize = 1 << 20;

/// The cache folder.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The folder that `ONNX_CANISTER_CACHE` names, else `onnx-canister` in the platform's cache folder.
    pub fn of_this_user() -> Result<Self> {
        match std::env::var_os(CACHE_VARIABLE).filter(|dir| !dir.is_empty()) {
            Some(dir) => Ok(Self { root: std::path::absolute(PathBuf::from(dir))? }),
            None => {
                let dirs = directories::BaseDirs::new()
                    .with_context(|| format!("this user has no home directory: set {CACHE_VARIABLE}"))?;
                Ok(Self { root: dirs.cache_dir().join(CACHE_NAME) })
            }
        }
    }

    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn artefact(&self, sha256: &Sha256Hex, name: &str) -> PathBuf {
        self.root.join("artefacts").join(sha256.as_str()).join(name)
    }

    pub(super) fn file(&self, sha256: &Sha256Hex) -> PathBuf {
        self.root.join("files").join(sha256.as_str())
    }

    pub(super) fn model(&self, key: &str) -> PathBuf {
        self.root.join("models").join(key)
    }

    pub(super) fn venv(&self, key: &str) -> PathBuf {
        self.root.join("venvs").join(key)
    }

    /// A new folder for work in progress; gone when dropped, whatever is left in it.
    pub(super) fn work_dir(&self) -> Result<WorkDir> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let all = self.root.join("tmp");
        remove_abandoned(&all);
        let path = all.join(name);
        // A process that was killed may have had the same number.
        remove(&path)?;
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(WorkDir { path })
    }
}

/// Removes what killed processes left. Failing to is no harm: the next one tries again.
fn remove_abandoned(work_dirs: &Path) {
    let Ok(entries) = fs::read_dir(work_dirs) else { return };
    for entry in entries.flatten() {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        if modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > ABANDONED_AFTER)) {
            let _ = remove(&entry.path());
        }
    }
}

/// See [`Cache::work_dir`].
pub(super) struct WorkDir {
    path: PathBuf,
}

impl WorkDir {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        // What can't be removed now is removed when its name is used again.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Whether `path` is a file of that size and hash.
///
/// # Errors
/// When it is there but can't be read.
pub(super) fn is_verified(path: &Path, size_bytes: u64, sha256: &Sha256Hex) -> Result<bool> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() == size_bytes => Ok(sha256_of(path)? == sha256.as_str()),
        _ => Ok(false),
    }
}

/// Fails with both values unless `path` has that size and hash.
pub(super) fn verify(path: &Path, what: &str, size_bytes: u64, sha256: &Sha256Hex) -> Result<()> {
    let size = fs::metadata(path).with_context(|| format!("{what}: {}", path.display()))?.len();
    if size != size_bytes {
        bail!("{what} has {size} bytes, the recipe says {size_bytes}");
    }
    let got = sha256_of(path)?;
    if got != sha256.as_str() {
        bail!("{what} has sha256 {got}, the recipe says {}", sha256.as_str());
    }
    Ok(())
}

fn sha256_of(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| path.display().to_string())?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; READ_BUFFER_BYTES];
    loop {
        let read = file.read(&mut buffer).with_context(|| path.display().to_string())?;
        if read == 0 {
            return Ok(hex::encode(hash.finalize()));
        }
        hash.update(&buffer[..read]);
    }
}

/// Moves a whole, verified file or folder to its place. Another process may have put an equal one there first.
pub(super) fn put_in_place(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
    }
    match fs::rename(from, to) {
        Ok(()) => Ok(()),
        Err(_) if from.is_dir() && to.is_dir() => Ok(()),
        Err(error) => Err(error).with_context(|| format!("moving {} to {}", from.display(), to.display())),
    }
}

/// Removes a file or folder, if it is there.
pub(super) fn remove(path: &Path) -> Result<()> {
    let result = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn what_a_killed_process_left_goes_after_a_day_and_what_lives_stays() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let cache = Cache::at(dir.path());
        let tmp = dir.path().join("tmp");
        fs::create_dir_all(tmp.join("1-0/inner"))?;
        fs::create_dir_all(tmp.join("2-0"))?;
        let long_ago = SystemTime::now() - ABANDONED_AFTER - Duration::from_secs(60);
        File::open(tmp.join("1-0"))?.set_modified(long_ago)?;
        let work = cache.work_dir()?;
        assert!(!tmp.join("1-0").exists() && tmp.join("2-0").exists() && work.path().is_dir());
        let path = work.path().to_path_buf();
        drop(work);
        assert!(!path.exists());
        Ok(())
    }
}
