//! Images to input tensors: decode, resize, crop, normalise.

use crate::{EngineError, Tensor};

/// A decoded image: RGB, 8 bits a channel, rows from the top.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub width: u32,
    pub height: u32,
    /// `3 * width * height` bytes.
    pub rgb: Vec<u8>,
}

/// How image bytes become the model's input tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocessing {
    pub height: u32,
    pub width: u32,
    pub resize: Resize,
    pub channel_order: ChannelOrder,
    pub layout: Layout,
    /// Per channel in the model's order, on the 0 to 255 scale.
    pub mean: [f32; 3],
    /// Per channel in the model's order, on the 0 to 255 scale.
    pub std: [f32; 3],
}

/// How an image is brought to size before the centre crop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// No resizing: the image must be at least the crop's size.
    None,
    /// The shorter side becomes this many pixels, the aspect ratio kept.
    ShorterSide(u32),
    /// The whole image is stretched to the crop's size.
    Stretch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelOrder {
    Rgb,
    Bgr,
}

/// Order of the input tensor's axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Batch, channel, row, column.
    Nchw,
    /// Batch, row, column, channel.
    Nhwc,
}

/// Decodes a PNG or JPEG of at most `max_pixels` pixels; the dimensions are checked before anything is decoded.
pub fn decode(bytes: &[u8], max_pixels: u64) -> Result<Image, EngineError> {
    let _ = (bytes, max_pixels);
    todo!()
}

/// The float32 input tensor of an image, batch 1.
pub fn preprocess(image: &Image, preprocessing: &Preprocessing) -> Result<Tensor, EngineError> {
    let _ = (image, preprocessing);
    todo!()
}
