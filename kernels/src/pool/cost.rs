//! What a pooling costs. See [`crate::gemm`]'s cost.

use super::Pool;
use crate::window::Window;

/// Of an output pixel, and of a call of a block of up to sixteen vectors of channels.
const PIXEL: u64 = 165;
const CALL: u64 = 105;
/// Of a row of taps in a block, of a tap, and of each vector of it.
const TAP_ROW: u64 = 17;
const TAP: u64 = 12;
const TAP_VECTOR: u64 = 5;
/// Of each vector of a result.
const RESULT_VECTOR: u64 = 5;
/// What an average costs more: of an output pixel, of a vector of a tap, and of a result.
const AVERAGE_PIXEL: u64 = 60;
const AVERAGE_TAP_VECTOR: u64 = 1;
const AVERAGE_RESULT_VECTOR: u64 = 11;

/// Metered instructions of [`super::pool`] over `pixels` output pixels of `channels` channels. Without page charges.
pub fn estimate_instructions(kind: Pool, window: &Window, channels: usize, pixels: usize) -> u64 {
    let vectors = channels.div_ceil(4);
    let calls = (vectors / 16) as u64 + u64::from((vectors % 16).count_ones());
    let (vectors, taps) = (vectors as u64, window.taps() as u64);
    let call = CALL + window.kernel[0] as u64 * TAP_ROW + taps * TAP;
    let maximum = PIXEL + calls * call + vectors * (taps * TAP_VECTOR + RESULT_VECTOR);
    let average = AVERAGE_PIXEL + vectors * (taps * AVERAGE_TAP_VECTOR + AVERAGE_RESULT_VECTOR);
    pixels as u64 * (maximum + if kind == Pool::Max { 0 } else { average })
}
