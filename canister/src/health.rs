//! Cycles: what there is, what being there burns, and the reserve that keeps stored data alive.

use crate::jobs::{driver, pending};
use crate::loading;
use crate::runtime;
use crate::settings;
use crate::stable::damage;
use candid::Nat;
use onnx_canister_interface::{Error, Health};

/// Cycles that a GiB of memory costs per second on a 13-node subnet (mid 2026).
const STORAGE_CYCLES_PER_GIB_SECOND: u128 = 317_500;
/// Cycles that a canister costs per second on a 13-node subnet, whatever it holds (mid 2026).
const BASE_CYCLES_PER_SECOND: u128 = 10_000;
const SECONDS_PER_DAY: u128 = 86_400;
const GIB_BYTES: u128 = 1 << 30;

/// Refuses below the reserve.
pub fn check_reserve() -> Result<(), Error> {
    match runtime::cycle_balance() < settings::get().cycles_reserve {
        true => Err(cycles_low()),
        false => Ok(()),
    }
}

/// The error that says how far the balance is below the reserve.
pub fn cycles_low() -> Error {
    Error::CyclesLow {
        balance: Nat::from(runtime::cycle_balance()),
        reserve: Nat::from(settings::get().cycles_reserve),
    }
}

/// Cycles a day that holding `bytes` burns.
fn idle_cycles_per_day(bytes: u64) -> u128 {
    (u128::from(bytes) * STORAGE_CYCLES_PER_GIB_SECOND * SECONDS_PER_DAY).div_ceil(GIB_BYTES)
        + BASE_CYCLES_PER_SECOND * SECONDS_PER_DAY
}

/// The canister's state of health. The module's own bytes, which it can't see, are not in the burn.
pub fn health() -> Health {
    let balance = runtime::cycle_balance();
    let reserve = settings::get().cycles_reserve;
    let (stable_bytes, heap_bytes) = (runtime::stable_bytes(), runtime::heap_bytes());
    let burn = idle_cycles_per_day(stable_bytes + heap_bytes);
    Health {
        version: env!("CARGO_PKG_VERSION").to_string(),
        cycle_balance: Nat::from(balance),
        idle_cycles_per_day: Nat::from(burn),
        days_left: balance.saturating_sub(reserve).checked_div(burn).and_then(|days| u64::try_from(days).ok()),
        below_reserve: balance < reserve,
        stable_bytes,
        heap_bytes,
        models_ready: loading::ready_count(),
        jobs_pending: pending::count() as u32,
        open_calls: driver::open_calls(),
        heap_used_bytes: runtime::heap_used_bytes(),
        damages: damage::found(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::fake;

    #[test]
    fn a_gibibyte_year_costs_ten_trillion_and_the_base() {
        let year = 365 * idle_cycles_per_day(1 << 30);
        assert_eq!(year, (317_500 + 10_000) * 86_400 * 365);
    }

    #[test]
    fn days_left_count_down_to_the_reserve() {
        let burn = idle_cycles_per_day(runtime::stable_bytes() + runtime::heap_bytes());
        let reserve = settings::get().cycles_reserve;
        let burn = burn.max({
            // Reading the settings opened stable memory.
            idle_cycles_per_day(runtime::stable_bytes() + runtime::heap_bytes())
        });
        fake::set_balance(reserve + 10 * burn + 1);
        assert_eq!((health().days_left, health().below_reserve), (Some(10), false));
        assert_eq!(check_reserve(), Ok(()));
        fake::set_balance(reserve - 1);
        assert_eq!((health().days_left, health().below_reserve), (Some(0), true));
        match check_reserve() {
            Err(Error::CyclesLow { balance, reserve: told }) => {
                assert_eq!((balance, told), (Nat::from(reserve - 1), Nat::from(reserve)));
            }
            other => panic!("{other:?}"),
        }
    }
}
