//! CRC-32 by folding.

use super::{Numbers, equal};
use crate::crc32::{self, naive};

/// Lengths, around where folding begins and around every step of the bodies.
const LENGTHS: &[usize] = &[0, 1, 3, 4, 15, 16, 4_799, 4_800, 4_815, 4_816, 4_832, 4_847, 5_000, 9_599, 65_536, 70_001];

/// Blocks that are summed: passes of four and what is left of them.
const BLOCKS_MAX: usize = 9;

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
    for blocks in 1..=BLOCKS_MAX {
        let message = numbers.bytes(blocks * crc32::BLOCK_BYTES);
        // Each block's register, then as many zero words as the sum has behind it.
        let registers = message.chunks_exact(crc32::BLOCK_BYTES).map(|block| !naive::crc32(u32::MAX, block));
        let reference = !registers.fold(0, |sum, register| !naive::crc32(sum, &[0; 16]) ^ register);
        for (body, portable) in [("portable", true), ("selected", false)] {
            let mut sum = vec![0; crc32::sum_bytes(blocks)];
            // In two parts, the first of one block: passes begin anywhere.
            let (first, rest) = message.split_at(crc32::BLOCK_BYTES);
            for (at, part) in [(1, rest), (0, first)] {
                match portable {
                    true => crc32::add_blocks_portable(part, at, &mut sum),
                    false => crc32::add_blocks(part, at, &mut sum),
                }
            }
            let crc = naive::crc32(u32::MAX, &sum);
            equal("crc32 of blocks", body, &format!("{blocks} blocks"), &[reference], &[crc])?;
        }
    }
    Ok((2 * (LENGTHS.len() + BLOCKS_MAX)) as u32)
}
