//! Element-wise operators beside f32 arithmetic: integers and f64, comparisons, logic, selection, with broadcasting.
//!
//! They serve index arithmetic and masks. Results are exact or rounded once, so there is one body for every target; its
//! inner loops run over consecutive elements. Integers wrap. An integer divided by zero is 0, and so is the remainder:
//! nothing traps.

mod body;
pub mod naive;

pub use body::{Comparable, Computable};

use crate::copy::Element;
use crate::pointwise::{ShapeError, broadcast_strides};

/// Most dimensions of a shape.
pub use crate::pointwise::MAX_RANK;

/// A tensor as seen from the output.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T> {
    pub(crate) data: &'a [T],
    /// 0 along dimensions that are broadcast.
    pub(crate) strides: [usize; MAX_RANK],
}

impl<'a, T: Element> View<'a, T> {
    /// A row-major tensor of shape `dims`, broadcast to `shape` by the rules of ONNX and NumPy.
    pub fn broadcast(data: &'a [T], dims: &[usize], shape: &[usize]) -> Result<Self, ShapeError> {
        let strides = broadcast_strides(dims, shape)?;
        let needed = dims.iter().product();
        if data.len() < needed {
            return Err(ShapeError::Elements { needed, got: data.len() });
        }
        Ok(Self { data, strides })
    }

    /// The element that belongs to an output element.
    fn at(&self, shape: &[usize], index: usize) -> T {
        let mut left = index;
        let mut offset = 0;
        for (dimension, stride) in shape.iter().zip(&self.strides).rev() {
            offset += left % dimension * stride;
            left /= dimension;
        }
        self.data[offset]
    }
}

/// Arithmetic of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    Add,
    Sub,
    Mul,
    /// Towards zero for integers.
    Div,
    /// The remainder with the sign of the divisor: ONNX's Mod with `fmod` 0.
    Mod,
    /// The remainder with the sign of the dividend: ONNX's Mod with `fmod` 1.
    Remainder,
    /// NaN if either is, and -0 below +0.
    Min,
    /// NaN if either is, and -0 below +0.
    Max,
}

/// Comparison of two numbers. "Greater" is "less" with the operands exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
}

/// Logic on bytes: of bools, which are 0 and 1, and bitwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logic {
    And,
    Or,
    Xor,
}

/// `output = a . b` over `shape`.
///
/// # Panics
/// When `output` does not have the elements of `shape`.
pub fn arithmetic<T: Computable>(function: Arithmetic, shape: &[usize], a: View<T>, b: View<T>, output: &mut [T]) {
    T::arithmetic(function, shape, a, b, output);
}

/// `output = a . b` over `shape`, as 0 and 1.
///
/// # Panics
/// When `output` does not have the elements of `shape`.
pub fn compare<T: Comparable>(function: Comparison, shape: &[usize], a: View<T>, b: View<T>, output: &mut [u8]) {
    T::compare(function, shape, a, b, output);
}

/// `output = a . b` over `shape`.
///
/// # Panics
/// When `output` does not have the elements of `shape`.
pub fn logic(function: Logic, shape: &[usize], a: View<u8>, b: View<u8>, output: &mut [u8]) {
    body::logic(function, shape, a, b, output);
}

/// `output = 1 - input` for bools.
///
/// # Panics
/// When lengths differ.
pub fn not(input: &[u8], output: &mut [u8]) {
    assert_eq!(input.len(), output.len(), "input and output differ in length");
    for (place, value) in output.iter_mut().zip(input) {
        *place = u8::from(*value == 0);
    }
}

/// `output = if condition != 0 { yes } else { no }` over `shape`: ONNX's Where.
///
/// # Panics
/// When `output` does not have the elements of `shape`.
pub fn select<T: Element>(shape: &[usize], condition: View<u8>, yes: View<T>, no: View<T>, output: &mut [T]) {
    /// The same elements as another type of the same size.
    fn moved<'a, T, As>(view: View<'a, T>) -> View<'a, As> {
        // SAFETY: called with types of the same size and alignment, any bits of the one being bits of the other.
        let data = unsafe { std::slice::from_raw_parts(view.data.as_ptr().cast(), view.data.len()) };
        View { data, strides: view.strides }
    }
    macro_rules! run {
        ($body:path) => {{
            // SAFETY: as above.
            let output = unsafe { std::slice::from_raw_parts_mut(output.as_mut_ptr().cast(), output.len()) };
            $body(shape, condition, moved(yes), moved(no), output)
        }};
    }
    match size_of::<T>() {
        1 => run!(body::select_1),
        2 => run!(body::select_2),
        4 => run!(body::select_4),
        _ => run!(body::select_8),
    }
}

/// Metered instructions of an operator of this module at most, over `elements` in rows of `columns`, in WebAssembly with
/// SIMD and without page charges. Divisions of integers are the dearest; a comparison or a selection costs
/// about a sixth.
pub fn estimate_instructions(elements: usize, columns: usize) -> u64 {
    400 + elements as u64 * 48 + (elements / columns.max(1)) as u64 * 150
}
