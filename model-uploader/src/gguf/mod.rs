//! GGUF files, llama.cpp's format for language models, as ONNX and the tokenizer files of Hugging Face's libraries.
//!
//! Llama and Qwen2 architectures (SmolLM is of the former) with tensors of F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K and Q6_K.
//! Weights keep their numbers: blocks of 4 and 8 bits become those of `MatMulNBits`, others stay as they are. The same file
//! gives the same bytes on every machine.
//!
//! ```text
//! reader     metadata, and where tensors are           tokenizer  tokenizer.json and its like
//! metadata   values by key and type                    graph      the ONNX graph and what its weights are made of
//! model      sizes and tensors of an architecture      pack       blocks as weights of MatMulNBits
//! dequantise blocks and the numbers they stand for     onnx       the file, written weight by weight
//! ```

mod dequantise;
mod error;
mod graph;
mod metadata;
mod model;
mod onnx;
mod pack;
mod reader;
mod tokenizer;

pub use error::GgufError;
pub use onnx::EXTERNAL_FILE;

use dequantise::dequantise;
use error::Result;
use graph::{Built, Part, PartKind, Source};
use metadata::Metadata;
use model::{Model, ROPE_FACTORS};
use onnx::{Initializer, Layout, Place};
use pack::{Format, Packed, pack};
use reader::Gguf;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

pub const ONNX_FILE: &str = "model.onnx";
pub const TOKENIZER_FILE: &str = "tokenizer.json";
pub const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";
pub const GENERATION_CONFIG_FILE: &str = "generation_config.json";

/// What an import wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The ONNX file first, then its external data if there is, then the tokenizer's files.
    pub files: Vec<PathBuf>,
    /// Tokens of the vocabulary.
    pub vocabulary: u64,
    /// Most tokens that the model was made for, if the file says so.
    pub context_length: Option<u64>,
}

/// Imports the GGUF file at `path` into the folder `out`, which is made if it is not there. A file appears in its place
/// only when it is whole.
///
/// # Errors
/// [`GgufError`] when the file is malformed or not supported, or a file can't be read or written.
pub fn import(path: &Path, out: &Path) -> Result<Imported> {
    let file = File::open(path).map_err(at(path))?;
    import_from(file, out, onnx::INLINE_BYTES_MAX)
}

/// As [`import`]; weights go into a file of their own if the ONNX file had more than `inline_bytes_max` bytes with them.
pub fn import_from(file: impl Read + Seek, out: &Path, inline_bytes_max: u64) -> Result<Imported> {
    let mut gguf = Gguf::read(file)?;
    let metadata = std::mem::take(&mut gguf.metadata);
    let tensors = std::mem::take(&mut gguf.tensors);
    let metadata = Metadata(&metadata);
    let model = Model::new(metadata, &tensors)?;
    let factors = match model.tensor(ROPE_FACTORS) {
        Some(tensor) => Some(finite(&tensor.name, dequantise(tensor.block_type, &gguf.tensor_bytes(tensor)?))?),
        None => None,
    };
    let config = model.config.clone();
    let tokenizer = tokenizer::files(metadata, config.vocabulary, config.context_length)?;
    let Built { graph, initializers } = graph::build(&model, &config.rope_frequencies(factors.as_deref()))?;

    std::fs::create_dir_all(out).map_err(at(out))?;
    let (heads, sources): (Vec<Initializer>, Vec<Source>) = initializers.into_iter().unzip();
    let layout = Layout::new(graph, heads, inline_bytes_max);
    let onnx = Unfinished::new(out, ONNX_FILE);
    let mut onnx_file = BufWriter::new(onnx.create()?);
    let external = match layout.place {
        Place::Inline => None,
        Place::External => Some(Unfinished::new(out, EXTERNAL_FILE)),
    };
    let mut external_file = match &external {
        Some(external) => Some(BufWriter::new(external.create()?)),
        None => None,
    };
    let mut weights = Weights { gguf: &mut gguf, current: None };
    layout.write(
        &mut onnx_file,
        external_file.as_mut().map(|file| file as &mut dyn Write),
        &mut |index| match &sources[index] {
            Source::Bytes(bytes) => Ok(bytes.clone()),
            Source::Tensor(part) => weights.bytes(part),
        },
    )?;
    let mut files = Vec::new();
    for (unfinished, file) in [(Some(onnx), Some(onnx_file)), (external, external_file)] {
        if let (Some(unfinished), Some(mut file)) = (unfinished, file) {
            file.flush().map_err(at(&unfinished.path))?;
            files.push(unfinished.finish()?);
        }
    }
    for (name, bytes) in [
        (TOKENIZER_FILE, tokenizer.tokenizer),
        (TOKENIZER_CONFIG_FILE, tokenizer.tokenizer_config),
        (GENERATION_CONFIG_FILE, tokenizer.generation_config),
    ] {
        let unfinished = Unfinished::new(out, name);
        std::fs::write(&unfinished.partial, bytes).map_err(at(&unfinished.partial))?;
        files.push(unfinished.finish()?);
    }
    Ok(Imported { files, vocabulary: config.vocabulary, context_length: config.context_length })
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> GgufError {
    let path = path.to_path_buf();
    move |error| GgufError::File { path, error }
}

impl From<std::io::Error> for GgufError {
    fn from(error: std::io::Error) -> Self {
        Self::Write(error)
    }
}

/// A file that has another name until it is whole, and is removed if it never is.
struct Unfinished {
    path: PathBuf,
    partial: PathBuf,
}

impl Unfinished {
    fn new(folder: &Path, name: &str) -> Self {
        Self { path: folder.join(name), partial: folder.join(format!("{name}.partial")) }
    }

    fn create(&self) -> Result<File> {
        File::create(&self.partial).map_err(at(&self.partial))
    }

    fn finish(self) -> Result<PathBuf> {
        std::fs::rename(&self.partial, &self.path).map_err(at(&self.path))?;
        Ok(self.path.clone())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After finish there is none any more.
        let _ = std::fs::remove_file(&self.partial);
    }
}

/// Makes the bytes of initializers. Those of one tensor follow each other, so one is kept.
struct Weights<'a, R> {
    gguf: &'a mut Gguf<R>,
    current: Option<(String, Packed)>,
}

impl<R: Read + Seek> Weights<'_, R> {
    fn bytes(&mut self, part: &Part) -> Result<Vec<u8>> {
        let name = &part.tensor.name;
        if let PartKind::Floats | PartKind::Halves = part.kind {
            let bytes = self.stored(part)?;
            let numbers = finite(name, dequantise(part.tensor.block_type, &bytes))?;
            return Ok(match part.kind {
                PartKind::Halves => bytes,
                _ => little_endian(&numbers),
            });
        }
        let packed = match self.current.take().filter(|(current, _)| current == name) {
            Some((_, packed)) => packed,
            None => {
                let Some(format) = Format::of(part.tensor.block_type) else {
                    return Err(GgufError::MissingTensor(name.clone()));
                };
                pack(name, part.tensor.block_type, format, &self.stored(part)?)?
            }
        };
        let bytes = match part.kind {
            PartKind::Quants => packed.quants.clone(),
            PartKind::Scales => little_endian(&packed.scales),
            _ => little_endian(&packed.zero_points),
        };
        self.current = Some((name.clone(), packed));
        Ok(bytes)
    }

    /// The tensor's bytes, its rows in Hugging Face's order.
    fn stored(&mut self, part: &Part) -> Result<Vec<u8>> {
        let bytes = self.gguf.tensor_bytes(&part.tensor)?;
        let Some(heads) = part.interleaved_heads else { return Ok(bytes) };
        let rows = part.tensor.dims.last().copied().unwrap_or(1);
        Ok(halves_apart(&bytes, rows as usize, heads as usize))
    }
}

/// Rows of each head from `pair 0 first, pair 0 second, pair 1 first..` to all first ones, then all second ones.
fn halves_apart(bytes: &[u8], rows: usize, heads: usize) -> Vec<u8> {
    let (row_bytes, pairs) = (bytes.len() / rows, rows / heads / 2);
    let mut ordered = Vec::with_capacity(bytes.len());
    for head in bytes.chunks_exact(2 * pairs * row_bytes) {
        for half in 0..2 {
            for pair in 0..pairs {
                ordered.extend_from_slice(&head[(2 * pair + half) * row_bytes..][..row_bytes]);
            }
        }
    }
    ordered
}

fn finite(tensor: &str, numbers: Vec<f32>) -> Result<Vec<f32>> {
    match numbers.iter().position(|number| !number.is_finite()) {
        Some(block) => Err(GgufError::NotFinite { tensor: tensor.to_string(), block }),
        None => Ok(numbers),
    }
}

fn little_endian(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}
