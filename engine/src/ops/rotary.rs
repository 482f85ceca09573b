//! Rotary position embedding: `x cos + concat(-x2, x1) sin` over the last axis.

use super::{CALL_INSTRUCTIONS, Call, Operator, Shapes};
use crate::graph::dims::Dim;
use onnx_kernels::rotary::{self, Pairs};
use std::ops::Range;

/// Inputs: x `[batch, heads, positions, columns]`, or with `by_position` `[batch, positions, heads, columns]`; cosines and
/// sines `[batch or 1, 1, positions, width]`, or with `offset` `[positions in all, width]`, of which those from there on
/// are taken. Output: of x's shape; columns beyond those that the tables are for are x's.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rotary {
    pub by_position: bool,
    pub pairs: Pairs,
    /// Whether tables are as wide as what is rotated, or half as wide.
    pub full_tables: bool,
    pub offset: Option<Dim>,
}

/// Rows of a unit.
const ROWS_PER_UNIT: usize = 256;

impl Rotary {
    /// With a row of numbers for each element of a row.
    pub fn full(by_position: bool) -> Rotary {
        Rotary { by_position, pairs: Pairs::Halves, full_tables: true, offset: None }
    }

    /// The kernel for the rows of one batch, whose number of rows is the second.
    fn kernel(&self, shapes: &Shapes) -> (rotary::Rotary, usize) {
        let x = &shapes.inputs[0];
        let (positions, heads) = if self.by_position { (x[1], x[2]) } else { (x[2], x[1]) };
        let repeat = if self.by_position { heads } else { 1 };
        let width = shapes.inputs[1].last().copied().unwrap_or(0);
        let half = if self.full_tables { width / 2 } else { width };
        let first = shapes.parameters.first().map_or(0, |first| *first as usize);
        let (pairs, full_tables) = (self.pairs, self.full_tables);
        (rotary::Rotary { pairs, half, full_tables, first, positions, repeat }, positions * heads)
    }

    /// Whether the tables have all rows that are needed.
    fn check(&self, shapes: &Shapes, kernel: &rotary::Rotary) -> Result<(), String> {
        let (table, columns) = (&shapes.inputs[1], shapes.output[3]);
        let needed = kernel.first.saturating_add(kernel.positions);
        let fits = match (self.offset, table.as_slice()) {
            (Some(_), &[rows, _]) => needed <= rows,
            (None, &[batch, 1, rows, _]) => rows == needed && (batch == 1 || batch == shapes.output[0]),
            _ => false,
        };
        if fits && *table == shapes.inputs[2] && 2 * kernel.half <= columns {
            return Ok(());
        }
        let sines = &shapes.inputs[2];
        Err(format!("its tables are {table:?} and {sines:?}, for {needed} positions and rows of {columns}"))
    }
}

impl Operator for Rotary {
    fn name(&self) -> &'static str {
        "RotaryEmbedding"
    }

    fn units(&self, shapes: &Shapes) -> usize {
        let rows: usize = shapes.output[..3].iter().product();
        rows.div_ceil(ROWS_PER_UNIT).max(1)
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let rows = (units.len() * ROWS_PER_UNIT).min(shapes.output[..3].iter().product());
        let (kernel, _) = self.kernel(shapes);
        let calls = if 2 * kernel.half == shapes.output[3] { 1 } else { rows };
        // Each call has some instructions around its rows, and all elements are copied first.
        let around = (100 * calls + rows * shapes.output[3] / 2) as u64;
        CALL_INSTRUCTIONS + 1_500 + kernel.estimate_instructions(rows) + around
    }

    fn run(&self, mut call: Call<'_>) -> Result<(), String> {
        let shapes = call.shapes;
        let (kernel, of_batch) = self.kernel(shapes);
        self.check(shapes, &kernel)?;
        let (columns, rotated) = (shapes.output[3], 2 * kernel.half);
        let (x, cosines, sines) = (call.f32(0), call.f32(1), call.f32(2));
        let rows = shapes.output[0] * of_batch;
        let (mut row, end) = ((call.units.start * ROWS_PER_UNIT).min(rows), (call.units.end * ROWS_PER_UNIT).min(rows));
        while row < end {
            let batch = row / of_batch;
            let part = row..end.min((batch + 1) * of_batch);
            let is_shared = self.offset.is_some() || shapes.inputs[1][0] == 1;
            let first = kernel.first + if is_shared { 0 } else { batch * kernel.positions };
            let kernel = rotary::Rotary { first, ..kernel };
            let elements = part.start * columns..part.end * columns;
            let output = &mut call.output_f32()[elements.clone()];
            output.copy_from_slice(&x[elements]);
            let of_rows = part.start - batch * of_batch..part.end - batch * of_batch;
            if rotated == columns {
                kernel.run(cosines, sines, of_rows, output);
            } else {
                for (row, output) in of_rows.zip(output.chunks_exact_mut(columns.max(1))) {
                    kernel.run(cosines, sines, row..row + 1, &mut output[..rotated]);
                }
            }
            row = part.end;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_orders_of_axes_give_the_same_in_all_batches() {
        let (batch, heads, positions, columns) = (2, 3, 100, 6);
        let number = |seed: usize| ((seed * 2_654_435_761) % 1000) as f32 / 500.0 - 1.0;
        let of_position = |b: usize, h: usize, p: usize| ((b * positions + p) * heads + h) * columns;
        let of_head = |b: usize, h: usize, p: usize| ((b * heads + h) * positions + p) * columns;
        let elements = batch * heads * positions * columns;
        let by_head: Vec<f32> = (0..elements).map(number).collect();
        let mut by_position = vec![0.0; elements];
        for (b, h, p) in
            (0..batch * heads * positions).map(|i| (i / positions / heads, i / positions % heads, i % positions))
        {
            by_position[of_position(b, h, p)..][..columns].copy_from_slice(&by_head[of_head(b, h, p)..][..columns]);
        }
        let cosines: Vec<f32> = (0..batch * positions * columns).map(|i| number(i + 7)).collect();
        let sines: Vec<f32> = (0..batch * positions * columns).map(|i| number(i + 9)).collect();
        let run = |by_position: bool, x: &[f32], shape: [usize; 4]| {
            let table = vec![batch, 1, positions, columns];
            let shapes = Shapes {
                inputs: vec![shape.to_vec(), table.clone(), table],
                output: shape.to_vec(),
                parameters: Vec::new(),
            };
            let op = Rotary::full(by_position);
            let mut output = vec![0f32; elements];
            for unit in 0..op.units(&shapes) {
                let inputs = [x, &cosines, &sines].map(bytemuck::cast_slice);
                let call = Call {
                    shapes: &shapes,
                    inputs: &inputs,
                    output: bytemuck::cast_slice_mut(&mut output),
                    scratch: &mut [],
                    units: unit..unit + 1,
                };
                op.run(call).unwrap();
            }
            output
        };
        let first = run(false, &by_head, [batch, heads, positions, columns]);
        let second = run(true, &by_position, [batch, positions, heads, columns]);
        for (b, h, p) in
            (0..batch * heads * positions).map(|i| (i / positions / heads, i / positions % heads, i % positions))
        {
            let (x, at, table) =
                (&by_head[of_head(b, h, p)..][..columns], of_head(b, h, p), (b * positions + p) * columns);
            for i in 0..3 {
                let low = x[i] * cosines[table + i] - x[i + 3] * sines[table + i];
                let high = x[i + 3] * cosines[table + i + 3] + x[i] * sines[table + i + 3];
                assert_eq!((first[at + i], first[at + i + 3]), (low, high));
            }
            assert_eq!(first[at..][..columns], second[of_position(b, h, p)..][..columns]);
        }
    }
}
