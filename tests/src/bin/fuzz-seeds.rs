//! `cargo xtask fuzz-seeds [FOLDER...]`: files for the fuzzers of `fuzz/` to begin with, made of what the tests use, and of
//! the ONNX files and images in the folders.

use anyhow::{Context, Result};
use candid::Encode;
use end_to_end_tests::models::{MLP, manifest, mlp};
use end_to_end_tests::onnx::{Mlp, constant_of_computed_shape};
use onnx_canister_interface::{ChannelOrder, Layout, Manifest, Preprocessing, Resize, Task};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// A fuzzer changes larger files so slowly that they hold it up.
const SEED_BYTES_MAX: u64 = 150_000;

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn main() -> Result<()> {
    let mut folders = vec![Path::new(REPOSITORY).join("models")];
    folders.extend(std::env::args_os().skip(1).map(PathBuf::from));
    let mut files = Vec::new();
    for folder in &folders {
        collect(folder, &mut files)?;
    }
    for path in files {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("onnx") => write("onnx_reader", &onnx_seed(&std::fs::read(path)?, &[]))?,
            Some("png" | "jpg" | "jpeg") => write("image", &std::fs::read(path)?)?,
            _ => {}
        }
    }
    write("onnx_reader", &onnx_seed(&MLP.file(), &[]))?;
    write("onnx_reader", &onnx_seed(&constant_of_computed_shape(&[4, 5]), &[]))?;
    let (onnx, external) = Mlp { width: 48, layers: 2 }.file_with_external_data("weights.bin");
    write("onnx_reader", &onnx_seed(&onnx, &external))?;
    for manifest in manifests() {
        write("manifest", &Encode!(&manifest)?)?;
    }
    // Every call once, on both models; and changes of every page.
    write(
        "chunks",
        &(0..240_u8).flat_map(|call| [call % 8, call / 8 % 2, call / 16 % 3, call / 48]).collect::<Vec<_>>(),
    )?;
    write(
        "stored_bytes",
        &(0..64_u8).flat_map(|page| [page | 0x40, page.wrapping_mul(37), 0, page]).collect::<Vec<_>>(),
    )
}

/// Files of a folder and all below it that are not too large.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let metadata = path.metadata()?;
        if metadata.is_dir() {
            collect(&path, files)?;
        } else if metadata.len() <= SEED_BYTES_MAX {
            files.push(path);
        }
    }
    Ok(())
}

/// What the target `onnx_reader` takes: the share of the external data, in 65,536ths, before the ONNX file and them.
fn onnx_seed(onnx: &[u8], external: &[u8]) -> Vec<u8> {
    let mut data = [onnx, external].concat();
    // Rounded down, the share is of the right length once the external data have grown by a few bytes.
    let mut external_bytes = external.len();
    let share = loop {
        let share = (external_bytes << 16).div_ceil(data.len());
        if (data.len() * share) >> 16 == external_bytes {
            break share;
        }
        data.push(0);
        external_bytes += 1;
    };
    [&(share as u16).to_le_bytes()[..], &data].concat()
}

fn manifests() -> Vec<Manifest> {
    let classify = Manifest {
        task: Task::Classify { softmax: true },
        preprocessing: Some(Preprocessing {
            height: 224,
            width: 224,
            resize: Resize::ShorterSide(256),
            channel_order: ChannelOrder::Bgr,
            layout: Layout::Nhwc,
            mean: vec![127.0, 126.5, 1.0],
            std: vec![128.0; 3],
        }),
        labels: vec!["cat".to_string(), "d\u{f6}g".to_string()],
        ..mlp("classifier").manifest
    };
    vec![manifest("empty", 1), mlp("m.l_p-1").manifest, classify]
}

/// Writes a seed under the name that its content gives it, as a fuzzer does.
fn write(target: &str, seed: &[u8]) -> Result<()> {
    let folder = Path::new(REPOSITORY).join("fuzz/corpus").join(target);
    std::fs::create_dir_all(&folder)?;
    let path = folder.join(hex::encode(&Sha256::digest(seed)[..20]));
    std::fs::write(&path, seed).with_context(|| path.display().to_string())
}
