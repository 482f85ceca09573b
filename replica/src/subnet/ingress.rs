//! Induction of ingress messages, and the answers they get.

use super::Subnet;
use super::canister::Status;
use super::errors;
use super::message::{Answer, Origin, Request, Response};
use super::prices;
use super::run::plain_message;
use super::types::{Ingress, IngressState, IngressStatus, Rejection};
use crate::execution::EntryPoint;
use candid::Principal;

impl Subnet {
    /// Takes an ingress message in, if the network would: the canister exists, runs, can pay for it and accepts it.
    /// A message already known by its id is accepted again without effect.
    pub fn submit(&mut self, ingress: Ingress) -> Result<(), Rejection> {
        if self.history.get(&ingress.id).is_some() {
            return Ok(());
        }
        let is_management = ingress.canister_id == Principal::management_canister();
        let is_system = self.is_system_canister(&ingress.canister_id);
        if is_management {
            self.induct_management(&ingress)?;
        } else if !is_system {
            self.induct(&ingress)?;
        }
        let status =
            IngressStatus { sender: ingress.sender, canister_id: ingress.canister_id, state: IngressState::Received };
        self.certified.set_request_status(&ingress.id, &status.state);
        self.history.insert(ingress.id, status, ingress.expiry_ns);
        let request = Request {
            origin: Origin::Ingress { id: ingress.id, sender: ingress.sender },
            callee: ingress.canister_id,
            method: ingress.method,
            argument: ingress.argument,
            cycles: 0,
            expiry_ns: Some(ingress.expiry_ns),
        };
        if is_management {
            self.management.push_back(request);
        } else if is_system {
            self.system_requests.push_back(request);
        } else if let Some(canister) = self.canisters.get_mut(&request.callee) {
            canister.ingress.push_back(request);
        }
        Ok(())
    }

    /// Checks a message to a canister and charges its induction.
    fn induct(&mut self, ingress: &Ingress) -> Result<(), Rejection> {
        let id = &ingress.canister_id;
        let info = self.info.clone();
        let canister = self.canisters.get_mut(id).ok_or_else(|| errors::canister_not_found(id))?;
        match canister.status {
            Status::Running => {}
            Status::Stopping(_) => return Err(errors::stopping(id)),
            Status::Stopped => return Err(errors::stopped(id)),
        }
        if canister.code.is_none() {
            return Err(errors::no_wasm_module(id));
        }
        let cost = prices::ingress((ingress.method.len() + ingress.argument.len()) as u64);
        let needed = cost.saturating_add(canister.freezing_limit());
        if canister.cycles < needed {
            let reveal = canister.settings.controllers.contains(&ingress.sender);
            return Err(errors::out_of_cycles(id, reveal.then(|| needed - canister.cycles)));
        }
        if canister.exports("canister_inspect_message") {
            let entry_point = EntryPoint::InspectMessage(ingress.method.clone());
            let message = plain_message(entry_point, ingress.sender, ingress.argument.clone());
            let environment = canister.environment(&info, message, None);
            let Some(code) = &mut canister.code else { return Err(errors::no_wasm_module(id)) };
            match code.instance.execute(environment).result {
                Ok(effects) if effects.accepted => {}
                Ok(_) => return Err(errors::inspect_rejected(id)),
                Err(trap) => return Err(errors::trapped(id, trap)),
            }
        }
        canister.cycles -= cost;
        canister.counters.cycles.ingress += cost;
        Ok(())
    }

    /// Charges the induction of a management call to the canister it is about. A small change of settings is
    /// charged when executed, so that it can thaw a frozen canister.
    pub(super) fn charge_ingress(&mut self, payer: &Principal, ingress: &Ingress) -> Result<(), Rejection> {
        let Some(canister) = self.canisters.get_mut(payer) else { return Err(errors::canister_not_found(payer)) };
        let cost = prices::ingress((ingress.method.len() + ingress.argument.len()) as u64);
        let is_delayed = ingress.method == "update_settings"
            && ingress.argument.len() as u64 <= prices::DELAYED_INGRESS_CHARGE_BYTES;
        if is_delayed {
            let paid = cost.min(canister.cycles);
            canister.cycles -= paid;
            canister.counters.cycles.ingress += paid;
            return Ok(());
        }
        canister.withdraw(cost).map_err(|missing| {
            let reveal = canister.settings.controllers.contains(&ingress.sender);
            errors::out_of_cycles(payer, reveal.then_some(missing))
        })?;
        canister.counters.cycles.ingress += cost;
        Ok(())
    }

    /// Gives a request back, unless its time is over: then its answer is that.
    pub(super) fn refuse_expired(&mut self, request: Request) -> Option<Request> {
        if request.expiry_ns.is_none_or(|expiry_ns| expiry_ns >= self.info.time_ns) {
            return Some(request);
        }
        let rejection = match request.origin {
            Origin::Ingress { .. } => errors::ingress_timeout(&request.method),
            Origin::Canister { .. } | Origin::System => errors::deadline_expired(),
        };
        self.answer(super::run::refuse(request, rejection));
        None
    }

    /// Brings an answer to whoever waits for it.
    pub(super) fn answer(&mut self, answer: Answer) {
        match answer.to {
            Origin::Ingress { id, .. } => {
                let state = match answer.result {
                    Ok(reply) => IngressState::Replied(reply),
                    Err(rejection) => IngressState::Rejected(rejection),
                };
                self.certified.set_request_status(&id, &state);
                self.history.set_state(&id, state, self.info.time_ns);
            }
            Origin::Canister { caller, callback, .. } => {
                if let Some(canister) = self.canisters.get_mut(&caller) {
                    let payload = answer.result.into();
                    canister.responses.push_back(Response { callback, payload, refund: answer.refund });
                }
            }
            Origin::System => {}
        }
    }

    /// Marks an ingress message that was executed and is not answered yet.
    pub(super) fn mark_processing(&mut self, origin: &Origin) {
        if let Origin::Ingress { id, .. } = origin
            && self.history.get(id).is_some_and(|status| status.state == IngressState::Received)
        {
            self.certified.set_request_status(id, &IngressState::Processing);
            self.history.set_state(id, IngressState::Processing, self.info.time_ns);
        }
    }

    /// Forgets settled ingress messages that are old enough.
    pub(super) fn prune_history(&mut self) {
        for id in self.history.prune(self.info.time_ns) {
            self.certified.remove_request_status(&id);
        }
    }
}
