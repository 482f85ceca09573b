//! A cache of keys or values and what is new, one behind the other.

use super::attention::Axes;
use super::{CALL_INSTRUCTIONS, Call, Operator, Shapes};
use onnx_kernels::copy::{Copy, Layout};
use std::ops::Range;

/// Inputs: float32 past `[batch, heads, past, columns]` and new `[batch, heads, positions, columns]`, its axes as `new`
/// says. Output: `[batch, heads, past + positions, columns]`.
///
/// Where the output grows in place it holds the past already, each head with room behind it, and the past is given
/// without bytes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Append {
    pub new: Axes,
}

impl Append {
    /// The copy of the past, and that of what is new, into an output with room for `capacity` positions per head.
    fn copies(&self, shapes: &Shapes, capacity: usize) -> (Copy, Copy) {
        let &[batch, heads, past, columns] = shapes.inputs[0].as_slice() else {
            return (Copy::transpose(&[0], &[0]), Copy::transpose(&[0], &[0]));
        };
        let positions = shapes.output[2].saturating_sub(past);
        let mut to = Layout::row_major(&[batch, heads, capacity, columns]);
        let old = [batch, heads, past, columns];
        let of_past = Copy::new(&old, Layout::row_major(&old), to);
        to.offset = past * columns;
        let dims = [batch, heads, positions, columns];
        let from = match self.new {
            Axes::ByHead => Layout::row_major(&dims),
            Axes::ByPosition => {
                let mut from = Layout::row_major(&[batch, positions, heads, columns]);
                from.strides.swap(1, 2);
                from
            }
        };
        (of_past, Copy::new(&dims, from, to))
    }
}

impl Operator for Append {
    fn name(&self) -> &'static str {
        "Concat"
    }

    fn instructions(&self, shapes: &Shapes, _units: Range<usize>) -> u64 {
        // Two copies are prepared, each of eight axes, and have rows.
        let copied: usize = shapes.output.iter().product();
        let rows = copied.checked_div(shapes.output.last().copied().unwrap_or(1)).unwrap_or(0);
        CALL_INSTRUCTIONS + 7_000 + (2 * copied + 40 * rows) as u64
    }

    fn appends(&self) -> bool {
        true
    }

    fn run(&self, mut call: Call<'_>) -> Result<(), String> {
        let shapes = call.shapes;
        let (past, new) = (call.f32(0), call.f32(1));
        let of_position: usize = shapes.output[0] * shapes.output[1] * shapes.output[3];
        let capacity = call.output_f32().len().checked_div(of_position).unwrap_or(0);
        if capacity < shapes.output[2] {
            return Err(format!("there is room for {capacity} positions of {}", shapes.output[2]));
        }
        let (heads, columns) = (shapes.output[0] * shapes.output[1], shapes.output[3]);
        let before = shapes.inputs[0][2];
        if past.is_empty() && shapes.output[2] == before + 1 && new.len() == heads * columns && columns > 0 {
            // One position: both orders of axes are the same, and no copy needs preparing.
            let rooms = call.output_f32().chunks_exact_mut(capacity * columns);
            for (room, new) in rooms.zip(new.chunks_exact(columns)) {
                room[before * columns..][..columns].copy_from_slice(new);
            }
            return Ok(());
        }
        let (of_past, of_new) = self.copies(shapes, capacity);
        if past.len() == of_past.elements() {
            of_past.run(past, call.output_f32());
        }
        of_new.run(new, call.output_f32());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_goes_behind_the_past_in_place_or_not() {
        let shapes = Shapes {
            inputs: vec![vec![1, 2, 2, 1], vec![1, 1, 2, 1]],
            output: vec![1, 2, 3, 1],
            parameters: Vec::new(),
        };
        let op = Append { new: Axes::ByPosition };
        let run = |past: &[f32], output: &mut [f32]| {
            let inputs = [bytemuck::cast_slice(past), bytemuck::cast_slice(&[5.0f32, 6.0])];
            let output = bytemuck::cast_slice_mut(output);
            op.run(Call { shapes: &shapes, inputs: &inputs, output, scratch: &mut [], units: 0..1 })
        };
        let mut output = [0.0; 6];
        run(&[1.0, 2.0, 3.0, 4.0], &mut output).unwrap();
        assert_eq!(output, [1.0, 2.0, 5.0, 3.0, 4.0, 6.0]);
        let mut cache = [1.0, 2.0, 0.0, 0.0, 3.0, 4.0, 0.0, 0.0];
        run(&[], &mut cache).unwrap();
        assert_eq!(cache, [1.0, 2.0, 5.0, 0.0, 3.0, 4.0, 6.0, 0.0]);
        assert!(run(&[], &mut [0.0; 4]).is_err());
    }
}
