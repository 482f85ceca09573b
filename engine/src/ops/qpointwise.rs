//! `Add` of two quantised values and `GlobalAveragePool` of one (their QDQ form, and `QLinearAdd`).

use super::quantize::Grid;
use super::{CALL_INSTRUCTIONS, Call, Operator, Shapes, element_units, unit_elements};
use onnx_kernels::qconv;
use std::ops::Range;

/// Inputs: two centred int16 values of the output's shape, with these scales.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct QAdd {
    pub scales: (f32, f32),
    pub output: Grid,
}

/// Input: centred int16 `[n, h, w, c]` of this scale. Output: `[n, 1, 1, c]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct QMean {
    pub scale: f32,
    pub output: Grid,
}

impl Operator for QAdd {
    fn name(&self) -> &'static str {
        "QLinearAdd"
    }

    fn units(&self, shapes: &Shapes) -> usize {
        element_units(shapes.output_elements())
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let elements = unit_elements(shapes.output_elements(), &units).len();
        CALL_INSTRUCTIONS + qconv::estimate_add_instructions(elements)
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        let range = unit_elements(call.shapes.output_elements(), &call.units);
        let operand = |index: usize| -> &[i16] { &bytemuck::cast_slice(call.inputs[index])[range.clone()] };
        let Grid { scale, low, high } = self.output;
        let sum = qconv::Sum { scales: (self.scales.0 / scale, self.scales.1 / scale), low, high };
        let (first, second) = (operand(0), operand(1));
        qconv::add(first, second, sum, &mut bytemuck::cast_slice_mut(call.output)[range]);
        Ok(())
    }
}

impl Operator for QMean {
    fn name(&self) -> &'static str {
        "QLinearGlobalAveragePool"
    }

    fn instructions(&self, shapes: &Shapes, _units: Range<usize>) -> u64 {
        let channels = shapes.output.last().copied().unwrap_or(1);
        let pixels = shapes.inputs[0].iter().product::<usize>() / channels.max(1);
        CALL_INSTRUCTIONS + qconv::estimate_mean_instructions(pixels, channels)
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        let channels = call.shapes.output.last().copied().unwrap_or(1);
        let images = call.shapes.output[0];
        if images == 0 || channels == 0 {
            return Ok(());
        }
        let input: &[i16] = bytemuck::cast_slice(call.inputs[0]);
        let output: &mut [i16] = bytemuck::cast_slice_mut(call.output);
        let values = input.len() / images;
        let pixels = values / channels;
        if pixels == 0 || pixels > 1 << 16 {
            return Err(format!("a mean of {pixels} pixels"));
        }
        let multiplier = self.scale / self.output.scale / pixels as f32;
        for (input, output) in input.chunks_exact(values).zip(output.chunks_exact_mut(channels)) {
            qconv::mean(input, multiplier, self.output.low, self.output.high, output);
        }
        Ok(())
    }
}
