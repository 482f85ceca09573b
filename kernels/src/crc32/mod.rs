//! CRC-32 (ISO-HDLC, that of zlib, PNG and gzip) of long messages: they are folded into short ones of the same CRC.
//!
//! Modulo the CRC's polynomial x^300 = x^155 + x^117 + x^89 + 1, and, squared seven times, the same holds of the powers of
//! x^128. So a word of 16 bytes with at least 300 behind it can be added to (xor) the words that are 145, 183, 211 and 300
//! behind it, and dropped: five loads and four xors for 16 bytes, where tables take a dozen instructions for each byte. The
//! 300 words that are left are folded into 32 by the polynomial itself, which has fourteen terms below x^32. Source:
//! Russell, "Chorba: a novel CRC32 implementation", 2024.

pub(crate) mod naive;
mod portable;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd128;

/// Bytes of a word.
const WORD_BYTES: usize = 16;
/// How many words behind a dropped word those are that it is added to.
const TAPS: [usize; 4] = [145, 183, 211, 300];
/// Words that are left of a long message.
const WORDS_LEFT: usize = TAPS[3];
/// The same of the polynomial itself.
const DENSE_TAPS: [usize; 14] = [6, 9, 10, 16, 20, 21, 22, 24, 25, 27, 28, 30, 31, 32];
const DENSE_WORDS_LEFT: usize = DENSE_TAPS[13];

/// A message with the CRC of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Folded<'a> {
    /// What the CRC's register starts from, for these bytes.
    pub register: u32,
    /// At most 527 bytes where the message had 4816 or more.
    pub bytes: &'a [u8],
}

/// Folds a message; `scratch` becomes 4800 bytes longer than it.
pub fn fold<'a>(message: &'a [u8], scratch: &'a mut Vec<u8>) -> Folded<'a> {
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    return fold_with(message, scratch, (simd128::add_to_words, simd128::add_densely));
    #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
    fold_portable(message, scratch)
}

/// [`fold`] by the portable bodies, for the oracle.
pub(crate) fn fold_portable<'a>(message: &'a [u8], scratch: &'a mut Vec<u8>) -> Folded<'a> {
    fold_with(message, scratch, (portable::add_to_words, portable::add_densely))
}

/// Word `300 + i` of `scratch` becomes the sum of word `i` of `message`, which is of whole words, and of the words of
/// `scratch` that are the taps before it.
type AddToWords = fn(message: &[u8], scratch: &mut [u8]);

/// To each word of `scratch` from the 32nd on, of whole words, those that are the dense taps before it are added, in order.
type AddDensely = fn(scratch: &mut [u8]);

fn fold_with<'a>(
    message: &'a [u8],
    scratch: &'a mut Vec<u8>,
    (add_to_words, add_densely): (AddToWords, AddDensely),
) -> Folded<'a> {
    let words = message.len() / WORD_BYTES;
    let Some(dropped) = words.checked_sub(WORDS_LEFT).filter(|dropped| *dropped > 0) else {
        return Folded { register: u32::MAX, bytes: message };
    };
    // Words before the first are zeros. What else is in a scratch that was used before is written before it is read.
    let before = WORDS_LEFT * WORD_BYTES;
    scratch.resize(before + message.len(), 0);
    scratch[..before].fill(0);
    // A register of ones at the start is the same as the first four bytes inverted. The first word is added to none of
    // those that are before the next 145.
    let (first, rest) = message[..dropped * WORD_BYTES].split_at(WORD_BYTES);
    scratch[before..before + WORD_BYTES].copy_from_slice(first);
    scratch[before..before + 4].iter_mut().for_each(|byte| *byte = !*byte);
    add_to_words(rest, &mut scratch[WORD_BYTES..]);
    let (done, left) = scratch.split_at_mut(before + dropped * WORD_BYTES);
    left.copy_from_slice(&message[dropped * WORD_BYTES..]);
    add_last(done, left, &TAPS);

    let start = done.len();
    let end = start + (WORDS_LEFT - DENSE_WORDS_LEFT) * WORD_BYTES;
    let zeros = start - DENSE_WORDS_LEFT * WORD_BYTES;
    scratch[zeros..start].fill(0);
    add_densely(&mut scratch[zeros..end]);
    let (done, left) = scratch.split_at_mut(end);
    add_last(done, left, &DENSE_TAPS);
    Folded { register: 0, bytes: left }
}

/// Bytes of the blocks that [`add_blocks`] takes.
pub const BLOCK_BYTES: usize = 1 << 16;
/// Blocks that are added in one pass.
const BLOCKS_PER_PASS: usize = 4;

/// Bytes of the sum of `blocks` blocks, each shifted by a word more than the one before.
pub fn sum_bytes(blocks: usize) -> usize {
    BLOCK_BYTES + blocks.saturating_sub(1) * WORD_BYTES
}

/// Adds (xor) blocks to `sum`, the first from its word `first` on and each following one from a word later, their first
/// four bytes inverted unless they are the sum's first: what [`fold`] does with the first bytes of a message.
///
/// With the registers of the blocks' CRCs, shifted as they are, the CRC of the sum tells whether all blocks are whole at a
/// third of what each alone costs. Damage to one block is always told if its own CRC would tell; damage to several goes
/// unseen once in 2^32 times, or where it differs by exactly a word's shift.
///
/// # Panics
/// When `blocks` is not of whole blocks or `sum` is shorter than [`sum_bytes`].
pub fn add_blocks(blocks: &[u8], first: usize, sum: &mut [u8]) {
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    add_blocks_with(blocks, first, sum, simd128::add_four);
    #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
    add_blocks_portable(blocks, first, sum)
}

/// [`add_blocks`] by the portable body, for the oracle.
pub(crate) fn add_blocks_portable(blocks: &[u8], first: usize, sum: &mut [u8]) {
    add_blocks_with(blocks, first, sum, portable::add_four);
}

/// To each word of `sum` from the fourth on to the first block's last: the word at its place in the first of four blocks,
/// the word before that in the second, and so on.
type AddFour = fn(blocks: &[u8], sum: &mut [u8]);

fn add_blocks_with(blocks: &[u8], first: usize, sum: &mut [u8], add_four: AddFour) {
    assert!(blocks.len().is_multiple_of(BLOCK_BYTES), "{} bytes are no whole blocks", blocks.len());
    let mut place = first;
    for pass in blocks.chunks(BLOCKS_PER_PASS * BLOCK_BYTES) {
        let count = pass.len() / BLOCK_BYTES;
        let to = &mut sum[place * WORD_BYTES..][..sum_bytes(count)];
        let is_full = count == BLOCKS_PER_PASS;
        if is_full {
            add_four(pass, to);
        }
        for (index, block) in pass.chunks_exact(BLOCK_BYTES).enumerate() {
            let start = index * WORD_BYTES;
            // Of a full pass there are still the words that not all four blocks have.
            let head = if is_full { (BLOCKS_PER_PASS - 1 - index) * WORD_BYTES } else { 0 };
            let tail = if is_full { BLOCK_BYTES - start } else { 0 };
            xor(&mut to[start..], &block[..head]);
            xor(&mut to[start + tail..], &block[tail..]);
            if place + index > 0 {
                to[start..start + 4].iter_mut().for_each(|byte| *byte = !*byte);
            }
        }
        place += count;
    }
}

fn xor(to: &mut [u8], from: &[u8]) {
    to.iter_mut().zip(from).for_each(|(byte, from)| *byte ^= from);
}

/// Adds the last words of those that are dropped, `done`, to the first of those that are `left`.
fn add_last(done: &[u8], left: &mut [u8], taps: &[usize]) {
    for tap in taps {
        let bytes = tap * WORD_BYTES;
        let from = &done[done.len() - bytes..];
        left[..bytes].iter_mut().zip(from).for_each(|(byte, from)| *byte ^= from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_gives_the_published_check_value() {
        assert_eq!(naive::crc32(u32::MAX, b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn long_messages_become_short() {
        let message = vec![7; 65_536];
        let mut scratch = Vec::new();
        let folded = fold(&message, &mut scratch);
        assert_eq!((folded.register, folded.bytes.len()), (0, DENSE_WORDS_LEFT * WORD_BYTES));
    }
}
