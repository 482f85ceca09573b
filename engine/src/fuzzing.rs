//! What the fuzzer `onnx_reader` calls: all of the reader, and nothing of what comes after it.

use crate::onnx::{Graph, Walk};
use crate::weights::WeightReader;
use crate::{ByteSource, EngineError, ModelFiles};

/// Weights of more bytes than this are not read: a file may well say so much, and a fuzzer's machine is small.
const WEIGHT_BYTES_MAX: u64 = 1 << 26;

struct Files {
    onnx: Vec<u8>,
    external: Vec<u8>,
}

impl ModelFiles for Files {
    fn onnx(&self) -> &dyn ByteSource {
        &self.onnx
    }

    fn external(&self, _: &str) -> Option<&dyn ByteSource> {
        Some(&self.external)
    }
}

/// Reads the structure of a file as [`crate::inspect`] does, then every weight to its last byte, and returns their bytes.
/// `external` is every external-data file that the ONNX file names.
pub fn read(onnx: Vec<u8>, external: Vec<u8>) -> Result<u64, EngineError> {
    let files = Files { onnx, external };
    let inspection = crate::inspect(&files)?;
    let mut walk = Walk::default();
    while !walk.step(&files)? {}
    let stored_bytes = walk.stored_bytes();
    assert_eq!(stored_bytes, inspection.weight_bytes);
    let graph = Graph::new(walk, &files)?;
    if stored_bytes > WEIGHT_BYTES_MAX {
        return Ok(stored_bytes);
    }
    let weights = graph.tensors.len();
    let mut reader = WeightReader::new(graph.tensors);
    while !reader.step(&files)? {}
    let tensors = reader.into_tensors();
    assert_eq!(tensors.len(), weights);
    let bytes: usize = tensors.iter().map(|(_, tensor)| tensor.as_bytes().len()).sum();
    assert_eq!(bytes as u64, stored_bytes, "weights have the size that the walk has told");
    Ok(stored_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use tract_onnx::pb::{
        GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, TensorShapeProto,
        TypeProto, ValueInfoProto, tensor_proto, type_proto,
    };

    /// `y = x + w`, whose weight of 4,096 elements is in the file's own bytes or in an external file's.
    fn add(external: bool) -> Vec<u8> {
        let mut weight = TensorProto { name: "w".into(), dims: vec![4_096], data_type: 1, ..TensorProto::default() };
        if external {
            weight.data_location = Some(tensor_proto::DataLocation::External as i32);
            weight.external_data = vec![StringStringEntryProto { key: "location".into(), value: "w".into() }];
        } else {
            weight.raw_data = vec![1; 4 * 4_096];
        }
        let node = NodeProto {
            op_type: "Add".into(),
            input: vec!["x".into(), "w".into()],
            output: vec!["y".into()],
            ..NodeProto::default()
        };
        let value = |name: &str| {
            let shape = Some(TensorShapeProto { dim: vec![] });
            let tensor = type_proto::Value::TensorType(type_proto::Tensor { elem_type: 1, shape });
            let r#type = Some(TypeProto { value: Some(tensor), ..TypeProto::default() });
            ValueInfoProto { name: name.into(), r#type, ..ValueInfoProto::default() }
        };
        let graph = GraphProto {
            node: vec![node],
            initializer: vec![weight],
            input: vec![value("x")],
            output: vec![value("y")],
            ..GraphProto::default()
        };
        let opset = OperatorSetIdProto { domain: String::new(), version: 13 };
        ModelProto { ir_version: 8, opset_import: vec![opset], graph: Some(graph), ..ModelProto::default() }
            .encode_to_vec()
    }

    #[test]
    fn weights_are_read_to_their_last_byte() {
        assert_eq!(read(add(false), vec![]), Ok(4 * 4_096));
        assert_eq!(read(add(true), vec![1; 4 * 4_096]), Ok(4 * 4_096));
        for bytes in [0, 1, 4 * 4_096 - 1] {
            assert!(read(add(true), vec![1; bytes]).is_err(), "{bytes}");
        }
    }

    #[test]
    fn a_file_cut_or_changed_anywhere_is_read_or_refused() {
        let whole = add(true);
        for at in 0..whole.len() {
            let _ = read(whole[..at].to_vec(), vec![1; 4 * 4_096]);
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[at] ^= 1 << bit;
                let _ = read(changed, vec![1; 4 * 4_096]);
            }
        }
    }
}
