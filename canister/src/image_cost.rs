//! What decoding and preparing an image may cost, before it is decoded. Decoding can't pause, so an image whose bound
//! does not fit is refused.
//!
//! The rates were measured on photos with noise, with the decoders at opt-level z, and rounded up:
//!
//! | image | measured instructions | bound here |
//! |---|---|---|
//! | PNG, 8-bit RGB, 6000x4000, 40 MB | 7.4e9 | 24e9 |
//! | PNG, 16-bit RGBA, 2000x1500, 21 MB | 4.7e9 | 8.6e9 |
//! | JPEG 4:2:0 quality 85, 6000x4000, 2.4 MB | 14.0e9 | 22.7e9 |
//! | JPEG 4:4:4 quality 98, 2000x1500, 3.1 MB | 2.9e9 | 4.1e9 |
//! | progressive JPEG 4:4:4 quality 98, 6000x4000, 21 MB | 30.3e9 | 31.0e9 |

/// Beside what grows with the image: tables, filters, the tensor's first pages.
const FIXED_INSTRUCTIONS: u64 = 20_000_000;
/// A pixel of the prepared image: both resampling passes, normalising.
const PREPARED_PIXEL_INSTRUCTIONS: u64 = 700;
/// A pixel of the file: colour conversion, resampling.
const PNG_PIXEL_INSTRUCTIONS: u64 = 300;
/// A byte of a PNG's pixels: inflating, filtering.
const PNG_RAW_BYTE_INSTRUCTIONS: u64 = 100;
/// A byte of the PNG file: Huffman codes.
const PNG_FILE_BYTE_INSTRUCTIONS: u64 = 240;
/// A pixel of a JPEG: transform, upsampling, colour conversion, resampling.
const JPEG_PIXEL_INSTRUCTIONS: u64 = 900;
/// A byte of a JPEG file: Huffman codes.
const JPEG_FILE_BYTE_INSTRUCTIONS: u64 = 450;

const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Where a PNG's header has bit depth and colour type (PNG specification, section 11.2.1).
const PNG_BIT_DEPTH_AT: usize = 24;
const PNG_COLOUR_TYPE_AT: usize = 25;

/// Pixels that an image with these file bytes may have for its decoding and preparing to `prepared_pixels` to be
/// bounded by `instructions`.
pub fn pixels_max(file: &[u8], prepared_pixels: u64, instructions: u64) -> u64 {
    let (pixel, file_byte) = match file.starts_with(PNG_SIGNATURE) {
        true => (PNG_PIXEL_INSTRUCTIONS + png_raw_bytes(file) * PNG_RAW_BYTE_INSTRUCTIONS, PNG_FILE_BYTE_INSTRUCTIONS),
        false => (JPEG_PIXEL_INSTRUCTIONS, JPEG_FILE_BYTE_INSTRUCTIONS),
    };
    let beside = FIXED_INSTRUCTIONS
        .saturating_add(prepared_pixels.saturating_mul(PREPARED_PIXEL_INSTRUCTIONS))
        .saturating_add((file.len() as u64).saturating_mul(file_byte));
    instructions.saturating_sub(beside) / pixel
}

/// Bytes of a pixel of a PNG, at least 1; the most there can be when the header can't be read.
fn png_raw_bytes(file: &[u8]) -> u64 {
    let (Some(bit_depth), Some(colour_type)) = (file.get(PNG_BIT_DEPTH_AT), file.get(PNG_COLOUR_TYPE_AT)) else {
        return 8;
    };
    let channels = match colour_type {
        0 | 3 => 1,
        2 => 3,
        4 => 2,
        _ => 4,
    };
    match bit_depth {
        16 => 2 * channels,
        _ => channels,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::IMAGE_INSTRUCTIONS_MAX;

    const PREPARED: u64 = 224 * 224;

    fn png(bit_depth: u8, colour_type: u8, bytes: usize) -> Vec<u8> {
        let mut file = vec![0; bytes];
        file[..8].copy_from_slice(PNG_SIGNATURE);
        file[PNG_BIT_DEPTH_AT] = bit_depth;
        file[PNG_COLOUR_TYPE_AT] = colour_type;
        file
    }

    /// The bound of an image, found back from the pixels that are allowed.
    fn bound(file: &[u8], pixels: u64) -> u64 {
        let (mut least, mut most) = (0, u64::MAX / 4);
        while least < most {
            let middle = least + (most - least) / 2;
            match pixels_max(file, PREPARED, middle) >= pixels {
                true => most = middle,
                false => least = middle + 1,
            }
        }
        least
    }

    #[test]
    fn bounds_lie_above_what_was_measured_and_not_far() {
        let measured = [
            (png(8, 2, 98_945), 224 * 224, 42_589_657),
            (png(16, 6, 354_126), 224 * 224, 96_530_053),
            (png(8, 2, 1_732_314), 1_000 * 1_000, 456_840_149),
            (png(16, 6, 6_892_636), 1_000 * 1_000, 1_614_226_166),
            (png(8, 2, 40_209_254), 6_000 * 4_000, 7_394_791_997),
            (png(16, 6, 20_609_742), 2_000 * 1_500, 4_732_919_428),
            (vec![0xff; 12_458], 224 * 224, 49_138_463),
            (vec![0xff; 63_143], 224 * 224, 66_635_595),
            (vec![0xff; 14_812], 224 * 224, 60_692_533),
            (vec![0xff; 1_071_989], 1_000 * 1_000, 1_001_717_606),
            (vec![0xff; 180_570], 1_000 * 1_000, 866_965_267),
            (vec![0xff; 2_361_211], 6_000 * 4_000, 13_966_985_901),
            (vec![0xff; 20_850_392], 6_000 * 4_000, 30_298_091_416),
        ];
        for (file, pixels, instructions) in measured {
            let bound = bound(&file, pixels);
            assert!(bound >= instructions, "{} bytes, {pixels} pixels: {bound} < {instructions}", file.len());
            assert!(bound <= 4 * instructions, "{} bytes, {pixels} pixels: {bound}", file.len());
        }
    }

    #[test]
    fn photos_of_24_million_pixels_fit_an_update() {
        for (file, pixels) in [(vec![0xff; 20_850_392], 24_000_000), (png(8, 2, 40_209_254), 24_000_000)] {
            assert!(pixels_max(&file, PREPARED, IMAGE_INSTRUCTIONS_MAX) >= pixels);
        }
        assert_eq!(pixels_max(&vec![0xff; 100_000_000], PREPARED, IMAGE_INSTRUCTIONS_MAX), 0);
        assert_eq!(pixels_max(&[], u64::MAX, u64::MAX), 0);
    }
}
