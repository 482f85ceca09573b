//! The program's import, by itself and in a recipe that pip serves from a folder.

use super::tokenizers::tiny;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::process::{Command, Output};

fn run(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_model-uploader"))
        .args(arguments)
        .current_dir(folder)
        .env("ONNX_CANISTER_CACHE", folder.join("cache"))
        .env("PIP_NO_INDEX", "1")
        .env("PIP_FIND_LINKS", folder)
        .output()
        .unwrap()
}

/// Makes a wheel with the file `model.gguf` of this folder.
const MAKE_WHEEL: &str = "
import zipfile
with zipfile.ZipFile('tiny_model-1.0-py3-none-any.whl', 'w') as wheel:
    wheel.write('model.gguf', 'tiny_model/model.gguf')
    for name, text in [
        ('METADATA', 'Metadata-Version: 2.1\\nName: tiny-model\\nVersion: 1.0\\n'),
        ('WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n'),
        ('RECORD', ''),
    ]:
        wheel.writestr('tiny_model-1.0.dist-info/' + name, text)
";

/// Size and hash of a file as a recipe has them.
fn pinned(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap();
    format!("size_bytes = {}\nsha256 = \"{}\"\n", bytes.len(), hex::encode(Sha256::digest(&bytes)))
}

#[test]
fn import_writes_files_and_a_recipe_gets_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("model.gguf"), tiny().bytes()).unwrap();
    let output = run(&["import", "model.gguf", "--out", "out"], folder);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = ["model.onnx", "tokenizer.json", "tokenizer_config.json", "generation_config.json"];
    let written: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(String::from).collect();
    assert_eq!(written, names.map(|name| Path::new("out").join(name).display().to_string()));

    assert!(Command::new("python3").args(["-c", MAKE_WHEEL]).current_dir(folder).status().unwrap().success());
    let recipe = folder.join("models/tiny");
    std::fs::create_dir_all(&recipe).unwrap();
    let wheel = "tiny_model-1.0-py3-none-any.whl";
    let mut text = format!(
        "name = \"tiny\"\ndescription = \"d\"\nlicence = \"l\"\n\
         [[source]]\nregistry = \"pypi\"\npackage = \"tiny-model\"\nversion = \"1.0\"\nartefact = \"{wheel}\"\n\
         licence = \"l\"\n{}\
         [[source.file]]\nid = \"weights\"\npath = \"tiny_model/model.gguf\"\n{}\
         [convert]\nimport = \"gguf\"\n",
        pinned(&folder.join(wheel)),
        pinned(&folder.join("model.gguf")),
    );
    for name in names {
        text += &format!("[[output]]\nname = \"{name}\"\n{}", pinned(&folder.join("out").join(name)));
    }
    text += "[manifest]\nfiles = [\"model.onnx\"]\ntask = \"infer\"\n";
    std::fs::write(recipe.join("recipe.toml"), text).unwrap();
    let output = run(&["fetch", "tiny"], folder);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8(output.stdout).unwrap();
    for (line, name) in stdout.lines().zip(names) {
        assert_eq!(std::fs::read(line).unwrap(), std::fs::read(folder.join("out").join(name)).unwrap(), "{name}");
    }
    assert_eq!(stdout.lines().count(), names.len());
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.gguf"), "no model").unwrap();
    let output = run(&["import", "model.gguf", "--out", "out"], folder.path());
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("model.gguf: it is no GGUF file"), "{said}");
}
