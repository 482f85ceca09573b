//! The management canister.
//!
//! Source: Interface Specification, "The IC management canister". Methods that need other subnets or keys
//! (`http_request`, threshold signatures, the Bitcoin API) are not there.

mod chunks;
mod install;
mod lifecycle;
mod settings;
mod snapshots;
mod status;

use super::Subnet;
use super::errors;
use super::message::{Answer, Origin, Request};
use super::scheduler::RoundSummary;
use super::types::{ErrorCode, Ingress, QueryCall, Rejection};
use candid::utils::ArgumentDecoder;
use candid::{CandidType, Principal};
use ic_management_canister_types as ic00;
use rand_chacha::rand_core::RngCore;
use serde::Deserialize;

/// The methods of the management canister that this subnet serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    CreateCanister,
    ProvisionalCreateCanisterWithCycles,
    ProvisionalTopUpCanister,
    InstallCode,
    InstallChunkedCode,
    UploadChunk,
    StoredChunks,
    ClearChunkStore,
    UninstallCode,
    StartCanister,
    StopCanister,
    DeleteCanister,
    UpdateSettings,
    CanisterStatus,
    CanisterInfo,
    CanisterMetadata,
    DepositCycles,
    RawRand,
    FetchCanisterLogs,
    TakeCanisterSnapshot,
    LoadCanisterSnapshot,
    ListCanisterSnapshots,
    DeleteCanisterSnapshot,
    ReadCanisterSnapshotMetadata,
    ReadCanisterSnapshotData,
    UploadCanisterSnapshotMetadata,
    UploadCanisterSnapshotData,
}

/// Who may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Anyone,
    /// Controllers of the canister it is about, whether users or canisters.
    Controllers,
    Canisters,
    /// Only query calls.
    QueriesOnly,
}

impl Method {
    fn from_name(name: &str) -> Result<Self, Rejection> {
        Ok(match name {
            "create_canister" => Method::CreateCanister,
            "provisional_create_canister_with_cycles" => Method::ProvisionalCreateCanisterWithCycles,
            "provisional_top_up_canister" => Method::ProvisionalTopUpCanister,
            "install_code" => Method::InstallCode,
            "install_chunked_code" => Method::InstallChunkedCode,
            "upload_chunk" => Method::UploadChunk,
            "stored_chunks" => Method::StoredChunks,
            "clear_chunk_store" => Method::ClearChunkStore,
            "uninstall_code" => Method::UninstallCode,
            "start_canister" => Method::StartCanister,
            "stop_canister" => Method::StopCanister,
            "delete_canister" => Method::DeleteCanister,
            "update_settings" => Method::UpdateSettings,
            "canister_status" => Method::CanisterStatus,
            "canister_info" => Method::CanisterInfo,
            "canister_metadata" => Method::CanisterMetadata,
            "deposit_cycles" => Method::DepositCycles,
            "raw_rand" => Method::RawRand,
            "fetch_canister_logs" => Method::FetchCanisterLogs,
            "take_canister_snapshot" => Method::TakeCanisterSnapshot,
            "load_canister_snapshot" => Method::LoadCanisterSnapshot,
            "list_canister_snapshots" => Method::ListCanisterSnapshots,
            "delete_canister_snapshot" => Method::DeleteCanisterSnapshot,
            "read_canister_snapshot_metadata" => Method::ReadCanisterSnapshotMetadata,
            "read_canister_snapshot_data" => Method::ReadCanisterSnapshotData,
            "upload_canister_snapshot_metadata" => Method::UploadCanisterSnapshotMetadata,
            "upload_canister_snapshot_data" => Method::UploadCanisterSnapshotData,
            _ => return Err(errors::no_management_method(name)),
        })
    }

    fn access(self) -> Access {
        match self {
            Method::ProvisionalCreateCanisterWithCycles | Method::ProvisionalTopUpCanister => Access::Anyone,
            Method::InstallCode
            | Method::InstallChunkedCode
            | Method::UploadChunk
            | Method::StoredChunks
            | Method::ClearChunkStore
            | Method::UninstallCode
            | Method::StartCanister
            | Method::StopCanister
            | Method::DeleteCanister
            | Method::UpdateSettings
            | Method::CanisterStatus
            | Method::TakeCanisterSnapshot
            | Method::LoadCanisterSnapshot
            | Method::ListCanisterSnapshots
            | Method::DeleteCanisterSnapshot
            | Method::ReadCanisterSnapshotMetadata
            | Method::ReadCanisterSnapshotData
            | Method::UploadCanisterSnapshotMetadata
            | Method::UploadCanisterSnapshotData => Access::Controllers,
            Method::CreateCanister
            | Method::CanisterInfo
            | Method::CanisterMetadata
            | Method::DepositCycles
            | Method::RawRand => Access::Canisters,
            Method::FetchCanisterLogs => Access::QueriesOnly,
        }
    }

    /// Whether the call waits until a message of several slices that runs on its canister is over.
    fn waits_for_canister(self) -> bool {
        !matches!(
            self,
            Method::CanisterStatus
                | Method::CanisterInfo
                | Method::CanisterMetadata
                | Method::DepositCycles
                | Method::ProvisionalTopUpCanister
                | Method::StoredChunks
                | Method::ListCanisterSnapshots
                | Method::ReadCanisterSnapshotMetadata
        )
    }

    /// Methods that the setting `snapshot_visibility` opens to others than the controllers.
    fn shows_snapshots(self) -> bool {
        matches!(
            self,
            Method::ListCanisterSnapshots | Method::ReadCanisterSnapshotMetadata | Method::ReadCanisterSnapshotData
        )
    }

    /// The canister that the call is about, which pays for it.
    fn target(self, argument: &[u8]) -> Result<Option<Principal>, Rejection> {
        #[derive(CandidType, Deserialize)]
        struct TargetCanister {
            target_canister: Principal,
        }
        match self {
            Method::CreateCanister | Method::ProvisionalCreateCanisterWithCycles | Method::RawRand => Ok(None),
            Method::InstallChunkedCode => {
                Ok(Some(decode::<(TargetCanister,)>(argument).map(|(record,)| record.target_canister)?))
            }
            _ => Ok(Some(decode::<(ic00::CanisterIdRecord,)>(argument).map(|(record,)| record.canister_id)?)),
        }
    }
}

/// One call of the management canister while it is executed.
struct Call<'a> {
    origin: &'a Origin,
    sender: Principal,
    method: &'a str,
    argument: &'a [u8],
    /// Attached cycles; what a handler leaves here goes back.
    cycles: u128,
}

/// The reply of a method without result.
pub fn unit_reply() -> Vec<u8> {
    encode(())
}

/// Decodes a Candid argument, as the network words what is wrong with it.
fn decode<'a, T: ArgumentDecoder<'a>>(argument: &'a [u8]) -> Result<T, Rejection> {
    candid::decode_args(argument).map_err(|error| errors::invalid_payload(format!("Error decoding candid: {error:#}")))
}

fn encode<T: candid::utils::ArgumentEncoder>(reply: T) -> Vec<u8> {
    // Only types whose sizes overflow fail to encode.
    candid::encode_args(reply).expect("replies of the management canister encode")
}

impl Subnet {
    /// Checks an ingress message to the management canister and charges its induction.
    pub(super) fn induct_management(&mut self, ingress: &Ingress) -> Result<(), Rejection> {
        let method = Method::from_name(&ingress.method)?;
        match method.access() {
            Access::Anyone => Ok(()),
            Access::Canisters => Err(errors::only_canisters(&ingress.method)),
            Access::QueriesOnly => Err(logs_in_replicated_mode()),
            Access::Controllers => {
                let Some(id) = method.target(&ingress.argument)? else { return Ok(()) };
                let canister = self.canisters.get(&id).ok_or_else(|| errors::canister_not_found(&id))?;
                let settings = &canister.settings;
                let may = settings.controllers.contains(&ingress.sender)
                    || (method == Method::CanisterStatus && settings.status_visible_to(&ingress.sender))
                    || (method.shows_snapshots() && settings.snapshots_visible_to(&ingress.sender));
                if !may {
                    return Err(errors::not_controller_ingress(&id, &ingress.method));
                }
                self.charge_ingress(&id, ingress)
            }
        }
    }

    /// Executes all waiting management calls, but for those whose canister is busy; true if there were any.
    pub(super) fn execute_management(&mut self, summary: &mut RoundSummary) -> bool {
        let mut has_moved = false;
        for request in std::mem::take(&mut self.management) {
            let method = Method::from_name(&request.method);
            let waits = method.as_ref().is_ok_and(|method| method.waits_for_canister());
            let target = method.and_then(|method| method.target(&request.argument));
            if let Ok(Some(id)) = target
                && waits
                && self.is_busy(&id)
            {
                self.management.push_back(request);
                continue;
            }
            has_moved = true;
            summary.messages += 1;
            let instructions_before = target.as_ref().ok().copied().flatten().map(|id| self.instructions_of(&id));
            self.execute_management_call(request);
            if let (Ok(Some(id)), Some(before)) = (target, instructions_before) {
                summary.instructions += self.instructions_of(&id).saturating_sub(before);
                self.finish_stop(&id);
            }
        }
        has_moved
    }

    fn instructions_of(&self, id: &Principal) -> u64 {
        self.canisters.get(id).map_or(0, |canister| canister.counters.instructions)
    }

    fn execute_management_call(&mut self, request: Request) {
        let Some(request) = self.refuse_expired(request) else { return };
        let mut call = Call {
            origin: &request.origin,
            sender: request.origin.sender(),
            method: &request.method,
            argument: &request.argument,
            cycles: request.cycles,
        };
        let result = self.dispatch(&mut call).transpose();
        let refund = call.cycles;
        match result {
            Some(result) => self.answer(Answer { to: request.origin, result, refund }),
            None => self.mark_processing(&request.origin),
        }
    }

    /// Executes a call; `None` when its answer comes later.
    fn dispatch(&mut self, call: &mut Call) -> Result<Option<Vec<u8>>, Rejection> {
        let method = Method::from_name(call.method)?;
        match method.access() {
            Access::Canisters if !matches!(call.origin, Origin::Canister { .. }) => {
                return Err(errors::only_canisters(call.method));
            }
            Access::QueriesOnly => return Err(logs_in_replicated_mode()),
            Access::Controllers => {
                if let Some(id) = method.target(call.argument)? {
                    self.check_controller(&id, call, method)?;
                }
            }
            Access::Canisters | Access::Anyone => {}
        }
        let reply = match method {
            Method::CreateCanister => self.create_canister(call)?,
            Method::ProvisionalCreateCanisterWithCycles => self.provisional_create_canister(call)?,
            Method::ProvisionalTopUpCanister => self.provisional_top_up_canister(call)?,
            Method::InstallCode => self.install_code(call)?,
            Method::InstallChunkedCode => self.install_chunked_code(call)?,
            Method::UploadChunk => self.upload_chunk(call)?,
            Method::StoredChunks => self.stored_chunks(call)?,
            Method::ClearChunkStore => self.clear_chunk_store(call)?,
            Method::UninstallCode => self.uninstall_code(call)?,
            Method::StartCanister => self.start_canister(call)?,
            Method::StopCanister => return self.stop_canister(call),
            Method::DeleteCanister => self.delete_canister(call)?,
            Method::UpdateSettings => self.update_settings(call)?,
            Method::CanisterStatus => self.canister_status(call.argument)?,
            Method::CanisterInfo => self.canister_info(call)?,
            Method::CanisterMetadata => self.canister_metadata(call)?,
            Method::DepositCycles => self.deposit_cycles(call)?,
            Method::RawRand => self.raw_rand(call)?,
            Method::FetchCanisterLogs => return Err(logs_in_replicated_mode()),
            Method::TakeCanisterSnapshot => self.take_canister_snapshot(call)?,
            Method::LoadCanisterSnapshot => self.load_canister_snapshot(call)?,
            Method::ListCanisterSnapshots => self.list_canister_snapshots(call.argument)?,
            Method::DeleteCanisterSnapshot => self.delete_canister_snapshot(call)?,
            Method::ReadCanisterSnapshotMetadata => self.read_canister_snapshot_metadata(call.argument)?,
            Method::ReadCanisterSnapshotData => self.read_canister_snapshot_data(call.argument)?,
            Method::UploadCanisterSnapshotMetadata => self.upload_canister_snapshot_metadata(call)?,
            Method::UploadCanisterSnapshotData => self.upload_canister_snapshot_data(call)?,
        };
        Ok(Some(reply))
    }

    /// A query call to the management canister.
    pub(super) fn query_management(&mut self, call: &QueryCall) -> Result<Vec<u8>, Rejection> {
        match Method::from_name(&call.method)? {
            Method::FetchCanisterLogs => self.fetch_canister_logs(&call.sender, &call.argument),
            method @ Method::CanisterStatus => {
                let id = method.target(&call.argument)?.unwrap_or_else(Principal::management_canister);
                let canister = self.canisters.get(&id).ok_or_else(|| errors::canister_not_found(&id))?;
                if !canister.settings.status_visible_to(&call.sender) {
                    return Err(errors::not_controller_ingress(&id, &call.method));
                }
                self.canister_status(&call.argument)
            }
            Method::ListCanisterSnapshots => self.query_snapshots(call),
            _ => {
                let message = format!("Query method {} not found.", call.method);
                Err(Rejection::new(ErrorCode::CanisterMethodNotFound, message))
            }
        }
    }

    /// The canister exists and the caller controls it; a canister may also ask for its own status.
    fn check_controller(&self, id: &Principal, call: &Call, method: Method) -> Result<(), Rejection> {
        let canister = self.canisters.get(id).ok_or_else(|| errors::canister_not_found(id))?;
        let settings = &canister.settings;
        let may_see = (method == Method::CanisterStatus
            && (call.sender == *id || settings.status_visible_to(&call.sender)))
            || (method.shows_snapshots() && settings.snapshots_visible_to(&call.sender));
        // A canister may change its own settings only as its own controller, but manages its own chunk store.
        let is_own_store = call.sender == *id
            && matches!(method, Method::UploadChunk | Method::StoredChunks | Method::ClearChunkStore);
        if settings.controllers.contains(&call.sender) || may_see || is_own_store {
            return Ok(());
        }
        Err(match call.origin {
            Origin::Ingress { .. } => errors::not_controller_ingress(id, call.method),
            Origin::Canister { .. } | Origin::System => {
                errors::not_controller(id, settings.controllers.iter().copied(), &call.sender)
            }
        })
    }

    /// 32 bytes of the subnet's randomness.
    fn raw_rand(&mut self, call: &Call) -> Result<Vec<u8>, Rejection> {
        decode::<()>(call.argument)?;
        let mut bytes = vec![0; 32];
        self.random.fill_bytes(&mut bytes);
        Ok(encode((bytes,)))
    }
}

fn logs_in_replicated_mode() -> Rejection {
    Rejection::new(
        ErrorCode::CanisterRejectedMessage,
        "FetchCanisterLogs API is only accessible in non-replicated mode",
    )
}
