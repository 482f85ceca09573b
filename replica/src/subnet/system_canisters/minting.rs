//! The cycles minting canister: ICP turned into cycles, at a fixed rate.

use super::{Account, CYCLES_MINTING, Call, cycles_ledger, decode, reply};
use crate::subnet::Subnet;
use crate::subnet::message::{CallResult, Origin};
use crate::subnet::prices;
use candid::{CandidType, Nat, Principal};
use ic_management_canister_types as ic00;
use serde::Deserialize;
use serde_bytes::ByteBuf;

/// Ten-thousandths of an XDR for one ICP, which is also the number of cycles for one e8s.
const XDR_PERMYRIAD_PER_ICP: u64 = 35_000;

/// Memos that say what a transfer to the canister is for: ASCII, read as little-endian numbers.
const MEMO_MINT: u64 = 0x544e_494d;
const MEMO_TOP_UP: u64 = 0x5055_5054;
const MEMO_CREATE: u64 = 0x4145_5243;

#[derive(CandidType)]
struct ConversionRate {
    data: ConversionRateData,
    hash_tree: ByteBuf,
    certificate: ByteBuf,
}

#[derive(CandidType)]
struct ConversionRateData {
    xdr_permyriad_per_icp: u64,
    timestamp_seconds: u64,
}

#[derive(CandidType)]
struct SubnetTypes {
    data: Vec<(String, Vec<Principal>)>,
}

#[derive(CandidType, Deserialize)]
struct NotifyMintArgs {
    block_index: u64,
    to_subaccount: Option<ByteBuf>,
}

#[derive(CandidType)]
struct Minted {
    balance: Nat,
    block_index: Nat,
    minted: Nat,
}

#[derive(CandidType)]
enum NotifyError {
    InvalidTransaction(String),
    Refunded { block_index: Option<u64>, reason: String },
}

#[derive(CandidType, Deserialize)]
struct NotifyTopUpArgs {
    block_index: u64,
    canister_id: Principal,
}

#[derive(CandidType, Deserialize)]
struct NotifyCreateArgs {
    block_index: u64,
    controller: Principal,
    settings: Option<ic00::CanisterSettings>,
}

impl Subnet {
    /// `None` when the canister has no such update.
    pub(super) fn update_minting(&mut self, call: &Call) -> Option<CallResult> {
        let done = match call.method {
            "notify_mint_cycles" => decode::<(NotifyMintArgs,)>(call.argument)
                .and_then(|(args,)| reply((self.mint_cycles(call.caller, args),))),
            "notify_top_up" => {
                decode::<(NotifyTopUpArgs,)>(call.argument).and_then(|(args,)| reply((self.top_up(&args),)))
            }
            "notify_create_canister" => {
                decode::<(NotifyCreateArgs,)>(call.argument).and_then(|(args,)| reply((self.create_from_icp(args),)))
            }
            _ => return None,
        };
        Some(done)
    }

    /// Cycles for a transfer of ICP to the account that the canister keeps for `user`.
    fn cycles_for_block(&mut self, index: u64, user: &Principal, memo: u64) -> Result<u128, NotifyError> {
        let account = Account::for_user(CYCLES_MINTING, user);
        let system = self.system.as_mut().ok_or_else(|| NotifyError::InvalidTransaction("no ledger".into()))?;
        let e8s = system.spend_block(index, &account, memo).map_err(NotifyError::InvalidTransaction)?;
        Ok(u128::from(e8s) * u128::from(XDR_PERMYRIAD_PER_ICP))
    }

    fn mint_cycles(&mut self, caller: Principal, args: NotifyMintArgs) -> Result<Minted, NotifyError> {
        let minted = self.cycles_for_block(args.block_index, &caller, MEMO_MINT)?;
        let too_little = || NotifyError::InvalidTransaction(format!("{minted} cycles do not cover the fee"));
        let credited = minted.checked_sub(cycles_ledger::FEE).ok_or_else(too_little)?;
        let system = self.system.as_mut().ok_or_else(|| NotifyError::InvalidTransaction("no ledger".into()))?;
        let balance = system.credit_cycles(&Account::new(caller, args.to_subaccount), credited);
        let block_index = system.next_cycles_block();
        Ok(Minted { balance: Nat::from(balance), block_index, minted: Nat::from(minted) })
    }

    fn top_up(&mut self, args: &NotifyTopUpArgs) -> Result<Nat, NotifyError> {
        if !self.canister_exists(&args.canister_id) {
            let reason = format!("canister {} does not exist", args.canister_id);
            return Err(NotifyError::Refunded { block_index: None, reason });
        }
        let cycles = self.cycles_for_block(args.block_index, &args.canister_id, MEMO_TOP_UP)?;
        self.add_cycles(&args.canister_id, cycles);
        Ok(Nat::from(cycles))
    }

    fn create_from_icp(&mut self, args: NotifyCreateArgs) -> Result<Principal, NotifyError> {
        let cycles = self.cycles_for_block(args.block_index, &args.controller, MEMO_CREATE)?;
        let refunded = |reason: String| NotifyError::Refunded { block_index: None, reason };
        let left = cycles
            .checked_sub(prices::CANISTER_CREATION)
            .ok_or_else(|| refunded(format!("{cycles} cycles do not pay for a canister")))?;
        let origin = Origin::Canister { caller: CYCLES_MINTING, callback: 0, deadline_ns: 0 };
        self.make_canister(args.controller, &origin, args.settings, left)
            .map_err(|rejection| refunded(rejection.message))
    }

    /// `None` when the canister has no such query.
    pub(super) fn query_minting(&self, call: &Call) -> Option<CallResult> {
        Some(match call.method {
            "get_default_subnets" => reply((vec![self.info.subnet_id],)),
            "get_subnet_types_to_subnets" => reply((SubnetTypes { data: Vec::new() },)),
            "get_icp_xdr_conversion_rate" => reply((ConversionRate {
                data: ConversionRateData {
                    xdr_permyriad_per_icp: XDR_PERMYRIAD_PER_ICP,
                    timestamp_seconds: self.info.time_ns / 1_000_000_000,
                },
                hash_tree: ByteBuf::new(),
                certificate: ByteBuf::new(),
            },)),
            _ => return None,
        })
    }
}
