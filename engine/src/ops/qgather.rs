//! `Gather` of rows of an int8 table, each with its scale: an embedding that stays int8.

use super::{CALL_INSTRUCTIONS, Call, Operator, Shapes};
use crate::EngineError;
use crate::graph::weights::Weights;
use crate::graph::{Graph, Node, ValueId};
use onnx_kernels::quantise::{self, Conversion, Grid};
use std::ops::Range;
use tract_onnx::prelude::DatumType;

/// Inputs: the table `[rows, columns]`, then indices, int64. Output: the indices' shape and the columns, float32. The
/// table's value is not read, but what it is made of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct QGather {
    /// The value of 8-bit numbers.
    pub quantized: ValueId,
    /// The value of one scale, or of one for each row.
    pub scale: ValueId,
    /// None for zeros, one, or one for each row.
    pub zero_points: Vec<i32>,
}

impl QGather {
    pub fn pack(
        &self,
        graph: &Graph,
        node: &Node,
        weights: &mut Weights<'_>,
    ) -> Result<Box<dyn Operator>, EngineError> {
        let invalid = |reason: &str| EngineError::invalid(&*node.name, reason);
        let table = weights.tensor(graph, self.quantized)?;
        let scales = weights.f32(graph, self.scale)?.to_vec();
        let &[rows, columns] = table.shape() else { return Err(invalid("its table is not a matrix")) };
        let per_row = |count: usize| count == 1 || count == rows;
        if !per_row(scales.len()) || !self.zero_points.is_empty() && !per_row(self.zero_points.len()) {
            return Err(invalid("its table has not a scale and a zero point for each row"));
        }
        let unsigned = table.datum_type() == DatumType::U8;
        let bytes = table.as_bytes().to_vec();
        Ok(Box::new(PackedQGather { bytes, unsigned, rows, columns, scales, zero_points: self.zero_points.clone() }))
    }
}

struct PackedQGather {
    bytes: Vec<u8>,
    unsigned: bool,
    rows: usize,
    columns: usize,
    scales: Vec<f32>,
    zero_points: Vec<i32>,
}

/// Rows of a unit.
const ROWS_PER_UNIT: usize = 256;

impl PackedQGather {
    fn count(&self, shapes: &Shapes) -> usize {
        shapes.output_elements().checked_div(self.columns).unwrap_or(0)
    }
}

impl Operator for PackedQGather {
    fn name(&self) -> &'static str {
        "Gather (int8 table)"
    }

    fn units(&self, shapes: &Shapes) -> usize {
        self.count(shapes).div_ceil(ROWS_PER_UNIT).max(1)
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let rows = (units.len() * ROWS_PER_UNIT).min(self.count(shapes)) as u64;
        CALL_INSTRUCTIONS + rows * (quantise::estimate_instructions(Conversion::Dequantize, self.columns) + 80)
    }

    fn weight_bytes(&self) -> usize {
        self.bytes.len() + 4 * (self.scales.len() + self.zero_points.len())
    }

    fn run(&self, mut call: Call<'_>) -> Result<(), String> {
        let (count, columns) = (self.count(call.shapes), self.columns);
        let indices: &[i64] = bytemuck::cast_slice(call.inputs[0]);
        let range = (call.units.start * ROWS_PER_UNIT).min(count)..(call.units.end * ROWS_PER_UNIT).min(count);
        let output = call.output_f32();
        for at in range {
            let index = indices[at];
            let row = if index < 0 { index + self.rows as i64 } else { index };
            let row = usize::try_from(row).ok().filter(|row| *row < self.rows);
            let row = row.ok_or_else(|| format!("index {index} of a table of {} rows", self.rows))?;
            let of_row = |length: usize| if length == 1 { 0 } else { row };
            let scale = of_row(self.scales.len());
            let zero_points = match self.zero_points.len() {
                0 => &[][..],
                length => &self.zero_points[of_row(length)..=of_row(length)],
            };
            let grid = Grid { scales: &self.scales[scale..=scale], zero_points, inner: columns };
            let bytes = &self.bytes[row * columns..(row + 1) * columns];
            let output = &mut output[at * columns..(at + 1) * columns];
            match self.unsigned {
                true => quantise::dequantize_linear(bytes, grid, output),
                false => quantise::dequantize_linear(bytemuck::cast_slice::<u8, i8>(bytes), grid, output),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(table: &PackedQGather, indices: &[i64], units: Range<usize>) -> Result<Vec<f32>, String> {
        let shapes = Shapes {
            inputs: vec![vec![indices.len()]],
            output: vec![indices.len(), table.columns],
            parameters: vec![],
        };
        let mut output = vec![0f32; indices.len() * table.columns];
        let inputs = [bytemuck::cast_slice(indices)];
        let output_bytes = bytemuck::cast_slice_mut(&mut output);
        table.run(Call { shapes: &shapes, inputs: &inputs, output: output_bytes, scratch: &mut [], units })?;
        Ok(output)
    }

    #[test]
    fn rows_are_dequantised_each_with_its_scale_and_zero_point() {
        let bytes: Vec<u8> = (0..3 * 20).map(|index| (index * 37 % 256) as u8).collect();
        let (rows, columns) = (3, 20);
        for (unsigned, scales, zero_points) in [
            (false, vec![0.5, 0.25, 3.0], vec![]),
            (true, vec![0.1], vec![128]),
            (true, vec![0.1, 0.2, 0.3], vec![1, 2, 3]),
        ] {
            let table = PackedQGather { bytes: bytes.clone(), unsigned, rows, columns, scales, zero_points };
            let got = gather(&table, &[2, 0, -1, 1], 0..1).unwrap();
            for (at, row) in [2, 0, 2, 1].into_iter().enumerate() {
                for column in 0..columns {
                    let byte = bytes[row * columns + column];
                    let value = if unsigned { i32::from(byte) } else { i32::from(byte as i8) };
                    let zero_point = table.zero_points.get(row % table.zero_points.len().max(1)).copied().unwrap_or(0);
                    let scale = table.scales[row % table.scales.len()];
                    assert_eq!(got[at * columns + column], (value - zero_point) as f32 * scale, "row {row}");
                }
            }
        }
    }

    #[test]
    fn an_index_outside_the_table_is_an_error() {
        let table = PackedQGather {
            bytes: vec![1; 40],
            unsigned: false,
            rows: 2,
            columns: 20,
            scales: vec![1.0],
            zero_points: vec![],
        };
        assert_eq!(gather(&table, &[2], 0..1).unwrap_err(), "index 2 of a table of 2 rows");
        assert_eq!(gather(&table, &[-3], 0..1).unwrap_err(), "index -3 of a table of 2 rows");
    }
}
