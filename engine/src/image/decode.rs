//! PNG and JPEG to RGB.
//!
//! Both decoders work in integers and without platform SIMD: `png` has none, and `zune-jpeg` is taken without its `x86`
//! and `neon` features, so that the same bytes give the same pixels natively and in Wasm.

use super::Image;
use crate::EngineError;
use std::io::Cursor;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

const PNG_SIGNATURE: [u8; 8] = [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a];
const JPEG_START: [u8; 3] = [0xff, 0xd8, 0xff];

/// Most passes over a progressive JPEG's coefficients. Encoders make about ten; each costs time for every pixel, however
/// few bytes it has in the file.
pub const JPEG_SCANS_MAX: usize = 32;

/// Most bytes that the PNG decoder may use beside the pixels.
const PNG_WORK_BYTES_MAX: usize = 64 << 20;

/// Decodes a PNG or JPEG of at most `max_pixels` pixels; the dimensions are checked before anything is decoded.
///
/// Alpha is dropped, 16 bits are rounded to 8, grey and palettes become RGB. Of an animation the first frame counts.
/// Orientation and colour profiles are not applied.
pub fn decode(bytes: &[u8], max_pixels: u64) -> Result<Image, EngineError> {
    if bytes.starts_with(&PNG_SIGNATURE) {
        decode_png(bytes, max_pixels)
    } else if bytes.starts_with(&JPEG_START) {
        decode_jpeg(bytes, max_pixels)
    } else {
        Err(invalid("the bytes begin like neither"))
    }
}

fn invalid(reason: impl ToString) -> EngineError {
    EngineError::ImageInvalid { reason: reason.to_string() }
}

fn check_size(width: u64, height: u64, max_pixels: u64) -> Result<(), EngineError> {
    let pixels = width.saturating_mul(height);
    if pixels == 0 {
        return Err(invalid(format!("it is {width} x {height} pixels")));
    }
    if pixels > max_pixels {
        return Err(EngineError::ImageTooLarge { pixels, limit_pixels: max_pixels });
    }
    Ok(())
}

fn decode_png(bytes: &[u8], max_pixels: u64) -> Result<Image, EngineError> {
    let limits = png::Limits { bytes: PNG_WORK_BYTES_MAX };
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(png::Transformations::EXPAND);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info().map_err(invalid)?;
    let (width, height) = (header.width, header.height);
    check_size(width.into(), height.into(), max_pixels)?;
    let mut reader = decoder.read_info().map_err(invalid)?;
    let buffer_bytes = reader.output_buffer_size().ok_or_else(|| invalid("its size overflows"))?;
    let mut pixels = vec![0; buffer_bytes];
    let frame = reader.next_frame(&mut pixels).map_err(invalid)?;
    if (frame.width, frame.height) != (width, height) {
        return Err(invalid(format!("its first frame is {} x {} pixels", frame.width, frame.height)));
    }
    pixels.truncate(frame.buffer_size());
    if frame.bit_depth == png::BitDepth::Sixteen {
        pixels = pixels.as_chunks::<2>().0.iter().map(|bytes| round_to_8(u16::from_be_bytes(*bytes))).collect();
    }
    let rgb = match frame.color_type {
        png::ColorType::Rgb => pixels,
        png::ColorType::Rgba => pixels.as_chunks::<4>().0.iter().flat_map(|[r, g, b, _]| [*r, *g, *b]).collect(),
        png::ColorType::Grayscale => grey_to_rgb(&pixels),
        png::ColorType::GrayscaleAlpha => pixels.as_chunks::<2>().0.iter().flat_map(|[grey, _]| [*grey; 3]).collect(),
        png::ColorType::Indexed => return Err(invalid("it has no palette")),
    };
    checked(Image { width, height, rgb })
}

fn decode_jpeg(bytes: &[u8], max_pixels: u64) -> Result<Image, EngineError> {
    // The decoder fills what is missing of a file cut short with grey. That would be classified as if it were the
    // image: a file whose last scan has no end is refused instead.
    let last = |marker: u8| bytes.windows(2).rposition(|window| window == [0xff, marker]);
    const END_OF_IMAGE: u8 = 0xd9;
    const START_OF_SCAN: u8 = 0xda;
    if last(END_OF_IMAGE).is_none_or(|end| last(START_OF_SCAN).is_none_or(|scan| scan > end)) {
        return Err(invalid("the JPEG is cut short"));
    }
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_max_scans(JPEG_SCANS_MAX)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(invalid)?;
    let (width, height) = decoder.dimensions().ok_or_else(|| invalid("it has no dimensions"))?;
    check_size(width as u64, height as u64, max_pixels)?;
    if decoder.input_colorspace() == Some(ColorSpace::Luma) {
        decoder.set_options(options.jpeg_set_out_colorspace(ColorSpace::Luma));
    }
    let mut rgb = decoder.decode().map_err(invalid)?;
    if decoder.output_colorspace() == Some(ColorSpace::Luma) {
        rgb = grey_to_rgb(&rgb);
    }
    // JPEG's dimensions are 16 bits each.
    checked(Image { width: width as u32, height: height as u32, rgb })
}

/// An image whose bytes are as many as its pixels need.
fn checked(image: Image) -> Result<Image, EngineError> {
    let expected = u64::from(image.width) * u64::from(image.height) * 3;
    if image.rgb.len() as u64 != expected {
        return Err(invalid(format!("it has {} bytes of pixels instead of {expected}", image.rgb.len())));
    }
    Ok(image)
}

fn grey_to_rgb(grey: &[u8]) -> Vec<u8> {
    grey.iter().flat_map(|grey| [*grey; 3]).collect()
}

/// `value * 255 / 65535` rounded to nearest; no value is half way, as 65535 / 255 = 257 is odd.
fn round_to_8(value: u16) -> u8 {
    ((u32::from(value) + 128) / 257) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIXELS_MAX: u64 = 24_000_000;

    fn png(width: u32, height: u32, color: png::ColorType, depth: png::BitDepth, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == png::ColorType::Indexed {
            encoder.set_palette(vec![10, 20, 30, 40, 50, 60]);
        }
        encoder.write_header().unwrap().write_image_data(data).unwrap();
        bytes
    }

    #[test]
    fn every_kind_of_png_becomes_rgb() {
        use png::{BitDepth, ColorType};
        let rgb = |color, depth, data: &[u8]| decode(&png(2, 1, color, depth, data), PIXELS_MAX).unwrap().rgb;
        assert_eq!(rgb(ColorType::Rgb, BitDepth::Eight, &[1, 2, 3, 4, 5, 6]), [1, 2, 3, 4, 5, 6]);
        assert_eq!(rgb(ColorType::Rgba, BitDepth::Eight, &[1, 2, 3, 0, 4, 5, 6, 9]), [1, 2, 3, 4, 5, 6]);
        assert_eq!(rgb(ColorType::Grayscale, BitDepth::Eight, &[7, 8]), [7, 7, 7, 8, 8, 8]);
        assert_eq!(rgb(ColorType::GrayscaleAlpha, BitDepth::Eight, &[7, 0, 8, 0]), [7, 7, 7, 8, 8, 8]);
        assert_eq!(rgb(ColorType::Grayscale, BitDepth::One, &[0b0100_0000]), [0, 0, 0, 255, 255, 255]);
        assert_eq!(rgb(ColorType::Indexed, BitDepth::Eight, &[1, 0]), [40, 50, 60, 10, 20, 30]);
        // 0x0080 is 0.498 of 257, 0x0081 0.502: rounded down and up. Truncation would give 0 for both.
        let sixteen = [0x00, 0x80, 0x00, 0x81, 0xff, 0xff, 0xff, 0x7f, 0x80, 0x00, 0x01, 0x01];
        assert_eq!(rgb(ColorType::Rgb, BitDepth::Sixteen, &sixteen), [0, 1, 255, 255, 128, 1]);
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let refused = |bytes: &[u8]| matches!(decode(bytes, PIXELS_MAX), Err(EngineError::ImageInvalid { .. }));
        assert!(refused(b""));
        assert!(refused(b"GIF89a"));
        assert!(refused(&PNG_SIGNATURE));
        assert!(refused(&JPEG_START));
        let whole = png(4, 4, png::ColorType::Rgb, png::BitDepth::Eight, &[9; 48]);
        for length in 8..whole.len() - 12 {
            assert!(refused(&whole[..length]), "a PNG cut to {length} of {} bytes", whole.len());
        }
    }

    #[test]
    fn a_large_image_is_refused_by_its_header() {
        // 100,000 x 100,000 pixels of which not one byte is there.
        let mut bytes = PNG_SIGNATURE.to_vec();
        let mut header = b"IHDR".to_vec();
        header.extend(100_000u32.to_be_bytes());
        header.extend(100_000u32.to_be_bytes());
        header.extend([8, 2, 0, 0, 0]);
        bytes.extend(13u32.to_be_bytes());
        bytes.extend(&header);
        bytes.extend(crc32(&header).to_be_bytes());
        let expected = EngineError::ImageTooLarge { pixels: 10_000_000_000, limit_pixels: PIXELS_MAX };
        assert_eq!(decode(&bytes, PIXELS_MAX), Err(expected));
    }

    /// A PNG chunk.
    fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let body = [kind, data].concat();
        [&(data.len() as u32).to_be_bytes(), &body[..], &crc32(&body).to_be_bytes()].concat()
    }

    /// zlib's form of `length` zeros, in blocks of one match after another: a thousandth of the bytes.
    fn zeros_in_zlib(length: usize) -> Vec<u8> {
        // Fixed Huffman codes (RFC 1951, section 3.2.6): the literal 0, then matches of 258 bytes at distance 1.
        let mut bits: Vec<bool> = vec![true, true, false];
        bits.extend([false, false, true, true, false, false, false, false]);
        for _ in 0..length / 258 {
            bits.extend([true, true, false, false, false, true, false, true]);
            bits.extend([false; 5]);
        }
        bits.extend([false; 7]);
        let byte = |bits: &[bool]| bits.iter().rev().fold(0_u8, |byte, bit| byte << 1 | u8::from(*bit));
        let deflated: Vec<u8> = bits.chunks(8).map(byte).collect();
        [&[0x78, 0x9c], &deflated[..], &[0, 0, 0, 0]].concat()
    }

    #[test]
    fn a_png_that_inflates_to_more_than_its_pixels_is_cut_off() {
        let header = chunk(
            b"IHDR",
            &[4_u32.to_be_bytes(), 4_u32.to_be_bytes()]
                .concat()
                .into_iter()
                .chain([8, 2, 0, 0, 0])
                .collect::<Vec<u8>>(),
        );
        let bomb = zeros_in_zlib(64 << 20);
        assert!(bomb.len() < 500_000);
        let file = |chunks: &[Vec<u8>]| [&PNG_SIGNATURE[..], &header, &chunks.concat(), &chunk(b"IEND", &[])].concat();
        let started = std::time::Instant::now();
        // In the pixels: the rest is not looked at, or the file refused for it.
        match decode(&file(&[chunk(b"IDAT", &bomb)]), PIXELS_MAX) {
            Ok(image) => assert_eq!(image.rgb, vec![0; 48]),
            Err(error) => assert!(matches!(error, EngineError::ImageInvalid { .. }), "{error}"),
        }
        // In a text and in a colour profile, which are not inflated at all.
        let pixels = zeros_in_zlib(258);
        for (kind, name) in [(b"zTXt", &b"Comment\0\0"[..]), (b"iCCP", b"profile\0\0")] {
            let kept = decode(&file(&[chunk(kind, &[name, &bomb].concat()), chunk(b"IDAT", &pixels)]), PIXELS_MAX);
            assert!(matches!(kept, Ok(_) | Err(EngineError::ImageInvalid { .. })), "{kept:?}");
        }
        assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
    }

    /// A progressive JPEG of one grey block, in `scans` passes of a few bytes each.
    fn progressive(scans: usize, side: u16) -> Vec<u8> {
        let segment =
            |marker: u8, data: &[u8]| [&[0xff, marker], &(data.len() as u16 + 2).to_be_bytes()[..], data].concat();
        let side = side.to_be_bytes();
        let one_code = |class: u8| [&[class], &[1][..], &[0; 15], &[0]].concat();
        let mut bytes = vec![0xff, 0xd8];
        bytes.extend(segment(0xdb, &[&[0][..], &[1; 64]].concat()));
        bytes.extend(segment(0xc2, &[8, side[0], side[1], side[0], side[1], 1, 1, 0x11, 0]));
        bytes.extend(segment(0xc4, &one_code(0x00)));
        bytes.extend(segment(0xc4, &one_code(0x10)));
        for scan in 0..scans {
            let band = if scan == 0 { [0, 0, 0] } else { [1, 63, 0] };
            bytes.extend(segment(0xda, &[&[1, 1, 0][..], &band].concat()));
            bytes.push(0x7f);
        }
        bytes.extend([0xff, 0xd9]);
        bytes
    }

    #[test]
    fn a_jpeg_of_very_many_scans_is_refused() {
        let few = decode(&progressive(8, 8), PIXELS_MAX).expect("encoders make as many");
        assert_eq!(few.rgb, vec![128; 8 * 8 * 3]);
        match decode(&progressive(1_000, 8), PIXELS_MAX) {
            Err(EngineError::ImageInvalid { reason }) => assert!(reason.to_lowercase().contains("scan"), "{reason}"),
            other => panic!("{other:?}"),
        }
        let claimed = decode(&progressive(2, 65_535), PIXELS_MAX);
        let pixels = 65_535 * 65_535;
        assert_eq!(claimed, Err(EngineError::ImageTooLarge { pixels, limit_pixels: PIXELS_MAX }));
    }

    /// CRC-32 of ISO 3309, as PNG's chunks end with.
    fn crc32(bytes: &[u8]) -> u32 {
        let step = |crc: u32| if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
        !bytes.iter().fold(!0u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
    }

    #[test]
    fn a_jpeg_becomes_rgb() {
        // 16 x 16 pixels, written by Pillow 13.0.0: left half (200, 30, 60), right half (20, 160, 220), quality 95, 4:4:4.
        let bytes = include_bytes!("testdata/halves.jpg");
        let image = decode(bytes, PIXELS_MAX).unwrap();
        assert_eq!((image.width, image.height), (16, 16));
        for (index, pixel) in image.rgb.as_chunks::<3>().0.iter().enumerate() {
            let expected = if index % 16 < 8 { [200i16, 30, 60] } else { [20, 160, 220] };
            let close = pixel.iter().zip(expected).all(|(got, expected)| (i16::from(*got) - expected).abs() <= 3);
            assert!(close, "pixel {index} is {pixel:?}");
        }
        let grey = decode(include_bytes!("testdata/grey.jpg"), PIXELS_MAX).unwrap();
        assert_eq!((grey.width, grey.height), (8, 8));
        assert!(grey.rgb.iter().all(|value| (118..=122).contains(value)), "{:?}", grey.rgb);
        let cut = &bytes[..bytes.len() - 20];
        assert!(matches!(decode(cut, PIXELS_MAX), Err(EngineError::ImageInvalid { .. })));
        let small_limit = EngineError::ImageTooLarge { pixels: 256, limit_pixels: 255 };
        assert_eq!(decode(bytes, 255), Err(small_limit));
    }
}
