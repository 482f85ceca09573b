//! Recipes are tried on a small package of our own, served to pip from a folder.

use super::fetch::fetch_with;
use super::python::Python;
use super::*;
use sha2::{Digest, Sha256};
use std::fs;
use std::process::Command;

/// Makes a wheel with one data file, as a registry would serve it.
const MAKE_WHEEL: &str = "
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], 'w') as wheel:
    for name, text in [
        ('tiny_model/weights.bin', 'weights ' * 100),
        ('tiny_model-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: tiny-model\\nVersion: 1.0\\n'),
        ('tiny_model-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n'),
        ('tiny_model-1.0.dist-info/RECORD', ''),
    ]:
        wheel.writestr(zipfile.ZipInfo(name), text)
";

const CONVERT: &str = "
import sys
from pathlib import Path
paths = dict(source.split('=', 1) for source in sys.argv[2:])
text = Path(paths['weights']).read_text().upper()
(Path(sys.argv[1]) / 'tiny.onnx').write_text(text)
(Path(sys.argv[1]) / 'labels.txt').write_text('cat\\ndog\\n')
";

struct Fixture {
    dir: tempfile::TempDir,
    recipe: Recipe,
    cache: Cache,
}

fn sha256(bytes: &[u8]) -> Sha256Hex {
    Sha256Hex(hex::encode(Sha256::digest(bytes)))
}

impl Fixture {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let index = dir.path().join("index");
        let folder = dir.path().join("recipes/tiny");
        fs::create_dir_all(&index)?;
        fs::create_dir_all(&folder)?;
        let wheel = index.join("tiny_model-1.0-py3-none-any.whl");
        let made = Command::new("python3").args(["-c", MAKE_WHEEL]).arg(&wheel).status()?;
        ensure!(made.success());
        fs::write(folder.join("convert.py"), CONVERT)?;
        let weights = "weights ".repeat(100);
        let onnx = weights.to_uppercase();
        let toml = format!(
            r#"
name = "tiny"
description = "A tiny model"
licence = "Apache-2.0"
[[source]]
registry = "pypi"
package = "tiny-model"
version = "1.0"
artefact = "tiny_model-1.0-py3-none-any.whl"
size_bytes = {wheel_bytes}
sha256 = "{wheel_sha256}"
licence = "Apache-2.0"
[[source.file]]
id = "weights"
path = "tiny_model/weights.bin"
size_bytes = {weights_bytes}
sha256 = "{weights_sha256}"
[convert]
script = "convert.py"
requirements = []
[[output]]
name = "tiny.onnx"
size_bytes = {weights_bytes}
sha256 = "{onnx_sha256}"
[[output]]
name = "labels.txt"
size_bytes = 8
sha256 = "{labels_sha256}"
[manifest]
files = ["tiny.onnx"]
task = "classify"
softmax = true
labels = "labels.txt"
"#,
            wheel_bytes = fs::metadata(&wheel)?.len(),
            wheel_sha256 = sha256(&fs::read(&wheel)?).as_str(),
            weights_bytes = weights.len(),
            weights_sha256 = sha256(weights.as_bytes()).as_str(),
            onnx_sha256 = sha256(onnx.as_bytes()).as_str(),
            labels_sha256 = sha256(b"cat\ndog\n").as_str(),
        );
        fs::write(folder.join(RECIPE_FILE), toml)?;
        let recipe = Recipe::find(&dir.path().join("recipes"), "tiny")?;
        let cache = Cache::at(dir.path().join("cache"));
        Ok(Self { dir, recipe, cache })
    }

    /// Fetches with pip looking at the folder only, and returns the outputs' folder and the steps taken.
    fn fetch(&self) -> Result<(PathBuf, Vec<Step>)> {
        let index = self.dir.path().join("index");
        let python = || {
            let options = vec!["--no-index".into(), "--find-links".into(), index.clone().into_os_string()];
            Ok(Python::find()?.with_pip_options(options))
        };
        let mut steps = Vec::new();
        let folder = fetch_with(&python, &self.recipe, &self.cache, &mut |step| steps.push(step))?;
        Ok((folder, steps))
    }

    fn fetch_error(&self) -> String {
        self.fetch().err().map(|error| format!("{error:#}")).unwrap_or_default()
    }

    fn is_clean(&self) -> bool {
        fs::read_dir(self.cache.root().join("tmp")).is_ok_and(|mut entries| entries.next().is_none())
    }
}

#[test]
fn a_recipe_is_fetched_converted_and_never_fetched_twice() -> Result<()> {
    let fixture = Fixture::new()?;
    let (folder, steps) = fixture.fetch()?;
    assert_eq!(fs::read_to_string(folder.join("tiny.onnx"))?, "WEIGHTS ".repeat(100));
    assert!(matches!(steps[..], [Step::Download { .. }, Step::Extract { .. }, Step::Convert { .. }]), "{steps:?}");
    assert!(fixture.is_clean());

    // From here on pip would find nothing.
    fs::remove_dir_all(fixture.dir.path().join("index"))?;
    assert_eq!(fixture.fetch()?.1, [Step::Cached]);

    let source = fixture.recipe.model_source(&folder)?;
    assert_eq!(source.labels, ["cat", "dog"]);
    assert_eq!(source.task, Task::Classify { softmax: true });
    assert_eq!(source.files[0].path, folder.join("tiny.onnx"));

    // A damaged output is made again from what is cached, a damaged extract is taken out again.
    fs::write(folder.join("tiny.onnx"), "damaged")?;
    let weights = fixture.cache.file(&fixture.recipe.sources[0].files[0].sha256);
    assert!(matches!(fixture.fetch()?.1[..], [Step::Convert { .. }]));
    fs::write(folder.join("labels.txt"), "damaged!")?;
    fs::write(&weights, "damaged")?;
    assert!(matches!(fixture.fetch()?.1[..], [Step::Extract { .. }, Step::Convert { .. }]));
    assert_eq!(fs::read_to_string(folder.join("labels.txt"))?, "cat\ndog\n");
    assert!(fixture.is_clean());
    Ok(())
}

#[test]
fn a_wrong_hash_anywhere_is_named_and_leaves_nothing_behind() -> Result<()> {
    let mut fixture = Fixture::new()?;
    let good = fixture.recipe.clone();
    let other = sha256(b"other");

    fixture.recipe.sources[0].sha256 = other.clone();
    assert!(fixture.fetch_error().contains("tiny-model 1.0"), "{}", fixture.fetch_error());

    fixture.recipe = good.clone();
    fixture.recipe.sources[0].files[0].sha256 = other.clone();
    let error = fixture.fetch_error();
    assert!(error.contains("weights.bin has sha256") && error.contains(other.as_str()), "{error}");
    assert!(!fixture.cache.file(&other).exists());

    fixture.recipe = good.clone();
    fixture.recipe.outputs[0].sha256 = other.clone();
    assert!(fixture.fetch_error().contains("converted tiny.onnx has sha256"), "{}", fixture.fetch_error());

    fixture.recipe = good.clone();
    fixture.recipe.outputs[1].size_bytes = 9;
    assert!(fixture.fetch_error().contains("labels.txt has 8 bytes, the recipe says 9"));
    assert!(fixture.is_clean());

    fixture.recipe = good;
    assert!(matches!(fixture.fetch()?.1[..], [Step::Convert { .. }]), "good sources were kept");
    Ok(())
}

#[test]
fn a_failing_conversion_says_what_it_said() -> Result<()> {
    let fixture = Fixture::new()?;
    fs::write(fixture.recipe.folder.join("convert.py"), "raise SystemExit('no such layer')")?;
    assert!(fixture.fetch_error().contains("no such layer"));
    assert!(fixture.is_clean());
    Ok(())
}

#[test]
fn mistakes_in_a_recipe_are_named() -> Result<()> {
    let fixture = Fixture::new()?;
    let path = fixture.recipe.folder.join(RECIPE_FILE);
    let text = fs::read_to_string(&path)?;
    let error_of = |from: &str, to: &str| -> Result<String> {
        ensure!(text.contains(from), "{from}");
        fs::write(&path, text.replacen(from, to, 1))?;
        Ok(Recipe::read(&fixture.recipe.folder).err().map(|error| format!("{error:#}")).unwrap_or_default())
    };
    assert!(error_of("name = \"tiny\"", "name = \"other\"")?.contains("other"));
    assert!(error_of("files = [\"tiny.onnx\"]", "files = [\"big.onnx\"]")?.contains("big.onnx"));
    assert!(error_of("softmax = true", "")?.contains("softmax"));
    assert!(error_of("name = \"labels.txt\"", "name = \"../labels.txt\"")?.contains("../labels.txt"));
    assert!(error_of("licence = \"Apache-2.0\"\n[[source]]", "[[source]]")?.contains("licence"));
    assert!(error_of("id = \"weights\"", "id = \"weights\"\ncolour = 1")?.contains("colour"));
    assert!(error_of("sha256 = \"", "sha256 = \"XX")?.contains("XX"));
    assert!(error_of("script = \"convert.py\"\n", "")?.contains("either script or import"));
    assert!(error_of("script = ", "import = \"gguf\"\nscript = ")?.contains("either script or import"));
    assert!(error_of("script = \"convert.py\"", "import = \"gguf\"")?.contains("no requirements"));
    assert!(error_of("requirements = []", "")?.contains("requirements"));
    assert!(error_of("script = \"convert.py\"\nrequirements = []", "import = \"pickle\"")?.contains("pickle"));
    assert!(error_of("script = \"convert.py\"\nrequirements = []", "import = \"gguf\"")?.is_empty());
    assert!(error_of("description", "description")?.is_empty());
    Ok(())
}

#[test]
fn recipes_are_found_from_below_and_by_name() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let inner = dir.path().join("a/b");
    fs::create_dir_all(&inner)?;
    fs::create_dir_all(dir.path().join("models/one"))?;
    assert!(find_recipes(&inner).is_err());
    fs::write(dir.path().join("models/one").join(RECIPE_FILE), "")?;
    assert_eq!(find_recipes(&inner)?, dir.path().join("models"));
    let error = Recipe::find(&dir.path().join("models"), "two").err().map(|e| e.to_string()).unwrap_or_default();
    assert!(error.contains("'two'") && error.ends_with("one"), "{error}");
    Ok(())
}

/// The project's own recipes can be read.
#[test]
fn the_projects_recipes_are_well_formed() -> Result<()> {
    let recipes = find_recipes(Path::new(env!("CARGO_MANIFEST_DIR")))?;
    let names = names(&recipes)?;
    assert!(names.iter().any(|name| name == "efficientnet-lite0") && names.iter().any(|name| name == "magika"));
    for name in names {
        let recipe = Recipe::find(&recipes, &name)?;
        if let Convert::Script { script, .. } = &recipe.convert {
            assert!(recipe.folder.join(script).is_file(), "{name}");
        }
    }
    Ok(())
}
