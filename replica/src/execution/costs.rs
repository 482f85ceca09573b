//! Every cost and limit of execution, in one place: a newer table of the network's is a change to this file only.
//!
//! Source: the replica's public code (`instrumentation.rs`, `system_api_complexity.rs`, `validation.rs`,
//! `subnet_config.rs`, `embedders.rs` of dfinity/ic) as of September 2026, application subnets. Where older copies
//! disagree, the newest is taken. Prices in cycles stand with the state machine, not here, except for those that the
//! system API itself needs.

use wasmparser::Operator;

/// Date of these tables; also part of the key of the cache of compiled modules, because costs are compiled in.
pub const TABLES_DATE: &str = "2026-09";

/// Instructions every function body costs at its entry, on top of its operators.
pub const FUNCTION_ENTRY_INSTRUCTIONS: u64 = 1;

/// Size of a Wasm page: the unit of memory growth and of page charges.
pub const WASM_PAGE_BYTES: u64 = 64 * 1024;
/// Instructions for the first access to a page in a message (16 OS pages of 5,000; deterministic memory tracker,
/// July 2026).
pub const PAGE_ACCESS_INSTRUCTIONS: u64 = 80_000;
/// Instructions for the first write to a page in a message, on top of the access; not charged in queries.
pub const PAGE_WRITE_INSTRUCTIONS: u64 = 80_000;

/// Instructions for every new execution state (install, reinstall, upgrade), April 2026.
pub const COMPILE_BASE_INSTRUCTIONS: u64 = 20_000_000;
/// Instructions per compiled unit: an operator of the instrumented module.
pub const COMPILE_UNIT_INSTRUCTIONS: u64 = 6_000;
/// Compiled units that a global counts for.
pub const COMPILE_UNITS_PER_GLOBAL: u64 = 2;

/// Factor on bytes that leave the canister: replies, rejects, call arguments, log lines.
pub const BYTE_TRANSMISSION_FACTOR: u64 = 50;
/// Factor on bytes put into the canister's log.
pub const LOG_BYTE_FACTOR: u64 = 2;
/// Capacity of the canister log in bytes, as far as the charge for logging knows it.
pub const LOG_CAPACITY_BYTES: u64 = 4_096;
/// Instructions of a growth of stable memory; no charge per page.
pub const STABLE_GROW_INSTRUCTIONS: u64 = 100;
/// Instructions of a stable read or write, on top of one for every byte.
pub const STABLE_COPY_INSTRUCTIONS: u64 = 20;

/// Longest text of `ic0.trap` that is kept, bytes.
pub const MAX_TRAP_MESSAGE_BYTES: u64 = 32 * 1024;
/// Longest text of `ic0.debug_print` that is kept, bytes.
pub const MAX_DEBUG_MESSAGE_BYTES: u64 = 32 * 1024;
/// Longest certified data, bytes.
pub const MAX_CERTIFIED_DATA_BYTES: u64 = 32;
/// Longest name of an environment variable, bytes.
pub const MAX_ENVIRONMENT_NAME_BYTES: u64 = 128;
/// Longest timeout of a best-effort call, seconds.
pub const MAX_CALL_TIMEOUT_S: u32 = 300;

/// Instructions of an update, heartbeat, timer or callback.
pub const UPDATE_INSTRUCTION_LIMIT: u64 = 40_000_000_000;
/// Instructions of a query, replicated or not.
pub const QUERY_INSTRUCTION_LIMIT: u64 = 5_000_000_000;
/// Instructions of start, init, pre_upgrade and post_upgrade together.
pub const INSTALL_INSTRUCTION_LIMIT: u64 = 300_000_000_000;
/// Instructions of inspect_message.
pub const INSPECT_INSTRUCTION_LIMIT: u64 = 200_000_000;
/// Instructions of one slice of an update or install (deterministic time slicing).
pub const SLICE_INSTRUCTION_LIMIT: u64 = 2_000_000_000;
/// Slices a message may take at most, whatever its limit.
pub const MAX_SLICES: u64 = 400;

/// Longest reply in replicated execution, bytes.
pub const MAX_REPLY_BYTES: u64 = 2 * 1024 * 1024;
/// Longest reply of a non-replicated query, bytes.
pub const MAX_QUERY_REPLY_BYTES: u64 = 3 * 1024 * 1024;
/// Longest argument of an inter-canister call (same subnet), bytes.
pub const MAX_CALL_PAYLOAD_BYTES: u64 = 10 * 1024 * 1024;

/// Largest heap of a 32-bit canister, bytes.
pub const MAX_HEAP_BYTES: u64 = 4 << 30;
/// Largest heap of a 64-bit canister, bytes.
pub const MAX_HEAP64_BYTES: u64 = 6 << 30;
/// Largest stable memory, bytes.
pub const MAX_STABLE_BYTES: u64 = 500 << 30;
/// Stable memory that the 32-bit API can address, bytes.
pub const MAX_STABLE32_BYTES: u64 = 4 << 30;
/// Stable memory a message may access, and also dirty, by kind of message, bytes.
pub const STABLE_ACCESS_LIMIT_UPDATE_BYTES: u64 = 2 << 30;
pub const STABLE_ACCESS_LIMIT_INSTALL_BYTES: u64 = 8 << 30;
pub const STABLE_ACCESS_LIMIT_QUERY_BYTES: u64 = 1 << 30;
/// Page size by which the network counts the stable memory a message accessed, bytes.
pub const OS_PAGE_BYTES: u64 = 4_096;

/// Stack of the Wasm code, bytes.
pub const MAX_WASM_STACK_BYTES: usize = 5 << 20;
/// Frames of a backtrace.
pub const MAX_BACKTRACE_FRAMES: usize = 20;

/// Limits that installation checks.
pub const MAX_MODULE_BYTES: u64 = 100 << 20;
pub const MAX_CODE_SECTION_BYTES: u64 = 12 << 20;
pub const MAX_FUNCTIONS: u64 = 50_000;
pub const MAX_GLOBALS: u64 = 1_000;
pub const MAX_FUNCTION_OPERATORS: u64 = 1_000_000;
pub const MAX_FUNCTION_COMPLEXITY: u64 = 1_000_000;
pub const MAX_TABLES: u64 = 1;
pub const MAX_TABLE_ELEMENTS: u64 = 1_000_000;
pub const MAX_EXPORTED_METHODS: u64 = 1_000;
pub const MAX_EXPORTED_NAMES_BYTES: u64 = 20_000;
pub const MAX_CUSTOM_SECTIONS: u64 = 16;
pub const MAX_CUSTOM_SECTIONS_BYTES: u64 = 1 << 20;

/// Names no module may export: the network's instrumentation uses them.
pub const RESERVED_EXPORTS: [&str; 6] = [
    "canister counter_instructions",
    "canister_start",
    "canister counter_dirty_pages",
    "canister counter_accessed_pages",
    "stable_memory",
    "stable_bytemap_memory",
];

/// Cycles per byte of method name and argument of a call, on a 13-node subnet. The state machine takes them when the
/// call is sent; here they decide whether `ic0.call_perform` has enough.
pub const CALL_BYTE_CYCLES: u128 = 1_000;
/// Cycles to create a canister on a 13-node subnet, for `ic0.cost_create_canister`.
pub const CREATE_CANISTER_CYCLES: u128 = 500_000_000_000;
/// Cycles of an HTTPS outcall on a 13-node subnet, for `ic0.cost_http_request`: base, per byte of the request, per
/// byte of the largest response.
pub const HTTP_REQUEST_CYCLES: (u128, u128, u128) = (49_140_000, 5_200, 10_400);

/// A function of the system API: its Wasm signature and its cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemCall {
    pub name: &'static str,
    /// One letter a value: `w` the canister's address type, `i` i32, `l` i64.
    pub parameters: &'static str,
    pub results: &'static str,
    /// Instructions per call.
    pub fixed: u64,
    /// Instructions per byte that the call copies or sends.
    pub per_byte: u64,
    /// Not offered to 64-bit canisters.
    pub wasm32_only: bool,
}

const fn call(
    name: &'static str,
    parameters: &'static str,
    results: &'static str,
    fixed: u64,
    per_byte: u64,
) -> SystemCall {
    SystemCall { name, parameters, results, fixed, per_byte, wasm32_only: false }
}

const fn call32(name: &'static str, parameters: &'static str, results: &'static str, fixed: u64) -> SystemCall {
    SystemCall { name, parameters, results, fixed, per_byte: 0, wasm32_only: true }
}

/// The system API. A `debug_print` or `trap` also pays for logging (see [`logging_instructions`]).
#[rustfmt::skip]
pub const SYSTEM_CALLS: &[SystemCall] = &[
    call("msg_arg_data_size", "", "w", 500, 0),
    call("msg_arg_data_copy", "www", "", 500, 1),
    call("msg_caller_size", "", "w", 500, 0),
    call("msg_caller_copy", "www", "", 500, 1),
    call("msg_caller_info_data_size", "", "w", 500, 0),
    call("msg_caller_info_data_copy", "www", "", 500, 1),
    call("msg_caller_info_signer_size", "", "w", 500, 0),
    call("msg_caller_info_signer_copy", "www", "", 500, 1),
    call("msg_reject_code", "", "i", 500, 0),
    call("msg_reject_msg_size", "", "w", 500, 0),
    call("msg_reject_msg_copy", "www", "", 500, 1),
    call("msg_method_name_size", "", "w", 500, 0),
    call("msg_method_name_copy", "www", "", 500, 1),
    call("msg_deadline", "", "l", 500, 0),
    call("msg_reply_data_append", "ww", "", 500, BYTE_TRANSMISSION_FACTOR),
    call("msg_reply", "", "", 500, 0),
    call("msg_reject", "ww", "", 500, BYTE_TRANSMISSION_FACTOR),
    call("msg_cycles_available128", "w", "", 500, 0),
    call("msg_cycles_refunded128", "w", "", 500, 0),
    call("msg_cycles_accept128", "llw", "", 500, 0),
    call32("msg_cycles_available", "", "l", 500),
    call32("msg_cycles_refunded", "", "l", 500),
    call32("msg_cycles_accept", "l", "l", 500),
    call("accept_message", "", "", 500, 0),
    call("canister_self_size", "", "w", 500, 0),
    call("canister_self_copy", "www", "", 500, 1),
    call("canister_status", "", "i", 500, 0),
    call("canister_version", "", "l", 500, 0),
    call("canister_cycle_balance128", "w", "", 500, 0),
    call("canister_liquid_cycle_balance128", "w", "", 500, 0),
    call32("canister_cycle_balance", "", "l", 500),
    call("subnet_self_size", "", "w", 500, 0),
    call("subnet_self_copy", "www", "", 500, 1),
    call("root_key_size", "", "w", 500, 0),
    call("root_key_copy", "www", "", 500, 1),
    call("certified_data_set", "ww", "", 500, 1),
    call("data_certificate_present", "", "i", 500, 0),
    call("data_certificate_size", "", "w", 500, 0),
    call("data_certificate_copy", "www", "", 500, 1),
    call("in_replicated_execution", "", "i", 500, 0),
    call("is_controller", "ww", "i", 1_000, 1),
    call("time", "", "l", 500, 0),
    call("global_timer_set", "l", "l", 500, 0),
    call("performance_counter", "i", "l", 200, 0),
    call("call_new", "wwwwwwww", "", 1_500, 1),
    call("call_data_append", "ww", "", 500, BYTE_TRANSMISSION_FACTOR),
    call("call_on_cleanup", "ww", "", 500, 0),
    call32("call_cycles_add", "l", "", 500),
    call("call_cycles_add128", "ll", "", 500, 0),
    call("call_with_best_effort_response", "i", "", 500, 0),
    call("call_perform", "", "i", 5_000, 0),
    call("cycles_burn128", "llw", "", 500, 0),
    call("mint_cycles128", "llw", "", 0, 0),
    call("cost_call", "llw", "", 500, 0),
    call("cost_create_canister", "w", "", 500, 0),
    call("cost_http_request", "llw", "", 500, 0),
    call("cost_http_request_v2", "www", "", 10_000, 0),
    call("cost_sign_with_ecdsa", "wwiw", "i", 500, 1),
    call("cost_sign_with_schnorr", "wwiw", "i", 500, 1),
    call("cost_vetkd_derive_key", "wwiw", "i", 500, 1),
    call("env_var_count", "", "w", 500, 0),
    call("env_var_name_size", "w", "w", 500, 0),
    call("env_var_name_copy", "wwww", "", 500, 1),
    call("env_var_name_exists", "ww", "i", 500, 0),
    call("env_var_value_size", "ww", "w", 500, 0),
    call("env_var_value_copy", "wwwww", "", 500, 1),
    call("debug_print", "ww", "", 100, 0),
    call("trap", "ww", "", 500, 1),
    call("stable64_size", "", "l", 0, 0),
    call("stable64_grow", "l", "l", STABLE_GROW_INSTRUCTIONS, 0),
    call("stable64_read", "lll", "", STABLE_COPY_INSTRUCTIONS, 1),
    call("stable64_write", "lll", "", STABLE_COPY_INSTRUCTIONS, 1),
    call32("stable_size", "", "i", 0),
    call32("stable_grow", "i", "i", STABLE_GROW_INSTRUCTIONS),
    SystemCall { name: "stable_read", parameters: "iii", results: "", fixed: STABLE_COPY_INSTRUCTIONS, per_byte: 1, wasm32_only: true },
    SystemCall { name: "stable_write", parameters: "iii", results: "", fixed: STABLE_COPY_INSTRUCTIONS, per_byte: 1, wasm32_only: true },
];

/// The table's row for a system call.
pub fn system_call(name: &str) -> Option<&'static SystemCall> {
    SYSTEM_CALLS.iter().find(|row| row.name == name)
}

/// Instructions that `ic0.debug_print` and `ic0.trap` pay for a log line of `bytes`, when the log has room for
/// `remaining` more.
pub fn logging_instructions(bytes: u64, remaining: u64) -> u64 {
    LOG_BYTE_FACTOR * bytes.min(LOG_CAPACITY_BYTES) + BYTE_TRANSMISSION_FACTOR * bytes.min(remaining)
}

/// Instructions of one Wasm operator. In a canister with a 64-bit memory (`memory64`) loads and stores cost 2.
#[rustfmt::skip]
pub fn operator_instructions(operator: &Operator<'_>, memory64: bool) -> u64 {
    use Operator::*;
    match operator {
        Block { .. } | Loop { .. } | Else | End => 0,

        Br { .. } | BrIf { .. } | BrTable { .. } | If { .. } | GlobalGet { .. } | GlobalSet { .. }
        | F32Add | F32Sub | F32Mul | F32Ceil | F32Floor | F32Trunc | F32Nearest | F32Copysign
        | F64Add | F64Sub | F64Mul | F64Ceil | F64Floor | F64Trunc | F64Nearest
        | F32x4Add | F32x4Sub | F32x4Mul | F32x4Abs | F32x4Neg | F32x4Ceil | F32x4Floor | F32x4Trunc | F32x4Nearest
        | F64x2Add | F64x2Sub | F64x2Mul | F64x2Abs | F64x2Neg | F64x2Ceil | F64x2Floor | F64x2Trunc | F64x2Nearest
        | I32x4Mul | I32x4ExtMulLowI16x8S | I32x4ExtMulHighI16x8S | I32x4ExtMulLowI16x8U | I32x4ExtMulHighI16x8U
        | I16x8ExtMulHighI8x16S | I16x8ExtMulHighI8x16U
        | I16x8Shl | I16x8ShrS | I16x8ShrU | I32x4Shl | I32x4ShrS | I32x4ShrU | I8x16ShrU | I64x2Shl | I64x2ShrU
        | I8x16LtU | I8x16GtU | I16x8LtU | I16x8GtU | I32x4LtU | I32x4GtU
        | I16x8ExtAddPairwiseI8x16U | I32x4TruncSatF32x4S | I32x4TruncSatF64x2SZero => 2,

        F32Eq | F32Ne | F32Lt | F32Gt | F32Le | F32Ge | F64Eq | F64Ne | F64Lt | F64Gt | F64Le | F64Ge
        | F32Div | F64Copysign
        | F32ConvertI32S | F32ConvertI64S | F64ConvertI32S | F64ConvertI64S
        | ReturnCall { .. }
        | I8x16Shuffle { .. } | I8x16Popcnt | I8x16Shl | I8x16ShrS | I64x2ShrS
        | I32x4ExtAddPairwiseI16x8U | I32x4TruncSatF64x2UZero => 3,

        F32x4Min | F32x4Max | F64x2Min | I64x2Mul | I32x4TruncSatF32x4U | F32x4ConvertI32x4U => 4,

        F64Div | F32Sqrt | Call { .. } | TableGet { .. } | TableSet { .. } | RefIsNull | F32x4Sqrt | F64x2Max => 5,

        F64Sqrt => 8,

        I32DivS | I32DivU | I32RemS | I32RemU | I64DivS | I64DivU | I64RemS | I64RemU
        | CallIndirect { .. } | F32x4Div => 10,

        F64x2Div => 12,
        F64x2Sqrt => 14,
        F32ConvertI32U | F32ConvertI64U | F64ConvertI32U | F64ConvertI64U => 16,
        F32Min | F32Max | F64Min | F64Max => 18,

        I32TruncF32S | I32TruncF32U | I32TruncF64S | I32TruncF64U
        | I64TruncF32S | I64TruncF32U | I64TruncF64S | I64TruncF64U
        | I32TruncSatF32S | I32TruncSatF32U | I32TruncSatF64S | I32TruncSatF64U
        | I64TruncSatF32S | I64TruncSatF32U | I64TruncSatF64S | I64TruncSatF64U
        | MemorySize { .. } => 20,

        ReturnCallIndirect { .. } => 60,
        // Plus one for every byte or element, charged by a dynamic point.
        MemoryCopy { .. } | MemoryFill { .. } | MemoryInit { .. }
        | TableCopy { .. } | TableFill { .. } | TableInit { .. } | TableSize { .. } => 100,
        RefFunc { .. } => 130,
        MemoryGrow { .. } | TableGrow { .. } | DataDrop { .. } | ElemDrop { .. } => 300,

        I32Load { .. } | I64Load { .. } | F32Load { .. } | F64Load { .. }
        | I32Load8S { .. } | I32Load8U { .. } | I32Load16S { .. } | I32Load16U { .. }
        | I64Load8S { .. } | I64Load8U { .. } | I64Load16S { .. } | I64Load16U { .. }
        | I64Load32S { .. } | I64Load32U { .. }
        | I32Store { .. } | I64Store { .. } | F32Store { .. } | F64Store { .. }
        | I32Store8 { .. } | I32Store16 { .. } | I64Store8 { .. } | I64Store16 { .. } | I64Store32 { .. }
        | V128Load { .. } | V128Load8x8S { .. } | V128Load8x8U { .. } | V128Load16x4S { .. } | V128Load16x4U { .. }
        | V128Load32x2S { .. } | V128Load32x2U { .. } | V128Load8Splat { .. } | V128Load16Splat { .. }
        | V128Load32Splat { .. } | V128Load64Splat { .. } | V128Load32Zero { .. } | V128Load64Zero { .. }
        | V128Store { .. } | V128Load8Lane { .. } | V128Load16Lane { .. } | V128Load32Lane { .. }
        | V128Load64Lane { .. } | V128Store8Lane { .. } | V128Store16Lane { .. } | V128Store32Lane { .. }
        | V128Store64Lane { .. } if memory64 => 2,

        _ => 1,
    }
}

/// Complexity of one Wasm operator: what the limit on a function's complexity sums.
#[rustfmt::skip]
pub fn operator_complexity(operator: &Operator<'_>) -> u64 {
    use Operator::*;
    match operator {
        Block { .. } | Loop { .. } | If { .. } | Br { .. } | BrIf { .. } | BrTable { .. }
        | Call { .. } | CallIndirect { .. } | MemoryGrow { .. } => 50,
        TableGet { .. } => 14,
        RefFunc { .. } => 8,
        RefIsNull => 6,
        I32TruncF32S | I32TruncF32U | I32TruncF64S | I32TruncF64U | I64ExtendI32S | I64ExtendI32U
        | I64TruncF32S | I64TruncF32U | I64TruncF64S | I64TruncF64U
        | F32ConvertI32S | F32ConvertI32U | F32ConvertI64S | F32ConvertI64U | F32DemoteF64
        | F64ConvertI32S | F64ConvertI32U | F64ConvertI64S | F64ConvertI64U => 5,
        F32Neg | F32Abs | F64Neg | F64Abs | MemoryCopy { .. } => 4,
        F32Copysign | F64Copysign | F64Eq
        | I32RemU | I32RemS | I64RemU | I64RemS | I32DivU | I32DivS | I64DivU | I64DivS | MemoryFill { .. }
        | I32Load { .. } | I64Load { .. } | F32Load { .. } | F64Load { .. }
        | I32Load8S { .. } | I32Load8U { .. } | I32Load16S { .. } | I32Load16U { .. }
        | I64Load8S { .. } | I64Load8U { .. } | I64Load16S { .. } | I64Load16U { .. }
        | I64Load32S { .. } | I64Load32U { .. }
        | I32TruncSatF32S | I32TruncSatF32U | I32TruncSatF64S | I32TruncSatF64U
        | I64TruncSatF32S | I64TruncSatF32U | I64TruncSatF64S | I64TruncSatF64U => 3,
        GlobalGet { .. } | I32Popcnt | I64Popcnt | Select | MemorySize { .. }
        | I32Store { .. } | I32Store8 { .. } | I32Store16 { .. } | F32Store { .. } | F64Store { .. }
        | I64Store { .. } | I64Store8 { .. } | I64Store16 { .. } | I64Store32 { .. }
        | I32Eqz | I32Eq | I32Ne | I32LtS | I32LtU | I32GtS | I32GtU | I32LeS | I32LeU | I32GeS | I32GeU
        | I64Eqz | I64Eq | I64Ne | I64LtS | I64LtU | I64GtS | I64GtU | I64LeS | I64LeU | I64GeS | I64GeU
        | F32Eq | F32Ne | F32Lt | F32Gt | F32Le | F32Ge | F64Ne | F64Lt | F64Gt | F64Le | F64Ge
        | F32Ceil | F64Ceil | F32Floor | F64Floor | F32Sqrt | F64Sqrt | F32Trunc | F64Trunc
        | I32ReinterpretF32 | I64ReinterpretF64 | F32ReinterpretI32 | F64ReinterpretI64 | I32WrapI64
        | I32Extend8S | I32Extend16S | I64Extend8S | I64Extend16S | I64Extend32S | F64PromoteF32 => 2,
        _ => 1,
    }
}
