//! Convolutions, sums and means of centred integers.

use super::conv::{WINDOWS, window};
use super::{Numbers, equal};
use crate::int8::{self, Activations, Output, Source, Tile, Weights};
use crate::qconv::{self, DepthwiseWeights, Requantise, Sum, naive, portable};
use crate::window::Window;
use std::ops::Range;

/// Channels, around the groups of the bodies.
const CHANNELS: &[usize] = &[0, 1, 3, 8, 9, 16, 23, 40];

type Depthwise = fn(&[i16], &Window, DepthwiseWeights<'_>, Requantise<'_>, Range<usize>, &mut [i16]);
type Gather = fn(&[i16], usize, Range<usize>, &Window, Range<usize>, &mut [i16], usize);

pub fn check(seed: u64) -> Result<u32, String> {
    let mut numbers = Numbers::new(seed);
    let mut checked = 0;
    // The windows of the f32 convolutions, the common ones, and rows longer than the buffer of the depthwise body.
    let mut windows = Vec::new();
    for shape in WINDOWS {
        windows.push(window(shape)?);
    }
    for (height, width, kernel, stride, pad) in
        [(9, 11, 3, 1, 1), (8, 9, 3, 2, 1), (9, 10, 5, 1, 2), (11, 12, 5, 2, 2), (2, 1500, 3, 1, 1), (7, 7, 7, 1, 3)]
    {
        windows.push(Window::square([height, width], kernel, stride, pad).ok_or("window")?);
    }
    for (index, window) in windows.iter().enumerate() {
        for (variant, &channels) in CHANNELS.iter().enumerate() {
            if window.input_pixels() * channels > 20_000 && variant % 4 != 0 {
                continue;
            }
            checked += check_depthwise(&mut numbers, window, channels)?;
            checked += check_gather(&mut numbers, window, channels, index + variant)?;
        }
    }
    for length in [0, 1, 7, 8, 9, 16, 100] {
        let (first, second) = (centred(&mut numbers, length), centred(&mut numbers, length));
        for scales in [(1.0, 1.0), (0.5, 0.5), (0.013, -3.7), (f32::NAN, 1.0), (3e38, 3e38)] {
            let sum = Sum { scales, low: -100, high: 155 };
            let run = |body: fn(&[i16], &[i16], Sum, &mut [i16])| {
                let mut output = vec![-7; length];
                body(&first, &second, sum, &mut output);
                output
            };
            let (reference, case) = (run(naive::add), format!("{length} values, {sum:?}"));
            equal("qconv add", "portable", &case, &reference, &run(portable::add))?;
            equal("qconv add", "selected", &case, &reference, &run(qconv::add))?;
            checked += 2;
        }
    }
    for (pixels, channels) in [(0, 5), (1, 1), (7, 8), (49, 12), (64, 33)] {
        let input = centred(&mut numbers, pixels * channels);
        let run = |body: fn(&[i16], f32, i16, i16, &mut [i16])| {
            let mut output = vec![-7; channels];
            body(&input, 1.3 / pixels as f32, -3, 250, &mut output);
            output
        };
        let (reference, case) = (run(naive::mean), format!("{pixels} pixels of {channels} channels"));
        equal("qconv mean", "portable", &case, &reference, &run(portable::mean))?;
        equal("qconv mean", "selected", &case, &reference, &run(qconv::mean))?;
        checked += 2;
    }
    Ok(checked)
}

/// Values from -255 to 255, the extremes frequent.
fn centred(numbers: &mut Numbers, count: usize) -> Vec<i16> {
    let signs = numbers.bytes(count);
    let values = numbers.bytes(count);
    values.iter().zip(signs).map(|(value, sign)| i16::from(*value) * if sign < 128 { -1 } else { 1 }).collect()
}

fn check_depthwise(numbers: &mut Numbers, window: &Window, channels: usize) -> Result<u32, String> {
    let input = centred(numbers, window.input_pixels() * channels);
    let values = centred(numbers, window.taps() * channels);
    let mut packed = vec![99; DepthwiseWeights::packed_len(channels, window.kernel).ok_or("shape")?];
    qconv::pack_depthwise(&values, channels, window.kernel, &mut packed);
    let weights = DepthwiseWeights::new(&packed, channels, window.kernel);
    let multipliers: Vec<f32> =
        numbers.floats(channels).iter().map(|value| value / 100.0 / window.taps() as f32).collect();
    let bias: Vec<i32> = (0..channels).map(|_| numbers.next() as i32 >> 16).collect();
    let requantise = Requantise {
        multipliers: &multipliers,
        bias: channels.is_multiple_of(2).then_some(&bias[..]),
        low: -128,
        high: if channels.is_multiple_of(3) { 0 } else { 127 },
    };
    let outputs = window.output_pixels() * channels;
    let mut reference = vec![-7; outputs];
    naive::depthwise(&input, window, weights, requantise, 0..window.output[0], &mut reference);
    let cut = numbers.below(window.output[0] + 1);
    let case = format!("{window:?}, {channels} channels, cut at {cut}");
    for (name, body) in [("portable", portable::depthwise as Depthwise), ("selected", qconv::depthwise)] {
        let whole = 0..window.output[0];
        for cuts in [[whole, 0..0], [cut..window.output[0], 0..cut]] {
            let mut output = vec![-7; outputs];
            for rows in cuts {
                body(&input, window, weights, requantise, rows, &mut output);
            }
            equal("qconv depthwise", name, &case, &reference, &output)?;
        }
    }
    // The same as a product for each channel.
    if let Some(channel) = channels.checked_sub(1) {
        let stride = int8::padded_inner(window.taps());
        let mut rows = vec![-7; window.output_pixels() * stride];
        naive::gather(&input, channels, channel..channels, window, 0..window.output_pixels(), &mut rows, stride);
        let sums: Vec<i16> = rows
            .chunks(stride)
            .map(|row| {
                let taps = &values[channel * window.taps()..][..window.taps()];
                let sum = row.iter().zip(taps).map(|(value, weight)| i32::from(*value) * i32::from(*weight)).sum();
                requantise.apply(sum, channel)
            })
            .collect();
        let of_channel: Vec<i16> = reference.iter().skip(channel).step_by(channels).copied().collect();
        equal("qconv depthwise", "gathered", &case, &of_channel, &sums)?;
    }
    Ok(4)
}

fn check_gather(numbers: &mut Numbers, window: &Window, channels: usize, variant: usize) -> Result<u32, String> {
    let input = centred(numbers, window.input_pixels() * channels);
    let range = if variant.is_multiple_of(2) { 0..channels } else { channels / 3..channels / 2 };
    let k = window.taps() * range.len();
    let stride = int8::padded_inner(k).max(8) + variant % 3 * 8;
    let first = numbers.below(window.output_pixels() + 1);
    let case = format!("{window:?}, channels {range:?} of {channels}");
    let run = |body: Gather| {
        let pixels = first..window.output_pixels();
        let mut output = vec![-7; pixels.len() * stride];
        body(&input, channels, range.clone(), window, pixels, &mut output, stride);
        output
    };
    let reference = run(naive::gather);
    equal("qconv gather", "portable", &case, &reference, &run(portable::gather))?;
    equal("qconv gather", "selected", &case, &reference, &run(qconv::gather))?;
    // A convolution is a product of what was gathered.
    let bytes = numbers.bytes(k * 3);
    let mut packed = vec![0; Weights::packed_len(k, 3).ok_or("shape")?];
    int8::pack(Source { bytes: &bytes, row_stride: 3, column_stride: 1, unsigned: false }, k, 3, 0..3, &mut packed);
    let rows = window.output_pixels() - first;
    let product = |body: fn(Activations<'_>, Weights<'_>, Tile, Output<'_, i32>)| {
        let mut sums = vec![0; rows * 3];
        let weights = Weights::new(&packed, k, 3);
        let output = Output { values: &mut sums, stride: 3 };
        body(Activations { values: &reference, stride }, weights, Tile { rows: 0..rows, columns: 0..3 }, output);
        sums
    };
    equal("qconv gathered product", "selected", &case, &product(int8::naive::gemm_i32), &product(int8::gemm_i32))?;
    Ok(3)
}
