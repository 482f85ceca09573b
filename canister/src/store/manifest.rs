//! What a manifest must be before a byte is reserved for it.

use crate::language::TEXT_FILES;
use crate::limits::*;
use onnx_canister_interface::{CHUNK_BYTES_MAX, Error, FileManifest, Manifest, Preprocessing, Resize, Task};
use std::collections::BTreeSet;

/// Bytes of a SHA-256.
pub const SHA256_BYTES: usize = 32;

/// Says that the argument at `place` is out of its range.
pub fn invalid(place: impl Into<String>, value: impl ToString, reason: impl Into<String>) -> Error {
    Error::InvalidArgument { place: place.into(), value: value.to_string(), reason: reason.into() }
}

/// Chunks of a file.
pub fn chunks(size_bytes: u64, chunk_size: u32) -> u64 {
    size_bytes.div_ceil(u64::from(chunk_size))
}

/// Bytes of chunk `index` of a file: `chunk_size`, or what is left for the last.
pub fn chunk_bytes(size_bytes: u64, chunk_size: u32, index: u32) -> u64 {
    let start = u64::from(index) * u64::from(chunk_size);
    size_bytes.saturating_sub(start).min(u64::from(chunk_size))
}

/// Checks a model's name: 1 to 64 characters of `a-z 0-9 . _ -`.
pub fn check_name(place: &str, name: &str) -> Result<(), Error> {
    let shown: String = name.chars().take(NAME_CHARS_MAX).flat_map(char::escape_default).collect();
    if name.is_empty() || name.len() > NAME_CHARS_MAX {
        return Err(invalid(place, shown, format!("a name has 1 to {NAME_CHARS_MAX} characters")));
    }
    match name.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-')) {
        Some(c) => Err(invalid(place, shown, format!("character {c:?} is not one of a-z 0-9 . _ -"))),
        None => Ok(()),
    }
}

/// Checks what files and staged inputs are called: 1 to `bytes_max` printable characters of ASCII, no space at either
/// end. What looks equal is equal then: no letter has two forms, none is invisible, and none turns the text around it.
pub fn check_identifier(place: &str, text: &str, bytes_max: usize) -> Result<(), Error> {
    let shown = || text.chars().take(64).flat_map(char::escape_default).collect::<String>();
    if text.is_empty() || text.len() > bytes_max {
        return Err(invalid(place, shown(), format!("it has 1 to {bytes_max} characters")));
    }
    if let Some(c) = text.chars().find(|c| !matches!(c, ' '..='~')) {
        return Err(invalid(place, shown(), format!("character {c:?} is not a printable one of ASCII")));
    }
    match text.starts_with(' ') || text.ends_with(' ') {
        true => Err(invalid(place, shown(), "it begins or ends with a space")),
        false => Ok(()),
    }
}

/// Checks text for people, in any language: no control character but line ends and tabs, and none of those that turn the
/// direction of the text around them (Unicode Standard Annex 9, section 2), by which text can look like other text.
pub fn check_text(place: &str, text: &str) -> Result<(), Error> {
    let is_direction =
        |c: char| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    match text.chars().find(|c| is_direction(*c) || c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        Some(c) => {
            let shown: String = text.chars().take(64).flat_map(char::escape_default).collect();
            Err(invalid(place, shown, format!("character {c:?} controls how the text is shown")))
        }
        None => Ok(()),
    }
}

/// Checks everything that can be checked without the files.
pub fn check(manifest: &Manifest) -> Result<(), Error> {
    check_name("manifest.name", &manifest.name)?;
    if manifest.chunk_size == 0 || manifest.chunk_size > CHUNK_BYTES_MAX {
        let reason = format!("a chunk has 1 to {CHUNK_BYTES_MAX} bytes");
        return Err(invalid("manifest.chunk_size", manifest.chunk_size, reason));
    }
    if manifest.files.is_empty() || manifest.files.len() > FILES_MAX {
        return Err(invalid("manifest.files", manifest.files.len(), format!("a model has 1 to {FILES_MAX} files")));
    }
    let mut names = BTreeSet::new();
    let (mut bytes_total, mut chunks_total) = (0_u64, 0_u64);
    for (index, file) in manifest.files.iter().enumerate() {
        check_file(index, file, manifest.chunk_size)?;
        if !names.insert(file.name.as_str()) {
            return Err(invalid(format!("manifest.files[{index}].name"), &file.name, "two files have this name"));
        }
        bytes_total = bytes_total.saturating_add(file.size_bytes);
        chunks_total += file.chunk_sha256.len() as u64;
    }
    if bytes_total > MODEL_BYTES_MAX {
        return Err(invalid("manifest.files", bytes_total, format!("a model has at most {MODEL_BYTES_MAX} bytes")));
    }
    if chunks_total > CHUNKS_MAX {
        return Err(invalid("manifest.files", chunks_total, format!("a model has at most {CHUNKS_MAX} chunks")));
    }
    check_labels(&manifest.labels)?;
    if manifest.description.len() > DESCRIPTION_BYTES_MAX {
        let reason = format!("a description has at most {DESCRIPTION_BYTES_MAX} bytes");
        return Err(invalid("manifest.description", format!("{} bytes", manifest.description.len()), reason));
    }
    check_text("manifest.description", &manifest.description)?;
    match (&manifest.preprocessing, &manifest.task) {
        (Some(preprocessing), Task::Classify { .. }) => check_preprocessing(preprocessing),
        (Some(_), _) => {
            Err(invalid("manifest.preprocessing", "present", "only a model whose task is classify takes images"))
        }
        (None, Task::Generate { context_length }) => check_language(manifest, *context_length),
        (None, _) => Ok(()),
    }
}

fn check_file(index: usize, file: &FileManifest, chunk_size: u32) -> Result<(), Error> {
    let place = |field: &str| format!("manifest.files[{index}].{field}");
    check_identifier(&place("name"), &file.name, FILE_NAME_BYTES_MAX)?;
    if file.size_bytes == 0 || file.size_bytes > MODEL_BYTES_MAX {
        let reason = format!("a file has 1 to {MODEL_BYTES_MAX} bytes");
        return Err(invalid(place("size_bytes"), file.size_bytes, reason));
    }
    if file.sha256.len() != SHA256_BYTES {
        let reason = format!("a SHA-256 has {SHA256_BYTES} bytes");
        return Err(invalid(place("sha256"), format!("{} bytes", file.sha256.len()), reason));
    }
    let expected = chunks(file.size_bytes, chunk_size);
    if file.chunk_sha256.len() as u64 != expected {
        let reason = format!("{} bytes in chunks of {chunk_size} make {expected} hashes", file.size_bytes);
        return Err(invalid(place("chunk_sha256"), format!("{} hashes", file.chunk_sha256.len()), reason));
    }
    if let Some((chunk, hash)) = file.chunk_sha256.iter().enumerate().find(|(_, hash)| hash.len() != SHA256_BYTES) {
        let reason = format!("a SHA-256 has {SHA256_BYTES} bytes");
        return Err(invalid(place(&format!("chunk_sha256[{chunk}]")), format!("{} bytes", hash.len()), reason));
    }
    Ok(())
}

/// Checks what a language model has beside its graph.
fn check_language(manifest: &Manifest, context_length: u32) -> Result<(), Error> {
    if context_length == 0 || context_length > CONTEXT_LENGTH_MAX {
        let reason = format!("a context has 1 to {CONTEXT_LENGTH_MAX} tokens");
        return Err(invalid("manifest.task.generate.context_length", context_length, reason));
    }
    let is_text = |file: &FileManifest| TEXT_FILES.contains(&file.name.as_str());
    let too_large = |file: &FileManifest| is_text(file) && file.size_bytes > TEXT_FILE_BYTES_MAX;
    match manifest.files.iter().position(too_large) {
        Some(index) => {
            let file = &manifest.files[index];
            let reason = format!("{} has at most {TEXT_FILE_BYTES_MAX} bytes", file.name);
            Err(invalid(format!("manifest.files[{index}].size_bytes"), file.size_bytes, reason))
        }
        None => Ok(()),
    }
}

fn check_labels(labels: &[String]) -> Result<(), Error> {
    if labels.len() > LABELS_MAX {
        return Err(invalid("manifest.labels", labels.len(), format!("a model has at most {LABELS_MAX} labels")));
    }
    let bytes: usize = labels.iter().map(String::len).sum();
    if bytes > LABELS_BYTES_MAX {
        let reason = format!("all labels together have at most {LABELS_BYTES_MAX} bytes");
        return Err(invalid("manifest.labels", format!("{bytes} bytes"), reason));
    }
    for (index, label) in labels.iter().enumerate() {
        check_text(&format!("manifest.labels[{index}]"), label)?;
    }
    Ok(())
}

fn check_preprocessing(preprocessing: &Preprocessing) -> Result<(), Error> {
    let side = |name: &str, value: u32| {
        if value == 0 || value > IMAGE_SIDE_MAX {
            let reason = format!("a side has 1 to {IMAGE_SIDE_MAX} pixels");
            return Err(invalid(format!("manifest.preprocessing.{name}"), value, reason));
        }
        Ok(())
    };
    side("height", preprocessing.height)?;
    side("width", preprocessing.width)?;
    if let Resize::ShorterSide(shorter_side) = preprocessing.resize {
        side("resize.shorter_side", shorter_side)?;
        if shorter_side < preprocessing.height.max(preprocessing.width) {
            let reason = "the crop does not fit an image of this shorter side";
            return Err(invalid("manifest.preprocessing.resize.shorter_side", shorter_side, reason));
        }
    }
    channels("mean", &preprocessing.mean, |value| value.is_finite())?;
    channels("std", &preprocessing.std, |value| value.is_finite() && value > 0.0)?;
    Ok(())
}

/// The three numbers of `mean` or `std`.
pub fn channels(name: &str, values: &[f32], allowed: impl Fn(f32) -> bool) -> Result<[f32; 3], Error> {
    let place = format!("manifest.preprocessing.{name}");
    let Ok(channels) = <[f32; 3]>::try_from(values) else {
        return Err(invalid(place, format!("{} values", values.len()), "there are three channels"));
    };
    match channels.iter().position(|value| !allowed(*value)) {
        Some(index) => {
            let reason = "a mean is finite, and a standard deviation also above 0";
            Err(invalid(format!("{place}[{index}]"), channels[index], reason))
        }
        None => Ok(channels),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use onnx_canister_interface::{ChannelOrder, Layout};
    use serde_bytes::ByteBuf;

    /// Asserts that `change` makes a good manifest bad at `place`.
    fn refused(place: &str, change: impl FnOnce(&mut Manifest)) {
        let mut manifest = testing::manifest("a", &[("a.onnx", &[1, 2, 3, 4, 5])], 2);
        assert_eq!(check(&manifest), Ok(()));
        change(&mut manifest);
        match check(&manifest) {
            Err(Error::InvalidArgument { place: got, .. }) => assert_eq!(got, place),
            other => panic!("{place}: {other:?}"),
        }
    }

    /// Names that look like others, or like nothing, or turn what is shown around.
    const HOSTILE_NAMES: [&str; 14] = [
        "model\0",
        "model\n",
        "mod\u{1b}[31mel",
        "mod\u{7f}el",
        "\u{202e}ledom",
        "mo\u{200b}del",
        "mo\u{ad}del",
        "\u{feff}model",
        // Cyrillic o; full-width m; e with an accent in one character, and in two.
        "m\u{43e}del",
        "\u{ff4d}odel",
        "mod\u{e9}l",
        "mode\u{301}l",
        " model",
        "model ",
    ];

    #[test]
    fn what_is_refused_is_shown_in_characters_that_can_be_read() {
        match check_name("name", "m\u{202e}\u{43e}") {
            Err(Error::InvalidArgument { value, .. }) => assert_eq!(value, "m\\u{202e}\\u{43e}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(check_text("t", "cat, Katze, \u{732b}, \u{642}\u{637}, \u{1f431}\nnext\tline"), Ok(()));
        assert_eq!(check_identifier("f", "onnx/model weights_0.bin", 100), Ok(()));
    }

    fn preprocessing() -> Preprocessing {
        Preprocessing {
            height: 4,
            width: 4,
            resize: Resize::None,
            channel_order: ChannelOrder::Rgb,
            layout: Layout::Nchw,
            mean: vec![0.0; 3],
            std: vec![1.0; 3],
        }
    }

    #[test]
    fn every_field_out_of_its_range_is_named() {
        refused("manifest.name", |m| m.name = String::new());
        refused("manifest.name", |m| m.name = "x".repeat(65));
        refused("manifest.name", |m| m.name = "Upper".into());
        refused("manifest.chunk_size", |m| m.chunk_size = 0);
        refused("manifest.chunk_size", |m| m.chunk_size = CHUNK_BYTES_MAX + 1);
        refused("manifest.files", |m| m.files.clear());
        refused("manifest.files", |m| m.files = vec![m.files[0].clone(); FILES_MAX + 1]);
        refused("manifest.files[1].name", |m| m.files.push(m.files[0].clone()));
        refused("manifest.files[0].name", |m| m.files[0].name = String::new());
        refused("manifest.files[0].size_bytes", |m| m.files[0].size_bytes = 0);
        refused("manifest.files[0].size_bytes", |m| m.files[0].size_bytes = u64::MAX);
        refused("manifest.files[0].sha256", |m| m.files[0].sha256 = ByteBuf::from(vec![0; 31]));
        refused("manifest.files[0].chunk_sha256", |m| m.files[0].chunk_sha256.truncate(1));
        refused("manifest.files[0].chunk_sha256[1]", |m| m.files[0].chunk_sha256[1] = ByteBuf::new());
        for name in HOSTILE_NAMES {
            refused("manifest.name", |m| m.name = name.to_string());
            refused("manifest.files[0].name", |m| m.files[0].name = name.to_string());
        }
        for text in ["bell\u{7}", "nul\0", "\u{202e}txt.exe", "\u{2066}hidden\u{2069}", "c1 \u{9b}31m"] {
            refused("manifest.labels[1]", |m| m.labels = vec!["good".into(), text.into()]);
            refused("manifest.description", |m| m.description = text.into());
        }
        refused("manifest.labels", |m| m.labels = vec![String::new(); LABELS_MAX + 1]);
        refused("manifest.labels", |m| m.labels = vec!["x".repeat(LABELS_BYTES_MAX + 1)]);
        refused("manifest.description", |m| m.description = "x".repeat(DESCRIPTION_BYTES_MAX + 1));
    }

    #[test]
    fn preprocessing_out_of_its_range_is_named() {
        let with = |change: fn(&mut Preprocessing)| {
            move |m: &mut Manifest| {
                let mut p = preprocessing();
                change(&mut p);
                m.task = Task::Classify { softmax: true };
                m.preprocessing = Some(p);
            }
        };
        refused("manifest.preprocessing", |m| m.preprocessing = Some(preprocessing()));
        refused("manifest.preprocessing.height", with(|p| p.height = 0));
        refused("manifest.preprocessing.width", with(|p| p.width = IMAGE_SIDE_MAX + 1));
        refused("manifest.preprocessing.resize.shorter_side", with(|p| p.resize = Resize::ShorterSide(3)));
        refused("manifest.preprocessing.mean", with(|p| p.mean.truncate(1)));
        refused("manifest.preprocessing.mean[2]", with(|p| p.mean[2] = f32::NAN));
        refused("manifest.preprocessing.std[1]", with(|p| p.std[1] = 0.0));
    }

    #[test]
    fn the_last_chunk_is_what_is_left() {
        assert_eq!(chunks(5, 2), 3);
        assert_eq!([0, 1, 2, 3].map(|index| chunk_bytes(5, 2, index)), [2, 2, 1, 0]);
        assert_eq!([0, 1, 2].map(|index| chunk_bytes(4, 2, index)), [2, 2, 0]);
    }
}
