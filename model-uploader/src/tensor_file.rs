//! Tensors in files: NumPy's `.npy`, and raw little-endian elements with a type and shape beside them.
//!
//! The `.npy` layout is that of NumPy's format specification (`numpy.lib.format`), versions 1 to 3:
//!
//! ```text
//! 0   6  magic 93 'NUMPY'
//! 6   2  version, major and minor
//! 8   2  header length, little-endian (4 bytes from version 2 on)
//! 10  n  a Python dictionary in text: 'descr', 'fortran_order', 'shape'
//!        elements, row-major
//! ```

use anyhow::{Context, Result, bail, ensure};
use onnx_canister_interface::{ElementType, Tensor};
use serde_bytes::ByteBuf;
use std::path::Path;

const MAGIC: &[u8] = b"\x93NUMPY";
/// Elements start at a multiple of this many bytes.
const ALIGNMENT_BYTES: usize = 64;
/// Axes of a tensor, at most.
const RANK_MAX: usize = 32;

/// ONNX's name and NumPy's descriptor of each type.
const TYPES: [(ElementType, &str, &str); 12] = [
    (ElementType::Float32, "float32", "<f4"),
    (ElementType::Float64, "float64", "<f8"),
    (ElementType::Float16, "float16", "<f2"),
    (ElementType::Uint8, "uint8", "|u1"),
    (ElementType::Int8, "int8", "|i1"),
    (ElementType::Uint16, "uint16", "<u2"),
    (ElementType::Int16, "int16", "<i2"),
    (ElementType::Uint32, "uint32", "<u4"),
    (ElementType::Int32, "int32", "<i4"),
    (ElementType::Uint64, "uint64", "<u8"),
    (ElementType::Int64, "int64", "<i8"),
    (ElementType::Bool, "bool", "|b1"),
];

/// ONNX's name of a type.
pub fn type_name(element_type: ElementType) -> &'static str {
    TYPES.iter().find(|(known, ..)| *known == element_type).map_or("", |(_, name, _)| name)
}

/// A type by ONNX's name.
pub fn type_by_name(name: &str) -> Option<ElementType> {
    TYPES.iter().find(|(_, known, _)| *known == name).map(|(element_type, ..)| *element_type)
}

/// `1x3x224x224`, or `scalar`.
pub fn shape_text(shape: &[u64]) -> String {
    if shape.is_empty() {
        return "scalar".to_string();
    }
    shape.iter().map(u64::to_string).collect::<Vec<_>>().join("x")
}

fn parse_shape(text: &str) -> Result<Vec<u64>> {
    if text == "scalar" {
        return Ok(Vec::new());
    }
    text.split('x').map(|dim| dim.parse().with_context(|| format!("shape '{text}'"))).collect()
}

/// A named input as a user writes it: `NAME=FILE.npy`, or `NAME=FILE,TYPE,SHAPE` for raw elements.
pub fn parse_input(text: &str) -> Result<(String, Tensor)> {
    let (name, file) = text.split_once('=').context("expected NAME=FILE.npy or NAME=FILE,TYPE,SHAPE")?;
    let mut parts = file.rsplitn(3, ',');
    let tensor = match (parts.next(), parts.next(), parts.next()) {
        (Some(shape), Some(element_type), Some(path)) => {
            let element_type = type_by_name(element_type).with_context(|| {
                let names = TYPES.map(|(_, name, _)| name).join(", ");
                format!("type '{element_type}' is none of {names}")
            })?;
            let data = std::fs::read(path).with_context(|| path.to_string())?;
            checked(element_type, parse_shape(shape)?, data).with_context(|| path.to_string())?
        }
        _ => read_npy(Path::new(file))?,
    };
    Ok((name.to_string(), tensor))
}

/// Reads a `.npy` file.
pub fn read_npy(path: &Path) -> Result<Tensor> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    decode_npy(&bytes).with_context(|| path.display().to_string())
}

/// A tensor whose bytes fit its type and shape.
fn checked(element_type: ElementType, shape: Vec<u64>, data: Vec<u8>) -> Result<Tensor> {
    ensure!(shape.len() <= RANK_MAX, "{} axes, at most {RANK_MAX}", shape.len());
    let expected = shape.iter().try_fold(element_type.size_bytes(), |product, dim| product.checked_mul(*dim));
    let expected = expected.with_context(|| format!("shape {} overflows", shape_text(&shape)))?;
    ensure!(
        expected == data.len() as u64,
        "{} bytes of elements; {} {} needs {expected}",
        data.len(),
        type_name(element_type),
        shape_text(&shape)
    );
    Ok(Tensor { element_type, shape, data: ByteBuf::from(data) })
}

/// Decodes the bytes of a `.npy` file.
pub fn decode_npy(bytes: &[u8]) -> Result<Tensor> {
    let rest = bytes.strip_prefix(MAGIC).context("not a .npy file")?;
    let (version, rest) = rest.split_at_checked(2).context("the header is cut off")?;
    let (length, rest) = match version[0] {
        1 => {
            let (length, rest) = rest.split_first_chunk::<2>().context("the header is cut off")?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        2 | 3 => {
            let (length, rest) = rest.split_first_chunk::<4>().context("the header is cut off")?;
            (u32::from_le_bytes(*length) as usize, rest)
        }
        other => bail!("version {other} of .npy is not known"),
    };
    let (header, elements) = rest.split_at_checked(length).context("the header is cut off")?;
    let header = std::str::from_utf8(header).context("the header is not text")?;

    let descriptor = field(header, "descr")?;
    let descriptor = descriptor.strip_prefix('\'').and_then(|text| text.split('\'').next()).unwrap_or_default();
    let element_type =
        TYPES.iter().find(|(.., known)| *known == descriptor).map(|(element_type, ..)| *element_type).with_context(
            || format!("elements '{descriptor}' are no type of a tensor here (little-endian ones are)"),
        )?;
    ensure!(field(header, "fortran_order")?.starts_with("False"), "column-major: save numpy.ascontiguousarray of it");
    let shape = field(header, "shape")?.strip_prefix('(').and_then(|text| text.split(')').next());
    let shape = shape
        .context("the header has no shape")?
        .split(',')
        .map(str::trim)
        .filter(|dim| !dim.is_empty())
        .map(|dim| dim.parse::<u64>().with_context(|| format!("shape has '{dim}'")))
        .collect::<Result<Vec<_>>>()?;
    checked(element_type, shape, elements.to_vec())
}

/// What follows `'name':` in the header.
fn field<'a>(header: &'a str, name: &str) -> Result<&'a str> {
    let (_, after) = header.split_once(&format!("'{name}':")).with_context(|| format!("the header has no {name}"))?;
    Ok(after.trim_start())
}

/// The bytes of a `.npy` file of version 1.
pub fn encode_npy(tensor: &Tensor) -> Result<Vec<u8>> {
    let descriptor = TYPES.iter().find(|(known, ..)| *known == tensor.element_type).map_or("", |(.., text)| text);
    let dims: String = tensor.shape.iter().map(|dim| format!("{dim}, ")).collect();
    let mut header = format!("{{'descr': '{descriptor}', 'fortran_order': False, 'shape': ({}), }}", dims.trim_end());
    let unpadded = MAGIC.len() + 4 + header.len() + 1;
    header.push_str(&" ".repeat(unpadded.next_multiple_of(ALIGNMENT_BYTES) - unpadded));
    header.push('\n');
    let length = u16::try_from(header.len()).with_context(|| format!("{} axes", tensor.shape.len()))?;
    let mut bytes = [MAGIC, &[1, 0], &length.to_le_bytes(), header.as_bytes()].concat();
    bytes.extend_from_slice(&tensor.data);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `numpy.save` of `numpy.array([[1, 2, 3]], dtype="<i2")`, byte for byte.
    fn numpy_sample() -> Vec<u8> {
        let header = "{'descr': '<i2', 'fortran_order': False, 'shape': (1, 3), }";
        let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(127, b' ');
        bytes.extend_from_slice(b"\n\x01\0\x02\0\x03\0");
        bytes
    }

    #[test]
    fn numpys_own_file_is_read() -> Result<()> {
        let tensor = decode_npy(&numpy_sample())?;
        assert_eq!((tensor.element_type, tensor.shape.as_slice()), (ElementType::Int16, [1, 3].as_slice()));
        assert_eq!(tensor.data.as_ref(), [1, 0, 2, 0, 3, 0]);
        Ok(())
    }

    #[test]
    fn every_type_and_rank_survives_a_round_trip() -> Result<()> {
        for (element_type, name, _) in TYPES {
            assert_eq!(type_by_name(name), Some(element_type));
            for shape in [vec![], vec![2], vec![2, 3], vec![1, 0, 5]] {
                let bytes = shape.iter().product::<u64>() * element_type.size_bytes();
                let data = (0..bytes).map(|i| i as u8).collect();
                let tensor = checked(element_type, shape, data)?;
                let encoded = encode_npy(&tensor)?;
                assert_eq!((encoded.len() - tensor.data.len()) % ALIGNMENT_BYTES, 0);
                assert_eq!(decode_npy(&encoded)?, tensor);
            }
        }
        Ok(())
    }

    #[test]
    fn damaged_files_are_refused_at_every_length() {
        let sample = numpy_sample();
        for length in 0..sample.len() {
            assert!(decode_npy(&sample[..length]).is_err(), "{length}");
        }
        let error = |from: &str, to: &str| {
            let text: Vec<u8> = sample.clone();
            let at = text.windows(from.len()).position(|window| window == from.as_bytes()).unwrap_or_default();
            let mut changed = text;
            changed[at..at + to.len()].copy_from_slice(to.as_bytes());
            decode_npy(&changed).map_err(|e| format!("{e:#}")).err().unwrap_or_default()
        };
        assert!(error("<i2", ">i2").contains(">i2"));
        assert!(error("False", "True ").contains("column-major"));
        assert!(error("(1, 3)", "(9, 3)").contains("needs 54"));
        assert!(error("(1, 3)", "(x, 3)").contains("'x'"));
        let huge = "{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999, 9999999999), }";
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend_from_slice(&(huge.len() as u16).to_le_bytes());
        bytes.extend_from_slice(huge.as_bytes());
        assert!(decode_npy(&bytes).is_err_and(|e| e.to_string().contains("overflows")));
    }

    #[test]
    fn inputs_are_npy_or_raw_with_type_and_shape() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let npy = dir.path().join("a,b.npy");
        std::fs::write(&npy, numpy_sample())?;
        let (name, tensor) = parse_input(&format!("x={}", npy.display()))?;
        assert_eq!((name.as_str(), tensor.shape.as_slice()), ("x", [1, 3].as_slice()));

        let raw = dir.path().join("raw.bin");
        std::fs::write(&raw, [0u8; 24])?;
        let (_, tensor) = parse_input(&format!("x={},float32,2x3", raw.display()))?;
        assert_eq!((tensor.element_type, tensor.shape.as_slice()), (ElementType::Float32, [2, 3].as_slice()));
        let error = |text: String| parse_input(&text).map_err(|e| format!("{e:#}")).err().unwrap_or_default();
        assert!(error(format!("x={},float32,2x4", raw.display())).contains("needs 32"));
        assert!(error(format!("x={},float,2x3", raw.display())).contains("float32"));
        assert!(error(format!("x={},float32,2y3", raw.display())).contains("2y3"));
        assert!(error("x".to_string()).contains("NAME=FILE"));
        Ok(())
    }
}
