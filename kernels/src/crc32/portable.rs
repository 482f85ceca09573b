//! Plain Rust.

use super::{BLOCK_BYTES, BLOCKS_PER_PASS, DENSE_TAPS, DENSE_WORDS_LEFT, TAPS, WORD_BYTES, WORDS_LEFT};

/// See [`super::AddToWords`].
pub(super) fn add_to_words(message: &[u8], scratch: &mut [u8]) {
    let (words, _) = scratch.as_chunks_mut::<WORD_BYTES>();
    for (index, word) in message.as_chunks::<WORD_BYTES>().0.iter().enumerate() {
        let at = WORDS_LEFT + index;
        let sum = TAPS.iter().fold(u128::from_ne_bytes(*word), |sum, tap| sum ^ u128::from_ne_bytes(words[at - tap]));
        words[at] = sum.to_ne_bytes();
    }
}

/// See [`super::AddDensely`].
pub(super) fn add_densely(scratch: &mut [u8]) {
    let (words, _) = scratch.as_chunks_mut::<WORD_BYTES>();
    for at in DENSE_WORDS_LEFT..words.len() {
        let own = u128::from_ne_bytes(words[at]);
        let sum = DENSE_TAPS.iter().fold(own, |sum, tap| sum ^ u128::from_ne_bytes(words[at - tap]));
        words[at] = sum.to_ne_bytes();
    }
}

/// See [`super::AddFour`].
pub(super) fn add_four(blocks: &[u8], sum: &mut [u8]) {
    let (blocks, _) = blocks.as_chunks::<WORD_BYTES>();
    let (words, _) = sum.as_chunks_mut::<WORD_BYTES>();
    for at in BLOCKS_PER_PASS - 1..BLOCK_BYTES / WORD_BYTES {
        let of_block = |index: usize| u128::from_ne_bytes(blocks[index * (BLOCK_BYTES / WORD_BYTES) + at - index]);
        let own = u128::from_ne_bytes(words[at]);
        words[at] = (0..BLOCKS_PER_PASS).fold(own, |sum, index| sum ^ of_block(index)).to_ne_bytes();
    }
}
