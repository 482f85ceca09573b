//! What the network charges, in cycles, on an application subnet of 13 nodes, and the limits that go with it.
//!
//! As of 2026-11-22. Sources: `CyclesAccountManagerConfig` and `SchedulerConfig` of dfinity/ic (mid 2026) and the
//! developer documentation's price list. On a subnet of n nodes every price is n/13 of these.

/// Nodes of the subnet that the prices are for.
pub const NODES: u64 = 13;

/// Base fee of executing a message (updates, replicated queries, timers, heartbeats, callbacks, `install_code`).
pub const EXECUTION_BASE: u128 = 5_000_000;
/// One instruction of a 32-bit module.
pub const EXECUTION_INSTRUCTION: u128 = 1;

/// Receiving an ingress message.
pub const INGRESS_BASE: u128 = 1_200_000;
/// One byte of argument or method name of an ingress message.
pub const INGRESS_BYTE: u128 = 2_000;

/// A call to another canister, request and response together.
pub const CALL_BASE: u128 = 260_000;
/// One byte of a request's or response's payload.
pub const CALL_BYTE: u128 = 1_000;
/// Largest payload of an inter-canister response in bytes; every call prepays one.
pub const MAX_RESPONSE_BYTES: u64 = 2 * 1024 * 1024;

/// Making a canister.
pub const CANISTER_CREATION: u128 = 500_000_000_000;

/// One GiB of memory for one second.
pub const STORAGE_GIB_SECOND: u128 = 317_500;
/// One canister for one second, whatever it stores.
pub const CANISTER_SECOND: u128 = 10_000;
/// One percent of compute allocation for one second.
pub const COMPUTE_PERCENT_SECOND: u128 = 10_000_000;
/// How often memory and compute allocation are charged, in nanoseconds.
pub const CHARGE_INTERVAL_NS: u64 = 10_000_000_000;

/// Instructions of an update, timer, heartbeat or callback; what a message prepays.
pub const MESSAGE_INSTRUCTIONS: u64 = 40_000_000_000;
/// Share of a callback's instructions kept back for its cleanup callback, in percent.
pub const CLEANUP_RESERVE_PERCENT: u64 = 5;
/// Instructions of pre-upgrade, start, init and post-upgrade together; what `install_code` prepays.
pub const INSTALL_INSTRUCTIONS: u64 = 300_000_000_000;
/// Instructions of one query, and of the call graph of a composite query.
pub const QUERY_INSTRUCTIONS: u64 = 5_000_000_000;
/// Instructions that each call of a composite query costs the call graph beside its own.
pub const QUERY_CALL_OVERHEAD_INSTRUCTIONS: u64 = 50_000_000;
/// Calls on top of each other in a composite query.
pub const QUERY_CALL_DEPTH: usize = 6;
/// Query instructions on a benchmarking subnet.
pub const BENCHMARK_QUERY_INSTRUCTIONS: u64 = 1_000_000_000_000_000;
/// Instructions of storing one chunk of Wasm.
pub const UPLOAD_CHUNK_INSTRUCTIONS: u64 = 200_000_000;
/// Instructions of assembling a module, for each chunk in it: one a byte.
pub const ASSEMBLE_CHUNK_INSTRUCTIONS: u64 = CHUNK_BYTES;

/// Instructions after which a message is paused until the next round.
pub const SLICE_INSTRUCTIONS: u64 = 2_000_000_000;
/// Instructions of one round on one thread.
pub const ROUND_INSTRUCTIONS: u64 = 4_000_000_000;
/// What each message counts towards the round beside its instructions.
pub const ROUND_MESSAGE_OVERHEAD_INSTRUCTIONS: u64 = 2_000_000;

/// Largest chunk of the chunk store in bytes; every stored chunk counts as one of these.
pub const CHUNK_BYTES: u64 = 1024 * 1024;
/// Chunks that a canister's store takes: 100 MiB.
pub const MAX_CHUNKS: usize = 100;
/// Largest module in bytes, unzipped.
pub const MAX_MODULE_BYTES: u64 = 100 * 1024 * 1024;
/// Calls that may be open from one canister to one other.
pub const QUEUE_CAPACITY: u32 = 500;
/// Time after which a `stop_canister` is answered with a timeout, in nanoseconds.
pub const STOP_TIMEOUT_NS: u64 = 300_000_000_000;
/// Longest wait for the answer to a best-effort call, in seconds.
pub const MAX_CALL_TIMEOUT_S: u32 = 300;
/// Time that an ingress message's status is kept once it is settled and has expired, in nanoseconds.
pub const INGRESS_HISTORY_TTL_NS: u64 = 300_000_000_000;
/// An `update_settings` of at most so many bytes is charged after it is executed, so that it can thaw a canister.
pub const DELAYED_INGRESS_CHARGE_BYTES: u64 = 267;
/// What `provisional_create_canister_with_cycles` gives when no amount is named.
pub const PROVISIONAL_CYCLES: u128 = 100_000_000_000_000;

/// Snapshots that a canister may have.
pub const MAX_SNAPSHOTS: usize = 10;
/// Instructions of taking or loading a snapshot, beside one a byte.
pub const SNAPSHOT_INSTRUCTIONS: u64 = 2_000_000_000;
/// Instructions of reading or writing a piece of a snapshot, beside one a byte.
pub const SNAPSHOT_DATA_INSTRUCTIONS: u64 = 5_000_000;
/// Largest piece of a snapshot that is read at once, in bytes.
pub const SNAPSHOT_SLICE_BYTES: u64 = 2_000_000;
/// Largest heap of a snapshot in bytes: that of a 64-bit module.
pub const MAX_SNAPSHOT_HEAP_BYTES: u64 = 6 << 30;
/// Largest stable memory in bytes.
pub const MAX_STABLE_BYTES: u64 = 500 << 30;

const GIB: u128 = 1 << 30;
const NS_PER_SECOND: u128 = 1_000_000_000;
const SECONDS_PER_DAY: u64 = 86_400;

/// Cost of executing a message of so many instructions.
pub fn execution(instructions: u64) -> u128 {
    EXECUTION_BASE + EXECUTION_INSTRUCTION * u128::from(instructions)
}

/// Cost of receiving an ingress message with so many bytes of argument and method name.
pub fn ingress(payload_bytes: u64) -> u128 {
    INGRESS_BASE + INGRESS_BYTE * u128::from(payload_bytes)
}

/// Cost of sending a request of so many bytes of argument and method name, without its response.
pub fn request(payload_bytes: u64) -> u128 {
    CALL_BASE + CALL_BYTE * u128::from(payload_bytes)
}

/// Cost of transporting a response.
pub fn response(payload_bytes: u64) -> u128 {
    CALL_BYTE * u128::from(payload_bytes)
}

/// What a call sets aside for its response: a payload of maximal size, and the callback's execution.
pub fn call_reservation() -> u128 {
    response(MAX_RESPONSE_BYTES) + execution(MESSAGE_INSTRUCTIONS)
}

/// Cost of holding so many bytes for a time, without the canister's base fee; rounded down.
pub fn storage(bytes: u64, duration_ns: u64) -> u128 {
    // Multiplied in two steps, so that 500 GiB over centuries still fits.
    let bytes_second = u128::from(bytes) * STORAGE_GIB_SECOND;
    (bytes_second * u128::from(duration_ns) / NS_PER_SECOND) / GIB
}

/// The base fee of one canister for a time.
pub fn canister_base(duration_ns: u64) -> u128 {
    CANISTER_SECOND * u128::from(duration_ns) / NS_PER_SECOND
}

/// Cost of a compute allocation for a time.
pub fn compute(percent: u64, duration_ns: u64) -> u128 {
    u128::from(percent) * COMPUTE_PERCENT_SECOND * u128::from(duration_ns) / NS_PER_SECOND
}

/// What an idle canister burns in so many seconds.
pub fn idle(bytes: u64, compute_percent: u64, seconds: u64) -> u128 {
    let per_second_times_gib = u128::from(bytes) * STORAGE_GIB_SECOND
        + (CANISTER_SECOND + u128::from(compute_percent) * COMPUTE_PERCENT_SECOND) * GIB;
    per_second_times_gib.saturating_mul(u128::from(seconds)) / GIB
}

/// What an idle canister burns in a day.
pub fn idle_per_day(bytes: u64, compute_percent: u64) -> u128 {
    idle(bytes, compute_percent, SECONDS_PER_DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_update_costs_what_the_price_list_says() {
        assert_eq!(execution(MESSAGE_INSTRUCTIONS), 40_005_000_000);
        assert_eq!(execution(0), 5_000_000);
    }

    #[test]
    fn a_gib_for_a_year_costs_ten_trillion() {
        let year_ns = 365 * 86_400 * 1_000_000_000;
        assert_eq!(storage(1 << 30, year_ns), 317_500 * 31_536_000);
        assert_eq!(canister_base(year_ns), 315_360_000_000);
        assert_eq!(idle(1 << 30, 0, 31_536_000), storage(1 << 30, year_ns) + canister_base(year_ns));
        assert_eq!(idle_per_day(0, 2), (10_000 + 20_000_000) * 86_400);
    }

    #[test]
    fn storage_of_the_largest_memory_does_not_overflow() {
        // 500 GiB over 500 years.
        let expected = 500 * 317_500 * 500 * 31_536_000_u128;
        assert_eq!(storage(500 << 30, 500 * 31_536_000 * 1_000_000_000), expected);
    }

    #[test]
    fn a_call_sets_aside_a_callback_and_two_mebibytes() {
        assert_eq!(call_reservation(), 40_005_000_000 + 2_097_152_000);
        assert_eq!(request(10), 270_000);
        assert_eq!(ingress(10), 1_220_000);
    }
}
