//! The committed Candid file, the service and the table of rights are one.

use crate::access::METHODS;
use crate::inputs::PutInputBorrowed;
use crate::store::upload::PutChunkBorrowed;
use candid_parser::utils::{CandidSource, service_equal};
use onnx_canister_interface::{ElementType, PutChunk, PutInput};
use serde_bytes::ByteBuf;
use std::collections::BTreeSet;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/onnx-canister.did");

#[test]
fn the_candid_file_is_the_service() {
    let service = crate::candid_service();
    let file = std::fs::read_to_string(FILE).expect("the Candid file is committed");
    if let Err(difference) = service_equal(CandidSource::Text(&service), CandidSource::Text(&file)) {
        panic!("{FILE} differs from the service: {difference}\n\nThe service is:\n{service}");
    }
}

#[test]
fn what_borrows_the_message_decodes_what_the_interface_encodes() {
    let chunk = PutChunk {
        name: "m".into(),
        version: 3,
        file: 1,
        index: 2,
        bytes: ByteBuf::from((0..=255).collect::<Vec<u8>>()),
    };
    let encoded = candid::encode_one(&chunk).expect("it encodes");
    let borrowed: PutChunkBorrowed = candid::decode_one(&encoded).expect("it decodes");
    let decoded = PutChunk {
        name: borrowed.name,
        version: borrowed.version,
        file: borrowed.file,
        index: borrowed.index,
        bytes: ByteBuf::from(borrowed.bytes.to_vec()),
    };
    assert_eq!(decoded, chunk);
    let part = PutInput {
        key: "k".into(),
        element_type: ElementType::Float16,
        shape: vec![2, 3],
        offset_bytes: 4,
        data: ByteBuf::from(vec![1, 2]),
    };
    let encoded = candid::encode_one(&part).expect("it encodes");
    let borrowed: PutInputBorrowed = candid::decode_one(&encoded).expect("it decodes");
    assert_eq!((borrowed.key, borrowed.element_type, borrowed.shape), (part.key, part.element_type, part.shape));
    assert_eq!((borrowed.offset_bytes, borrowed.data.to_vec()), (4, vec![1, 2]));
}

#[test]
fn every_method_has_a_right() {
    let service = crate::candid_service();
    let body = &service[service.find("service :").expect("there is a service")..];
    let methods: BTreeSet<&str> = body
        .lines()
        .skip(1)
        .filter_map(|line| line.trim().split_once(" : ").map(|(name, _)| name.trim_matches('"')))
        .collect();
    let table: BTreeSet<&str> = METHODS.iter().map(|(name, _)| *name).collect();
    assert_eq!(methods, table);
}
