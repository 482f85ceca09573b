//! What an ONNX file holds, and whether the canister can run it.

use crate::manifest::ModelSource;
use anyhow::{Context, Result, anyhow};
use onnx_engine::{ByteSource, Inspection, ModelFiles, ReadError};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Reads the structure of the ONNX file at `path` by the engine's own reader. External-data files are looked for by
/// their location beside it.
///
/// # Errors
/// When the file can't be read or is not ONNX.
pub fn inspect(path: &Path) -> Result<Inspection> {
    let folder = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    let files = FilesOnDisk { onnx: FileSource::open(path)?, external: external_files(&folder)? };
    onnx_engine::inspect(&files).map_err(|error| anyhow!("{}: {error}", path.display()))
}

/// The files beside the ONNX file, by name. They are opened now because the engine borrows them.
fn external_files(folder: &Path) -> Result<Vec<(String, FileSource)>> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        // What can't be opened is reported when the model needs it: as missing.
        if entry.path().is_file()
            && let Ok(source) = FileSource::open(&entry.path())
        {
            files.push((entry.file_name().to_string_lossy().into_owned(), source));
        }
    }
    Ok(files)
}

/// A model's files, opened.
pub(crate) struct FilesOnDisk {
    onnx: FileSource,
    external: Vec<(String, FileSource)>,
}

impl FilesOnDisk {
    /// The ONNX file, and those after it as its external data.
    pub(crate) fn of_model(source: &ModelSource) -> Result<FilesOnDisk> {
        let (onnx, external) = source.files.split_first().context("the model has no file")?;
        let external = external.iter().map(|file| Ok((file.name.clone(), FileSource::open(&file.path)?)));
        Ok(FilesOnDisk { onnx: FileSource::open(&onnx.path)?, external: external.collect::<Result<_>>()? })
    }
}

impl ModelFiles for FilesOnDisk {
    fn onnx(&self) -> &dyn ByteSource {
        &self.onnx
    }

    fn external(&self, location: &str) -> Option<&dyn ByteSource> {
        let (_, source) = self.external.iter().find(|(name, _)| name == location)?;
        Some(source)
    }
}

/// A file, read where it is asked for.
struct FileSource {
    file: Mutex<File>,
    len: u64,
}

impl FileSource {
    fn open(path: &Path) -> Result<Self> {
        let open = || {
            let file = File::open(path)?;
            let len = file.metadata()?.len();
            std::io::Result::Ok(Self { file: Mutex::new(file), len })
        };
        open().with_context(|| path.display().to_string())
    }
}

impl ByteSource for FileSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let length = buffer.len() as u64;
        let refuse = |reason: String| ReadError { offset, length, available: self.len, reason };
        if offset.checked_add(length).is_none_or(|end| end > self.len) {
            return Err(refuse("the range ends beyond the file".to_string()));
        }
        let mut file = self.file.lock().map_err(|_| refuse("an earlier read panicked".to_string()))?;
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(buffer))
            .map_err(|error| refuse(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_in_place_and_never_beyond_its_end() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("bytes");
        std::fs::write(&path, b"0123456789")?;
        let source = FileSource::open(&path)?;
        let mut buffer = [0; 4];
        source.read_at(6, &mut buffer)?;
        assert_eq!((&buffer, source.len()), (b"6789", 10));
        source.read_at(0, &mut buffer)?;
        assert_eq!(&buffer, b"0123");
        assert!(source.read_at(7, &mut buffer).is_err_and(|e| e.available == 10));
        assert!(source.read_at(u64::MAX, &mut buffer).is_err());
        Ok(())
    }

    #[test]
    fn external_files_are_found_beside_the_model() -> Result<()> {
        let dir = tempfile::tempdir()?;
        std::fs::write(dir.path().join("model.onnx"), b"onnx")?;
        std::fs::write(dir.path().join("weights.bin"), b"12345")?;
        let files = FilesOnDisk {
            onnx: FileSource::open(&dir.path().join("model.onnx"))?,
            external: external_files(dir.path())?,
        };
        assert_eq!(files.external("weights.bin").map(ByteSource::len), Some(5));
        assert!(files.external("other.bin").is_none());
        assert_eq!(files.onnx().len(), 4);
        Ok(())
    }
}
