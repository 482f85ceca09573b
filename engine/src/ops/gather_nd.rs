//! `GatherND`: parts of a value picked by the coordinates where they start.

use super::{CALL_INSTRUCTIONS, Call, Op, Operator, Shapes};
use crate::graph::ValueId;
use crate::graph::import::{Lowering, is_number};
use std::ops::Range;
use tract_onnx::tract_core::ops::array;

/// Inputs: data, of any element type, and int64 indices `[batch.., .., coordinates]`; the first `batch` axes are the same
/// in both. A coordinate from minus its axis' size on counts from the end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GatherNd {
    pub batch: usize,
}

pub(crate) fn lower(lowering: &mut Lowering<'_>, op: &array::GatherNd) -> Option<ValueId> {
    let &[data, indices] = lowering.inputs.as_slice() else { return None };
    let indices = lowering.int64(indices)?;
    let values = &lowering.graph.values;
    let (datum_type, rank) = (values[data].datum_type, values[indices].dims.len());
    let coordinates = values[indices].dims.last()?.known()?;
    if !is_number(datum_type) || rank <= op.batch_dims || op.batch_dims + coordinates > values[data].dims.len() {
        return None;
    }
    let (name, dims) = (lowering.node.name.clone(), lowering.output_dims());
    let op = Op::GatherNd(GatherNd { batch: op.batch_dims });
    Some(lowering.graph.add_node(&name, op, vec![data, indices], datum_type, dims))
}

impl GatherNd {
    /// Picks, and elements of each.
    fn picks(&self, shapes: &Shapes) -> (usize, usize) {
        let (data, indices) = (&shapes.inputs[0], &shapes.inputs[1]);
        let coordinates = indices.last().copied().unwrap_or(0);
        let picks = indices[..indices.len().saturating_sub(1)].iter().product();
        (picks, data[(self.batch + coordinates).min(data.len())..].iter().product())
    }
}

impl Operator for GatherNd {
    fn name(&self) -> &'static str {
        "GatherND"
    }

    fn instructions(&self, shapes: &Shapes, _units: Range<usize>) -> u64 {
        let (picks, elements) = self.picks(shapes);
        let coordinates = shapes.inputs[1].last().copied().unwrap_or(0);
        CALL_INSTRUCTIONS + picks as u64 * (180 + 40 * coordinates as u64 + 8 * elements as u64)
    }

    fn run(&self, call: Call<'_>) -> Result<(), String> {
        let (picks, elements) = self.picks(call.shapes);
        let (data, indices) = (&call.shapes.inputs[0], &call.shapes.inputs[1]);
        let coordinates = indices.last().copied().unwrap_or(0);
        if picks * elements == 0 {
            return Ok(());
        }
        let bytes = call.output.len() / picks;
        let batches: usize = data[..self.batch].iter().product();
        let axes = &data[self.batch..self.batch + coordinates];
        let numbers: &[i64] = bytemuck::cast_slice(call.inputs[1]);
        for pick in 0..picks {
            let mut at = pick / (picks / batches.max(1)).max(1);
            for (axis, size) in axes.iter().enumerate() {
                let index = numbers[pick * coordinates + axis];
                let counted = if index < 0 { index.saturating_add(*size as i64) } else { index };
                let counted = usize::try_from(counted).ok().filter(|counted| counted < size);
                at = at * size + counted.ok_or_else(|| format!("index {index} is outside an axis of length {size}"))?;
            }
            call.output[pick * bytes..(pick + 1) * bytes]
                .copy_from_slice(&call.inputs[0][at * bytes..(at + 1) * bytes]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_picked_by_their_coordinates() {
        let data: Vec<u8> = (0..12).collect();
        let run = |batch: usize, indices: &[i64], shape: &[usize], output: &[usize]| {
            let shapes =
                Shapes { inputs: vec![vec![2, 3, 2], shape.to_vec()], output: output.to_vec(), parameters: Vec::new() };
            let mut result = vec![0; output.iter().product()];
            let call = Call {
                shapes: &shapes,
                inputs: &[&data, bytemuck::cast_slice(indices)],
                output: &mut result,
                scratch: &mut [],
                units: 0..1,
            };
            GatherNd { batch }.run(call).map(|()| result)
        };
        assert_eq!(run(0, &[1, 2, 0, -3], &[2, 2], &[2, 2]).unwrap(), [10, 11, 0, 1]);
        assert_eq!(run(1, &[2, 0], &[2, 1], &[2, 2]).unwrap(), [4, 5, 6, 7]);
        assert_eq!(run(0, &[2, 0], &[1, 2], &[1, 2]), Err("index 2 is outside an axis of length 2".into()));
    }
}
