//! Canister snapshots.

use super::*;

fn take(net: &mut Net, id: Principal, replace: Option<Vec<u8>>) -> Result<ic00::Snapshot, Rejection> {
    let args = ic00::TakeCanisterSnapshotArgs {
        canister_id: id,
        replace_snapshot: replace,
        uninstall_code: None,
        sender_canister_version: None,
    };
    let reply = net.manage("take_canister_snapshot", (args,))?;
    Ok(candid::decode_one(&reply).expect("a snapshot"))
}

fn load(net: &mut Net, id: Principal, snapshot_id: Vec<u8>) -> CallResult {
    let args = ic00::LoadCanisterSnapshotArgs { canister_id: id, snapshot_id, sender_canister_version: None };
    net.manage("load_canister_snapshot", (args,))
}

fn list(net: &mut Net, id: Principal) -> Vec<ic00::Snapshot> {
    let reply = net.about("list_canister_snapshots", id).expect("a list");
    candid::decode_one(&reply).expect("snapshots")
}

#[test]
fn loading_brings_back_what_was_taken() {
    let (mut net, id) = Net::with_canister();
    net.call(id, "inc", vec![]).expect("a reply");
    net.call(id, "certify", b"before".to_vec()).expect("a reply");
    net.subnet.set_stable_memory(&id, vec![5; 70_000]);
    let stable = net.subnet.stable_memory(&id);
    let snapshot = take(&mut net, id, None).expect("a snapshot");
    assert_eq!(snapshot.taken_at_timestamp, net.subnet.time_ns());
    assert_eq!(list(&mut net, id), std::slice::from_ref(&snapshot));
    assert_eq!(net.status(id).memory_metrics.snapshots_size, snapshot.total_size);

    let version = net.status(id).version;
    net.call(id, "inc", vec![]).expect("a reply");
    net.call(id, "certify", b"after".to_vec()).expect("a reply");
    net.subnet.set_stable_memory(&id, vec![9; 70_000]);
    load(&mut net, id, snapshot.id.clone()).expect("it loads");
    assert_eq!(net.counter(id), 1);
    assert_eq!(net.canister(&id).certified_data, b"before");
    assert_eq!(net.subnet.stable_memory(&id), stable);
    assert!(net.status(id).version > version);

    // Over another module too, and after the code is gone.
    net.about("uninstall_code", id).expect("a reply");
    load(&mut net, id, snapshot.id.clone()).expect("it loads");
    assert_eq!(net.counter(id), 1);
    net.call(id, "inc", vec![]).expect("a reply");
    assert_eq!(net.counter(id), 2);

    // A controller loads it on another canister.
    let other = net.create(100 * T, None);
    load(&mut net, other, snapshot.id.clone()).expect("it loads");
    assert_eq!(net.counter(other), 1);

    let args = ic00::DeleteCanisterSnapshotArgs { canister_id: id, snapshot_id: snapshot.id.clone() };
    net.manage("delete_canister_snapshot", (args,)).expect("it is deleted");
    assert_eq!(list(&mut net, id), []);
    let rejection = load(&mut net, id, snapshot.id).expect_err("it is gone");
    assert_eq!(rejection.error_code, ErrorCode::CanisterSnapshotNotFound);
}

#[test]
fn snapshots_cost_and_are_limited() {
    let (mut net, id) = Net::with_canister();
    let before = net.cycles(&id);
    let first = take(&mut net, id, None).expect("a snapshot");
    let cost = prices::execution(prices::SNAPSHOT_INSTRUCTIONS + first.total_size);
    assert!(before - net.cycles(&id) >= cost);
    for _ in 1..prices::MAX_SNAPSHOTS {
        take(&mut net, id, None).expect("a snapshot");
    }
    let rejection = take(&mut net, id, None).expect_err("there is no room");
    assert!(rejection.message.contains("maximum number of snapshots allowed: 10"), "{}", rejection.message);
    let replaced = take(&mut net, id, Some(first.id.clone())).expect("it takes the place of another");
    let ids: Vec<_> = list(&mut net, id).into_iter().map(|snapshot| snapshot.id).collect();
    assert!(ids.len() == prices::MAX_SNAPSHOTS && ids.contains(&replaced.id) && !ids.contains(&first.id));

    let empty = net.create(100 * T, None);
    assert!(take(&mut net, empty, None).is_err());
    let poor = net.create(3_000_000_000_000, None);
    net.install(poor, ic00::CanisterInstallMode::Install, wasm(), vec![]).expect("it installs");
    net.subnet.canisters.get_mut(&poor).expect("it exists").cycles = 1_000_000_000;
    assert_eq!(take(&mut net, poor, None).expect_err("it can't pay").error_code, ErrorCode::CanisterOutOfCycles);
}

#[test]
fn only_who_may_sees_and_loads_them() {
    let (mut net, id) = Net::with_canister();
    let snapshot = take(&mut net, id, None).expect("a snapshot");
    let stranger = Principal::from_slice(&[7; 5]);
    net.sender = stranger;
    assert!(net.about("list_canister_snapshots", id).is_err());
    let own = net.create(100 * T, None);
    let rejection = load(&mut net, own, snapshot.id.clone()).expect_err("it is another's");
    assert!(rejection.message.contains("Only a controller"), "{}", rejection.message);
    net.sender = Principal::anonymous();
    let settings = ic00::CanisterSettings {
        snapshot_visibility: Some(ic00::SnapshotVisibility::AllowedViewers(vec![stranger])),
        ..Default::default()
    };
    net.update_settings(id, settings).expect("it is set");
    net.sender = stranger;
    assert_eq!(list(&mut net, id), [snapshot]);
}

#[test]
fn a_read_snapshot_is_uploaded_again() {
    let (mut net, id) = Net::with_canister();
    net.call(id, "inc", vec![]).expect("a reply");
    let taken = take(&mut net, id, None).expect("a snapshot");
    let args = ic00::ReadCanisterSnapshotMetadataArgs { canister_id: id, snapshot_id: taken.id.clone() };
    let reply = net.manage("read_canister_snapshot_metadata", (args,)).expect("its metadata");
    let metadata: ic00::ReadCanisterSnapshotMetadataResult = candid::decode_one(&reply).expect("metadata");

    let other = net.create(100 * T, None);
    let upload = ic00::UploadCanisterSnapshotMetadataArgs {
        canister_id: other,
        replace_snapshot: None,
        wasm_module_size: metadata.wasm_module_size,
        globals: metadata.globals.into_iter().flatten().collect(),
        wasm_memory_size: metadata.wasm_memory_size,
        stable_memory_size: metadata.stable_memory_size,
        certified_data: metadata.certified_data,
        global_timer: metadata.global_timer,
        on_low_wasm_memory_hook_status: metadata.on_low_wasm_memory_hook_status,
    };
    let reply = net.manage("upload_canister_snapshot_metadata", (upload,)).expect("an id");
    let uploaded: ic00::UploadCanisterSnapshotMetadataResult = candid::decode_one(&reply).expect("an id");
    let mut copy =
        |size: u64, from: fn(u64, u64) -> ic00::SnapshotDataKind, to: fn(u64) -> ic00::SnapshotDataOffset| {
            // Pieces that are no multiple of a page.
            for offset in (0..size).step_by(50_000) {
                let args = ic00::ReadCanisterSnapshotDataArgs {
                    canister_id: id,
                    snapshot_id: taken.id.clone(),
                    kind: from(offset, 50_000.min(size - offset)),
                };
                let reply = net.manage("read_canister_snapshot_data", (args,)).expect("data");
                let data: ic00::ReadCanisterSnapshotDataResult = candid::decode_one(&reply).expect("data");
                let args = ic00::UploadCanisterSnapshotDataArgs {
                    canister_id: other,
                    snapshot_id: uploaded.snapshot_id.clone(),
                    kind: to(offset),
                    chunk: data.chunk,
                };
                net.manage("upload_canister_snapshot_data", (args,)).expect("it is written");
            }
        };
    copy(
        metadata.wasm_module_size,
        |offset, size| ic00::SnapshotDataKind::WasmModule { offset, size },
        |offset| ic00::SnapshotDataOffset::WasmModule { offset },
    );
    copy(
        metadata.wasm_memory_size,
        |offset, size| ic00::SnapshotDataKind::WasmMemory { offset, size },
        |offset| ic00::SnapshotDataOffset::WasmMemory { offset },
    );
    copy(
        metadata.stable_memory_size,
        |offset, size| ic00::SnapshotDataKind::StableMemory { offset, size },
        |offset| ic00::SnapshotDataOffset::StableMemory { offset },
    );
    load(&mut net, other, uploaded.snapshot_id.clone()).expect("it loads");
    assert_eq!(net.counter(other), 1);
    assert_eq!(net.canister(&other).code.as_ref().map(|code| code.module_hash), {
        net.canister(&id).code.as_ref().map(|code| code.module_hash)
    });

    // One that was taken does not change; ranges outside are refused.
    let write = |snapshot_id: &[u8], canister_id, offset| ic00::UploadCanisterSnapshotDataArgs {
        canister_id,
        snapshot_id: snapshot_id.to_vec(),
        kind: ic00::SnapshotDataOffset::WasmMemory { offset },
        chunk: vec![1],
    };
    let rejection = net.manage("upload_canister_snapshot_data", (write(&taken.id, id, 0),)).expect_err("it was taken");
    assert_eq!(rejection.error_code, ErrorCode::CanisterSnapshotImmutable);
    let outside = write(&uploaded.snapshot_id, other, u64::MAX);
    let rejection = net.manage("upload_canister_snapshot_data", (outside,)).expect_err("it is outside");
    assert_eq!(rejection.error_code, ErrorCode::InvalidManagementPayload);
}
