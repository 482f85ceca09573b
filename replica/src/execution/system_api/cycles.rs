//! Cycles: balance, what came with a message, burning, and what operations cost.

use super::state::{Kind, MessageState, heap_error};
use super::{Word, fixed, sized};
use crate::execution::costs;
use crate::execution::failure::{Failure, TrapKind};
use wasmtime::Linker;

const WITH_CYCLES: Kind = Kind::UPDATE.or(Kind::REPLICATED_QUERY).or(Kind::REPLY).or(Kind::REJECT);
const WITH_REFUND: Kind = Kind::REPLY.or(Kind::REJECT);
const WITH_BALANCE: Kind = Kind::ALL.except(Kind::START);
const MAY_BURN: Kind = Kind::ALL.except(Kind::START).except(Kind::NON_REPLICATED);
const MAY_MINT: Kind = Kind::UPDATE.or(Kind::TASK).or(Kind::REPLY).or(Kind::REJECT);
/// The one canister that may mint.
const CYCLES_MINTING_CANISTER: &str = "rkp4c-7iaaa-aaaaa-aaaca-cai";
/// What the `ic0.cost_sign_*` and `ic0.cost_vetkd_*` calls return: no such curve or algorithm, no such key.
const UNKNOWN_CURVE_OR_ALGORITHM: u32 = 1;
const UNKNOWN_KEY: u32 = 2;

/// Amounts above 64 bits trap in the old calls.
fn narrow(cycles: u128) -> Result<u64, Failure> {
    u64::try_from(cycles).map_err(|_| Failure::Trapped(TrapKind::CyclesTooBigFor64Bit))
}

impl MessageState {
    fn accept_cycles(&mut self, method: &str, max: u128) -> Result<u128, Failure> {
        self.only_in(method, WITH_CYCLES)?;
        let accepted = max.min(self.cycles_available);
        self.cycles_available -= accepted;
        self.balance = self.balance.saturating_add(accepted);
        self.effects.cycles_accepted = self.effects.cycles_accepted.saturating_add(accepted);
        Ok(accepted)
    }

    /// Threshold keys do not exist on this subnet: curves are told from unknown keys, and that is all.
    fn key_cost(&self, method: &str, source: u64, len: u64, curve: u32, curves: u32) -> Result<u32, Failure> {
        self.check_heap(&format!("ic0.{method} heap"), source, len)?;
        // SAFETY: the slice is dropped before anything else accesses the heap.
        let name = unsafe { self.heap.read(source, len) };
        let name = name.ok_or(Failure::Trapped(TrapKind::HeapOutOfBounds))?.map_err(heap_error)?;
        if let Err(error) = std::str::from_utf8(name) {
            return Err(Failure::Toolchain(format!("Failed to decode key name: {error}")));
        }
        Ok(if curve < curves { UNKNOWN_KEY } else { UNKNOWN_CURVE_OR_ALGORITHM })
    }
}

fn amount(high: u64, low: u64) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

pub(super) fn link<I: Word>(linker: &mut Linker<MessageState>) -> wasmtime::Result<()> {
    fixed!(linker, "msg_cycles_available", |state| -> u64 {
        state.only_in("msg_cycles_available", WITH_CYCLES)?;
        narrow(state.cycles_available)
    });
    fixed!(linker, "msg_cycles_available128", |state, target: I| -> () {
        state.only_in("msg_cycles_available128", WITH_CYCLES)?;
        state.write_cycles("msg_cycles_available128", target.to_u64(), state.cycles_available)
    });
    fixed!(linker, "msg_cycles_refunded", |state| -> u64 {
        state.only_in("msg_cycles_refunded", WITH_REFUND)?;
        narrow(state.message.cycles_refunded)
    });
    fixed!(linker, "msg_cycles_refunded128", |state, target: I| -> () {
        state.only_in("msg_cycles_refunded128", WITH_REFUND)?;
        state.write_cycles("msg_cycles_refunded128", target.to_u64(), state.message.cycles_refunded)
    });
    fixed!(linker, "msg_cycles_accept", |state, max: u64| -> u64 {
        narrow(state.accept_cycles("msg_cycles_accept", u128::from(max))?)
    });
    fixed!(linker, "msg_cycles_accept128", |state, high: u64, low: u64, target: I| -> () {
        let accepted = state.accept_cycles("msg_cycles_accept128", amount(high, low))?;
        state.write_cycles("msg_cycles_accept128", target.to_u64(), accepted)
    });
    fixed!(linker, "canister_cycle_balance", |state| -> u64 {
        state.only_in("canister_cycle_balance", WITH_BALANCE)?;
        narrow(state.balance)
    });
    fixed!(linker, "canister_cycle_balance128", |state, target: I| -> () {
        state.only_in("canister_cycle_balance128", WITH_BALANCE)?;
        state.write_cycles("canister_cycle_balance128", target.to_u64(), state.balance)
    });
    fixed!(linker, "canister_liquid_cycle_balance128", |state, target: I| -> () {
        state.only_in("canister_liquid_cycle_balance128", WITH_BALANCE)?;
        state.write_cycles("canister_liquid_cycle_balance128", target.to_u64(), state.liquid_cycles())
    });
    fixed!(linker, "cycles_burn128", |state, high: u64, low: u64, target: I| -> () {
        state.only_in("cycles_burn128", MAY_BURN)?;
        let burned = amount(high, low).min(state.liquid_cycles());
        state.balance -= burned;
        state.effects.cycles_burned = state.effects.cycles_burned.saturating_add(burned);
        state.write_cycles("cycles_burn128", target.to_u64(), burned)
    });
    fixed!(linker, "mint_cycles128", |state, _high: u64, _low: u64, _target: I| -> () {
        state.only_in("mint_cycles128", MAY_MINT)?;
        Err(Failure::Toolchain(format!(
            "ic0.mint_cycles128 cannot be executed on non Cycles Minting Canister: {} != {CYCLES_MINTING_CANISTER}",
            state.system.canister_id
        )))
    });

    fixed!(linker, "cost_call", |state, name_len: u64, argument_len: u64, target: I| -> () {
        let bytes = u128::from(name_len) + u128::from(argument_len);
        let cost = state.system.call_reservation.saturating_add(bytes * costs::CALL_BYTE_CYCLES);
        state.write_cycles("cost_call", target.to_u64(), cost)
    });
    fixed!(linker, "cost_create_canister", |state, target: I| -> () {
        state.write_cycles("cost_create_canister", target.to_u64(), costs::CREATE_CANISTER_CYCLES)
    });
    fixed!(linker, "cost_http_request", |state, request_bytes: u64, max_response_bytes: u64, target: I| -> () {
        let (base, per_request_byte, per_response_byte) = costs::HTTP_REQUEST_CYCLES;
        let cost =
            base + u128::from(request_bytes) * per_request_byte + u128::from(max_response_bytes) * per_response_byte;
        state.write_cycles("cost_http_request", target.to_u64(), cost)
    });
    fixed!(linker, "cost_http_request_v2", |state, _source: I, _len: I, _target: I| -> () {
        let text = format!("ic0.cost_http_request_v2: HTTPS outcalls are not offered (in {} mode)", state.mode());
        Err(Failure::Contract(text, "", ""))
    });
    // Curves: secp256k1. Algorithms: bip340secp256k1, ed25519. Curves: bls12_381_g2.
    sized!(linker, "cost_sign_with_ecdsa", bytes len.to_u64(), |state, source: I, len: I, curve: u32, _target: I| -> u32 {
        state.key_cost("cost_sign_with_ecdsa", source.to_u64(), len.to_u64(), curve, 1)
    });
    sized!(linker, "cost_sign_with_schnorr", bytes len.to_u64(), |state, source: I, len: I, algorithm: u32, _target: I| -> u32 {
        state.key_cost("cost_sign_with_schnorr", source.to_u64(), len.to_u64(), algorithm, 2)
    });
    sized!(linker, "cost_vetkd_derive_key", bytes len.to_u64(), |state, source: I, len: I, curve: u32, _target: I| -> u32 {
        state.key_cost("cost_vetkd_derive_key", source.to_u64(), len.to_u64(), curve, 1)
    });
    Ok(())
}
