//! The innermost blocks: T taps of V vectors of channels stay in T * V locals while the pixels stream by.
//!
//! See [`crate::gemm`]'s blocks for why sums are finished one by one, and for the two habits of the compiler that the
//! macros and `read_volatile` keep off. A multiply-accumulate costs 7 / 4 = 1.75 here, the input being read once.

use crate::matrix::Clamp;
use crate::unroll::load_vectors;
use std::arch::wasm32::*;

/// What a block works on. Offsets and strides are in bytes.
pub struct Block {
    /// For the first pixel, where each tap's channels are; for the next one, `taps_stride` further. There is at least
    /// one pixel.
    pub taps: *const *const f32,
    pub taps_end: *const *const f32,
    pub taps_stride: usize,
    /// Added to each of them.
    pub channel_offset: usize,
    /// V vectors of weights of the first tap, and how far it is to the next one's.
    pub weights: *const f32,
    pub weights_stride: usize,
    /// V vectors that sums start with, if this is the first block of the sum.
    pub bias: *const f32,
    /// The first pixel's V vectors.
    pub c: *mut f32,
    pub c_stride: usize,
    /// Applied always: [`Clamp::NONE`] if this is not the last block of the sum.
    pub clamp: Clamp,
}

/// # Safety
/// What [`Block`] says must hold for T and V, and C's rows must not overlap anything else.
pub type BlockFn = unsafe fn(&Block);

macro_rules! load_weights {
    ($weights:ident, $from:ident, $stride:ident, [$($t:literal)*], $vs:tt) => { $(
        load_vectors!($weights, $from, $t, $vs);
        #[allow(unused_assignments)]
        { $from = $from.wrapping_byte_add($stride); }
    )* };
}

/// Stores the sums of every vector of a pixel. The first one's chain reads the taps' places for the others too.
macro_rules! pixel {
    ($block:ident, $bias:ident, $p:ident, $taps:ident, $offset:ident, $w:ident, $c:ident, $bounds:ident, [$($v:literal)*], $ts:tt) => { $(
        let mut sum = if FIRST { $bias[$v] } else { v128_load($c.add($v * 4).cast()) };
        if $v == 0 {
            first_chain!(sum, $p, $taps, $offset, $w, $ts);
        } else {
            chain!(sum, $p, $w, $v, $ts);
        }
        v128_store($c.add($v * 4).cast(), f32x4_pmin(f32x4_pmax(sum, $bounds.0), $bounds.1));
    )* };
}

macro_rules! first_chain {
    ($sum:ident, $p:ident, $taps:ident, $offset:ident, $w:ident, [$($t:literal)*]) => { $(
        $p[$t] = (*$taps.add($t)).byte_add($offset);
        $sum = f32x4_add($sum, f32x4_mul(v128_load($p[$t].cast()), $w[$t][0]));
    )* };
}

macro_rules! chain {
    ($sum:ident, $p:ident, $w:ident, $v:literal, [$($t:literal)*]) => { $(
        $sum = f32x4_add($sum, f32x4_mul(v128_load($p[$t].add($v * 4).cast()), $w[$t][$v]));
    )* };
}

macro_rules! block {
    ($name:ident, $v:literal $vs:tt, $t:literal $ts:tt) => {
        #[inline(never)]
        unsafe fn $name<const FIRST: bool>(block: &Block) {
            // SAFETY: as `Block` says; see `BlockFn`.
            unsafe {
                let mut w = [[f32x4_splat(0.0); $v]; $t];
                let (mut from, stride) = (block.weights, block.weights_stride);
                load_weights!(w, from, stride, $ts, $vs);
                let mut bias = [[f32x4_splat(0.0); $v]; 1];
                if FIRST {
                    let from = block.bias;
                    load_vectors!(bias, from, 0, $vs);
                }
                let bias = bias[0];
                let bounds = (f32x4_splat(block.clamp.low), f32x4_splat(block.clamp.high));
                let offset = block.channel_offset;
                let (mut taps, mut c) = (block.taps, block.c);
                loop {
                    let mut p = [std::ptr::null::<f32>(); $t];
                    pixel!(block, bias, p, taps, offset, w, c, bounds, $vs, $ts);
                    taps = taps.byte_add((&raw const block.taps_stride).read_volatile());
                    if taps == block.taps_end {
                        return;
                    }
                    c = c.byte_add((&raw const block.c_stride).read_volatile());
                }
            }
        }
    };
}

macro_rules! blocks {
    ($($name:ident $v:literal $vs:tt, $t:literal $ts:tt;)*) => { $( block!($name, $v $vs, $t $ts); )* };
}

blocks! {
    block_1x16 16 [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15], 1 [0];
    block_1x8 8 [0 1 2 3 4 5 6 7], 1 [0];
    block_1x4 4 [0 1 2 3], 1 [0];
    block_1x2 2 [0 1], 1 [0];
    block_1x1 1 [0], 1 [0];
    block_3x16 16 [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15], 3 [0 1 2];
    block_3x8 8 [0 1 2 3 4 5 6 7], 3 [0 1 2];
    block_3x4 4 [0 1 2 3], 3 [0 1 2];
    block_3x2 2 [0 1], 3 [0 1 2];
    block_3x1 1 [0], 3 [0 1 2];
    block_9x16 16 [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15], 9 [0 1 2 3 4 5 6 7 8];
    block_9x8 8 [0 1 2 3 4 5 6 7], 9 [0 1 2 3 4 5 6 7 8];
    block_9x4 4 [0 1 2 3], 9 [0 1 2 3 4 5 6 7 8];
    block_9x2 2 [0 1], 9 [0 1 2 3 4 5 6 7 8];
    block_9x1 1 [0], 9 [0 1 2 3 4 5 6 7 8];
    block_25x8 8 [0 1 2 3 4 5 6 7], 25 [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24];
    block_25x4 4 [0 1 2 3], 25 [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24];
    block_25x2 2 [0 1], 25 [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24];
    block_25x1 1 [0], 25 [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24];
}

/// The block of T taps and V vectors; `first` tells whether it is the sum's first.
///
/// # Panics
/// When there is none.
pub fn block(taps: usize, vectors: usize, first: bool) -> BlockFn {
    macro_rules! pick {
        ($name:ident) => {
            if first { $name::<true> } else { $name::<false> }
        };
    }
    match (taps, vectors) {
        (25, 8) => pick!(block_25x8),
        (25, 4) => pick!(block_25x4),
        (25, 2) => pick!(block_25x2),
        (25, 1) => pick!(block_25x1),
        (9, 16) => pick!(block_9x16),
        (9, 8) => pick!(block_9x8),
        (9, 4) => pick!(block_9x4),
        (9, 2) => pick!(block_9x2),
        (9, 1) => pick!(block_9x1),
        (3, 16) => pick!(block_3x16),
        (3, 8) => pick!(block_3x8),
        (3, 4) => pick!(block_3x4),
        (3, 2) => pick!(block_3x2),
        (3, 1) => pick!(block_3x1),
        (1, 16) => pick!(block_1x16),
        (1, 8) => pick!(block_1x8),
        (1, 4) => pick!(block_1x4),
        (1, 2) => pick!(block_1x2),
        (1, 1) => pick!(block_1x1),
        _ => panic!("there is no block of {taps} taps and {vectors} vectors"),
    }
}
