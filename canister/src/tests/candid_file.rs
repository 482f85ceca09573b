//! The committed Candid file, the service and the table of rights are one.

use crate::access::METHODS;
use candid_parser::utils::{CandidSource, service_equal};
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
