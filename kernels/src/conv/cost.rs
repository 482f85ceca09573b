//! What a convolution costs: see [`crate::gemm`]'s cost.

use super::Filter;
use crate::gemm::{self, cost};
use crate::window::Window;

/// Channels from which on pixels are multiplied where they are.
const DIRECT_CHANNELS: usize = 8;

/// Values that gathered windows may take together: 128 KiB, two pages.
const GATHERED_LEN: usize = 1 << 15;

/// Of a call; of a group in a chunk.
const CALL: u64 = 600;
const GROUP: u64 = 350;
/// Of a tap in a chunk; of a tap in an output row; of a tap of a pixel: saying where its input is.
const TAP: u64 = 60;
const TAP_ROW: u64 = 110;
const TAP_PIXEL: u64 = 12;
/// Of a row of taps in an output row; of a row of taps of a pixel, and of each four values of it: copying them.
const GATHERED_ROW: u64 = 400;
const GATHERED_RUN: u64 = 18;
const GATHERED_VECTOR: u64 = 8;

/// Whether pixels are multiplied where they are; otherwise windows are gathered first.
pub(crate) fn is_direct(filter: &Filter) -> bool {
    filter.group_inputs() >= DIRECT_CHANNELS || filter.taps() == 1 || filter.groups() > 1
}

/// Windows that are gathered together.
pub(crate) fn gathered_rows(filter: &Filter) -> usize {
    (GATHERED_LEN / (filter.taps() * filter.group_inputs()).max(1)).clamp(1, cost::CHUNK_ROWS)
}

/// Metered instructions of [`super::conv2d`] over `pixels` output pixels; with a bias and a clamp or without. Without
/// page charges.
///
/// A residual costs about 4 for each output value on top.
pub fn estimate_instructions(window: &Window, filter: &Filter, pixels: usize) -> u64 {
    let (taps, inputs, outputs) = (window.taps(), filter.group_inputs(), filter.group_outputs());
    let k = taps * inputs;
    if super::is_product(window, filter) {
        return gemm::estimate_instructions(pixels, k, outputs);
    }
    // Output rows, parts of which count as whole ones.
    let rows = |pixels: usize| pixels.div_ceil(window.output[1].max(1)) as u64;
    let direct = |pixels: usize| {
        let segments: u64 =
            (0..taps).map(|tap| cost::segment(pixels, tap * inputs..(tap + 1) * inputs, k, outputs)).sum();
        let tables = TAP + rows(pixels) * TAP_ROW + pixels as u64 * TAP_PIXEL;
        GROUP + taps as u64 * tables + segments + cost::finish(pixels, outputs)
    };
    let gathered = |pixels: usize| {
        let vectors = (window.kernel[1] * inputs).div_ceil(4) as u64;
        let runs = rows(pixels) * GATHERED_ROW + pixels as u64 * (GATHERED_RUN + GATHERED_VECTOR * vectors);
        let product = cost::segment(pixels, 0..k, k, outputs) + cost::finish(pixels, outputs);
        GROUP + window.kernel[0] as u64 * runs + pixels as u64 * cost::TABLE_ROW + product
    };
    let chunk = |pixels: usize| match pixels {
        0 => 0,
        _ if is_direct(filter) => direct(pixels),
        _ => gathered(pixels),
    };
    let chunk_rows = if is_direct(filter) { cost::CHUNK_ROWS } else { gathered_rows(filter) };
    let chunks = (pixels / chunk_rows) as u64 * chunk(chunk_rows) + chunk(pixels % chunk_rows);
    CALL + filter.groups() as u64 * chunks
}
