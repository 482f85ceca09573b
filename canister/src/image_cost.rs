//! What decoding and preparing an image may cost, before it is decoded. Decoding can't pause, so an image whose bound
//! does not fit is refused.
//!
//! The rates were measured on pictures with noise, with the decoders at opt-level 3 (what of them is generic is compiled
//! with the engine, at z), and rounded up:
//!
//! | image | measured instructions | bound here |
//! |---|---|---|
//! | PNG, 8-bit RGB, 6000x4000, 54 MB | 12.5e9 | 14.5e9 |
//! | PNG, 16-bit RGBA, 2000x1500, 24 MB | 4.3e9 | 5.0e9 |
//! | PNG, 16-bit RGBA, 6000x4000, 21 MB | 15.7e9 | 18.2e9 |
//! | JPEG 4:2:0 quality 85, 6000x4000, 4.4 MB | 11.1e9 | 15.3e9 |
//! | JPEG 4:4:4 quality 98, 1000x1000, 1.4 MB | 1.0e9 | 1.2e9 |
//! | progressive JPEG 4:4:4 quality 98, 6000x4000, 31 MB | 30.7e9 | 35.4e9 |

use onnx_engine::image::JPEG_SCANS_MAX;

/// Beside what grows with the image: tables, filters, the tensor's first pages.
const FIXED_INSTRUCTIONS: u64 = 20_000_000;
/// A pixel of the prepared image: both resampling passes, normalising.
const PREPARED_PIXEL_INSTRUCTIONS: u64 = 700;
/// A pixel of the file: colour conversion, resampling.
const PNG_PIXEL_INSTRUCTIONS: u64 = 125;
/// A byte of a PNG's pixels: inflating, filtering.
const PNG_RAW_BYTE_INSTRUCTIONS: u64 = 65;
/// A byte of the PNG file: Huffman codes.
const PNG_FILE_BYTE_INSTRUCTIONS: u64 = 125;
/// A pixel of a JPEG: transform, upsampling, colour conversion, resampling.
const JPEG_PIXEL_INSTRUCTIONS: u64 = 560;
/// A pixel of a JPEG for each scan after the first: a progressive file's coefficients are gone through again.
const JPEG_SCAN_PIXEL_INSTRUCTIONS: u64 = 45;
/// A byte of a JPEG file: Huffman codes.
const JPEG_FILE_BYTE_INSTRUCTIONS: u64 = 400;

const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
const JPEG_START_OF_SCAN: [u8; 2] = [0xff, 0xda];
/// Where a PNG's header has bit depth and colour type (PNG specification, section 11.2.1).
const PNG_BIT_DEPTH_AT: usize = 24;
const PNG_COLOUR_TYPE_AT: usize = 25;

/// Pixels that an image with these file bytes may have for its decoding and preparing to `prepared_pixels` to be
/// bounded by `instructions`.
pub fn pixels_max(file: &[u8], prepared_pixels: u64, instructions: u64) -> u64 {
    let (pixel, file_byte) = match file.starts_with(PNG_SIGNATURE) {
        true => (PNG_PIXEL_INSTRUCTIONS + png_raw_bytes(file) * PNG_RAW_BYTE_INSTRUCTIONS, PNG_FILE_BYTE_INSTRUCTIONS),
        false => {
            let again = jpeg_scans(file).saturating_sub(1);
            (JPEG_PIXEL_INSTRUCTIONS + again * JPEG_SCAN_PIXEL_INSTRUCTIONS, JPEG_FILE_BYTE_INSTRUCTIONS)
        }
    };
    let beside = FIXED_INSTRUCTIONS
        .saturating_add(prepared_pixels.saturating_mul(PREPARED_PIXEL_INSTRUCTIONS))
        .saturating_add((file.len() as u64).saturating_mul(file_byte));
    instructions.saturating_sub(beside) / pixel
}

/// Scans of a JPEG, at most as many as the decoder takes. In coded data the marker can't occur (ITU-T T.81, section
/// B.1.1.5); in a comment it can, and then counts as well.
fn jpeg_scans(file: &[u8]) -> u64 {
    file.windows(2).filter(|window| *window == JPEG_START_OF_SCAN).take(JPEG_SCANS_MAX).count() as u64
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

    fn jpeg(scans: usize, bytes: usize) -> Vec<u8> {
        let mut file = vec![0; bytes];
        (0..scans).for_each(|scan| file[4 * scan..4 * scan + 2].copy_from_slice(&JPEG_START_OF_SCAN));
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
            (png(8, 2, 109_296), 224 * 224, 38_132_820),
            (png(16, 6, 373_654), 224 * 224, 83_279_330),
            (png(8, 2, 2_173_896), 1_000 * 1_000, 522_071_629),
            (png(8, 2, 53_775_289), 6_000 * 4_000, 12_479_464_529),
            (png(16, 6, 23_793_773), 2_000 * 1_500, 4_266_213_406),
            (png(16, 6, 21_059_396), 6_000 * 4_000, 15_707_411_517),
            (jpeg(1, 9_935), 224 * 224, 36_824_002),
            (jpeg(1, 71_948), 224 * 224, 60_327_123),
            (jpeg(10, 8_758), 224 * 224, 46_839_688),
            (jpeg(10, 64_803), 224 * 224, 77_533_190),
            (jpeg(1, 186_775), 1_000 * 1_000, 520_244_732),
            (jpeg(1, 1_419_773), 1_000 * 1_000, 987_872_626),
            (jpeg(10, 163_427), 1_000 * 1_000, 714_037_485),
            (jpeg(10, 1_274_025), 1_000 * 1_000, 1_333_041_206),
            (jpeg(1, 4_442_046), 6_000 * 4_000, 11_129_358_979),
            (jpeg(10, 3_889_465), 6_000 * 4_000, 15_791_681_361),
            (jpeg(10, 30_513_707), 6_000 * 4_000, 30_741_916_237),
        ];
        for (file, pixels, instructions) in measured {
            let bound = bound(&file, pixels);
            assert!(bound >= instructions, "{} bytes, {pixels} pixels: {bound} < {instructions}", file.len());
            assert!(bound <= 4 * instructions, "{} bytes, {pixels} pixels: {bound}", file.len());
        }
    }

    #[test]
    fn photos_of_24_million_pixels_fit_an_update() {
        let large = 24_000_000;
        let photos = [
            jpeg(1, 34_016_165),
            jpeg(10, 30_513_707),
            png(8, 2, 72_026_006),
            // Of 16 bits a channel and with alpha, up to five sixths of the bytes that the pixels have.
            png(16, 6, 160_000_000),
        ];
        for (file, pixels) in photos.into_iter().map(|file| (file, large)) {
            assert!(pixels_max(&file, PREPARED, IMAGE_INSTRUCTIONS_MAX) >= pixels);
        }
        assert_eq!(pixels_max(&vec![0xff; 100_000_000], PREPARED, IMAGE_INSTRUCTIONS_MAX), 0);
        assert_eq!(pixels_max(&[], u64::MAX, u64::MAX), 0);
    }
}
