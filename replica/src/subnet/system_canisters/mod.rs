//! The three canisters of the network's own that deploying tools pay with: cycles ledger, ICP ledger, cycles minting.
//!
//! On the Internet Computer they are Wasm on other subnets. Here they are part of the subnet: the parts of their
//! interfaces that `icp` and `dfx` use, on balances that this subnet keeps. The anonymous principal is very rich, as
//! the network-launcher specification says. They have no module, no controllers, no history of blocks to read, and
//! remember no duplicates.

mod account;
mod cycles_ledger;
mod icp_ledger;
mod minting;

use super::Subnet;
use super::errors;
use super::message::{Answer, CallResult, Request};
use super::scheduler::RoundSummary;
use super::types::{ErrorCode, QueryCall, Rejection};
use account::{Account, AccountIdentifier};
use candid::utils::{ArgumentDecoder, ArgumentEncoder};
use candid::{Nat, Principal};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `rkp4c-7iaaa-aaaaa-aaaca-cai`
const CYCLES_MINTING: Principal = Principal::from_slice(&[0, 0, 0, 0, 0, 0, 0, 4, 1, 1]);
/// `um5iw-rqaaa-aaaaq-qaaba-cai`
const CYCLES_LEDGER: Principal = Principal::from_slice(&[0, 0, 0, 0, 2, 16, 0, 2, 1, 1]);
/// `ryjl3-tyaaa-aaaaa-aaaba-cai`
const ICP_LEDGER: Principal = Principal::from_slice(&[0, 0, 0, 0, 0, 0, 0, 2, 1, 1]);

/// What the anonymous principal has to begin with.
const ANONYMOUS_CYCLES: u128 = 1_000_000_000_000_000_000_000_000;
const ANONYMOUS_E8S: u64 = 1_000_000_000_000_000_000;

/// Balances of the two ledgers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SystemCanisters {
    cycles: BTreeMap<Account, u128>,
    cycles_blocks: u64,
    /// In e8s: 1e-8 ICP.
    icp: BTreeMap<AccountIdentifier, u64>,
    icp_blocks: Vec<icp_ledger::Block>,
}

impl Default for SystemCanisters {
    fn default() -> Self {
        let anonymous = Account::of(Principal::anonymous());
        SystemCanisters {
            icp: BTreeMap::from([(anonymous.identifier(), ANONYMOUS_E8S)]),
            cycles: BTreeMap::from([(anonymous, ANONYMOUS_CYCLES)]),
            cycles_blocks: 0,
            icp_blocks: Vec::new(),
        }
    }
}

impl SystemCanisters {
    fn cycles_balance(&self, account: &Account) -> u128 {
        self.cycles.get(account).copied().unwrap_or(0)
    }

    /// Takes cycles from an account, or tells the balance that does not suffice.
    fn debit_cycles(&mut self, account: &Account, amount: u128) -> Result<(), Nat> {
        let balance = self.cycles_balance(account);
        let left = balance.checked_sub(amount).ok_or(Nat::from(balance))?;
        self.cycles.insert(account.clone(), left);
        Ok(())
    }

    fn credit_cycles(&mut self, account: &Account, amount: u128) -> u128 {
        let balance = self.cycles.entry(account.clone()).or_default();
        *balance = balance.saturating_add(amount);
        *balance
    }

    /// The number of the next block of the cycles ledger.
    fn next_cycles_block(&mut self) -> Nat {
        let block = self.cycles_blocks;
        self.cycles_blocks += 1;
        Nat::from(block)
    }
}

/// One call of a system canister.
struct Call<'a> {
    caller: Principal,
    method: &'a str,
    argument: &'a [u8],
    /// Attached cycles; what a handler leaves here goes back.
    cycles: u128,
}

impl Subnet {
    /// This subnet has system canisters, and `id` is one of them.
    pub(super) fn is_system_canister(&self, id: &Principal) -> bool {
        self.system.is_some() && [CYCLES_MINTING, CYCLES_LEDGER, ICP_LEDGER].contains(id)
    }

    /// Executes the calls that wait for the system canisters; true if there were any.
    pub(super) fn execute_system(&mut self, summary: &mut RoundSummary) -> bool {
        let requests = std::mem::take(&mut self.system_requests);
        let has_moved = !requests.is_empty();
        for request in requests {
            summary.messages += 1;
            self.execute_system_request(request);
        }
        has_moved
    }

    fn execute_system_request(&mut self, request: Request) {
        let Some(request) = self.refuse_expired(request) else { return };
        let mut call = Call {
            caller: request.origin.sender(),
            method: &request.method,
            argument: &request.argument,
            cycles: request.cycles,
        };
        let result = self.system_call(&request.callee, &mut call);
        let refund = call.cycles;
        self.answer(Answer { to: request.origin, result, refund });
    }

    fn system_call(&mut self, id: &Principal, call: &mut Call) -> CallResult {
        let updated = match *id {
            CYCLES_LEDGER => self.update_cycles_ledger(call),
            ICP_LEDGER => self.update_icp_ledger(call),
            _ => self.update_minting(call),
        };
        // Queries can be called as updates.
        updated
            .or_else(|| self.ask_system(id, call))
            .unwrap_or_else(|| Err(errors::method_not_found(id, "update", call.method)))
    }

    /// A query call of a system canister.
    pub(super) fn query_system(&self, call: &QueryCall) -> CallResult {
        let QueryCall { sender, canister_id, method, argument } = call;
        let system_call = Call { caller: *sender, method, argument, cycles: 0 };
        self.ask_system(canister_id, &system_call)
            .unwrap_or_else(|| Err(errors::method_not_found(canister_id, "query", method)))
    }

    /// `None` when the canister has no such query.
    fn ask_system(&self, id: &Principal, call: &Call) -> Option<CallResult> {
        let system = self.system.as_ref()?;
        match *id {
            CYCLES_LEDGER => system.query_cycles_ledger(call),
            ICP_LEDGER => system.query_icp_ledger(call),
            _ => self.query_minting(call),
        }
    }
}

/// Decodes an argument; a canister traps when it can't.
fn decode<'a, T: ArgumentDecoder<'a>>(argument: &'a [u8]) -> Result<T, Rejection> {
    candid::decode_args(argument).map_err(|error| {
        let reason: String = error.to_string().chars().take(300).collect();
        Rejection::new(
            ErrorCode::CanisterCalledTrap,
            format!("Panicked at 'failed to decode call arguments: {reason}'"),
        )
    })
}

fn reply<T: ArgumentEncoder>(reply: T) -> CallResult {
    candid::encode_args(reply).map_err(|error| Rejection::new(ErrorCode::CanisterCalledTrap, error.to_string()))
}

/// A number of cycles, or the largest there is.
fn cycles_of(amount: &Nat) -> u128 {
    u128::try_from(&amount.0).unwrap_or(u128::MAX)
}
