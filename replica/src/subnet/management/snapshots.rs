//! Canister snapshots: taking, listing, reading, uploading, loading and deleting them.

use super::super::Subnet;
use super::super::canister::{Canister, Code, LowMemoryHook};
use super::super::errors;
use super::super::prices;
use super::super::snapshots::{Snapshot, SnapshotMemory, Source, parse_snapshot_id, snapshot_id};
use super::super::types::{ErrorCode, QueryCall, Rejection};
use super::{Call, decode, encode, unit_reply};
use crate::execution::{GlobalValue, Instance, MemoryImage, PAGE_BYTES, StableMemory};
use candid::{Nat, Principal};
use ic_management_canister_types as ic00;
use sha2::{Digest, Sha256};

impl Subnet {
    pub(super) fn take_canister_snapshot(&mut self, call: &Call) -> Result<Vec<u8>, Rejection> {
        let (args,) = decode::<(ic00::TakeCanisterSnapshotArgs,)>(call.argument)?;
        let id = args.canister_id;
        let time_ns = self.info.time_ns;
        let canister = self.canisters.get_mut(&id).ok_or_else(|| errors::canister_not_found(&id))?;
        let replaced = number_to_replace(canister, args.replace_snapshot.as_deref())?;
        let code = canister.code.as_ref().ok_or_else(|| {
            let message = format!("Failed to create snapshot for empty canister {id}:");
            Rejection::new(ErrorCode::CanisterRejectedMessage, message)
        })?;
        let snapshot = Snapshot::take(canister, code, time_ns).map_err(|error| {
            let message = format!("Failed to create snapshot of canister {id}: {error:#}");
            Rejection::new(ErrorCode::CanisterRejectedMessage, message)
        })?;
        charge(canister, prices::SNAPSHOT_INSTRUCTIONS.saturating_add(snapshot.bytes()))?;
        let reply = store(canister, snapshot, replaced)?;
        if args.uninstall_code.unwrap_or(false) {
            self.uninstall(&id, call.origin, args.sender_canister_version);
        }
        Ok(encode((reply,)))
    }

    pub(super) fn load_canister_snapshot(&mut self, call: &Call) -> Result<Vec<u8>, Rejection> {
        let (args,) = decode::<(ic00::LoadCanisterSnapshotArgs,)>(call.argument)?;
        let id = args.canister_id;
        let owner = parse_snapshot_id(&args.snapshot_id).map_or(id, |(owner, _)| owner);
        let source = self.canisters.get(&owner).ok_or_else(|| not_found(&id, &args.snapshot_id))?;
        if owner != id && !source.settings.controllers.contains(&call.sender) {
            let message = format!(
                "Only a controller of the canister that snapshot {} belongs to can load it on canister {id}. Sender: {}.",
                hex::encode(&args.snapshot_id),
                call.sender
            );
            return Err(Rejection::new(ErrorCode::CanisterRejectedMessage, message));
        }
        let snapshot = find(source, &args.snapshot_id)?.1.clone();
        let canister = self.canisters.get_mut(&id).ok_or_else(|| errors::canister_not_found(&id))?;
        if !canister.calls.is_empty() {
            // Their callbacks would enter another module.
            let message = format!("Canister {id} has open calls: stop it before a snapshot is loaded.");
            return Err(Rejection::new(ErrorCode::CanisterNotStopped, message));
        }
        let compiled = Code::compile(&self.engine, &id, &snapshot.memory.wasm)?;
        let compilation = compiled.module.compile_instructions();
        let instance = instantiate(&self.engine, &compiled.module, &snapshot)
            .map_err(|error| errors::invalid_payload(format!("The snapshot can't be loaded: {error:#}")))?;
        charge(canister, prices::SNAPSHOT_INSTRUCTIONS.saturating_add(snapshot.bytes()).saturating_add(compilation))?;
        canister.code = Some(compiled.with_instance(instance));
        canister.certified_data = snapshot.certified_data;
        canister.chunks = snapshot.chunks;
        if snapshot.source == Source::Uploaded {
            canister.global_timer_ns = snapshot.global_timer_ns;
            canister.low_memory_hook = snapshot.low_memory_hook;
        }
        canister.version += 1;
        let record = ic00::LoadSnapshotRecord {
            canister_version: snapshot.canister_version,
            snapshot_id: args.snapshot_id,
            taken_at_timestamp: snapshot.taken_at_ns,
            source: source_of(snapshot.source),
            from_canister_id: (owner != id).then_some(owner),
        };
        let details = ic00::ChangeDetails::LoadSnapshot(record);
        canister.record_change(self.info.time_ns, call.origin, args.sender_canister_version, details);
        canister.check_low_memory();
        self.certified.set_canister(canister);
        Ok(unit_reply())
    }

    pub(super) fn list_canister_snapshots(&self, argument: &[u8]) -> Result<Vec<u8>, Rejection> {
        let (args,) = decode::<(ic00::ListCanisterSnapshotsArgs,)>(argument)?;
        let id = args.canister_id;
        let canister = self.canisters.get(&id).ok_or_else(|| errors::canister_not_found(&id))?;
        let list: Vec<_> =
            canister.snapshots.iter().map(|(number, snapshot)| describe(&id, *number, snapshot)).collect();
        Ok(encode((list,)))
    }

    pub(super) fn delete_canister_snapshot(&mut self, call: &Call) -> Result<Vec<u8>, Rejection> {
        let (args,) = decode::<(ic00::DeleteCanisterSnapshotArgs,)>(call.argument)?;
        let id = args.canister_id;
        let canister = self.canisters.get_mut(&id).ok_or_else(|| errors::canister_not_found(&id))?;
        let (number, _) = find(canister, &args.snapshot_id)?;
        canister.snapshots.remove(&number);
        Ok(unit_reply())
    }

    pub(super) fn read_canister_snapshot_metadata(&self, argument: &[u8]) -> Result<Vec<u8>, Rejection> {
        let (args,) = decode::<(ic00::ReadCanisterSnapshotMetadataArgs,)>(argument)?;
        let id = args.canister_id;
        let canister = self.canisters.get(&id).ok_or_else(|| errors::canister_not_found(&id))?;
        let (_, snapshot) = find(canister, &args.snapshot_id)?;
        let globals = snapshot.globals.as_deref().unwrap_or_default();
        let metadata = ic00::ReadCanisterSnapshotMetadataResult {
            source: Some(source_of(snapshot.source)),
            taken_at_timestamp: snapshot.taken_at_ns,
            wasm_module_size: snapshot.memory.wasm.len() as u64,
            globals: globals.iter().map(|value| Some(global_of(*value))).collect(),
            wasm_memory_size: snapshot.memory.heap.bytes,
            stable_memory_size: snapshot.memory.stable.bytes,
            wasm_chunk_store: snapshot
                .chunks
                .keys()
                .map(|hash| ic00::ChunkHash { hash: hash.to_vec() })
                .collect::<Vec<_>>(),
            canister_version: snapshot.canister_version,
            certified_data: snapshot.certified_data.clone(),
            global_timer: Some(match snapshot.global_timer_ns {
                0 => ic00::CanisterTimer::Inactive,
                time_ns => ic00::CanisterTimer::Active(time_ns),
            }),
            on_low_wasm_memory_hook_status: Some(match snapshot.low_memory_hook {
                LowMemoryHook::ConditionNotSatisfied => ic00::OnLowWasmMemoryHookStatus::ConditionNotSatisfied,
                LowMemoryHook::Ready => ic00::OnLowWasmMemoryHookStatus::Ready,
                LowMemoryHook::Executed => ic00::OnLowWasmMemoryHookStatus::Executed,
            }),
        };
        Ok(encode((metadata,)))
    }

    pub(super) fn read_canister_snapshot_data(&mut self, argument: &[u8]) -> Result<Vec<u8>, Rejection> {
        let (args,) = decode::<(ic00::ReadCanisterSnapshotDataArgs,)>(argument)?;
        let id = args.canister_id;
        let canister = self.canisters.get_mut(&id).ok_or_else(|| errors::canister_not_found(&id))?;
        let (_, snapshot) = find(canister, &args.snapshot_id)?;
        let SnapshotMemory { wasm, heap, stable } = &snapshot.memory;
        let checked = |offset: u64, size: u64, read: &dyn Fn() -> Option<Vec<u8>>| {
            if size > prices::SNAPSHOT_SLICE_BYTES {
                let allowed = prices::SNAPSHOT_SLICE_BYTES;
                return Err(errors::invalid_payload(format!("Requested slice too large: {size} > {allowed}")));
            }
            read().ok_or_else(|| invalid_slice(offset, size))
        };
        let chunk = match args.kind {
            ic00::SnapshotDataKind::WasmModule { offset, size } => checked(offset, size, &|| {
                let start = usize::try_from(offset).ok()?;
                let end = start.checked_add(usize::try_from(size).ok()?)?;
                wasm.get(start..end).map(<[u8]>::to_vec)
            })?,
            ic00::SnapshotDataKind::WasmMemory { offset, size } => checked(offset, size, &|| heap.read(offset, size))?,
            ic00::SnapshotDataKind::StableMemory { offset, size } => {
                checked(offset, size, &|| stable.read(offset, size))?
            }
            ic00::SnapshotDataKind::WasmChunk { hash } => {
                let chunk = <[u8; 32]>::try_from(hash.as_slice()).ok().and_then(|hash| snapshot.chunks.get(&hash));
                let missing =
                    || errors::contract_violation(format!("Chunk hash {} was not found.", hex::encode(&hash)));
                chunk.ok_or_else(missing)?.to_vec()
            }
        };
        charge(canister, prices::SNAPSHOT_DATA_INSTRUCTIONS.saturating_add(chunk.len() as u64))?;
        Ok(encode((ic00::ReadCanisterSnapshotDataResult { chunk },)))
    }

    pub(super) fn upload_canister_snapshot_metadata(&mut self, call: &Call) -> Result<Vec<u8>, Rejection> {
        let (args,) = decode::<(ic00::UploadCanisterSnapshotMetadataArgs,)>(call.argument)?;
        let id = args.canister_id;
        let time_ns = self.info.time_ns;
        let canister = self.canisters.get_mut(&id).ok_or_else(|| errors::canister_not_found(&id))?;
        let replaced = number_to_replace(canister, args.replace_snapshot.as_deref())?;
        let (most_wasm, most_heap) = (prices::MAX_MODULE_BYTES, prices::MAX_SNAPSHOT_HEAP_BYTES);
        for (what, size, most, unit) in [
            ("Wasm module", args.wasm_module_size, most_wasm, 1),
            ("Wasm memory", args.wasm_memory_size, most_heap, PAGE_BYTES as u64),
            ("stable memory", args.stable_memory_size, prices::MAX_STABLE_BYTES, PAGE_BYTES as u64),
        ] {
            if size > most || !size.is_multiple_of(unit) {
                let message =
                    format!("Snapshot metadata: a {what} of {size} bytes; at most {most}, in units of {unit}");
                return Err(errors::invalid_payload(message));
            }
        }
        let globals = args.globals.into_iter().map(global_from).collect::<Result<Vec<_>, _>>()?;
        let snapshot = Snapshot {
            source: Source::Uploaded,
            taken_at_ns: time_ns,
            canister_version: canister.version,
            certified_data: args.certified_data,
            chunks: Default::default(),
            globals: Some(globals),
            global_timer_ns: match args.global_timer {
                Some(ic00::CanisterTimer::Active(time_ns)) => time_ns,
                Some(ic00::CanisterTimer::Inactive) | None => 0,
            },
            low_memory_hook: match args.on_low_wasm_memory_hook_status {
                Some(ic00::OnLowWasmMemoryHookStatus::Ready) => LowMemoryHook::Ready,
                Some(ic00::OnLowWasmMemoryHookStatus::Executed) => LowMemoryHook::Executed,
                Some(ic00::OnLowWasmMemoryHookStatus::ConditionNotSatisfied) | None => {
                    LowMemoryHook::ConditionNotSatisfied
                }
            },
            memory: SnapshotMemory {
                wasm: vec![0; args.wasm_module_size as usize].into(),
                heap: MemoryImage::zeros(args.wasm_memory_size),
                stable: MemoryImage::zeros(args.stable_memory_size),
            },
        };
        charge(canister, prices::SNAPSHOT_INSTRUCTIONS.saturating_add(snapshot.bytes()))?;
        let stored = store(canister, snapshot, replaced)?;
        Ok(encode((ic00::UploadCanisterSnapshotMetadataResult { snapshot_id: stored.id },)))
    }

    pub(super) fn upload_canister_snapshot_data(&mut self, call: &Call) -> Result<Vec<u8>, Rejection> {
        let (args,) = decode::<(ic00::UploadCanisterSnapshotDataArgs,)>(call.argument)?;
        let id = args.canister_id;
        let canister = self.canisters.get_mut(&id).ok_or_else(|| errors::canister_not_found(&id))?;
        let (number, snapshot) = find(canister, &args.snapshot_id)?;
        if snapshot.source != Source::Uploaded {
            let message = "Only canister snapshots created by metadata upload can be mutated.";
            return Err(Rejection::new(ErrorCode::CanisterSnapshotImmutable, message));
        }
        charge(canister, prices::SNAPSHOT_DATA_INSTRUCTIONS.saturating_add(args.chunk.len() as u64))?;
        let Some(snapshot) = canister.snapshots.get_mut(&number) else {
            return Err(not_found(&id, &args.snapshot_id));
        };
        let (memory, size) = (&mut snapshot.memory, args.chunk.len() as u64);
        match args.kind {
            ic00::SnapshotDataOffset::WasmModule { offset } => {
                let mut wasm = memory.wasm.to_vec();
                let range = usize::try_from(offset).ok().and_then(|start| {
                    let end = start.checked_add(args.chunk.len())?;
                    wasm.get_mut(start..end)
                });
                range.ok_or_else(|| invalid_slice(offset, size))?.copy_from_slice(&args.chunk);
                memory.wasm = wasm.into();
            }
            ic00::SnapshotDataOffset::WasmMemory { offset } => {
                if !memory.heap.write(offset, &args.chunk) {
                    return Err(invalid_slice(offset, size));
                }
            }
            ic00::SnapshotDataOffset::StableMemory { offset } => {
                if !memory.stable.write(offset, &args.chunk) {
                    return Err(invalid_slice(offset, size));
                }
            }
            ic00::SnapshotDataOffset::WasmChunk => {
                if size > prices::CHUNK_BYTES || snapshot.chunks.len() >= prices::MAX_CHUNKS {
                    return Err(errors::contract_violation(format!(
                        "Error from Wasm chunk store: a chunk of {size} bytes, {} stored; at most {} of {} bytes.",
                        snapshot.chunks.len(),
                        prices::MAX_CHUNKS,
                        prices::CHUNK_BYTES
                    )));
                }
                snapshot.chunks.insert(Sha256::digest(&args.chunk).into(), args.chunk.into());
            }
        }
        Ok(unit_reply())
    }

    /// A query about snapshots, for whom the snapshots are visible to.
    pub(super) fn query_snapshots(&mut self, call: &QueryCall) -> Result<Vec<u8>, Rejection> {
        let (args,) = decode::<(ic00::CanisterIdRecord,)>(&call.argument)?;
        let id = args.canister_id;
        let canister = self.canisters.get(&id).ok_or_else(|| errors::canister_not_found(&id))?;
        if !canister.settings.snapshots_visible_to(&call.sender) {
            return Err(errors::not_controller_ingress(&id, &call.method));
        }
        self.list_canister_snapshots(&call.argument)
    }
}

fn instantiate(
    engine: &crate::execution::Engine,
    module: &crate::execution::Module,
    snapshot: &Snapshot,
) -> anyhow::Result<Instance> {
    let SnapshotMemory { heap, stable, .. } = &snapshot.memory;
    let mut stable_memory = StableMemory::with_size(stable.bytes)?;
    for (page, bytes) in &stable.pages {
        stable_memory.put_page(*page, bytes);
    }
    let mut instance = Instance::restored(engine, module, snapshot.globals.as_deref(), heap.bytes, stable_memory)?;
    for (page, bytes) in &heap.pages {
        instance.put_heap_page(*page, bytes)?;
    }
    Ok(instance)
}

/// Takes what an operation of so many instructions costs.
fn charge(canister: &mut Canister, instructions: u64) -> Result<(), Rejection> {
    let cost = prices::execution(instructions);
    canister.withdraw(cost).map_err(|missing| {
        let cause = errors::out_of_cycles_text(&canister.id, Some(missing));
        Rejection::new(ErrorCode::CanisterOutOfCycles, format!("Canister snapshotting failed with: `{cause}`"))
    })?;
    canister.counters.cycles.execution += cost;
    Ok(())
}

/// The number of the snapshot that a new one replaces; without one there must be room.
fn number_to_replace(canister: &Canister, replaced: Option<&[u8]>) -> Result<Option<u64>, Rejection> {
    match replaced {
        Some(id) => Ok(Some(find(canister, id)?.0)),
        None if canister.snapshots.len() >= prices::MAX_SNAPSHOTS => {
            let message = format!(
                "Canister {} has reached the maximum number of snapshots allowed: {}.",
                canister.id,
                prices::MAX_SNAPSHOTS
            );
            Err(Rejection::new(ErrorCode::CanisterRejectedMessage, message))
        }
        None => Ok(None),
    }
}

/// Puts a snapshot in, if the canister can pay for keeping it.
fn store(canister: &mut Canister, snapshot: Snapshot, replaced: Option<u64>) -> Result<ic00::Snapshot, Rejection> {
    let old = replaced.and_then(|number| canister.snapshots.remove_entry(&number));
    let number = canister.next_snapshot;
    let described = describe(&canister.id, number, &snapshot);
    canister.snapshots.insert(number, snapshot);
    let limit = canister.freezing_limit();
    if canister.cycles < limit {
        canister.snapshots.remove(&number);
        canister.snapshots.extend(old);
        let message = format!(
            "Canister cannot grow memory by {} bytes due to insufficient cycles. At least {} additional cycles are \
             required.",
            described.total_size,
            limit - canister.cycles
        );
        return Err(Rejection::new(ErrorCode::InsufficientCyclesInMemoryGrow, message));
    }
    canister.next_snapshot += 1;
    Ok(described)
}

fn describe(id: &Principal, number: u64, snapshot: &Snapshot) -> ic00::Snapshot {
    ic00::Snapshot {
        id: snapshot_id(id, number),
        taken_at_timestamp: snapshot.taken_at_ns,
        total_size: snapshot.bytes(),
    }
}

fn find<'a>(canister: &'a Canister, id: &[u8]) -> Result<(u64, &'a Snapshot), Rejection> {
    let (owner, number) = parse_snapshot_id(id).ok_or_else(|| not_found(&canister.id, id))?;
    if owner != canister.id {
        let message = format!("The snapshot {} does not belong to canister {}.", hex::encode(id), canister.id);
        return Err(Rejection::new(ErrorCode::CanisterRejectedMessage, message));
    }
    let snapshot = canister.snapshots.get(&number).ok_or_else(|| not_found(&canister.id, id))?;
    Ok((number, snapshot))
}

fn not_found(canister: &Principal, id: &[u8]) -> Rejection {
    let message = format!("Could not find the snapshot ID {} for canister {canister}.", hex::encode(id));
    Rejection::new(ErrorCode::CanisterSnapshotNotFound, message)
}

fn invalid_slice(offset: u64, size: u64) -> Rejection {
    errors::invalid_payload(format!(
        "Invalid subslice into wasm module / main memory / stable memory: offset: {offset}, size: {size}"
    ))
}

fn source_of(source: Source) -> ic00::SnapshotSource {
    match source {
        Source::Taken => ic00::SnapshotSource::TakenFromCanister(candid::Reserved),
        Source::Uploaded => ic00::SnapshotSource::MetadataUpload(candid::Reserved),
    }
}

fn global_of(value: GlobalValue) -> ic00::SnapshotMetadataGlobal {
    match value {
        GlobalValue::I32(value) => ic00::SnapshotMetadataGlobal::I32(value),
        GlobalValue::I64(value) => ic00::SnapshotMetadataGlobal::I64(value),
        GlobalValue::F32(bits) => ic00::SnapshotMetadataGlobal::F32(f32::from_bits(bits)),
        GlobalValue::F64(bits) => ic00::SnapshotMetadataGlobal::F64(f64::from_bits(bits)),
        GlobalValue::V128(value) => ic00::SnapshotMetadataGlobal::V128(Nat::from(value)),
    }
}

fn global_from(value: ic00::SnapshotMetadataGlobal) -> Result<GlobalValue, Rejection> {
    Ok(match value {
        ic00::SnapshotMetadataGlobal::I32(value) => GlobalValue::I32(value),
        ic00::SnapshotMetadataGlobal::I64(value) => GlobalValue::I64(value),
        ic00::SnapshotMetadataGlobal::F32(value) => GlobalValue::F32(value.to_bits()),
        ic00::SnapshotMetadataGlobal::F64(value) => GlobalValue::F64(value.to_bits()),
        ic00::SnapshotMetadataGlobal::V128(value) => GlobalValue::V128(super::settings::to_u128("v128", value)?),
    })
}
