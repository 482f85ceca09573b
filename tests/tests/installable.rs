//! The Wasm module against the network's limits on what can be installed. The replica checks them as well.

use end_to_end_tests::environment;
use end_to_end_tests::pocket::Pocket;
use onnx_canister_interface::Health;
use wasmparser::{Parser, Payload};

/// What the network's documentation says; its code of 2026 takes 12 MiB.
const CODE_SECTION_BYTES_MAX: u64 = 10 * 1024 * 1024;
const MODULE_BYTES_MAX: usize = 100 * 1024 * 1024;
const FUNCTIONS_MAX: u32 = 50_000;
const OPERATIONS_PER_FUNCTION_MAX: usize = 1_000_000;

fn module() -> Vec<u8> {
    environment::canister_module().expect("the canister's Wasm")
}

#[test]
fn the_module_keeps_every_limit_on_size() {
    let wasm = module();
    assert!(wasm.len() <= MODULE_BYTES_MAX);
    let mut bodies = 0;
    let mut largest = 0;
    for payload in Parser::new(0).parse_all(&wasm) {
        match payload.expect("a Wasm module") {
            Payload::CodeSectionStart { size, count, .. } => {
                assert!(u64::from(size) <= CODE_SECTION_BYTES_MAX, "code section of {size} bytes");
                assert!(count <= FUNCTIONS_MAX, "{count} functions");
            }
            Payload::CodeSectionEntry(body) => {
                bodies += 1;
                largest = largest.max(body.get_operators_reader().expect("operators").into_iter().count());
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    assert_eq!(import.expect("an import").module, "ic0");
                }
            }
            _ => {}
        }
    }
    assert!(bodies > 1_000, "the engine is in there");
    assert!(largest <= OPERATIONS_PER_FUNCTION_MAX, "a function of {largest} operations");
}

#[test]
fn it_installs_and_is_well() {
    let pocket = Pocket::new(None);
    let health: Health = pocket.query_plain("health");
    assert_eq!((health.models_ready, health.jobs_pending, health.open_calls), (0, 0, 0));
    assert_eq!(health.version, env!("CARGO_PKG_VERSION"));
}
