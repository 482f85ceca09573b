//! Making, starting, stopping and deleting canisters, and giving them cycles.

use super::super::canister::{Canister, Status, StopRequest};
use super::super::errors;
use super::super::message::{Answer, Origin};
use super::super::prices;
use super::super::settings::Settings;
use super::super::types::{ErrorCode, Rejection};
use super::super::{Subnet, canister_id};
use super::settings::{changed_settings, to_u128};
use super::{Call, decode, encode, unit_reply};
use candid::Principal;
use ic_management_canister_types as ic00;

impl Subnet {
    /// `create_canister`: the fee comes out of the attached cycles, the rest is the new canister's balance.
    pub(super) fn create_canister(&mut self, call: &mut Call) -> Result<Vec<u8>, Rejection> {
        let (args,) = decode::<(ic00::CreateCanisterArgs,)>(call.argument)?;
        let Some(cycles) = call.cycles.checked_sub(prices::CANISTER_CREATION) else {
            let message = format!(
                "Creating a canister requires a fee of {} that is deducted from the canister's initial balance but \
                 only {} cycles were received with the create_canister request.",
                prices::CANISTER_CREATION,
                call.cycles
            );
            return Err(Rejection::new(ErrorCode::InsufficientCyclesForCreateCanister, message));
        };
        let id = self.free_id();
        self.add_canister(call.sender, call.origin, id, args.settings, cycles, args.sender_canister_version)?;
        call.cycles = 0;
        Ok(encode((ic00::CanisterIdRecord { canister_id: id },)))
    }

    /// A canister of `controller` (unless the settings name others), made by a canister of the network.
    pub(in crate::subnet) fn make_canister(
        &mut self,
        controller: Principal,
        origin: &Origin,
        settings: Option<ic00::CanisterSettings>,
        cycles: u128,
    ) -> Result<Principal, Rejection> {
        let id = self.free_id();
        self.add_canister(controller, origin, id, settings, cycles, None)?;
        Ok(id)
    }

    /// `provisional_create_canister_with_cycles`: cycles out of nothing, and an id of the caller's choice.
    pub(super) fn provisional_create_canister(&mut self, call: &mut Call) -> Result<Vec<u8>, Rejection> {
        let (args,) = decode::<(ic00::ProvisionalCreateCanisterWithCyclesArgs,)>(call.argument)?;
        let cycles = match args.amount {
            Some(amount) => to_u128("amount", amount)?,
            None => prices::PROVISIONAL_CYCLES,
        };
        let id = match args.specified_id {
            None => self.free_id(),
            Some(id) if self.canisters.contains_key(&id) => {
                let message = format!("Unsuccessful canister creation: canister id {id} already exists.");
                return Err(Rejection::new(ErrorCode::CanisterIdAlreadyExists, message));
            }
            Some(id) if is_canister_id(&id) => id,
            Some(id) => {
                return Err(errors::invalid_payload(format!(
                    "The `specified_id` {id} is invalid because it is not the id of a canister on this subnet."
                )));
            }
        };
        self.add_canister(call.sender, call.origin, id, args.settings, cycles, args.sender_canister_version)?;
        Ok(encode((ic00::CanisterIdRecord { canister_id: id },)))
    }

    fn add_canister(
        &mut self,
        controller: Principal,
        origin: &Origin,
        id: Principal,
        settings: Option<ic00::CanisterSettings>,
        cycles: u128,
        sender_version: Option<u64>,
    ) -> Result<(), Rejection> {
        let mut canister = Canister::new(id, Settings::new(controller), cycles, self.info.time_ns);
        if let Some(settings) = settings {
            canister.settings = changed_settings(&canister, settings)?;
        }
        let creation = ic00::CreationRecord {
            controllers: canister.settings.controllers.iter().copied().collect(),
            environment_variables_hash: None,
        };
        let details = ic00::ChangeDetails::Creation(creation);
        canister.record_change(self.info.time_ns, origin, sender_version, details);
        self.certified.set_canister(&canister);
        self.canisters.insert(id, canister);
        Ok(())
    }

    /// The next id that nobody chose.
    fn free_id(&mut self) -> Principal {
        loop {
            let id = canister_id(self.next_canister);
            self.next_canister += 1;
            if !self.canisters.contains_key(&id) {
                return id;
            }
        }
    }

    pub(super) fn provisional_top_up_canister(&mut self, call: &Call) -> Result<Vec<u8>, Rejection> {
        let (args,) = decode::<(ic00::ProvisionalTopUpCanisterArgs,)>(call.argument)?;
        let cycles = to_u128("amount", args.amount)?;
        match self.add_cycles(&args.canister_id, cycles) {
            Some(_) => Ok(unit_reply()),
            None => Err(errors::canister_not_found(&args.canister_id)),
        }
    }

    pub(super) fn deposit_cycles(&mut self, call: &mut Call) -> Result<Vec<u8>, Rejection> {
        let (args,) = decode::<(ic00::CanisterIdRecord,)>(call.argument)?;
        match self.add_cycles(&args.canister_id, call.cycles) {
            Some(_) => {
                call.cycles = 0;
                Ok(unit_reply())
            }
            None => Err(errors::canister_not_found(&args.canister_id)),
        }
    }

    pub(super) fn start_canister(&mut self, call: &Call) -> Result<Vec<u8>, Rejection> {
        let (args,) = decode::<(ic00::CanisterIdRecord,)>(call.argument)?;
        let id = args.canister_id;
        let canister = self.canisters.get_mut(&id).ok_or_else(|| errors::canister_not_found(&id))?;
        let before = std::mem::replace(&mut canister.status, Status::Running);
        if let Status::Stopping(requests) = before {
            for request in requests {
                let message = format!("Canister {id}'s stop request was cancelled.");
                let result = Err(Rejection::new(ErrorCode::CanisterStoppingCancelled, message));
                self.answer(Answer { to: request.origin, result, refund: request.cycles });
            }
        }
        Ok(unit_reply())
    }

    /// The answer comes when the canister has no open calls any more.
    pub(super) fn stop_canister(&mut self, call: &mut Call) -> Result<Option<Vec<u8>>, Rejection> {
        let (args,) = decode::<(ic00::CanisterIdRecord,)>(call.argument)?;
        let id = args.canister_id;
        let deadline_ns = self.info.time_ns.saturating_add(prices::STOP_TIMEOUT_NS);
        let canister = self.canisters.get_mut(&id).ok_or_else(|| errors::canister_not_found(&id))?;
        let request =
            StopRequest { origin: call.origin.clone(), cycles: std::mem::take(&mut call.cycles), deadline_ns };
        match &mut canister.status {
            Status::Stopped => {
                call.cycles = request.cycles;
                Ok(Some(unit_reply()))
            }
            Status::Stopping(requests) => {
                requests.push(request);
                Ok(None)
            }
            Status::Running => {
                canister.status = Status::Stopping(vec![request]);
                Ok(None)
            }
        }
    }

    pub(super) fn delete_canister(&mut self, call: &Call) -> Result<Vec<u8>, Rejection> {
        let (args,) = decode::<(ic00::CanisterIdRecord,)>(call.argument)?;
        let id = args.canister_id;
        if call.sender == id {
            let message = format!("Canister {id} cannot delete itself.");
            return Err(Rejection::new(ErrorCode::CanisterInvalidController, message));
        }
        let canister = self.canisters.get(&id).ok_or_else(|| errors::canister_not_found(&id))?;
        if !matches!(canister.status, Status::Stopped) {
            let message = format!("Canister {id} must be stopped before it is deleted.");
            return Err(Rejection::new(ErrorCode::CanisterNotStopped, message));
        }
        if canister.has_work() {
            let message = format!(
                "Canister {id} has messages in its queues and cannot be deleted now. Please retry after some time."
            );
            return Err(Rejection::new(ErrorCode::CanisterQueueNotEmpty, message));
        }
        self.canisters.remove(&id);
        self.certified.remove_canister(&id);
        Ok(unit_reply())
    }

    pub(super) fn uninstall_code(&mut self, call: &Call) -> Result<Vec<u8>, Rejection> {
        let (args,) = decode::<(ic00::UninstallCodeArgs,)>(call.argument)?;
        if !self.canisters.contains_key(&args.canister_id) {
            return Err(errors::canister_not_found(&args.canister_id));
        }
        self.uninstall(&args.canister_id, call.origin, args.sender_canister_version);
        Ok(unit_reply())
    }

    /// Takes code and memories away, and answers whom the canister had not answered yet.
    pub(super) fn uninstall(&mut self, id: &Principal, origin: &Origin, sender_version: Option<u64>) {
        let Some(canister) = self.canisters.get_mut(id) else { return };
        let unanswered = canister.uninstall();
        canister.record_change(self.info.time_ns, origin, sender_version, ic00::ChangeDetails::CodeUninstall);
        self.certified.set_canister(canister);
        for (to, refund) in unanswered {
            self.answer(Answer { to, result: Err(errors::uninstalled()), refund });
        }
    }
}

/// Ids of canisters are ten bytes and end in two ones.
fn is_canister_id(id: &Principal) -> bool {
    matches!(id.as_slice(), [_, _, _, _, _, _, _, _, 1, 1])
}
