//! An image to the model's input tensor.

use super::Image;
use crate::{EngineError, Tensor};
use onnx_kernels::image::{CHANNELS, Channel, Coefficients, normalise, resample_columns, resample_rows};
use std::ops::Range;

/// Most pixels of a side of the crop or of [`Resize::ShorterSide`].
pub const SIDE_MAX: u32 = 8192;

/// How image bytes become the model's input tensor.
///
/// In this order: resize, centre crop to `height` x `width` (of an odd remainder the smaller half is cut at the left and
/// top), reorder channels, then `(value - mean) * (1 / std)` per channel in f32, laid out as `layout` says.
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

/// How an image is brought to size before the centre crop: triangle filter with antialiasing, as Pillow's `BILINEAR`,
/// bit for bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// No resizing: the image must be at least the crop's size.
    None,
    /// The shorter side becomes this many pixels, the other `longer * this / shorter`, rounded down.
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

impl Preprocessing {
    /// Fails on parameters that no image could be preprocessed with.
    pub fn check(&self) -> Result<(), EngineError> {
        let refuse = |place: &str, value: String, reason: &str| {
            Err(EngineError::Preprocessing { place: place.into(), value, reason: reason.into() })
        };
        let mut sides = vec![("height", self.height), ("width", self.width)];
        if let Resize::ShorterSide(side) = self.resize {
            sides.push(("resize.shorter_side", side));
        }
        for (place, side) in sides {
            if side == 0 || side > SIDE_MAX {
                return refuse(place, side.to_string(), &format!("it must be from 1 to {SIDE_MAX}"));
            }
        }
        for channel in 0..CHANNELS {
            let (mean, std) = (self.mean[channel], self.std[channel]);
            if !mean.is_finite() {
                return refuse(&format!("mean[{channel}]"), mean.to_string(), "it must be finite");
            }
            if !std.is_finite() || !(1.0 / std).is_finite() {
                return refuse(&format!("std[{channel}]"), std.to_string(), "it and its reciprocal must be finite");
            }
        }
        Ok(())
    }
}

/// The float32 input tensor of an image, batch 1.
pub fn preprocess(image: &Image, preprocessing: &Preprocessing) -> Result<Tensor, EngineError> {
    preprocessing.check()?;
    let (width, height) = (u64::from(image.width), u64::from(image.height));
    if width == 0 || height == 0 || image.rgb.len() as u64 != width * height * CHANNELS as u64 {
        let reason = format!("{} bytes are not {width} x {height} pixels", image.rgb.len());
        return Err(EngineError::ImageInvalid { reason });
    }
    let pixels = resize_and_crop(image, preprocessing)?;
    let (rows, columns) = (u64::from(preprocessing.height), u64::from(preprocessing.width));
    let count = (rows * columns) as usize;
    let mut values = vec![0f32; count * CHANNELS];
    for channel in 0..CHANNELS {
        let source = match preprocessing.channel_order {
            ChannelOrder::Rgb => channel,
            ChannelOrder::Bgr => CHANNELS - 1 - channel,
        };
        let (offset, stride) = match preprocessing.layout {
            Layout::Nchw => (channel * count, 1),
            Layout::Nhwc => (channel, CHANNELS),
        };
        let (mean, scale) = (preprocessing.mean[channel], 1.0 / preprocessing.std[channel]);
        normalise(&pixels, Channel { source, offset, stride, mean, scale }, &mut values);
    }
    let shape = match preprocessing.layout {
        Layout::Nchw => [1, CHANNELS as u64, rows, columns],
        Layout::Nhwc => [1, rows, columns, CHANNELS as u64],
    };
    Tensor::from_f32(&shape, &values)
}

/// The crop's pixels. Only those of the resized image that are in the crop are computed.
fn resize_and_crop(image: &Image, preprocessing: &Preprocessing) -> Result<Vec<u8>, EngineError> {
    let (width, height) = (image.width, image.height);
    let (new_width, new_height) = match preprocessing.resize {
        Resize::None => (width, height),
        Resize::Stretch => (preprocessing.width, preprocessing.height),
        Resize::ShorterSide(side) => {
            let shorter = width.min(height);
            let scaled = |length: u32| {
                let scaled = u64::from(length) * u64::from(side) / u64::from(shorter);
                u32::try_from(scaled).map_err(|_| EngineError::TooLarge {
                    place: "longer side of the resized image".into(),
                    value: scaled,
                    limit: u32::MAX.into(),
                })
            };
            (scaled(width)?, scaled(height)?)
        }
    };
    let (crop_width, crop_height) = (preprocessing.width, preprocessing.height);
    if new_width < crop_width || new_height < crop_height {
        return Err(EngineError::ImageTooSmall { width: new_width, height: new_height, crop_width, crop_height });
    }
    let columns = centre(new_width, crop_width);
    let rows = centre(new_height, crop_height);
    // Horizontally first, then vertically, with 8 bits in between, as Pillow. A pass that changes no size changes no
    // value, and only cuts.
    let rows = Coefficients::triangle(height, new_height, rows);
    let needed = rows.source_range();
    let rows = rows.relative_to(needed.start);
    let row_bytes = width as usize * CHANNELS;
    let input = &image.rgb[needed.start * row_bytes..needed.end * row_bytes];
    let crop_row_bytes = crop_width as usize * CHANNELS;
    let mut narrow = vec![0; needed.len() * crop_row_bytes];
    if new_width == width {
        let cut = columns.start as usize * CHANNELS..columns.end as usize * CHANNELS;
        for (to, from) in narrow.chunks_exact_mut(crop_row_bytes).zip(input.chunks_exact(row_bytes)) {
            to.copy_from_slice(&from[cut.clone()]);
        }
    } else {
        let columns = Coefficients::triangle(width, new_width, columns);
        resample_columns(input, width as usize, needed.len(), &columns, &mut narrow);
    }
    let mut pixels = vec![0; crop_height as usize * crop_row_bytes];
    resample_rows(&narrow, crop_width as usize, &rows, &mut pixels);
    Ok(pixels)
}

fn centre(length: u32, crop: u32) -> Range<u32> {
    let start = (length - crop) / 2;
    start..start + crop
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(width: u32, height: u32, resize: Resize) -> Preprocessing {
        let (channel_order, layout) = (ChannelOrder::Rgb, Layout::Nhwc);
        Preprocessing { height, width, resize, channel_order, layout, mean: [0.0; 3], std: [1.0; 3] }
    }

    /// Pixel (x, y) is (16 x, 16 y, 7).
    fn grid(width: u32, height: u32) -> Image {
        let pixels = (0..height).flat_map(|y| (0..width).flat_map(move |x| [16 * x as u8, 16 * y as u8, 7]));
        Image { width, height, rgb: pixels.collect() }
    }

    fn values(image: &Image, preprocessing: &Preprocessing) -> Vec<f32> {
        preprocess(image, preprocessing).unwrap().to_f32().unwrap()
    }

    #[test]
    fn crops_the_centre() {
        let values = values(&grid(5, 6), &plain(2, 2, Resize::None));
        // Of 5 columns 1 is cut at the left and 2 at the right, of 6 rows 2 at both ends.
        assert_eq!(values, [16., 32., 7., 32., 32., 7., 16., 48., 7., 32., 48., 7.]);
    }

    #[test]
    fn normalises_in_the_models_order_and_layout() {
        let image = Image { width: 2, height: 1, rgb: vec![10, 20, 30, 40, 50, 60] };
        let mut preprocessing = plain(2, 1, Resize::None);
        preprocessing.channel_order = ChannelOrder::Bgr;
        preprocessing.layout = Layout::Nchw;
        preprocessing.mean = [30.0, 20.0, 10.0];
        preprocessing.std = [1.0, 2.0, 4.0];
        let tensor = preprocess(&image, &preprocessing).unwrap();
        assert_eq!(tensor.shape(), [1, 3, 1, 2]);
        assert_eq!(tensor.to_f32().unwrap(), [0.0, 30.0, 0.0, 15.0, 0.0, 7.5]);
    }

    #[test]
    fn resizes_as_pillow() {
        // Computed with Pillow 13.0.0: an image of pseudo-random pixels, resized with BILINEAR, cropped; the sum over all
        // values of (index + 1) * value, and the first pixels.
        let mut state = 12345u32;
        let mut byte = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let rgb = (0..97 * 61 * 3).map(|_| byte()).collect();
        let image = Image { width: 97, height: 61, rgb };
        let weighted =
            |values: &[f32]| values.iter().zip(1u64..).map(|(value, place)| *value as u64 * place).sum::<u64>();
        for (resize, width, height, sum, first) in PILLOW {
            let values = values(&image, &plain(width, height, resize));
            assert_eq!(values[..6], first, "{resize:?} {width} x {height}");
            assert_eq!(weighted(&values), sum, "{resize:?} {width} x {height}");
        }
    }

    /// Resize, width and height of the crop, weighted sum, first two pixels.
    const PILLOW: [(Resize, u32, u32, u64, [f32; 6]); 4] = include!("testdata/pillow.in");

    #[test]
    fn refuses_what_can_not_be_met() {
        let too_small = preprocess(&grid(3, 9), &plain(4, 4, Resize::None)).unwrap_err();
        let expected = EngineError::ImageTooSmall { width: 3, height: 9, crop_width: 4, crop_height: 4 };
        assert_eq!(too_small, expected);
        assert!(preprocess(&grid(3, 9), &plain(4, 4, Resize::ShorterSide(3))).is_err());
        for (change, place) in [
            ((|p| p.width = 0) as fn(&mut Preprocessing), "width"),
            (|p| p.height = SIDE_MAX + 1, "height"),
            (|p| p.resize = Resize::ShorterSide(0), "resize.shorter_side"),
            (|p| p.mean[1] = f32::NAN, "mean[1]"),
            (|p| p.std[2] = 0.0, "std[2]"),
            (|p| p.std[0] = 1e-40, "std[0]"),
        ] {
            let mut preprocessing = plain(2, 2, Resize::None);
            change(&mut preprocessing);
            match preprocess(&grid(4, 4), &preprocessing) {
                Err(EngineError::Preprocessing { place: found, .. }) => assert_eq!(found, place),
                other => panic!("{place}: {other:?}"),
            }
        }
        let lying = Image { width: 4, height: 4, rgb: vec![0; 47] };
        assert!(matches!(preprocess(&lying, &plain(2, 2, Resize::None)), Err(EngineError::ImageInvalid { .. })));
        let long = Image { width: 1, height: 2_000_000, rgb: vec![0; 6_000_000] };
        let side = Resize::ShorterSide(SIDE_MAX);
        assert!(matches!(preprocess(&long, &plain(2, 2, side)), Err(EngineError::TooLarge { .. })));
    }
}
