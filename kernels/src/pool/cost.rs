//! What a pooling costs.

use crate::window::Window;

/// Metered instructions of [`super::pool`] over `pixels` output pixels of `channels` channels. Without page charges.
pub fn estimate_instructions(window: &Window, channels: usize, pixels: usize) -> u64 {
    (pixels * window.taps() * channels) as u64
}
