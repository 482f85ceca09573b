//! Copies between strided tensors: transpose, slice, concatenate, expand, pad, split; and gathering rows.
//!
//! All of them are one kernel, [`Copy`]: dimensions, and where an element of given indices lies in the input and in the
//! output. It moves bits and computes nothing, so every element type of the same size is the same to it. What it finds by
//! itself: dimensions that can be merged, consecutive runs, two-dimensional transposes that go in tiles.

mod body;
mod gather;
pub mod naive;
mod run;
mod tile;

pub use gather::{Gather, IndexError};

use crate::lanes::Native;

/// Most dimensions.
pub const MAX_RANK: usize = 8;

/// An element type that is moved as its bits.
///
/// # Safety
/// Any bits that one value has are valid in another place; size 1, 2, 4 or 8 without padding.
pub unsafe trait Element: std::marker::Copy {}

macro_rules! elements {
    ($($type:ty)*) => {
        $(
            // SAFETY: a number or a bool, copied as it is.
            unsafe impl Element for $type {}
        )*
    };
}

elements!(u8 i8 bool u16 i16 u32 i32 f32 u64 i64 f64);

/// Where elements lie: `offset + sum of index * stride`, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub offset: usize,
    /// One per dimension; negative where an axis is walked backwards, 0 where it is broadcast.
    pub strides: [isize; MAX_RANK],
}

impl Layout {
    /// Strides of a row-major tensor of shape `dims`.
    ///
    /// # Panics
    /// With more than [`MAX_RANK`] dimensions.
    pub fn row_major(dims: &[usize]) -> Self {
        let mut strides = [0; MAX_RANK];
        let mut stride = 1isize;
        for (place, dimension) in strides[..dims.len()].iter_mut().zip(dims).rev() {
            *place = stride;
            stride *= *dimension as isize;
        }
        Self { offset: 0, strides }
    }

    /// The first and last element, of `dims` that has no 0.
    fn ends(&self, dims: &[usize; MAX_RANK]) -> (i128, i128) {
        let start = self.offset as i128;
        dims.iter().zip(self.strides).fold((start, start), |(low, high), (dimension, stride)| {
            let far = (*dimension as i128 - 1) * stride as i128;
            (low + far.min(0), high + far.max(0))
        })
    }
}

/// A copy of a tensor.
///
/// ```
/// use onnx_kernels::copy::Copy;
/// let mut output = [0; 6];
/// Copy::transpose(&[2, 3], &[1, 0]).run(&[1, 2, 3, 4, 5, 6], &mut output);
/// assert_eq!(output, [1, 4, 2, 5, 3, 6]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    dims: [usize; MAX_RANK],
    input: Layout,
    output: Layout,
}

impl Copy {
    /// Elements of `dims`, which lie as `input` says, to where `output` says. Where several have the same place in the
    /// output, which one it keeps is not said.
    ///
    /// # Panics
    /// With more than [`MAX_RANK`] dimensions.
    pub fn new(dims: &[usize], input: Layout, output: Layout) -> Self {
        assert!(dims.len() <= MAX_RANK, "{} dimensions, of at most {MAX_RANK}", dims.len());
        let mut all = [1; MAX_RANK];
        all[..dims.len()].copy_from_slice(dims);
        Self { dims: all, input, output }
    }

    /// A row-major tensor of shape `dims` with its axes in another order: axis `i` of the output is axis
    /// `permutation[i]` of the input.
    ///
    /// # Panics
    /// When `permutation` is none of the axes of `dims`.
    pub fn transpose(dims: &[usize], permutation: &[usize]) -> Self {
        let mut seen = [false; MAX_RANK];
        permutation.iter().for_each(|&axis| seen[axis] = true);
        assert!(
            permutation.len() == dims.len() && seen.iter().filter(|seen| **seen).count() == dims.len(),
            "{permutation:?} is no permutation of {} axes",
            dims.len()
        );
        let from = Layout::row_major(dims);
        let mut shape = [1; MAX_RANK];
        let mut input = Layout { offset: 0, strides: [0; MAX_RANK] };
        for (axis, &source) in permutation.iter().enumerate() {
            shape[axis] = dims[source];
            input.strides[axis] = from.strides[source];
        }
        let shape = &shape[..dims.len()];
        Self::new(shape, input, Layout::row_major(shape))
    }

    /// Only the indices `range` along `axis`: a way to cut a copy.
    ///
    /// # Panics
    /// When the range is not within the axis.
    pub fn part(&self, axis: usize, range: std::ops::Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.dims[axis], "{range:?} of {}", self.dims[axis]);
        let mut part = *self;
        part.dims[axis] = range.len();
        // Of an empty part the offsets count for nothing.
        if !range.is_empty() {
            for layout in [&mut part.input, &mut part.output] {
                layout.offset = layout.offset.wrapping_add_signed(range.start as isize * layout.strides[axis]);
            }
        }
        part
    }

    /// Elements that are copied.
    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// Copies.
    ///
    /// # Panics
    /// When a layout reaches beyond its slice.
    pub fn run<T: Element>(&self, input: &[T], output: &mut [T]) {
        if self.check(input.len(), output.len()) {
            // SAFETY: both layouts are within their slices, which do not overlap.
            unsafe { selected(self, input.as_ptr().cast(), output.as_mut_ptr().cast(), size_of::<T>()) };
        }
    }

    /// Whether there is anything to copy; panics if a layout reaches beyond its slice.
    fn check(&self, input: usize, output: usize) -> bool {
        if self.dims.contains(&0) {
            return false;
        }
        for (name, layout, length) in [("input", &self.input, input), ("output", &self.output, output)] {
            let (low, high) = layout.ends(&self.dims);
            assert!(low >= 0 && high < length as i128, "elements {low} to {high} of an {name} of {length}");
        }
        true
    }

    /// Metered instructions of [`Copy::run`] with elements of `size` bytes, in WebAssembly with SIMD and without page
    /// charges.
    pub fn estimate_instructions(&self, size: usize) -> u64 {
        body::estimate(self, size)
    }
}

/// The body that this target runs. Not generic, so that it is compiled in this crate.
///
/// # Safety
/// As [`body::run`].
#[inline(never)]
unsafe fn selected(copy: &Copy, from: *const u8, to: *mut u8, size: usize) {
    // SAFETY: the caller's.
    unsafe { body::run::<Native>(copy, from, to, size) };
}

/// Bodies for any target.
pub mod portable {
    use super::*;
    use crate::lanes::portable::Four;

    /// See [`Copy::run`].
    pub fn run<T: Element>(copy: &Copy, input: &[T], output: &mut [T]) {
        if copy.check(input.len(), output.len()) {
            // SAFETY: both layouts are within their slices, which do not overlap.
            unsafe { body::run::<Four>(copy, input.as_ptr().cast(), output.as_mut_ptr().cast(), size_of::<T>()) };
        }
    }
}
