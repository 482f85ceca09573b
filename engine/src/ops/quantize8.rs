//! 8-bit values as files have them: to and from centred int16, and `QuantizeLinear` and `DequantizeLinear` whose scales
//! are one for each index of an axis, or computed.

use super::{CALL_INSTRUCTIONS, Call, Op, Operator, Shapes, element_units, unit_elements};
use crate::graph::ValueId;
use crate::graph::import::Lowering;
use crate::graph::opaque::Quantization;
use onnx_kernels::quantise::{self, Conversion, Grid, Integer};
use std::ops::Range;
use tract_onnx::prelude::DatumType;

/// Input: uint8 or int8. Output: int16, less the zero point.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Centre {
    pub unsigned: bool,
    pub zero_point: i32,
}

/// Input: centred int16. Output: uint8 or int8, with the zero point.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Uncentre(pub Centre);

/// Inputs: x, float32 to be quantised or 8-bit to be dequantised; scales, float32; zero points of the 8-bit type if any.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Linear {
    pub quantizes: bool,
    pub unsigned: bool,
    /// The axis that has a scale for each index, where there are several scales.
    pub axis: usize,
}

/// The node as an operator of this file; `None` for other types.
pub(crate) fn lower(lowering: &mut Lowering<'_>, op: &Quantization) -> Option<ValueId> {
    let (x, scale) = (*lowering.inputs.first()?, *lowering.inputs.get(1)?);
    let dims = lowering.output_dims();
    let quantized = match op.quantizes {
        true => lowering.node.outputs[0].fact.datum_type,
        false => lowering.graph.values[x].datum_type,
    };
    let values = &lowering.graph.values;
    let float = if op.quantizes { x } else { scale };
    let zero_point_fits = lowering.inputs.get(2).is_none_or(|zero_point| values[*zero_point].datum_type == quantized);
    let floats = [float, scale].iter().all(|value| values[*value].datum_type == DatumType::F32);
    if !matches!(quantized, DatumType::U8 | DatumType::I8) || !floats || !zero_point_fits {
        return None;
    }
    let rank = dims.len() as i64;
    let axis = usize::try_from(if op.axis < 0 { op.axis + rank } else { op.axis }).unwrap_or(0);
    let linear = Op::Linear(Linear { quantizes: op.quantizes, unsigned: quantized == DatumType::U8, axis });
    let datum_type = if op.quantizes { quantized } else { DatumType::F32 };
    let (name, inputs) = (&lowering.node.name, lowering.inputs.clone());
    Some(lowering.graph.add_node(name, linear, inputs, datum_type, dims))
}

impl Centre {
    /// For the values of a grid of that 8-bit type.
    pub fn of(grid: super::quantize::Grid, datum_type: DatumType) -> Centre {
        let unsigned = datum_type == DatumType::U8;
        let lowest = if unsigned { 0 } else { i32::from(i8::MIN) };
        Centre { unsigned, zero_point: lowest - i32::from(grid.low) }
    }
}

impl Linear {
    /// Channels and values of each index of a channel.
    fn channels(&self, call: &Call<'_>) -> Result<(usize, usize), String> {
        let (shape, scales) = (&call.shapes.output, call.f32(1).len());
        if scales == 1 {
            return Ok((1, 1));
        }
        match shape.get(self.axis) {
            Some(size) if *size == scales => Ok((scales, shape[self.axis + 1..].iter().product())),
            _ => Err(format!("{scales} scales for axis {} of {shape:?}", self.axis)),
        }
    }

    fn run_as<T: Integer + bytemuck::Pod>(&self, call: Call<'_>) -> Result<(), String> {
        let (channels, inner) = self.channels(&call)?;
        let scales = call.f32(1);
        let zero_points: Vec<i32> = match call.inputs.get(2) {
            Some(bytes) => bytemuck::cast_slice::<u8, T>(bytes).iter().map(|value| value.wide()).collect(),
            None => Vec::new(),
        };
        if !zero_points.is_empty() && zero_points.len() != channels {
            return Err(format!("{} zero points for {channels} scales", zero_points.len()));
        }
        // Of one scale any part can be done; of several, all is.
        let range = match channels {
            1 => unit_elements(call.shapes.output_elements(), &call.units),
            _ => 0..call.shapes.output_elements(),
        };
        if range.is_empty() {
            return Ok(());
        }
        let grid = Grid { scales, zero_points: &zero_points, inner };
        if self.quantizes {
            let output: &mut [T] = bytemuck::cast_slice_mut(call.output);
            quantise::quantize_linear(&bytemuck::cast_slice(call.inputs[0])[range.clone()], grid, &mut output[range]);
        } else {
            let input: &[T] = bytemuck::cast_slice(call.inputs[0]);
            let output: &mut [f32] = bytemuck::cast_slice_mut(call.output);
            quantise::dequantize_linear(&input[range.clone()], grid, &mut output[range]);
        }
        Ok(())
    }
}

impl Operator for Linear {
    fn name(&self) -> &'static str {
        if self.quantizes { "QuantizeLinear" } else { "DequantizeLinear" }
    }

    fn units(&self, shapes: &Shapes) -> usize {
        match shapes.inputs[1].iter().product::<usize>() {
            1 => element_units(shapes.output_elements()),
            _ => 1,
        }
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let elements = shapes.output_elements();
        let conversion = if self.quantizes { Conversion::Quantize } else { Conversion::Dequantize };
        CALL_INSTRUCTIONS
            + match shapes.inputs[1].iter().product::<usize>() {
                1 => quantise::estimate_instructions(conversion, unit_elements(elements, &units).len()),
                // By channel, in runs or, channels last, one after the other.
                channels => {
                    let inner = shapes.output[self.axis.min(shapes.output.len())..].iter().skip(1).product::<usize>();
                    let runs = if inner > 1 { elements / inner.max(1) } else { elements / channels.max(1) };
                    2 * quantise::estimate_instructions(conversion, elements) + 200 * runs as u64
                }
            }
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        if self.unsigned { self.run_as::<u8>(call) } else { self.run_as::<i8>(call) }
    }
}

impl Operator for Centre {
    fn name(&self) -> &'static str {
        "Centre"
    }

    fn units(&self, shapes: &Shapes) -> usize {
        element_units(shapes.output_elements())
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let length = unit_elements(shapes.output_elements(), &units).len();
        CALL_INSTRUCTIONS + quantise::estimate_instructions(Conversion::Centre, length)
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        let range = unit_elements(call.shapes.output_elements(), &call.units);
        let input = &call.inputs[0][range.clone()];
        let output: &mut [i16] = &mut bytemuck::cast_slice_mut(call.output)[range];
        match self.unsigned {
            true => quantise::centre(input, self.zero_point as u8, output),
            false => quantise::centre(bytemuck::cast_slice::<u8, i8>(input), self.zero_point as i8, output),
        }
        Ok(())
    }
}

impl Operator for Uncentre {
    fn name(&self) -> &'static str {
        "Uncentre"
    }

    fn units(&self, shapes: &Shapes) -> usize {
        element_units(shapes.output_elements())
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let length = unit_elements(shapes.output_elements(), &units).len();
        CALL_INSTRUCTIONS + quantise::estimate_instructions(Conversion::Uncentre, length)
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        let range = unit_elements(call.shapes.output_elements(), &call.units);
        let input = &bytemuck::cast_slice::<u8, i16>(call.inputs[0])[range.clone()];
        let output = &mut call.output[range];
        match self.0.unsigned {
            true => quantise::uncentre(input, self.0.zero_point as u8, output),
            false => quantise::uncentre(input, self.0.zero_point as i8, bytemuck::cast_slice_mut::<u8, i8>(output)),
        }
        Ok(())
    }
}
