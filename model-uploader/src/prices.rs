//! What the Internet Computer charges, on an application subnet of 13 nodes.
//!
//! Collected on 22 November 2026 from the network's source code of that year; the exchange rate is the one the
//! developer documentation used on 22 May 2026. A subnet of n nodes charges n/13 of these.

/// Nodes of the subnet that these prices are for.
pub const NODES: u32 = 13;
/// For executing an update message, whatever it does.
pub const UPDATE_MESSAGE_CYCLES: u64 = 5_000_000;
/// For each instruction of an update message.
pub const INSTRUCTION_CYCLES: u64 = 1;
/// For receiving a message from outside, whatever its size.
pub const INGRESS_MESSAGE_CYCLES: u64 = 1_200_000;
/// For each byte of a message from outside.
pub const INGRESS_BYTE_CYCLES: u64 = 2_000;
/// For holding a GiB for a second.
pub const STORAGE_GIB_SECOND_CYCLES: u64 = 317_500;
/// For being there at all, each second.
pub const CANISTER_SECOND_CYCLES: u64 = 10_000;
/// Cycles of one XDR.
pub const XDR_CYCLES: u64 = 1_000_000_000_000;
/// Dollars of one XDR.
pub const XDR_USD: f64 = 1.366430;

const GIB_BYTES: u128 = 1 << 30;
/// Seconds of a year of 365 days.
pub const YEAR_SECONDS: u64 = 365 * 24 * 60 * 60;

/// Cycles for executing `messages` update messages of `instructions` together. Queries are free.
pub fn execution_cycles(messages: u64, instructions: u64) -> u128 {
    u128::from(messages) * u128::from(UPDATE_MESSAGE_CYCLES) + u128::from(instructions) * u128::from(INSTRUCTION_CYCLES)
}

/// Cycles for receiving `messages` messages of `bytes` together from outside.
pub fn ingress_cycles(messages: u64, bytes: u64) -> u128 {
    u128::from(messages) * u128::from(INGRESS_MESSAGE_CYCLES) + u128::from(bytes) * u128::from(INGRESS_BYTE_CYCLES)
}

/// Cycles for holding `bytes` for `seconds`; the canister's own fee is not in it.
pub fn storage_cycles(bytes: u64, seconds: u64) -> u128 {
    u128::from(bytes) * u128::from(seconds) * u128::from(STORAGE_GIB_SECOND_CYCLES) / GIB_BYTES
}

/// Dollars for `cycles`.
pub fn usd(cycles: u128) -> f64 {
    cycles as f64 / XDR_CYCLES as f64 * XDR_USD
}

/// A number with its thousands set apart: `1,234,567`.
pub fn grouped(number: impl Into<u128>) -> String {
    let digits = number.into().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The documentation's own examples: a full update message of 40e9 instructions costs 40.005e9 cycles, $0.0547,
    /// and a GiB for a year ten trillion.
    #[test]
    fn agree_with_published_examples() {
        assert_eq!(execution_cycles(1, 40_000_000_000), 40_005_000_000);
        assert!((usd(40_005_000_000) - 0.0547).abs() < 0.00005);
        let year = storage_cycles(1 << 30, YEAR_SECONDS);
        assert_eq!(year, 317_500 * 31_536_000);
        assert!((usd(year) - 13.68).abs() < 0.01);
    }

    #[test]
    fn ingress_counts_messages_and_bytes() {
        assert_eq!(ingress_cycles(10, 19_000_000), 12_000_000 + 38_000_000_000);
    }

    #[test]
    fn the_largest_arguments_do_not_overflow() {
        assert!(storage_cycles(u64::MAX, YEAR_SECONDS) > 0);
        assert!(execution_cycles(u64::MAX, u64::MAX) > u128::from(u64::MAX));
        assert!(ingress_cycles(u64::MAX, u64::MAX) > u128::from(u64::MAX));
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(
            [0_u64, 999, 1_000, 1_234_567, 12_345_678].map(grouped),
            ["0", "999", "1,000", "1,234,567", "12,345,678"]
        );
    }
}
