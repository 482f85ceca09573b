//! 128-bit SIMD: 16 instructions for 16 bytes, and 45 by the dense taps.

use super::{BLOCK_BYTES, BLOCKS_PER_PASS, DENSE_TAPS, DENSE_WORDS_LEFT, TAPS, WORD_BYTES, WORDS_LEFT, portable};
use std::arch::wasm32::*;

/// Words of a round.
const UNROLLED: usize = 8;

/// See [`super::AddToWords`].
pub(super) fn add_to_words(message: &[u8], scratch: &mut [u8]) {
    let words = message.len() / WORD_BYTES;
    assert!((WORDS_LEFT + words) * WORD_BYTES <= scratch.len(), "{} bytes for {words} words", scratch.len());
    let rounds = words / UNROLLED;
    let done = rounds * UNROLLED * WORD_BYTES;
    if rounds > 0 {
        // SAFETY: `message` has the rounds' words, and `scratch` as many behind the first 300.
        unsafe { add_rounds(message.as_ptr(), scratch.as_mut_ptr(), rounds, &(UNROLLED * WORD_BYTES)) };
    }
    portable::add_to_words(&message[done..], &mut scratch[done..]);
}

/// Does `rounds` rounds, at least one. The step is read from memory in every round so that loads keep their offsets from
/// one pointer.
#[inline(never)]
unsafe fn add_rounds(mut message: *const u8, mut scratch: *mut u8, mut rounds: usize, step: &usize) {
    macro_rules! words {
        ($($word:literal)*) => { $({
            let word = |index: usize| v128_load(scratch.add((index + $word) * WORD_BYTES).cast());
            let near = v128_xor(word(WORDS_LEFT - TAPS[0]), word(WORDS_LEFT - TAPS[1]));
            let far = v128_xor(word(WORDS_LEFT - TAPS[2]), word(WORDS_LEFT - TAPS[3]));
            let sum = v128_xor(v128_xor(near, far), v128_load(message.add($word * WORD_BYTES).cast()));
            v128_store(scratch.add((WORDS_LEFT + $word) * WORD_BYTES).cast(), sum);
        })* };
    }
    loop {
        // SAFETY: the caller's word.
        unsafe {
            words!(0 1 2 3 4 5 6 7);
            rounds -= 1;
            if rounds == 0 {
                return;
            }
            let step = (&raw const *step).read_volatile();
            message = message.wrapping_add(step);
            scratch = scratch.wrapping_add(step);
        }
    }
}

/// See [`super::AddDensely`].
pub(super) fn add_densely(scratch: &mut [u8]) {
    const PER_ROUND: usize = 4;
    let words = (scratch.len() / WORD_BYTES).saturating_sub(DENSE_WORDS_LEFT);
    let rounds = words / PER_ROUND;
    if rounds > 0 {
        // SAFETY: `scratch` has the rounds' words behind the first 32.
        unsafe { add_dense_rounds(scratch.as_mut_ptr(), rounds, &(PER_ROUND * WORD_BYTES)) };
    }
    portable::add_densely(&mut scratch[rounds * PER_ROUND * WORD_BYTES..]);
}

/// Does `rounds` rounds, at least one; `step` as in [`add_rounds`].
#[inline(never)]
unsafe fn add_dense_rounds(mut scratch: *mut u8, mut rounds: usize, step: &usize) {
    macro_rules! sum {
        ($sum:expr, $place:expr; $($tap:literal)*) => {{
            let sum = $sum;
            $( let sum = v128_xor(sum, v128_load(scratch.add(($place - DENSE_TAPS[$tap]) * WORD_BYTES).cast())); )*
            sum
        }};
    }
    macro_rules! words {
        ($($word:literal)*) => { $({
            let place = DENSE_WORDS_LEFT + $word;
            let own = v128_load(scratch.add(place * WORD_BYTES).cast());
            let sum = sum!(own, place; 0 1 2 3 4 5 6 7 8 9 10 11 12 13);
            v128_store(scratch.add(place * WORD_BYTES).cast(), sum);
        })* };
    }
    loop {
        // SAFETY: the caller's word.
        unsafe {
            words!(0 1 2 3);
            rounds -= 1;
            if rounds == 0 {
                return;
            }
            scratch = scratch.wrapping_add((&raw const *step).read_volatile());
        }
    }
}

/// Words of a round of [`add_four`].
const FOUR_UNROLLED: usize = 8;

/// See [`super::AddFour`]: 17 instructions for a word of all four.
pub(super) fn add_four(blocks: &[u8], sum: &mut [u8]) {
    const FIRST: usize = BLOCKS_PER_PASS - 1;
    const WORDS: usize = BLOCK_BYTES / WORD_BYTES - FIRST;
    const ROUNDS: usize = WORDS / FOUR_UNROLLED;
    assert!(blocks.len() >= BLOCKS_PER_PASS * BLOCK_BYTES && sum.len() >= BLOCK_BYTES);
    let (from, to) = (&blocks[FIRST * WORD_BYTES..], &mut sum[FIRST * WORD_BYTES..]);
    // SAFETY: the rounds' words end within the first block, and the other blocks' words are behind those.
    unsafe { add_four_rounds(from.as_ptr(), to.as_mut_ptr(), ROUNDS, &(FOUR_UNROLLED * WORD_BYTES)) };
    for at in FIRST + ROUNDS * FOUR_UNROLLED..FIRST + WORDS {
        for index in 0..BLOCKS_PER_PASS {
            let from = index * BLOCK_BYTES + (at - index) * WORD_BYTES;
            super::xor(&mut sum[at * WORD_BYTES..], &blocks[from..from + WORD_BYTES]);
        }
    }
}

/// Does `rounds` rounds, at least one; `step` as in [`add_rounds`].
#[inline(never)]
unsafe fn add_four_rounds(mut from: *const u8, mut to: *mut u8, mut rounds: usize, step: &usize) {
    /// From a word of one block to the word of the next that is added to it.
    const NEXT: usize = BLOCK_BYTES - WORD_BYTES;
    macro_rules! words {
        ($($word:literal)*) => { $({
            let word = |index: usize| v128_load(from.add(index * NEXT + $word * WORD_BYTES).cast());
            let sum = v128_xor(v128_xor(word(0), word(1)), v128_xor(word(2), word(3)));
            let place: *mut v128 = to.add($word * WORD_BYTES).cast();
            v128_store(place, v128_xor(sum, v128_load(place)));
        })* };
    }
    loop {
        // SAFETY: the caller's word.
        unsafe {
            words!(0 1 2 3 4 5 6 7);
            rounds -= 1;
            if rounds == 0 {
                return;
            }
            let step = (&raw const *step).read_volatile();
            from = from.wrapping_add(step);
            to = to.wrapping_add(step);
        }
    }
}
