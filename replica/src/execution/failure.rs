//! Why a message fails, in the network's codes and words.

use super::Trap;
use super::costs;
use super::stable::LimitExceeded;
use crate::subnet::ErrorCode;
use std::fmt::Write;

/// Where the network's error texts send their reader.
const DOCUMENTATION: &str = "https://internetcomputer.org/docs/current/references/execution-errors#";
const TOOLCHAIN_HELP: &str = "If you are running this canister in a test environment (e.g., dfx), make sure the test \
     environment is up to date. Otherwise, this is likely an error with the compiler/CDK toolchain being used to build \
     the canister. Please report the error to IC devs on the forum: https://forum.dfinity.org and include which \
     language/CDK was used to create the canister.";

/// The end of a message that is rolled back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Trapped(TrapKind),
    CalledTrap(String),
    /// The canister broke a rule of the system API that its toolchain should keep.
    Toolchain(String),
    /// The canister broke a rule of the system API that its author should know: text, advice, section of the
    /// documentation.
    Contract(String, &'static str, &'static str),
    InvalidPrincipal,
    /// Cycles for a call's payment are missing; the whole text.
    OutOfCycles(String),
    InstructionLimit {
        limit: u64,
    },
    SliceOverrun {
        instructions: u64,
        limit: u64,
    },
    StableAccess(LimitExceeded),
    HeapLimit {
        bytes: u64,
        limit: u64,
    },
    /// Kind (`update`, `query`, `composite_query`) and name.
    MethodNotFound(&'static str, String),
    /// Index in table 0.
    FunctionNotFound(u32),
    Engine(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrapKind {
    StackOverflow,
    HeapOutOfBounds,
    StableOutOfBounds,
    StableTooBigFor32Bit,
    IntegerDivByZero,
    Unreachable,
    TableOutOfBounds,
    CyclesTooBigFor64Bit,
    Other,
}

impl TrapKind {
    fn text(self) -> &'static str {
        match self {
            TrapKind::StackOverflow => "stack overflow",
            TrapKind::HeapOutOfBounds => "heap out of bounds",
            TrapKind::StableOutOfBounds => "stable memory out of bounds",
            TrapKind::StableTooBigFor32Bit => "32 bit stable memory api used on a memory larger than 4GB",
            TrapKind::IntegerDivByZero => "integer division by 0",
            TrapKind::Unreachable => "unreachable",
            TrapKind::TableOutOfBounds => "table out of bounds",
            TrapKind::CyclesTooBigFor64Bit => "cycles amount exceeds 64-bit representation",
            TrapKind::Other => "unknown",
        }
    }
}

/// Functions on the stack when a message failed, innermost first: index and name, if the module names it.
pub(super) type Backtrace = Vec<(u32, Option<String>)>;

fn backtrace_text(backtrace: &Backtrace) -> Option<String> {
    // Without a name section the indices would only be noise.
    backtrace.iter().any(|(_, name)| name.is_some()).then(|| {
        backtrace.iter().fold("Canister Backtrace:\n".to_string(), |mut text, (index, name)| {
            let _ = match name {
                Some(name) => writeln!(text, "{name}"),
                None => writeln!(text, "unknown function at index {index}"),
            };
            text
        })
    })
}

impl Failure {
    fn code(&self) -> ErrorCode {
        match self {
            Failure::Trapped(_) => ErrorCode::CanisterTrapped,
            Failure::CalledTrap(_) => ErrorCode::CanisterCalledTrap,
            Failure::Toolchain(_) | Failure::Contract(..) | Failure::InvalidPrincipal | Failure::OutOfCycles(_) => {
                ErrorCode::CanisterContractViolation
            }
            Failure::InstructionLimit { .. } | Failure::SliceOverrun { .. } => {
                ErrorCode::CanisterInstructionLimitExceeded
            }
            Failure::StableAccess(_) => ErrorCode::CanisterMemoryAccessLimitExceeded,
            Failure::HeapLimit { .. } => ErrorCode::CanisterWasmMemoryLimitExceeded,
            Failure::MethodNotFound(..) => ErrorCode::CanisterMethodNotFound,
            Failure::FunctionNotFound(_) => ErrorCode::CanisterFunctionNotFound,
            Failure::Engine(_) => ErrorCode::CanisterWasmEngineError,
        }
    }

    fn text(&self, backtrace: Option<&str>) -> String {
        let with_backtrace = |text: String| match backtrace {
            Some(backtrace) => format!("{text}\n{backtrace}"),
            None => text,
        };
        match self {
            Failure::Trapped(kind) => with_backtrace(format!("Canister trapped: {}", kind.text())),
            Failure::CalledTrap(message) => {
                with_backtrace(format!("Canister called `ic0.trap` with message: '{message}'"))
            }
            Failure::Toolchain(error) | Failure::Contract(error, ..) => format!("Canister violated contract: {error}"),
            Failure::InvalidPrincipal => "Canister provided invalid principal id".to_string(),
            Failure::OutOfCycles(text) => text.clone(),
            Failure::InstructionLimit { limit } => {
                format!("Canister exceeded the limit of {limit} instructions for single message execution.")
            }
            Failure::SliceOverrun { instructions, limit } => format!(
                "Canister attempted to perform a large memory operation that used {instructions} instructions and \
                 exceeded the slice limit {limit}."
            ),
            Failure::StableAccess(what) => {
                let what = match what {
                    LimitExceeded::Accessed => "accessed",
                    LimitExceeded::Written => "modified",
                };
                format!(
                    "Canister exceeded memory access limits: Exceeded the limit for the number of {what} pages in the \
                     stable memory in a single message execution: limit {} KB for regular messages, {} KB for upgrade \
                     messages and {} KB for queries.",
                    costs::STABLE_ACCESS_LIMIT_UPDATE_BYTES / 1024,
                    costs::STABLE_ACCESS_LIMIT_INSTALL_BYTES / 1024,
                    costs::STABLE_ACCESS_LIMIT_QUERY_BYTES / 1024
                )
            }
            Failure::HeapLimit { bytes, limit } => format!(
                "Canister exceeded its current Wasm memory limit of {limit} bytes. The peak Wasm memory usage was \
                 {bytes} bytes. If the canister reaches 4GiB, then it may stop functioning and may become \
                 unrecoverable. Please reach out to the canister owner to investigate the reason for the increased \
                 memory usage. It might be necessary to move data from the Wasm memory to the stable memory. If such \
                 high Wasm memory usage is expected and safe, then the developer can increase the Wasm memory limit \
                 in the canister settings."
            ),
            Failure::MethodNotFound(kind, name) => format!("Canister has no {kind} method '{name}'."),
            Failure::FunctionNotFound(index) => {
                format!("Canister requested to invoke a non-existent Wasm function {index} from table 0.")
            }
            Failure::Engine(error) => format!("Canister encountered a Wasm engine error: {error}"),
        }
    }

    /// Advice and section of the documentation.
    fn help(&self) -> String {
        let (advice, section) = match self {
            Failure::Toolchain(_) | Failure::InvalidPrincipal | Failure::FunctionNotFound(_) => {
                return TOOLCHAIN_HELP.to_string();
            }
            Failure::Contract(_, advice, section) => (*advice, *section),
            Failure::Trapped(_) => (
                "Consider gracefully handling failures from this canister or altering the canister to handle exceptions.",
                "trapped",
            ),
            Failure::CalledTrap(_) => (
                "Consider gracefully handling failures from this canister or altering the canister to handle exceptions.",
                "trapped-explicitly",
            ),
            Failure::InstructionLimit { .. } => (
                "Try optimizing this method to consume fewer instructions or split the work across multiple messages.",
                "instruction-limit-exceeded",
            ),
            Failure::SliceOverrun { .. } => {
                ("Try breaking up large copies within the canister code into smaller chunks.", "slice-overrun")
            }
            Failure::StableAccess(_) => (
                "Try optimizing the use of stable memory so that individual messages don't need to access as much \
                 stable memory.",
                "memory-access-limit-exceeded",
            ),
            Failure::HeapLimit { .. } => (
                "Try checking the canister for a possible memory leak or modifying it to use more stable memory \
                 instead of Wasm memory.",
                "wasm-memory-limit-exceeded",
            ),
            Failure::MethodNotFound(..) => {
                ("Check that the method being called is exported by the target canister.", "method-not-found")
            }
            Failure::OutOfCycles(_) | Failure::Engine(_) => ("", ""),
        };
        if advice.is_empty() || section.is_empty() {
            advice.to_string()
        } else {
            format!("{advice} See documentation: {DOCUMENTATION}{section}")
        }
    }

    /// What the caller gets.
    pub(super) fn into_trap(self, backtrace: &Backtrace) -> Trap {
        let text = self.text(backtrace_text(backtrace).as_deref());
        let help = self.help();
        let message = if help.is_empty() { text } else { format!("{text}.\n{help}") };
        Trap { code: self.code(), message }
    }

    /// The line a trap leaves in the canister's log.
    pub(super) fn log_line(&self, backtrace: &Backtrace) -> Option<String> {
        let message = match self {
            Failure::Trapped(kind) => kind.text(),
            Failure::CalledTrap(message) if message.is_empty() => "(no message)",
            Failure::CalledTrap(message) => message,
            _ => return None,
        };
        Some(match backtrace_text(backtrace) {
            Some(backtrace) => format!("[TRAP]: {message}\n{backtrace}"),
            None => format!("[TRAP]: {message}"),
        })
    }
}

/// The rule that a system call may not be made in this kind of message.
pub(super) fn wrong_mode(method: &str, mode: &str) -> Failure {
    Failure::Contract(
        format!("\"ic0_{method}\" cannot be executed in {mode} mode"),
        "Check the ICP documentation to make sure APIs are being called in the correct message types.",
        "calling-a-system-api-from-the-wrong-mode",
    )
}
