//! What a depthwise convolution costs: the blocks of the simd128 body, counted as its driver runs them. See
//! [`crate::gemm`]'s cost.

use super::DepthwiseFilter;
use crate::window::Window;

/// Pixels that go through the blocks together, if their table is not too large.
const CHUNK_PIXELS: usize = 256;

/// Entries of a table that is not too large: 64 KiB, a page.
const TABLE_LEN: usize = 1 << 14;

/// Of a call of a block, apart from its loop.
const CALL: u64 = 130;
/// Of a pixel in a block: moving the pointers.
const PIXEL: u64 = 19;
/// Of a row of taps in an output row; of a row of taps of a pixel; of a tap of a pixel: writing the table.
const TABLE_ROW: u64 = 230;
const TABLE_RUN: u64 = 15;
const TABLE_TAP: u64 = 5;

/// Pixels of a chunk.
pub(crate) fn chunk_pixels(taps: usize) -> usize {
    (TABLE_LEN / taps.max(1)).clamp(1, CHUNK_PIXELS)
}

/// Taps and vectors of the next block when so many of each are left.
pub(crate) fn next_block(taps: usize, vectors: usize) -> (usize, usize) {
    let taps = [25, 9, 3, 1].into_iter().find(|&count| count <= taps).unwrap_or(1);
    let most = if taps == 25 { 8 } else { 16 };
    (taps, [16, 8, 4, 2, 1].into_iter().find(|&count| count <= vectors.min(most)).unwrap_or(1))
}

/// Metered instructions of [`super::depthwise`] over `pixels` output pixels; with a bias and a clamp or without. Without
/// page charges.
///
/// A residual costs about 4 for each output value on top.
pub fn estimate_instructions(window: &Window, filter: &DepthwiseFilter, pixels: usize) -> u64 {
    let (taps, chunk_pixels) = (window.taps(), chunk_pixels(window.taps()));
    let chunk = |pixels: usize| {
        let rows = pixels.div_ceil(window.output[1].max(1)) as u64;
        let runs = TABLE_RUN + TABLE_TAP * window.kernel[1] as u64;
        let mut sum = window.kernel[0] as u64 * (rows * TABLE_ROW + pixels as u64 * runs);
        let mut left = filter.channels().div_ceil(4);
        while left > 0 {
            let (_, vectors) = next_block(taps, left);
            sum += all_taps(taps, vectors, pixels);
            left -= vectors;
        }
        sum
    };
    let rest = pixels % chunk_pixels;
    (pixels / chunk_pixels) as u64 * chunk(chunk_pixels) + if rest == 0 { 0 } else { chunk(rest) }
}

/// Of the blocks that `vectors` vectors of channels go through.
fn all_taps(taps: usize, vectors: usize, pixels: usize) -> u64 {
    let (mut sum, mut left) = (0, taps);
    while left > 0 {
        let (count, _) = next_block(left, vectors);
        let (t, v) = (count as u64, vectors as u64);
        sum += CALL + t * (3 * v + 3) + pixels as u64 * (PIXEL + 7 * t * v + 4 * t + 8 * v);
        left -= count;
    }
    sum
}
