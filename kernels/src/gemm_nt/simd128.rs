//! A WebAssembly body with 128-bit SIMD: up to 16 vectors of one or eight rows of A stay in locals while rows of B stream
//! by. See [`crate::gemm`]'s blocks for why sums are finished one by one, and for the two habits of the compiler that the
//! macros and `read_volatile` keep off.

use super::cost::{DEPTH, HALF_QUAD_LEN, QUAD_LEN, TILE_COLUMNS, TILE_ROWS};
use crate::matrix::{MatrixMut, MatrixRef};
use std::arch::wasm32::*;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Values of a vector.
const LANES: usize = 4;

/// Four sums for each value of a tile of C, row by row.
type Sums = [[[f32; LANES]; TILE_COLUMNS]; TILE_ROWS];

/// Bytes from one row's sums to the next's.
const SUMS_STRIDE: usize = size_of::<[[f32; LANES]; TILE_COLUMNS]>();

/// What a block works on. Strides are in bytes.
struct Block {
    /// D vectors of the first row of A.
    a: *const f32,
    a_stride: usize,
    /// D vectors of the first row of B.
    b: *const f32,
    b_stride: usize,
    /// The first value's sums, and behind the last one of the first row.
    sums: *mut f32,
    sums_end: *mut f32,
    /// Of one value's sums.
    sum_stride: usize,
}

/// # Safety
/// What [`Block`] says must hold for D and the rows of the function, with at least one row of B.
type BlockFn = unsafe fn(&Block);

macro_rules! load_rows {
    ($a:ident, $from:ident, $stride:ident, [$($r:literal)*], $ds:tt) => { $(
        load_row!($a, $from, $r, $ds);
        #[allow(unused_assignments)]
        { $from = $from.wrapping_byte_add($stride); }
    )* };
}

macro_rules! load_row {
    ($a:ident, $from:ident, $r:literal, [$($d:literal)*]) => { $( $a[$r][$d] = v128_load($from.add($d * LANES).cast()); )* };
}

macro_rules! column {
    ($a:ident, $b:ident, $from:ident, $sums:ident, [$($r:literal)*], $ds:tt) => { $(
        let place = $sums.byte_add($r * SUMS_STRIDE);
        let mut sum = if FIRST { f32x4_splat(0.0) } else { v128_load(place.cast()) };
        if $r == 0 {
            load_chain!(sum, $a, $b, $from, $ds);
        } else {
            chain!(sum, $a, $b, $r, $ds);
        }
        v128_store(place.cast(), sum);
    )* };
}

macro_rules! load_chain {
    ($sum:ident, $a:ident, $b:ident, $from:ident, [$($d:literal)*]) => { $(
        $b[$d] = v128_load($from.add($d * LANES).cast());
        $sum = f32x4_add($sum, f32x4_mul($a[0][$d], $b[$d]));
    )* };
}

macro_rules! chain {
    ($sum:ident, $a:ident, $b:ident, $r:literal, [$($d:literal)*]) => { $(
        $sum = f32x4_add($sum, f32x4_mul($a[$r][$d], $b[$d]));
    )* };
}

macro_rules! block {
    ($name:ident, $rows:literal $rs:tt, $depth:literal $ds:tt) => {
        #[inline(never)]
        unsafe fn $name<const FIRST: bool>(block: &Block) {
            // SAFETY: as `Block` says; see `BlockFn`.
            unsafe {
                let mut a = [[f32x4_splat(0.0); $depth]; $rows];
                let (mut from, stride) = (block.a, block.a_stride);
                load_rows!(a, from, stride, $rs, $ds);
                let (mut from, mut sums) = (block.b, block.sums);
                loop {
                    let mut b = [f32x4_splat(0.0); $depth];
                    column!(a, b, from, sums, $rs, $ds);
                    sums = sums.byte_add((&raw const block.sum_stride).read_volatile());
                    if sums == block.sums_end {
                        return;
                    }
                    from = from.byte_add((&raw const block.b_stride).read_volatile());
                }
            }
        }
    };
}

macro_rules! blocks {
    ($($one:ident $eight:ident $depth:literal $ds:tt;)*) => { $(
        block!($one, 1 [0], $depth $ds);
        block!($eight, 8 [0 1 2 3 4 5 6 7], $depth $ds);
    )* };
}

blocks! {
    block_1x16 block_8x16 16 [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15];
    block_1x8 block_8x8 8 [0 1 2 3 4 5 6 7];
    block_1x4 block_8x4 4 [0 1 2 3];
    block_1x2 block_8x2 2 [0 1];
    block_1x1 block_8x1 1 [0];
}

/// Blocks by depth, 16 first, whether they are of eight rows, and whether they are the sum's first.
static BLOCKS: [[[BlockFn; 2]; 2]; 5] = [
    [[block_1x16::<false>, block_1x16::<true>], [block_8x16::<false>, block_8x16::<true>]],
    [[block_1x8::<false>, block_1x8::<true>], [block_8x8::<false>, block_8x8::<true>]],
    [[block_1x4::<false>, block_1x4::<true>], [block_8x4::<false>, block_8x4::<true>]],
    [[block_1x2::<false>, block_1x2::<true>], [block_8x2::<false>, block_8x2::<true>]],
    [[block_1x1::<false>, block_1x1::<true>], [block_8x1::<false>, block_8x1::<true>]],
];

/// What a block of four rows of B at a time works on, for a row of A that is just D vectors. Strides are in bytes.
struct Quad {
    /// D vectors.
    a: *const f32,
    /// D vectors of the first row of B.
    b: *const f32,
    b_stride: usize,
    /// Where values go, four for each four rows of B, and behind the last ones.
    c: *mut f32,
    c_end: *mut f32,
    /// Of four values.
    c_stride: usize,
    scale: f32,
}

/// # Safety
/// What [`Quad`] says must hold for D, with at least four rows of B.
type QuadFn = unsafe fn(&Quad);

macro_rules! quad_chain {
    ($a:ident, $from:ident, [$($d:literal)*]) => {{
        let mut sum = f32x4_splat(0.0);
        $( sum = f32x4_add(sum, f32x4_mul($a[0][$d], v128_load($from.add($d * LANES).cast()))); )*
        sum
    }};
}

macro_rules! quad {
    ($name:ident, $depth:literal $ds:tt) => {
        #[inline(never)]
        unsafe fn $name(quad: &Quad) {
            // SAFETY: as `Quad` says; see `QuadFn`.
            unsafe {
                let mut a = [[f32x4_splat(0.0); $depth]; 1];
                let (from, scale) = (quad.a, f32x4_splat(quad.scale));
                load_row!(a, from, 0, $ds);
                let (mut b0, mut c) = (quad.b, quad.c);
                loop {
                    let step = (&raw const quad.b_stride).read_volatile();
                    let b1 = b0.wrapping_byte_add(step);
                    let b2 = b1.wrapping_byte_add(step);
                    let b3 = b2.wrapping_byte_add(step);
                    let sums = [
                        quad_chain!(a, b0, $ds),
                        quad_chain!(a, b1, $ds),
                        quad_chain!(a, b2, $ds),
                        quad_chain!(a, b3, $ds),
                    ];
                    v128_store(c.cast(), f32x4_mul(add_lanes(sums), scale));
                    c = c.byte_add((&raw const quad.c_stride).read_volatile());
                    if c == quad.c_end {
                        return;
                    }
                    b0 = b3.wrapping_byte_add(step);
                }
            }
        }
    };
}

quad!(quad_16, 16 [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15]);
quad!(quad_8, 8 [0 1 2 3 4 5 6 7]);

/// (s0 + s1) + (s2 + s3) of each of four sums.
#[inline(always)]
fn add_lanes([a, b, c, d]: [v128; 4]) -> v128 {
    // (a0 + a1, a2 + a3, b0 + b1, b2 + b3), and the same of c and d.
    let ab = f32x4_add(i32x4_shuffle::<0, 2, 4, 6>(a, b), i32x4_shuffle::<1, 3, 5, 7>(a, b));
    let cd = f32x4_add(i32x4_shuffle::<0, 2, 4, 6>(c, d), i32x4_shuffle::<1, 3, 5, 7>(c, d));
    f32x4_add(i32x4_shuffle::<0, 2, 4, 6>(ab, cd), i32x4_shuffle::<1, 3, 5, 7>(ab, cd))
}

/// The first columns of a row of C, as many as there are whole fours of them and a block for so many vectors; tells how
/// many.
fn quads(a: &[f32], b: MatrixRef<'_>, scale: f32, c: &mut [f32]) -> usize {
    let function: QuadFn = match a.len() {
        QUAD_LEN => quad_16,
        HALF_QUAD_LEN => quad_8,
        _ => return 0,
    };
    let c = c[..b.rows / LANES * LANES].as_mut_ptr_range();
    if c.is_empty() {
        return 0;
    }
    let quad = Quad {
        a: a.as_ptr(),
        b: b.data.as_ptr(),
        b_stride: b.stride * size_of::<f32>(),
        c: c.start,
        c_end: c.end,
        c_stride: LANES * size_of::<f32>(),
        scale,
    };
    // SAFETY: a row of A, and each row of B, are as long as the block is deep; C has a place for each of the rows.
    unsafe { function(&quad) };
    b.rows / LANES * LANES
}

/// See [`super::gemm_nt`].
pub fn gemm_nt(a: MatrixRef<'_>, b: MatrixRef<'_>, scale: f32, rows: Range<usize>, c: &mut MatrixMut<'_>) {
    if a.columns < LANES {
        return super::portable::gemm_nt(a, b, scale, rows, c);
    }
    let mut sums = MaybeUninit::uninit();
    let mut first = rows.start;
    while first < rows.end {
        let count = if rows.end - first < TILE_ROWS { 1 } else { TILE_ROWS };
        let done = if count == 1 { quads(a.row(first), b, scale, c.row_mut(first)) } else { 0 };
        for column in (done..b.rows).step_by(TILE_COLUMNS) {
            let columns = column..b.rows.min(column + TILE_COLUMNS);
            tile(a, b, scale, first..first + count, columns, &mut sums, c);
        }
        first += count;
    }
}

/// One or [`TILE_ROWS`] rows and up to [`TILE_COLUMNS`] columns of C.
fn tile(
    a: MatrixRef<'_>,
    b: MatrixRef<'_>,
    scale: f32,
    rows: Range<usize>,
    columns: Range<usize>,
    sums: &mut MaybeUninit<Sums>,
    c: &mut MatrixMut<'_>,
) {
    let vectors = a.columns / LANES;
    assert!((rows.len() == 1 || rows.len() == TILE_ROWS) && (1..=TILE_COLUMNS).contains(&columns.len()) && vectors > 0);
    let sums: *mut f32 = sums.as_mut_ptr().cast();
    let (a_from, b_from) = (&a.data[rows.start * a.stride..], &b.data[columns.start * b.stride..]);
    let mut done = 0;
    while done < vectors {
        let left = vectors - done;
        let depth = if left >= DEPTH { DEPTH } else { 1 << left.ilog2() };
        let block = Block {
            a: a_from[done * LANES..].as_ptr(),
            a_stride: a.stride * size_of::<f32>(),
            b: b_from[done * LANES..].as_ptr(),
            b_stride: b.stride * size_of::<f32>(),
            sums,
            sums_end: sums.wrapping_add(columns.len() * LANES),
            sum_stride: LANES * size_of::<f32>(),
        };
        let index = (DEPTH / depth).ilog2() as usize;
        // SAFETY: the rows of A and B hold `vectors` vectors; there are sums for all values of the tile.
        unsafe { BLOCKS[index][usize::from(rows.len() == TILE_ROWS)][usize::from(done == 0)](&block) };
        done += depth;
    }
    // SAFETY: the blocks have written the sums of these rows and columns.
    let of_row = |row: usize| unsafe {
        std::slice::from_raw_parts_mut(sums.byte_add((row - rows.start) * SUMS_STRIDE).cast(), columns.len())
    };
    for row in rows.clone() {
        let sums: &mut [[f32; LANES]] = of_row(row);
        let rest = &a.row(row)[vectors * LANES..];
        if !rest.is_empty() {
            for (column, sums) in columns.clone().zip(sums.iter_mut()) {
                for ((sum, a), b) in sums.iter_mut().zip(rest).zip(&b.row(column)[vectors * LANES..]) {
                    *sum += a * b;
                }
            }
        }
        reduce(sums, scale, &mut c.row_mut(row)[columns.clone()]);
    }
}

/// c = ((s0 + s1) + (s2 + s3)) * scale, four at a time.
fn reduce(sums: &[[f32; LANES]], scale: f32, c: &mut [f32]) {
    let (tiles, rest) = sums.as_chunks::<LANES>();
    let (places, rest_places) = c.as_chunks_mut::<LANES>();
    for (tile, place) in tiles.iter().zip(places) {
        let sums = tile.each_ref().map(|sums| {
            // SAFETY: sixteen bytes.
            unsafe { v128_load(sums.as_ptr().cast()) }
        });
        // SAFETY: sixteen bytes.
        unsafe { v128_store(place.as_mut_ptr().cast(), f32x4_mul(add_lanes(sums), f32x4_splat(scale))) };
    }
    for (place, sums) in rest_places.iter_mut().zip(rest) {
        *place = ((sums[0] + sums[1]) + (sums[2] + sums[3])) * scale;
    }
}
