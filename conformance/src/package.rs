//! The cases of the `onnx` package of PyPI.

use crate::proto::{Model, TensorProto};
use anyhow::{Context, Result};
use model_uploader::recipe::{Cache, Registry, Source, Step, fetch_artefact};
use prost::Message;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use zip::ZipArchive;

/// The newest release whose wheels hold the node cases; later ones make them with scripts.
const VERSION: &str = "1.22.0";
const WHEEL: &str = "onnx-1.22.0-cp312-abi3-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl";
const WHEEL_BYTES: u64 = 19_106_514;
const WHEEL_SHA256: &str = "955e02e1f6d385b53d52f9cd7b9cdf5caf417c300bcfe3c64c6d542be763845b";

/// The folder of the cases in the wheel.
const FOLDER: &str = "onnx/backend/test/data/node/";

/// Tolerances that the package's own runner uses where a case's `data.json` says nothing else.
const RELATIVE_TOLERANCE: f64 = 1e-3;
const ABSOLUTE_TOLERANCE: f64 = 1e-7;

/// Operator sets of the cases that are asked for.
const OPSET_MIN: i64 = 7;

/// One case of the package.
pub struct Case {
    pub name: String,
    /// The ONNX file's bytes.
    pub onnx: Vec<u8>,
    pub model: Model,
    /// Inputs and expected outputs of each data set, in the order in which the model declares them.
    pub data_sets: Vec<(Vec<TensorProto>, Vec<TensorProto>)>,
    pub relative_tolerance: f64,
    pub absolute_tolerance: f64,
}

/// Fetches the package's wheel into the cache, if it is not there, and returns its path.
pub fn fetch() -> Result<PathBuf> {
    let source = Source {
        registry: Registry::Pypi,
        package: "onnx".into(),
        version: VERSION.into(),
        artefact: WHEEL.into(),
        size_bytes: WHEEL_BYTES,
        sha256: WHEEL_SHA256.to_string().try_into().map_err(anyhow::Error::msg)?,
        licence: "Apache-2.0".into(),
        files: Vec::new(),
    };
    fetch_artefact(&source, &Cache::of_this_user()?, &mut |step| {
        if let Step::Download { package, version, size_bytes } = step {
            eprintln!("downloading {package} {version}, {size_bytes} bytes");
        }
    })
}

/// The cases whose declared inputs and outputs are all plain tensors of numbers, of operator set [`OPSET_MIN`] or newer,
/// by name, and the number of all cases that the package has.
pub fn read_cases(wheel: PathBuf) -> Result<(Vec<Case>, usize)> {
    let mut archive = ZipArchive::new(File::open(&wheel)?).with_context(|| wheel.display().to_string())?;
    let mut folders: BTreeMap<String, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let Some((case, file)) = entry.name().strip_prefix(FOLDER).and_then(|path| path.split_once('/')) else {
            continue;
        };
        let (case, file) = (case.to_string(), file.to_string());
        if entry.is_file() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            folders.entry(case).or_default().insert(file, bytes);
        }
    }
    let total = folders.len();
    let mut cases = Vec::new();
    for (name, files) in folders {
        if let Some(case) = read_case(&name, files).with_context(|| name.clone())? {
            cases.push(case);
        }
    }
    Ok((cases, total))
}

fn read_case(name: &str, mut files: BTreeMap<String, Vec<u8>>) -> Result<Option<Case>> {
    let onnx = files.remove("model.onnx").context("there is no model.onnx")?;
    let model = Model::decode(onnx.as_slice())?;
    if !model.has_plain_types()? || model.opset().is_some_and(|version| version < OPSET_MIN) {
        return Ok(None);
    }
    let mut data_sets = Vec::new();
    while files.keys().any(|file| file.starts_with(&format!("test_data_set_{}/", data_sets.len()))) {
        let read = |kind: &str| -> Result<Vec<TensorProto>> {
            let file = |index: usize| files.get(&format!("test_data_set_{}/{kind}_{index}.pb", data_sets.len()));
            (0..).map_while(file).map(|bytes| Ok(TensorProto::decode(bytes.as_slice())?)).collect()
        };
        data_sets.push((read("input")?, read("output")?));
    }
    let settings: serde_json::Value = match files.get("data.json") {
        Some(json) => serde_json::from_slice(json)?,
        None => serde_json::Value::Null,
    };
    let tolerance = |key: &str, otherwise: f64| settings.get(key).and_then(|value| value.as_f64()).unwrap_or(otherwise);
    Ok(Some(Case {
        name: name.to_string(),
        onnx,
        model,
        data_sets,
        relative_tolerance: tolerance("rtol", RELATIVE_TOLERANCE),
        absolute_tolerance: tolerance("atol", ABSOLUTE_TOLERANCE),
    }))
}
