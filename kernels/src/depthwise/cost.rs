//! What a depthwise convolution costs.

use super::DepthwiseFilter;
use crate::window::Window;

/// Metered instructions of [`super::depthwise`] over `pixels` output pixels. Without page charges.
pub fn estimate_instructions(window: &Window, filter: &DepthwiseFilter, pixels: usize) -> u64 {
    3 * (pixels * window.taps() * filter.channels()) as u64
}
