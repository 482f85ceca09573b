//! External data: tensors whose bytes are in another file (ONNX `external_data`).

use super::wire::Range;
use crate::{EngineError, ModelFiles};

/// Longest key or value of an `external_data` entry, in bytes.
pub(super) const EXTERNAL_TEXT_BYTES_MAX: u64 = 1024;

/// Where a tensor's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExternalRange {
    pub location: String,
    pub range: Range,
}

/// Checks the `external_data` entries of the tensor `place`, whose shape needs `expected_bytes`.
///
/// `location` is a name to look up among the model's files, never a path to follow; what looks like a way out of the
/// model's directory is refused all the same. Without `length` the data reach to the file's end, as the standard says.
pub(super) fn locate(
    place: &str,
    entries: &[(String, String)],
    expected_bytes: u64,
    files: &dyn ModelFiles,
) -> Result<ExternalRange, EngineError> {
    let mut found: [Option<&str>; 3] = [None; 3];
    for (key, value) in entries {
        let slot = match key.as_str() {
            "location" => 0,
            "offset" => 1,
            "length" => 2,
            // `checksum` and keys of other tools; the whole file's hash has been checked before.
            _ => continue,
        };
        if found[slot].replace(value).is_some() {
            return Err(EngineError::invalid(place, format!("external_data has two values of {key:?}")));
        }
    }
    let location =
        found[0].ok_or_else(|| EngineError::invalid(place, "external_data has no location"))?.trim_start_matches("./");
    let escapes = location.split(['/', '\\']).any(|part| part.is_empty() || part == "..")
        || location.contains('\\')
        || location.contains(':');
    if escapes {
        let reason = format!("external_data location {location:?} is not a relative path inside the model's directory");
        return Err(EngineError::invalid(place, reason));
    }
    let number = |key: &str, text: Option<&str>| {
        text.map(|text| {
            text.parse::<u64>()
                .map_err(|_| EngineError::invalid(place, format!("external_data {key} {text:?} is not a number")))
        })
        .transpose()
    };
    let offset = number("offset", found[1])?.unwrap_or(0);
    let length = number("length", found[2])?;
    let file = files
        .external(location)
        .ok_or_else(|| EngineError::invalid(place, format!("external-data file {location:?} is missing")))?;
    let length = length.unwrap_or(file.len().saturating_sub(offset));
    if offset.checked_add(length).is_none_or(|end| end > file.len()) {
        let available = file.len();
        let reason = format!("bytes {offset} to {offset}+{length} of {location:?}, which has {available} bytes");
        return Err(EngineError::invalid(place, reason));
    }
    if length != expected_bytes {
        return Err(EngineError::wrong_length(place, expected_bytes, length));
    }
    Ok(ExternalRange { location: location.to_string(), range: Range { offset, length } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ByteSource;

    struct OneFile(Vec<u8>);

    impl ModelFiles for OneFile {
        fn onnx(&self) -> &dyn ByteSource {
            &self.0
        }

        fn external(&self, location: &str) -> Option<&dyn ByteSource> {
            (location == "w/data.bin").then_some(&self.0 as &dyn ByteSource)
        }
    }

    fn locate_in(entries: &[(&str, &str)], expected_bytes: u64) -> Result<ExternalRange, EngineError> {
        let entries: Vec<_> = entries.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        locate("w", &entries, expected_bytes, &OneFile(vec![0; 100]))
    }

    #[test]
    fn finds_the_range() {
        let found = locate_in(&[("location", "w/data.bin"), ("offset", "60"), ("length", "40")], 40).unwrap();
        assert_eq!(found.range, Range { offset: 60, length: 40 });
        assert_eq!(locate_in(&[("location", "./w/data.bin"), ("offset", "90")], 10).unwrap().range.length, 10);
    }

    #[test]
    fn refuses_what_is_not_there() {
        let reason = |entries: &[(&str, &str)], bytes| locate_in(entries, bytes).unwrap_err().to_string();
        let at = ("location", "w/data.bin");
        assert_eq!(reason(&[], 1), "w: external_data has no location");
        assert_eq!(reason(&[("location", "x")], 1), "w: external-data file \"x\" is missing");
        assert_eq!(reason(&[at, ("offset", "-1")], 1), "w: external_data offset \"-1\" is not a number");
        assert_eq!(reason(&[at, at], 1), "w: external_data has two values of \"location\"");
        let beyond = "w: bytes 99 to 99+2 of \"w/data.bin\", which has 100 bytes";
        assert_eq!(reason(&[at, ("offset", "99"), ("length", "2")], 2), beyond);
        let wraps = [at, ("offset", "18446744073709551615"), ("length", "2")];
        assert!(reason(&wraps, 2).contains("which has 100 bytes"));
        assert_eq!(reason(&[at, ("length", "8")], 12), "w: it has 8 bytes, its shape needs 12");
        for path in ["../secret", "/etc/passwd", "w/../../x", "w\\..\\x", "c:x", ""] {
            assert!(reason(&[("location", path)], 1).contains("not a relative path"), "{path}");
        }
    }
}
