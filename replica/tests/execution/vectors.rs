//! Instruction counts of whole programs, against counts that an independent meter gave for them.

use replica::cli::meter::{MeterRequest, measure};
use replica::execution::Engine;
use std::path::PathBuf;

fn vectors() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

#[test]
fn every_vector_counts_exactly() {
    let engine = Engine::new(None).unwrap();
    let expected: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&std::fs::read(vectors().join("expected.json")).unwrap()).unwrap();
    assert_eq!(expected.len(), 11);
    for (name, counts) in expected {
        let (program, kind) = name.split_once('.').unwrap();
        let bytes = std::fs::read(vectors().join(format!("{program}.wat"))).unwrap();
        let request =
            MeterRequest { export: "canister_update go".into(), query: kind == "query", ..MeterRequest::default() };
        let measured = measure(&engine, &bytes, &request).unwrap();
        assert_eq!(measured.error, None, "{name}");
        let found = serde_json::json!({"instructions": measured.instructions, "page_charge": measured.page_charge});
        assert_eq!(found, counts, "{name}");
    }
}

/// A file whose own export is the query gives the same counts as the renamed update.
#[test]
fn a_query_export_counts_like_the_renamed_update() {
    let engine = Engine::new(None).unwrap();
    for program in ["pages", "bulk", "control"] {
        let text = std::fs::read_to_string(vectors().join(format!("{program}.wat"))).unwrap();
        let renamed = text.replace("canister_update go", "canister_query go");
        let update = MeterRequest { export: "canister_update go".into(), query: true, ..MeterRequest::default() };
        for query in [true, false] {
            let request = MeterRequest { export: "canister_query go".into(), query, ..MeterRequest::default() };
            assert_eq!(
                measure(&engine, renamed.as_bytes(), &request).unwrap(),
                measure(&engine, text.as_bytes(), &update).unwrap()
            );
        }
    }
}
