//! The cycles ledger: balances of cycles, and canisters made and topped up from them.

use super::account::SUBACCOUNT_BYTES;
use super::{Account, CYCLES_LEDGER, Call, SystemCanisters, cycles_of, decode, reply};
use crate::subnet::Subnet;
use crate::subnet::message::{CallResult, Origin};
use crate::subnet::prices;
use candid::{CandidType, Nat, Principal};
use ic_management_canister_types as ic00;
use serde::Deserialize;
use serde_bytes::ByteBuf;

/// What a transaction costs in cycles.
pub const FEE: u128 = 100_000_000;
const DECIMALS: u8 = 12;
const SYMBOL: &str = "TCYCLES";
const NAME: &str = "Trillion Cycles";

#[derive(CandidType, Deserialize)]
struct TransferArgs {
    to: Account,
    fee: Option<Nat>,
    from_subaccount: Option<ByteBuf>,
    amount: Nat,
}

#[derive(CandidType)]
enum TransferError {
    BadFee { expected_fee: Nat },
    InsufficientFunds { balance: Nat },
    GenericError { message: String, error_code: Nat },
}

#[derive(CandidType, Deserialize)]
struct CreateCanisterArgs {
    from_subaccount: Option<ByteBuf>,
    amount: Nat,
    creation_args: Option<CreationArgs>,
}

#[derive(CandidType, Deserialize)]
struct CreationArgs {
    settings: Option<ic00::CanisterSettings>,
}

#[derive(CandidType)]
struct Created {
    block_id: Nat,
    canister_id: Principal,
}

#[derive(CandidType)]
enum CreateCanisterError {
    InsufficientFunds { balance: Nat },
    FailedToCreate { fee_block: Option<Nat>, refund_block: Option<Nat>, error: String },
}

#[derive(CandidType, Deserialize)]
struct WithdrawArgs {
    from_subaccount: Option<ByteBuf>,
    to: Principal,
    amount: Nat,
}

#[derive(CandidType)]
enum WithdrawError {
    InsufficientFunds { balance: Nat },
    InvalidReceiver { receiver: Principal },
}

#[derive(CandidType, Deserialize)]
struct DepositArgs {
    to: Account,
}

#[derive(CandidType)]
struct Deposited {
    balance: Nat,
    block_index: Nat,
}

impl Subnet {
    /// `None` when the ledger has no such update.
    pub(super) fn update_cycles_ledger(&mut self, call: &mut Call) -> Option<CallResult> {
        Some(match call.method {
            "icrc1_transfer" => self.transfer_cycles(call),
            "create_canister" => self.create_canister_from_ledger(call),
            "withdraw" => self.withdraw_cycles(call),
            "deposit" => self.deposit_to_ledger(call),
            _ => return None,
        })
    }

    fn transfer_cycles(&mut self, call: &Call) -> CallResult {
        let (args,) = decode::<(TransferArgs,)>(call.argument)?;
        let Some(system) = &mut self.system else { return reply(()) };
        reply((system.transfer_cycles(call.caller, args),))
    }

    fn create_canister_from_ledger(&mut self, call: &Call) -> CallResult {
        let (args,) = decode::<(CreateCanisterArgs,)>(call.argument)?;
        reply((self.try_to_create(call.caller, args),))
    }

    /// The caller pays amount and fee; of the amount the network keeps what making a canister costs.
    fn try_to_create(&mut self, caller: Principal, args: CreateCanisterArgs) -> Result<Created, CreateCanisterError> {
        let from = Account::new(caller, args.from_subaccount);
        let amount = cycles_of(&args.amount);
        let Some(system) = &mut self.system else {
            return Err(CreateCanisterError::InsufficientFunds { balance: Nat::from(0_u8) });
        };
        system
            .debit_cycles(&from, amount.saturating_add(FEE))
            .map_err(|balance| CreateCanisterError::InsufficientFunds { balance })?;
        let block_id = system.next_cycles_block();
        let settings = args.creation_args.and_then(|creation| creation.settings);
        let made = match amount.checked_sub(prices::CANISTER_CREATION) {
            None => {
                let fee = prices::CANISTER_CREATION;
                Err(format!("Insufficient cycles attached: making a canister costs {fee}, there were {amount}"))
            }
            Some(cycles) => {
                let origin = Origin::Canister { caller: CYCLES_LEDGER, callback: 0, deadline_ns: 0 };
                self.make_canister(caller, &origin, settings, cycles).map_err(|rejection| rejection.message)
            }
        };
        made.map(|canister_id| Created { block_id: block_id.clone(), canister_id }).map_err(|error| {
            let refund_block = self.system.as_mut().map(|system| {
                system.credit_cycles(&from, amount.saturating_sub(FEE));
                system.next_cycles_block()
            });
            CreateCanisterError::FailedToCreate { fee_block: Some(block_id), refund_block, error }
        })
    }

    fn withdraw_cycles(&mut self, call: &Call) -> CallResult {
        let (args,) = decode::<(WithdrawArgs,)>(call.argument)?;
        reply((self.try_to_withdraw(call.caller, args),))
    }

    fn try_to_withdraw(&mut self, caller: Principal, args: WithdrawArgs) -> Result<Nat, WithdrawError> {
        if !self.canister_exists(&args.to) {
            return Err(WithdrawError::InvalidReceiver { receiver: args.to });
        }
        let from = Account::new(caller, args.from_subaccount);
        let amount = cycles_of(&args.amount);
        let Some(system) = &mut self.system else {
            return Err(WithdrawError::InsufficientFunds { balance: Nat::from(0_u8) });
        };
        system
            .debit_cycles(&from, amount.saturating_add(FEE))
            .map_err(|balance| WithdrawError::InsufficientFunds { balance })?;
        let block = system.next_cycles_block();
        self.add_cycles(&args.to, amount);
        Ok(block)
    }

    /// Attached cycles become the account's balance, less the fee.
    fn deposit_to_ledger(&mut self, call: &mut Call) -> CallResult {
        let (args,) = decode::<(DepositArgs,)>(call.argument)?;
        let Some(amount) = call.cycles.checked_sub(FEE) else {
            return Err(crate::subnet::Rejection::new(
                crate::subnet::ErrorCode::CanisterCalledTrap,
                format!(
                    "Panicked at 'the requested amount {} to be deposited is less than the cycles ledger fee: {FEE}'",
                    call.cycles
                ),
            ));
        };
        let Some(system) = &mut self.system else { return reply(()) };
        call.cycles = 0;
        let balance = system.credit_cycles(&args.to.normalised(), amount);
        let block_index = system.next_cycles_block();
        reply((Deposited { balance: Nat::from(balance), block_index },))
    }
}

impl SystemCanisters {
    fn transfer_cycles(&mut self, caller: Principal, args: TransferArgs) -> Result<Nat, TransferError> {
        if args.fee.as_ref().is_some_and(|fee| cycles_of(fee) != FEE) {
            return Err(TransferError::BadFee { expected_fee: Nat::from(FEE) });
        }
        for subaccount in [&args.from_subaccount, &args.to.subaccount].into_iter().flatten() {
            if subaccount.len() != SUBACCOUNT_BYTES {
                let message = format!("a subaccount of {} bytes instead of {SUBACCOUNT_BYTES}", subaccount.len());
                return Err(TransferError::GenericError { message, error_code: Nat::from(1_u8) });
            }
        }
        let from = Account::new(caller, args.from_subaccount);
        let amount = cycles_of(&args.amount);
        self.debit_cycles(&from, amount.saturating_add(FEE))
            .map_err(|balance| TransferError::InsufficientFunds { balance })?;
        self.credit_cycles(&args.to.normalised(), amount);
        Ok(self.next_cycles_block())
    }

    /// `None` when the ledger has no such query.
    pub(super) fn query_cycles_ledger(&self, call: &Call) -> Option<CallResult> {
        Some(match call.method {
            "icrc1_balance_of" => decode::<(Account,)>(call.argument)
                .and_then(|(account,)| reply((Nat::from(self.cycles_balance(&account.normalised())),))),
            "icrc1_total_supply" => {
                let supply = self.cycles.values().fold(0_u128, |sum, balance| sum.saturating_add(*balance));
                reply((Nat::from(supply),))
            }
            "icrc1_fee" => reply((Nat::from(FEE),)),
            "icrc1_decimals" => reply((DECIMALS,)),
            "icrc1_symbol" => reply((SYMBOL,)),
            "icrc1_name" => reply((NAME,)),
            "icrc1_minting_account" => reply((None::<Account>,)),
            _ => return None,
        })
    }
}
