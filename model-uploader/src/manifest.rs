//! What a model is, as people write it in TOML, and the canister's [`Manifest`] with every hash.

use anyhow::{Context, Result, bail, ensure};
use onnx_canister_interface::{
    CHUNK_BYTES_MAX, ChannelOrder, FileManifest, Layout, Manifest, Preprocessing, Resize, Task, WeightForm,
};
use serde::Deserialize;
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Everything that an upload needs: files on disk and what the canister is to know about them.
#[derive(Clone, Debug)]
pub struct ModelSource {
    pub name: String,
    /// The ONNX file first, its external-data files after it.
    pub files: Vec<SourceFile>,
    pub task: Task,
    pub preprocessing: Option<Preprocessing>,
    pub labels: Vec<String>,
    pub description: String,
    pub weights: Option<WeightForm>,
}

/// A file on disk, and the name that it has in the model.
#[derive(Clone, Debug)]
pub struct SourceFile {
    pub name: String,
    pub path: PathBuf,
}

/// How an image becomes the input tensor, as in a recipe's `[manifest.preprocessing]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreprocessingSpec {
    pub height: u32,
    pub width: u32,
    /// `"none"`, `"stretch"` or `{ shorter_side = PIXELS }`.
    pub resize: ResizeSpec,
    pub channel_order: ChannelOrderSpec,
    pub layout: LayoutSpec,
    /// Per channel, on the 0 to 255 scale.
    pub mean: [f32; 3],
    /// Per channel, on the 0 to 255 scale.
    pub std: [f32; 3],
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResizeSpec {
    None,
    Stretch,
    ShorterSide(u32),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelOrderSpec {
    Rgb,
    Bgr,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayoutSpec {
    Nchw,
    Nhwc,
}

impl PreprocessingSpec {
    /// Reads a TOML file that holds these fields, at its top or in a table `[preprocessing]`.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let table: toml::Table = toml::from_str(&text).with_context(|| path.display().to_string())?;
        let value = match table.get("preprocessing") {
            Some(inner) => inner.clone(),
            None => toml::Value::Table(table),
        };
        value.try_into().with_context(|| path.display().to_string())
    }

    pub fn to_interface(&self) -> Result<Preprocessing> {
        ensure!(
            self.std.iter().all(|std| *std != 0.0),
            "preprocessing.std = {:?}: a zero can't be divided by",
            self.std
        );
        Ok(Preprocessing {
            height: self.height,
            width: self.width,
            resize: match self.resize {
                ResizeSpec::None => Resize::None,
                ResizeSpec::Stretch => Resize::Stretch,
                ResizeSpec::ShorterSide(pixels) => Resize::ShorterSide(pixels),
            },
            channel_order: match self.channel_order {
                ChannelOrderSpec::Rgb => ChannelOrder::Rgb,
                ChannelOrderSpec::Bgr => ChannelOrder::Bgr,
            },
            layout: match self.layout {
                LayoutSpec::Nchw => Layout::Nchw,
                LayoutSpec::Nhwc => Layout::Nhwc,
            },
            mean: self.mean.to_vec(),
            std: self.std.to_vec(),
        })
    }
}

/// Reads labels, one a line, the first that of class 0.
pub fn read_labels(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let labels: Vec<String> = text.lines().map(str::to_string).collect();
    match labels.iter().position(String::is_empty) {
        Some(line) => bail!("{}:{}: an empty label", path.display(), line + 1),
        None => Ok(labels),
    }
}

/// Reads all files once and makes the manifest. `on_bytes` is told after each chunk how many bytes were read.
///
/// # Errors
/// When a file can't be read, is empty, or the chunk size is out of range.
pub fn build(source: &ModelSource, chunk_bytes: u32, on_bytes: &(dyn Fn(u64) + Sync)) -> Result<Manifest> {
    ensure!(
        (1..=CHUNK_BYTES_MAX).contains(&chunk_bytes),
        "a chunk of {chunk_bytes} bytes: it must be 1 to {CHUNK_BYTES_MAX}"
    );
    ensure!(!source.files.is_empty(), "a model needs at least one file");
    let files = source
        .files
        .iter()
        .map(|file| hash_file(file, chunk_bytes, on_bytes).with_context(|| file.path.display().to_string()))
        .collect::<Result<Vec<_>>>()?;
    Ok(Manifest {
        name: source.name.clone(),
        files,
        chunk_size: chunk_bytes,
        task: source.task.clone(),
        preprocessing: source.preprocessing.clone(),
        labels: source.labels.clone(),
        description: source.description.clone(),
        weights: source.weights,
    })
}

fn hash_file(file: &SourceFile, chunk_bytes: u32, on_bytes: &(dyn Fn(u64) + Sync)) -> Result<FileManifest> {
    let mut reader = File::open(&file.path)?;
    let mut whole = Sha256::new();
    let mut chunk_sha256 = Vec::new();
    let mut size_bytes = 0u64;
    let mut chunk = Vec::with_capacity(chunk_bytes as usize);
    loop {
        chunk.clear();
        let read = reader.by_ref().take(u64::from(chunk_bytes)).read_to_end(&mut chunk)? as u64;
        if read == 0 {
            break;
        }
        whole.update(&chunk);
        chunk_sha256.push(ByteBuf::from(Sha256::digest(&chunk).to_vec()));
        size_bytes += read;
        on_bytes(read);
    }
    ensure!(size_bytes > 0, "the file is empty");
    Ok(FileManifest {
        name: file.name.clone(),
        size_bytes,
        sha256: ByteBuf::from(whole.finalize().to_vec()),
        chunk_sha256,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    fn source(path: &Path) -> ModelSource {
        ModelSource {
            name: "m".to_string(),
            files: vec![SourceFile { name: "m.onnx".to_string(), path: path.to_path_buf() }],
            task: Task::Infer,
            preprocessing: None,
            labels: Vec::new(),
            description: String::new(),
            weights: None,
        }
    }

    #[test]
    fn a_file_is_cut_into_chunks_and_hashed_whole_and_in_parts() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("m.onnx");
        std::fs::write(&path, b"abcabcab")?;
        let read = AtomicU64::new(0);
        let manifest = build(&source(&path), 3, &|bytes| {
            read.fetch_add(bytes, Ordering::Relaxed);
        })?;
        let file = &manifest.files[0];
        assert_eq!((file.size_bytes, file.chunk_sha256.len(), read.into_inner()), (8, 3, 8));
        // NIST's vector for "abc".
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex::encode(&file.chunk_sha256[0]), abc);
        assert_eq!(file.chunk_sha256[0], file.chunk_sha256[1]);
        assert_eq!(file.chunk_sha256[2].as_ref(), Sha256::digest(b"ab").as_slice());
        assert_eq!(file.sha256.as_ref(), Sha256::digest(b"abcabcab").as_slice());
        Ok(())
    }

    #[test]
    fn empty_files_and_bad_chunk_sizes_are_refused() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("empty");
        std::fs::write(&path, b"")?;
        let message = |chunk| build(&source(&path), chunk, &|_| ()).map_err(|e| format!("{e:#}")).err();
        assert!(message(10).is_some_and(|m| m.contains("empty")));
        assert!(message(0).is_some_and(|m| m.contains("0 bytes")));
        assert!(message(CHUNK_BYTES_MAX + 1).is_some_and(|m| m.contains("1900001")));
        Ok(())
    }

    #[test]
    fn preprocessing_is_read_from_a_table_or_the_top() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let fields = "height = 8\nwidth = 9\nresize = { shorter_side = 10 }\nchannel_order = 'bgr'\nlayout = 'nhwc'\n\
                      mean = [1, 2, 3]\nstd = [4.0, 5.0, 6.0]\n";
        for (name, text) in [("top", fields.to_string()), ("table", format!("[preprocessing]\n{fields}"))] {
            let path = dir.path().join(name);
            std::fs::write(&path, text)?;
            let read = PreprocessingSpec::read(&path)?.to_interface()?;
            assert_eq!((read.height, read.width, &read.resize), (8, 9, &Resize::ShorterSide(10)));
            assert_eq!((read.channel_order, read.layout), (ChannelOrder::Bgr, Layout::Nhwc));
            assert_eq!((read.mean, read.std), (vec![1.0, 2.0, 3.0], vec![4.0, 5.0, 6.0]));
        }
        let path = dir.path().join("zero");
        std::fs::write(&path, fields.replace("5.0", "0.0"))?;
        assert!(PreprocessingSpec::read(&path)?.to_interface().is_err());
        std::fs::write(&path, format!("{fields}color = 1\n"))?;
        assert!(PreprocessingSpec::read(&path).is_err_and(|e| format!("{e:#}").contains("color")));
        Ok(())
    }

    #[test]
    fn labels_are_lines() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("labels.txt");
        std::fs::write(&path, "cat\r\ndog, hound\n")?;
        assert_eq!(read_labels(&path)?, ["cat", "dog, hound"]);
        std::fs::write(&path, "cat\n\ndog\n")?;
        assert!(read_labels(&path).is_err_and(|e| e.to_string().contains(":2:")));
        Ok(())
    }
}
