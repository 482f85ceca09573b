//! The mask that hides keys that come after a query, and those too far before it.

use super::{CALL_INSTRUCTIONS, Call, Operator, Shapes};
use crate::graph::dims::Dim;
use std::ops::Range;
use tract_onnx::prelude::DatumType;

/// Input, if any: lengths of the texts of a batch, less one. Output: `[1, 1, queries, keys]`, 0 for keys that are seen and
/// minus infinity for the others. Query `i` is at position `offset + i`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CausalMask {
    pub offset: Dim,
    /// Keys that each query sees at most: its own and those just before.
    pub window: Option<usize>,
    /// The element type of the lengths: int32 or int64.
    pub lengths: Option<DatumType>,
}

/// Rows of a unit.
const ROWS_PER_UNIT: usize = 64;

impl CausalMask {
    /// Fails for lengths that are not those of the keys: behind a past, nothing is padded.
    fn check(&self, call: &Call<'_>, offset: usize, keys: usize) -> Result<(), String> {
        let fits = |length: i64| {
            let in_all = usize::try_from(length).ok().and_then(|length| length.checked_add(1));
            in_all == Some(keys) || offset == 0 && in_all.is_some_and(|in_all| in_all <= keys)
        };
        let wrong = match self.lengths {
            None => None,
            Some(DatumType::I32) => {
                let lengths: &[i32] = bytemuck::cast_slice(call.inputs[0]);
                lengths.iter().map(|length| i64::from(*length)).find(|length| !fits(*length))
            }
            Some(_) => bytemuck::cast_slice::<u8, i64>(call.inputs[0]).iter().copied().find(|length| !fits(*length)),
        };
        wrong.map_or(Ok(()), |wrong| Err(format!("seqlens_k is {wrong}, for {keys} keys, of which {offset} are past")))
    }
}

impl Operator for CausalMask {
    fn name(&self) -> &'static str {
        "CausalMask"
    }

    fn units(&self, shapes: &Shapes) -> usize {
        shapes.output[2].div_ceil(ROWS_PER_UNIT).max(1)
    }

    fn instructions(&self, shapes: &Shapes, units: Range<usize>) -> u64 {
        let rows = (units.len() * ROWS_PER_UNIT).min(shapes.output[2]);
        let lengths: usize = shapes.inputs.iter().flatten().product();
        CALL_INSTRUCTIONS + (rows * (200 + 2 * shapes.output[3]) + 20 * lengths) as u64
    }

    fn run(&self, mut call: Call<'_>) -> Result<(), String> {
        let (rows, keys) = (call.shapes.output[2], call.shapes.output[3]);
        let offset = call.shapes.parameters.first().map_or(0, |offset| *offset as usize);
        self.check(&call, offset, keys)?;
        let range = (call.units.start * ROWS_PER_UNIT).min(rows)..(call.units.end * ROWS_PER_UNIT).min(rows);
        let output = &mut call.output_f32()[range.start * keys..range.end * keys];
        for (row, mask) in range.zip(output.chunks_exact_mut(keys.max(1))) {
            let end = offset.saturating_add(row + 1).min(keys);
            let start = self.window.map_or(0, |window| (offset + row + 1).saturating_sub(window)).min(end);
            mask.fill(f32::NEG_INFINITY);
            mask[start..end].fill(0.0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(window: Option<usize>, length: i32, offset: i64, [rows, keys]: [usize; 2]) -> Result<Vec<f32>, String> {
        let op = CausalMask { offset: Dim::Free(0), window, lengths: Some(DatumType::I32) };
        let shapes = Shapes { inputs: vec![vec![1]], output: vec![1, 1, rows, keys], parameters: vec![offset] };
        let mut output = vec![1.0; rows * keys];
        let lengths = [length];
        for unit in 0..op.units(&shapes) {
            let (inputs, output) = ([bytemuck::cast_slice(&lengths)], bytemuck::cast_slice_mut(&mut output));
            op.run(Call { shapes: &shapes, inputs: &inputs, output, scratch: &mut [], units: unit..unit + 1 })?;
        }
        Ok(output)
    }

    #[test]
    fn a_query_sees_itself_and_what_came_before_within_the_window() {
        for (window, offset, rows) in [(None, 3, 4), (Some(2), 3, 4), (None, 0, 130), (Some(5), 7, 130)] {
            let keys = offset + rows;
            let mask = run(window, keys as i32 - 1, offset as i64, [rows, keys]).unwrap();
            for (at, got) in mask.into_iter().enumerate() {
                let (query, key) = (offset + at / keys, at % keys);
                let sees = key <= query && window.is_none_or(|window| key + window > query);
                assert_eq!(got, if sees { 0.0 } else { f32::NEG_INFINITY }, "{query} and {key}");
            }
        }
    }

    #[test]
    fn lengths_are_those_of_the_keys_or_of_texts_padded_behind() {
        assert!(run(None, 4, 0, [5, 5]).is_ok());
        assert!(run(None, 2, 0, [5, 5]).is_ok());
        for (length, offset) in [(5, 0), (-1, 0), (3, 2), (5, 2)] {
            let rows = 5 - offset as usize;
            assert!(run(None, length, offset, [rows, 5]).unwrap_err().contains(&format!("seqlens_k is {length}")));
        }
    }
}
