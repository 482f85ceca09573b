//! Images to input tensors: decode, resize, crop, normalise.

mod decode;
mod preprocess;

pub use decode::{JPEG_SCANS_MAX, decode};
pub use preprocess::{ChannelOrder, Layout, Preprocessing, Resize, SIDE_MAX, preprocess};

/// A decoded image: RGB, 8 bits a channel, rows from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub width: u32,
    pub height: u32,
    /// `3 * width * height` bytes.
    pub rgb: Vec<u8>,
}
