//! `GatherBlockQuantized`: rows of a table of 4 or 8 bits, which has a scale for each block of a row.

use super::{CALL_INSTRUCTIONS, Call, Operator, Shapes};
use onnx_kernels::copy;
use std::ops::Range;

/// Inputs: int64 indices; the table's bytes `[rows, bytes]`; float32 scales `[rows, blocks]`; zero points, if any, packed
/// like the table, otherwise they are the middle of the range. Output: the indices' shape and the columns, float32.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GatherBlocks {
    /// 4 or 8. Of two numbers in a byte the first is in its low bits.
    pub bits: usize,
    /// Columns that share a scale.
    pub block_size: usize,
}

/// Rows of a unit.
const ROWS_PER_UNIT: usize = 64;

impl GatherBlocks {
    fn unpacked(&self, bytes: &[u8], index: usize) -> i32 {
        i32::from(match self.bits {
            4 => bytes[index / 2] >> (index % 2 * 4) & 15,
            _ => bytes[index],
        })
    }
}

impl Operator for GatherBlocks {
    fn name(&self) -> &'static str {
        "GatherBlockQuantized"
    }

    fn units(&self, shapes: &Shapes) -> usize {
        shapes.inputs[0].iter().product::<usize>().div_ceil(ROWS_PER_UNIT).max(1)
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let rows = (units.len() * ROWS_PER_UNIT).min(shapes.inputs[0].iter().product());
        let columns = shapes.output.last().copied().unwrap_or(0);
        CALL_INSTRUCTIONS + (rows * (400 + 24 * columns + 60 * columns.div_ceil(self.block_size))) as u64
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        let Call { shapes, inputs, output, units, .. } = call;
        let indices: &[i64] = bytemuck::cast_slice(inputs[0]);
        let (&[rows, row_bytes], Some(&columns)) = (shapes.inputs[1].as_slice(), shapes.output.last()) else {
            return Err(format!("its table has shape {:?}", shapes.inputs[1]));
        };
        let blocks = columns.div_ceil(self.block_size);
        let zero_bytes = (blocks * self.bits).div_ceil(8);
        let (table, scales): (&[u8], &[f32]) = (inputs[1], bytemuck::cast_slice(inputs[2]));
        let zero_points = inputs.get(3).copied();
        let fits = row_bytes * 8 == columns * self.bits && table.len() == rows * row_bytes;
        if !fits || scales.len() != rows * blocks || zero_points.is_some_and(|found| found.len() != rows * zero_bytes) {
            return Err(format!("its table, scales and zero points are not of {rows} rows of {columns}"));
        }
        let output: &mut [f32] = bytemuck::cast_slice_mut(output);
        let resolve = copy::Gather { outer: 1, length: rows, inner: columns };
        let at_most = |unit: usize| (unit * ROWS_PER_UNIT).min(indices.len());
        for at in at_most(units.start)..at_most(units.end) {
            let row = resolve.resolve(at, indices[at]).map_err(|error| error.to_string())?;
            let bytes = &table[row * row_bytes..(row + 1) * row_bytes];
            let scales = &scales[row * blocks..(row + 1) * blocks];
            let output = &mut output[at * columns..(at + 1) * columns];
            for (block, (output, scale)) in output.chunks_mut(self.block_size).zip(scales).enumerate() {
                let zero_point = match zero_points {
                    Some(zero_points) => self.unpacked(&zero_points[row * zero_bytes..(row + 1) * zero_bytes], block),
                    None => 1 << (self.bits - 1),
                };
                for (index, output) in output.iter_mut().enumerate() {
                    *output = (self.unpacked(bytes, block * self.block_size + index) - zero_point) as f32 * scale;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_widened_block_by_block() {
        // Two rows of 20 columns in blocks of 16: two scales and, packed in a byte, two zero points a row.
        let table: Vec<u8> = (0..20u32).map(|at| (at * 37 % 251) as u8).collect();
        let (scales, zero_points) = ([0.5f32, 2.0, -1.0, 0.25], [0x39u8, 0xf0]);
        let indices = [1i64, -2, 1];
        let op = GatherBlocks { bits: 4, block_size: 16 };
        let shapes = Shapes {
            inputs: vec![vec![3], vec![2, 10], vec![2, 2], vec![2, 1]],
            output: vec![3, 20],
            parameters: Vec::new(),
        };
        let run = |indices: &[i64], with_zero_points: bool| {
            let mut output = vec![0f32; 60];
            let all: [&[u8]; 4] = [bytemuck::cast_slice(indices), &table, bytemuck::cast_slice(&scales), &zero_points];
            let inputs = if with_zero_points { &all[..] } else { &all[..3] };
            let call = Call {
                shapes: &shapes,
                inputs,
                output: bytemuck::cast_slice_mut(&mut output),
                scratch: &mut [],
                units: 0..1,
            };
            op.run(call).map(|()| output)
        };
        for with_zero_points in [true, false] {
            let output = run(&indices, with_zero_points).unwrap();
            for (at, got) in output.into_iter().enumerate() {
                let (row, column) = ([1, 0, 1][at / 20], at % 20);
                let number = table[row * 10 + column / 2] >> (column % 2 * 4) & 15;
                let packed = [[9, 3], [0, 15]][row][column / 16];
                let zero_point = if with_zero_points { packed } else { 8 };
                assert_eq!(got, (i32::from(number) - zero_point) as f32 * scales[row * 2 + column / 16]);
            }
        }
        assert!(run(&[0, 2, 0], true).unwrap_err().contains('2'));
    }
}
