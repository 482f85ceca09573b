//! Installing, upgrading and uninstalling code.

use super::*;
use ic00::CanisterInstallMode::{Install, Reinstall, Upgrade};
use sha2::{Digest, Sha256};
use std::io::Write;

/// What `stable` of the test canister reads: the first two words of stable memory.
fn stable_words(net: &mut Net, id: Principal) -> (u64, u64) {
    let bytes = net.query(id, "stable", vec![]).expect("a reply");
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    (word(0), word(8))
}

#[test]
fn init_gets_the_argument_and_an_installed_canister_is_not_overwritten() {
    let mut net = Net::new();
    let id = net.create(100 * T, None);
    net.install(id, Install, wasm(), vec![5]).expect("it installs");
    assert_eq!(net.counter(id), 5);
    let rejection = net.install(id, Install, wasm(), vec![]).expect_err("it is not empty");
    assert_eq!(rejection.error_code, ErrorCode::CanisterNonEmpty);
    assert_eq!(
        rejection.message,
        format!(
            "Canister {id} cannot be installed because the canister is not empty. Try installing with \
             mode='reinstall' instead."
        )
    );
    net.install(id, Reinstall, wasm(), vec![6]).expect("it reinstalls");
    assert_eq!(net.counter(id), 6);
}

#[test]
fn a_module_is_named_by_the_hash_of_what_was_handed_in() {
    let mut net = Net::new();
    let id = net.create(100 * T, None);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&wasm()).expect("it compresses");
    let zipped = encoder.finish().expect("it compresses");
    net.install(id, Install, zipped.clone(), vec![]).expect("it installs");
    assert_eq!(net.status(id).module_hash, Some(Sha256::digest(&zipped).to_vec()));
    assert_eq!(number(net.call(id, "inc", vec![])), 1);
}

#[test]
fn an_upgrade_keeps_stable_memory_and_loses_the_heap() {
    let (mut net, id) = Net::with_canister();
    for _ in 0..3 {
        net.call(id, "inc", vec![]).expect("a reply");
    }
    net.call(id, "timer", (START_NS * 2).to_le_bytes().to_vec()).expect("a reply");
    net.install(id, Upgrade(None), wasm(), vec![]).expect("it upgrades");
    assert_eq!(net.counter(id), 3, "pre_upgrade saved it, post_upgrade loaded it");
    assert_eq!(net.canister(&id).global_timer_ns, 0, "a change of module turns the timer off");
    net.call(id, "inc", vec![]).expect("a reply");
    let flags = ic00::UpgradeFlags { skip_pre_upgrade: Some(true), wasm_memory_persistence: None };
    net.install(id, Upgrade(Some(flags)), wasm(), vec![]).expect("it upgrades");
    assert_eq!(net.counter(id), 3, "without pre_upgrade the last count is lost");
    net.install(id, Reinstall, wasm(), vec![]).expect("it reinstalls");
    assert_eq!(net.status(id).memory_metrics.stable_memory_size, candid::Nat::from(0_u8));
}

#[test]
fn a_failed_upgrade_changes_nothing() {
    let (mut net, id) = Net::with_canister();
    net.call(id, "inc", vec![]).expect("a reply");
    net.install(id, Upgrade(None), wasm(), vec![]).expect("it upgrades");
    net.call(id, "inc", vec![]).expect("a reply");
    let timer = START_NS * 2;
    net.call(id, "timer", timer.to_le_bytes().to_vec()).expect("a reply");
    let (hash, balance) = (net.status(id).module_hash, net.cycles(&id));
    // pre_upgrade writes stable memory and the heap, post_upgrade writes stable memory and traps.
    let result = net.install(id, Upgrade(None), wasm(), vec![1]);
    assert_eq!(error_code(result), ErrorCode::CanisterTrapped);
    assert_eq!(net.counter(id), 2, "the heap is as before pre_upgrade");
    assert_eq!(stable_words(&mut net, id), (1, 0), "stable memory is as before pre_upgrade");
    assert_eq!(net.status(id).module_hash, hash);
    assert_eq!(net.canister(&id).global_timer_ns, timer);
    assert!(net.cycles(&id) < balance, "the attempt was paid for");
    assert_eq!(number(net.call(id, "inc", vec![])), 3);
    // And it can be upgraded again.
    net.install(id, Upgrade(None), wasm(), vec![]).expect("it upgrades");
    assert_eq!(net.counter(id), 3);
}

#[test]
fn a_trapping_pre_upgrade_stops_the_upgrade_unless_it_is_skipped() {
    let wat = r#"(module
        (import "ic0" "msg_reply" (func $reply))
        (memory 1)
        (func (export "canister_pre_upgrade") unreachable)
        (func (export "canister_update ping") (call $reply)))"#;
    let mut net = Net::new();
    let id = net.install_wat(wat);
    assert_eq!(error_code(net.install(id, Upgrade(None), wasm(), vec![])), ErrorCode::CanisterTrapped);
    assert_eq!(net.call(id, "ping", vec![]), Ok(vec![]));
    let flags = ic00::UpgradeFlags { skip_pre_upgrade: Some(true), wasm_memory_persistence: None };
    net.install(id, Upgrade(Some(flags)), wasm(), vec![]).expect("it upgrades");
    assert_eq!(number(net.call(id, "inc", vec![])), 1);
    let flags =
        ic00::UpgradeFlags { skip_pre_upgrade: None, wasm_memory_persistence: Some(ic00::WasmMemoryPersistence::Keep) };
    let result = net.install(id, Upgrade(Some(flags)), wasm(), vec![]);
    assert_eq!(error_code(result), ErrorCode::CanisterContractViolation);
}

#[test]
fn a_failed_init_leaves_the_canister_empty() {
    let mut net = Net::new();
    let id = net.create(100 * T, None);
    assert_eq!(error_code(net.install(id, Install, wasm(), vec![0xff])), ErrorCode::CanisterTrapped);
    assert_eq!(net.status(id).module_hash, None);
    let rejection = net.install(id, Install, vec![1, 2, 3], vec![]).expect_err("not a module");
    assert_eq!(rejection.error_code, ErrorCode::CanisterInvalidWasm);
    let prefix = format!("Error from Canister {id}: Canister's Wasm module is not valid: ");
    assert!(rejection.message.starts_with(&prefix), "{}", rejection.message);
    let rejection = net.install(id, Install, vec![0x1f, 0x8b, 0, 0], vec![]).expect_err("not a gzip file");
    assert_eq!(rejection.error_code, ErrorCode::CanisterInvalidWasm);
    assert_eq!(error_code(net.install(id, Upgrade(None), wasm(), vec![])), ErrorCode::CanisterWasmModuleNotFound);
    net.install(id, Install, wasm(), vec![]).expect("it installs");
}

#[test]
fn a_module_is_installed_from_chunks() {
    let mut net = Net::new();
    let id = net.create(100 * T, None);
    let module = wasm();
    let mut hashes = Vec::new();
    for chunk in module.chunks(1000) {
        let args = ic00::UploadChunkArgs { canister_id: id, chunk: chunk.to_vec() };
        let reply = net.manage("upload_chunk", (args,)).expect("it is stored");
        let hash: ic00::ChunkHash = candid::decode_one(&reply).expect("a hash");
        assert_eq!(hash.hash, Sha256::digest(chunk).to_vec());
        hashes.push(hash);
    }
    assert!(hashes.len() > 2);
    let reply = net.about("stored_chunks", id).expect("the hashes");
    let mut stored: Vec<ic00::ChunkHash> = candid::decode_one(&reply).expect("hashes");
    let mut expected = hashes.clone();
    stored.sort();
    expected.sort();
    assert_eq!(stored, expected);
    assert_eq!(net.status(id).memory_metrics.wasm_chunk_store_size, candid::Nat::from(hashes.len() << 20));

    let mut args = ic00::InstallChunkedCodeArgs {
        mode: Install,
        target_canister: id,
        store_canister: None,
        chunk_hashes_list: hashes.clone(),
        wasm_module_hash: vec![0; 32],
        arg: vec![9],
        sender_canister_version: None,
    };
    let rejection = net.manage("install_chunked_code", (args.clone(),)).expect_err("the hash is another");
    assert_eq!(rejection.error_code, ErrorCode::CanisterContractViolation);
    args.wasm_module_hash = Sha256::digest(&module).to_vec();
    args.chunk_hashes_list[0].hash = vec![3; 32];
    let rejection = net.manage("install_chunked_code", (args.clone(),)).expect_err("the chunk is missing");
    assert!(rejection.message.contains("was not found"), "{}", rejection.message);
    args.chunk_hashes_list = hashes;
    net.manage("install_chunked_code", (args,)).expect("it installs");
    assert_eq!(net.counter(id), 9);
    net.about("clear_chunk_store", id).expect("it is cleared");
    let reply = net.about("stored_chunks", id).expect("the hashes");
    assert!(candid::decode_one::<Vec<ic00::ChunkHash>>(&reply).expect("hashes").is_empty());
}

#[test]
fn chunks_larger_than_a_mebibyte_are_refused() {
    let mut net = Net::new();
    let id = net.create(100 * T, None);
    let upload = |net: &mut Net, bytes: usize| {
        let args = ic00::UploadChunkArgs { canister_id: id, chunk: vec![0; bytes] };
        net.manage("upload_chunk", (args,))
    };
    assert_eq!(error_code(upload(&mut net, (1 << 20) + 1)), ErrorCode::CanisterContractViolation);
    upload(&mut net, 1 << 20).expect("a full chunk");
}

#[test]
fn uninstalling_answers_open_calls_and_takes_everything() {
    let (mut net, id) = Net::with_canister();
    let other = net.create_installed();
    net.call(id, "certify", b"data".to_vec()).expect("a reply");
    net.hold(&other);
    let message = net.submit(id, "call", call_argument(0, &other, "inc", b"")).expect("accepted");
    net.subnet.execute_round();
    assert_eq!(net.subnet.ingress_status(&message).map(|status| &status.state), Some(&IngressState::Processing));
    net.about("uninstall_code", id).expect("it is uninstalled");
    assert_eq!(net.answer(&message), Some(Err(errors::uninstalled())));
    assert_eq!(error_code(net.call(id, "inc", vec![])), ErrorCode::CanisterWasmModuleNotFound);
    net.release(&other);
    net.settle();
    assert!(net.canister(&id).calls.is_empty());
    net.install(id, Install, wasm(), vec![]).expect("it installs");
    assert_eq!(net.counter(id), 0);
    assert!(net.canister(&id).certified_data.is_empty());
}

#[test]
fn the_history_tells_what_happened() {
    let (mut net, id) = Net::with_canister();
    let asker = net.create_installed();
    net.install(id, Upgrade(None), wasm(), vec![]).expect("it upgrades");
    let args = ic00::CanisterInfoArgs { canister_id: id, num_requested_changes: Some(2) };
    let payload = candid::encode_one(args).expect("it encodes");
    let argument = call_argument(0, &Principal::management_canister(), "canister_info", &payload);
    let reply = net.call(asker, "call", argument).expect("a reply");
    let info: ic00::CanisterInfoResult = candid::decode_one(&reply).expect("it decodes");
    assert_eq!(info.total_num_changes, 3);
    let modes: Vec<_> = info.recent_changes.iter().map(|change| change.details.clone()).collect();
    let deployed = |mode| {
        let record = ic00::CodeDeploymentRecord { mode, module_hash: Sha256::digest(wasm()).to_vec() };
        Some(ic00::ChangeDetails::CodeDeployment(record))
    };
    assert_eq!(modes, [deployed(ic00::CodeDeploymentMode::Install), deployed(ic00::CodeDeploymentMode::Upgrade)]);
    assert_eq!(info.controllers, [Principal::anonymous()]);
}
