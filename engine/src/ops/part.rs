//! Parts of operators with broadcasting: the work is cut along the output's first axis that is longer than 1.

use super::ELEMENTS_PER_UNIT;
use onnx_kernels::typed::MAX_RANK;
use std::ops::Range;

/// Instructions of finding a part and its operands.
pub(crate) const PART_INSTRUCTIONS: u64 = 3_500;

/// Dimensions, without an allocation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dims {
    sizes: [usize; MAX_RANK],
    rank: usize,
}

impl Dims {
    fn new(dims: &[usize]) -> Dims {
        let mut sizes = [1; MAX_RANK];
        sizes[..dims.len()].copy_from_slice(dims);
        Dims { sizes, rank: dims.len() }
    }
}

impl std::ops::Deref for Dims {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.sizes[..self.rank]
    }
}

/// A part of an output of at most [`MAX_RANK`] dimensions: some indices of its first axis that is longer than 1.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// The part's own shape.
    pub shape: Dims,
    axis: usize,
    range: Range<usize>,
}

/// The axis along which an output is cut, and how many of its indices are a unit.
fn cut(output: &[usize]) -> (usize, usize) {
    let axis = output.iter().position(|size| *size != 1).unwrap_or(0);
    let inner: usize = output.iter().skip(axis + 1).product();
    (axis, (ELEMENTS_PER_UNIT / inner.max(1)).max(1))
}

/// Units of an operator with an output of this shape.
pub(crate) fn units(output: &[usize]) -> usize {
    let (axis, per_unit) = cut(output);
    output.get(axis).map_or(1, |size| size.div_ceil(per_unit).max(1))
}

impl Part {
    /// The part that is these units of an output.
    pub fn new(output: &[usize], units: &Range<usize>) -> Part {
        let (axis, per_unit) = cut(output);
        let size = output.get(axis).copied().unwrap_or(1);
        let range = (units.start * per_unit).min(size)..(units.end * per_unit).min(size);
        let mut shape = Dims::new(output);
        if shape.rank > 0 {
            shape.sizes[axis] = range.len();
        }
        Part { shape, axis, range }
    }

    /// Where the part is among the output's elements.
    pub fn output(&self) -> Range<usize> {
        let inner: usize = self.shape.iter().skip(self.axis + 1).product();
        if self.shape.rank == 0 { 0..1 } else { self.range.start * inner..self.range.end * inner }
    }

    /// What of an operand of shape `dims` goes with the part, and the shape of that.
    pub fn operand<'a, T>(&self, data: &'a [T], dims: &[usize]) -> (&'a [T], Dims) {
        let mut own = Dims::new(dims);
        // Axes are aligned at their ends. Those before the cut one are of size 1.
        let Some(axis) = (self.axis + dims.len()).checked_sub(self.shape.rank) else { return (data, own) };
        if self.shape.rank == 0 || own.get(axis).is_none_or(|size| *size == 1) {
            return (data, own);
        }
        let inner: usize = own.iter().skip(axis + 1).product();
        own.sizes[axis] = self.range.len();
        (&data[self.range.start * inner..self.range.end * inner], own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_the_output_and_take_their_operands_with_them() {
        let output = [1, 300, 1000];
        let units = units(&output);
        assert_eq!(units, 5);
        let mut covered = 0;
        for unit in 0..units {
            let part = Part::new(&output, &(unit..unit + 1));
            assert_eq!(part.output().start, covered);
            covered = part.output().end;
            let row = vec![0u8; 1000];
            assert_eq!(part.operand(&row, &[1000]).0.len(), 1000);
            let column: Vec<usize> = (0..300).collect();
            let (values, dims) = part.operand(&column, &[300, 1]);
            assert_eq!(values.len(), part.shape[1]);
            assert_eq!(values[0] * 1000, part.output().start);
            assert_eq!(&*dims, &[part.shape[1], 1]);
        }
        assert_eq!(covered, 300_000);
    }

    #[test]
    fn a_scalar_is_one_part() {
        let part = Part::new(&[], &(0..1));
        assert_eq!((units(&[]), part.output()), (1, 0..1));
        assert_eq!(part.operand(&[7], &[]).0, &[7]);
    }
}
