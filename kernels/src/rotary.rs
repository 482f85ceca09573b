//! Rotary position embedding (Su et al. 2021), and the tables of sines and cosines it takes.
//!
//! Of a row `x` of `2 half` elements, with the row of its position in the tables: `out[i] = x[i] cos[i] - x[i + half]
//! sin[i]` and `out[i + half] = x[i + half] cos[i] + x[i] sin[i]` for `i` below `half`: what the graph `x cos +
//! concat(-x2, x1) sin` gives, to the bit, for tables whose halves are equal. Interleaved, the pairs are `x[2 i]` and
//! `x[2 i + 1]` instead. Tables may also have a number for each element of a row, of which the second half then goes with
//! `out[i + half]`.

use crate::lanes::{LANES, Lanes, Native};
use crate::math;
use std::ops::Range;

/// Which elements are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// `i` and `i + half` (GPT-NeoX, Llama).
    Halves,
    /// `2 i` and `2 i + 1` (GPT-J).
    Neighbours,
}

/// A rotation of rows, row `r` being at position `first + r / repeat % positions` of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotary {
    pub pairs: Pairs,
    /// Half the length of a row.
    pub half: usize,
    /// Whether tables have `2 half` numbers per position, for [`Pairs::Halves`] only; else they have `half`.
    pub full_tables: bool,
    /// Position of the first row.
    pub first: usize,
    /// Positions that rows go through before they start again: for `[heads, positions, columns]` their number.
    pub positions: usize,
    /// Rows at the same position that follow each other: for `[positions, heads, columns]` the heads.
    pub repeat: usize,
}

impl Rotary {
    /// Rows `rows`, which are what `data` holds, in place. `cosines` and `sines` are tables as `full_tables` says.
    ///
    /// # Panics
    /// When slices are too short.
    pub fn run(&self, cosines: &[f32], sines: &[f32], rows: Range<usize>, data: &mut [f32]) {
        run_body::<Native>(self, cosines, sines, rows, data);
    }

    /// The tables' row of row `row`.
    fn table<'a>(&self, table: &'a [f32], row: usize) -> &'a [f32] {
        let position = self.first + row / self.repeat % self.positions;
        let width = if self.full_tables { 2 * self.half } else { self.half };
        &table[position * width..][..width]
    }

    /// Metered instructions of `rows` rows, in WebAssembly with SIMD and without page charges.
    pub fn estimate_instructions(&self, rows: usize) -> u64 {
        let (vectors, rest) = ((self.half / LANES) as u64, (self.half % LANES) as u64);
        let each = match self.pairs {
            Pairs::Halves => (vectors + rest) * if self.full_tables { 56 } else { 50 },
            Pairs::Neighbours => self.half as u64 * 40,
        };
        60 + rows as u64 * (130 + each)
    }
}

/// Bodies for any target.
pub mod portable {
    use super::*;
    use crate::lanes::portable::Four;

    /// See [`Rotary::run`].
    pub fn run(rotary: &Rotary, cosines: &[f32], sines: &[f32], rows: Range<usize>, data: &mut [f32]) {
        run_body::<Four>(rotary, cosines, sines, rows, data);
    }
}

/// The reference.
pub mod naive {
    use super::*;

    /// See [`Rotary::run`].
    pub fn run(rotary: &Rotary, cosines: &[f32], sines: &[f32], rows: Range<usize>, data: &mut [f32]) {
        let half = rotary.half;
        for (index, row) in rows.enumerate() {
            let (cosines, sines) = (rotary.table(cosines, row), rotary.table(sines, row));
            for i in 0..half {
                let (a, b) = match rotary.pairs {
                    Pairs::Halves => (i, i + half),
                    Pairs::Neighbours => (2 * i, 2 * i + 1),
                };
                let (a, b) = (index * 2 * half + a, index * 2 * half + b);
                let (x, y) = (data[a], data[b]);
                let second = if rotary.full_tables { half + i } else { i };
                data[a] = x * cosines[i] - y * sines[i];
                data[b] = y * cosines[second] + x * sines[second];
            }
        }
    }
}

fn run_body<V: Lanes>(rotary: &Rotary, cosines: &[f32], sines: &[f32], rows: Range<usize>, data: &mut [f32]) {
    assert!(!rotary.full_tables || rotary.pairs == Pairs::Halves, "full tables of {:?}", rotary.pairs);
    match rotary.full_tables {
        false => body::<V, false>(rotary, cosines, sines, rows, data),
        true => body::<V, true>(rotary, cosines, sines, rows, data),
    }
}

fn body<V: Lanes, const FULL: bool>(
    rotary: &Rotary,
    cosines: &[f32],
    sines: &[f32],
    rows: Range<usize>,
    data: &mut [f32],
) {
    let half = rotary.half;
    let second = if FULL { half } else { 0 };
    assert_eq!(data.len(), rows.len() * 2 * half, "elements of {rows:?}");
    if half == 0 {
        return;
    }
    for (row, data) in rows.zip(data.chunks_exact_mut(2 * half)) {
        let (cosines, sines) = (rotary.table(cosines, row), rotary.table(sines, row));
        let vectors = match rotary.pairs {
            Pairs::Halves => half / LANES * LANES,
            Pairs::Neighbours => 0,
        };
        let (low, high) = (data.as_mut_ptr(), data[half..].as_mut_ptr());
        for at in (0..vectors).step_by(LANES) {
            // SAFETY: a vector from `at` on is within a half of the row and within the tables' rows.
            unsafe {
                let (x, y) = (V::load(low.add(at)), V::load(high.add(at)));
                let (cosine, sine) = (V::load(cosines.as_ptr().add(at)), V::load(sines.as_ptr().add(at)));
                x.mul(cosine).sub(y.mul(sine)).store(low.add(at));
                let (cosine, sine) = match FULL {
                    false => (cosine, sine),
                    true => (V::load(cosines.as_ptr().add(half + at)), V::load(sines.as_ptr().add(half + at))),
                };
                y.mul(cosine).add(x.mul(sine)).store(high.add(at));
            }
        }
        for i in vectors..half {
            let (a, b) = match rotary.pairs {
                Pairs::Halves => (i, i + half),
                Pairs::Neighbours => (2 * i, 2 * i + 1),
            };
            let (x, y) = (data[a], data[b]);
            data[a] = x * cosines[i] - y * sines[i];
            data[b] = y * cosines[second + i] + x * sines[second + i];
        }
    }
}

/// The tables for positions `positions`: `cos(p f)` and `sin(p f)` with the frequency `f = theta^(-2 i / (2 half))`, rounded
/// to f32, of `i` below `half`.
///
/// # Panics
/// When the tables do not have `half` numbers per position.
pub fn tables(theta: f32, half: usize, positions: Range<usize>, cosines: &mut [f32], sines: &mut [f32]) {
    assert_eq!((cosines.len(), sines.len()), (positions.len() * half, positions.len() * half), "tables");
    for (index, position) in positions.enumerate() {
        for i in 0..half {
            let frequency = math::pow(theta, -(i as f32) / half as f32);
            let angle = position as f32 * frequency;
            cosines[index * half + i] = math::cos(angle);
            sines[index * half + i] = math::sin(angle);
        }
    }
}
