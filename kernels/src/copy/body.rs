//! The walk: which dimensions go inside, and the loops over the others.

use super::{Copy, MAX_RANK, run, tile};
use crate::lanes::Lanes;

/// Dimensions of a walk, none of which has one element, with neighbours merged.
struct Walk {
    rank: usize,
    dims: [usize; MAX_RANK],
    from: [isize; MAX_RANK],
    to: [isize; MAX_RANK],
}

impl Walk {
    fn new(copy: &Copy) -> Self {
        let mut walk = Self { rank: 0, dims: [1; MAX_RANK], from: [0; MAX_RANK], to: [0; MAX_RANK] };
        for axis in 0..MAX_RANK {
            let (dimension, from, to) = (copy.dims[axis], copy.input.strides[axis], copy.output.strides[axis]);
            if dimension == 1 {
                continue;
            }
            if walk.rank > 0 {
                let outer = walk.rank - 1;
                let steps = dimension as isize;
                if walk.from[outer] == from * steps && walk.to[outer] == to * steps {
                    walk.dims[outer] *= dimension;
                    (walk.from[outer], walk.to[outer]) = (from, to);
                    continue;
                }
            }
            walk.dims[walk.rank] = dimension;
            (walk.from[walk.rank], walk.to[walk.rank]) = (from, to);
            walk.rank += 1;
        }
        walk
    }

    /// Takes a dimension out.
    fn take(&mut self, axis: usize) -> Axis {
        let axis_of = Axis { dimension: self.dims[axis], from: self.from[axis], to: self.to[axis] };
        for next in axis + 1..self.rank {
            self.dims[next - 1] = self.dims[next];
            self.from[next - 1] = self.from[next];
            self.to[next - 1] = self.to[next];
        }
        self.rank -= 1;
        axis_of
    }

    fn find(&self, wanted: impl Fn(isize, isize) -> bool) -> Option<usize> {
        (0..self.rank).rev().find(|&axis| wanted(self.from[axis], self.to[axis]))
    }

    /// What is done inside the loops.
    fn inner(&mut self, size: usize) -> Inner {
        if let Some(axis) = self.find(|from, to| from == 1 && to == 1) {
            return Inner::Run(self.take(axis).dimension);
        }
        if size == 4 {
            let (columns, rows) = (self.find(|from, _| from == 1), self.find(|_, to| to == 1));
            if let (Some(columns), Some(rows)) = (columns, rows) {
                let (first, second) = (self.take(columns.max(rows)), self.take(columns.min(rows)));
                let (columns, rows) = if columns > rows { (first, second) } else { (second, first) };
                return Inner::Transpose { rows, columns };
            }
        }
        // Along the output, whose places follow each other.
        let axis = self.find(|_, to| to == 1).or(self.rank.checked_sub(1));
        Inner::Single(axis.map_or(Axis { dimension: 1, from: 0, to: 0 }, |axis| self.take(axis)))
    }
}

#[derive(Clone, Copy)]
struct Axis {
    dimension: usize,
    from: isize,
    to: isize,
}

#[derive(Clone, Copy)]
enum Inner {
    /// Consecutive elements.
    Run(usize),
    /// 32-bit elements: rows follow each other in the output, columns in the input.
    Transpose { rows: Axis, columns: Axis },
    /// Elements one by one.
    Single(Axis),
}

/// Copies elements of `size` bytes.
///
/// # Safety
/// Both layouts are within what the pointers point to, which does not overlap, and no dimension is 0.
pub unsafe fn run<V: Lanes>(copy: &Copy, from: *const u8, to: *mut u8, size: usize) {
    let mut walk = Walk::new(copy);
    let inner = walk.inner(size);
    let scale = size as isize;
    let mut source = from.wrapping_offset(copy.input.offset as isize * scale);
    let mut place = to.wrapping_offset(copy.output.offset as isize * scale);
    let mut at = [0usize; MAX_RANK];
    loop {
        // SAFETY: the caller's: these are elements of the two layouts.
        unsafe {
            match inner {
                Inner::Run(elements) => run::copy::<V>(source, place, elements * size),
                Inner::Transpose { rows, columns } => tile::transpose::<V>(
                    source.cast(),
                    rows.from,
                    place.cast(),
                    columns.to,
                    rows.dimension,
                    columns.dimension,
                ),
                Inner::Single(axis) => match size {
                    1 => singles::<u8>(source, place, axis),
                    2 => singles::<u16>(source, place, axis),
                    4 => singles::<u32>(source, place, axis),
                    _ => singles::<u64>(source, place, axis),
                },
            }
        }
        // The next indices: the last dimension first.
        let mut axis = walk.rank;
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            at[axis] += 1;
            source = source.wrapping_offset(walk.from[axis] * scale);
            place = place.wrapping_offset(walk.to[axis] * scale);
            if at[axis] < walk.dims[axis] {
                break;
            }
            let back = walk.dims[axis] as isize * scale;
            source = source.wrapping_offset(-walk.from[axis] * back);
            place = place.wrapping_offset(-walk.to[axis] * back);
            at[axis] = 0;
        }
    }
}

/// Elements along an axis.
#[inline(never)]
unsafe fn singles<T: std::marker::Copy>(from: *const u8, to: *mut u8, axis: Axis) {
    let (from, to) = (from.cast::<T>(), to.cast::<T>());
    // SAFETY: the caller's.
    unsafe {
        if axis.from == 0 && axis.to == 1 {
            let value = from.read_unaligned();
            for index in 0..axis.dimension {
                to.add(index).write_unaligned(value);
            }
            return;
        }
        for index in 0..axis.dimension as isize {
            to.offset(index * axis.to).write_unaligned(from.offset(index * axis.from).read_unaligned());
        }
    }
}

/// See [`Copy::estimate_instructions`].
pub fn estimate(copy: &Copy, size: usize) -> u64 {
    if copy.dims.contains(&0) {
        return 100;
    }
    let mut walk = Walk::new(copy);
    let inner = walk.inner(size);
    let times: u64 = walk.dims[..walk.rank].iter().map(|dimension| *dimension as u64).product();
    let each = match inner {
        Inner::Run(elements) => run::cost(elements * size),
        Inner::Transpose { rows, columns } => tile::cost(rows.dimension, columns.dimension),
        Inner::Single(axis) => 40 + axis.dimension as u64 * if axis.from == 0 { 6 } else { 12 },
    };
    1000 + times * (each + 45)
}
