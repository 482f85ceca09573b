//! The body, over lanes: three walks along a row.

use super::Softmax;
use crate::lanes::{LANES, Lanes};
use crate::math::vector::exp_of_difference;
use crate::pointwise::row as pointwise;
use crate::reduce::{self, Reduction};
use std::ops::Range;

/// The maximum, NaN not counting.
struct Largest;

impl Reduction for Largest {
    const NEUTRAL: f32 = f32::NEG_INFINITY;
    #[inline(always)]
    fn map<V: Lanes>(x: V, _p: V) -> V {
        x
    }
    #[inline(always)]
    fn combine<V: Lanes>(a: V, b: V) -> V {
        a.at_least(b)
    }
}

/// e of the difference to `maximum`, of `N` pairs of vectors, onto the eight lanes at `sums`; and stored, if `STORE`.
#[inline(never)]
unsafe fn block<V: Lanes, const N: usize, const STORE: bool>(
    values: *const f32,
    output: *mut f32,
    maximum: f32,
    sums: &mut [f32; 8],
) {
    let maximum = V::splat(maximum);
    // SAFETY: the caller's: 8 N elements, and eight lanes.
    unsafe {
        let at = |index: usize| index * LANES;
        let one = |sum: V, index: usize| {
            let e = exp_of_difference(V::load(values.add(at(index))).sub(maximum));
            if STORE {
                e.store(output.add(at(index)));
            }
            sum.add(e)
        };
        let low = sums.as_mut_ptr();
        let high = low.add(LANES);
        let mut even = one(V::load(low), 0);
        let mut odd = one(V::load(high), 1);
        if N >= 4 {
            even = one(one(one(even, 2), 4), 6);
            odd = one(one(one(odd, 3), 5), 7);
        }
        even.store(low);
        odd.store(high);
    }
}

/// e of the difference to `maximum`, and their sum.
unsafe fn exponentials<V: Lanes, const STORE: bool>(
    values: *const f32,
    output: *mut f32,
    count: usize,
    maximum: f32,
) -> f32 {
    let mut sums = [0.0; 8];
    let mut at = 0;
    // SAFETY: the caller's, for `count` elements.
    unsafe {
        while at + 32 <= count {
            block::<V, 4, STORE>(values.add(at), output.add(at), maximum, &mut sums);
            at += 32;
        }
        while at + 8 <= count {
            block::<V, 1, STORE>(values.add(at), output.add(at), maximum, &mut sums);
            at += 8;
        }
        if at < count {
            // What the padding gives is not used.
            let mut padded = [f32::NEG_INFINITY; 8];
            for (index, place) in padded.iter_mut().take(count - at).enumerate() {
                *place = *values.add(at + index);
            }
            let mut results = [0.0; 8];
            let mut rest = [0.0; 8];
            block::<V, 1, true>(padded.as_ptr(), results.as_mut_ptr(), maximum, &mut rest);
            for (index, result) in results.iter().take(count - at).enumerate() {
                sums[index] += *result;
                if STORE {
                    *output.add(at + index) = *result;
                }
            }
        }
        V::load(sums.as_ptr()).add(V::load(sums.as_ptr().add(LANES))).sum()
    }
}

/// See [`Softmax::run`]; without an input, in place.
pub fn run<V: Lanes>(softmax: &Softmax, input: Option<&[f32]>, rows: Range<usize>, output: &mut [f32]) {
    let columns = softmax.columns;
    assert_eq!(rows.len() * columns, output.len(), "elements of {rows:?}");
    if columns == 0 {
        return;
    }
    for (index, row) in rows.enumerate() {
        let visible = softmax.visible(row);
        let output = &mut output[index * columns..][..columns];
        let (seen, hidden) = output.split_at_mut(visible);
        let place = seen.as_mut_ptr();
        let mut values = input.map_or(place.cast_const(), |input| input[index * columns..][..visible].as_ptr());
        let mask = softmax.mask(row).map(|mask| mask[..visible].as_ptr());
        // SAFETY: all pointers are to `visible` elements, and what is written is either what is read or another slice.
        unsafe {
            if softmax.scale != 1.0 || mask.is_some() {
                pointwise::scale_and_add::<V>(values, softmax.scale, mask, place, visible);
                values = place;
            }
            let maximum = reduce::row::<V, Largest>(values, visible, 0.0);
            if softmax.log {
                let sum = exponentials::<V, false>(values, place, visible, maximum);
                pointwise::subtract_twice::<V>(values, maximum, crate::math::log(sum), place, visible);
            } else {
                let sum = exponentials::<V, true>(values, place, visible, maximum);
                pointwise::scale::<V>(place, 1.0 / sum, place, visible);
            }
        }
        hidden.fill(if softmax.log { f32::NEG_INFINITY } else { 0.0 });
    }
}

/// See [`Softmax::estimate_instructions`].
pub fn estimate(softmax: &Softmax, rows: usize) -> u64 {
    let columns = softmax.columns;
    let prepared = match (softmax.scale != 1.0, softmax.mask.is_some()) {
        (_, true) => pointwise::cost(11, columns),
        (true, false) => pointwise::cost(7, columns),
        (false, false) => 0,
    };
    let (blocks, rest) = (columns as u64 / 32 + columns as u64 % 32 / 8, columns as u64 % 8);
    let exponentials = columns as u64 / 8 * 136 + blocks * 44 + if rest > 0 { 280 + 20 * rest } else { 0 };
    let last = pointwise::cost(if softmax.log { 10 } else { 7 }, columns);
    let maximum = reduce::row_cost(columns, 3);
    100 + rows as u64 * (210 + prepared + maximum + exponentials + last)
}
