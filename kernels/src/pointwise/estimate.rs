//! What passes cost in WebAssembly with SIMD.

use super::driver::{CHEAP, CHEAPEST, Pass};

/// Instructions of a block beside its vectors: the call, its arguments, the loop.
const BLOCK: u64 = 34;
/// Instructions of a segment beside its blocks.
const SEGMENT: u64 = 70;
/// Instructions of the vector that ends a segment that is no multiple of four.
const LAST: u64 = 60;

/// Instructions of preparing a chain's run.
pub const CHAIN: u64 = 900;
/// Instructions of finding a row's operands.
pub const ROW: u64 = 190;
/// The same, per step.
pub const ROW_STEP: u64 = 90;

/// `segments` runs of `pass`, each over `elements`.
pub fn segments(pass: Pass, segments: usize, elements: usize) -> u64 {
    let (vectors, rest) = (elements as u64 / 4, elements % 4);
    let (large, small) = if pass.cost <= CHEAPEST {
        (32, 8)
    } else if pass.cost <= CHEAP {
        (16, 4)
    } else {
        (8, 8)
    };
    let blocks = vectors / large + vectors % large / small + vectors % small;
    let last = if rest > 0 { LAST + pass.cost } else { 0 };
    segments as u64 * (SEGMENT + vectors * pass.cost + blocks * BLOCK + last)
}
