//! `QuantizeLinear` and `DequantizeLinear` with one scale, to and from "centred" int16: the quantised value less its zero
//! point, which is what the integer kernels take.

use super::{CALL_INSTRUCTIONS, Call, Operator, Shapes, element_units, unit_elements};
use onnx_kernels::quantise;
use std::ops::Range;

/// An 8-bit grid, less its zero point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Grid {
    pub scale: f32,
    pub low: i16,
    pub high: i16,
}

/// Input: x, float32. Output: centred int16.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Quantize(pub Grid);

/// Input: centred int16. Output: float32.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Dequantize(pub Grid);

impl Operator for Quantize {
    fn name(&self) -> &'static str {
        "QuantizeLinear"
    }

    fn units(&self, shapes: &Shapes) -> usize {
        element_units(shapes.output_elements())
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        CALL_INSTRUCTIONS + 8 * unit_elements(shapes.output_elements(), &units).len() as u64
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        let range = unit_elements(call.shapes.output_elements(), &call.units);
        let output: &mut [i16] = &mut bytemuck::cast_slice_mut(call.output)[range.clone()];
        let input: &[f32] = bytemuck::cast_slice(call.inputs[0]);
        quantise::quantize_centred(&input[range], self.0.scale, self.0.low, self.0.high, output);
        Ok(())
    }
}

impl Operator for Dequantize {
    fn name(&self) -> &'static str {
        "DequantizeLinear"
    }

    fn units(&self, shapes: &Shapes) -> usize {
        element_units(shapes.output_elements())
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        CALL_INSTRUCTIONS + 4 * unit_elements(shapes.output_elements(), &units).len() as u64
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        let range = unit_elements(call.shapes.output_elements(), &call.units);
        let output: &mut [f32] = &mut bytemuck::cast_slice_mut(call.output)[range.clone()];
        let input: &[i16] = bytemuck::cast_slice(call.inputs[0]);
        quantise::dequantize_centred(&input[range], self.0.scale, output);
        Ok(())
    }
}
