//! What a convolution costs. See [`crate::gemm`]'s cost.

use super::tiles::{chunk_len, tiles_of};
use super::{ELEMENTS, WinogradFilter};
use crate::gemm;
use crate::window::Window;

/// Of a call; of a chunk; of a tile: finding its pixels.
const CALL: u64 = 1_000;
const CHUNK: u64 = 2_000;
const TILE: u64 = 1_000;
/// Of transforming four channels of a tile's input, and of its output.
const INPUT_VECTOR: u64 = 290;
const OUTPUT_VECTOR: u64 = 240;

/// Metered instructions of [`super::conv2d`] over `pixels` output pixels that are whole rows of tiles (two rows of
/// pixels); with a bias and a clamp or without. Without page charges.
///
/// A residual costs about 12 for each output value on top.
pub fn estimate_instructions(window: &Window, filter: &WinogradFilter, pixels: usize) -> u64 {
    if pixels == 0 {
        return 0;
    }
    let (inputs, outputs) = (filter.input_channels(), filter.output_channels());
    let tiles = tiles_of(window, &(0..pixels)).len();
    let len = chunk_len(tiles);
    let chunk = |tiles: usize| {
        let products = ELEMENTS as u64 * gemm::estimate_instructions(tiles, inputs, outputs);
        let transforms = inputs.div_ceil(4) as u64 * INPUT_VECTOR + outputs.div_ceil(4) as u64 * OUTPUT_VECTOR;
        CHUNK + products + tiles as u64 * (TILE + transforms)
    };
    let rest = tiles % len;
    CALL + (tiles / len) as u64 * chunk(len) + if rest == 0 { 0 } else { chunk(rest) }
}
