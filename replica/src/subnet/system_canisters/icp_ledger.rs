//! The ICP ledger: balances of ICP, in its own interface and in ICRC-1.

use super::{Account, AccountIdentifier, Call, SystemCanisters, decode, reply};
use crate::subnet::Subnet;
use crate::subnet::message::CallResult;
use candid::{CandidType, Nat};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// What a transaction costs, in e8s.
pub const FEE_E8S: u64 = 10_000;
const DECIMALS: u8 = 8;
const SYMBOL: &str = "ICP";
const NAME: &str = "Internet Computer";

/// A transfer, kept for the cycles minting canister, which is told of it by its number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Block {
    pub to: AccountIdentifier,
    pub e8s: u64,
    pub memo: u64,
    /// It was turned into cycles.
    pub is_spent: bool,
}

#[derive(CandidType, Deserialize, Clone, Copy)]
struct Tokens {
    e8s: u64,
}

#[derive(CandidType, Deserialize)]
struct TransferArgs {
    to: ByteBuf,
    fee: Tokens,
    memo: u64,
    from_subaccount: Option<ByteBuf>,
    amount: Tokens,
}

#[derive(CandidType)]
enum TransferError {
    BadFee { expected_fee: Tokens },
    InsufficientFunds { balance: Tokens },
}

#[derive(CandidType, Deserialize)]
struct Icrc1TransferArgs {
    to: Account,
    fee: Option<Nat>,
    memo: Option<ByteBuf>,
    from_subaccount: Option<ByteBuf>,
    amount: Nat,
}

#[derive(CandidType)]
enum Icrc1TransferError {
    BadFee { expected_fee: Nat },
    InsufficientFunds { balance: Nat },
}

#[derive(CandidType, Deserialize)]
struct AccountBalanceArgs {
    account: ByteBuf,
}

impl Subnet {
    /// `None` when the ledger has no such update.
    pub(super) fn update_icp_ledger(&mut self, call: &Call) -> Option<CallResult> {
        let system = self.system.as_mut()?;
        Some(match call.method {
            "transfer" => system.transfer_icp(call),
            "icrc1_transfer" => system.icrc1_transfer_icp(call),
            _ => return None,
        })
    }
}

impl SystemCanisters {
    fn icp_balance(&self, account: &AccountIdentifier) -> u64 {
        self.icp.get(account).copied().unwrap_or(0)
    }

    /// Moves ICP and returns the number of the block, or the balance that does not suffice.
    fn move_icp(&mut self, from: &AccountIdentifier, to: AccountIdentifier, e8s: u64, memo: u64) -> Result<u64, u64> {
        let balance = self.icp_balance(from);
        let left = e8s.checked_add(FEE_E8S).and_then(|cost| balance.checked_sub(cost)).ok_or(balance)?;
        self.icp.insert(*from, left);
        *self.icp.entry(to).or_default() += e8s;
        self.icp_blocks.push(Block { to, e8s, memo, is_spent: false });
        Ok(self.icp_blocks.len() as u64 - 1)
    }

    fn transfer_icp(&mut self, call: &Call) -> CallResult {
        let (args,) = decode::<(TransferArgs,)>(call.argument)?;
        if args.fee.e8s != FEE_E8S {
            return reply((Err::<u64, _>(TransferError::BadFee { expected_fee: Tokens { e8s: FEE_E8S } }),));
        }
        let Ok(to) = <[u8; 32]>::try_from(args.to.as_slice()) else {
            return Err(crate::subnet::Rejection::new(
                crate::subnet::ErrorCode::CanisterCalledTrap,
                format!("Panicked at 'an account identifier of {} bytes instead of 32'", args.to.len()),
            ));
        };
        let from = Account::new(call.caller, args.from_subaccount).identifier();
        let moved = self.move_icp(&from, AccountIdentifier(to), args.amount.e8s, args.memo);
        reply((moved.map_err(|e8s| TransferError::InsufficientFunds { balance: Tokens { e8s } }),))
    }

    fn icrc1_transfer_icp(&mut self, call: &Call) -> CallResult {
        let (args,) = decode::<(Icrc1TransferArgs,)>(call.argument)?;
        if args.fee.is_some_and(|fee| fee != FEE_E8S) {
            return reply((Err::<Nat, _>(Icrc1TransferError::BadFee { expected_fee: Nat::from(FEE_E8S) }),));
        }
        let memo = args.memo.and_then(|memo| Some(u64::from_le_bytes(memo.as_slice().try_into().ok()?))).unwrap_or(0);
        let from = Account::new(call.caller, args.from_subaccount).identifier();
        let e8s = u64::try_from(&args.amount.0).unwrap_or(u64::MAX);
        let moved = self.move_icp(&from, args.to.normalised().identifier(), e8s, memo);
        let reported = moved
            .map(Nat::from)
            .map_err(|balance| Icrc1TransferError::InsufficientFunds { balance: Nat::from(balance) });
        reply((reported,))
    }

    /// Marks an ICP transfer to `account` as turned into cycles, and returns its amount in e8s.
    pub(super) fn spend_block(&mut self, index: u64, account: &Account, memo: u64) -> Result<u64, String> {
        let block = usize::try_from(index).ok().and_then(|index| self.icp_blocks.get_mut(index));
        let block = block.ok_or_else(|| format!("Block {index} not found"))?;
        if block.to != account.identifier() {
            return Err(format!("Destination account in the transaction of block {index} is not the caller's"));
        }
        if block.memo != memo {
            return Err(format!("Intent in the transaction ({}) is not what is asked for ({memo})", block.memo));
        }
        if std::mem::replace(&mut block.is_spent, true) {
            return Err(format!("Block {index} was turned into cycles already"));
        }
        Ok(block.e8s)
    }

    /// `None` when the ledger has no such query.
    pub(super) fn query_icp_ledger(&self, call: &Call) -> Option<CallResult> {
        let balance_of = |identifier: &AccountIdentifier| self.icp_balance(identifier);
        Some(match call.method {
            "icrc1_balance_of" => decode::<(Account,)>(call.argument)
                .and_then(|(account,)| reply((Nat::from(balance_of(&account.normalised().identifier())),))),
            "account_balance" => decode::<(AccountBalanceArgs,)>(call.argument).and_then(|(args,)| {
                let identifier = <[u8; 32]>::try_from(args.account.as_slice()).ok().map(AccountIdentifier);
                reply((Tokens { e8s: identifier.as_ref().map_or(0, balance_of) },))
            }),
            "account_identifier" => decode::<(Account,)>(call.argument)
                .and_then(|(account,)| reply((ByteBuf::from(account.normalised().identifier().0.to_vec()),))),
            "icrc1_total_supply" => {
                let supply = self.icp.values().fold(0_u64, |sum, balance| sum.saturating_add(*balance));
                reply((Nat::from(supply),))
            }
            "icrc1_fee" => reply((Nat::from(FEE_E8S),)),
            "icrc1_decimals" => reply((DECIMALS,)),
            "icrc1_symbol" => reply((SYMBOL,)),
            "icrc1_name" => reply((NAME,)),
            _ => return None,
        })
    }
}
