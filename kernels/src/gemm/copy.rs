//! The copies that packing is made of, with 128-bit SIMD.
//!
//! A vector of a column-wise source is put together by four lane loads, 4 instructions a value: the compiler adds their
//! offsets to the pointers, without which it would be 2.5. Transposing blocks of four by four by shuffles would take 3.75 at
//! least. As in [`super::simd128`]'s blocks, steps are read from memory in every round
//! so that loads keep their offsets from one pointer; and the functions are not inlined, because where the compiler sees
//! that source and destination are apart it makes a loop a `memory.copy`, a hundred instructions at least.

use super::pack::LANES;
use crate::matrix::MatrixRef;
use std::arch::wasm32::*;
use std::mem::MaybeUninit;

/// Rows that are copied by straight-line code.
const UNROLLED: usize = 16;

/// Copies of every row of `source` the `vectors` vectors from `column` on, one behind the other.
pub(super) fn rows(source: MatrixRef<'_>, column: usize, vectors: usize, packed: &mut [MaybeUninit<f32>]) {
    if source.rows == 0 {
        return;
    }
    assert!(column + vectors * LANES <= source.columns && source.rows * vectors * LANES <= packed.len());
    let copy = match vectors {
        1 => rows_of_1,
        2 => rows_of_2,
        4 => rows_of_4,
        6 => rows_of_6,
        8 => rows_of_8,
        _ => panic!("there are no panels of {vectors} vectors"),
    };
    let steps = Steps { from: source.stride * size_of::<f32>(), to: vectors * LANES * size_of::<f32>() };
    // SAFETY: every row of `source` has the columns, and `packed` a place for each.
    unsafe { copy(source.data.as_ptr().wrapping_add(column), packed.as_mut_ptr().cast(), source.rows, &steps) };
}

/// Bytes from one round to the next.
struct Steps {
    from: usize,
    to: usize,
}

macro_rules! copy_rows {
    ($name:ident, $($v:literal)*) => {
        #[inline(never)]
        unsafe fn $name(mut from: *const f32, mut to: *mut f32, mut count: usize, steps: &Steps) {
            loop {
                // SAFETY: the caller's word.
                unsafe {
                    $( v128_store(to.add($v * LANES).cast(), v128_load(from.add($v * LANES).cast())); )*
                    count -= 1;
                    if count == 0 {
                        return;
                    }
                    from = from.wrapping_byte_add((&raw const steps.from).read_volatile());
                    to = to.wrapping_byte_add((&raw const steps.to).read_volatile());
                }
            }
        }
    };
}

copy_rows!(rows_of_1, 0);
copy_rows!(rows_of_2, 0 1);
copy_rows!(rows_of_4, 0 1 2 3);
copy_rows!(rows_of_6, 0 1 2 3 4 5);
copy_rows!(rows_of_8, 0 1 2 3 4 5 6 7);

/// Copies the four rows of `source` from `row` on into one vector of a panel of `vectors` vectors: `packed` starts with
/// it. Their values are in blocks as [`super::PackedMatrix::set_columns_blocked`] has it.
pub(super) fn columns(
    source: MatrixRef<'_>,
    row: usize,
    block: usize,
    vectors: usize,
    packed: &mut [MaybeUninit<f32>],
) {
    let k = source.columns;
    let width = vectors * LANES;
    assert!(k > 0 && block > 0 && k.is_multiple_of(block) && (k - 1) * width + LANES <= packed.len());
    let rows: [&[f32]; LANES] = std::array::from_fn(|lane| source.row(row + lane));
    let depth = k / block;
    for start in 0..block {
        let from = rows.map(|row| row[start..].as_ptr());
        let to: *mut f32 = packed[start * depth * width..].as_mut_ptr().cast();
        let unrolled = depth / UNROLLED;
        let done = unrolled * UNROLLED;
        // SAFETY: value `start + i * block` of a row is within it for i < depth; so is place `(start * depth + i) * width`
        // with the three behind it in `packed`.
        unsafe {
            if unrolled > 0 {
                type Columns = unsafe fn([*const f32; LANES], *mut f32, usize, &Steps);
                let (copy, per_round): (Columns, usize) = match (vectors, block) {
                    (8, 1) => (columns_unrolled::<8, 1>, UNROLLED),
                    (6, 1) => (columns_unrolled::<6, 1>, UNROLLED),
                    (4, 1) => (columns_unrolled::<4, 1>, UNROLLED),
                    (2, 1) => (columns_unrolled::<2, 1>, UNROLLED),
                    (1, 1) => (columns_unrolled::<1, 1>, UNROLLED),
                    // Filters of nine taps.
                    (8, 9) => (columns_unrolled::<8, 9>, UNROLLED),
                    (4, 9) => (columns_unrolled::<4, 9>, UNROLLED),
                    _ => (columns_one_by_one, 1),
                };
                let from_step = per_round * block * size_of::<f32>();
                let to_step = per_round * width * size_of::<f32>();
                copy(from, to, done / per_round, &Steps { from: from_step, to: to_step });
            }
            if done < depth {
                let steps = Steps { from: block * size_of::<f32>(), to: width * size_of::<f32>() };
                let from = from.map(|from| from.wrapping_add(done * block));
                columns_one_by_one(from, to.wrapping_add(done * width), depth - done, &steps);
            }
        }
    }
}

/// A vector of one value from each pointer, `$offset` values further.
macro_rules! gather {
    ($p0:ident, $p1:ident, $p2:ident, $p3:ident, $offset:expr) => {{
        let vector = v128_load32_zero($p0.add($offset).cast());
        let vector = v128_load32_lane::<1>(vector, $p1.add($offset).cast());
        let vector = v128_load32_lane::<2>(vector, $p2.add($offset).cast());
        v128_load32_lane::<3>(vector, $p3.add($offset).cast())
    }};
}

#[inline(never)]
unsafe fn columns_unrolled<const VECTORS: usize, const BLOCK: usize>(
    from: [*const f32; LANES],
    mut to: *mut f32,
    mut count: usize,
    steps: &Steps,
) {
    let [mut p0, mut p1, mut p2, mut p3] = from;
    macro_rules! copies {
        ($($u:literal)*) => { $(
            v128_store(to.add($u * VECTORS * LANES).cast(), gather!(p0, p1, p2, p3, $u * BLOCK));
        )* };
    }
    loop {
        // SAFETY: the caller's word.
        unsafe {
            copies!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
            count -= 1;
            if count == 0 {
                return;
            }
            let step = (&raw const steps.from).read_volatile();
            (p0, p1) = (p0.wrapping_byte_add(step), p1.wrapping_byte_add(step));
            (p2, p3) = (p2.wrapping_byte_add(step), p3.wrapping_byte_add(step));
            to = to.wrapping_byte_add((&raw const steps.to).read_volatile());
        }
    }
}

#[inline(never)]
unsafe fn columns_one_by_one(from: [*const f32; LANES], mut to: *mut f32, count: usize, steps: &Steps) {
    let [mut p0, mut p1, mut p2, mut p3] = from;
    for _ in 0..count {
        // SAFETY: the caller's word.
        unsafe { v128_store(to.cast(), gather!(p0, p1, p2, p3, 0)) };
        (p0, p1) = (p0.wrapping_byte_add(steps.from), p1.wrapping_byte_add(steps.from));
        (p2, p3) = (p2.wrapping_byte_add(steps.from), p3.wrapping_byte_add(steps.from));
        to = to.wrapping_byte_add(steps.to);
    }
}
