//! What falls due as time passes: memory, compute allocation, the base fee.

use super::Subnet;
use super::canister::Canister;
use super::errors;
use super::message::{Answer, Origin};
use super::prices;
use ic_management_canister_types as ic00;

impl Subnet {
    /// Charges every canister for the time since it was charged last, in steps of the charge interval. One that
    /// can't pay is uninstalled and keeps nothing but its id, controllers and history.
    pub(super) fn charge_for_time(&mut self) {
        let time_ns = self.info.time_ns;
        let mut answers = Vec::new();
        for canister in self.canisters.values_mut() {
            if charge(canister, time_ns).is_ok() {
                continue;
            }
            canister.settings.compute_allocation_percent = 0;
            canister.settings.memory_allocation_bytes = 0;
            if canister.code.is_none() && canister.chunks.is_empty() {
                continue;
            }
            for (to, refund) in canister.uninstall() {
                answers.push(Answer { to, result: Err(errors::uninstalled()), refund });
            }
            canister.record_change(time_ns, &Origin::System, None, ic00::ChangeDetails::CodeUninstall);
            self.certified.set_canister(canister);
        }
        for answer in answers {
            self.answer(answer);
        }
    }
}

/// Charges one canister; an empty balance is the error.
fn charge(canister: &mut Canister, time_ns: u64) -> Result<(), ()> {
    let elapsed_ns = time_ns.saturating_sub(canister.charged_until_ns);
    if elapsed_ns < prices::CHARGE_INTERVAL_NS {
        return Ok(());
    }
    canister.charged_until_ns = time_ns;
    let storage = prices::storage(canister.charged_bytes(), elapsed_ns) + prices::canister_base(elapsed_ns);
    let compute = prices::compute(canister.settings.compute_allocation_percent, elapsed_ns);
    let paid_compute = compute.min(canister.cycles);
    canister.cycles -= paid_compute;
    canister.counters.cycles.compute += paid_compute;
    let paid_storage = storage.min(canister.cycles);
    canister.cycles -= paid_storage;
    canister.counters.cycles.storage += paid_storage;
    if paid_compute < compute || paid_storage < storage { Err(()) } else { Ok(()) }
}
