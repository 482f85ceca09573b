//! The chunk store: pieces of a module too large for one message.

use super::super::Subnet;
use super::super::errors;
use super::super::prices;
use super::super::types::{ErrorCode, Rejection};
use super::{Call, decode, encode, unit_reply};
use ic_management_canister_types as ic00;
use sha2::{Digest, Sha256};

impl Subnet {
    /// Stores a chunk under its hash and charges the canister for it; one that is there already costs nothing more
    /// than the message.
    pub(super) fn upload_chunk(&mut self, call: &Call) -> Result<Vec<u8>, Rejection> {
        let (args,) = decode::<(ic00::UploadChunkArgs,)>(call.argument)?;
        let id = args.canister_id;
        let canister = self.canisters.get_mut(&id).ok_or_else(|| errors::canister_not_found(&id))?;
        if args.chunk.len() as u64 > prices::CHUNK_BYTES {
            let message = format!(
                "Error from Wasm chunk store: Wasm chunk size {} exceeds the maximum chunk size of {}.",
                args.chunk.len(),
                prices::CHUNK_BYTES
            );
            return Err(errors::contract_violation(message));
        }
        let hash: [u8; 32] = Sha256::digest(&args.chunk).into();
        if !canister.chunks.contains_key(&hash) {
            if canister.chunks.len() >= prices::MAX_CHUNKS {
                let message = format!(
                    "Error from Wasm chunk store: Wasm chunk store has already reached maximum capacity of {} bytes \
                     or the maximum number of chunks, {}",
                    prices::MAX_CHUNKS as u64 * prices::CHUNK_BYTES,
                    prices::MAX_CHUNKS
                );
                return Err(errors::contract_violation(message));
            }
            let cost = prices::execution(prices::UPLOAD_CHUNK_INSTRUCTIONS);
            // The store grows, and with it what the balance must not fall below.
            canister.chunks.insert(hash, args.chunk.into());
            if let Err(missing) = canister.withdraw(cost) {
                canister.chunks.remove(&hash);
                let message =
                    format!("Error from Wasm chunk store: {}", errors::out_of_cycles_text(&id, Some(missing)));
                return Err(Rejection::new(ErrorCode::CanisterOutOfCycles, message));
            }
            canister.counters.cycles.execution += cost;
        }
        Ok(encode((ic00::ChunkHash { hash: hash.to_vec() },)))
    }

    pub(super) fn stored_chunks(&mut self, call: &Call) -> Result<Vec<u8>, Rejection> {
        let (args,) = decode::<(ic00::CanisterIdRecord,)>(call.argument)?;
        let id = args.canister_id;
        let canister = self.canisters.get(&id).ok_or_else(|| errors::canister_not_found(&id))?;
        let hashes: Vec<_> = canister.chunks.keys().map(|hash| ic00::ChunkHash { hash: hash.to_vec() }).collect();
        Ok(encode((hashes,)))
    }

    pub(super) fn clear_chunk_store(&mut self, call: &Call) -> Result<Vec<u8>, Rejection> {
        let (args,) = decode::<(ic00::CanisterIdRecord,)>(call.argument)?;
        let id = args.canister_id;
        let canister = self.canisters.get_mut(&id).ok_or_else(|| errors::canister_not_found(&id))?;
        canister.chunks.clear();
        Ok(unit_reply())
    }

    /// Puts the module of an `install_chunked_code` together.
    pub(super) fn assemble_chunks(
        &self,
        args: &ic00::InstallChunkedCodeArgs,
        call: &Call,
    ) -> Result<Vec<u8>, Rejection> {
        let store_id = args.store_canister.unwrap_or(args.target_canister);
        let store = self.canisters.get(&store_id).ok_or_else(|| errors::canister_not_found(&store_id))?;
        let may_read = store.settings.controllers.contains(&call.sender) || call.sender == store_id;
        if !may_read {
            return Err(errors::not_controller(&store_id, store.settings.controllers.iter().copied(), &call.sender));
        }
        let mut module = Vec::new();
        for chunk in &args.chunk_hashes_list {
            let hash: [u8; 32] = chunk.hash.as_slice().try_into().map_err(|_| {
                errors::contract_violation("Error from Wasm chunk store: Chunk hash is invalid. The length is not 32.")
            })?;
            let chunk = store.chunks.get(&hash).ok_or_else(|| {
                errors::contract_violation(format!("Error from Wasm chunk store: Chunk hash {hash:?} was not found."))
            })?;
            if (module.len() + chunk.len()) as u64 > prices::MAX_MODULE_BYTES {
                let message = format!("Wasm module is larger than {} bytes", prices::MAX_MODULE_BYTES);
                return Err(Rejection::new(ErrorCode::CanisterInvalidWasm, message));
            }
            module.extend_from_slice(chunk);
        }
        let hash: [u8; 32] = Sha256::digest(&module).into();
        if hash.as_slice() != args.wasm_module_hash {
            let message = format!(
                "Error from Wasm chunk store: Wasm module hash {hash:?} does not match given hash {:?}.",
                args.wasm_module_hash
            );
            return Err(errors::contract_violation(message));
        }
        Ok(module)
    }
}
