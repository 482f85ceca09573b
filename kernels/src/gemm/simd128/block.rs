//! The innermost blocks, straight-line code with every operand where it is cheapest.
//!
//! On the Internet Computer's price list a multiplication and an addition of four values cost 2 each and reading an
//! operand from a local 1, so a multiply-accumulate costs 6 / 4 = 1.5 if the accumulator never leaves the Wasm operand
//! stack. Hence both shapes here finish one accumulator's chain of products before the next one's.
//!
//! * [`Block`]: K rows of a panel, V vectors wide, stay in V * K locals while the rows of A and C stream by. A value of A
//!   is loaded once per row (2 more than 1.5 per 4 V), C is read and written once per K.
//! * [`VectorBlock`]: K values of one row x stay in locals while the panels stream by: a vector of B is read once (7 / 4).
//!
//! Two habits of the compiler are kept off. Arrays are indexed by literals only, in code that macros unroll: an array
//! that is indexed by a variable lives in memory. And a pointer that moves by a constant step through a loop is rewritten
//! so that every load has an address computed for it, instead of an offset from one pointer; steps are therefore read
//! from memory in every round (`read_volatile`), which makes the pointers opaque.

use super::super::pack::PANEL_COLUMNS;
use crate::matrix::Clamp;
use crate::unroll::load_vectors;
use std::arch::wasm32::*;

/// What [`Block`]s work on. Offsets and strides are in bytes.
pub struct Block {
    /// Where each row's values of A start, and the end of this table, which has at least one entry.
    pub rows: *const *const f32,
    pub rows_end: *const *const f32,
    /// Added to each of them.
    pub a_offset: usize,
    /// The first of K rows of V vectors.
    pub b: *const f32,
    pub b_stride: usize,
    /// V vectors that sums start with, if this is the first block of the sum.
    pub bias: *const f32,
    /// The first row's V vectors.
    pub c: *mut f32,
    pub c_stride: usize,
    /// Applied if this is the last block of the sum.
    pub clamp: Clamp,
}

/// What [`VectorBlock`]s work on. Strides are in bytes.
pub struct VectorBlock {
    /// K values of x.
    pub x: *const f32,
    /// K rows of the first panel, each full and following one another.
    pub b: *const f32,
    pub b_stride: usize,
    /// What the first panel's sums are, and how far it is to the next panel's.
    pub start: *const f32,
    pub start_stride: usize,
    /// Where they go, and where the last panel's end.
    pub y: *mut f32,
    pub y_end: *mut f32,
    /// Of full panels.
    pub y_stride: usize,
    /// Applied if this is the last block of the sum.
    pub clamp: Clamp,
}

/// # Safety
/// What [`Block`] says must hold for K and V, and C's rows must not overlap anything else.
pub type BlockFn = unsafe fn(&Block);

/// # Safety
/// What [`VectorBlock`] says must hold for K.
pub type VectorBlockFn = unsafe fn(&VectorBlock);

macro_rules! load_rows {
    ($b:ident, $from:ident, $stride:ident, [$($k:literal)*], $vs:tt) => { $(
        load_vectors!($b, $from, $k, $vs);
        #[allow(unused_assignments)]
        { $from = $from.wrapping_byte_add($stride); }
    )* };
}

/// Stores the sums of every vector of a row. The first vector's chain loads the values of A that the others use.
macro_rules! row {
    ($block:ident, $bias:ident, $a:ident, $from:ident, $b:ident, $c:ident, $bounds:ident, [$($v:literal)*], $ks:tt) => { $(
        let mut sum = if FIRST { $bias[$v] } else { v128_load($c.add($v * 4).cast()) };
        if $v == 0 {
            load_chain!(sum, $a, $from, $b, $ks);
        } else {
            chain!(sum, $a, $b, $v, $ks);
        }
        if LAST {
            sum = f32x4_pmin(f32x4_pmax(sum, $bounds.0), $bounds.1);
        }
        v128_store($c.add($v * 4).cast(), sum);
    )* };
}

macro_rules! load_chain {
    ($sum:ident, $a:ident, $from:ident, $b:ident, [$($k:literal)*]) => { $(
        $a[$k] = v128_load32_splat($from.add($k).cast());
        $sum = f32x4_add($sum, f32x4_mul($a[$k], $b[$k][0]));
    )* };
}

macro_rules! chain {
    ($sum:ident, $a:ident, $b:ident, $v:literal, [$($k:literal)*]) => { $(
        $sum = f32x4_add($sum, f32x4_mul($a[$k], $b[$k][$v]));
    )* };
}

macro_rules! block {
    ($name:ident, $v:literal $vs:tt, $k:literal $ks:tt) => {
        #[inline(never)]
        unsafe fn $name<const FIRST: bool, const LAST: bool>(block: &Block) {
            // SAFETY: as `Block` says; see `BlockFn`.
            unsafe {
                let mut b = [[f32x4_splat(0.0); $v]; $k];
                let (mut from, stride) = (block.b, block.b_stride);
                load_rows!(b, from, stride, $ks, $vs);
                let mut bias = [[f32x4_splat(0.0); $v]; 1];
                if FIRST {
                    let from = block.bias;
                    load_vectors!(bias, from, 0, $vs);
                }
                let bias = bias[0];
                let bounds = (f32x4_splat(block.clamp.low), f32x4_splat(block.clamp.high));
                let (mut rows, mut c) = (block.rows, block.c);
                loop {
                    let from = (*rows).byte_add(block.a_offset);
                    let mut a = [f32x4_splat(0.0); $k];
                    row!(block, bias, a, from, b, c, bounds, $vs, $ks);
                    rows = rows.add(1);
                    if rows == block.rows_end {
                        return;
                    }
                    c = c.byte_add((&raw const block.c_stride).read_volatile());
                }
            }
        }
    };
}

macro_rules! blocks {
    ($($module:ident $v:literal $vs:tt;)*) => { $(
        mod $module {
            use super::*;
            block!(block_27, $v $vs, 27 [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26]);
            pub const WHOLE: BlockFn = block_27::<true, true>;
            block!(block_32, $v $vs, 32 [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31]);
            block!(block_16, $v $vs, 16 [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15]);
            block!(block_8, $v $vs, 8 [0 1 2 3 4 5 6 7]);
            block!(block_4, $v $vs, 4 [0 1 2 3]);
            block!(block_2, $v $vs, 2 [0 1]);
            block!(block_1, $v $vs, 1 [0]);
            pub const BLOCKS: [[BlockFn; 4]; DEPTHS.len()] = [
                [block_32::<false, false>, block_32::<true, false>, block_32::<false, true>, block_32::<true, true>],
                [block_16::<false, false>, block_16::<true, false>, block_16::<false, true>, block_16::<true, true>],
                [block_8::<false, false>, block_8::<true, false>, block_8::<false, true>, block_8::<true, true>],
                [block_4::<false, false>, block_4::<true, false>, block_4::<false, true>, block_4::<true, true>],
                [block_2::<false, false>, block_2::<true, false>, block_2::<false, true>, block_2::<true, true>],
                [block_1::<false, false>, block_1::<true, false>, block_1::<false, true>, block_1::<true, true>],
            ];
        }
    )* };
}

/// The depths K that there are blocks of.
pub const DEPTHS: [usize; 6] = [32, 16, 8, 4, 2, 1];

blocks! {
    vectors_1 1 [0];
    vectors_2 2 [0 1];
    vectors_4 4 [0 1 2 3];
    vectors_6 6 [0 1 2 3 4 5];
    vectors_8 8 [0 1 2 3 4 5 6 7];
}

/// Blocks of panels of so many vectors, by index in [`DEPTHS`] and whether the block is the sum's first (+ 1) and last
/// (+ 2).
///
/// # Panics
/// When there are none.
pub fn blocks(vectors: usize) -> &'static [[BlockFn; 4]; DEPTHS.len()] {
    static BLOCKS: [[[BlockFn; 4]; DEPTHS.len()]; 5] =
        [vectors_1::BLOCKS, vectors_2::BLOCKS, vectors_4::BLOCKS, vectors_6::BLOCKS, vectors_8::BLOCKS];
    match vectors {
        1 => &BLOCKS[0],
        2 => &BLOCKS[1],
        4 => &BLOCKS[2],
        6 => &BLOCKS[3],
        8 => &BLOCKS[4],
        _ => panic!("there are no blocks of {vectors} vectors"),
    }
}

/// The block of depth 27 of a panel of so many vectors, which is a sum's first and last.
///
/// # Panics
/// When there is none.
pub fn whole_block(vectors: usize) -> BlockFn {
    match vectors {
        1 => vectors_1::WHOLE,
        2 => vectors_2::WHOLE,
        4 => vectors_4::WHOLE,
        6 => vectors_6::WHOLE,
        8 => vectors_8::WHOLE,
        _ => panic!("there are no blocks of {vectors} vectors"),
    }
}

macro_rules! vector_chain {
    ($sum:ident, $x:ident, $b:ident, $v:literal, [$($k:literal)*]) => { $(
        $sum = f32x4_add($sum, f32x4_mul($x[$k], v128_load($b.add($k * PANEL_COLUMNS + $v * 4).cast())));
    )* };
}

macro_rules! vector_panel {
    ($block:ident, $x:ident, $b:ident, $start:ident, $y:ident, $bounds:ident, [$($v:literal)*], $ks:tt) => { $(
        let mut sum = v128_load($start.add($v * 4).cast());
        vector_chain!(sum, $x, $b, $v, $ks);
        if LAST {
            sum = f32x4_pmin(f32x4_pmax(sum, $bounds.0), $bounds.1);
        }
        v128_store($y.add($v * 4).cast(), sum);
    )* };
}

macro_rules! vector_block {
    ($name:ident, $k:literal [$($ks:literal)*]) => {
        #[inline(never)]
        unsafe fn $name<const LAST: bool>(block: &VectorBlock) {
            // SAFETY: as `VectorBlock` says; see `VectorBlockFn`.
            unsafe {
                let mut x = [f32x4_splat(0.0); $k];
                $( x[$ks] = v128_load32_splat(block.x.add($ks).cast()); )*
                let bounds = (f32x4_splat(block.clamp.low), f32x4_splat(block.clamp.high));
                let (mut b, mut start, mut y) = (block.b, block.start, block.y);
                loop {
                    vector_panel!(block, x, b, start, y, bounds, [0 1 2 3 4 5 6 7], [$($ks)*]);
                    y = y.byte_add((&raw const block.y_stride).read_volatile());
                    if y == block.y_end {
                        return;
                    }

                    b = b.byte_add((&raw const block.b_stride).read_volatile());
                    start = start.byte_add((&raw const block.start_stride).read_volatile());
                }
            }
        }
    };
}

vector_block!(vector_block_64, 64 [
    0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31
    32 33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63
]);
vector_block!(vector_block_32, 32 [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31]);
vector_block!(vector_block_16, 16 [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15]);
vector_block!(vector_block_8, 8 [0 1 2 3 4 5 6 7]);
vector_block!(vector_block_4, 4 [0 1 2 3]);
vector_block!(vector_block_2, 2 [0 1]);
vector_block!(vector_block_1, 1[0]);

/// The depths K that there are vector blocks of.
pub const VECTOR_DEPTHS: [usize; 7] = [64, 32, 16, 8, 4, 2, 1];

/// Vector blocks by index in [`VECTOR_DEPTHS`] and whether the block is the sum's last.
pub static VECTOR_BLOCKS: [[VectorBlockFn; 2]; VECTOR_DEPTHS.len()] = [
    [vector_block_64::<false>, vector_block_64::<true>],
    [vector_block_32::<false>, vector_block_32::<true>],
    [vector_block_16::<false>, vector_block_16::<true>],
    [vector_block_8::<false>, vector_block_8::<true>],
    [vector_block_4::<false>, vector_block_4::<true>],
    [vector_block_2::<false>, vector_block_2::<true>],
    [vector_block_1::<false>, vector_block_1::<true>],
];
