//! Any bytes as an image: it is decoded to as many pixels as it says, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onnx_engine::image::{self, ChannelOrder, Layout, Preprocessing, Resize};

const PIXELS_MAX: u64 = 1_000_000;

fuzz_target!(|data: &[u8]| {
    let Ok(decoded) = image::decode(data, PIXELS_MAX) else { return };
    let pixels = u64::from(decoded.width) * u64::from(decoded.height);
    assert!(pixels <= PIXELS_MAX && decoded.rgb.len() as u64 == 3 * pixels);
    for resize in [Resize::Stretch, Resize::ShorterSide(8), Resize::None] {
        let preprocessing = Preprocessing {
            height: 8,
            width: 8,
            resize,
            channel_order: ChannelOrder::Rgb,
            layout: Layout::Nchw,
            mean: [127.0; 3],
            std: [64.0; 3],
        };
        if let Ok(tensor) = image::preprocess(&decoded, &preprocessing) {
            assert!(tensor.to_f32().expect("it is float32").iter().all(|value| value.is_finite()));
        }
    }
});
