//! The bodies, over lanes.

use super::{Axes, Reduce};
use crate::lanes::{LANES, Lanes};
use std::ops::Range;

/// An operation with a neutral element. Combining with it changes nothing, given that accumulators start with it.
pub trait Reduction {
    const NEUTRAL: f32;
    /// What an element contributes; `p` is a number for the whole row.
    fn map<V: Lanes>(x: V, p: V) -> V;
    fn combine<V: Lanes>(a: V, b: V) -> V;
}

macro_rules! reductions {
    ($($name:ident ($neutral:expr) |$x:ident, $p:ident| $map:expr, |$a:ident, $b:ident| $combine:expr;)*) => {
        $(
            pub struct $name;
            impl Reduction for $name {
                const NEUTRAL: f32 = $neutral;
                #[inline(always)]
                fn map<V: Lanes>($x: V, $p: V) -> V {
                    $map
                }
                #[inline(always)]
                fn combine<V: Lanes>($a: V, $b: V) -> V {
                    $combine
                }
            }
        )*
    };
}

reductions! {
    SumOp(0.0) |x, _p| x, |a, b| a.add(b);
    SumSquares(0.0) |x, _p| x.mul(x), |a, b| a.add(b);
    SumMagnitudes(0.0) |x, _p| x.abs(), |a, b| a.add(b);
    // Squares of distances from `p`.
    Centred(0.0) |x, p| { let d = x.sub(p); d.mul(d) }, |a, b| a.add(b);
    Product(1.0) |x, _p| x, |a, b| a.mul(b);
    Maximum(f32::NEG_INFINITY) |x, _p| x, |a, b| a.maximum(b);
    Minimum(f32::INFINITY) |x, _p| x, |a, b| a.minimum(b);
}

/// `N` pairs of vectors onto the eight lanes at `lanes`. Not inlined, so that constant offsets stay in the loads; one
/// accumulator after the other, so that each stays on WebAssembly's operand stack.
#[inline(never)]
unsafe fn block<V: Lanes, R: Reduction, const N: usize>(values: *const f32, p: f32, lanes: &mut [f32; 8]) {
    let p = V::splat(p);
    // SAFETY: the caller's: 8 N elements; and each half is four of the eight lanes.
    unsafe {
        chain::<V, R, N, 0>(values, p, lanes.as_mut_ptr());
        chain::<V, R, N, LANES>(values, p, lanes.as_mut_ptr());
    }
}

/// Every other of `2 N` vectors onto four lanes, both from `HALF` on. No loop, not even one to be unrolled: addresses
/// that were a loop's lose the property that lets them fold into the loads.
#[inline(always)]
unsafe fn chain<V: Lanes, R: Reduction, const N: usize, const HALF: usize>(values: *const f32, p: V, lanes: *mut f32) {
    // SAFETY: the caller's.
    unsafe {
        let one = |sum: V, pair: usize| R::combine(sum, R::map(V::load(values.add(2 * LANES * pair + HALF)), p));
        let mut sum = one(V::load(lanes.add(HALF)), 0);
        if N >= 4 {
            sum = one(one(one(sum, 1), 2), 3);
        }
        if N >= 16 {
            sum = one(one(one(one(sum, 4), 5), 6), 7);
            sum = one(one(one(one(sum, 8), 9), 10), 11);
            sum = one(one(one(one(sum, 12), 13), 14), 15);
        }
        sum.store(lanes.add(HALF));
    }
}

/// Combines `count` consecutive elements.
///
/// # Safety
/// They are readable.
pub unsafe fn row<V: Lanes, R: Reduction>(values: *const f32, count: usize, p: f32) -> f32 {
    let mut lanes = [R::NEUTRAL; 8];
    let mut at = 0;
    // SAFETY: the elements of each block are below `count`.
    unsafe {
        while at + 128 <= count {
            block::<V, R, 16>(values.add(at), p, &mut lanes);
            at += 128;
        }
        while at + 32 <= count {
            block::<V, R, 4>(values.add(at), p, &mut lanes);
            at += 32;
        }
        while at + 8 <= count {
            block::<V, R, 1>(values.add(at), p, &mut lanes);
            at += 8;
        }
        let mut low = V::load(lanes.as_ptr());
        let mut high = V::load(lanes.as_ptr().add(LANES));
        if at < count {
            // The rest, in lanes that the others leave as they are.
            let mut padded = [0.0; 8];
            let mut used = [0u32; 8];
            for (index, place) in padded.iter_mut().take(count - at).enumerate() {
                *place = *values.add(at + index);
                used[index] = u32::MAX;
            }
            let neutral = V::splat(R::NEUTRAL);
            let rest = |half: usize| {
                let mapped = R::map(V::load(padded.as_ptr().add(half * LANES)), V::splat(p));
                V::load(used.as_ptr().add(half * LANES).cast()).select(mapped, neutral)
            };
            low = R::combine(low, rest(0));
            high = R::combine(high, rest(1));
        }
        R::combine(low, high).fold(R::combine)
    }
}

/// Metered instructions of [`row`], `vector` of them for four elements.
pub fn row_cost(count: usize, vector: u64) -> u64 {
    let count = count as u64;
    let (blocks, rest) = (count / 128 + count % 128 / 32 + count % 32 / 8, count % 8);
    let rest = if rest > 0 { 50 + 5 * rest } else { 0 };
    40 + count / 8 * 2 * vector + blocks * 36 + rest
}

/// Four neighbouring results, `count` elements each, `stride` apart.
#[inline(never)]
unsafe fn columns<V: Lanes, R: Reduction>(values: *const f32, count: usize, stride: usize) -> V {
    let neutral = V::splat(R::NEUTRAL);
    let mut lanes = [neutral; 8];
    let mut at = values;
    // SAFETY: the caller's: `count` elements `stride` apart, four wide. A pointer past the last is not read.
    unsafe {
        for _ in 0..count / 8 {
            let mut next = || {
                let value = R::map(V::load(at), neutral);
                at = at.wrapping_add(stride);
                value
            };
            lanes[0] = R::combine(lanes[0], next());
            lanes[1] = R::combine(lanes[1], next());
            lanes[2] = R::combine(lanes[2], next());
            lanes[3] = R::combine(lanes[3], next());
            lanes[4] = R::combine(lanes[4], next());
            lanes[5] = R::combine(lanes[5], next());
            lanes[6] = R::combine(lanes[6], next());
            lanes[7] = R::combine(lanes[7], next());
        }
        // Constant places only: a lane chosen by a variable would put the lanes in memory.
        let rest = count % 8;
        macro_rules! rest {
            ($($lane:literal)*) => {
                $(
                    if rest > $lane {
                        lanes[$lane] = R::combine(lanes[$lane], R::map(V::load(at), neutral));
                        at = at.wrapping_add(stride);
                    }
                )*
            };
        }
        rest!(0 1 2 3 4 5 6);
        let _ = at;
    }
    let a = R::combine(lanes[0], lanes[4]);
    let b = R::combine(lanes[1], lanes[5]);
    let c = R::combine(lanes[2], lanes[6]);
    let d = R::combine(lanes[3], lanes[7]);
    R::combine(R::combine(a, c), R::combine(b, d))
}

/// One result, of elements that are `stride` apart.
unsafe fn column<V: Lanes, R: Reduction>(values: *const f32, count: usize, stride: usize) -> f32 {
    let mut lanes = [R::NEUTRAL; 8];
    for index in 0..count {
        // SAFETY: the caller's.
        let value = V::splat(unsafe { *values.add(index * stride) });
        let lane = &mut lanes[index % 8];
        *lane = R::combine(V::splat(*lane), R::map(value, V::splat(R::NEUTRAL))).to_array()[0];
    }
    // SAFETY: eight lanes.
    let [low, high] = unsafe { [V::load(lanes.as_ptr()), V::load(lanes.as_ptr().add(LANES))] };
    R::combine(low, high).fold(R::combine)
}

fn reduce_by<V: Lanes, R: Reduction>(
    input: &[f32],
    axes: Axes,
    range: Range<usize>,
    output: &mut [f32],
    finish: impl Fn(f32) -> f32,
) {
    let Axes { reduced, inner, .. } = axes;
    let values = input.as_ptr();
    let mut done = 0;
    while done < output.len() {
        let index = range.start + done;
        let (outer, first) = (index / inner, index % inner);
        let count = (inner - first).min(output.len() - done);
        // SAFETY: `outer` and the columns from `first` to `first + count` are within the axes, whose elements `input` has.
        unsafe {
            let start = values.add(outer * reduced * inner + first);
            let results = &mut output[done..done + count];
            if inner == 1 {
                results[0] = row::<V, R>(start, reduced, 0.0);
            } else if count < LANES {
                for (index, result) in results.iter_mut().enumerate() {
                    *result = column::<V, R>(start.add(index), reduced, inner);
                }
            } else {
                // The last vector may overlap the one before it.
                let mut at = 0;
                while at < count {
                    let first = at.min(count - LANES);
                    columns::<V, R>(start.add(first), reduced, inner).store(results.as_mut_ptr().add(first));
                    at += LANES;
                }
            }
        }
        done += count;
    }
    output.iter_mut().for_each(|result| *result = finish(*result));
}

/// See [`super::reduce`]; the arguments are checked.
pub fn reduce<V: Lanes>(kind: Reduce, input: &[f32], axes: Axes, range: Range<usize>, output: &mut [f32]) {
    let count = axes.reduced as f32;
    match kind {
        Reduce::Sum => reduce_by::<V, SumOp>(input, axes, range, output, |x| x),
        Reduce::Mean => reduce_by::<V, SumOp>(input, axes, range, output, |x| x / count),
        Reduce::SumOfSquares => reduce_by::<V, SumSquares>(input, axes, range, output, |x| x),
        Reduce::MeanOfSquares => reduce_by::<V, SumSquares>(input, axes, range, output, |x| x / count),
        Reduce::SumOfMagnitudes => reduce_by::<V, SumMagnitudes>(input, axes, range, output, |x| x),
        Reduce::Product => reduce_by::<V, Product>(input, axes, range, output, |x| x),
        Reduce::Max => reduce_by::<V, Maximum>(input, axes, range, output, |x| x),
        Reduce::Min => reduce_by::<V, Minimum>(input, axes, range, output, |x| x),
    }
}
