//! CRC-32 by folding.

use super::{Numbers, equal};
use crate::crc32::{self, naive};

/// Lengths, around where folding begins and around every step of the bodies.
const LENGTHS: &[usize] = &[0, 1, 3, 4, 15, 16, 4_799, 4_800, 4_815, 4_816, 4_832, 4_847, 5_000, 9_599, 65_536, 70_001];

pub fn check(seed: u64) -> Result<u32, String> {
    let mut numbers = Numbers::new(seed);
    // Used again and again, so that what is left of one message must not be seen by the next.
    let mut scratch = Vec::new();
    for &length in LENGTHS {
        let message = numbers.bytes(length);
        let reference = naive::crc32(u32::MAX, &message);
        let case = format!("{length} bytes");
        for (body, portable) in [("portable", true), ("selected", false)] {
            let folded = match portable {
                true => crc32::fold_portable(&message, &mut scratch),
                false => crc32::fold(&message, &mut scratch),
            };
            let crc = naive::crc32(folded.register, folded.bytes);
            equal("crc32", body, &case, &[reference], &[crc])?;
        }
    }
    Ok(2 * LENGTHS.len() as u32)
}
